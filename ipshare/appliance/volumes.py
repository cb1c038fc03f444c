"""volumes: at the box: sticks and disks with files for it, found by label, read and let go."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ipshare.appliance import document, seed, slots, stick, tools
from ipshare.appliance.machine import Machine
from ipshare.errors import IpshareError

BY_LABEL = Path("/dev/disk/by-label")
STORAGE = "08"
"""Class of a USB interface."""
STICK_S, LOOK_S = 10.0, 0.25
"""How long a stick may take to become a disk: the kernel lets it settle for a second, slow ones take more."""
WITH_JOURNAL = ("ext3", "ext4")
FILE_SYSTEMS = ("vfat", "exfat", "ext2", "ext3", "ext4", "iso9660")


def find(places: Path = BY_LABEL) -> tuple[str | None, list[str]]:
    """The device to be read, a NoCloud seed before a stick; and what is to be said of a second one."""
    labels = [
        label.upper() if upper else label.lower() for label in (seed.LABEL, stick.LABEL) for upper in (1, 0)
    ]
    found = [label for label in labels if (places / label).exists()]
    said = [f"a volume labelled {label} is there, too, and is not read" for label in found[1:]]
    return (str(places / found[0]) if found else None), said


def late_sticks(root: Path = Path("/")) -> list[str]:
    """USB sticks that are there, and no disks yet."""
    kernel = Machine(root)
    return [
        one.name
        for one in sorted((kernel.sys / "bus/usb/devices").glob("*:*"))
        if kernel.read(one / "bInterfaceClass") == STORAGE and not any(one.glob("host*/target*/*/block/*"))
    ]


def _settle() -> None:
    subprocess.run(["udevadm", "settle", "--timeout=10"], capture_output=True, check=False)


def await_sticks(
    root: Path = Path("/"),
    pause: Callable[[float], object] = time.sleep,
    settle: Callable[[], object] = _settle,
) -> None:
    """Until they are, and have their labels: udev's queue is empty while the kernel waits for a stick."""
    looks = int(STICK_S / LOOK_S)
    while late_sticks(root) and looks:
        looks -= 1
        pause(LOOK_S)
    settle()


def read(
    device: str, wanted: Callable[[str], bool] = lambda name: True, options: str = "ro"
) -> dict[str, str]:
    """The files in a volume's top directory, but for hidden ones; what is no UTF-8 has U+FFFD. Raises OSError
    if it cannot be mounted."""
    try:
        with slots.mounted(Path(device), "auto", options) as place:
            return files(place, wanted)
    except IpshareError as error:
        raise OSError(error.message) from error


def files(place: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, str]:
    """The same of a directory."""
    paths = [path for path in sorted(place.iterdir()) if not path.name.startswith(".") and wanted(path.name)]
    plain = [path for path in paths if path.is_file() and not path.is_symlink()]
    # One more than are taken is enough to say so: a stick may hold more than this machine's memory.
    return {path.name: _text(path) for path in plain[: stick.NUMBER + 1]}


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(document.MOST + 1).decode("utf-8", "replace")


def others() -> dict[str, str]:
    """Devices with a file system that is not mounted, sticks most likely; and how each is mounted: of one
    with a journal, which may be another system's, nothing is written that was left to be."""
    listed = json.loads(
        tools.run(["lsblk", "--json", "--list", "--output", "PATH,FSTYPE,PARTLABEL,MOUNTPOINTS"])
    )
    return {
        device["path"]: "ro,norecovery" if device["fstype"] in WITH_JOURNAL else "ro"
        for device in listed["blockdevices"]
        if device["fstype"] in FILE_SYSTEMS
        and not any(device["mountpoints"])
        and not str(device["partlabel"] or "").startswith("ipshare-")
    }


def public_keys() -> dict[str, str]:
    """Public SSH keys that sticks have: "device: file" -> its text."""
    found = {}
    for device, options in others().items():
        try:
            texts = read(device, lambda name: name.endswith(".pub") or name == stick.KEYS, options)
        except OSError:
            continue
        found.update({f"{device}: {name}": text for name, text in texts.items()})
    return found
