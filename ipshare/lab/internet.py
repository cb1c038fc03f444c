r"""The standard lab: a small Internet in which a Global Network lives at two places.

    c1 --+                                +-- c3
    c2 --+-- r1 ---------------------- r2 +
             | \                      / |
             |  B -- (lan) b1 b2     /  D
             C              A ------+
                            (lan) a1 a2

C and D are distribution points, A and B end points, each at some distance: c1's packets go r1, C, r1,
r2, A. Either router sends the Global Network to the distribution point next to it, so c1 and c2 come by C and
c3 by D. Every server holds its Global IP beside a private address; a1 and b1 the same, a2 and b2 another.
internet() is pure: LabSpec -> Topology.

`replies = "rewrite"` needs the distribution point as default gateway of its end point: cables C-A and D-B
are added. `combined`: node C is also end point A (S1: both roles on one node), and there is no node A.
`engine`: whose packets they are at C, D, A and B, the kernel's and ipshare-engine's or VPP's (vpp_node.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import count
from typing import Literal

from ipshare.errors import IpshareError
from ipshare.lab import vpp_node
from ipshare.lab.impair import Impairment
from ipshare.lab.topology import Bridge, Link, Node, Topology
from ipshare.model import Address, Prefix
from ipshare.net.actions import Action, AddressAdd, NftTable, RouteAdd, SysctlSet

GLOBAL4, GLOBAL6 = IPv4Network("203.0.113.0/24"), IPv6Network("2001:db8:9::/64")
_MAIN = 254
# Prefix routed to a data path node: local network of an end point, tunnel addresses of a distribution point.
_SITES: dict[str, tuple[Prefix, Prefix]] = {
    "A": (IPv4Network("198.18.1.0/24"), IPv6Network("2001:db8:a1::/64")),
    "B": (IPv4Network("198.18.2.0/24"), IPv6Network("2001:db8:a2::/64")),
    "C": (IPv4Network("198.18.101.0/24"), IPv6Network("2001:db8:a101::/64")),
    "D": (IPv4Network("198.18.102.0/24"), IPv6Network("2001:db8:a102::/64")),
}
_LANS = {"A": ("10.10.1.0/24", "fd00:10:1::/64"), "B": ("10.10.2.0/24", "fd00:10:2::/64")}
_SERVERS = {"a1": ("A", 10), "a2": ("A", 11), "b1": ("B", 10), "b2": ("B", 11)}
_UPLINK = {"c1": "r1", "c2": "r1", "c3": "r2", "C": "r1", "D": "r2", "A": "r2", "B": "r1"}
_TUNNEL_HOST = 250  # the tunnel address is this far into the site's prefix
_LEGS = {"C": 101, "D": 102, "A": 103, "B": 104}  # VPP: number of the subnet of the kernel's leg
CLIENTS = ("c1", "c2", "c3")
Engine = Literal["embedded", "vpp"]


@dataclass(frozen=True, slots=True)
class LabSpec:
    """What varies. mtu, impair: by link name (``r1-r2``, either order). source_filter: nodes whose provider
    drops packets with a source that is not theirs (BCP 38). families: which are configured. channel: between
    A and B, for remaps; their connections are tracked then."""

    path: Literal["rewrite", "ipip", "gue"] = "rewrite"
    replies: Literal["direct", "tunnel", "rewrite"] = "direct"
    channel: Literal["", "ipip", "gue"] = ""
    combined: bool = False
    engine: Engine = "embedded"
    families: tuple[int, ...] = (4, 6)
    mtu: Mapping[str, int] = field(default_factory=dict)
    impair: Mapping[str, Impairment] = field(default_factory=dict)
    source_filter: tuple[str, ...] = ()


def host_of(spec: LabSpec, site: str) -> str:
    """The node where an end point or distribution point of the picture is: itself, but for a combined A."""
    return "C" if spec.combined and site == "A" else site


def site_prefix(site: str, family: int) -> Prefix:
    """The prefix that is routed to A, B, C or D."""
    return _SITES[site][family == 6]


def tunnel_address(site: str, family: int) -> Address:
    """Its tunnel address: out of that prefix, configured nowhere."""
    return site_prefix(site, family)[_TUNNEL_HOST]


def channel_addresses(spec: LabSpec, site: str) -> tuple[Address, ...]:
    """Of A or B in the channel between them."""
    hosts = (_TUNNEL_HOST + 1, _TUNNEL_HOST + 2) if spec.channel == "ipip" else (_TUNNEL_HOST + 1,)
    return tuple(site_prefix(site, 4)[host] for host in hosts)


def global_network(family: int) -> Prefix:
    """The Global Network of the lab."""
    return GLOBAL4 if family == 4 else GLOBAL6


def global_ip(server: str, family: int) -> Address:
    """The Global IP that a server (a1, a2, b1, b2) holds."""
    return global_network(family)[_SERVERS[server][1]]


def internet(spec: LabSpec) -> Topology:
    """The lab as a value. Raises IpshareError for a link in mtu or impair that does not exist."""
    links = _links(spec)
    _check_names(spec, links)
    plan = _Plan(spec, links)
    nodes = {node.name: node for node in plan.nodes()}
    return Topology({name: _knowing(node, nodes) for name, node in nodes.items()}, links)


def uplink_address(spec: LabSpec, name: str, family: int) -> Address:
    """A node's own address towards the Internet: a client's, or the source of a node's ICMP errors."""
    return _Plan(spec, _links(spec)).address(_UPLINK[name], name, family)


