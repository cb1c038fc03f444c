"""slots: at the box: which slot runs, which is good, which is on trial; the variables that GRUB reads at the
next start (grub).

They are in a file on the ESP, which is mounted only while they are changed. The write is one sector, in
place, followed by fsync.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ipshare.appliance import grub
from ipshare.appliance.overlay import RELEASE
from ipshare.errors import IpshareError, Refused

BY_LABEL = Path("/dev/disk/by-partlabel")
RUN = Path("/run")
LOCK = "ipshare-update.lock"
SQUASHFS = b"hsqs"


def other(slot: str) -> str:
    return "b" if slot == "a" else "a"


def is_live() -> bool:
    """This is the live system of an installation medium: it keeps nothing, and has no slots."""
    return any(word.startswith("ipshare.live=") for word in Path("/proc/cmdline").read_text().split())


def running() -> str:
    """The slot that this system was started from. Raises Refused where this is no appliance."""
    if is_live():
        raise Refused(
            "this is the live system of an installation medium: it has no slots",
            hint="ipshare appliance install-disk",
        )
    for word in Path("/proc/cmdline").read_text().split():
        if word.startswith("ipshare.slot="):
            return word.removeprefix("ipshare.slot=")
    raise Refused("this machine was not started from an appliance image", hint="docs/appliance.md")


def is_instead() -> bool:
    """The boot loader could not read the slot that it should have started, and started this one."""
    return grub.INSTEAD in Path("/proc/cmdline").read_text().split()


def at_box() -> None:
    """Raises Refused where this is neither a box nor the live system: host name, SSH's keys, the clock and
    whether the machine is reset are not ours there."""
    if not is_live():
        running()


def release() -> dict[str, object]:
    """What the running slot says of itself."""
    found = json.loads(Path(RELEASE).read_text())
    return found if isinstance(found, dict) else {}


def device(slot: str) -> Path:
    return BY_LABEL / f"ipshare-{slot}"


def version(target: Path) -> str:
    """Of what a slot's device has, as it says itself; "": nothing that could be started. A slot that was not
    written to its end has no first sector (bundle)."""
    with target.open("rb") as disk:
        if disk.read(len(SQUASHFS)) != SQUASHFS:
            return ""
    try:
        with mounted(target, "squashfs", "ro") as place:
            return str(json.loads((place / "release.json").read_text())["version"])
    except (IpshareError, OSError, ValueError, KeyError, TypeError):
        return ""


@dataclass(frozen=True, slots=True)
class Boot:
    """The boot loader's variables."""

    good: str
    trial: str = ""
    tries: int = 0

    @classmethod
    def of(cls, block: bytes) -> Boot:
        found = grub.decode(block)
        good, trial, tries = found.get("good", "a"), found.get("trial", ""), found.get("tries", "0")
        return cls(
            good if good in ("a", "b") else "a",
            trial if trial in ("a", "b") else "",
            int(tries) if tries.isdigit() else 0,
        )

    def block(self) -> bytes:
        return grub.encode({"good": self.good, "trial": self.trial, "tries": str(self.tries)})

    def on_trial(self, slot: str) -> Boot:
        return Boot(self.good, slot, grub.TRIES)

    def judged(self, slot: str, healthy: bool, instead: bool = False) -> tuple[Boot, str]:
        """After a start from `slot`, maybe `instead` of one that cannot be read: what the variables become,
        and one word for it: good, trial-failed, rolled-back, instead, kept."""
        if self.trial == slot:
            return (Boot(slot), "good") if healthy else (self, "trial-failed")
        if instead and healthy and (self.trial or self.good != slot):
            return Boot(slot), "rolled-back" if self.trial else "instead"
        if self.trial and self.tries == 0:
            return Boot(self.good), "rolled-back"
        return self, "kept"  # a trial that did not begin yet stays in order


@contextlib.contextmanager
def environment() -> Iterator[Path]:
    """The file with the variables, its volume mounted as long as this lasts."""
    with mounted(device("esp"), "vfat", "rw,sync") as place:
        yield place / "grub" / "grubenv"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No other update or rollback is at work as long as this lasts: the slot that one writes would be put on
    trial by the other. Raises Refused."""
    with (RUN / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("another update, or a rollback, is at work", hint="wait for its end") from None
        yield


@contextlib.contextmanager
def mounted(target: Path, kind: str, options: str) -> Iterator[Path]:
    """A volume, as long as this lasts. Raises IpshareError."""
    place = Path(tempfile.mkdtemp(dir=RUN))
    try:
        done = subprocess.run(
            ["mount", "-t", kind, "-o", options, str(target), str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise IpshareError(f"{target} cannot be mounted: {done.stderr.strip()}")
        try:
            yield place
        finally:
            # In a group of its own: who ends us with Ctrl-C leaves it no volume that is mounted.
            subprocess.run(["umount", str(place)], capture_output=True, check=False, process_group=0)
    finally:
        # The directory alone, never what is in it: where umount failed that is the volume, with GRUB on it.
        with contextlib.suppress(OSError):
            place.rmdir()


def back(environment: Path, slot: str, have: str) -> str:
    """The order to start the other slot than ``slot``, which runs, next: on trial, or, if ``slot`` is on
    trial itself, as the good one that it is. ``have``: the version in there, "" for none. Returns the slot.
    Raises Refused."""
    boot, to = look(environment), other(slot)
    if boot.good == to:
        store(environment, Boot(to))
        return to
    if boot.trial == to:
        raise Refused(
            f"slot {to} has {have or 'an update'}, which waits for its trial: the version before is gone",
            hint="start the machine again to try it",
        )
    if not have:
        raise Refused(f"slot {to} has no version that could be started", hint="ipshare appliance install")
    store(environment, boot.on_trial(to))
    return to


def look(path: Path) -> Boot:
    return Boot.of(path.read_bytes())


def store(path: Path, boot: Boot) -> None:
    """In place: GRUB knows the file by its blocks."""
    with path.open("r+b", buffering=0) as file:
        file.write(boot.block())
        os.fsync(file.fileno())
