"""control: one method per operation of the engine's control socket.

Thread-safe and blocking; ``aio`` has the asyncio form. A connection that was lost is made
anew by the next call; if another engine process answers then (another boot id), that call
raises ``EngineRestarted`` once, because whatever the caller had loaded is gone.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from ipshare.core import VERDICTS, Verdict, dtype, lib, text
from ipshare.engine import capture, pairing
from ipshare.engine.embedded.counters import Region
from ipshare.engine.embedded.pair import PairWait
from ipshare.engine.embedded.wire import Connection, Reply, map_fd, sealed_memfd
from ipshare.engine.failures import EngineGone, EngineRestarted, EngineSilent
from ipshare.errors import EngineError

HELLO = dtype("struct ips_ctl_hello")
INFO = dtype("struct ips_ctl_info")
GENERATION = dtype("struct ips_ctl_generation")
PACKET = dtype("struct ips_ctl_packet")
WHY = dtype("struct ips_ctl_why")
CELLS = dtype("struct ips_ctl_cells")
PATH_MTU = dtype("struct ips_ctl_path_mtu")
TAP_ID = dtype("struct ips_ctl_tap_id")
BINDING = dtype("struct ips_binding_rec")
NONE = 0xFFFFFFFF

DEFAULT_TIMEOUT_S = 10.0
PREPARE_TIMEOUT_S = 120.0
"""A million bindings take a second or two; a machine under pressure, longer."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who answers. ``netns``: inode of the network namespace; ``features``: "tso", "uso", "uring"."""

    boot_id: str
    version: str
    node: str
    pid: int
    workers: int
    outer: str
    inner: str
    outer_ifindex: int
    inner_ifindex: int
    netns: int
    started_ns: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MadePacket:
    """A packet that the core would send. ``kind``: "packet" or "error" (an ICMP error)."""

    kind: str
    data: bytes
    gso_size: int = 0


@dataclass(frozen=True, slots=True)
class Why:
    """What the live generation does with a packet; ``omitted``: packets not listed for want of room."""

    verdict: Verdict
    generation: int
    counter: int | None
    endpoint: int | None
    packets: tuple[MadePacket, ...]
    omitted: int


def _record(layout: np.dtype[Any], **values: int) -> bytes:
    record = np.zeros(1, layout)
    try:
        for name, value in values.items():
            record[0][name] = value
    except OverflowError as error:
        raise EngineError(f"{name} {value} is out of range") from error
    return record.tobytes()


