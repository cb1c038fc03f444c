"""Checks of `[[cluster]]`: servers on-link with addresses of their own, an address that nothing else
translates, probes that end in time.

Whether a device of the kernel is there, and the subnet on it, is found by the agent before it starts. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ipshare.config import schema
from ipshare.config.check_vpp import known_port
from ipshare.config.checks import Check, Finding, is_vpp, unique_name
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import named, readable
from ipshare.config.site import Site
from ipshare.config.units import Invalid, bad_scope, device
from ipshare.model import Address, Prefix, contains, host_prefix

MAX_CLUSTERS, MAX_SERVERS = 64, 512
LONGEST_S = 3600.0
ENCAPSULATE = (
    'a server elsewhere is reached by encapsulation: make it an [[endpoint]] with path = "ipip" or "gue"'
)


@dataclass(frozen=True, slots=True)
class _Use:
    """An address that a cluster uses, for what, and where that is written."""

    address: Address
    what: str
    path: KeyPath


def _addresses(cluster: schema.Cluster) -> Iterator[_Use]:
    for index, address in enumerate(cluster.address):
        yield _Use(address, f"the address of cluster {cluster.name!r}", (*cluster._path, "address", index))


def _servers(cluster: schema.Cluster) -> Iterator[_Use]:
    for number, server in enumerate(cluster.server):
        if "address" in server._broken or "name" in server._broken:
            continue
        for index, address in enumerate(server.address):
            path = (*cluster._path, "server", number, "address", index)
            yield _Use(address, f"the address of server {server.name!r}", path)


def interface(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    path = (*cluster._path, "interface")
    if is_vpp(site):
        yield from known_port(site, path, cluster.interface)
        yield from _on_port(site, cluster)
        return
    try:
        device(cluster.interface)
    except Invalid as wrong:
        yield Finding(path, wrong.message, wrong.hint)
    for key in ("outer_device", "inner_device"):
        if key not in site.engine._broken and getattr(site.engine, key) == cluster.interface:
            message = f"{cluster.interface!r} is the engine's own {key}"
            yield Finding(path, message, "name the device that the servers are behind")


def _on_port(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    """VPP asks for its servers from an address in their subnet. An interface of a VPP that somebody else
    sets up has its own, which are not in the file."""
    port = named(site.interface, cluster.interface)
    if port is None or not port.addresses:
        return
    for index, subnet in enumerate(cluster.subnet):
        own = [address.network for address in port.addresses if address.version == subnet.version]
        if not any(contains(network, subnet) for network in own):
            message = f"{subnet} is not on-link at {port.name}: no address of it is in there"
            yield Finding((*cluster._path, "subnet", index), message, f"give {port.name} an address in it")


def _one_of_each(path: KeyPath, values: Iterable[Address | Prefix], word: str) -> Iterator[Finding]:
    seen: set[int] = set()
    for index, value in enumerate(values):
        if value.version in seen:
            yield Finding((*path, index), f"a second IPv{value.version} {word}", "at most one of each family")
        seen.add(value.version)


def families(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    yield from _one_of_each((*cluster._path, "address"), cluster.address, "address")
    yield from _one_of_each((*cluster._path, "subnet"), cluster.subnet, "subnet")
    if not cluster.address:
        yield Finding((*cluster._path, "address"), "no address", "write what clients know")
    subnets = {subnet.version for subnet in cluster.subnet}
    for use in _addresses(cluster):
        if use.address.version not in subnets:
            message = f"{use.address} is IPv{use.address.version}, and the cluster has no such subnet"
            yield Finding(use.path, message, "add one to subnet, or leave the address out")


def some_servers(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    """At least one for each address, not all of weight 0, each with a name of its own."""
    path = (*cluster._path, "server")
    if not cluster.server:
        yield Finding(path, f"cluster {cluster.name!r} has no server", "write [[cluster.server]]")
        return
    have = {use.address.version for use in _servers(cluster)}
    for use in _addresses(cluster):
        if use.address.version not in have:
            message = f"no server has an IPv{use.address.version} address, and {use.address} needs one"
            yield Finding(use.path, message, "give a server one, or leave the address out")
    if not any("weight" in server._broken or server.weight for server in cluster.server):
        message = "every server has weight 0: none would get a connection"
        yield Finding(path, message, "give one a weight; drain = true takes a server out of use")
    names: dict[str, KeyPath] = {}
    for index, server in enumerate(readable(cluster.server, "name")):
        where = (*path, index, "name")
        if server.name in names:
            at = site.document.place(names[server.name])
            message = f"the name {server.name!r} is taken by the server at {at}"
            yield Finding(where, message, "give every server a name of its own")
        names.setdefault(server.name, where)


def on_link(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    """Servers and routers are in the access subnet, and are hosts there."""
    for number, server in enumerate(readable(cluster.server, "address")):
        yield from _one_of_each((*cluster._path, "server", number, "address"), server.address, "address")
    routers = (_Use(a, "a router", (*cluster._path, "routers", i)) for i, a in enumerate(cluster.routers))
    for use in (*_servers(cluster), *routers):
        subnet = next((s for s in cluster.subnet if s.version == use.address.version), None)
        if subnet is None and use.address.version in {address.version for address in cluster.address}:
            continue  # said of the cluster's address
        if subnet is None or use.address not in subnet:
            message = f"{use.address} is not on-link: {subnet or 'no subnet of its family'} is"
            hint = ENCAPSULATE if "server" in use.path else "routers are in the access subnet"
            yield Finding(use.path, message, hint)
        elif subnet.prefixlen < subnet.max_prefixlen - 1 and use.address in _no_hosts(subnet):
            yield Finding(use.path, f"{use.address} is no host of {subnet}", "use another address of it")
    for use in _addresses(cluster):
        subnet = next((s for s in cluster.subnet if s.version == use.address.version), None)
        if subnet is not None and use.address in subnet:
            message = f"{use.address} is in the access subnet {subnet}: nobody there answers for it"
            yield Finding(use.path, message, "a cluster's address is routed: use one outside of the subnet")


def _no_hosts(subnet: Prefix) -> tuple[Address, ...]:
    if subnet.version == 6:
        return (subnet.network_address,)
    return subnet.network_address, subnet.broadcast_address


def once(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    """No address has two meanings. Servers of two clusters may be the same."""
    seen: dict[Address, _Use] = {}
    for other in readable(site.cluster, "address", "name"):
        if other is cluster:
            break
        seen |= {use.address: use for use in _addresses(other)}
    for use in _addresses(cluster):
        yield from _taken(site, seen, use)
    own: dict[Address, _Use] = {}
    for use in _servers(cluster):
        yield from _taken(site, seen | own, use)
        own[use.address] = use


def _taken(site: Site, seen: dict[Address, _Use], use: _Use) -> Iterator[Finding]:
    first = seen.setdefault(use.address, use)
    if first is not use:
        message = f"{use.address} is {first.what} already ({site.document.place(first.path)})"
        hint = "a server has an address of its own, beside the cluster's; nobody is listed twice"
        yield Finding(use.path, message, hint)


def apart(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    """What something else answers for or translates is no address of a cluster."""
    claims = list(_claims(site))
    for use in _addresses(cluster):
        if scope := bad_scope(host_prefix(use.address)):
            yield Finding(use.path, f"{use.address} is {scope}: no cluster can have it", "use another one")
        for prefix, what, hint in claims:
            if prefix.version == use.address.version and use.address in prefix:
                yield Finding(use.path, f"{use.address} is in {what}", hint)
    pair = site.pair if site.pair is not None and "vip" not in site.pair._broken else None
    vips = [vip.address for vip in readable(pair.vip, "address")] if pair is not None else []
    for use in (*_addresses(cluster), *_servers(cluster)):
        if use.address in vips:
            yield Finding(
                use.path,
                f"{use.address} is a VIP of the pair",
                "the VIP is what routers send to: use another",
            )


def _claims(site: Site) -> Iterator[tuple[Prefix, str, str]]:
    for network in readable(site.network, "prefix"):
        hint = "a Global IP has bindings: give the cluster an address of its own"
        yield network.prefix, f"Global Network {network.prefix} ({site.where(network)})", hint
    for endpoint in readable(site.endpoint, "local"):
        for prefix in endpoint.local:
            hint = "packets to a local address are those of a binding: use another one"
            yield prefix, f"local network {prefix} ({site.where(endpoint)})", hint
    for nat in readable(site.nat, "addresses"):
        for pool in nat.addresses:
            for prefix in pool.prefixes:
                yield (
                    prefix,
                    f"{pool} of the NAT at {site.where(nat)}",
                    "an address is a pool's or a cluster's",
                )


def next_hop(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    """A pair needs a VIP that routers can send the cluster's packets to."""
    if site.pair is None:
        return
    for subnet in cluster.subnet:
        if any(use.address.version == subnet.version for use in _addresses(cluster)) and not any(
            vip.address in subnet for vip in readable(site.pair.vip, "address")
        ):
            message = f"no VIP of the pair is in {subnet}: routers there have no next hop that moves"
            yield Finding((*cluster._path, "subnet"), message, "add one: [[pair.vip]]", is_warning=True)


