"""Where root is missing: the whole command again, as root of a user namespace of its own.

The kernel lets any user be root over namespaces that the user made (unless the distribution forbids it).
A process id namespace goes with it, so that whatever the lab started ends with the lab, SIGKILL included.
The work is done by `unshare` (util-linux): a process with threads cannot change its user namespace.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ipshare.lab.netns import NETNS_DIR, LabError

_MARK = "IPSHARE_LAB_USERNS"
_UNSHARE = (
    "unshare",
    "--user",
    "--map-root-user",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
# Only there where /run is ours: the machine's own may be writable too, and is not to be written to.
_PREPARED = Path("/run/ipshare-lab-userns")
_CAP_SYS_ADMIN, _CAP_NET_ADMIN = 21, 12


def is_root() -> bool:
    """Whether this process may make namespaces and configure them."""
    status = Path("/proc/self/status").read_text()
    effective = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    return bool(effective >> _CAP_SYS_ADMIN & effective >> _CAP_NET_ADMIN & 1)


def why_not() -> str:
    """Why a user namespace cannot be had here; an empty string: it can."""
    if shutil.which("unshare") is None:
        return "the unshare command (util-linux) is missing"
    done = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() or (f"unshare: status {done.returncode}" if done.returncode else "")


def become_root(arguments: Sequence[str] | None = None) -> None:
    """Returns in a process that may make a lab; without root this is the same command, started again.

    arguments: command line after the interpreter; None: that of this process. LabError carries the remedy.
    """
    if os.environ.get(_MARK):
        _prepare_mounts()
        return
    if is_root():
        return
    if reason := why_not():
        raise LabError(
            f"no root, and no user namespace: {reason}",
            hint="run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces > 0)",
        )
    command = [*_UNSHARE, sys.executable, *(sys.orig_argv[1:] if arguments is None else arguments)]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(command[0], command, os.environ | {_MARK: "1"})


def _prepare_mounts() -> None:
    """A /run of our own (namespaces' names, sockets) and the /sys of our own network namespace; once."""
    if _PREPARED.exists():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, where in ((b"tmpfs", b"/run"), (b"sysfs", b"/sys")):
        if libc.mount(kind, where, kind, 0, None) != 0:
            raise LabError(
                f"cannot mount {kind.decode()} on {where.decode()}: {os.strerror(ctypes.get_errno())}",
                hint="run as root",
            )
    NETNS_DIR.mkdir()
    _PREPARED.touch()