def kernel_address(spec: LabSpec, name: str, family: int) -> Address:
    """A data path node's own, at its kernel: what its engine's sockets have."""
    if spec.engine == "embedded":
        return uplink_address(spec, name, family)
    return _Plan(spec, _links(spec)).leg(name, family)


def _knowing(node: Node, nodes: Mapping[str, Node]) -> Node:
    """The node with its static neighbours, if it is VPP's."""
    if node.vpp is None:
        return node
    return replace(node, vpp=replace(node.vpp, neighbors=vpp_node.neighbors(node, nodes)))


def _links(spec: LabSpec) -> tuple[Link, ...]:
    pairs = [("r1", "r2")]
    pairs += [(name, router) for name, router in _UPLINK.items() if host_of(spec, name) == name]
    pairs += [(server, host_of(spec, site)) for server, (site, _) in _SERVERS.items()]
    if spec.replies == "rewrite":
        pairs += [(a, b) for a, b in (("C", "A"), ("D", "B")) if host_of(spec, b) == b]
    both = [(f"{a}-{b}", f"{b}-{a}") for a, b in pairs]
    return tuple(
        Link(
            a,
            b,
            mtu=next((spec.mtu[name] for name in names if name in spec.mtu), 1500),
            impair=next((spec.impair[name] for name in names if name in spec.impair), None),
        )
        for (a, b), names in zip(pairs, both, strict=True)
    )


def _check_names(spec: LabSpec, links: tuple[Link, ...]) -> None:
    known = {link.name for link in links} | {f"{link.b}-{link.a}" for link in links}
    for name in [*spec.mtu, *spec.impair]:
        if name not in known:
            raise IpshareError(
                f"the lab has no link {name}", hint="links: " + ", ".join(sorted(link.name for link in links))
            )


