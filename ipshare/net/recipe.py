"""Routing recipes: what a node's kernel must be told so that packets meet the engine exactly once.

Two TUN devices belong to the engine: what enters `outer_device` leaves it with its destination
translated global -> local, `inner_device` does local -> global. recipe() is pure: NodeNet -> ordered
actions; net/apply.py executes them, the later ones only after the earlier ones, undo in reverse.

Rules, p = rule_priority (docs/decisions/0004-service-table.md):

    p     iif outer_device  goto p+9      what the engine sent out follows the node's own routing,
    p+1   iif inner_device  goto p+9      never ours: no loop, whatever the tables say
    p+2   from PREFIX iif DEVICE lookup reply_table      symmetric path (S1.5, S1.7)
    p+3   from INSIDE iif DEVICE lookup nat_table        NAT: net/nat.py (S3.5)
    p+4   from or to ADDRESS lookup group_table          groups: net/peers.py (S5)
    p+8   lookup service_table            Global Networks, NAT pools, local networks, tunnel addresses
    p+9   nop                             where the gotos land; local policy and `main` follow

`main` is never written to, so connected subnets, BGP and DHCP keep it in step by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ipshare.model import Address, Prefix, host_prefix
from ipshare.net.actions import Action, AddressAdd, LinkSet, NetError, NftTable, RouteAdd, RuleAdd, SysctlSet
from ipshare.net.nat import Inside, nat_routes, nat_rules
from ipshare.net.peers import PeerRoutes, peer_rules

RULES = 10  # consecutive priorities that a node occupies
NFT_TABLE = "ipshare"
DEVICE_METRIC = 64  # of the routes into our devices
FALLBACK_METRIC = 4096  # of what answers while the engine is away
DEVICE_MTU = 65535  # no check by the kernel: it would quote an address that the client never used


@dataclass(frozen=True, slots=True)
class GlobalNetwork:
    """A Global Network that this node translates. mtu: largest IP packet (bytes) that any of its end
    points' paths takes, so that the kernel says no to larger ones early; 0: left to the engine."""

    prefix: Prefix
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """Packets from `source` that come in by `device` go into the engine instead of straight out.

    device "lo" means what this node itself sends. Which of our devices: "in" at an end point (replies are
    tunnelled, or their source becomes local), "out" at a distribution point (source local -> global).
    """

    source: Prefix
    device: str
    into: Literal["in", "out"] = "in"


@dataclass(frozen=True, slots=True)
class NodeNet:
    """What the recipes need to know of a node. Empty tuples leave the recipe in question out."""

    networks: tuple[GlobalNetwork, ...] = ()  # translated outwards: distribution point
    local_networks: tuple[Prefix, ...] = ()  # translated inwards: end point
    tunnels: tuple[Address, ...] = ()  # own tunnel addresses; configured on no device
    held: tuple[Address, ...] = ()  # Global IPs that this node itself serves
    replies: tuple[Reply, ...] = ()
    pools: tuple[Prefix, ...] = ()  # public addresses of NATs and of clusters; configured on no device
    insides: tuple[Inside, ...] = ()  # what NATs translate
    peers: PeerRoutes = PeerRoutes()  # members of groups
    untracked: tuple[Prefix, ...] = ()  # more that conntrack must not see: an end point's Global Networks
    notrack: bool = False  # conntrack is in use: see net.facts.conntrack_in_use()
    ra_devices: tuple[
        str, ...
    ] = ()  # whose default route came by router advertisement: net.facts.ra_devices()
    outer_device: str = "ips-out"
    inner_device: str = "ips-in"
    service_table: int = 17301
    reply_table: int = 17302
    nat_table: int = 17303
    group_table: int = 17304
    rule_priority: int = 500

    @property
    def devices(self) -> tuple[str, str]:
        return self.outer_device, self.inner_device


def recipe(spec: NodeNet) -> list[Action]:
    """The ordered actions of all recipes. The service rule comes last: before it nothing is diverted.

    Raises NetError where the specification contradicts itself.
    """
    _check(spec)
    return [
        *_sysctls(spec),
        *(LinkSet(name, DEVICE_MTU) for name in spec.devices),
        *_notrack(spec),
        *_service_routes(spec),
        *_reply_routes(spec),
        *_peer_routes(spec),
        *nat_routes(
            spec.nat_table,
            spec.insides,
            (*spec.local_networks, *map(host_prefix, spec.tunnels)),
            spec.inner_device,
            (DEVICE_METRIC, FALLBACK_METRIC),
        ),
        *(AddressAdd("lo", str(host_prefix(address))) for address in sorted(spec.held, key=str)),
        *_rules(spec),
    ]


