"""Checks of `[pair]`: two nodes, ways between them, VIPs that nothing else claims.

`node` and `vip` are tables of [pair]: a refused key in one hides the checks of its kind, not of the other.
What takes the machine to see (key file, interfaces) is found by the agent before it starts. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ipshare.config import schema
from ipshare.config.check_criteria import criteria
from ipshare.config.check_observers import is_observer
from ipshare.config.check_pair_routes import routes
from ipshare.config.check_public import ports, publics
from ipshare.config.check_vpp import known_port
from ipshare.config.check_witness import witness
from ipshare.config.checks import Check, Finding, is_vpp
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import readable
from ipshare.config.site import Site
from ipshare.config.units import Invalid, bad_scope, device
from ipshare.model import Address, contains, host_prefix
from ipshare.model_pair import FLOOR_S, JITTER_S, lease_of

MAX_PATHS, MAX_VIPS = 4, 16
SHORTEST_NS, LONGEST_NS = 100_000, 2_000_000_000
ONE_PATH = (
    "one path between the nodes: when it fails, each takes the other for dead, and both are active as long "
    "as it is cut"
)


def times(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    if not SHORTEST_NS <= round(pair.interval * 1e9) <= LONGEST_NS:
        message = f"interval {pair.interval:g} s is not between 100us and 2s"
        yield Finding((*pair._path, "interval"), message, 'write for example "10ms"')
        return
    dead_s = pair.misses * pair.interval
    lease_s, need_s = lease_of(max(dead_s, FLOOR_S)), pair.interval + JITTER_S + min(1e-3, pair.interval / 2)
    if lease_s <= need_s:
        message = (
            f"a heartbeat may come {need_s * 1e3:.1f} ms after the one before, and the lease is "
            f"{lease_s * 1e3:.1f} ms: a node would stop in between"
        )
        yield Finding((*pair._path, "misses"), message, "allow more misses, or another interval")
    elif dead_s < FLOOR_S:
        message = f"{pair.misses} misses take {dead_s * 1e3:g} ms: the peer is given {FLOOR_S * 1e3:g} ms"
        hint = f"pauses of some ms are normal; {FLOOR_S * 1e3:g} ms and more are taken as they are"
        yield Finding((*pair._path, "interval"), message, hint, is_warning=True)


def hook(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    if pair.hook is not None and not pair.hook.startswith("/"):
        yield Finding((*pair._path, "hook"), f"{pair.hook!r} is not an absolute path", "begin it with /")


def two_nodes(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    path, names = (*pair._path, "node"), [node.name for node in pair.node]
    if len(names) != 2:
        message = f"a pair has two nodes, not {len(names)}"
        yield Finding(path, message, "write [[pair.node]] once for each of the two")
    elif names[0] == names[1]:
        message = f"both nodes of the pair are named {names[0]!r}"
        yield Finding((*path, 1, "name"), message, "give each the name in the [node] of its file")
    elif "name" not in site.node._broken and site.node.name not in names and not _observes(site):
        message = f"this node, {site.node.name!r}, is neither {names[0]!r} nor {names[1]!r} of the pair"
        hint = "correct the name here or in [node], or leave [pair] out of this node's file"
        yield Finding(path, message, hint)


def _observes(site: Site) -> bool:
    return is_observer(site) or (site.mirror is not None and "observer" in site.mirror._broken)


def paths(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    """As many at both nodes, of one family each; every end is an address of one node alone."""
    if len(pair.node) != 2:
        return  # said by two_nodes
    counts = [len(node.paths) for node in pair.node]

    def at(number: int, *rest: int) -> KeyPath:
        return (*pair._path, "node", number, "paths", *rest)

    for number, count in enumerate(counts):
        if not 1 <= count <= MAX_PATHS:
            message = f"{count} paths: a node has 1 to {MAX_PATHS}"
            yield Finding(at(number), message, "two over different links are what a pair needs")
            return
    if len(set(counts)) > 1:
        message = f"{pair.node[0].name!r} has {counts[0]} paths and {pair.node[1].name!r} {counts[1]}"
        yield Finding(at(1), message, "write both ends of each path, in the same order at both nodes")
    elif counts[0] == 1 and pair.witness is None and "witness" not in pair._broken:
        yield Finding(at(0), ONE_PATH, "add a second path over another link", is_warning=True)
    seen: dict[tuple[Address, int], str] = {}
    for number, node in enumerate(pair.node):
        for index, (address, port) in enumerate(node.paths):
            if scope := bad_scope(host_prefix(address)):
                message = f"{address} is {scope}: no way to the other node"
                yield Finding(at(number, index), message, "use an address that the other node reaches")
            elif (address, port) in seen:
                message = f"{address} port {port} is an end of a path at {seen[address, port]!r} already"
                yield Finding(at(number, index), message, "every path has two ends of its own")
            seen.setdefault((address, port), node.name)
    yield from _families(pair, at)


def _families(pair: schema.Pair, at: Callable[..., KeyPath]) -> Iterator[Finding]:
    for index, (one, other) in enumerate(zip(pair.node[0].paths, pair.node[1].paths, strict=False)):
        if one[0].version != other[0].version:
            message = f"the ends of this path are IPv{one[0].version} and IPv{other[0].version}"
            yield Finding(at(1, index), message, "paths go by their order: write both ends in the same place")


def vips(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    if len(pair.vip) > MAX_VIPS:
        message = f"{len(pair.vip)} VIPs: a pair has at most {MAX_VIPS}"
        yield Finding((*pair._path, "vip", MAX_VIPS), message, "leave some out")
    seen: set[Address] = set()
    for index, vip in enumerate(pair.vip):
        path = (*pair._path, "vip", index, "address")
        if unfit := _unfit(vip.address):
            yield Finding(path, unfit, "use an address of the access subnet that nobody else has")
        elif vip.address in seen:
            yield Finding(path, f"{vip.address} is a VIP already", "list every VIP once")
        else:
            yield from _shadowed(site, path, vip.address)
        seen.add(vip.address)


def _unfit(address: Address) -> str | None:
    scope = bad_scope(host_prefix(address))
    return f"{address} is {scope}: no VIP" if scope not in (None, "link-local") else None


def _shadowed(site: Site, path: KeyPath, address: Address) -> Iterator[Finding]:
    """A VIP whose packets the engine's own routes, or addresses, would take."""
    prefix = host_prefix(address)
    for network in readable(site.network, "prefix"):
        if contains(network.prefix, prefix):
            message = f"VIP {address} is inside Global Network {network.prefix} ({site.where(network)})"
            hint = "its packets would be translated: a private VIP is an address of the access subnet"
            yield Finding(path, message, hint)
    for endpoint in readable(site.endpoint, "local"):
        for local in endpoint.local:
            if contains(local, prefix):
                message = f"VIP {address} is inside local network {local} ({site.where(endpoint)})"
                hint = "its packets would be translated: a private VIP is an address of the access subnet"
                yield Finding(path, message, hint)


