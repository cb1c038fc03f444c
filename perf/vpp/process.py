"""process: one VPP process for a measurement, started here, spoken to by its binary API, stopped at the end.

Nothing of the machine is touched: no device, no hugepage, sockets in a directory of its own, a network
namespace of its own and precedence over other processes where root allows that. Nothing limits its polling.
Which VPP and which of its plugins: ipshare.engine.vpp.find (IPSHARE_VPP, PATH).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ipshare.engine.vpp.client import Client
from ipshare.engine.vpp.find import find
from ipshare.errors import IpshareError

START_S = 30.0
ANSWER_S = 60.0
NICE = -10  # between bursts it sleeps
CONFIG = """\
unix {{ nodaemon nosyslog runtime-dir {dir} cli-listen {dir}/cli.sock log {dir}/vpp.log }}
api-segment {{ prefix {prefix} }}
socksvr {{ socket-name {dir}/api.sock }}
statseg {{ socket-name {dir}/stats.sock size {statseg} page-size default }}
memory {{ main-heap-size {heap} main-heap-page-size default }}
buffers {{ buffers-per-numa 32768 page-size default }}
cpu {{ main-core {core} {workers} }}
plugins {{ path {path} plugin default {{ disable }} {plugins} }}
"""


class VppFailed(Exception):
    """VPP does not start, refuses a command, or has died; the message ends with what it said."""


def version() -> str:
    """Of the VPP that is installed, as it calls itself: v26.06-release."""
    said = subprocess.run([find().binary, "--version"], capture_output=True, text=True, check=False).stdout
    return next((word for word in said.split() if re.match(r"v\d", word)), "of unknown version")


class Vpp:
    """`plugins`: names without _plugin.so. `workers`: 0, or 1 on the core beside the main thread's.

    Raises NotRunning where no VPP is installed, VppFailed where it does not start.
    """

    def __init__(
        self,
        plugins: Sequence[str] = (),
        *,
        workers: int = 0,
        heap: str = "3G",
        statseg: str = "256M",
        nice: int = NICE,
    ) -> None:
        install = find()
        shm = Path("/dev/shm")
        self.dir = Path(tempfile.mkdtemp(prefix="ipshare-perf-", dir=shm if shm.is_dir() else None))
        cores = sorted(os.sched_getaffinity(0))
        text = CONFIG.format(
            dir=self.dir,
            prefix=self.dir.name,
            statseg=statseg,
            heap=heap,
            core=cores[0] if workers else cores[-1],
            workers=f"corelist-workers {cores[-1]}" if workers else "",
            path=":".join(str(d) for d in install.plugin_dirs),
            plugins=" ".join(f"plugin {name}_plugin.so {{ enable }}" for name in plugins),
        )
        (self.dir / "startup.conf").write_text(text)
        command = [install.binary, "-c", self.dir / "startup.conf"]
        if os.geteuid() == 0:
            command = ["nice", "-n", str(nice), "unshare", "--net", *command]
        with (self.dir / "stderr").open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self.client = Client(
            self.dir / "api.sock", api_dirs=install.api_dirs, timeout_s=ANSWER_S, plugin=False
        )
        try:
            self._await_socket()
        except BaseException:
            self.close()
            raise

    def _await_socket(self) -> None:
        until = time.monotonic() + START_S
        while not (self.dir / "api.sock").exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise VppFailed(f"VPP does not start: {self.said}")
            time.sleep(0.05)

    @property
    def said(self) -> str:
        """The last lines of its log."""
        files = [self.dir / "vpp.log", self.dir / "stderr"]
        text = "\n".join(f.read_text(errors="replace") for f in files if f.exists())
        return "\n".join(re.sub(r"\x1b\[\d*m", "", text).splitlines()[-12:])

    def switches(self) -> int:
        """How often its main thread lost the processor to somebody else."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"nonvoluntary_ctxt_switches:\s+(\d+)", status)
        return int(found[1]) if found else 0

    def cli(self, command: str) -> str:
        """What VPP answers. Raises VppFailed where it refuses the command or has died."""
        try:
            return self.client.cli(command)
        except IpshareError as error:
            reply = getattr(getattr(error, "reply", None), "reply", "")
            raise VppFailed(f"{command!r}: {error.message}: {reply or self.said}") from error

    def run(self, commands: Sequence[str]) -> None:
        """Many commands, from a file: VPP reads those fast."""
        if not commands:
            return
        file = self.dir / "commands"
        file.write_text("\n".join(commands) + "\n")
        answer = self.cli(f"exec {file}").strip()
        if re.search(r"unknown|error|fail|invalid|expected", answer, re.I):
            raise VppFailed(f"{commands[0]!r} and the following: {answer[:500]}")

    def close(self) -> None:
        with contextlib.suppress(IpshareError):
            self.client.close()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