def families(spec: NodeNet) -> tuple[int, ...]:
    """The address families that occur in the specification, ascending."""
    prefixes = [
        *(n.prefix for n in spec.networks),
        *spec.local_networks,
        *(r.source for r in spec.replies),
        *spec.pools,
        *(inside.source for inside in spec.insides),
    ]
    addresses = (*spec.tunnels, *spec.held, *spec.peers.addresses)
    return tuple(sorted({p.version for p in prefixes} | {a.version for a in addresses}))


def _check(spec: NodeNet) -> None:
    if spec.outer_device == spec.inner_device:
        raise NetError(
            f"both devices are called {spec.outer_device}", hint="give the engine two device names"
        )
    tables = {
        "service": spec.service_table,
        "reply": spec.reply_table,
        "NAT": spec.nat_table,
        "group": spec.group_table,
    }
    for word, table in tables.items():
        if other := next((w for w, t in tables.items() if t == table and w != word), None):
            raise NetError(
                f"{word} and {other} routes share table {table}", hint="give each a table number of its own"
            )
    for table in tables.values():
        if not 0 < table < 2**32 or table in (253, 254, 255):
            raise NetError(
                f"routing table {table} cannot be ours",
                hint="use a number that no one else uses, not 253-255",
            )
    if not 0 < spec.rule_priority <= 32766 - RULES:
        raise NetError(
            f"rule priority {spec.rule_priority} is out of range",
            hint=f"use 1 to {32766 - RULES}: after the local table, before main",
        )
    sides: dict[tuple[int, str], set[str]] = {}
    for reply in spec.replies:
        sides.setdefault((reply.source.version, "reply"), set()).add(reply.into)
    if any(len(into) > 1 for into in sides.values()):
        raise NetError(
            "replies of one family shall go into both devices",
            hint="a node rewrites replies in one direction only",
        )


def _sysctls(spec: NodeNet) -> Iterator[Action]:
    wanted = families(spec)
    for device in spec.devices:
        # Sources seen on our devices are clients' and, for a client on this node, our own addresses.
        yield SysctlSet(f"net/ipv4/conf/{device}/rp_filter", "0")
        yield SysctlSet(f"net/ipv4/conf/{device}/accept_local", "1")
        yield SysctlSet(f"net/ipv4/conf/{device}/forwarding", "1")
        yield SysctlSet(f"net/ipv4/conf/{device}/send_redirects", "0")
        # A packet from the kernel itself (link-local, solicitations) is noise in the engine's counters.
        # Not restored: writing the old mode back makes the kernel invent a link-local address.
        yield SysctlSet(f"net/ipv6/conf/{device}/addr_gen_mode", "1", optional=True, restore=False)
        yield SysctlSet(f"net/ipv6/conf/{device}/accept_ra", "0", optional=True)
    if 4 in wanted:
        # The kernel sets every device's value with it, and all/accept_redirects (inet_forward_change()).
        also = ("net/ipv4/conf/*/forwarding", "net/ipv4/conf/all/accept_redirects")
        yield SysctlSet("net/ipv4/conf/all/forwarding", "1", also)
    if 6 in wanted:
        # Forwarding ends the acceptance of router advertisements and purges their default route: 2 first.
        for device in spec.ra_devices:
            yield SysctlSet(f"net/ipv6/conf/{device}/accept_ra", "2")
        yield SysctlSet("net/ipv6/conf/all/forwarding", "1", ("net/ipv6/conf/*/forwarding",))


def _notrack(spec: NodeNet) -> Iterator[Action]:
    if not spec.notrack:
        return
    prefixes = [
        *(n.prefix for n in spec.networks),
        *spec.local_networks,
        *spec.pools,
        *(inside.source for inside in spec.insides),
        *spec.untracked,
        *(host_prefix(address) for address in (*spec.tunnels, *spec.held, *spec.peers.addresses)),
    ]
    yield NftTable(NFT_TABLE, notrack_body(spec.devices, prefixes))


