"""memory: a data path in this process, without devices: the C core's tables and one worker.

For questions about a configuration that no engine runs (``why --config``), for an orchestrator's dry
runs, and as the engine of tests: apply, rollback, counters and why are the core's own, so an answer
given here is the one that a running engine would give. Nothing is shared between processes.
"""

from __future__ import annotations

import os
import threading
import uuid

import numpy as np
import numpy.typing as npt

from ipshare import __version__
from ipshare.core import LoadError, Worker
from ipshare.engine.plan import Plan
from ipshare.engine.protocol import Counters, EngineInfo, Explanation, Side
from ipshare.engine.tables import BINDING, Records, Tables, unpack
from ipshare.errors import EngineError, NotRunning, Refused

CELLS = 1 << 16


class MemoryEngine:
    """An ``Engine`` (ipshare.engine.protocol) whose data path is this object."""

    def __init__(self, *, cells: int = CELLS) -> None:
        self.boot_id = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._cells = cells
        self._worker: Worker | None = Worker(cells=cells)

    def info(self) -> EngineInfo:
        with self._lock:
            info = self._live().info()
        who = {"kind": "memory", "version": __version__, "boot_id": self.boot_id}
        return EngineInfo.of(info, pid=os.getpid(), workers=1, **who)

    def read(self) -> Tables:
        with self._lock:
            return self._read()

    def apply(self, plan: Plan) -> int:
        with self._lock:
            worker = self._live()
            live = worker.info()["generation"]
            if not plan and live:
                return live
            try:
                return worker.load(plan.image(live))
            except LoadError as error:
                raise EngineError(
                    f"the engine refused the tables: {error.message}", hint=error.hint
                ) from error

    def rollback(self) -> int:
        with self._lock:
            generation = self._live().rollback()
        if generation == 0:
            raise Refused("there is no previous generation", hint="a rollback follows an apply")
        return generation

    def counters(self) -> Counters:
        with self._lock:
            worker = self._live()
            cells = worker.cell_counts()
            totals = worker.totals()
            return Counters(
                verdicts=worker.verdict_counts(),
                packets=cells["packets"].copy(),
                bytes=cells["bytes"].copy(),
                drops=worker.drop_counts(),
                errors_sent=totals["errors_sent"],
                errors_limited=totals["errors_limited"],
                drop_overflow=totals["drop_overflow"],
            )

    def counter_cells(self, bindings: Records) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        records = np.ascontiguousarray(bindings, BINDING)
        with self._lock:
            return self._live().counter_index(records)

    def why(self, packet: bytes, side: Side) -> Explanation:
        with self._lock:
            worker = self._live()
            generation = worker.info()["generation"]
            outcome = worker.explain(side, packet)
        return Explanation(
            verdict=outcome.verdict.number,
            generation=generation,
            counter=outcome.counter,
            endpoint=outcome.endpoint,
            packets=outcome.packets,
            errors=outcome.errors,
        )

    def close(self) -> None:
        """An in-memory data path lives as long as the object: nothing to disconnect."""

    def stop(self) -> None:
        """The end of the data path, as when an engine process is killed."""
        with self._lock:
            if self._worker is not None:
                self._worker.close()
            self._worker = None

    def _live(self) -> Worker:
        if self._worker is None:
            raise NotRunning("the engine has ended")
        return self._worker

    def _read(self) -> Tables:
        worker = self._live()
        return unpack(worker.dump()) if worker.info()["generation"] else Tables()
