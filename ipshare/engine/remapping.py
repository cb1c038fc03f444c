"""remapping: what an engine is told about addresses that are remapped, and what it says of them (SYSTEMS.md
S4).

Records of the control socket (native/ips_control_remap.h) as values. A remap has two halves: the node that
gives the address (``preparing`` <-> ``leaving``) and the one that takes it (``ready`` <-> ``taking``). The
order is: ``set_remap`` ready at the taker, preparing at the giver; once the giver's ``is_ready``: leaving;
once its ``fence_applied``: taking; distribution points flip; the giver's ``flows`` go to 0; ``clear_remap``
at both. docs/remap.md says what happens to packets meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ipshare.core import dtype, lib
from ipshare.core.flows import MIRROR_NOTES, MIRROR_PHASES, MIRROR_REFUSALS
from ipshare.core.layout import text
from ipshare.core.remap import REMAP_COUNTERS
from ipshare.engine.flows import SessionDump
from ipshare.errors import EngineError
from ipshare.model import Address, PairPath, Prefix, packed, unpacked

REMAP = dtype("struct ips_ctl_remap")
REMAP_ID = dtype("struct ips_ctl_remap_id")
REMAP_STATE = dtype("struct ips_ctl_remap_state")
REMAP_WANTED = dtype("struct ips_ctl_remap_wanted")
MOST_REMAPS = lib.IPS_REMAPS
LARGEST_ID = 2**56 - 1


class RemapRole(StrEnum):
    """What a node does with the address."""

    PREPARING = "preparing"  # gives: its flows are tracked and mirrored; it still opens
    LEAVING = "leaving"  # gives: it opens no flow any more
    READY = "ready"  # takes: learns the giver's flows, answers what the giver asks
    TAKING = "taking"  # takes: the giver's flows go there, everything else is opened here

    @property
    def gives(self) -> bool:
        """Whether this node is the one that has the address until now."""
        return self in (RemapRole.PREPARING, RemapRole.LEAVING)

    @property
    def code(self) -> int:
        """The core's number."""
        return int(getattr(lib, f"IPS_REMAP_{self.name}"))


class ChannelKind(StrEnum):
    """How a packet goes to the other node."""

    IPIP = "ipip"
    GUE = "gue"
    REWRITE = "rewrite"  # re-addressed

    @property
    def code(self) -> int:
        """The core's number."""
        return int(
            lib.IPS_ENCAP_NONE if self is ChannelKind.REWRITE else getattr(lib, f"IPS_ENCAP_{self.name}")
        )


@dataclass(frozen=True, slots=True)
class RemapChannel:
    """Addresses of both ends, of one family; none is configured on an interface, ours are routed to the inner
    device. ``final``: of packets that the other end delivers; ``ask``: of those that it decides about.

    IPIP: four different addresses. GUE: ``ask`` = ``final`` at each end, as an octet says which it is.
    REWRITE: first addresses of prefixes as long as the remap's, of its family, for this remap alone.
    ``mtu``: bytes of the largest packet between the nodes, outer header included; 0: no check.
    """

    kind: ChannelKind
    local_final: Address
    local_ask: Address
    remote_final: Address
    remote_ask: Address
    gue_port: int = 0
    mtu: int = 0

    def turned(self) -> RemapChannel:
        """The same, as the other node is told it."""
        return RemapChannel(
            self.kind,
            self.remote_final,
            self.remote_ask,
            self.local_final,
            self.local_ask,
            self.gue_port,
            self.mtu,
        )


