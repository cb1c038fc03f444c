"""stats: VPP's counters as NumPy arrays, read from its shared stats segment without asking VPP.

stats socket -> descriptor of the segment -> mapped read-only -> directory by name -> vectors. VPP changes the
directory under a lock that readers see as (in_progress, epoch): what was read counts only if neither moved
meanwhile, or if the vectors still lie where they did. The numbers themselves move while one looks. Layout:
segment version 2 of VPP 26.06 (vlib/stats/shared.h); nothing in the segment is followed outside of it.
"""

from __future__ import annotations

import array
import mmap
import os
import socket as sockets
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ipshare.engine.failures import EngineGone, EngineSilent
from ipshare.errors import EngineError

U64 = npt.NDArray[np.uint64]
T = TypeVar("T")

VERSION = 2
WORD = 8
HEADER_WORDS = 5
"""version, base, epoch, in_progress, directory: 64 bits each."""
ENTRY = np.dtype([("type", "<u4"), ("pad", "<u4"), ("value", "<u8"), ("name", "S128")])
COUNTER = np.dtype([("packets", "<u8"), ("bytes", "<u8")])
SCALAR, SIMPLE, COMBINED, NAMES, SYMLINK, GAUGE = 1, 2, 3, 4, 6, 9
CONNECT_TIMEOUT_S = 5.0
LOCKED_S = 2.0
"""VPP holds the lock for microseconds; one that died with it holds it for ever."""


class _Moved(Exception):
    """The directory changed while it was read: read again."""


