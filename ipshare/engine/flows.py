"""flows: what an engine is told about tracked connections, and what it says of them (SYSTEMS.md S2.7, S3).

Session table, NAT pools and mirror live in the engine; here are only the records of the control socket, as
values. Sessions come as one NumPy array of ``SESSION`` records, never as an object each. Names of states,
kinds, phases and counters are the core's own (ipshare.core.flows).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ipshare.core import dtype, lib
from ipshare.core.flows import MIRROR_COUNTERS, MIRROR_NOTES, MIRROR_PHASES, MIRROR_REFUSALS
from ipshare.engine.session_filter import SessionFilter
from ipshare.engine.tables import Records
from ipshare.errors import EngineError
from ipshare.model import Address, AddressRange, Commit, Filtering, Mirror, Nat, Pair, Sessions, packed
from ipshare.model_flows import PARTS, nat_digest, parts
from ipshare.model_natlog import block_size, subscriber_bits

FLOWS = dtype("struct ips_ctl_flows")
FLOWS_STATE = dtype("struct ips_ctl_flows_state")
MIRROR = dtype("struct ips_ctl_mirror")
FEED = dtype("struct ips_ctl_feed")
SESSION = dtype("struct ips_session_rec")
NAT_ADDRESS = dtype("struct ips_napt_address")
FILTERING = {
    Filtering.ENDPOINT_INDEPENDENT: lib.IPS_FILTER_ENDPOINT_INDEPENDENT,
    Filtering.ADDRESS_AND_PORT: lib.IPS_FILTER_ADDRESS_AND_PORT,
}


HOLD = ("committed", "uncommitted", "held", "hold_full", "hold_dropped")
"""What became of packets that waited for the standby."""


@dataclass(frozen=True, slots=True)
class FlowsSettings:
    """The session table, and what translates with it."""

    sessions: Sessions
    nats: tuple[Nat, ...]


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """Where session changes go: the configuration, what should be equal at all nodes, the pair's key (32
    bytes)."""

    mirror: Mirror
    nats: tuple[Nat, ...]
    sessions: Sessions | None
    key: bytes

    def __repr__(self) -> str:
        """The key stays out of logs and tracebacks."""
        return f"MirrorSettings({self.mirror.node!r}, {len(self.mirror.peers)} peers)"


@dataclass(frozen=True, slots=True)
class MirrorPeer:
    """The stream to a peer, and the one from it. ``phase``: off, waiting, snapshot, fence, live. ``refusal``:
    the peer's last one; "not": none. ``lag_*``: what it has not applied yet. ``heard_ns``: of its stream.
    ``notes``: names of enum ips_ctl_mirror_note. ``differs``: of PARTS, what the peer has otherwise.
    ``refused``: datagrams from its address that were dropped unread."""

    phase: str
    is_ready: bool
    refusal: str
    feeds_us: bool
    is_complete: bool
    lag_events: int
    lag_ns: int
    under_way: int
    round_trip_ns: int
    heard_ns: int
    notes: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    refused: int = 0


@dataclass(frozen=True, slots=True)
class FlowsState:
    """Numbers of the session table and of the mirror. Times: CLOCK_BOOTTIME in ns.

    ``sessions``: the members of struct ips_sessions_stats. ``counters``: those of ips_mirror.def, by name.
    ``is_ready``: a standby that could take over without losing a committed session. ``committed``: first
    packets that waited until every ready standby had the session; ``uncommitted``: in vain.
    """

    now_ns: int
    has_flows: bool
    has_mirror: bool
    is_ready: bool
    is_active: bool
    epoch: int
    addresses: int
    sessions: Mapping[str, int]
    counters: Mapping[str, int]
    peers: tuple[MirrorPeer, ...]
    committed: int
    uncommitted: int
    held: int
    hold_full: int
    hold_dropped: int


@dataclass(frozen=True, eq=False, slots=True)
class SessionDump:
    """Sessions of one moment: (n,) records of ``SESSION``. ``matched``: how many there were, beyond a limit
    too; ``scanned``: how many were looked at."""

    records: Records
    now_ns: int
    matched: int
    scanned: int


class SessionFeed(Protocol):
    """To a standby, on a connection of its own (IPS_CTL_SESSIONS_FEED). Each but ``close`` raises ``Refused``
    (the node is active, or knows a higher epoch; the table takes a record not) or ``EngineError``."""

    def begin(self, epoch: int, *, is_new_origin: bool) -> None:
        """A snapshot of everything. is_new_origin: versions of before do not compare with those that come."""

    def records(self, epoch: int, records: Records) -> None:
        """An array of ``struct ips_ctl_fed``."""

    def end(self, epoch: int) -> None:
        """The snapshot is whole: what it did not bring ends; the node is ready."""

    def lost(self) -> None:
        """Nobody feeds it any more."""

    def close(self) -> None: ...


@runtime_checkable
class Flowing(Protocol):
    """An engine that tracks connections."""

    def set_flows(self, settings: FlowsSettings) -> None:
        """Session table and pools are as said; again with the same content: nothing. Raises ``Refused`` where
        sizes differ from those of the first time."""

    def flows_state(self) -> FlowsState | None:
        """None: an engine of an earlier version."""

    def sessions(self, wanted: SessionFilter) -> SessionDump:
        """Those that match. Raises ``Refused``: there is no session table."""

    def close_sessions(self, wanted: SessionFilter) -> int:
        """Ends those that match, and returns how many. Raises as ``sessions``."""

    def nat_addresses(self) -> Records:
        """Public addresses and how many of their ports are in use, (n,) records of ``NAT_ADDRESS``."""

    def set_mirror(self, settings: MirrorSettings) -> None:
        """Sessions are mirrored from now on; again with the same content: nothing."""

    def clear_mirror(self) -> None:
        """They are not any more."""


@runtime_checkable
class Fed(Protocol):
    """An engine that others than its mirror can tell of an active node's sessions."""

    def feed_sessions(self) -> SessionFeed:
        """On a connection of its own."""


