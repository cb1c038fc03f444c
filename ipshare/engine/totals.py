"""totals: an engine's counters by name: packets and bytes of each binding, of single Global IPs, drops by
reason.

Arrays in, arrays out: a million bindings are summed in NumPy. ``since`` gives increments between two
moments of one generation. A binding's numbers are those of its whole range, nested narrower bindings
included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipshare.core import VERDICTS
from ipshare.engine.plan_text import prefix_text, target_text
from ipshare.engine.protocol import Counters, Engine
from ipshare.engine.tables import Records, Tables
from ipshare.model import unpacked

U64 = npt.NDArray[np.uint64]
SIDES = ("outer", "inner")


@dataclass(frozen=True, eq=False, slots=True)
class Totals:
    """``packets``, ``bytes``: of each record of ``tables.bindings``, shape (n,). ``raw``: cells and
    verdicts. ``boot_id``: the engine process that counted."""

    boot_id: str
    generation: int
    tables: Tables
    raw: Counters
    first: npt.NDArray[np.uint32]
    span: npt.NDArray[np.uint32]
    packets: U64
    bytes: U64

    @property
    def of(self) -> tuple[str, int]:
        """(engine process, generation): totals can be compared only where this is the same."""
        return self.boot_id, self.generation

    def since(self, before: Totals) -> Totals:
        """What was counted after ``before``, which has to be of the same process and generation."""
        raw, old = self.raw, before.raw
        size = min(len(raw.packets), len(old.packets))
        cells = [
            now[:size] - then[:size] for now, then in ((raw.packets, old.packets), (raw.bytes, old.bytes))
        ]
        delta = Counters(
            verdicts=raw.verdicts - old.verdicts,
            packets=cells[0],
            bytes=cells[1],
            drops=_drops_since(raw.drops, old.drops),
            errors_sent=raw.errors_sent - old.errors_sent,
            errors_limited=raw.errors_limited - old.errors_limited,
            drop_overflow=raw.drop_overflow - old.drop_overflow,
        )
        return _sum(self.of, self.tables, delta, self.first, self.span)

    def verdicts(self) -> list[dict[str, Any]]:
        """Packets by side and verdict, most first; those that never occurred are left out."""
        rows = [
            {
                "side": SIDES[side],
                "verdict": VERDICTS[number].name,
                "packets": int(self.raw.verdicts[side, number]),
            }
            | {"text": VERDICTS[number].text, "dropped": VERDICTS[number].is_drop}
            for side, number in zip(*np.nonzero(self.raw.verdicts), strict=True)
        ]
        return sorted(rows, key=lambda row: -row["packets"])

    def bindings(self, most: int | None = None) -> list[dict[str, Any]]:
        """Bindings with traffic, most packets first."""
        order = np.argsort(self.packets, kind="stable")[::-1]
        order = order[self.packets[order] > 0][:most]
        return [
            self._row(int(i)) | {"packets": int(self.packets[i]), "bytes": int(self.bytes[i])} for i in order
        ]

    def talkers(self, most: int = 10) -> list[dict[str, Any]]:
        """Single Global IPs with most packets, where their binding counts each address apart."""
        cells = np.argsort(self.raw.packets, kind="stable")[::-1]
        cells = cells[self.raw.packets[cells] > 0][:most]
        rows = []
        for cell in cells.tolist():
            address = self._address(cell)
            if address is not None:
                counted = {"packets": int(self.raw.packets[cell]), "bytes": int(self.raw.bytes[cell])}
                rows.append({"address": address} | counted)
        return rows

    def drops(self, most: int | None = None) -> list[dict[str, Any]]:
        """Verdicts other than "translated", by binding, most packets first. binding None: undecided."""
        order = np.argsort(self.raw.drops["packets"], kind="stable")[::-1][:most]
        rows = []
        for drop in self.raw.drops[order]:
            verdict, index = VERDICTS[int(drop["verdict"])], self._binding(int(drop["counter"]))
            where = self._row(index) if index is not None else {"binding": None, "target": None}
            what = {"verdict": verdict.name, "text": verdict.text, "dropped": verdict.is_drop}
            rows.append(where | what | {"packets": int(drop["packets"])})
        return rows

    def to_json(self, most: int | None = None) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "verdicts": self.verdicts(),
            "bindings": self.bindings(most),
            "talkers": self.talkers(most or 10),
            "drops": self.drops(most),
            "errors_sent": self.raw.errors_sent,
            "errors_limited": self.raw.errors_limited,
            "drop_overflow": self.raw.drop_overflow,
        }

    def _row(self, index: int) -> dict[str, Any]:
        record = self.tables.bindings[index]
        return {"binding": prefix_text(record, "global"), "target": target_text(self.tables, record)}

    def _binding(self, cell: int) -> int | None:
        """The narrowest binding that counts in ``cell``."""
        holds = np.flatnonzero((self.first <= cell) & (cell - self.first.astype(np.int64) < self.span))
        return int(holds[np.argmin(self.span[holds])]) if len(holds) else None

    def _address(self, cell: int) -> str | None:
        index = self._binding(cell)
        if index is None:
            return None
        record = self.tables.bindings[index]
        family = int(record["family"])
        first = unpacked(record["global"].tobytes(), family)
        if int(self.span[index]) != 1 << (first.max_prefixlen - int(record["prefix_len"])):
            return prefix_text(record, "global")  # one cell for the whole prefix
        return str(first + (cell - int(self.first[index])))


def count(engine: Engine, tables: Tables) -> Totals:
    """The counters now. ``tables``: the engine's."""
    first, span = engine.counter_cells(tables.bindings)
    raw = engine.counters()
    info = engine.info()  # last: if it is that of ``tables``, so was all the rest
    return _sum((info.boot_id, info.generation), tables, raw, first, span)


def _sum(
    of: tuple[str, int],
    tables: Tables,
    raw: Counters,
    first: npt.NDArray[np.uint32],
    span: npt.NDArray[np.uint32],
) -> Totals:
    return Totals(
        *of,
        tables,
        raw,
        first,
        span,
        _ranges(raw.packets, first, span),
        _ranges(raw.bytes, first, span),
    )


def _ranges(cells: U64, first: npt.NDArray[np.uint32], span: npt.NDArray[np.uint32]) -> U64:
    """Sum of cells first .. first + span - 1 for each binding; 0 where it has none."""
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(cells, dtype=np.uint64)])
    start = np.minimum(first.astype(np.int64), len(cells))
    end = np.minimum(first.astype(np.int64) + span, len(cells))
    sums: U64 = running[end] - running[start]
    return sums


def _drops_since(now: Records, then: Records) -> Records:
    old = {(int(d["counter"]), int(d["verdict"])): int(d["packets"]) for d in then}
    delta = now.copy()
    for drop in delta:
        drop["packets"] -= np.uint64(old.get((int(drop["counter"]), int(drop["verdict"])), 0))
    return delta[delta["packets"] > 0]
