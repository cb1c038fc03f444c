"""One packet worker of the C core in this process: tables in, packets in, outcomes out.

For questions (``why`` without a running engine), tests and benchmarks. The packet
path is the one that the engines run; only the sending is replaced by a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from ipshare.core._native import ffi, lib
from ipshare.core.layout import dtype
from ipshare.core.verdicts import VERDICTS, Verdict
from ipshare.errors import IpshareError

HEADROOM = 128
ROOM = 65535 + 1
SECTION_NAMES = ("header", "network", "end point", "policy", "member", "binding", "group member")
NONE = 0xFFFFFFFF


class LoadError(IpshareError):
    """The core refused a table image. ``section`` and ``index`` name the first bad record."""

    def __init__(self, error: int, section: int, index: int) -> None:
        self.error, self.section, self.index = error, SECTION_NAMES[section], index
        text = ffi.string(lib.ips_load_error_text(error)).decode()
        where = f"{self.section} {index}: " if section else ""
        super().__init__(f"{where}{text}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one packet. ``packets``: what goes on (the packet itself or what was made of it);
    ``errors``: ICMP errors about it; ``copies``: IDS copies. ``counter``/``endpoint``: None if undecided."""

    verdict: Verdict
    packets: tuple[bytes, ...]
    errors: tuple[bytes, ...]
    copies: tuple[bytes, ...]
    counter: int | None
    endpoint: int | None
    offload: dict[str, int]


