"""load: the program load.c, driven: connections to an address that moves between two servers."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ipshare.lab.internet import global_ip
from ipshare.lab.lab import Lab
from perf.pair.load import NICE, prefer

SOURCE = Path(__file__).with_name("load.c")
CLIENTS, SERVERS = ("c1", "c3"), ("a1", "b1")  # c1 comes by distribution point C, c3 by D
FAMILIES = (4, 6)


class Load:
    """Runs from `with` to its end: ``rate`` connections are opened each second; from ``begin`` to ``close``
    there are ``kept`` connections and ``flows`` flows of UDP that speak every ``period_ms``."""

    def __init__(self, lab: Lab, kept: int, flows: int, rate: int, period_ms: int) -> None:
        self.kept, self.flows = kept, flows
        self._directory = tempfile.TemporaryDirectory(prefix="ipshare-load-")
        binary = f"{self._directory.name}/load"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", binary, str(SOURCE)], check=True)
        names = [lab.namespace(node) for node in (*CLIENTS, *SERVERS)]
        addresses = [str(global_ip(SERVERS[0], family)) for family in FAMILIES]
        sizes = [str(number) for number in (kept, flows, rate, period_ms)]
        self._process = subprocess.Popen(
            [binary, *names, *addresses, *sizes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip
        prefer(self._process.pid, NICE)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the load's program ended with {self._process.wait()}"
        return json.loads(answer)

    def begin(self) -> None:
        self._ask("begin")

    def hush(self) -> None:
        """Nothing new is said; what is awaited still comes."""
        self._ask("hush")

    def close(self) -> None:
        self._ask("close")

    def rate(self, per_second: int) -> None:
        self._ask(f"rate {per_second}")

    def report(self) -> dict[str, Any]:
        return dict(self._ask("report"))
