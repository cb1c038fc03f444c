"""Site without mistakes -> the model of NAT logs and leases. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address

from ipshare import model
from ipshare.config import schema
from ipshare.config.check_natlog import endpoint_of
from ipshare.config.site import Site
from ipshare.model_natlog import FACILITIES


def nat_log(wanted: schema.NatLog) -> model.NatLog:
    return model.NatLog(
        events=tuple(dict.fromkeys(wanted.events)),
        domain=wanted.domain,
        template_s=int(wanted.templates),
        collectors=tuple(
            model.NatCollector(*c.address, c.format, FACILITIES.index(c.facility)) for c in wanted.collector
        ),
    )


def leases(site: Site) -> tuple[model.Lease, ...]:
    found = []
    for lease in site.lease:
        endpoint = endpoint_of(site, lease)
        assert endpoint is not None and isinstance(lease.local, IPv4Address), "checked"
        assert lease.server is None or isinstance(lease.server, IPv4Address), "checked"
        found.append(
            model.Lease(lease.name, lease.mac, lease.local, endpoint.name, lease.interface, lease.server)
        )
    return tuple(found)