class Worker:
    """Tables and one worker. Use as a context manager; not thread-safe.

    ``cells``: per-binding counters kept, read by ``cell_counts``. ``trains``: the host takes UDP
    super-packets. ``coalesces``: TCP segments out of tunnels are joined, and come out with ``end``.
    """

    def __init__(self, *, cells: int = 0, trains: bool = False, coalesces: bool = True) -> None:
        self._tables = lib.ips_tables_new(1)
        self._made: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
        self._emit = ffi.callback("void(void *, struct ips_pkt *, int)", self._on_emit)
        self._worker = lib.ips_worker_new(self._tables, 0, self._emit, ffi.NULL)
        self._counters = ffi.new("struct ips_counters *")
        self._n_cells = cells
        self._cells = np.zeros(max(cells, 1), dtype("struct ips_cell"))
        self._count_here()
        lib.ips_worker_set_trains(self._worker, trains)
        lib.ips_worker_set_coalescing(self._worker, coalesces)
        self._buffer = ffi.new("uint8_t[]", HEADROOM + ROOM)
        self.now_ns = 10**9

    def _count_here(self) -> None:
        cells = ffi.from_buffer("struct ips_cell *", self._cells)
        lib.ips_worker_set_counters(self._worker, self._counters, cells, self._n_cells)

    def load(self, image: bytes | bytearray) -> int:
        """Prepares and commits; returns the generation. Raises ``LoadError``; then nothing changed."""
        status = ffi.new("struct ips_load_status *")
        generation = int(lib.ips_tables_prepare(self._tables, ffi.from_buffer(image), len(image), status))
        if generation == 0:
            raise LoadError(status.error, status.section, status.index)
        self._clear_fresh_cells()
        lib.ips_tables_commit(self._tables, generation)
        lib.ips_tables_reclaim(self._tables)
        return generation

    def _clear_fresh_cells(self) -> None:
        """Cells that counted for a binding that is gone begin at zero for their next one."""
        count = lib.ips_tables_fresh_cells(self._tables, ffi.NULL, 0)
        ranges = ffi.new("struct ips_cell_range[]", count or 1)
        for n in range(lib.ips_tables_fresh_cells(self._tables, ranges, count)):
            self._cells[ranges[n].first : ranges[n].first + ranges[n].n] = 0

    def rollback(self) -> int:
        """The previous generation under a new number; 0 if there is none."""
        return int(lib.ips_tables_rollback(self._tables))

    def dump(self) -> bytes:
        """The complete image of the live generation."""
        size = int(lib.ips_tables_dump(self._tables, ffi.NULL, 0))
        out = ffi.new("uint8_t[]", size)
        lib.ips_tables_dump(self._tables, out, size)
        return bytes(ffi.buffer(out, size))

    def info(self) -> dict[str, int]:
        """Numbers of the live generation: the members of ``struct ips_tables_info``."""
        info = ffi.new("struct ips_tables_info *")
        lib.ips_tables_info(self._tables, info)
        return {name: int(getattr(info, name)) for name, _ in ffi.typeof("struct ips_tables_info").fields}

    def process(
        self, side: Literal["outer", "inner"], packet: bytes, *, frame: bool = True, **offload: int
    ) -> Outcome:
        """Runs one IP packet (at most 65,535 bytes). ``offload``: gso_size, gso_type, csum, csum_start,
        csum_offset as in ``struct ips_pkt``. ``frame=False``: between ``begin`` and ``end``."""
        if len(packet) > ROOM:
            raise ValueError(f"packet of {len(packet)} bytes")
        made = self._made = ([], [], [])
        ffi.memmove(self._buffer + HEADROOM, packet, len(packet))
        p = ffi.new("struct ips_pkt *")
        p.data, p.len, p.total_len, p.headroom = self._buffer + HEADROOM, len(packet), len(packet), HEADROOM
        for name, value in offload.items():
            setattr(p, name, value)
        if frame:
            self.begin()
        run = lib.ips_outer if side == "outer" else lib.ips_inner
        verdict = VERDICTS[run(self._worker, p)]
        if verdict.disposition == "send":
            made[0].append(bytes(ffi.buffer(p.data, p.len)))
        if frame:
            self.end()
        fields = ("gso_size", "gso_type", "csum", "csum_start", "csum_offset")
        return Outcome(
            verdict,
            packets=tuple(made[0]),
            errors=tuple(made[1]),
            copies=tuple(made[2]),
            counter=None if p.counter == NONE else p.counter,
            endpoint=None if p.endpoint == NONE else p.endpoint,
            offload={name: int(getattr(p, name)) for name in fields},
        )

    def explain(self, side: Literal["outer", "inner"], packet: bytes) -> Outcome:
        """Like ``process``, but nothing is counted."""
        lib.ips_worker_set_counters(self._worker, ffi.NULL, ffi.NULL, 0)  # the worker's own, never read
        try:
            return self.process(side, packet)
        finally:
            self._count_here()

    def begin(self) -> None:
        lib.ips_worker_begin(self._worker, self.now_ns)

    def end(self) -> tuple[bytes, ...]:
        """Ends the frame; returns what was held back for coalescing until now."""
        before = len(self._made[0])
        lib.ips_worker_end(self._worker)
        return tuple(self._made[0][before:])

    def verdict_counts(self) -> npt.NDArray[np.uint64]:
        """Packets by side and verdict, shape (2, verdicts)."""
        raw = np.frombuffer(ffi.buffer(self._counters.verdicts), np.uint64).reshape(2, -1)
        return raw[:, : len(VERDICTS)].copy()

    def totals(self) -> dict[str, int]:
        """The scalar members of ``struct ips_counters``."""
        names = ("drop_overflow", "errors_sent", "errors_limited", "frames", "packets")
        return {name: int(getattr(self._counters, name)) for name in names}

    def drop_counts(self) -> npt.NDArray[Any]:
        """The cells in use of the (counter, verdict) matrix, dtype of ``struct ips_drop_cell``."""
        cells = np.frombuffer(ffi.buffer(self._counters.drops), dtype("struct ips_drop_cell"))
        return cells[cells["packets"] > 0].copy()

    def counter_index(
        self, bindings: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """First counter cell and number of cells of each binding record (contiguous), shape (n,)."""
        index, span = np.zeros((2, len(bindings)), np.uint32)
        lib.ips_tables_counter_index(
            self._tables,
            ffi.from_buffer("struct ips_binding_rec *", bindings),
            len(bindings),
            ffi.from_buffer("uint32_t *", index),
            ffi.from_buffer("uint32_t *", span),
        )
        return index, span

    def cell_counts(self) -> npt.NDArray[Any]:
        """Packets and bytes by counter cell, dtype of ``struct ips_cell``."""
        return self._cells.copy()

    def close(self) -> None:
        if self._tables is not None:
            lib.ips_worker_free(self._worker)
            lib.ips_tables_free(self._tables)
            self._tables = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _on_emit(self, _arg: Any, p: Any, kind: int) -> None:
        self._made[kind].append(bytes(ffi.buffer(p.data, p.len)))