def times(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    if not 0 <= cluster.slow_start <= LONGEST_S:
        message = f"slow_start is {cluster.slow_start:g} s: at most an hour"
        yield Finding((*cluster._path, "slow_start"), message, 'write for example "30s"')


def probe(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    found, path = cluster.probe, (*cluster._path, "probe")
    for key in ("interval", "timeout"):
        if not 0.01 <= getattr(found, key) <= LONGEST_S:
            yield Finding((*path, key), f"{key} is between 10ms and 1h", 'write for example "1s"')
            return
    if found.timeout >= found.interval:
        message = f"timeout ({found.timeout:g} s) is not below interval ({found.interval:g} s)"
        yield Finding((*path, "timeout"), message, "a probe must end before the next one: lower timeout")
    if found.kind == "tcp" and found.port is None:
        yield Finding(path, "a tcp probe needs a port", "write port = 80, or whatever the servers serve")
    if found.kind == "icmp" and found.port is not None:
        yield Finding((*path, "port"), "an icmp probe has no port", 'write kind = "tcp", or leave it out')
    if found.kind != "http" and found.path != "/":
        yield Finding((*path, "path"), f"a {found.kind} probe asks for no path", 'write kind = "http"')
    if not found.path.startswith("/") or any(c.isspace() or not c.isprintable() for c in found.path):
        message = f"{found.path!r} is no path of a URL"
        yield Finding((*path, "path"), message, "it begins with / and has no spaces")


def totals(site: Site, cluster: schema.Cluster) -> Iterator[Finding]:
    """Said at the cluster with which it becomes too much."""
    sessions = site.sessions if site.sessions is not None else schema.Sessions()
    room = sessions.addresses - sum(p.count for nat in readable(site.nat, "addresses") for p in nat.addresses)
    clusters, servers, own = 0, 0, set[Address]()
    for other in readable(site.cluster, "address", "server", "name"):
        before = clusters, servers, len(own)
        clusters += len(other.address)
        servers += len(list(_servers(other)))
        own |= {use.address for use in _servers(other)}
        if other is not cluster:
            continue
        for count, was, most, words, hint in (
            (clusters, before[0], MAX_CLUSTERS, "addresses of clusters", "use another node for some"),
            (
                servers,
                before[1],
                MAX_SERVERS,
                "addresses of servers in all clusters",
                "use another node for some",
            ),
            (
                len(own),
                before[2],
                room,
                "addresses of servers, beside those of NATs",
                "write addresses = ... in [sessions]",
            ),
        ):
            if was <= most < count:
                yield Finding(cluster._path, f"{count} {words}: there is room for {most}", hint)


CHECKS: dict[str, list[Check]] = {
    "cluster": [
        unique_name,
        interface,
        families,
        some_servers,
        on_link,
        once,
        apart,
        next_hop,
        times,
        probe,
        totals,
    ],
}
