"""Checks of `[nat_log]`, `[[lease]]` and of deterministic `[[nat]]`s. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from ipshare.config import schema
from ipshare.config.checks import Check, Finding, is_vpp, unique_name
from ipshare.config.resolve import is_encapsulated, readable
from ipshare.config.site import Site
from ipshare.config.units import bad_scope
from ipshare.model import Address, contains, host_prefix
from ipshare.model_natlog import block_size

MOST_COLLECTORS = 8
LONGEST_TEMPLATES_S = 86_400
FEW_PORTS = 64


# ---- [nat_log] ---------------------------------------------------------------------


def has_nat(site: Site, log: schema.NatLog) -> Iterator[Finding]:
    if not site.nat and "nat" not in site.incomplete:
        yield Finding(log._path, "nothing is translated here: there is no [[nat]]", "leave [nat_log] out")
    if "events" not in log._broken and not log.events:
        yield Finding((*log._path, "events"), "events is empty: nothing would be told", "leave [nat_log] out")


def template_time(site: Site, log: schema.NatLog) -> Iterator[Finding]:
    if not 1 <= log.templates <= LONGEST_TEMPLATES_S or log.templates != int(log.templates):
        message = f"{log.templates:g} s is no whole number of seconds from 1 to {LONGEST_TEMPLATES_S:,}"
        yield Finding((*log._path, "templates"), message, 'write for example "10m"')


def collectors(site: Site, log: schema.NatLog) -> Iterator[Finding]:
    path = (*log._path, "collector")
    if not 1 <= len(log.collector) <= MOST_COLLECTORS:
        message = f"{len(log.collector)} collectors: a log has 1 to {MOST_COLLECTORS}"
        yield Finding(path, message, "write [[nat_log.collector]] for each")
        return
    seen = set()
    for index, collector in enumerate(readable(log.collector, "address", "format")):
        if scope := bad_scope(host_prefix(collector.address[0])):
            if scope != "loopback":
                message = f"{collector.address[0]} is {scope}: no collector"
                yield Finding((*path, index, "address"), message, "use an address that this node reaches")
        elif (*collector.address, collector.format) in seen:
            message = "this collector gets the log already"
            yield Finding((*path, index, "address"), message, "list every collector once")
        seen.add((*collector.address, collector.format))


# ---- deterministic ports -----------------------------------------------------------


def blocks(site: Site, nat: schema.Nat) -> Iterator[Finding]:
    """Subscriber number and block number are one: one prefix inside, one range outside, in each family."""
    if not nat.deterministic or len(nat.ports) != 2 or nat.ports[0] > nat.ports[1]:
        return
    path = (*nat._path, "deterministic")
    for family in (4, 6):
        inside = [prefix for prefix in nat.inside if prefix.version == family]
        pools = [pool for pool in nat.addresses if pool.first.version == family]
        if not inside or not pools:
            continue
        if len(inside) > 1 or len(pools) > 1:
            message = f"deterministic ports take one inside prefix and one range of addresses in IPv{family}"
            yield Finding(path, message, "write a [[nat]] for each inside prefix")
            continue
        size = block_size(inside[0], pools[0].count, nat.ports[1] - nat.ports[0] + 1)
        if not size:
            message = f"{pools[0]} has too few ports for every subscriber of {inside[0]}"
            yield Finding(path, message, "add addresses, or make the inside prefix smaller")
        elif size < FEW_PORTS:
            message = f"each subscriber of {inside[0]} has {size} ports, and more are refused"
            yield Finding(path, message, "add addresses", is_warning=True)


# ---- [[lease]] -----------------------------------------------------------------------


def endpoint_of(site: Site, lease: schema.Lease) -> schema.Endpoint | None:
    """The end point that the private address is at."""
    prefix = host_prefix(lease.local)
    for endpoint in readable(site.endpoint, "local", "path"):
        if not is_encapsulated(endpoint) and any(contains(local, prefix) for local in endpoint.local):
            return endpoint
    return None


def place(site: Site, lease: schema.Lease) -> Iterator[Finding]:
    path = (*lease._path, "local")
    if lease.local.version != 4:
        yield Finding(path, f"{lease.local} is IPv6: leases are DHCPv4", "write an IPv4 address")
    elif not {"endpoint"} & site.incomplete and endpoint_of(site, lease) is None:
        message = f"{lease.local} is in no local network of a rewriting end point"
        yield Finding(path, message, "add it to `local` of its end point")
    if not any(n.prefix.version == 4 for n in readable(site.network, "prefix")) and site.network:
        message = "no [[network]] is IPv4: a leased address would be in none"
        yield Finding(lease._path, message, "add the network that the DHCP server leases from")


def server(site: Site, lease: schema.Lease) -> Iterator[Finding]:
    if lease.server is not None and (lease.server.version != 4 or bad_scope(host_prefix(lease.server))):
        message = f"{lease.server} is no address of a DHCPv4 server"
        yield Finding((*lease._path, "server"), message, "write its IPv4 address, or leave it out")


def _is_v4(server: Address | None) -> bool:
    return server is None or server.version == 4


def mac(site: Site, lease: schema.Lease) -> Iterator[Finding]:
    """The key: of one workload alone, at any interface."""
    for key in ("mac", "local"):
        for other in readable(takewhile(lambda o: o is not lease, site.lease), key):
            if key not in lease._broken and getattr(other, key) == getattr(lease, key):
                message = f"{getattr(lease, key)} is that of {other.name!r} already ({site.where(other)})"
                yield Finding((*lease._path, key), message, "every workload has its own")
                break


def device(site: Site, lease: schema.Lease) -> Iterator[Finding]:
    for key in ("outer_device", "inner_device"):
        if key not in site.engine._broken and getattr(site.engine, key) == lease.interface:
            message = f"{lease.interface!r} is the engine's own {key}"
            yield Finding((*lease._path, "interface"), message, "name the device towards the DHCP server")
    for port in readable(site.interface, "name", "host") if is_vpp(site) else ():
        if lease.interface in (port.name, port.host):
            message = f"{lease.interface!r} is VPP's ({site.where(port)}): the agent has no address there"
            hint = "name a device that the kernel keeps, in the network of the DHCP server"
            yield Finding((*lease._path, "interface"), message, hint)
    for other in readable(takewhile(lambda o: o is not lease, site.lease), "interface", "server"):
        if other.interface == lease.interface and other.server != lease.server and _is_v4(lease.server):
            message = f"{lease.interface!r} has another server at {site.where(other)}"
            yield Finding((*lease._path, "server"), message, "write the same server for one interface")
            break


CHECKS: dict[str, list[Check]] = {
    "nat_log": [has_nat, template_time, collectors],
    "nat": [blocks],
    "lease": [unique_name, place, server, mac, device],
}