class Segment:
    """The stats segment of one VPP process, ``pid``; once that is gone the numbers stand still. Not
    thread-safe."""

    def __init__(self, socket: Path | str, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Raises ``EngineGone``, ``EngineSilent``, ``EngineError`` (a segment of another version)."""
        self._memory, self.pid = _mapped(Path(socket), timeout_s)
        self.size = len(self._memory)
        self._head = np.frombuffer(self._memory, "<u8", HEADER_WORDS)
        if int(self._head[0]) != VERSION:
            raise EngineError(
                f"VPP's stats segment is of version {int(self._head[0])}, this reads version {VERSION}",
                hint="use VPP 26.06",
            )
        self._base = int(self._head[1])
        self._known: tuple[int, npt.NDArray[Any]] = (-1, np.zeros(0, ENTRY))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forgets the mapping; it goes when the last array made of it does."""
        self._head = np.zeros(HEADER_WORDS, "<u8")
        self._known = (-1, np.zeros(0, ENTRY))
        del self._memory

    def names(self, prefix: str = "") -> list[str]:
        """The names of all counters that begin with ``prefix``, sorted."""
        entries = self._steady(self._directory)
        found = (name.decode(errors="replace") for name in entries["name"][entries["type"] != 0].tolist())
        return sorted(name for name in found if name.startswith(prefix))

    def scalar(self, name: str) -> int:
        """A scalar or gauge, such as "/sys/num_worker_threads". Raises ``EngineError``: there is none."""
        entry = self._steady(lambda: self._entry(name, SCALAR, GAUGE))
        return int(entry["value"])

    def simple(self, name: str) -> U64:
        """A simple counter, copied: shape (threads, n). ``/err/...``: one column."""
        rows = self._steady(lambda: [row.copy() for row in self._rows(name, np.dtype("<u8"), SIMPLE)])
        return _stacked(rows)

    def combined(self, name: str, count: int | None = None) -> tuple[U64, U64]:
        """The first ``count`` (None: all) of a combined counter, summed over threads: (packets, bytes), each
        of shape (count,).

        A million counters of three threads take some 20 ms; a directory that changes meanwhile costs nothing
        where the counters did not move.
        """
        while True:
            rows, places = self._steady(lambda: self._placed(name))
            width = max((len(row[:count]) for row in rows), default=0)
            packets, size = np.zeros(width, np.uint64), np.zeros(width, np.uint64)
            for row in (row[:count] for row in rows):
                packets[: len(row)] += row["packets"]
                size[: len(row)] += row["bytes"]
            if self._steady(lambda: self._placed(name)[1]) == places:
                return packets, size

    # ---- the segment ---------------------------------------------------------

    def _steady(self, look: Callable[[], T]) -> T:
        """What ``look`` sees of a directory that nobody changes meanwhile."""
        deadline = time.monotonic() + LOCKED_S
        while time.monotonic() < deadline:
            epoch = int(self._head[2])
            if self._head[3]:
                time.sleep(0.0001)  # no event tells of its end
                continue
            try:
                seen = look()
            except _Moved:
                if int(self._head[2]) == epoch and not self._head[3]:
                    raise EngineError("VPP's stats segment points outside of itself") from None
                continue
            if int(self._head[2]) == epoch and not self._head[3]:
                return seen
        raise EngineSilent("VPP's stats segment is locked", hint="did VPP die? restart it")

    def _directory(self) -> npt.NDArray[Any]:
        epoch = int(self._head[2])
        if self._known[0] != epoch:
            self._known = (epoch, self._vector(int(self._head[4]), ENTRY).copy())
        return self._known[1]

    def _entry(self, name: str, *kinds: int) -> Any:
        entries = self._directory()
        at = np.flatnonzero(entries["name"] == name.encode())
        if not len(at):
            raise EngineError(f"VPP has no counter {name}", hint="is the plugin that it is of enabled?")
        if int(entries[at[0]]["type"]) not in kinds:
            raise EngineError(f"VPP's counter {name} is of another kind ({int(entries[at[0]]['type'])})")
        return self._vector(int(self._head[4]), ENTRY)[at[0]]  # a scalar's value is here, and goes on

    def _rows(self, name: str, layout: np.dtype[Any], kind: int) -> list[npt.NDArray[Any]]:
        return [self._vector(pointer, layout) for pointer in self._pointers(name, kind).tolist()]

    def _pointers(self, name: str, kind: int) -> U64:
        return self._vector(int(self._entry(name, kind)["value"]), np.dtype("<u8"))

    def _placed(self, name: str) -> tuple[list[npt.NDArray[Any]], list[tuple[int, int]]]:
        """Live views of the vectors of each thread, and where VPP has them: (pointer, length)."""
        rows = self._rows(name, COUNTER, COMBINED)
        pointers = self._pointers(name, COMBINED).tolist()
        return rows, [(pointer, len(row)) for pointer, row in zip(pointers, rows, strict=True)]

    def _vector(self, pointer: int, layout: np.dtype[Any]) -> npt.NDArray[Any]:
        """A vector of VPP's: its length lies in the 32 bits that begin 8 bytes before it. 0: empty."""
        if pointer == 0:
            return np.zeros(0, layout)
        at = pointer - self._base
        if not HEADER_WORDS * WORD + WORD <= at <= self.size:
            raise _Moved
        count = int(np.frombuffer(self._memory, "<u4", 1, at - WORD)[0])
        if count * layout.itemsize > self.size - at:
            raise _Moved
        return np.frombuffer(self._memory, layout, count, at) if count else np.zeros(0, layout)


def _stacked(rows: list[U64]) -> U64:
    out = np.zeros((len(rows), max((len(row) for row in rows), default=0)), np.uint64)
    for to, row in zip(out, rows, strict=True):
        to[: len(row)] = row
    return out


def _mapped(path: Path, timeout_s: float) -> tuple[mmap.mmap, int]:
    """The segment, and whose it is."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_SEQPACKET) as peer:
        peer.settimeout(timeout_s)
        try:
            peer.connect(str(path))
            fd = _received(peer)
            pid, _, _ = struct.unpack("3i", peer.getsockopt(sockets.SOL_SOCKET, sockets.SO_PEERCRED, 12))
        except (TimeoutError, BlockingIOError) as error:  # the latter: too many wait there
            raise EngineSilent(f"VPP hands out no stats segment on {path}", hint="is it stopped?") from error
        except OSError as error:
            why = error.strerror or str(error)
            raise EngineGone(
                f"no VPP answers on {path}: {why}",
                hint="start it first; statseg { socket-name ... } in startup.conf says where",
            ) from error
    try:
        return mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ), pid
    except (OSError, ValueError) as error:
        raise EngineError(f"VPP's stats segment cannot be mapped: {error}") from error
    finally:
        os.close(fd)


def _received(peer: sockets.socket) -> int:
    """The descriptor that VPP sends. Raises ``OSError``: it sends none."""
    _, ancillary, _, _ = peer.recvmsg(
        1, sockets.CMSG_SPACE(array.array("i").itemsize), sockets.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in ancillary:
        if level == sockets.SOL_SOCKET and kind == sockets.SCM_RIGHTS:
            return int(array.array("i", data[:4])[0])
    raise ConnectionError("it sent no descriptor")