def encode_flows(settings: FlowsSettings) -> bytes:
    """``struct ips_ctl_flows``. Raises ``EngineError`` where something does not fit."""
    sessions, nats, records = settings.sessions, settings.nats, np.zeros(1, FLOWS)
    record = records[0]
    record["sessions"], record["half_open"] = sessions.capacity, sessions.half_open
    record["half_open_per_source"], record["mappings"] = sessions.half_open_per_source, sessions.mappings
    record["addresses"] = sessions.addresses
    record["source_bits4"], record["source_bits6"] = sessions.source_bits4, sessions.source_bits6
    record["udp_inbound_refreshes"] = sessions.udp_inbound_refreshes
    for name in record["timeouts"].dtype.names:
        record["timeouts"][name] = getattr(sessions.timeouts, name)
    if nats:
        record["filtering"] = FILTERING[nats[0].filtering]
    pools = [(nat, pool) for nat in nats for pool in nat.pools]
    insides = [(nat, prefix) for nat in nats for prefix in nat.inside]
    for name, have in (("pools", pools), ("insides", insides)):
        if len(have) > len(record[name]):
            raise EngineError(f"an engine has at most {len(record[name])} {name}, not {len(have)}")
        record[f"n_{name}"] = len(have)
    for row, (nat, pool) in zip(record["pools"], pools, strict=False):
        row["first"], row["family"], row["n"] = _raw(pool.first), pool.first.version, pool.count
        row["realm"], row["first_port"], row["last_port"] = nat.realm, nat.first_port, nat.last_port
        if nat.deterministic:
            put_block(row, nat, pool)
    for row, (nat, prefix) in zip(record["insides"], insides, strict=False):
        row["prefix"], row["prefix_len"] = _raw(prefix.network_address), prefix.prefixlen
        row["family"], row["realm"] = prefix.version, nat.realm
    return records.tobytes()


RELAY_ID, RELAY_NAME = 9, "m9"
"""The agent, as a standby of its engine's mirror (native/ips_relay.c)."""


def relay_key(key: bytes) -> bytes:
    """Of the channel between engine and agent, out of the pair's."""
    return hashlib.blake2b(b"", key=key, person=b"ipshare relay", digest_size=32).digest()


def relay_peer_name(pair: Pair) -> str:
    """The engine's name on that channel."""
    return f"m{pair.node_id}"


def encode_feed(epoch: int, flags: int, count: int) -> bytes:
    """``struct ips_ctl_feed``."""
    record = np.zeros(1, FEED)
    record[0]["epoch"], record[0]["flags"], record[0]["count"] = epoch, flags, count
    return record.tobytes()


def put_block(row: Any, nat: Nat, pool: AddressRange) -> None:
    """The part of a pool's record that makes its ports deterministic."""
    inside = next(prefix for prefix in nat.inside if prefix.version == pool.first.version)
    row["inside"], row["inside_len"] = _raw(inside.network_address), inside.prefixlen
    row["unit_len"] = subscriber_bits(inside)
    row["block"] = block_size(inside, pool.count, nat.last_port - nat.first_port + 1)