def notrack_body(devices: tuple[str, ...], prefixes: list[Prefix]) -> str:
    """nft text of a table that keeps both passes of translated traffic out of conntrack.

    Priority -450 is before defragmentation (-400), which skips untracked packets: fragments stay as they are.
    """
    names = ", ".join(f'"{name}"' for name in devices)
    sets, matches = [], []
    for version, word in ((4, "ip"), (6, "ip6")):
        members = sorted(
            {p for p in prefixes if p.version == version}, key=lambda p: (int(p.network_address), p.prefixlen)
        )
        if members:
            elements = ", ".join(map(str, members))
            traits = f"type ipv{version}_addr; flags interval; auto-merge"
            sets.append(f"  set ours{version} {{ {traits}; elements = {{ {elements} }}; }}")
            matches += [
                f"    {word} daddr @ours{version} notrack",
                f"    {word} saddr @ours{version} notrack",
            ]
    chains = [
        "  chain prerouting {",
        "    type filter hook prerouting priority -450; policy accept;",
        f"    iifname {{ {names} }} notrack",
        *matches,
        "  }",
        "  chain output {",
        "    type filter hook output priority -450; policy accept;",
        *matches,
        "  }",
    ]
    return "\n".join([*sets, *chains])


def _into(spec: NodeNet, table: int, prefix: Prefix, device: str, mtu: int) -> Iterator[Action]:
    """A route into one of our devices, and what answers when the engine took its devices with it.

    Towards the client an error about a Global IP makes sense; about a local or tunnel address, which
    the client never used, it does not: silence.
    """
    fallback: Literal["unreachable", "blackhole"] = (
        "unreachable" if device == spec.outer_device else "blackhole"
    )
    yield RouteAdd(table, str(prefix), fallback, metric=FALLBACK_METRIC)
    yield RouteAdd(
        table,
        str(prefix),
        device=device,
        metric=DEVICE_METRIC,
        mtu=mtu,
        lock=bool(mtu) and prefix.version == 6,
    )


def _service_routes(spec: NodeNet) -> Iterator[Action]:
    for network in spec.networks:
        yield from _into(spec, spec.service_table, network.prefix, spec.outer_device, network.mtu)
    for prefix in spec.pools:
        yield from _into(spec, spec.service_table, prefix, spec.outer_device, 0)
    inner = (*spec.tunnels, *spec.peers.diverted)
    for prefix in (*spec.local_networks, *(host_prefix(address) for address in inner)):
        yield from _into(spec, spec.service_table, prefix, spec.inner_device, 0)


def _peer_routes(spec: NodeNet) -> Iterator[Action]:
    for address in spec.peers.still:
        yield from _into(spec, spec.group_table, host_prefix(address), spec.inner_device, 0)


def _reply_routes(spec: NodeNet) -> Iterator[Action]:
    for family in (4, 6):
        into = {reply.into for reply in spec.replies if reply.source.version == family}
        if into:
            device = spec.outer_device if into == {"out"} else spec.inner_device
            everything = "0.0.0.0/0" if family == 4 else "::/0"
            yield RouteAdd(spec.reply_table, everything, "blackhole", metric=FALLBACK_METRIC)
            yield RouteAdd(spec.reply_table, everything, device=device, metric=DEVICE_METRIC)


def _rules(spec: NodeNet) -> Iterator[Action]:
    first, service, landing = (
        spec.rule_priority,
        spec.rule_priority + RULES - 2,
        spec.rule_priority + RULES - 1,
    )
    for family in families(spec):
        yield RuleAdd(family, landing)
        yield RuleAdd(family, first, iif=spec.outer_device, goto=landing)
        yield RuleAdd(family, first + 1, iif=spec.inner_device, goto=landing)
        for reply in spec.replies:
            if reply.source.version == family:
                yield RuleAdd(
                    family, first + 2, iif=reply.device, source=str(reply.source), table=spec.reply_table
                )
        yield from nat_rules(family, first + 3, spec.nat_table, spec.insides)
        yield from peer_rules(family, first + 4, spec.group_table, spec.peers)
        yield RuleAdd(family, service, table=spec.service_table)