class _Plan:
    """Addresses and routes of one lab; nothing here is kept after the Topology is made."""

    def __init__(self, spec: LabSpec, links: tuple[Link, ...]) -> None:
        self.spec, self.links = spec, links
        self.numbers = {frozenset((link.a, link.b)): n for n, link in zip(count(1), links, strict=False)}

    def subnet(self, a: str, b: str, family: int) -> Prefix:
        """Of a cable; clients have documentation addresses, the rest private ones."""
        number = self.numbers[frozenset((a, b))]
        client = any(name in CLIENTS for name in (a, b))
        return self._numbered(number, family, client=client)

    def _numbered(self, number: int, family: int, *, client: bool = False) -> Prefix:
        if family == 4:
            return ip_network(f"192.0.2.{number * 8}/29" if client else f"10.0.{number}.0/29")
        return ip_network(f"2001:db8:{'c' if client else 'f'}:{number:x}::/64")

    def address(self, a: str, b: str, family: int) -> Address:
        """b's address on the cable a-b; the end that is named first in the link has .2, the other .1."""
        link = next(link for link in self.links if {link.a, link.b} == {a, b})
        return self.subnet(a, b, family)[2 if link.a == b else 1]

    def nodes(self) -> list[Node]:
        nodes = [self._router("r1", "r2"), self._router("r2", "r1")]
        nodes += [self._client(name) for name in CLIENTS]
        nodes += [self._data_path(name) for name in "CDAB" if host_of(self.spec, name) == name]
        return nodes + [self._server(name) for name in _SERVERS]

    def _end(self, a: str, b: str) -> list[Action]:
        """Addresses of node a on its device towards b."""
        return [
            AddressAdd(b, f"{self.address(b, a, family)}/{self.subnet(a, b, family).prefixlen}")
            for family in self.spec.families
        ]

    def _via(self, a: str, b: str, prefix: Prefix) -> Action:
        return RouteAdd(_MAIN, str(prefix), device=b, via=str(self.address(a, b, prefix.version)))

    def _default(self, a: str, b: str) -> list[Action]:
        return [self._via(a, b, _everything(family)) for family in self.spec.families]

    def _client(self, name: str) -> Node:
        router = _UPLINK[name]
        return Node(name, ("client",), actions=(*self._end(name, router), *self._default(name, router)))

    def _router(self, name: str, other: str) -> Node:
        neighbours = [b if a == name else a for a, b in ((x.a, x.b) for x in self.links) if name in (a, b)]
        # A distribution point relays a router's ICMP error to the client, its source as it was; on the way it
        # may meet that very router. Most routers pass their own address as a source, Linux by default not.
        actions: list[Action] = [*_forwarding(self.spec.families)]
        actions.append(SysctlSet("net/ipv4/conf/all/accept_local", "1"))
        for neighbour in neighbours:
            actions += self._end(name, neighbour)
        for family in self.spec.families:
            actions += [
                self._via(name, self._next(name, site, other), site_prefix(site, family)) for site in _SITES
            ]
            actions.append(self._via(name, "C" if name == "r1" else "D", global_network(family)))
            for far in (n for n, router in _UPLINK.items() if router == other and host_of(self.spec, n) == n):
                actions.append(self._via(name, other, self.subnet(far, other, family)))
            for node, number in _LEGS.items() if self.spec.engine == "vpp" else ():
                if host_of(self.spec, node) == node:
                    actions.append(
                        self._via(name, self._next(name, node, other), self._numbered(number, family))
                    )
        actions += self._source_filter(name)
        return Node(name, ("router",), actions=tuple(actions))

    def leg(self, name: str, family: int) -> Address:
        """Of the kernel, behind the node's VPP."""
        return self._numbered(_LEGS[name], family)[2]

    def _next(self, router: str, site: str, other: str) -> str:
        node = host_of(self.spec, site)
        return node if _UPLINK[node] == router else other

    def _source_filter(self, router: str) -> list[Action]:
        """What comes from a filtered node has one of its own sources, or does not pass."""
        lines = []
        for node in (n for n in self.spec.source_filter if _UPLINK[n] == router):
            for family in self.spec.families:
                word = "ip" if family == 4 else "ip6"
                prefixes = [site_prefix(node, family), self.subnet(node, router, family)]
                prefixes += [self._numbered(_LEGS[node], family)] if self.spec.engine == "vpp" else []
                own = ", ".join(map(str, prefixes))
                lines.append(f'    iifname "{node}" {word} saddr != {{ {own} }} drop')
        if not lines:
            return []
        head = ["  chain bcp38 {", "    type filter hook forward priority 0; policy accept;"]
        return [NftTable("lab", "\n".join([*head, *lines, "  }"]))]

    def _data_path(self, name: str) -> Node:
        roles = ["distribution" if name in "CD" else "endpoint"]
        actions: list[Action] = [*_forwarding(self.spec.families), *self._end(name, _UPLINK[name])]
        partner = {"A": "C", "C": "A", "B": "D", "D": "B"}[name]
        crossing = self.spec.replies == "rewrite" and frozenset((name, partner)) in self.numbers
        gateway = partner if crossing and name in "AB" else _UPLINK[name]
        if crossing:
            actions += self._end(name, partner)
        if crossing and name in "CD":
            actions += [
                self._via(name, partner, site_prefix(partner, family)) for family in self.spec.families
            ]
        actions += self._default(name, gateway)
        sites = [site for site in _LANS if host_of(self.spec, site) == name]
        bridges = []
        for site in sites:
            roles += ["endpoint"] if "endpoint" not in roles else []
            ports = tuple(server for server, (where, _) in _SERVERS.items() if where == site)
            bridges.append(Bridge("lan", ports))
            for family in self.spec.families:
                lan = ip_network(_LANS[site][family == 6])
                actions.append(AddressAdd("lan", f"{lan[1]}/{lan.prefixlen}"))
                actions.append(RouteAdd(_MAIN, str(global_network(family)), device="lan"))
        node = Node(name, tuple(roles), tuple(bridges), tuple(actions))
        if self.spec.engine == "embedded":
            return node
        subnets = [self._numbered(_LEGS[name], family) for family in self.spec.families]
        return vpp_node.on_vpp(node, self.links, [f"{subnet[2]}/{subnet.prefixlen}" for subnet in subnets])

    def _server(self, name: str) -> Node:
        site, host = _SERVERS[name]
        device = host_of(self.spec, site)
        actions: list[Action] = []
        for family in self.spec.families:
            lan = ip_network(_LANS[site][family == 6])
            actions.append(AddressAdd(device, f"{lan[host]}/{lan.prefixlen}"))
            own = global_network(family)[host]
            actions.append(AddressAdd(device, f"{own}/{own.max_prefixlen}"))
            actions.append(RouteAdd(_MAIN, str(_everything(family)), device=device, via=str(lan[1])))
        return Node(name, ("server",), actions=tuple(actions))


def _everything(family: int) -> Prefix:
    return ip_network("0.0.0.0/0" if family == 4 else "::/0")


def _forwarding(families: tuple[int, ...]) -> list[Action]:
    return [SysctlSet(f"net/ipv{family}/conf/all/forwarding", "1") for family in families]
