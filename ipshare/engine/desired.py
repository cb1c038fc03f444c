"""desired: a configuration as the tables that its node should have.

``desired(config)`` is pure. An end point becomes one record for each local prefix,
or, behind an encapsulated path where packets keep their destination, one "any address" record for
each family (local prefix of length 0); a distribution point one for each tunnel
address. Bindings refer to records by index; bulk rows are converted in NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np

from ipshare.core import lib
from ipshare.engine.redirected import Leg, legs
from ipshare.engine.tables import (
    BINDING,
    ENDPOINT,
    MEMBER,
    NETWORK,
    NO_POLICY,
    PEER,
    POLICY,
    Records,
    Tables,
    sort_bindings,
    sort_peers,
)
from ipshare.errors import IpshareError
from ipshare.model import (
    NO_NAME,
    TRACKINGS,
    Address,
    BindingKind,
    BindingSet,
    Channel,
    Config,
    Distribution,
    Endpoint,
    Member,
    PathKind,
    Prefix,
    Replies,
    Tracking,
    Unmatched,
    contains,
    offset_in,
    packed,
    packed_offset,
)

UNMATCHED = {
    Unmatched.DROP: lib.IPS_UNMATCHED_DROP,
    Unmatched.UNREACHABLE: lib.IPS_UNMATCHED_UNREACHABLE,
    Unmatched.PASS: lib.IPS_UNMATCHED_PASS,
}
ENCAP = {
    PathKind.REWRITE: lib.IPS_ENCAP_NONE,
    PathKind.IPIP: lib.IPS_ENCAP_IPIP,
    PathKind.GUE: lib.IPS_ENCAP_GUE,
}
TRACKING = {
    Tracking.OFF: 0,
    Tracking.INBOUND: lib.IPS_BINDING_TRACK,
    Tracking.BOTH: lib.IPS_BINDING_TRACK | lib.IPS_BINDING_TRACK_BOTH,
}
POLICY_SEED = 0x6970736861726521
"""One for all nodes: agreement between distribution points is the point of a policy."""
MOST_ENDPOINTS = 65_535
"""End point records that an image may hold; each belongs to a site, so there are no more sites than that."""


def desired(config: Config) -> Tables:
    """The tables of ``config``'s node, numbered (term 0, revision 0).

    Raises ``IpshareError`` where an image cannot hold that many end point records.
    """
    records = _Endpoints(config)
    for endpoint in config.endpoints:
        records.add_endpoint(endpoint)
    for distribution in config.distributions:
        if not distribution.is_self:
            records.add_distribution(distribution)
    records.add_ways()
    policies = _Policies(config, records)
    redirects = list(legs(config))
    parts = [
        _bindings(config, records, policies),
        _bulk(config.bulk, records, policies),
        _redirects(redirects, records),
    ]
    bindings = np.concatenate(parts)
    reply_policy = _reply_policy(config, records, policies)
    return Tables(
        networks=_networks(config, redirects),
        endpoints=_rows(ENDPOINT, records.rows),
        policies=_rows(POLICY, policies.rows),
        members=_rows(MEMBER, policies.members),
        peers=sort_peers(_peers(config)),
        bindings=sort_bindings(bindings),
        roles=_roles(config) | (lib.IPS_ROLE_OUTER if redirects else 0),
        reply_policy=reply_policy,
        icmp_source4=_optional(config.node.icmp_source4),
        icmp_source6=_optional(config.node.icmp_source6),
        icmp_rate=config.node.icmp_rate,
        endpoint_names=tuple(records.names),
        policy_names=tuple(policies.names),
    )


def _roles(config: Config) -> int:
    roles = 0
    if config.self_distribution:
        roles |= lib.IPS_ROLE_OUTER
        if any(endpoint.replies is Replies.REWRITE and not endpoint.is_self for endpoint in config.endpoints):
            roles |= lib.IPS_ROLE_REPLY_GLOBAL
    if config.self_endpoint:
        roles |= lib.IPS_ROLE_INNER
        if config.self_endpoint.replies is Replies.TUNNEL:
            roles |= lib.IPS_ROLE_REPLY_TUNNEL
        elif config.self_endpoint.replies is Replies.REWRITE:
            roles |= lib.IPS_ROLE_REPLY_LOCAL
    return roles


def _optional(address: Address | None) -> bytes:
    return packed(address) if address is not None else bytes(16)


def _row(layout: np.dtype[Any], **values: Any) -> Records:
    """One record; 16-byte fields are given as bytes."""
    row = np.zeros(1, layout)
    for name, value in values.items():
        row[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    return row


def _rows(layout: np.dtype[Any], rows: Iterable[Records]) -> Records:
    return np.concatenate([np.zeros(0, layout), *rows])


def _networks(config: Config, redirects: Sequence[Leg]) -> Records:
    wanted = [(network.prefix, network.unmatched) for network in config.networks]
    wanted += [(leg.here, Unmatched.DROP) for leg in redirects]
    return _rows(
        NETWORK,
        (
            _row(
                NETWORK,
                prefix=packed(prefix.network_address),
                family=prefix.version,
                prefix_len=prefix.prefixlen,
                unmatched=UNMATCHED[unmatched],
            )
            for prefix, unmatched in wanted
        ),
    )


@dataclass
class _Endpoints:
    """End point records as they are collected, and where a (name, prefix) went."""

    config: Config
    rows: list[Records] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    by_prefix: dict[tuple[str, Prefix], int] = field(default_factory=dict)
    any_address: dict[tuple[str, int], int] = field(default_factory=dict)
    distributions: dict[tuple[str, int], int] = field(default_factory=dict)
    sites: dict[str, int] = field(default_factory=dict)

    def add_endpoint(self, endpoint: Endpoint) -> None:
        for prefix in endpoint.local:
            self.by_prefix[endpoint.name, prefix] = self._add(endpoint, prefix.version, prefix)
        if endpoint.is_encapsulated:
            for family in (4, 6):
                self.any_address[endpoint.name, family] = self._add(endpoint, family, None)

    def add_distribution(self, distribution: Distribution) -> None:
        """A peer: the source of tunnel packets, and the taker of tunnelled replies."""
        own = self.config.self_endpoint
        for family, remote in ((4, distribution.tunnel4), (6, distribution.tunnel6)):
            if remote is None or own is None:
                continue
            local = own.tunnel4 if family == 4 else own.tunnel6
            if local is None:
                continue
            self.distributions[distribution.name, family] = self._append(
                distribution.name,
                tunnel_remote=packed(remote),
                tunnel_local=packed(local),
                family=family,
                encap=ENCAP[distribution.path],
                tunnel_family=family,
                gue_port=distribution.gue_port,
                flags=lib.IPS_EP_DISTRIBUTION | (lib.IPS_EP_MSS_CLAMP if own.mss_clamp else 0),
                path_mtu=distribution.path_mtu.of(family),
            )

    def add_ways(self) -> None:
        """Channels to other end points, for what changed policies left there: by the tunnel addresses that
        distribution points name. Of several channels to one of them the first."""
        if not any(policy.drain_s for policy in self.config.policies):
            return
        others = {endpoint.name: endpoint for endpoint in self.config.endpoints}
        for channel in self.config.channels:
            other = others.pop(channel.peer, None) if channel.kind != "rewrite" else None
            for address in (other.tunnel4, other.tunnel6) if other is not None else ():
                if address is not None:
                    self._add_way(f"{channel.peer} by {channel.name}", channel, address)

    def _add_way(self, name: str, channel: Channel, address: Address) -> None:
        is_gue = channel.kind == "gue"
        self._append(
            name,
            local=packed(address),
            tunnel_local=packed(channel.local[0].network_address),
            tunnel_remote=packed(channel.remote[0].network_address),
            family=address.version,
            encap=lib.IPS_ENCAP_GUE if is_gue else lib.IPS_ENCAP_IPIP,
            tunnel_family=channel.family,
            gue_port=channel.gue_port if is_gue else 0,
            flags=lib.IPS_EP_WAY | (lib.IPS_EP_MARK_FINAL if is_gue else 0),
            path_mtu=channel.mtu,
        )

    def has_family(self, name: str, family: int) -> bool:
        """Whether ``any_of`` finds a record."""
        return (name, family) in self.any_address or any(self.prefixes(name, family))

    def at(self, name: str, local: Prefix | None, family: int) -> tuple[int, int]:
        """(record, offset) of a binding whose local side is ``local``, at end point ``name``."""
        if local is None:
            return self.any_address[name, family], 0
        for (owner, prefix), index in self.by_prefix.items():
            if owner == name and contains(prefix, local):
                return index, offset_in(prefix, local)
        return self.any_of(name, family), 0

    def any_of(self, name: str, family: int) -> int:
        """The record that stands for end point ``name`` in ``family`` where no local address is meant:
        behind an encapsulated path the any-address one, else its first local prefix."""
        if (name, family) in self.any_address:
            return self.any_address[name, family]
        return next(index for _, index in self.prefixes(name, family))

    def prefixes(self, name: str, family: int) -> Iterator[tuple[Prefix, int]]:
        for (owner, prefix), index in self.by_prefix.items():
            if owner == name and prefix.version == family:
                yield prefix, index

    def _add(self, endpoint: Endpoint, family: int, prefix: Prefix | None) -> int:
        remote, local = self._tunnel(endpoint, family)
        tunnel_family = local.version if local is not None else 0
        encap = ENCAP[endpoint.path] if tunnel_family else lib.IPS_ENCAP_NONE
        flags = 0
        if endpoint.is_self:
            flags |= lib.IPS_EP_SELF
        if endpoint.mss_clamp:
            flags |= lib.IPS_EP_MSS_CLAMP
        if tunnel_family and not endpoint.is_encapsulated and not endpoint.is_self:
            flags |= lib.IPS_EP_TRACE_TUNNEL
        values: dict[str, Any] = {}
        if prefix is not None:
            values.update(local=packed(prefix.network_address), prefix_len=prefix.prefixlen)
        if tunnel_family:
            values.update(tunnel_remote=_optional(remote), tunnel_local=_optional(local))
        return self._append(
            endpoint.name,
            family=family,
            encap=encap,
            tunnel_family=tunnel_family,
            gue_port=endpoint.gue_port,
            flags=flags,
            path_mtu=endpoint.path_mtu.of(
                tunnel_family if endpoint.is_encapsulated and tunnel_family else family
            ),
            **values,
        )

    def _tunnel(self, endpoint: Endpoint, family: int) -> tuple[Address | None, Address | None]:
        """(remote, local) tunnel addresses for packets of ``family``: of their own family where possible.
        Of our own end point the remote is whoever sends."""
        if endpoint.is_self:
            mine = (
                (endpoint.tunnel4, endpoint.tunnel6) if family == 4 else (endpoint.tunnel6, endpoint.tunnel4)
            )
            return None, next((address for address in mine if address is not None), None)
        own = self.config.self_distribution
        if own is None:
            return None, None
        pairs: dict[int, tuple[IPv4Address | IPv6Address | None, IPv4Address | IPv6Address | None]] = {
            4: (endpoint.tunnel4, own.tunnel4),
            6: (endpoint.tunnel6, own.tunnel6),
        }
        for outer in (family, 10 - family):
            if all(address is not None for address in pairs[outer]):
                return pairs[outer]
        return None, None

    def _append(self, name: str, **values: Any) -> int:
        """The index of a new record. All records of a name share ``site``; ``via`` is left to the host."""
        if len(self.rows) == MOST_ENDPOINTS:
            raise IpshareError(
                f"more than {MOST_ENDPOINTS:,} local prefixes, encapsulated paths and tunnels of end points"
                " and distribution points",
                hint="the tables number them with 16 bits: join neighbouring local prefixes, or leave out"
                " what this node never sends to",
            )
        site = self.sites.setdefault(name, len(self.sites))
        self.rows.append(_row(ENDPOINT, site=site, **values))
        self.names.append(name)
        return len(self.rows) - 1


class _Policies:
    """Policies for each family in which they are used, with their members."""

    def __init__(self, config: Config, endpoints: _Endpoints) -> None:
        self.config = {policy.name: policy for policy in config.policies}
        self.endpoints = endpoints
        self.rows: list[Records] = []
        self.members: list[Records] = []
        self.names: list[str] = []
        self._index: dict[tuple[str, int], int] = {}

    def index(self, name: str, family: int) -> int:
        """The record of policy ``name`` for bindings of ``family``."""
        if (name, family) not in self._index:
            policy = self.config[name]
            members, previous = (self._members(part, family) for part in (policy.members, policy.previous))
            bits = policy.client_bits4, policy.client_bits6
            self._index[name, family] = self.add(name, members, *bits, previous)
        return self._index[name, family]

    def _members(self, members: tuple[Member, ...], family: int) -> list[tuple[int, int]]:
        """None at all where one of them has no record: another table would come of it."""
        if not all(self.endpoints.has_family(member.endpoint, family) for member in members):
            return []
        return [(self.endpoints.any_of(member.endpoint, family), member.weight) for member in members]

    def add(
        self,
        name: str,
        members: list[tuple[int, int]],
        v4_bits: int = 32,
        v6_bits: int = 64,
        previous: Sequence[tuple[int, int]] = (),
    ) -> int:
        self.rows.append(
            _row(
                POLICY,
                first_member=len(self.members),
                n_members=len(members),
                n_previous=len(previous),
                v4_bits=v4_bits,
                v6_bits=v6_bits,
                seed=POLICY_SEED,
            )
        )
        self.names.append(name)
        for endpoint, weight in (*members, *previous):
            self.members.append(_row(MEMBER, endpoint=endpoint, weight=weight))
        return len(self.rows) - 1


def _reply_policy(config: Config, endpoints: _Endpoints, policies: _Policies) -> int:
    if config.self_endpoint is None or config.self_endpoint.replies is not Replies.TUNNEL:
        return NO_POLICY
    members = []
    for distribution in config.distributions:
        index = endpoints.distributions.get((distribution.name, 4))
        if index is None:
            index = endpoints.distributions.get((distribution.name, 6))
        if index is not None:
            members.append((index, distribution.weight))
    return policies.add("replies", members) if members else NO_POLICY


def _peers(config: Config) -> Records:
    """Members of the groups that have one next to this node, where something has moved."""
    numbers = {group.name: number for number, group in enumerate(config.groups, 1)}
    return _rows(
        PEER,
        (
            _row(
                PEER,
                address=packed(peer.address),
                now=packed(peer.now) if peer.has_moved else bytes(16),
                family=peer.address.version,
                flags=(lib.IPS_PEER_HERE if peer.is_here else 0) | (lib.IPS_PEER_ALSO if peer.also else 0),
                group=numbers[name],
            )
            for name, peer in config.peers
        ),
    )


def _bindings(config: Config, endpoints: _Endpoints, policies: _Policies) -> Records:
    rows = []
    for binding in config.bindings:
        family = binding.prefix.version
        target, local = 0, bytes(16)
        if binding.kind is BindingKind.POLICY and binding.target is not None:
            target, local = policies.index(binding.target, family), packed_offset(binding.offset, family)
        elif binding.kind is BindingKind.ADDRESS and binding.local is not None and binding.target is not None:
            target, local = endpoints.any_of(binding.target, family), packed(binding.local.network_address)
        elif binding.target is not None:
            target, offset = endpoints.at(binding.target, binding.local, family)
            local = packed_offset(offset, family)
        rows.append(
            _row(
                BINDING,
                local=local,
                family=family,
                prefix_len=binding.prefix.prefixlen,
                kind=int(binding.kind),
                flags=(lib.IPS_BINDING_COPY if binding.copy else 0) | TRACKING[binding.tracking],
                target=target,
                **{"global": packed(binding.prefix.network_address)},
            )
        )
    return _rows(BINDING, rows)


def _redirects(redirects: Sequence[Leg], endpoints: _Endpoints) -> Records:
    rows = []
    for leg in redirects:
        family = leg.here.version
        target, offset = endpoints.at(leg.to, leg.there, family)
        rows.append(
            _row(
                BINDING,
                local=packed_offset(offset, family),
                family=family,
                prefix_len=leg.here.prefixlen,
                kind=int(BindingKind.ENDPOINT),
                target=target,
                **{"global": packed(leg.here.network_address)},
            )
        )
    return _rows(BINDING, rows)


def _bulk(bulk: BindingSet | None, endpoints: _Endpoints, policies: _Policies) -> Records:
    """Bulk rows to records, a vector operation for each target."""
    if bulk is None or not len(bulk.rows):
        return np.zeros(0, BINDING)
    rows = bulk.rows
    out = np.zeros(len(rows), BINDING)
    for name in ("global", "local", "family", "prefix_len", "kind"):
        out[name] = rows[name]
    flags = np.array([TRACKING[one] for one in TRACKINGS], np.uint32)
    out["flags"] = np.where(rows["copy"] != NO_NAME, lib.IPS_BINDING_COPY, 0) | flags[rows["tracking"]]
    for number, target in enumerate(bulk.targets):
        for family in (4, 6):
            mine = (rows["target"] == number) & (rows["family"] == family)
            if not mine.any():
                continue
            _fill(out, mine & (rows["kind"] == BindingKind.ENDPOINT), rows, endpoints, target, family)
            addressed = mine & (rows["kind"] == BindingKind.ADDRESS)
            if addressed.any():
                out["target"][addressed] = endpoints.any_of(target, family)
            shared = mine & (rows["kind"] == BindingKind.POLICY)
            if shared.any():
                out["target"][shared] = policies.index(target, family)
    return out


def _fill(out: Records, mine: Any, rows: Records, endpoints: _Endpoints, target: str, family: int) -> None:
    """Kind ENDPOINT: the record of the local prefix, and the offset from it."""
    without_local = mine & (rows["local_family"] == 0)
    if without_local.any():
        out["target"][without_local] = endpoints.any_address[target, family]
        out["local"][without_local] = 0
    for prefix, index in endpoints.prefixes(target, family):
        base = np.frombuffer(packed(prefix.network_address), np.uint8)
        mask = np.frombuffer(packed(prefix.netmask), np.uint8)
        inside = mine & (rows["local_family"] == family)
        inside &= ((rows["local"] & mask) == base).all(axis=1)
        out["target"][inside] = index
        out["local"][inside] = rows["local"][inside] & ~mask
