"""pairing: what an engine is told about its pair, and what it says of it (SYSTEMS.md S2, S3.2).

The engine's real-time thread decides who is active; here are only the records of the control socket, as
values. States, reasons and notes have the core's own names (ipshare.core.pair).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np

from ipshare.core import dtype, lib
from ipshare.core.pair import PAIR_LATE, PAIR_NOTES, PAIR_REASONS, PAIR_STATES
from ipshare.errors import EngineError
from ipshare.model import Address, Pair, PairMode, Witness, packed
from ipshare.model_pair import PARTS

PAIR = dtype("struct ips_ctl_pair")
PAIR_SEEN = dtype("struct ips_ctl_pair_seen")
PAIR_COMMAND = dtype("struct ips_ctl_pair_command")
PAIR_STATE = dtype("struct ips_ctl_pair_state")
KEY_BYTES = 32

Order = Literal["switchover", "force", "maintenance", "service"]
ORDERS: dict[Order, tuple[int, int]] = {
    "switchover": (lib.IPS_CTL_PAIR_SWITCHOVER, 0),
    "force": (lib.IPS_CTL_PAIR_FORCE, 0),
    "maintenance": (lib.IPS_CTL_PAIR_MAINTENANCE, 1),
    "service": (lib.IPS_CTL_PAIR_MAINTENANCE, 0),
}


@dataclass(frozen=True, slots=True)
class PairSettings:
    """What an engine needs: the configuration, the key (32 bytes), a file that outlives a reboot."""

    pair: Pair
    key: bytes
    epoch_file: Path
    witness_key: bytes = b""
    is_mirrored: bool = False
    """A mirror follows; until it is there, the node has not got the sessions."""

    def __repr__(self) -> str:
        """The key stays out of logs and tracebacks."""
        return f"PairSettings({self.pair.node!r}, {self.epoch_file})"


@dataclass(frozen=True, slots=True)
class PairState:
    """Where this half of the pair is. Times: CLOCK_BOOTTIME in ns; 0: never, or none.

    ``changes``: in this run of the engine. ``forward_until_ns``: the lease. ``paths_up``: numbers, from 0, of
    paths on which the peer was heard within the dead time. ``links_down``: numbers of VIPs whose interface is
    down or gone. ``notes``: names of enum ips_ctl_pair_note. ``late``, ``longest_late_ns``: how often and by
    how much the engine's thread was late, for each cause of ``PAIR_LATE``; ``last_late``: the last cause.
    ``pauses``: how often that was long enough to doubt what it knew. ``differs``: of PARTS, what the peer has
    otherwise.
    """

    state: str
    old_state: str
    reason: str
    reason_text: str
    changes: int
    since_ns: int
    now_ns: int
    epoch: int
    epoch_node: int
    forward_until_ns: int
    peer_state: str
    peer_heard_ns: int
    paths_up: tuple[int, ...]
    links_down: tuple[int, ...]
    notes: tuple[str, ...]
    sent: int
    received: int
    refused: int
    jitter_ns: int
    vip_answers: int
    vip_refused: int
    announcements: int
    granted_until_ns: int = 0
    criteria_failed: tuple[int, ...] = ()
    publics_down: tuple[int, ...] = ()
    ports_wrong: tuple[int, ...] = ()
    pauses: int = 0
    late: tuple[int, ...] = ()
    longest_late_ns: tuple[int, ...] = ()
    last_late: str = ""
    last_late_at_ns: int = 0
    last_late_ns: int = 0
    differs: tuple[str, ...] = ()

    @property
    def forwards(self) -> bool:
        """Whether the lease ran when this was said."""
        return self.forward_until_ns > self.now_ns

    @property
    def is_ready(self) -> bool:
        """Whether a switchover would have been taken when this was said: one node is active, the other
        standby, and with a mirror it has all sessions."""
        return "ready" in self.notes


class PairWaiter(Protocol):
    """Follows one run of an engine, on a connection of its own. Usable as a context manager."""

    def wait(self, seen: int, timeout_s: float | None = None) -> PairState:
        """The state, as soon as its ``changes`` differ from ``seen``; by default waits for ever. Raises
        ``EngineError`` (no pair is set any more), ``EngineGone``, ``EngineSilent`` (nothing in time)."""

    def interrupt(self) -> None:
        """From any thread: ``wait`` raises ``EngineGone``, now and later."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@runtime_checkable
class Pairing(Protocol):
    """An engine that can be half of a pair."""

    def set_pair(self, settings: PairSettings) -> None:
        """From now on it is; again with the same content: nothing. Raises ``EngineError``."""

    def clear_pair(self) -> None:
        """It is not any more."""

    def pair_state(self) -> PairState | None:
        """None: it is no half of a pair."""

    def watch_pair(self) -> PairWaiter:
        """A connection to wait on. Raises ``EngineGone``."""

    def pair_command(self, order: Order) -> None:
        """What comes of it is in the state. Raises ``Refused``: why it cannot be, or that no pair is set."""


