"""tools: running the programs that an image is made with, and saying early which are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
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


def room(where: Path, octets: int) -> None:
    """Raises Refused if the file system at `where` has less than that free."""
    free = shutil.disk_usage(where).free
    if free < octets:
        raise Refused(
            f"{where} has {free >> 20:,} MiB free, an image needs {octets >> 20:,}",
            hint="make room, or name another place: --output, --work",
        )


def surroundings() -> dict[str, str]:
    """The environment of those programs. SOURCE_DATE_EPOCH only where it is asked for: mksquashfs wants it or
    options, not both."""
    rest = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    return rest | {"PATH": PLACES, "LC_ALL": "C"}


def run(command: list[str], *, env: Mapping[str, str] | None = None, text: str | None = None) -> str:
    """What the command printed. Raises IpshareError with the last lines of what it said if it failed."""
    done = subprocess.run(
        command,
        input=text,
        text=True,
        capture_output=True,
        check=False,
        env=surroundings() | dict(env or {}),
    )
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise IpshareError(f"{Path(command[0]).name} failed ({done.returncode}): {said}")
    return done.stdout
