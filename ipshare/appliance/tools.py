"""tools: running the programs that an image is made with, and saying early what stands against it: programs
that are missing, no room, another build in the same place."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ipshare.errors import IpshareError, Refused

PACKAGE_OF = {
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "sfdisk": "fdisk",
    "mformat": "mtools",
    "mcopy": "mtools",
    "mmd": "mtools",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "grub-mkimage": "grub-common",
    "xorriso": "xorriso",
    "dpkg-deb": "dpkg",
}
GRUB = {
    Path("/usr/lib/grub/i386-pc/boot.img"): "grub-pc-bin",
    Path("/usr/lib/grub/i386-pc/boot_hybrid.img"): "grub-pc-bin",
    Path("/usr/lib/grub/x86_64-efi/moddep.lst"): "grub-efi-amd64-bin",
}
PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def need(names: Iterable[str], files: Iterable[Path] = ()) -> None:
    """Raises Refused with every program and file that is missing, and the packages that have them."""
    missing = {name: PACKAGE_OF[name] for name in names if shutil.which(name, path=PLACES) is None}
    missing |= {str(path): GRUB[path] for path in files if not path.exists()}
    if missing:
        packages = " ".join(sorted(set(missing.values())))
        raise Refused(f"missing: {', '.join(missing)}", hint=f"apt-get install {packages}")


def room(where: Path, octets: int, option: str) -> None:
    """Raises Refused if the file system at `where` has less than that free; `option` names another place."""
    free = shutil.disk_usage(where).free
    if free < octets:
        raise Refused(
            f"{where} has {free >> 20:,} MiB free, an image needs {octets >> 20:,}",
            hint=f"make room, or name another place: {option}",
        )


def place(where: Path, option: str) -> None:
    """Makes the directory `where`. Raises Refused if it cannot be made, or cannot be written."""
    try:
        where.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{where} is no directory to write into: {error.strerror}", hint=option) from error
    if not os.access(where, os.W_OK | os.X_OK):
        raise Refused(f"{where} cannot be written", hint=option)


@contextmanager
def alone(places: Mapping[Path, str]) -> Iterator[None]:
    """Holds directories, each with the option that names it, for this build. Raises Refused if another has
    one of them. Whatever ends the process gives them back."""
    with ExitStack() as held:
        for where, option in places.items():
            file = held.enter_context((where / ".lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Refused(
                    f"another build is at work in {where}",
                    hint=f"wait for it, or name another place: {option}",
                ) from error
        yield


def surroundings() -> dict[str, str]:
    """The environment of those programs. SOURCE_DATE_EPOCH only where it is asked for: mksquashfs wants it or
    options, not both. mtools writes local time, so it is the same everywhere."""
    rest = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    return rest | {"PATH": PLACES, "LC_ALL": "C", "TZ": "UTC"}


def run(command: list[str], *, env: Mapping[str, str] | None = None, text: str | None = None) -> str:
    """What the command printed. Raises IpshareError with the last lines of what it said if it failed.

    Ctrl-C ends the command, and waits until it has taken away what it made (mmdebstrap: a root, with mounts).
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=surroundings() | dict(env or {}),
        umask=0o022,  # what packages' scripts make has this mode, whoever builds
        process_group=0,  # told to end with all its children: mmdebstrap would wait for them
    )
    try:
        out, err = process.communicate(text)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if process.returncode:
        lines = (err or out).strip().splitlines()
        said = [line for line in lines if not line.startswith("I: ")] or lines  # mmdebstrap's progress
        raise IpshareError(f"{Path(command[0]).name} failed ({process.returncode}): " + "\n".join(said[-12:]))
    return out
