"""protocol: what every data path can do, whatever runs it.

Both the embedded engine and VPP implement ``Engine``; the agent, the CLI and an
orchestrator's code see nothing else. All methods are blocking and thread-safe; errors
are ``EngineError`` with a hint, and leave the data path as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from ipshare.engine.plan import Plan
from ipshare.engine.tables import Records, Tables

Side = Literal["outer", "inner"]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Who runs, and what is live. ``generation`` 0: nothing loaded yet."""

    kind: str
    version: str
    boot_id: str
    pid: int
    workers: int
    generation: int
    previous: int
    term: int
    revision: int
    digest: int
    bindings: int
    table_bytes: int
    devices: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] = ()

    @classmethod
    def of(cls, tables: Mapping[str, int], **who: Any) -> Self:
        """``tables``: the members of ``struct ips_tables_info``; ``who``: the fields that are not in it."""
        return cls(
            generation=tables["generation"],
            previous=tables["previous"],
            term=tables["term"],
            revision=tables["revision"],
            digest=tables["digest"],
            bindings=tables["n_bindings"],
            table_bytes=tables["bytes"],
            **who,
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to one packet, without it happening (``why``).

    ``packets`` and ``errors`` are what the core would send: the packet itself or
    its pieces, and ICMP errors about it.
    """

    verdict: int
    generation: int
    counter: int | None
    endpoint: int | None
    packets: tuple[bytes, ...]
    errors: tuple[bytes, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Counters:
    """Totals since the engine process began, summed over workers.

    ``verdicts``: (2, n) packets per side and verdict. ``packets``/``bytes``: (cells,)
    per binding cell. ``drops``: rows (cell, verdict, packets).
    """

    verdicts: npt.NDArray[np.uint64]
    packets: npt.NDArray[np.uint64]
    bytes: npt.NDArray[np.uint64]
    drops: Records
    errors_sent: int
    errors_limited: int
    drop_overflow: int


@runtime_checkable
class Engine(Protocol):
    """One running data path."""

    def info(self) -> EngineInfo:
        """Identity and live generation."""

    def read(self) -> Tables:
        """The tables that packets see now (names are not kept by an engine)."""

    def apply(self, plan: Plan) -> int:
        """Makes ``plan.desired`` live in one step and returns the generation; an empty
        plan changes nothing and returns the live one. Safe to repeat after any interruption."""

    def rollback(self) -> int:
        """The previous generation's content becomes live again, under a new number."""

    def counters(self) -> Counters:
        """A consistent-enough snapshot: each number is exact, they are not from one instant."""

    def counter_cells(self, bindings: Records) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """First cell and number of cells for each binding record, shape (n,)."""

    def why(self, packet: bytes, side: Side) -> Explanation:
        """What the live generation would do with an IP packet that enters on ``side``."""

    def close(self) -> None:
        """Ends the connection; the data path goes on."""
