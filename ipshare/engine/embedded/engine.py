"""engine: the embedded data path as an ``Engine`` (ipshare.engine.protocol).

A thin layer: what the protocol asks, said in operations of the control socket.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipshare.core import lib
from ipshare.engine.capture import TapRule, TapState
from ipshare.engine.embedded.control import DEFAULT_TIMEOUT_S, Control
from ipshare.engine.embedded.counters import Region
from ipshare.engine.embedded.dispatch import EmbeddedDispatch
from ipshare.engine.embedded.flows import EmbeddedFlows
from ipshare.engine.embedded.pair import PairWait
from ipshare.engine.embedded.remap import EmbeddedRemap
from ipshare.engine.embedded.wire import ControlError
from ipshare.engine.failures import EngineRestarted
from ipshare.engine.pairing import Order, PairSettings, PairState
from ipshare.engine.plan import Plan
from ipshare.engine.protocol import Counters, EngineInfo, Explanation, Side
from ipshare.engine.tables import Records, Tables, unpack
from ipshare.errors import Refused


class EmbeddedEngine(EmbeddedFlows, EmbeddedRemap, EmbeddedDispatch):
    """The engine process at ``socket``. Blocking, thread-safe."""

    def __init__(self, socket: Path | str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.control = Control(socket, timeout_s=timeout_s)
        self._region: Region | None = None

    def info(self) -> EngineInfo:
        hello, info = self.control.hello(), self.control.info()
        return EngineInfo.of(
            info,
            kind="embedded",
            version=hello.version,
            boot_id=hello.boot_id,
            pid=hello.pid,
            workers=hello.workers,
            devices={"outer": hello.outer, "inner": hello.inner},
            features=hello.features,
        )

    def read(self) -> Tables:
        try:
            _, image = self.control.dump()
        except ControlError as error:
            if error.status == lib.IPS_CTL_NO_GENERATION:
                return Tables()
            raise
        return unpack(image)

    def apply(self, plan: Plan) -> int:
        live = self.control.info()["generation"]
        if not plan and live:
            return live
        return self.control.commit(self.control.prepare(plan.image(live)))

    def rollback(self) -> int:
        try:
            return self.control.rollback()
        except ControlError as error:
            if error.status == lib.IPS_CTL_NO_GENERATION:
                raise Refused(error.message, hint="a rollback follows an apply") from error
            raise

    def counters(self) -> Counters:
        region = self.region()
        used = self.control.info()["cells_used"]
        packets, size = region.cell_totals(0, used)
        totals = region.totals()
        return Counters(
            verdicts=region.verdicts(),
            packets=packets,
            bytes=size,
            drops=region.drops(),
            errors_sent=totals.errors_sent,
            errors_limited=totals.errors_limited,
            drop_overflow=totals.drop_overflow,
        )

    def counter_cells(self, bindings: Records) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        return self.control.cells(bindings)

    def why(self, packet: bytes, side: Side) -> Explanation:
        why = self.control.why(packet, side)
        return Explanation(
            verdict=why.verdict.number,
            generation=why.generation,
            counter=why.counter,
            endpoint=why.endpoint,
            packets=tuple(made.data for made in why.packets if made.kind == "packet"),
            errors=tuple(made.data for made in why.packets if made.kind == "error"),
        )

    def close(self) -> None:
        self.control.close()

    # ---- beyond the protocol -------------------------------------------------

    def region(self) -> Region:
        """The live counters of the process that answers now. Raises ``EngineRestarted`` while it is
        replaced."""
        hello = self.control.hello()
        if self._region is None or self._region.boot_id != hello.boot_id:
            self._region = self.control.counters()
        if self._region.boot_id != hello.boot_id:
            raise EngineRestarted("the engine was restarted just now", hint="ask again")
        return self._region

    def set_pair(self, settings: PairSettings) -> None:
        """See ``Control.set_pair``. Raises ``Refused`` where an engine of an earlier version runs."""
        try:
            self.control.set_pair(settings)
        except ControlError as error:
            if error.status == lib.IPS_CTL_UNKNOWN_OP:
                raise Refused(
                    "the running engine knows no pairs: it is of an earlier version",
                    hint="ipshare down, then start the agent again",
                ) from error
            raise

    def clear_pair(self) -> None:
        self.control.clear_pair()

    def pair_state(self) -> PairState | None:
        try:
            return self.control.pair_state()
        except ControlError as error:
            if error.status in (lib.IPS_CTL_NO_PAIR, lib.IPS_CTL_UNKNOWN_OP):
                return None
            raise

    def watch_pair(self) -> PairWait:
        return self.control.watch_pair()

    def pair_command(self, order: Order) -> None:
        try:
            self.control.pair_command(order)
        except ControlError as error:
            if error.status in (lib.IPS_CTL_NO_PAIR, lib.IPS_CTL_REFUSED):
                raise Refused(error.message, hint="see `ipshare pair status`") from error
            raise

    def start_tap(self, rule: TapRule) -> TapState:
        """See ``Control.start_tap``."""
        return self.control.start_tap(rule)

    def stop_tap(self, tap_id: int) -> TapState:
        return self.control.stop_tap(tap_id)

    def wait_tap(self, tap_id: int, timeout_s: float | None = None) -> TapState:
        return self.control.wait_tap(tap_id, timeout_s)

    def taps(self) -> list[TapState]:
        return self.control.taps()
