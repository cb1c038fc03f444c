"""medium: what an installation medium (the ISO) has, and how a disk is made of it. Written by the builder,
read at the box.

    ipshare/disk.json      version, sizes of the layout, the pieces with their digests
    ipshare/ipshare.slot   the slot, as it is: the live system runs from it, too
    ipshare/NAME.gz        the other pieces of the raw image: boot (GRUB for BIOS, ESP), data (an empty /data)
    ipshare/sector         the 440 octets of code before the partition table
    ipshare/UUID           an empty file: the initrd knows its medium by it

A disk is made so that it boots only when everything is there: its old table goes first, then the pieces are
written and read back, then come the new table and the boot code.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

from ipshare.appliance import layout, tools
from ipshare.errors import IpshareError, Refused

SLOT, SECTOR = "ipshare.slot", "sector"
PLACE = Path("/run/ipshare-medium/ipshare")
"""At the box: where the initrd mounted the medium."""
BLOCK = layout.MIB
CODE = 440


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the raw disk. `start`, `size`: octets; `sha256`: of what is written."""

    file: str
    start: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Medium:
    version: str
    slot_mib: int
    data_mib: int
    pieces: tuple[Piece, ...]
    number: int = layout.NUMBER
    """Of the layout."""

    @property
    def disk(self) -> layout.Disk:
        return layout.disk(self.slot_mib, self.data_mib)


def make(raw: Path, slot: Path, version: str, slot_mib: int, data_mib: int, place: Path) -> Medium:
    """Writes the files of a medium, but for the slot itself, to `place`: from a raw image and its slot."""
    plan = layout.disk(slot_mib, data_mib)
    boot, data = plan["bios"].start, plan["data"]
    with slot.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    pieces = [
        _squeezed(raw, place / "boot.gz", boot, plan["a"].start - boot),
        Piece(SLOT, plan["a"].start, slot.stat().st_size, digest),
        _squeezed(raw, place / "data.gz", data.start, data.size),
    ]
    with raw.open("rb") as disk:
        (place / SECTOR).write_bytes(disk.read(CODE))
    made = Medium(version, slot_mib, data_mib, tuple(pieces))
    (place / "disk.json").write_text(json.dumps(asdict(made), indent=1) + "\n")
    return made


def _squeezed(raw: Path, target: Path, start: int, size: int) -> Piece:
    digest = hashlib.sha256()
    with (
        raw.open("rb") as disk,
        target.open("wb") as out,
        gzip.GzipFile("", "wb", fileobj=out, mtime=0) as packed,
    ):
        disk.seek(start)
        for piece in _pieces(disk, size):
            digest.update(piece)
            packed.write(piece)
    return Piece(target.name, start, size, digest.hexdigest())


def _pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    """`size` octets of a file; raises IpshareError if it ends before."""
    while size:
        piece = file.read(min(BLOCK, size))
        if not piece:
            raise IpshareError(
                "the installation medium ends early", hint="write it again, compare SHA256SUMS"
            )
        size -= len(piece)
        yield piece


def read(place: Path = PLACE) -> Medium:
    """What the medium at `place` has. Raises Refused where there is none, or one of another layout."""
    try:
        found = json.loads((place / "disk.json").read_text())
        found["pieces"] = tuple(Piece(**piece) for piece in found["pieces"])
        medium = Medium(**found)
    except FileNotFoundError:
        raise Refused(
            "this machine was not started from an installation medium", hint="start it from ipshare's ISO"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"{place}/disk.json cannot be read: {error}", hint="write the medium again") from error
    if medium.number != layout.NUMBER:
        raise Refused(f"the medium is of layout {medium.number}", hint="start from it, and install there")
    if not _is_on_its_disk(medium):
        raise Refused(f"{place}/disk.json: a piece lies on no disk", hint="write the medium again")
    return medium


