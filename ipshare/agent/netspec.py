"""netspec: which routing recipes a configuration needs: Config + Facts -> NodeNet.

``netspec`` is pure; ``read_facts`` looks at this machine (routes of table main, conntrack) and changes
nothing. Reply rules name the interface that a device's packets come in by. Nobody has to configure it: it
is the one that main routes the Global IPs to (end point), or the local networks (distribution point as
default gateway). DESIGN.md section 6; SYSTEMS.md S1.5, S1.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from ipshare.engine.redirected import legs
from ipshare.model import (
    Address,
    BindingKind,
    Config,
    Endpoint,
    PathKind,
    Prefix,
    Replies,
    contains,
    host_prefix,
)
from ipshare.net import GlobalNetwork, Inside, NodeNet, Reply, peer_routes

_MAIN = 254
_OVERHEAD = {PathKind.REWRITE: 0, PathKind.IPIP: 0, PathKind.GUE: 12}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the recipes depend on besides the configuration. routes: (prefix, device) of table main.
    devices: names."""

    conntrack: bool = False
    ra_devices: tuple[str, ...] = ()
    routes: tuple[tuple[Prefix, str], ...] = ()
    devices: tuple[str, ...] = ()


def read_facts() -> Facts:
    """The facts of the network namespace of the calling thread. Raises NetError where netlink is closed to
    us."""
    from ipshare.net import facts
    from ipshare.net.kernel import Kernel

    with Kernel() as kernel:
        names = {link["index"]: name for name, link in kernel.links().items()}
        routes = tuple(
            (ip_network(route["prefix"]), names[route["oif"]])
            for family in (4, 6)
            for route in kernel.routes(family, _MAIN)
            if route["oif"] in names
        )
        return Facts(facts.conntrack_in_use(), facts.ra_devices(kernel), routes, tuple(names.values()))


def netspec(config: Config, facts: Facts) -> NodeNet:
    """What the kernel must be told for ``config`` on a machine with ``facts``."""
    endpoint, distribution = config.self_endpoint, config.self_distribution
    prefixes = tuple(network.prefix for network in config.networks)
    left = tuple(leg.here for leg in legs(config))
    own = [place for place in (endpoint, distribution) if place is not None]
    nats = () if config.is_observer else config.nats
    tunnels = [address for place in own for address in (place.tunnel4, place.tunnel6) if address is not None]
    return NodeNet(
        networks=tuple(GlobalNetwork(p, _mtu(config, p.version)) for p in prefixes if distribution)
        + tuple(GlobalNetwork(prefix) for prefix in left),
        local_networks=tuple(prefix for prefix in _inwards(config, endpoint) if prefix not in left),
        tunnels=tuple(dict.fromkeys([*tunnels, *_channel_addresses(config)])),
        held=() if distribution else tuple(_held(config)),
        replies=tuple(dict.fromkeys(_replies(config, facts, prefixes))),
        pools=(
            *(prefix for nat in nats for pool in nat.pools for prefix in pool.prefixes),
            *(host_prefix(address) for cluster in config.clusters for address in cluster.addresses),
        ),
        insides=tuple(
            Inside(prefix, device) for nat in nats for prefix in nat.inside for device in nat.interfaces
        ),
        peers=peer_routes(peer for _, peer in config.peers),
        untracked=prefixes if endpoint and not distribution else (),
        notrack=facts.conntrack,
        ra_devices=facts.ra_devices,
        outer_device=config.engine.outer_device,
        inner_device=config.engine.inner_device,
        service_table=config.engine.service_table,
        reply_table=config.engine.reply_table,
        nat_table=config.engine.nat_table,
        group_table=config.engine.group_table,
        rule_priority=config.engine.rule_priority,
    )


def _inwards(config: Config, endpoint: Endpoint | None) -> tuple[Prefix, ...]:
    if endpoint is None:
        return ()
    return (*endpoint.local, *_channel_prefixes(config, endpoint.local))


def _channel_addresses(config: Config) -> list[Address]:
    """What packets of remapped addresses come to (S4.2), unmodified."""
    unmodified = (channel for channel in config.channels if channel.kind != "rewrite")
    return [prefix.network_address for channel in unmodified for prefix in channel.local]


def _channel_prefixes(config: Config, local: Iterable[Prefix]) -> list[Prefix]:
    """The same, re-addressed; those that a local network covers have its route."""
    own = list(local)
    channels = [channel for channel in config.channels if channel.kind == "rewrite"]
    prefixes = dict.fromkeys(prefix for channel in channels for prefix in channel.local)
    return [prefix for prefix in prefixes if not any(contains(network, prefix) for network in own)]


def _mtu(config: Config, family: int) -> int:
    """The largest packet of ``family`` that any path takes; 0 where some end point is this very node."""
    if any(endpoint.is_self for endpoint in config.endpoints):
        return 0
    return max((_room(endpoint, family) for endpoint in config.endpoints), default=0)


def _room(endpoint: Endpoint, family: int) -> int:
    if not endpoint.is_encapsulated:
        return endpoint.path_mtu.of(family)
    tunnels = {4: endpoint.tunnel4, 6: endpoint.tunnel6}
    outer = family if tunnels[family] is not None else 10 - family
    return endpoint.path_mtu.of(outer) - (20 if outer == 4 else 40) - _OVERHEAD[endpoint.path]


def _held(config: Config) -> Iterator[Address]:
    """Global IPs that this node itself serves: addresses of its own, on lo."""
    for binding in config.bindings:
        if binding.kind is BindingKind.HERE and binding.prefix.num_addresses == 1:
            yield binding.prefix.network_address


def _replies(config: Config, facts: Facts, prefixes: Iterable[Prefix]) -> Iterator[Reply]:
    endpoint, distribution = config.self_endpoint, config.self_distribution
    if endpoint is not None and endpoint.replies is not Replies.DIRECT:
        for prefix in prefixes:
            yield from (Reply(prefix, device, "in") for device in _towards(config, facts, prefix))
            if any(contains(prefix, ip_network(address)) for address in _held(config)):
                yield Reply(prefix, "lo", "in")
    elif distribution is not None:
        for other in config.endpoints:
            if other.replies is Replies.REWRITE and not other.is_self:
                for prefix in other.local:
                    yield from (Reply(prefix, device, "out") for device in _towards(config, facts, prefix))


def _towards(config: Config, facts: Facts, prefix: Prefix) -> list[str]:
    """Devices behind which addresses of ``prefix`` are: as configured, or as main routes them: more specific
    routes, else the best covering one."""
    if config.node.inside:
        return list(config.node.inside)
    ours = {config.engine.outer_device, config.engine.inner_device, "lo"}
    inside = {device for route, device in facts.routes if contains(prefix, route)}
    if not inside:
        covering = [(route.prefixlen, device) for route, device in facts.routes if contains(route, prefix)]
        longest = max((length for length, _ in covering), default=0)
        inside = {device for length, device in covering if length == longest and length > 0}
    return sorted(inside - ours)