def encode(settings: PairSettings) -> bytes:
    """``struct ips_ctl_pair``. Raises ``EngineError`` where something does not fit."""
    pair, records = settings.pair, np.zeros(1, PAIR)
    record = records[0]
    if len(settings.key) != KEY_BYTES:
        raise EngineError(f"a pair's key has {KEY_BYTES} bytes, not {len(settings.key)}")
    for name, have in (
        ("paths", pair.paths),
        ("vips", pair.vips),
        ("criteria", pair.criteria),
        ("publics", pair.publics),
        ("ports", pair.ports),
    ):
        if len(have) > len(record[name]):
            raise EngineError(f"a pair has at most {len(record[name])} {name}, not {len(have)}")
    record["key"] = np.frombuffer(settings.key, np.uint8)
    record["interval_ns"], record["misses"] = round(pair.interval_s * 1e9), pair.misses
    record["flags"] = (
        (lib.IPS_CTL_PAIR_QUERY if pair.mode is PairMode.QUERY else 0)
        | (lib.IPS_CTL_PAIR_PREEMPT if pair.preempt else 0)
        | (lib.IPS_CTL_PAIR_PREFERRED if pair.is_preferred else 0)
        | (lib.IPS_CTL_PAIR_MIRRORED if settings.is_mirrored else 0)
    )
    record["node_id"], record["peer_id"] = pair.node_id, pair.peer_id
    record["n_paths"], record["n_vips"] = len(pair.paths), len(pair.vips)
    record["config_digest"] = pair.digest
    for name, text in (("node", pair.node), ("peer", pair.peer), ("epoch_file", str(settings.epoch_file))):
        _put(record, name, text)
    for row, path in zip(record["paths"], pair.paths, strict=False):
        row["local"], row["remote"] = _raw(path.local), _raw(path.remote)
        row["local_port"], row["remote_port"] = path.local_port, path.remote_port
        row["family"] = path.local.version
    record["n_criteria"], record["criteria_needed"] = len(pair.criteria), pair.criteria_needed
    for row, criterion in zip(record["criteria"], pair.criteria, strict=False):
        row["kind"] = getattr(lib, f"IPS_CTL_PAIR_{criterion.kind.upper()}")
        row["interval_ns"], row["misses"] = round(criterion.interval_s * 1e9), criterion.misses
        if criterion.address is not None:
            row["address"], row["family"] = _raw(criterion.address), criterion.address.version
        _put(row, "interface", criterion.interface)
    record["n_ports"] = len(pair.ports)
    for number, port in enumerate(pair.ports):
        _put(record["ports"], number, port.name)
    record["n_items"] = len(pair.parts)
    for item, (name, digest) in zip(record["items"], pair.parts.items(), strict=False):
        _put(item, "name", name)
        item["digest"] = digest
    record["n_publics"] = len(pair.publics)
    for row, public in zip(record["publics"], pair.publics, strict=False):
        row["address"], row["family"] = _raw(public.prefix.network_address), public.prefix.version
        row["prefix_len"] = public.prefix.prefixlen
        _put(row, "interface", public.interface)
    if pair.witness is not None:
        _put_witness(record["witness"], pair.witness, settings.witness_key)
    for row, vip in zip(record["vips"], pair.vips, strict=False):
        row["address"], row["family"] = _raw(vip.address), vip.address.version
        _put(row, "interface", vip.interface)
    return records.tobytes()


def _put_witness(record: Any, witness: Witness, key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise EngineError(f"a witness's key has {KEY_BYTES} bytes, not {len(key)}")
    record["key"] = np.frombuffer(key, np.uint8)
    record["ttl_ns"], record["port"] = round(witness.ttl_s * 1e9), witness.port
    record["address"], record["family"] = _raw(witness.address), witness.address.version


def decode(record: Any) -> PairState:
    """A ``struct ips_ctl_pair_state``. Numbers that this version does not know keep their number as name."""
    reason = int(record["reason"])
    known = PAIR_REASONS[reason] if reason < len(PAIR_REASONS) else None
    names = {name: _state(int(record[name])) for name in ("state", "old_state", "peer_state")}
    masks = {
        name: _bits(int(record[name]))
        for name in ("paths_up", "links_down", "criteria_failed", "publics_down", "ports_wrong")
    }
    said: dict[str, Any] = {
        **names,
        **masks,
        "reason": known.name if known else f"REASON_{reason}",
        "reason_text": known.text if known else "a reason that this version does not know",
        "notes": tuple(name for bit, name in PAIR_NOTES.items() if int(record["flags"]) & bit),
        "late": tuple(int(n) for n in record["late"]),
        "longest_late_ns": tuple(int(n) for n in record["longest_late_ns"]),
        "last_late": PAIR_LATE.get(int(record["last_late"]), ""),
        "differs": tuple(name for bit, name in enumerate(PARTS) if int(record["differs"]) >> bit & 1),
    }
    numbers: dict[str, Any] = {
        name: int(record[name]) for name in PAIR_STATE.names or () if name not in {*said, "flags", "reserved"}
    }
    return PairState(**said, **numbers)


def encode_order(order: Order) -> bytes:
    """``struct ips_ctl_pair_command``."""
    record = np.zeros(1, PAIR_COMMAND)
    record[0]["order"], record[0]["argument"] = ORDERS[order]
    return record.tobytes()


def _state(number: int) -> str:
    return PAIR_STATES.get(number, "unknown" if number == 0 else f"state {number}")


def _bits(mask: int) -> tuple[int, ...]:
    return tuple(number for number in range(mask.bit_length()) if mask >> number & 1)


def _raw(address: Address) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(packed(address), np.uint8)


def _put(record: Any, name: str | int, text: str) -> None:
    """A zero-terminated string into a field, or an element."""
    data, field = text.encode(), record[name]
    if not 0 < len(data) < field.nbytes:
        raise EngineError(f"{name} {text!r} has {len(data)} bytes: 1 to {field.nbytes - 1} are possible")
    record[name] = np.frombuffer(data.ljust(field.nbytes, b"\0"), field.dtype)