def _is_on_its_disk(medium: Medium) -> bool:
    try:
        size = medium.disk.size
        return all(0 <= piece.start <= piece.start + piece.size <= size for piece in medium.pieces)
    except TypeError:  # a number is none
        return False


def install(medium: Medium, place: Path, target: Path, say: Callable[[str], None]) -> None:
    """Makes `target`, a disk or a file, a disk of the appliance. What it had is lost. Raises before it boots
    if what was read back is not what the medium has."""
    code = (place / SECTOR).read_bytes()
    if len(code) != CODE:
        raise Refused(f"{place / SECTOR} has {len(code)} octets", hint="write the medium again")
    # O_EXCL: the kernel refuses a disk of which anything is mounted, or held by a volume manager.
    is_block = stat.S_ISBLK(target.stat().st_mode)
    try:
        descriptor = os.open(target, os.O_RDWR | (os.O_EXCL if is_block else 0))
    except OSError as error:
        raise Refused(f"{target}: {error.strerror}", hint="nothing was written") from error
    with open(descriptor, "r+b", buffering=0) as disk:
        end = disk.seek(0, os.SEEK_END)
        for at in (0, end - layout.MIB):  # both copies of its table
            disk.seek(at)
            _all(disk, bytes(layout.MIB))
        os.fsync(disk.fileno())
        for piece in medium.pieces:
            say(f"{piece.file}: {piece.size >> 20:,} MiB at {piece.start >> 20:,} MiB")
            _write(disk, place / piece.file, piece)
        say("written; reading it back")
        os.fsync(disk.fileno())
        os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read from the disk, not from memory
        for piece in medium.pieces:
            _verify(disk, piece)
    still = [] if is_block else ["--no-reread", "--no-tell-kernel"]
    tools.run(
        ["sfdisk", "--quiet", "--wipe", "never", "--wipe-partitions", "never", *still, str(target)],
        text=layout.sfdisk(medium.disk),
    )
    _verify_table(target, medium.disk)
    with target.open("r+b", buffering=0) as disk:
        _all(disk, code)
        os.fsync(disk.fileno())
        os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        disk.seek(0)
        if disk.read(CODE) != code:
            raise IpshareError("the boot code is not on the disk as it was written", hint="the disk is bad")


def _write(disk: IO[bytes], source: Path, piece: Piece) -> None:
    digest = hashlib.sha256()
    disk.seek(piece.start)
    try:
        with source.open("rb") as plain:
            is_packed = source.suffix == ".gz"
            file = cast(IO[bytes], gzip.GzipFile(fileobj=plain)) if is_packed else plain
            for part in _pieces(file, piece.size):
                digest.update(part)
                _all(disk, part)
    except (OSError, EOFError) as error:
        raise IpshareError(
            f"{piece.file}: {error}", hint="the disk has no table and does not boot"
        ) from error
    if digest.hexdigest() != piece.sha256:
        raise IpshareError(
            f"{piece.file} of the medium is not what was built",
            hint="write the medium again, compare SHA256SUMS",
        )


def _verify(disk: IO[bytes], piece: Piece) -> None:
    digest = hashlib.sha256()
    disk.seek(piece.start)
    for part in _pieces(disk, piece.size):
        digest.update(part)
    if digest.hexdigest() != piece.sha256:
        raise IpshareError(
            f"what was read back of {piece.file} is not what was written",
            hint="the disk is bad; it has no table and does not boot",
        )


def _verify_table(target: Path, plan: layout.Disk) -> None:
    table = json.loads(tools.run(["sfdisk", "--json", str(target)]))["partitiontable"]
    found = [(p["start"], p["size"], p["name"], p["uuid"].lower()) for p in table["partitions"]]
    wanted = [
        (p.start // layout.SECTOR, p.size // layout.SECTOR, p.label, layout.identity(p.label))
        for p in plan.partitions
    ]
    if found != wanted:
        raise IpshareError("the partition table is not on the disk as it was written", hint="the disk is bad")


def _all(disk: IO[bytes], piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[disk.write(view) :]
