"""Network namespaces by name, as `ip netns` keeps them: made, entered, removed, without a subprocess.

A namespace is entered by a thread of its own (setns acts on one thread), so that the caller stays where
it is: `inside(name, function)`. Names are files below NETNS_DIR, so `ip netns exec NAME ...` works too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ipshare.errors import IpshareError

NETNS_DIR = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 4096, 1 << 14, 1 << 20
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)
Result = TypeVar("Result")


class LabError(IpshareError):
    """The lab cannot do what was asked."""


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _in_thread(enter: Callable[[], None], function: Callable[[], Result]) -> Result:
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            enter()
            outcome.append(function())
        except BaseException as error:  # handed to the caller, whatever it is
            failure.append(error)

    thread = threading.Thread(target=body, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def inside(name: str, function: Callable[[], Result]) -> Result:
    """Calls the function there, in a thread of its own; its result or exception is the caller's."""

    def enter() -> None:
        with open(NETNS_DIR / name) as file:
            _call("setns", file.fileno(), _CLONE_NEWNET)

    return _in_thread(enter, function)


def inside_new(function: Callable[[], Result]) -> Result:
    """Calls the function in a namespace without a name, which goes when the thread ends."""
    return _in_thread(lambda: _call("unshare", _CLONE_NEWNET), function)


def create(name: str) -> None:
    """Makes a namespace with a name. LabError without the privilege, FileExistsError if it is taken."""
    _make_directory()
    target = NETNS_DIR / name
    target.touch(mode=0o444, exist_ok=False)

    def bind() -> None:
        _call("mount", b"/proc/thread-self/ns/net", str(target).encode(), b"none", _MS_BIND, None)

    try:
        _in_thread(lambda: _call("unshare", _CLONE_NEWNET), bind)
    except OSError as error:
        target.unlink()
        raise LabError(
            f"cannot make a network namespace: {error.strerror}", hint="run as root, or in a user namespace"
        ) from error


def delete(name: str) -> None:
    """Takes the name away; the namespace goes with its last process. No error where there is none."""
    target = NETNS_DIR / name
    with contextlib.suppress(OSError):
        _call("umount2", str(target).encode(), _MNT_DETACH)
    target.unlink(missing_ok=True)


def _make_directory() -> None:
    """The directory, as a shared mount of itself, which `ip netns` makes of it when it first adds a name.
    Made while there are names already, it has each of them twice, the lower one out of reach: no file can
    be removed then."""
    try:
        NETNS_DIR.mkdir(exist_ok=True)
        if not _is_mounted() and not any(NETNS_DIR.iterdir()):
            path = str(NETNS_DIR).encode()
            _call("mount", path, path, b"none", _MS_BIND | _MS_REC, None)
            _call("mount", b"", path, b"none", _MS_SHARED | _MS_REC, None)
    except OSError as error:
        raise LabError(
            f"cannot make {NETNS_DIR}: {error.strerror}", hint="run as root, or in a user namespace"
        ) from None


def _is_mounted() -> bool:
    """Whether another mount is seen there than around it. Path.is_mount does not see a mount of a directory
    on itself; one more for each lab would double all of them, as they are shared: after some days there is
    no room for a name."""
    return _mount_at(NETNS_DIR) != _mount_at(NETNS_DIR.parent)


def _mount_at(directory: Path) -> str:
    """The number of the mount that is seen there, whatever lies below it."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)
    return next(line for line in info.splitlines() if line.startswith("mnt_id:"))


def process_ids(name: str) -> list[int]:
    """Processes that are in the namespace now."""
    try:
        inode = (NETNS_DIR / name).stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                where = (entry / "ns/net").stat()
                if (where.st_dev, where.st_ino) == (inode.st_dev, inode.st_ino):
                    found.append(int(entry.name))
    return found