def vip_no_end(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    """An address that one node has all the time is none that moves."""
    ends = {address for node in pair.node for address, _ in node.paths}
    for index, vip in enumerate(pair.vip):
        if vip.address in ends:
            message = f"VIP {vip.address} is the end of a path between the nodes"
            path = (*pair._path, "vip", index, "address")
            yield Finding(path, message, "a VIP moves, an end of a path stays: use two addresses")


def vip_no_source(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    for index, vip in enumerate(pair.vip):
        if vip.address in site.node.icmp_source:
            message = f"VIP {vip.address} is in icmp_source, an address that this node has all the time"
            path = (*pair._path, "vip", index, "address")
            yield Finding(path, message, "use an address of this node's own as icmp_source")


def _named(pair: schema.Pair) -> Iterator[tuple[KeyPath, str]]:
    """Interfaces, and where they are named."""
    for key, attribute in (
        ("vip", "interface"),
        ("public", "interface"),
        ("criterion", "interface"),
        ("interface", "name"),
    ):
        for index, one in enumerate(getattr(pair, key)):
            yield (*pair._path, key, index, attribute), getattr(one, attribute)


def vpp_ports(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    """On VPP: interfaces that the file names, on which VPP itself has no VIP."""
    if not is_vpp(site):
        return
    for where, name in _named(pair):
        yield from known_port(site, where, name)
    have = {address.ip: port for port in readable(site.interface, "addresses") for address in port.addresses}
    for index, vip in enumerate(pair.vip):
        path = (*pair._path, "vip", index)
        if vip.address in have:
            message = f"VIP {vip.address} is an address of VPP's interface ({site.where(have[vip.address])})"
            hint = "VPP would answer for it, active or not: give the interface an address of its own"
            yield Finding((*path, "address"), message, hint)


def devices(site: Site, pair: schema.Pair) -> Iterator[Finding]:
    """On the embedded engine: devices of Linux, and for VIPs none of the engine's own."""
    if is_vpp(site):
        return
    for where, name in _named(pair):
        try:
            device(name)
        except Invalid as error:
            yield Finding(where, error.message, error.hint)
    ours = {
        getattr(site.engine, key): key
        for key in ("outer_device", "inner_device")
        if key not in site.engine._broken
    }
    for index, vip in enumerate(pair.vip):
        if vip.interface in ours:
            message = f"{vip.interface!r} is the engine's own {ours[vip.interface]}: nobody asks there"
            path = (*pair._path, "vip", index, "interface")
            yield Finding(path, message, "name the interface on the access subnet")


CHECKS: dict[str, list[Check]] = {
    "pair": [
        times,
        hook,
        two_nodes,
        paths,
        vips,
        vip_no_end,
        vip_no_source,
        vpp_ports,
        devices,
        witness,
        criteria,
        publics,
        routes,
        ports,
    ],
}