@dataclass(frozen=True, slots=True)
class RemapSettings:
    """One half of a remap. ``id``: 1 to 2^56 - 1, the same at both nodes, higher for a later remap of an
    address. ``paths``: of the mirror, UDP. ``key``: 32 bytes, of this remap. ``flows``: room at the taker
    for the giver's, 0: as many as its session table has. ``quic`` (taker): an unknown UDP packet with
    QUIC's short header opens nothing. ``replies_by_channel`` (both; not with REWRITE): of the giver's
    flows. ``unknown_here`` (taker): what nobody knows stays here, this node having had the address before
    the giver: for a remap back."""

    id: int
    node: str
    peer: str
    prefix: Prefix
    role: RemapRole
    channel: RemapChannel
    paths: tuple[PairPath, ...]
    key: bytes
    quic: bool = False
    replies_by_channel: bool = False
    unknown_here: bool = False
    flows: int = 0
    ring: int = 0
    window: int = 0

    def __repr__(self) -> str:
        """The key stays out of logs and tracebacks."""
        return f"RemapSettings({self.id}, {self.prefix}, {self.role.value} with {self.peer!r})"


@dataclass(frozen=True, slots=True)
class RemapState:
    """One half, as the engine sees it. Times: CLOCK_BOOTTIME in ns; 0: never.

    ``flows``: the giver's; at the giver counted in passes that end at ``counted_ns``; at the taker those it
    was told of. ``is_exact``: none of them is seen in one direction only; else ``flows`` means "at most".
    Connections that were silent since before ``tracked_ns`` are in no number. ``is_ready``: the taker has
    every flow but what is under way. ``fence_applied`` (giver): it has everything that there was at
    ``fence_ns``, when the giver began to leave. ``counters``: by name,
    ``ipshare.core.remap.REMAP_COUNTERS``. ``phase``, ``refusal``, ``lag_*``, ``resyncs`` (giver): of the
    mirror. ``notes``: "heard", "wrong_key".
    """

    id: int
    prefix: Prefix
    peer: str
    role: RemapRole
    now_ns: int
    since_ns: int
    tracked_ns: int
    fence_ns: int
    fence_applied: bool
    is_ready: bool
    flows: int
    active: int
    is_exact: bool
    counted_ns: int
    heard_ns: int
    phase: str
    refusal: str
    lag_events: int
    lag_ns: int
    round_trip_ns: int
    resyncs: int
    counters: Mapping[str, int]
    notes: tuple[str, ...] = ()


@runtime_checkable
class Remapping(Protocol):
    """An engine that can be half of a remap."""

    def set_remap(self, settings: RemapSettings) -> None:
        """It is as said from now on: every packet thread has seen it. Again with the same content: nothing.

        With another role of the same side and all else equal, the role changes. Raises ``Refused`` with the
        reason: no connections are tracked (``set_flows`` first), something else than the role differs
        (``clear_remap`` first), too many remaps cover the address; ``EngineError`` for values out of range,
        and from an engine of an earlier version.
        """

    def clear_remap(self, remap: int) -> RemapState | None:
        """Ends it at this node, and returns its last state; None: there is none of that id."""

    def remaps(self) -> tuple[RemapState, ...]:
        """All, lowest id first; nothing from an engine of an earlier version."""

    def remap_state(self, remap: int) -> RemapState | None:
        """None: there is none of that id."""

    def remap_flows(self, remap: int, limit: int = 0) -> SessionDump:
        """The giver's flows as this node knows them; limit 0: all. Raises ``Refused``: none of that id."""


@runtime_checkable
class Forwarding(Protocol):
    """An engine that sends packets by routes of its own, not by the kernel's."""

    def way_mtu(self, address: Address) -> int | None:
        """Bytes of the longest packet that it sends towards ``address``; None: no route leads there."""


