"""What a lab has made, on disk before it is made, so that anyone can remove it exactly.

One directory per lab below STATE_DIR, named after the lab's prefix: state.json, and what its nodes write.
Namespaces and processes are found again by the prefix and by the namespaces they are in; the file's
owner (process id and start time) tells whether the lab still lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from ipshare.lab import netns

ROUNDS = 20
STATE_DIR = Path("/run/ipshare-lab")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A lab on this machine: its prefix, the process that made it, and whether that one still lives."""

    prefix: str
    owner: int
    is_alive: bool


def new_prefix() -> str:
    """Unique among the labs of this machine, short enough for names of namespaces."""
    return f"lab{secrets.token_hex(3)}"


def directory(prefix: str) -> Path:
    """Where the lab and its nodes keep their files."""
    return STATE_DIR / prefix


def write(prefix: str, names: list[str]) -> None:
    """names: of all namespaces, before the first is made."""
    where = directory(prefix)
    where.mkdir(parents=True)
    owner = os.getpid()
    state = {"names": names, "owner": owner, "started": _start_time(owner)}
    (where / "state.json").write_text(json.dumps(state))


def labs() -> list[Leftover]:
    """All labs of this machine, running and left behind."""
    found = []
    for file in sorted(STATE_DIR.glob("*/state.json")):
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(file.read_text())
            alive = _start_time(state["owner"]) == state["started"]
            found.append(Leftover(file.parent.name, state["owner"], alive))
    return found


def remove(prefix: str) -> list[str]:
    """Ends the lab's processes, removes its namespaces and files. Returns the namespaces that were there."""
    where = directory(prefix)
    try:
        names = json.loads((where / "state.json").read_text())["names"]
    except (OSError, ValueError):
        names = [path.name for path in netns.NETNS_DIR.glob(f"{prefix}-*")]
    present = [name for name in names if (netns.NETNS_DIR / name).exists()]
    _end_all(present)
    for name in present:
        netns.delete(name)
    _forget_vpps(where)
    shutil.rmtree(where, ignore_errors=True)
    with contextlib.suppress(OSError):
        STATE_DIR.rmdir()  # the last lab takes the directory along
    return present


def _forget_vpps(where: Path) -> None:
    """Shared memory of VPPs that had no time to remove it."""
    for directory in where.glob("*/run/vpp"):
        from ipshare.engine.vpp.launch import clean
        from ipshare.engine.vpp.startup import Settings

        clean(Settings(directory))


def _end_all(namespaces: list[str]) -> None:
    """Who was just about to start another process (an agent its VPP) has ended before the next look."""
    for _ in range(ROUNDS):
        pids = [pid for name in namespaces for pid in netns.process_ids(name) if pid != os.getpid()]
        if not pids:
            return
        _end(pids)


def _end(pids: list[int]) -> None:
    """SIGKILL: whoever is inside loses its network now; waits until they are gone."""
    handles = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            handles.append(handle)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles:
        select.select([handle], [], [], 5)
        os.close(handle)


def _start_time(pid: int) -> str:
    """Clock ticks since boot; with the process id it names a process for good. Empty: no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""
