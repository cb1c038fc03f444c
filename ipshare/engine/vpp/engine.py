"""engine: VPP with our plugin as an ``Engine`` (ipshare.engine.protocol).

    plan -> image (a delta where VPP is known to have what the plan starts from) -> prepare -> commit
    read() -> digests first; a dump only where VPP has something that this object did not load or read

Blocking, thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipshare.core import VERDICTS, lib
from ipshare.engine import pairing
from ipshare.engine.capture import TapRule, TapState
from ipshare.engine.failures import EngineRestarted, ImageRefused
from ipshare.engine.plan import Plan
from ipshare.engine.protocol import Counters, EngineInfo, Explanation, Side
from ipshare.engine.tables import HEADER, Records, Tables, pack, unpack
from ipshare.engine.vpp.client import DEFAULT_TIMEOUT_S, ApiRefused, Client
from ipshare.engine.vpp.control import DROP, Control, Hello
from ipshare.engine.vpp.dispatch import VppDispatch
from ipshare.engine.vpp.flows import FlowsControl, VppFlows
from ipshare.engine.vpp.pair import PairControl, PairRefused, PairWait, refused
from ipshare.engine.vpp.remap import VppRemap
from ipshare.engine.vpp.retval import Retval
from ipshare.engine.vpp.stats import Segment
from ipshare.engine.vpp.taps import Taps
from ipshare.engine.vpp.way import way_mtu
from ipshare.errors import Refused
from ipshare.model import Address

CELLS = "/ipshare/cells"
NONE = 0xFFFFFFFF
NO_TABLES = next(verdict.number for verdict in VERDICTS if verdict.name == "NO_TABLES")


@dataclass(slots=True)
class _Known:
    """``tables`` are what VPP had when it said ``digest`` and ``settings``, by what we sent or read.

    ``expected``: the digest that ``tables`` have; None: not computed yet."""

    digest: int
    settings: int
    tables: Tables
    expected: int | None


class VppEngine(VppFlows, VppRemap, VppDispatch):
    """The VPP whose API socket is ``socket`` and whose stats socket is ``stats_socket``.

    ``service_table``, ``delivery_table``: VPP's FIB tables; ``counter_cells``: per-binding counters. They are
    told to the plugin before its first tables.
    """

    def __init__(
        self,
        socket: Path | str,
        stats_socket: Path | str,
        *,
        service_table: int = 0,
        delivery_table: int = 0,
        counter_cells: int = 1 << 16,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        api_dirs: Sequence[Path] | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.client = Client(socket, timeout_s=timeout_s, api_dirs=api_dirs)
        self.control = Control(self.client, scratch=scratch)
        again = lambda: Client(socket, timeout_s=timeout_s, api_dirs=api_dirs)  # noqa: E731
        self._taps, self.pair = Taps(self.client, again), PairControl(self.client, again)
        self.tracked, self._again = FlowsControl(self.client, scratch), again
        self.stats_socket = Path(stats_socket)
        self._setup = (service_table, delivery_table, counter_cells)
        self._lock = threading.RLock()
        self._known: _Known | None = None
        self._configured = ""
        self._segment: tuple[str, Segment] | None = None

    def info(self) -> EngineInfo:
        hello, info = self.control.hello(), self.control.info()
        return EngineInfo.of(
            info,
            kind="vpp",
            version=hello.version,
            boot_id=hello.boot_id,
            pid=hello.pid,
            workers=hello.threads,
        )

    def read(self) -> Tables:
        with self._lock:
            info = self.control.info()
            if info["generation"] == 0:
                return Tables()
            known = self._known_to_be(info)
            if known is not None and known.expected is None:
                known.expected = _digest(pack(known.tables))
            if known is not None and known.expected == known.digest:
                return known.tables.numbered(info["term"], info["revision"])
            generation, image = self.control.dump()
            tables = unpack(image)
            self._learn(generation, tables, _digest(image))
            return tables

    def apply(self, plan: Plan) -> int:
        with self._lock:
            self.configure()
            info = self.control.info()
            live = info["generation"]
            if not plan and live:
                return live
            known = self._known_to_be(info)
            base = live if known is not None and known.tables.bindings is plan.actual.bindings else 0
            prepared, expected = self._prepare(plan, base)
            generation = self._commit(prepared)
            self._learn(generation, plan.desired, expected)
            return generation

    def rollback(self) -> int:
        try:
            return self.control.rollback()
        except ApiRefused as error:
            if error.retval in (Retval.NO_SUCH_ENTRY, Retval.INIT_FAILED):
                raise Refused(
                    "there is no previous generation", hint="a rollback follows an apply"
                ) from error
            raise

    def counters(self) -> Counters:
        hello = self.control.hello()
        if not hello.is_configured:
            return _nothing_counted()
        counted, drops = self.control.counters(), self.control.drops()
        packets, size = self._cell_totals(hello, self.control.info()["counter_cells_used"])
        return Counters(
            verdicts=counted.verdicts[:, : lib.ips_verdict_count()],
            packets=packets,
            bytes=size,
            drops=drops,
            errors_sent=int(counted.errors_sent),
            errors_limited=int(counted.errors_limited),
            drop_overflow=int(counted.drop_overflow),
        )

    def counter_cells(self, bindings: Records) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        if not self.control.hello().is_configured:
            return np.full(len(bindings), NONE, np.uint32), np.zeros(len(bindings), np.uint32)
        return self.control.cells(bindings)

    def why(self, packet: bytes, side: Side) -> Explanation:
        if not self.control.hello().is_configured:
            return Explanation(NO_TABLES, 0, None, None, (), ())
        reply, made = self.control.why(packet, side)
        return Explanation(
            verdict=reply.verdict,
            generation=reply.generation,
            counter=None if reply.cell == NONE else reply.cell,
            endpoint=None if reply.endpoint == NONE else reply.endpoint,
            packets=tuple(one.data for one in made if one.kind == lib.IPS_EMIT_PACKET),
            errors=tuple(one.data for one in made if one.kind == lib.IPS_EMIT_ERROR),
        )

    def close(self) -> None:
        self.client.close()
        with self._lock:
            if self._segment is not None:
                self._segment[1].close()
            self._segment = None

    # ---- beyond the protocol -------------------------------------------------

    def configure(self) -> None:
        """Tells the plugin its tables and cells, once for each run of VPP. Raises ``EngineError``."""
        with self._lock:
            if self._configured and self._configured == self.client.boot_id:
                return
            self.control.configure(*self._setup)
            self._configured = self.client.boot_id or ""

    def cell_totals(self, count: int | None = None) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """(packets, bytes) of the first ``count`` counter cells, summed over threads; None: all there are."""
        hello = self.control.hello()
        return self._cell_totals(hello, hello.counter_cells if count is None else count)

    def segment(self) -> Segment:
        """The stats segment of the VPP that answers now. Raises ``EngineRestarted`` while it is replaced."""
        return self._segment_of(self.control.hello())

    def set_path_mtu(self, endpoint: int, mtu: int, seconds: int) -> None:
        """See ``Control.set_path_mtu``."""
        self.control.set_path_mtu(endpoint, mtu, seconds)

    def way_mtu(self, address: Address) -> int | None:
        return way_mtu(self.client, address, self._setup[1])

    def set_pair(self, settings: pairing.PairSettings) -> None:
        self.configure()
        self.pair.set(pairing.encode(settings))

    def clear_pair(self) -> None:
        if self.control.hello().is_configured:  # else there is none
            self.pair.clear()

    def pair_state(self) -> pairing.PairState | None:
        return self.pair.state()

    def watch_pair(self) -> PairWait:
        return self.pair.watch()

    def pair_command(self, order: pairing.Order) -> None:
        try:
            self.pair.command(*pairing.ORDERS[order])
        except PairRefused as error:
            raise refused(error) from error

    def start_tap(self, rule: TapRule) -> TapState:
        self.configure()
        return self._taps.start(rule)

    def stop_tap(self, tap_id: int) -> TapState:
        return self._taps.stop(tap_id)

    def wait_tap(self, tap_id: int, timeout_s: float | None = None) -> TapState:
        return self._taps.wait(tap_id, timeout_s)

    def taps(self) -> list[TapState]:
        return self._taps.all()

    def _cell_totals(self, hello: Hello, count: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        wanted = min(count, hello.counter_cells)
        if wanted == 0:
            return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        with self._lock:
            return self._segment_of(hello).combined(CELLS, wanted)

    def _segment_of(self, hello: Hello) -> Segment:
        with self._lock:
            if self._segment is None or self._segment[0] != hello.boot_id:
                fresh = Segment(self.stats_socket, timeout_s=self.client.timeout_s)
                if self.control.hello().boot_id != hello.boot_id:
                    raise EngineRestarted("VPP was restarted just now", hint="ask again")
                self._segment = (hello.boot_id, fresh)
            return self._segment[1]

    # ---- what VPP has ----------------------------------------------------------

    def _prepare(self, plan: Plan, base: int) -> tuple[int, int | None]:
        """(prepared generation, digest that it will have; None: a delta, whose result is not packed here)."""
        image = plan.image(base)
        try:
            prepared, _ = self.control.prepare(image)
        except ImageRefused as error:
            if error.load_error != lib.IPS_LOAD_STALE_BASE:
                raise
            image = plan.image(0)  # somebody else was faster: all of it
            prepared, _ = self.control.prepare(image)
        is_delta = np.frombuffer(image, HEADER, count=1)[0]["flags"] & lib.IPS_IMAGE_DELTA
        return prepared, None if is_delta else _digest(image)

    def _commit(self, prepared: int) -> int:
        try:
            return self.control.commit(prepared)[0]
        except ApiRefused as error:
            if error.retval != Retval.NO_SUCH_ENTRY:
                raise
            raise Refused(
                "somebody else loaded tables into this VPP at the same time; what is live is not ours",
                hint="let one agent or program do that, then apply again",
            ) from error

    def _known_to_be(self, info: dict[str, int]) -> _Known | None:
        """What we know, if VPP still has it: whoever loaded it, and under whatever number."""
        known = self._known
        is_same = known is not None and (known.digest, known.settings) == (info["digest"], info["settings"])
        return known if is_same else None

    def _learn(self, generation: int, tables: Tables, expected: int | None) -> None:
        info = self.control.info()
        self._known = None
        if info["generation"] == generation:  # else it is somebody else's by now: the next read dumps
            self._known = _Known(info["digest"], info["settings"], tables, expected)


def _nothing_counted() -> Counters:
    none = np.zeros(0, np.uint64)
    verdicts = np.zeros((2, lib.ips_verdict_count()), np.uint64)
    return Counters(verdicts, none, none, np.zeros(0, DROP), errors_sent=0, errors_limited=0, drop_overflow=0)


def _digest(image: bytes | bytearray) -> int:
    return int(np.frombuffer(image, HEADER, count=1)[0]["digest"])
