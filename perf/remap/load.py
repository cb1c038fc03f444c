"""load: the program load.c, driven: connections to an address that moves between two servers."""

from __future__ import annotations

from pathlib import Path

from ipshare.lab.internet import global_ip
from ipshare.lab.lab import Lab
from perf.load.program import Program

SOURCE = Path(__file__).with_name("load.c")
CLIENTS, SERVERS = ("c1", "c3"), ("a1", "b1")  # c1 comes by distribution point C, c3 by D
FAMILIES = (4, 6)


class Load(Program):
    """``rate`` connections are opened each second; from ``begin`` to ``close`` there are ``kept``
    connections and ``flows`` flows of UDP that speak every ``period_ms``."""

    def __init__(self, lab: Lab, kept: int, flows: int, rate: int, period_ms: int) -> None:
        self.kept, self.flows = kept, flows
        names = [lab.namespace(node) for node in (*CLIENTS, *SERVERS)]
        addresses = [global_ip(SERVERS[0], family) for family in FAMILIES]
        super().__init__([SOURCE], [*names, *addresses, kept, flows, rate, period_ms])

    def begin(self) -> None:
        self._ask("begin")

    def hush(self) -> None:
        """Nothing new is said; what is awaited still comes."""
        self._ask("hush")

    def close(self) -> None:
        self._ask("close")
