"""Site without mistakes -> who may talk to the agent over the network. Pure."""

from __future__ import annotations

from ipshare import model
from ipshare.config import schema
from ipshare.config.site import Site


def remote(site: Site, wanted: schema.Remote) -> model.Remote:
    place = site.document.place(wanted._path)
    folder = place.file.parent
    return model.Remote(
        listen=wanted.listen,
        ca=folder / wanted.ca,
        certificate=folder / wanted.certificate,
        revoked=folder / wanted.revoked if wanted.revoked is not None else None,
        roles=tuple(dict.fromkeys(wanted.roles)),
        place=place,
    )
