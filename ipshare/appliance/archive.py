"""archive: Debian's root and ours as one tar stream, and the small cpio archive that the initrd begins with.

Nothing is unpacked: members of the base go through with their owners, modes and extended attributes, ours
come after them and in their place. So neither root nor a mount is needed, and times are what they are told to
be.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

DROPPED = (
    "./boot/",
    "./var/cache/apt/",
    "./var/lib/apt/lists/",
    "./usr/share/doc-base/",
    "./var/log/",
    "./dev/",
)
FORGOTTEN = (
    "./etc/ssh/ssh_host_",
    "./etc/machine-id",
    "./etc/hostname",
    "./etc/resolv.conf",
    "./vmlinuz",
    "./initrd.img",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file (`data`), a symbolic link (`link`) or a directory (neither) of the image. The path is absolute;
    root owns it."""

    path: str
    data: bytes | None = None
    mode: int = 0o644
    link: str = ""


def is_kept(name: str) -> bool:
    return not name.startswith(DROPPED + FORGOTTEN)


def _members(base: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with tarfile.open(fileobj=base, mode="r|") as archive:
        for member in archive:
            yield archive, member


def merged(base: IO[bytes], entries: Iterable[Entry], epoch: int, target: IO[bytes]) -> dict[str, bytes]:
    """Writes the tar of the image to `target`. Returns the files of the base's /boot, and its dpkg status, by
    name."""
    ours = {entry.path: entry for entry in entries}
    taken: dict[str, bytes] = {}
    seen = set()
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as out:
        for archive, member in _members(base):
            name = "./" + member.name.removeprefix("./")
            path = name[1:]
            member.mtime = min(int(member.mtime), epoch)
            exact = ("mtime", "atime", "ctime")  # they would be written in place of the one above
            member.pax_headers = {k: v for k, v in member.pax_headers.items() if k not in exact}
            if member.isfile() and (path.startswith("/boot/") or path == "/var/lib/dpkg/status"):
                content = archive.extractfile(member)
                assert content is not None
                taken[path] = content.read()
                if path == "/var/lib/dpkg/status":
                    out.addfile(member, io.BytesIO(taken[path]))
                continue
            if not is_kept(name + ("/" if member.isdir() else "")) and name + "/" not in DROPPED:
                continue
            if path in ours and not (member.isdir() and ours[path].data is None and not ours[path].link):
                continue
            seen.add(path.rstrip("/"))
            out.addfile(member, archive.extractfile(member) if member.isfile() else None)
        for path in sorted(ours):
            for parent in _parents(path):
                if parent not in seen and parent not in ours:
                    seen.add(parent)
                    _add(out, Entry(parent, mode=0o755), epoch)
            if path not in seen:
                _add(out, ours[path], epoch)
    return taken


def _parents(path: str) -> list[str]:
    parts = path.strip("/").split("/")[:-1]
    return ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]


def _add(out: tarfile.TarFile, entry: Entry, epoch: int) -> None:
    member = tarfile.TarInfo("." + entry.path)
    member.mtime, member.mode, member.uname, member.gname = epoch, entry.mode, "root", "root"
    if entry.link:
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.link, 0o777
    elif entry.data is None:
        member.type = tarfile.DIRTYPE
    else:
        member.size = len(entry.data)
    out.addfile(member, io.BytesIO(entry.data) if entry.data is not None and not entry.link else None)


def cpio(entries: Iterable[Entry]) -> bytes:
    """An uncompressed newc archive, padded so that another one may follow (the kernel unpacks one after the
    other)."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", b"", 0)], 1):
        name = entry.path.strip("/").encode() + b"\0"
        kind = 0o040000 if entry.data is None else 0o100000
        mode = 0 if entry.path == "TRAILER!!!" else kind | entry.mode
        fields = (number, mode, 0, 0, 1, 0, len(entry.data or b""), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4) + (entry.data or b"")
        out += b"\0" * (-len(out) % 4)
    return bytes(out) + b"\0" * (-len(out) % 512)
