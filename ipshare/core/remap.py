"""What the C core calls roles of a remap and what it counts (native/ips_remap_api.h).

Read from the compiled module; nothing is listed here a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ipshare.core._native import ffi, lib
from ipshare.core.pair import enum_names
from ipshare.core.worker import Worker

REMAP_ROLES: dict[int, str] = enum_names("enum ips_remap_role", "IPS_REMAP_")


@dataclass(frozen=True, slots=True)
class RemapCounter:
    """Something that a remap counts, in packets."""

    name: str
    text: str


REMAP_COUNTERS: tuple[RemapCounter, ...] = tuple(
    RemapCounter(
        ffi.string(lib.ips_remap_counter_name(number)).decode().lower(),
        ffi.string(lib.ips_remap_counter_text(number)).decode(),
    )
    for number in range(lib.ips_remap_counters())
)


class RemapWorker(Worker):
    """A worker with a session table and remaps, for tests and benchmarks: what native/flows does in an
    engine."""

    def __init__(self, *, sessions: int = 4096, **options: Any) -> None:
        super().__init__(**options)
        self._config = ffi.new("struct ips_sessions_config *", {"seed": 7, "now_ns": self.now_ns})
        self._config.sessions, self._config.half_open = sessions, max(sessions // 8, 64)
        self._config.half_open_per_source = self._config.half_open
        self.sessions = self._table()
        self._frags = lib.ips_frag_new(256, 64, 2048, 11)
        self._set = ffi.NULL
        self.followed: dict[int, Any] = {}
        self._counters_of: dict[int, Any] = {}
        lib.ips_worker_set_flows(self._worker, self.sessions, ffi.NULL)

    @property
    def handle(self) -> Any:
        """``struct ips_worker *``, for ips_bench_packets."""
        return self._worker

    def _table(self, *, standby: bool = False) -> Any:
        self._config.standby = standby
        table = lib.ips_sessions_new(self._config)
        if not table:
            raise MemoryError("no memory for so many sessions")
        return table

    def set_remaps(self, remaps: Sequence[Mapping[str, Any]]) -> None:
        """Members of ``struct ips_remap_rec`` each, in the order of ids. Raises ``ValueError``: none that
        can be."""
        recs = ffi.new("struct ips_remap_rec[]", [dict(remap) for remap in remaps] or 1)
        states = ffi.new("struct ips_remap_state[]", max(len(remaps), 1))
        for state, remap in zip(states, remaps, strict=False):
            number = remap["id"]
            counters = self._counters_of.setdefault(number, ffi.new("uint64_t[]", 2 * lib.IPS_REMAP_COUNTERS))
            state.counters = counters
            if remap["role"] in (lib.IPS_REMAP_READY, lib.IPS_REMAP_TAKING):
                state.followed = self.followed.get(number) or self._table(standby=True)
                self.followed[number] = state.followed
        made = lib.ips_remaps_new(recs, states, len(remaps), self._frags)
        if not made:
            raise ValueError("no such remaps can be")
        lib.ips_worker_set_remaps(self._worker, made)
        lib.ips_remaps_free(self._set)
        self._set = made

    def follow(self, remap: int, records: npt.NDArray[Any]) -> int:
        """Tells of flows of the giver (``struct ips_session_rec``). Returns how many were taken."""
        rows = ffi.from_buffer("struct ips_session_rec *", records)
        table = self.followed[remap]
        return sum(
            lib.ips_sessions_apply(table, 0, lib.IPS_SESSION_UPSERT, rows + i, self.now_ns, ffi.NULL) == 0
            for i in range(len(records))
        )

    def own(self, records: npt.NDArray[Any]) -> None:
        """Flows of this node, as if it had opened them."""
        rows = ffi.from_buffer("struct ips_session_rec *", records)
        for i in range(len(records)):
            lib.ips_sessions_apply(
                self.sessions, 0, lib.IPS_SESSION_UPSERT, rows + i, self.now_ns, ffi.NULL
            )

    def count(self) -> int:
        """Flows of this node, half-open ones too."""
        stats = ffi.new("struct ips_sessions_stats *")
        lib.ips_sessions_stats(self.sessions, stats)
        return int(stats.sessions + stats.half_open)

    def remap_counters(self, remap: int) -> dict[str, int]:
        """By name, those that are not 0."""
        numbers = self._counters_of[remap]
        return {c.name: int(n) for c, n in zip(REMAP_COUNTERS, numbers, strict=False) if n}

    def close(self) -> None:
        if self._tables is not None:
            lib.ips_worker_set_remaps(self._worker, ffi.NULL)
            lib.ips_remaps_free(self._set)
            for table in (self.sessions, *self.followed.values()):
                lib.ips_sessions_free(table)
            lib.ips_frag_free(self._frags)
        super().close()
