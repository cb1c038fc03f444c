"""Site without mistakes -> model.Channel: the channels of this node's end point, seen from here. Pure."""

from __future__ import annotations

from ipshare import model
from ipshare.config import schema
from ipshare.config.check_channel import own_end
from ipshare.config.site import Site


def channels(site: Site) -> tuple[model.Channel, ...]:
    """Those that end here; the others are other nodes' business."""
    found = ((channel, own_end(site, channel)) for channel in site.channel)
    return tuple(_channel(site, channel, end) for channel, end in found if end is not None)


def _channel(site: Site, channel: schema.Channel, mine: int) -> model.Channel:
    here, there = channel.end[mine], channel.end[1 - mine]
    folder = site.document.place((*channel._path, "key_file")).file.parent
    return model.Channel(
        name=channel.name,
        peer=there.endpoint,
        kind=channel.kind,
        local=tuple(here.addresses),
        remote=tuple(there.addresses),
        gue_port=channel.gue_port,
        mtu=channel.mtu,
        paths=tuple(
            model.PairPath(*ours, *theirs) for ours, theirs in zip(here.paths, there.paths, strict=True)
        ),
        key_file=folder / channel.key_file,
    )
