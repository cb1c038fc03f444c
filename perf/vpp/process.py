"""process: one VPP process for a measurement, started here, spoken to by its binary API, stopped at the end.

Nothing of the machine is touched: no device, no hugepage, sockets in a directory of its own, a network namespace
of its own where root allows that. The main thread polls without sleeping, as a router would.
VPP is the `vpp` of $IPSHARE_VPP or of the PATH; its API files and plugins are found beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from vpp_papi import VPPApiClient

START_S = 30.0
CONFIG = """\
unix {{ nodaemon nosyslog runtime-dir {dir} cli-listen {dir}/cli.sock log {dir}/vpp.log }}
api-segment {{ prefix {prefix} }}
socksvr {{ socket-name {dir}/api.sock }}
statseg {{ socket-name {dir}/stats.sock size {statseg} page-size default }}
memory {{ main-heap-size {heap} main-heap-page-size default }}
buffers {{ buffers-per-numa 32768 page-size default }}
cpu {{ main-core {core} {workers} }}
plugins {{ {path} plugin default {{ disable }} {plugins} }}
"""


class VppFailed(Exception):
    """VPP does not start, or has died; the message ends with what it said."""


def binary() -> Path | None:
    found = os.environ.get("IPSHARE_VPP") or shutil.which("vpp")
    return Path(found).resolve() if found else None


class Vpp:
    """`plugins`: names without _plugin.so. `workers`: 0, or 1 on the core beside the main thread's."""

    def __init__(
        self, plugins: Sequence[str] = (), *, workers: int = 0, heap: str = "3G", statseg: str = "256M"
    ) -> None:
        vpp = binary()
        if vpp is None:
            raise VppFailed("no VPP installed")
        self.dir = Path(tempfile.mkdtemp(prefix="ipshare-perf-"))
        cores = sorted(os.sched_getaffinity(0))
        text = CONFIG.format(
            dir=self.dir,
            prefix=self.dir.name,
            statseg=statseg,
            heap=heap,
            core=cores[0] if workers else cores[-1],
            workers=f"corelist-workers {cores[-1]}" if workers else "",
            path=plugin_path(vpp),
            plugins=" ".join(f"plugin {name}_plugin.so {{ enable }}" for name in plugins),
        )
        (self.dir / "startup.conf").write_text(text)
        alone = ["unshare", "--net"] if os.geteuid() == 0 else []
        with (self.dir / "stderr").open("wb") as out:
            self._process = subprocess.Popen(
                [*alone, vpp, "-c", self.dir / "startup.conf"], stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
        try:
            self.api = self._connect(vpp.parent.parent)
        except BaseException:
            self.close()
            raise

    def _connect(self, prefix: Path) -> Any:
        socket, until = self.dir / "api.sock", time.monotonic() + START_S
        while not socket.exists():
            if self.died or time.monotonic() > until:
                raise VppFailed(f"VPP does not start: {self.said}")
            time.sleep(0.05)
        files = [str(f) for f in (prefix / "share/vpp/api").rglob("*.api.json")]
        api = VPPApiClient(apifiles=files, server_address=str(socket), read_timeout=60)
        api.connect("ipshare-perf")
        return api

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def died(self) -> bool:
        return self._process.poll() is not None

    @property
    def said(self) -> str:
        """The last lines of its log."""
        lines = [f.read_text(errors="replace") for f in (self.dir / "vpp.log", self.dir / "stderr") if f.exists()]
        return "\n".join("\n".join(lines).splitlines()[-12:])

    def cli(self, command: str) -> str:
        """What VPP answers. Raises VppFailed where it refuses the command or has died."""
        try:
            answer = self.api.api.cli_inband(cmd=command)
        except Exception as error:
            raise VppFailed(f"no answer to {command!r}: {self.said or error}") from error
        if answer.retval:
            raise VppFailed(f"{command!r}: {answer.reply}")
        return str(answer.reply)

    def run(self, commands: Sequence[str]) -> None:
        """Many commands, from a file: VPP reads those fast."""
        file = self.dir / "commands"
        file.write_text("\n".join(commands) + "\n")
        answer = self.cli(f"exec {file}")
        if answer.strip():
            raise VppFailed(f"{commands[0]!r} and the following: {answer.strip()[:500]}")

    def close(self) -> None:
        if hasattr(self, "api"):
            try:
                self.api.disconnect()
            except Exception:  # it is going away, however it takes leave
                pass
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


def plugin_path(vpp: Path) -> str:
    """Where $IPSHARE_VPP_PLUGIN_PATH says, before VPP's own."""
    given = os.environ.get("IPSHARE_VPP_PLUGIN_PATH")
    own = next(iter(vpp.parent.parent.glob("lib/**/vpp_plugins")), None)
    return f"path {given}:{own}" if given else ""