def encode_remap(settings: RemapSettings) -> bytes:
    """``struct ips_ctl_remap``. Raises ``EngineError`` where something does not fit."""
    records = np.zeros(1, REMAP)
    record = records[0]
    if len(settings.key) != record["key"].nbytes:
        raise EngineError(f"the key of a remap has {record['key'].nbytes} bytes, not {len(settings.key)}")
    if not 0 < settings.id <= LARGEST_ID:
        raise EngineError(f"the id of a remap is from 1 to 2^56 - 1, not {settings.id}")
    if not 0 < len(settings.paths) <= len(record["paths"]):
        raise EngineError(f"a remap has 1 to {len(record['paths'])} paths, not {len(settings.paths)}")
    record["key"], record["id"] = np.frombuffer(settings.key, np.uint8), settings.id
    _put(record, "node", settings.node)
    _put(record, "peer", settings.peer)
    record["prefix"] = _raw(settings.prefix.network_address)
    record["prefix_len"], record["family"] = settings.prefix.prefixlen, settings.prefix.version
    record["role"], record["n_paths"] = settings.role.code, len(settings.paths)
    record["flags"] = (
        lib.IPS_REMAP_QUIC * settings.quic
        | lib.IPS_REMAP_REPLIES * settings.replies_by_channel
        | lib.IPS_REMAP_UNKNOWN_HERE * settings.unknown_here
    )
    record["flows"], record["ring"], record["window"] = settings.flows, settings.ring, settings.window
    channel, row = settings.channel, record["channel"]
    row["encap"], row["family"] = channel.kind.code, channel.local_final.version
    row["gue_port"], row["mtu"] = channel.gue_port, channel.mtu
    row["local"] = [_raw(channel.local_final), _raw(channel.local_ask)]
    row["remote"] = [_raw(channel.remote_final), _raw(channel.remote_ask)]
    for path_row, path in zip(record["paths"], settings.paths, strict=False):
        path_row["local"], path_row["remote"] = _raw(path.local), _raw(path.remote)
        path_row["local_port"], path_row["remote_port"] = path.local_port, path.remote_port
        path_row["family"] = path.local.version
    return records.tobytes()


def decode_remap(record: Any) -> RemapState:
    """A ``struct ips_ctl_remap_state``. Numbers that this version does not know keep their number as name."""
    family, phase, refusal = (int(record[name]) for name in ("family", "phase", "refusal"))
    notes = int(record["notes"])
    roles = {role.code: role for role in RemapRole}
    return RemapState(
        id=int(record["id"]),
        prefix=_prefix(record["prefix"].tobytes(), int(record["prefix_len"]), family),
        peer=text(record["peer"]),
        role=roles[int(record["role"])],
        fence_applied=bool(record["fence_applied"]),
        is_ready=bool(record["is_ready"]),
        is_exact=not record["one_sided"],
        phase=MIRROR_PHASES.get(phase, f"phase {phase}"),
        refusal=MIRROR_REFUSALS.get(refusal, f"refusal {refusal}"),
        resyncs=int(record["mirror_resyncs"]),
        counters={
            counter.name: int(value)
            for counter, value in zip(REMAP_COUNTERS, record["counters"], strict=False)
        },
        notes=tuple(name for bit, name in sorted(MIRROR_NOTES.items()) if notes & bit),
        **{name: int(record[name]) for name in _NUMBERS},
    )


_NUMBERS = (
    "now_ns", "since_ns", "tracked_ns", "fence_ns", "flows", "active", "counted_ns", "heard_ns", "lag_events",
    "lag_ns", "round_trip_ns",
)  # fmt: skip


def encode_id(remap: int) -> bytes:
    """``struct ips_ctl_remap_id``."""
    records = np.zeros(1, REMAP_ID)
    records["id"] = remap
    return records.tobytes()


def encode_wanted(remap: int, limit: int) -> bytes:
    """``struct ips_ctl_remap_wanted``."""
    records = np.zeros(1, REMAP_WANTED)
    records["id"], records["limit"] = remap, limit
    return records.tobytes()


def _prefix(data: bytes, length: int, family: int) -> Prefix:
    network = IPv4Network if family == 4 else IPv6Network
    return network((unpacked(data, family), length))


def _raw(address: Address) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(packed(address), np.uint8)


def _put(record: Any, name: str, value: str) -> None:
    """A zero-terminated string."""
    data, field = value.encode(), record[name]
    if not 0 < len(data) < field.nbytes:
        raise EngineError(f"{name} {value!r} has {len(data)} bytes: 1 to {field.nbytes - 1} are possible")
    record[name] = np.frombuffer(data.ljust(field.nbytes, b"\0"), field.dtype)
