"""flow: sends through one of the paths, and says what arrived and what processor time it took.

Processor time is that of all tasks that move packets: the tools themselves (the kernel forwards in the
sender's context, so a router's work is in there), the engines' threads and ksoftirqd. It is read as
nanoseconds that tasks ran (schedstat), which does not depend on the clock tick.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ipshare.bench.paths import RECEIVER, SENDER, VARIANTS, Variant
from ipshare.errors import IpshareError
from ipshare.lab import netns

SOURCE = Path(__file__).with_name("traffic.c")
PORT = 5201
FLOWS = 256
_SIOCGIFHWADDR = 0x8927


class NoCompiler(IpshareError):
    """The traffic tool cannot be made here."""


@dataclass(frozen=True, slots=True)
class Flow:
    """``sent``, ``arrived``: packets (flood) or bytes (stream); ``cpu_ns``: processor time of everything."""

    sent: int
    arrived: int
    seconds: float
    cpu_ns: int

    @property
    def rate(self) -> float:
        """Packets or bytes per second that arrived."""
        return self.arrived / self.seconds

    @property
    def cost(self) -> float:
        """Nanoseconds of processor time for each packet or byte that arrived."""
        return self.cpu_ns / self.arrived if self.arrived else float("inf")


@contextmanager
def tool() -> Iterator[Path]:
    """The compiled traffic tool. Raises NoCompiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("no C compiler: paths are not measured", hint="apt install gcc libc6-dev")
    with tempfile.TemporaryDirectory(prefix="ipshare-") as scratch:
        binary = Path(scratch) / "traffic"
        subprocess.run([compiler, "-O2", "-o", str(binary), str(SOURCE)], check=True)
        yield binary


def _start(prefix: str, node: str, command: list[str]) -> subprocess.Popen[str]:
    return netns.inside(
        f"{prefix}-{node}", partial(subprocess.Popen, command, stdout=subprocess.PIPE, text=True)
    )


def _end(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise IpshareError(f"traffic tool: status {process.returncode}")
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    return report


def _arrived(device: str) -> int:
    """Packets that a device of this thread's namespace has received."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == device:
            return int(numbers.split()[1])
    raise IpshareError(f"no device {device}")


def _mac(device: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        reply = fcntl.ioctl(control, _SIOCGIFHWADDR, struct.pack("16s24x", device.encode()))
    return ":".join(f"{byte:02x}" for byte in reply[18:24])


def _run_ns(task: Path) -> int:
    return int((task / "schedstat").read_text().split()[0])


class Tasks:
    """Processor time of the engines in some namespaces and of ksoftirqd, from construction on."""

    def __init__(self, prefix: str, nodes: tuple[str, ...]) -> None:
        engines = [pid for node in dict.fromkeys(nodes) for pid in netns.process_ids(f"{prefix}-{node}")]
        self._tasks = [task for pid in engines for task in Path(f"/proc/{pid}/task").iterdir()]
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # ended meanwhile
                if (process / "comm").read_text().startswith("ksoftirqd"):
                    self._tasks.append(process)
        self._before = sum(map(_run_ns, self._tasks))

    def ns(self) -> int:
        return sum(map(_run_ns, self._tasks)) - self._before


def _flood(
    prefix: str, binary: Path, v: Variant, seconds: float, rate: float, mac: str | None = None
) -> dict[str, Any]:
    """``mac``: where the frames go; None: to the first router."""
    to = mac or netns.inside(f"{prefix}-{v.first}", partial(_mac, SENDER))
    source = f"10.81.{v.number}.2"
    words = ["flood", v.first, to, source, v.flood_to, seconds, FLOWS, rate]
    return _end(_start(prefix, SENDER, [str(binary), *map(str, words)]))


def flood(prefix: str, binary: Path, v: Variant, seconds: float, rate: float = 0) -> Flow:
    """64-byte UDP frames of 256 flows, ``rate`` a second (0: full speed); d's device counts what arrives."""
    count = partial(netns.inside, f"{prefix}-{RECEIVER}", partial(_arrived, v.last))
    tasks, before = Tasks(prefix, (v.first, v.last)), count()
    report = _flood(prefix, binary, v, seconds, rate)
    return Flow(report["amount"], count() - before, report["ns"] / 1e9, report["cpu_ns"] + tasks.ns())


def generator(prefix: str, binary: Path, seconds: float) -> float:
    """Packets per second that flood makes where nobody forwards them: the first router ignores frames for
    another MAC address."""
    report = _flood(prefix, binary, VARIANTS["plain"], seconds, 0, "02:00:00:00:00:99")
    return float(report["amount"] / (report["ns"] / 1e9))


def stream(prefix: str, binary: Path, v: Variant, seconds: float) -> Flow:
    """One TCP connection with large writes."""
    tasks = Tasks(prefix, (v.first, v.last))
    sink = _start(prefix, RECEIVER, [str(binary), "discard", str(PORT)])
    assert sink.stdout is not None
    sink.stdout.readline()
    source = _start(prefix, SENDER, [str(binary), "stream", v.stream_to, str(PORT), str(seconds)])
    try:
        sent = _end(source)
        got = _end(sink)
    except IpshareError as error:
        raise IpshareError(f"no stream through {v.name}: {error.message}") from error
    finally:
        for process in (source, sink):
            if process.poll() is None:
                process.kill()
                process.wait()
    cpu = sent["cpu_ns"] + got["cpu_ns"] + tasks.ns()
    return Flow(sent["amount"], got["amount"], got["ns"] / 1e9, cpu)
