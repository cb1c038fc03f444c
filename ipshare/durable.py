"""durable: files that are whole whatever happens: written aside, on the disk, renamed, and so is the name.

``stamp`` tells whether a file is another one, or says something else, than when it was looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

Stamp = tuple[int, int, int]
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def write(path: Path, content: bytes, mode: int) -> None:
    """A reader finds the old file or the new one, also after a loss of power once this has returned. Nobody
    ever reads more of it than ``mode`` allows; it has that mode whatever the umask is. Raises OSError."""
    aside = path.with_name(f".{path.name}.new")
    try:
        fd = os.open(aside, NEW, mode)
    except FileExistsError:  # of who died here
        aside.unlink(missing_ok=True)
        fd = os.open(aside, NEW, mode)
    try:
        _put(fd, content, mode)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def put(path: Path, content: bytes, mode: int) -> None:
    """To where somebody said: a file, new or not, is written as `write` does, where a link leads to; anything
    else (a pipe, a disk) is written to. Raises OSError that names ``path``."""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            write(path.resolve(), content, mode)
    except OSError as error:
        error.filename = str(path)
        raise


def _put(fd: int, content: bytes, mode: int) -> None:
    """All of it is on the disk, and ``fd`` closed. Without a file object, which asks the system much more."""
    try:
        os.fchmod(fd, mode)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def link(path: Path, other: Path) -> None:
    """What ``path`` is now, ``other`` is as well: nothing is written twice, and a later `write` to either
    leaves the other as it is. Raises OSError."""
    aside = other.with_name(f".{other.name}.new")
    try:
        aside.hardlink_to(path)
    except FileExistsError:  # of who died here
        aside.unlink(missing_ok=True)
        aside.hardlink_to(path)
    aside.replace(other)
    sync(other.parent)


def sync(folder: Path) -> None:
    """The names in it, too, are on the disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def stamp(path: Path) -> Stamp:
    """Another one after each change, also of who may read it; zeros: there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_ctime_ns, found.st_ino, found.st_size
