"""Site without mistakes -> how this node announces (SYSTEMS.md S1.1). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from ipshare import model
from ipshare.config import schema
from ipshare.config.check_bgp import families_of, router_id
from ipshare.config.site import Site
from ipshare.model import Address


def bgp(site: Site, wanted: schema.Bgp) -> model.Bgp:
    identifier = router_id(wanted)
    assert isinstance(identifier, IPv4Address), "checked"
    return model.Bgp(
        asn=wanted.asn,
        router_id=identifier,
        local4=_v4(wanted.local),
        local6=_v6(wanted.local),
        hold_s=int(wanted.hold_time),
        bfd_interval_ms=round(wanted.bfd_interval * 1000),
        bfd_multiplier=wanted.bfd_multiplier,
        max_stale_s=wanted.max_stale,
        drain_s=wanted.drain_time,
        withdraw_after_s=wanted.withdraw_after,
        neighbors=tuple(_neighbor(site, wanted, index) for index in range(len(wanted.neighbor))),
    )


def _neighbor(site: Site, wanted: schema.Bgp, index: int) -> model.BgpNeighbor:
    neighbor = wanted.neighbor[index]
    place = site.document.place((*wanted._path, "neighbor", index))
    password = neighbor.password_file
    return model.BgpNeighbor(
        address=neighbor.address,
        asn=neighbor.asn,
        families=families_of(neighbor),
        next_hop4=_v4(neighbor.next_hop),
        next_hop6=_v6(neighbor.next_hop),
        multihop=neighbor.multihop,
        bfd=neighbor.bfd,
        password_file=place.file.parent / password if password is not None else None,
        med=neighbor.med,
        prepend=neighbor.prepend,
        communities=tuple(dict.fromkeys(neighbor.communities)),
        place=place,
    )


def _v4(addresses: Iterable[Address]) -> IPv4Address | None:
    return next((a for a in addresses if isinstance(a, IPv4Address)), None)


def _v6(addresses: Iterable[Address]) -> IPv6Address | None:
    return next((a for a in addresses if isinstance(a, IPv6Address)), None)
