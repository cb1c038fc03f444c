"""load: the program load.c, driven: connections and probes through the pair."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.flows_lab import OUTSIDE4, OUTSIDE6

SOURCES = [Path(__file__).with_name(name) for name in ("load.c", "probe.c")]


NICE = -10  # less than the gateways


def prefer(pid: int, nice: int) -> None:
    """Before what else this machine does, of which the figures are no measure.

    Where the kernel groups processes by session, a process's own niceness holds within its session only.
    """
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)
    with contextlib.suppress(OSError):  # a kernel without such groups
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


class Load:
    """Runs from `with` to its end. ``kept`` connections stay, ``rate`` more are opened each second."""

    def __init__(self, names: dict[str, str], kept: int, rate: int) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ipshare-load-")
        binary = f"{self._directory.name}/load"
        subprocess.run(["cc", "-O2", "-pthread", "-o", binary, *map(str, SOURCES)], check=True)
        command = [binary, names["in"], names["out"], OUTSIDE4, OUTSIDE6, str(kept), str(rate)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
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

    def report(self) -> dict[str, Any]:
        return dict(self._ask("report"))

    def rate(self, per_second: int) -> None:
        self._ask(f"rate {per_second}")

    def gap(self, from_ns: int, until_ns: int) -> list[dict[str, int]]:
        """Of IPv4 and of IPv6: what probe.h says about the probes sent in between (CLOCK_MONOTONIC)."""
        return list(self._ask(f"gap {from_ns} {until_ns}"))
