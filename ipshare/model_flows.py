"""The nouns of tracked connections: session table, NAT pools, mirror (SYSTEMS.md S2.7, S3, S4.3).

A NAT's realm is its number in the file, from 1: the same at both nodes of a pair, which read the same tables;
``nat_digest`` is how they find out that they do not, ``parts`` how they say in which. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, summarize_address_range
from pathlib import Path

from ipshare.model_pair import PairPath

SESSION_BYTES = 158
"""Memory that a session takes, with a mapping of its own (docs/decisions/0015-session-table.md)."""
ADDRESS_BYTES = 3 * 8192
"""Memory that a public address takes: a bit for each port of TCP, UDP and ICMP."""


class Filtering(StrEnum):
    """Who may send to a mapping that an inside host has opened (RFC 4787 section 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_AND_PORT = "address-and-port"


class Tracking(StrEnum):
    """Whether the connections of a binding are followed, and which directions this node sees."""

    OFF = "off"
    INBOUND = "inbound"  # what goes to the device alone
    BOTH = "both"  # the node is the device's gateway


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses from ``first`` on, ``count`` of them."""

    first: IPv4Address | IPv6Address
    count: int

    @property
    def last(self) -> IPv4Address | IPv6Address:
        return self.first + (self.count - 1)

    @property
    def prefixes(self) -> Iterator[IPv4Network | IPv6Network]:
        """The fewest prefixes that cover it."""
        yield from summarize_address_range(self.first, self.last)

    def overlaps(self, prefix: IPv4Network | IPv6Network) -> bool:
        """Whether it shares an address with ``prefix``; False across families."""
        return prefix.version == self.first.version and (
            int(prefix.network_address) <= int(self.last) and int(self.first) <= int(prefix.broadcast_address)
        )

    def __str__(self) -> str:
        return str(self.first) if self.count == 1 else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class SessionTimeouts:
    """Whole seconds without a packet after which a session ends."""

    tcp_opening: int
    tcp_open: int
    tcp_closing: int
    udp: int
    icmp: int
    other: int
    refresh: int  # an active session reports itself so often to the mirror


@dataclass(frozen=True, slots=True)
class Sessions:
    """The session table. All but the time-outs and ``udp_inbound_refreshes`` holds for an engine's life."""

    capacity: int
    half_open: int
    half_open_per_source: int
    mappings: int  # 0: as many as sessions
    addresses: int  # different public addresses (pools) that sessions may have
    source_bits4: int  # leading bits of an address that make a source
    source_bits6: int
    udp_inbound_refreshes: bool
    timeouts: SessionTimeouts


@dataclass(frozen=True, slots=True)
class Nat:
    """Inside prefixes whose sources become addresses of a pool (S3.5)."""

    name: str
    realm: int
    inside: tuple[IPv4Network | IPv6Network, ...]
    pools: tuple[AddressRange, ...]
    first_port: int
    last_port: int
    filtering: Filtering
    interfaces: tuple[str, ...]  # Linux devices that inside traffic comes in by
    deterministic: bool = False  # a block of ports for each inside address: one inside, one pool per family

    @property
    def addresses(self) -> int:
        """How many public addresses it has."""
        return sum(pool.count for pool in self.pools)


class Commit(StrEnum):
    """Whether a session's first packet waits until the standby has the session."""

    ACKED = "acked"
    ASYNC = "async"


@dataclass(frozen=True, slots=True)
class Database:
    """Redis, by way of which sessions go to the other node (S3.6)."""

    url: str  # redis://, rediss://, unix://
    prefix: str  # of its keys
    password_file: Path | None


@dataclass(frozen=True, slots=True)
class MirrorPeer:
    """Another node that has sessions, and the ways to it."""

    name: str
    number: int
    paths: tuple[PairPath, ...]


@dataclass(frozen=True, slots=True)
class Mirror:
    """Session changes go to the pair's other node and to observers (S3.1); by a database: to the agent, over
    loopback. ``peers``: the pair's other node is the first; an observer has both nodes of the pair.
    ``key_file``: the pair's."""

    node: str
    number: int
    is_observer: bool
    key_file: Path
    peers: tuple[MirrorPeer, ...]
    database: Database | None
    commit: Commit
    commit_timeout_s: float
    ring: int  # changes per worker; 0: the engine's default
    window: int  # datagrams under way; 0: the engine's default
    digest_s: float  # between two comparisons of all sessions; 0: never

    @property
    def paths(self) -> tuple[PairPath, ...]:
        """To the first peer."""
        return self.peers[0].paths


def memory_bytes(sessions: Sessions, nats: Iterable[Nat]) -> int:
    """About what an engine takes as soon as it is told: all of it, at once."""
    flows = sessions.capacity + sessions.half_open
    return flows * SESSION_BYTES + sum(nat.addresses for nat in nats) * ADDRESS_BYTES


def nat_digest(nats: Iterable[Nat]) -> int:
    """64 bits of what has to be equal at both nodes: realms, insides, pools, ports, filtering. Not the
    devices, which may differ."""
    return _digest([*_parts(nats).values()])


def parts(nats: Iterable[Nat], sessions: Sessions | None) -> dict[str, int]:
    """What should be equal at every node, each by a name of PARTS, and 64 bits of it. The first ones are in
    ``nat_digest``."""
    said: dict[str, object] = dict(_parts(nats))
    if sessions is not None:
        said["timeouts"] = (sessions.timeouts, sessions.udp_inbound_refreshes)
        said["sizes"] = (
            sessions.capacity, sessions.half_open, sessions.mappings, sessions.addresses,
        )  # fmt: skip
    return {name: _digest(what) for name, what in said.items()}


PARTS = ("names", "inside", "addresses", "ports", "filtering", "timeouts", "sizes")
"""In this order the engines know them by number. The last two may differ, and sessions go all the same."""


def _parts(nats: Iterable[Nat]) -> dict[str, object]:
    all_ = list(nats)
    return {
        "names": [(nat.realm, nat.name) for nat in all_],
        "inside": [sorted(map(str, nat.inside)) for nat in all_],
        "addresses": [[str(pool) for pool in nat.pools] for nat in all_],
        "ports": [(nat.first_port, nat.last_port, nat.deterministic) for nat in all_],
        "filtering": [nat.filtering.value for nat in all_],
    }


def _digest(what: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest(), "big")
