"""capture: what to capture or copy, and what became of it (S1.16).

A *capture* is for people: pcapng, before or after translation, ends with its client.
A *copy* is for an intrusion detection system: packets of marked bindings, as they came,
to an interface, a collector (VXLAN) or a file; it stays until it is stopped. Both are one
``TapRule``. Neither ever slows forwarding: what the engine cannot keep up with is lost and counted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ipshare.core import VERDICTS, dtype, lib, text
from ipshare.errors import EngineError

TAP = dtype("struct ips_ctl_tap")
TAP_STATE = dtype("struct ips_ctl_tap_state")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Side = Literal["outer", "inner"]


@dataclass(frozen=True, slots=True)
class ToFile:
    """pcapng to a descriptor open for writing: a file, or a pipe that has a reader. Lent, not given away."""

    fd: int


@dataclass(frozen=True, slots=True)
class ToInterface:
    """Out of a network interface of the engine's namespace; ``mac`` None: broadcast."""

    name: str
    mac: bytes | None = None


@dataclass(frozen=True, slots=True)
class ToCollector:
    """VXLAN (RFC 7348) to an address that is outside of every Global Network. ``vni``: 24 bits."""

    address: Address
    port: int = 4789
    vni: int = 0


@dataclass(frozen=True, slots=True)
class TapRule:
    """Which packets, how many, where to. Filters are joined by "and".

    ``what``: ``before`` (as they came), ``after`` (as they went), ``both``, or ``marked`` (as they
    came, only of bindings that ask for a copy). ``sample``: one of so many. ``snaplen``: bytes kept, 0 all.
    ``cells``: (first, count) of counter cells. ``verdicts``: names, empty for all.
    ``max_s``, ``max_packets``: 0 for no end. ``owned``: ends with the connection that started it.
    """

    target: ToFile | ToInterface | ToCollector
    what: Literal["before", "after", "both", "marked"] = "before"
    sides: frozenset[Side] = field(default_factory=lambda: frozenset[Side](("outer", "inner")))
    sample: int = 1
    snaplen: int = 0
    cells: tuple[int, int] | None = None
    verdicts: frozenset[str] = frozenset()
    max_packets: int = 0
    max_s: float = 0
    owned: bool = True


@dataclass(frozen=True, slots=True)
class TapState:
    """A tap's progress. ``lost_ring``: at most so many were lost between worker and tap thread;
    ``lost_target``: the target refused or was too slow, last with ``target_errno``."""

    id: int
    is_active: bool
    packets: int
    bytes: int
    lost_ring: int
    lost_target: int
    target_errno: int
    started_ns: int
    target: str

    @property
    def lost(self) -> int:
        return self.lost_ring + self.lost_target


@runtime_checkable
class Capturing(Protocol):
    """An engine that captures and copies."""

    def start_tap(self, rule: TapRule) -> TapState:
        """Starts a capture or copy. Raises ``EngineError``: too many, bad target, bad rule."""

    def stop_tap(self, tap_id: int) -> TapState:
        """Ends it and returns once every packet is delivered."""

    def wait_tap(self, tap_id: int, timeout_s: float | None = None) -> TapState:
        """Returns when it has ended by itself; by default waits for ever."""

    def taps(self) -> list[TapState]:
        """All that run."""


def verdict_mask(names: Iterable[str]) -> int:
    """Bit per verdict. Raises ``EngineError`` for a name that is none."""
    numbers = {verdict.name: verdict.number for verdict in VERDICTS}
    mask = 0
    for name in names:
        if name not in numbers:
            raise EngineError(f"there is no verdict {name}", hint="names: " + ", ".join(numbers))
        mask |= 1 << numbers[name]
    return mask


def _flags(rule: TapRule) -> int:
    what: int = {
        "before": lib.IPS_TAP_BEFORE,
        "after": lib.IPS_TAP_AFTER,
        "both": lib.IPS_TAP_BEFORE | lib.IPS_TAP_AFTER,
        "marked": lib.IPS_TAP_MARKED,
    }[rule.what]
    return what | (int(lib.IPS_TAP_OWNED) if rule.owned else 0)


def _raw(value: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(value, np.uint8)


def _fill_target(record: Any, target: ToFile | ToInterface | ToCollector) -> None:
    if isinstance(target, ToFile):
        record["target"] = lib.IPS_TAP_FILE
    elif isinstance(target, ToInterface):
        name = target.name.encode()
        if not 0 < len(name) < record["interface"].nbytes:
            raise EngineError(f"not a name of a network interface: {target.name!r}")
        record["target"] = lib.IPS_TAP_INTERFACE
        record["interface"] = np.frombuffer(
            name.ljust(record["interface"].nbytes, b"\0"), record["interface"].dtype
        )
        record["mac"] = _raw(target.mac or bytes(6))
    else:
        record["target"] = lib.IPS_TAP_COLLECTOR
        record["collector"] = _raw(target.address.packed.ljust(16, b"\0"))
        record["collector_family"] = target.address.version
        record["collector_port"], record["vni"] = target.port, target.vni


def encode(rule: TapRule) -> bytes:
    """The rule as ``struct ips_ctl_tap``. Raises ``EngineError`` where it says something impossible."""
    tap = np.zeros(1, TAP)
    record = tap[0]
    _fill_target(record, rule.target)
    try:
        record["flags"] = _flags(rule)
        record["sides"] = sum(1 << ("outer", "inner").index(side) for side in rule.sides)
        record["sample"], record["snaplen"] = rule.sample, rule.snaplen
        record["cell_first"], record["cell_count"] = rule.cells or (0, 0)
        record["max_ms"] = round(rule.max_s * 1000)
        record["max_packets"] = rule.max_packets
        record["verdicts"] = verdict_mask(rule.verdicts)
    except OverflowError as error:
        raise EngineError(f"a number of the capture is out of range: {error}") from error
    return tap.tobytes()


def decode(record: Any) -> TapState:
    """A ``struct ips_ctl_tap_state``."""
    rule = record["tap"]
    if rule["target"] == lib.IPS_TAP_INTERFACE:
        target = f"interface {text(rule['interface'])}"
    elif rule["target"] == lib.IPS_TAP_COLLECTOR:
        size = 4 if rule["collector_family"] == 4 else 16
        address = ipaddress.ip_address(rule["collector"].tobytes()[:size])
        target = f"collector {address} port {rule['collector_port']}"
    else:
        target = "file"
    numbers = {
        name: int(record[name])
        for name in ("id", "packets", "bytes", "lost_ring", "lost_target", "target_errno", "started_ns")
    }
    return TapState(is_active=int(record["status"]) == lib.IPS_TAP_ACTIVE, target=target, **numbers)


def decode_all(payload: bytes) -> list[TapState]:
    return [decode(record) for record in np.frombuffer(payload, TAP_STATE)]
