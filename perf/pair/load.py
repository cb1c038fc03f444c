"""load: the program load.c, driven: connections and probes through the pair."""

from __future__ import annotations

from pathlib import Path

from perf.load.program import Program
from tests.flows_lab import OUTSIDE4, OUTSIDE6

SOURCES = [Path(__file__).with_name(name) for name in ("load.c", "probe.c")]


class Load(Program):
    """``kept`` connections stay, ``rate`` more are opened each second."""

    def __init__(self, names: dict[str, str], kept: int, rate: int) -> None:
        super().__init__(SOURCES, [names["in"], names["out"], OUTSIDE4, OUTSIDE6, kept, rate])

    def gap(self, from_ns: int, until_ns: int) -> list[dict[str, int]]:
        """Of IPv4 and of IPv6: what probe.h says about the probes sent in between (CLOCK_MONOTONIC)."""
        return list(self._ask(f"gap {from_ns} {until_ns}"))
