"""The epoch file: which counters this node may have used, over restarts and power cuts.

One line: version, node id, counter and a checksum of them. A new value is written aside, synchronised,
renamed over the old one, and the directory is synchronised: after ``reserve`` returns, the counter is on
disk, and at every moment before it the file is the old one or the new one. A file that is damaged is an
error, never a zero: a node that starts over could claim an epoch that its peer has seen.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from ipshare.errors import IpshareError

HIGHEST = 1 << 61


class BadEpochFile(IpshareError):
    """The file exists and is not what ``reserve`` wrote, or belongs to another node."""


class EpochFile:
    """The epoch file of one node. Not for several threads at once."""

    def __init__(self, path: Path, node: int) -> None:
        self.path, self.node = path, node

    def load(self) -> int | None:
        """The highest counter that may have been used; None where there is no file. Raises
        ``BadEpochFile``."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._bad(f"cannot be read: {error.strerror}") from error
        return self._parse(data)

    def reserve(self, counter: int) -> None:
        """Puts ``counter`` on disk. Raises ``ValueError`` if it is lower than what is there, ``OSError`` if
        the disk refuses (the old value is still there then)."""
        old = self.load()
        if not 0 < counter <= HIGHEST or (old is not None and counter < old):
            raise ValueError(f"counter {counter} after {old}")
        aside = self.path.with_name(f"{self.path.name}.new")
        file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            data = self._line(counter)
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
        finally:
            os.close(file)
        aside.replace(self.path)
        self._sync_directory()

    def _sync_directory(self) -> None:
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _line(self, counter: int) -> bytes:
        text = f"ipshare-epoch 1 node {self.node} counter {counter}"
        return f"{text} crc {zlib.crc32(text.encode()):08x}\n".encode()

    def _parse(self, data: bytes) -> int:
        words = data.split()
        if len(words) != 8 or not words[5].isdigit() or len(words[5]) > 20 or not words[3].isdigit():
            raise self._bad("is damaged")
        counter = int(words[5])
        if data == self._line(counter) and counter <= HIGHEST:
            return counter
        whole = data == EpochFile(self.path, int(words[3]))._line(counter) if len(words[3]) < 20 else False
        raise self._bad(f"belongs to node {int(words[3])}" if whole else "is damaged")

    def _bad(self, what: str) -> BadEpochFile:
        return BadEpochFile(
            f"the epoch file {self.path} {what}",
            hint="remove it: the node then asks its peer or the witness for the epoch, or takes it by "
            "the operator's force order where both are gone",
        )