class Control:
    """A client of the engine at ``socket``. Usable as a context manager."""

    def __init__(self, socket: Path | str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Connects at the first call. ``timeout_s`` bounds each call but ``prepare`` and ``wait_tap``."""
        self.path = Path(socket)
        self.timeout_s = timeout_s
        self.boot_id: str | None = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; captures that it owns end too. The data path goes on."""
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = None

    # ---- identity ----------------------------------------------------------

    def hello(self) -> Hello:
        """Who answers. Raises ``EngineGone``, ``EngineRestarted``."""
        return _hello(self._call(lib.IPS_CTL_HELLO))

    def info(self) -> dict[str, int]:
        """The fields of ``struct ips_ctl_info``, and of the ``struct ips_tables_info`` in it."""
        record = self._call(lib.IPS_CTL_INFO).one(INFO)
        own = {name: int(record[name]) for name in INFO.names or () if name not in ("tables", "reserved")}
        return own | {name: int(record["tables"][name]) for name in record["tables"].dtype.names}

    # ---- tables ------------------------------------------------------------

    def prepare(self, image: bytes | bytearray | memoryview) -> int:
        """Builds a generation beside the live one; returns its number.

        It is dropped if this connection ends before ``commit``, or by anyone's next ``prepare``.
        Raises ``ImageRefused`` with the first bad record.
        """
        fd = sealed_memfd(image)
        try:
            reply = self._call(lib.IPS_CTL_PREPARE, fd=fd, timeout_s=max(self.timeout_s, PREPARE_TIMEOUT_S))
        finally:
            os.close(fd)
        return _generation(reply)

    def commit(self, generation: int) -> int:
        """Makes a prepared generation live; again: nothing. Raises ``ControlError``: no such generation."""
        return _generation(self._call(lib.IPS_CTL_COMMIT, _record(GENERATION, generation=generation)))

    def abort(self) -> None:
        """Drops what is prepared."""
        self._call(lib.IPS_CTL_ABORT)

    def rollback(self) -> int:
        """The previous content becomes live under a new number. Raises ``ControlError``: there is none."""
        return _generation(self._call(lib.IPS_CTL_ROLLBACK))

    def dump(self) -> tuple[int, memoryview]:
        """(generation, complete image mapped read-only). Raises ``ControlError``: nothing is loaded."""
        reply = self._call(lib.IPS_CTL_DUMP)
        return _generation(reply), memoryview(map_fd(reply.fd))

    def set_path_mtu(self, endpoint: int, mtu: int, seconds: int) -> None:
        """What a probe learned about the path to end point record ``endpoint`` of the live generation:
        the smaller of this and the configured MTU (bytes) holds for ``seconds``; 0 bytes forgets."""
        self._call(lib.IPS_CTL_PATH_MTU, _record(PATH_MTU, endpoint=endpoint, mtu=mtu, seconds=seconds))

    # ---- counters and questions ---------------------------------------------

    def counters(self) -> Region:
        """The shared counters, mapped; valid for one boot id, then they stand still."""
        return Region(map_fd(self._call(lib.IPS_CTL_COUNTERS).fd))

    def cells(self, bindings: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """(first cell, number of cells) of each binding record, shapes (n,); first cell 2**32-1: none."""
        records = np.ascontiguousarray(bindings, BINDING)
        if len(records) == 0:
            return np.zeros(0, np.uint32), np.zeros(0, np.uint32)
        fd = sealed_memfd(records.view(np.uint8).data)
        try:
            reply = self._call(lib.IPS_CTL_CELLS, fd=fd)
        finally:
            os.close(fd)
        cells = np.frombuffer(map_fd(reply.fd), CELLS)
        return cells["index"], cells["span"]

    def why(
        self, packet: bytes, side: Literal["outer", "inner"], *, gso_size: int = 0, gso_type: int = 0
    ) -> Why:
        """What would happen to an IP packet that enters on ``side``; nothing is sent or counted."""
        sides = {"outer": lib.IPS_CTL_OUTER, "inner": lib.IPS_CTL_INNER}
        head = _record(PACKET, bytes=len(packet), side=sides[side], gso_size=gso_size, gso_type=gso_type)
        return _why(self._call(lib.IPS_CTL_WHY, head + packet).payload)

    # ---- captures and copies (S1.16) ----------------------------------------

    def start_tap(self, rule: capture.TapRule) -> capture.TapState:
        """Starts a capture or copy. Raises ``ControlError``: too many, bad target, bad rule."""
        fd = rule.target.fd if isinstance(rule.target, capture.ToFile) else -1
        reply = self._call(lib.IPS_CTL_TAP_START, capture.encode(rule), fd=fd)
        return capture.decode(reply.one(capture.TAP_STATE))

    def stop_tap(self, tap_id: int) -> capture.TapState:
        """Ends it and returns once every packet is delivered."""
        return self._tap(lib.IPS_CTL_TAP_STOP, tap_id, self.timeout_s)

    def wait_tap(self, tap_id: int, timeout_s: float | None = None) -> capture.TapState:
        """Returns when it has ended by itself. Waits on a connection of its own, for ever by default."""
        waiting = Control(self.path, timeout_s=self.timeout_s)
        with waiting:
            return waiting._tap(lib.IPS_CTL_TAP_WAIT, tap_id, timeout_s)

    def taps(self) -> list[capture.TapState]:
        return capture.decode_all(self._call(lib.IPS_CTL_TAP_LIST).payload)

    def _tap(self, op: int, tap_id: int, timeout_s: float | None) -> capture.TapState:
        reply = self._call(op, _record(TAP_ID, id=tap_id), timeout_s=timeout_s)
        return capture.decode(reply.one(capture.TAP_STATE))

    # ---- a redundant pair (S2.2) ---------------------------------------------

    def set_pair(self, settings: pairing.PairSettings) -> None:
        """The engine becomes half of this pair; again with the same content: nothing."""
        self._call(lib.IPS_CTL_PAIR_SET, pairing.encode(settings))

    def clear_pair(self) -> None:
        """It is no half of a pair any more."""
        self._call(lib.IPS_CTL_PAIR_CLEAR)

    def pair_state(self) -> pairing.PairState:
        """Raises ``ControlError``: no pair is set."""
        return pairing.decode(self._call(lib.IPS_CTL_PAIR_STATE).one(pairing.PAIR_STATE))

    def wait_pair(self, seen: int, timeout_s: float | None = None) -> pairing.PairState:
        """The state, as soon as its ``changes`` differ from ``seen``. Waits on a connection of its own, for
        ever by default. Raises ``ControlError`` (no pair), ``EngineSilent`` (nothing in time)."""
        with self.watch_pair() as waiting:
            return waiting.wait(seen, timeout_s)

    def watch_pair(self) -> PairWait:
        """A connection to wait on, again and again, that another thread may end."""
        return PairWait(self.path, self.timeout_s)

    def pair_command(self, order: pairing.Order) -> None:
        """Raises ``ControlError`` with why it cannot be done now; what comes of it is in the state."""
        self._call(lib.IPS_CTL_PAIR_COMMAND, pairing.encode_order(order))

    def call(self, op: int, payload: bytes = b"") -> Reply:
        """An operation that has its method in a module beside this one (flows). Raises as all of them."""
        return self._call(op, payload)

    def shutdown(self) -> None:
        """Ends the engine: its devices vanish, and with them every route into them."""
        self._call(lib.IPS_CTL_SHUTDOWN)

    # ---- connection ----------------------------------------------------------

    _DEFAULT = object()

    def _call(self, op: int, payload: bytes = b"", *, fd: int = -1, timeout_s: Any = _DEFAULT) -> Reply:
        limit = self.timeout_s if timeout_s is self._DEFAULT else timeout_s
        with self._lock:
            connection = self._connection or self._connect()
            try:
                return connection.call(op, payload, fd=fd, timeout_s=limit)
            except (EngineGone, EngineSilent):
                self._connection = None
                raise

    def _connect(self) -> Connection:
        connection = Connection(self.path, self.timeout_s)
        try:
            boot_id = _hello(connection.call(lib.IPS_CTL_HELLO, timeout_s=self.timeout_s)).boot_id
        except BaseException:
            connection.close()
            raise
        known, self.boot_id, self._connection = self.boot_id, boot_id, connection
        if known not in (None, boot_id):
            raise EngineRestarted(
                "the engine was restarted: it is another process now", hint="load its tables again"
            )
        return connection


def _generation(reply: Reply) -> int:
    return int(reply.one(GENERATION)["generation"])


def _hello(reply: Reply) -> Hello:
    record = reply.one(HELLO)
    bits = {
        "tso": lib.IPS_CTL_FEATURE_TSO,
        "uso": lib.IPS_CTL_FEATURE_USO,
        "uring": lib.IPS_CTL_FEATURE_URING,
    }
    numbers = ("pid", "workers", "outer_ifindex", "inner_ifindex", "netns", "started_ns")
    return Hello(
        boot_id=record["boot_id"].tobytes().hex(),
        version=text(record["engine_version"]),
        node=text(record["node"]),
        outer=text(record["outer"]),
        inner=text(record["inner"]),
        features=tuple(name for name, bit in bits.items() if int(record["features"]) & bit),
        **{name: int(record[name]) for name in numbers},
    )


def _optional(value: Any) -> int | None:
    return None if int(value) == NONE else int(value)


def _why(payload: bytes) -> Why:
    head = np.frombuffer(payload, WHY, count=1)[0]
    packets, at = [], WHY.itemsize
    for _ in range(int(head["n_packets"])):
        made = np.frombuffer(payload, PACKET, count=1, offset=at)[0]
        at += PACKET.itemsize
        kind = "error" if made["kind"] == lib.IPS_EMIT_ERROR else "packet"
        packets.append(MadePacket(kind, payload[at : at + int(made["bytes"])], int(made["gso_size"])))
        at += int(made["bytes"])
    return Why(
        verdict=VERDICTS[int(head["verdict"])],
        generation=int(head["generation"]),
        counter=_optional(head["counter"]),
        endpoint=_optional(head["endpoint"]),
        packets=tuple(packets),
        omitted=int(head["omitted"]),
    )
