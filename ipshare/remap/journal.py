"""journal: where remaps are written down, so that whoever orchestrates them may die anywhere.

One file for each remap, DIRECTORY/ID.jsonl: its progress, a line whenever that changes, on the disk before
anything is done because of it. The last whole line counts. Who works on a remap holds its file's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipshare.agent.codec import decode, encode
from ipshare.errors import IpshareError, NoPrivilege, Refused
from ipshare.remap.machine import Progress

DIRECTORY = Path("/var/lib/ipshare/remaps")
KEPT = 50
"""Finished remaps that are remembered."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A remap as it was written down last: under which boot its times are, and when by the calendar."""

    progress: Progress
    boot_id: str
    time: float

    @property
    def id(self) -> int:
        return self.progress.plan.id


class Journal:
    """All remaps of one directory. Raises NoPrivilege or IpshareError where it cannot be used."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory

    def entries(self) -> list[Entry]:
        """Lowest id first; what is not readable is left out."""
        try:
            files = sorted(self.directory.glob("*.jsonl"), key=lambda file: (len(file.name), file.name))
            found = [_last(file) for file in files]
        except PermissionError:
            raise NoPrivilege(f"may not look into {self.directory}", hint="run as root") from None
        return [entry for entry in found if entry is not None]

    def entry(self, remap: int) -> Entry | None:
        return next((entry for entry in self.entries() if entry.id == remap), None)

    def is_worked_on(self, remap: int) -> bool:
        """Whether some process holds it."""
        try:
            with self._path(remap).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @contextlib.contextmanager
    def planning(self) -> Iterator[None]:
        """One at a time: what a plan takes is written down before the next one is made."""
        fd = self._open(self.directory / "lock")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def writing(self, remap: int) -> Iterator[Writer]:
        """Raises Refused if another process works on it."""
        fd = self._open(self._path(remap))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Refused(
                f"another process works on remap {remap}", hint="see `ipshare remap status`"
            ) from None
        try:
            yield Writer(fd, self._asked_to_abort(remap))
        finally:
            os.close(fd)

    def _open(self, path: Path) -> int:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError:
            raise NoPrivilege(f"may not write to {self.directory}", hint="run as root") from None
        except OSError as error:
            raise IpshareError(
                f"cannot write to {self.directory}: {error.strerror}", hint="use --journal"
            ) from None

    def ask_to_abort(self, remap: int) -> None:
        """Tells whoever works on it."""
        self._asked_to_abort(remap).touch()

    def forget_old(self) -> None:
        """All but the latest finished ones."""
        over = [entry for entry in self.entries() if entry.progress.step.is_over]
        for entry in over[:-KEPT]:
            self._path(entry.id).unlink(missing_ok=True)
            self._asked_to_abort(entry.id).unlink(missing_ok=True)

    def _path(self, remap: int) -> Path:
        return self.directory / f"{remap}.jsonl"

    def _asked_to_abort(self, remap: int) -> Path:
        return self.directory / f"{remap}.abort"


class Writer:
    """The file of one remap, locked."""

    def __init__(self, fd: int, abort_file: Path) -> None:
        self._fd, self._abort_file = fd, abort_file

    def write(self, progress: Progress, boot_id: str, time: float) -> None:
        """On the disk when this returns. Raises IpshareError where the disk is full."""
        record = {"version": 1, "boot_id": boot_id, "time": time, "progress": encode(progress)}
        try:
            os.write(self._fd, b"\n" + json.dumps(record).encode() + b"\n")  # after what a crash cut off
            os.fsync(self._fd)
        except OSError as error:
            raise IpshareError(f"cannot write the journal: {error.strerror}", hint="make room") from None

    def is_abort_wanted(self) -> bool:
        """Once for each time that somebody asked."""
        try:
            self._abort_file.unlink()
        except FileNotFoundError:
            return False
        return True


def _last(file: Path) -> Entry | None:
    for line in reversed(file.read_bytes().splitlines()):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            record: dict[str, Any] = json.loads(line)
            progress: Progress = decode(Progress, record["progress"])
            return Entry(progress, record["boot_id"], record["time"])
    return None
