"""program: a load in C, compiled, driven line by line: a command, an answer of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

ENDS = Path(__file__).with_name("ends.c")
NICE = -10  # less than those it speaks through


def prefer(pid: int, nice: int) -> None:
    """Before what else this machine does, of which the figures are no measure.

    Where the kernel groups processes by session, a process's own niceness holds within its session only.
    """
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)
    with contextlib.suppress(OSError):  # a kernel without such groups
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


class Program:
    """Runs from its making to the end of `with`."""

    def __init__(self, sources: Sequence[Path], arguments: Sequence[object]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ipshare-load-")
        binary = f"{self._directory.name}/load"
        files = [str(source) for source in (*sources, ENDS)]
        options = ["-O2", "-Wall", "-Wextra", "-pthread", f"-I{ENDS.parent}"]
        subprocess.run(["cc", *options, "-o", binary, *files], check=True)
        self._process = subprocess.Popen(
            [binary, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip
        prefer(self._process.pid, NICE)

    def __enter__(self) -> Self:
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

    def rate(self, per_second: int) -> None:
        """Connections opened each second."""
        self._ask(f"rate {per_second}")

    def report(self) -> dict[str, Any]:
        return dict(self._ask("report"))