def encode_mirror(settings: MirrorSettings) -> bytes:
    """``struct ips_ctl_mirror``. By a database, its only peer is the agent."""
    mirror, records = settings.mirror, np.zeros(1, MIRROR)
    record = records[0]
    by_database = mirror.database is not None
    key = relay_key(settings.key) if by_database else settings.key
    record["key"] = np.frombuffer(key, np.uint8)
    record["id"], record["n_peers"] = mirror.number, len(mirror.peers)
    record["role"] = lib.IPS_CTL_MIRROR_OBSERVER if mirror.is_observer else lib.IPS_CTL_MIRROR_PAIR
    record["commit_acked"] = mirror.commit is Commit.ACKED
    record["commit_us"] = round(mirror.commit_timeout_s * 1e6)
    record["ring"], record["window"] = mirror.ring, mirror.window
    if not by_database:  # the agent keeps no table to compare, and has no configuration of its own
        record["digest_ns"], record["config_digest"] = round(mirror.digest_s * 1e9), nat_digest(settings.nats)
        said = parts(settings.nats, settings.sessions)
        record["n_items"] = len(said)
        for item, (name, digest) in zip(record["items"], said.items(), strict=False):
            _put(item, "name", name)
            item["digest"] = digest
    _put(record, "node", mirror.node)
    for peer, wanted in zip(record["peers"], mirror.peers, strict=False):
        peer["id"], peer["n_paths"] = RELAY_ID if by_database else wanted.number, len(wanted.paths)
        _put(peer, "name", wanted.name)
        for row, path in zip(peer["paths"], wanted.paths, strict=False):
            row["local"], row["remote"] = _raw(path.local), _raw(path.remote)
            row["local_port"], row["remote_port"] = path.local_port, path.remote_port
            row["family"] = path.local.version
    return records.tobytes()


def decode_state(record: Any) -> FlowsState:
    """A ``struct ips_ctl_flows_state``. Numbers that this version does not know keep their number as name."""
    mirror = record["mirror"]
    return FlowsState(
        now_ns=int(record["now_ns"]),
        has_flows=bool(record["has_flows"]),
        has_mirror=bool(record["has_mirror"]),
        is_ready=bool(record["is_ready"]),
        is_active=bool(mirror["is_active"]),
        epoch=int(mirror["epoch"]),
        addresses=int(record["n_addresses"]),
        sessions={name: int(record["sessions"][name]) for name in record["sessions"].dtype.names},
        counters={
            counter.name: int(value)
            for counter, value in zip(MIRROR_COUNTERS, mirror["counters"], strict=False)
        },
        peers=tuple(
            _peer(peer, *map(int, more))
            for peer, *more in zip(
                mirror["peers"], *(record[f"peer_{name}"] for name in PEER_NUMBERS), strict=True
            )
        ),
        **{name: int(record[name]) for name in HOLD},
    )


PEER_NUMBERS = ("notes", "differs", "refused")


def _peer(peer: Any, notes: int, differs: int, refused: int) -> MirrorPeer:
    phase, refusal = int(peer["phase"]), int(peer["refusal"])
    values: dict[str, Any] = {name: bool(peer[name]) for name in ("is_ready", "feeds_us", "is_complete")}
    for name in ("lag_events", "lag_ns", "under_way", "round_trip_ns", "heard_ns"):
        values[name] = int(peer[name])
    return MirrorPeer(
        phase=MIRROR_PHASES.get(phase, f"phase {phase}"),
        refusal=MIRROR_REFUSALS.get(refusal, f"refusal {refusal}"),
        notes=tuple(name for bit, name in sorted(MIRROR_NOTES.items()) if notes & bit),
        differs=tuple(name for bit, name in enumerate(PARTS) if differs >> bit & 1),
        refused=refused,
        **values,
    )


def _raw(address: Address) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(packed(address), np.uint8)


def _put(record: Any, name: str, text: str) -> None:
    """A zero-terminated string."""
    data, field = text.encode(), record[name]
    if not 0 < len(data) < field.nbytes:
        raise EngineError(f"{name} {text!r} has {len(data)} bytes: 1 to {field.nbytes - 1} are possible")
    record[name] = np.frombuffer(data.ljust(field.nbytes, b"\0"), field.dtype)
