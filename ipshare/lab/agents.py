"""A lab whose data path nodes run the real agent and engine."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

from ipshare.agent.spawn import spawn
from ipshare.errors import NoPrivilege, NotRunning
from ipshare.lab.internet import LabSpec
from ipshare.lab.lab import Lab


def start_agent(lab: Lab, node: str, file: Path) -> subprocess.Popen[bytes]:
    """Starts `ipshare agent` in the node; returns when it forwards. Its log lies beside its configuration."""
    return spawn(file, prefix=lab.command(node, []), log=file.parent / "agent.log")


_RINGS = 256 << 20  # bytes that the VPP of an end point locks for the rings of its interfaces


def require_vpp() -> None:
    """Before anything is built. Raises NotRunning, and NoPrivilege where VPP may not lock its rings' memory:
    in a user namespace the limit of the user counts."""
    from ipshare.engine.vpp.find import INSTALL, find

    found = find()
    if found.plugin is None:
        raise NotRunning(
            f"VPP is at {found.binary}, but the ipshare plugin is not beside its plugins", hint=INSTALL
        )
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    is_confined = Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
    if is_confined and limit != resource.RLIM_INFINITY and limit < _RINGS:
        raise NoPrivilege(
            f"VPP locks up to {_RINGS >> 20} MiB of memory for packets, {limit >> 20} MiB are allowed here",
            hint="run as root, or raise the limit: ulimit -l (memlock in /etc/security/limits.conf)",
        )


def lab_with_agents(spec: LabSpec | None = None, *, target: str = "A") -> Lab:
    """The lab, to be entered; the Global Networks are served at end point ``target``. Raises NotRunning for a
    lab on VPP where there is no VPP, or none with the plugin."""
    if spec is not None and spec.engine == "vpp":
        require_vpp()
    return Lab(spec, start=start_agent, target=target)
