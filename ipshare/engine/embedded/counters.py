"""counters: the engine's shared counters as NumPy arrays, without asking the engine.

The region is mapped once; reading it costs the engine nothing and shows numbers
that move while one looks. Each number has one writer, so it is never torn; sums over
workers are of slightly different instants. Layout: ``struct ips_ctl_region`` in
``native/ips_control.h``.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.core import dtype, lib
from ipshare.errors import EngineError

REGION = dtype("struct ips_ctl_region")
WORKER = dtype("struct ips_ctl_worker")
COUNTERS = dtype("struct ips_counters")
CELL = dtype("struct ips_cell")
DROP = dtype("struct ips_drop_cell")
U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Totals:
    """Packets since the engine process began, summed over workers."""

    errors_sent: int
    errors_limited: int
    drop_overflow: int
    frames: int
    packets: int


class Region:
    """A mapped counter region. ``boot_id`` is that of the engine process it belongs to.

    ``workers``: records ``struct ips_ctl_worker``, shape (n_workers,), live views;
    ``raw``, ``cells``: per worker a live view of ``struct ips_counters``, of ``struct ips_cell`` (n_cells,).
    """

    def __init__(self, memory: mmap.mmap | bytes) -> None:
        """Raises ``EngineError`` if this is no region of this version."""
        if len(memory) < REGION.itemsize:
            raise EngineError("the counter region is shorter than its header")
        head = np.frombuffer(memory, REGION, count=1)[0]
        if head["magic"] != lib.IPS_CTL_MAGIC or head["version"] != lib.IPS_CTL_VERSION:
            raise EngineError(
                "not a counter region of this version", hint="use one version of agent and engine"
            )
        if int(head["total_bytes"]) > len(memory):
            raise EngineError("the counter region is cut short")
        self.boot_id: str = head["boot_id"].tobytes().hex()
        self.n_workers = int(head["n_workers"])
        self.n_cells = int(head["n_cells"])
        self.workers = [self._array(memory, head, "worker", i, WORKER, 1)[0] for i in range(self.n_workers)]
        self.raw = [self._array(memory, head, "counters", i, COUNTERS, 1)[0] for i in range(self.n_workers)]
        self.cells = [
            self._array(memory, head, "cells", i, CELL, self.n_cells) for i in range(self.n_workers)
        ]

    @staticmethod
    def _array(
        memory: mmap.mmap | bytes, head: Any, name: str, worker: int, layout: np.dtype[Any], count: int
    ) -> npt.NDArray[Any]:
        offset = int(head[f"{name}_offset"]) + worker * int(head[f"{name}_stride"])
        return np.frombuffer(memory, layout, count=count, offset=offset)

    def verdicts(self) -> U64:
        """Packets per side and verdict, shape (2, number of verdicts); side 0 is outer."""
        total: U64 = np.sum([raw["verdicts"] for raw in self.raw], axis=0, dtype=np.uint64)
        return total[:, : lib.ips_verdict_count()]

    def cell_totals(self, first: int = 0, count: int | None = None) -> tuple[U64, U64]:
        """(packets, bytes) of cells first .. first+count-1, each of shape (count,)."""
        end = self.n_cells if count is None else min(first + count, self.n_cells)
        packets = np.zeros(end - first, np.uint64)
        size = np.zeros(end - first, np.uint64)
        for cells in self.cells:
            packets += cells["packets"][first:end]
            size += cells["bytes"][first:end]
        return packets, size

    def drops(self) -> npt.NDArray[Any]:
        """Who lost what: records (counter, verdict, packets) of the verdicts other than OK, by cell and
        verdict ascending, without zeros."""
        parts = [raw["drops"][raw["drops"]["packets"] > 0] for raw in self.raw]
        rows = np.concatenate(parts) if parts else np.zeros(0, DROP)
        if len(rows) == 0:
            return rows.copy()
        keys = (rows["counter"].astype(np.uint64) << np.uint64(32)) | rows["verdict"]
        unique, inverse = np.unique(keys, return_inverse=True)
        out = np.zeros(len(unique), DROP)
        out["counter"] = unique >> np.uint64(32)
        out["verdict"] = unique & np.uint64(0xFFFFFFFF)
        np.add.at(out["packets"], inverse, rows["packets"])
        return out

    def totals(self) -> Totals:
        names = ("errors_sent", "errors_limited", "drop_overflow", "frames", "packets")
        return Totals(**{name: sum(int(raw[name]) for raw in self.raw) for name in names})
