"""The reader of VPP's stats segment, on segments written by hand: sums, locks, changes meanwhile, lies."""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipshare.engine.failures import EngineGone, EngineSilent
from ipshare.engine.vpp import stats
from ipshare.engine.vpp.stats import COMBINED, ENTRY, NAMES, SCALAR, SIMPLE, Segment
from ipshare.errors import EngineError

BASE = 0x7F00_0000_0000
SIZE = 1 << 16


class Written:
    """A segment in a memfd: vectors are laid down one after another, the directory last."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("stats")
        os.ftruncate(self.fd, SIZE)
        self.memory = mmap.mmap(self.fd, SIZE)
        self.at = 64
        self.entries: list[tuple[int, int, str]] = []
        self.header()

    def header(self, *, version: int = 2, epoch: int = 1, in_progress: int = 0, directory: int = 0) -> None:
        struct.pack_into("<5Q", self.memory, 0, version, BASE, epoch, in_progress, directory)

    def vector(self, content: bytes, count: int) -> int:
        """Its address in VPP."""
        self.at += -self.at % 64 + 8
        struct.pack_into("<I", self.memory, self.at - 8, count)
        self.memory[self.at : self.at + len(content)] = content
        self.at += len(content)
        return BASE + self.at - len(content)

    def combined(self, name: str, *threads: list[tuple[int, int]]) -> list[int]:
        rows = [self.vector(struct.pack(f"<{2 * len(t)}Q", *sum(t, ())), len(t)) if t else 0 for t in threads]
        self.entries.append((COMBINED, self.vector(struct.pack(f"<{len(rows)}Q", *rows), len(rows)), name))
        return rows

    def simple(self, name: str, *threads: list[int]) -> None:
        rows = [self.vector(struct.pack(f"<{len(t)}Q", *t), len(t)) for t in threads]
        self.entries.append((SIMPLE, self.vector(struct.pack(f"<{len(rows)}Q", *rows), len(rows)), name))

    def done(self, **header: int) -> Written:
        entries = np.zeros(len(self.entries), ENTRY)
        for row, (kind, value, name) in zip(entries, self.entries, strict=True):
            row["type"], row["value"], row["name"] = kind, value, name.encode()
        self.header(**{"directory": self.vector(entries.tobytes(), len(entries)), **header})
        return self


@contextlib.contextmanager
def served(path: Path, answer: Any) -> Iterator[Path]:
    """A stats socket that gives ``answer`` (a descriptor, or None: hangs up) to each who connects."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        if answer is not None:
                            rights = array.array("i", [answer])
                            peer.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def written() -> Written:
    made = Written()
    made.combined("/ipshare/cells", [(1, 10), (2, 20), (3, 30)], [(100, 1000)], [])
    made.simple("/err/ipshare/x", [5], [7])
    made.entries += [(SCALAR, 42, "/sys/heartbeat"), (NAMES, 0, "/if/names")]
    return made.done()


def opened(tmp_path: Path, segment: Written) -> Segment:
    with served(tmp_path / "s", segment.fd) as path:
        return Segment(path)


def test_threads_are_summed(tmp_path: Path, written: Written) -> None:
    segment = opened(tmp_path, written)
    packets, size = segment.combined("/ipshare/cells")
    assert packets.tolist() == [101, 2, 3] and size.tolist() == [1010, 20, 30]
    assert packets.dtype == size.dtype == np.uint64
    packets, size = segment.combined("/ipshare/cells", 1)
    assert (packets.tolist(), size.tolist()) == ([101], [1010])
    assert segment.combined("/ipshare/cells", 0)[0].shape == (0,)
    assert segment.simple("/err/ipshare/x").tolist() == [[5], [7]]
    assert segment.scalar("/sys/heartbeat") == 42
    assert segment.names("/err") == ["/err/ipshare/x"] and len(segment.names()) == 4


def test_a_scalar_is_that_of_now(tmp_path: Path, written: Written) -> None:
    """Its value is in the directory, which is remembered for the sake of names."""
    segment = opened(tmp_path, written)
    assert segment.scalar("/sys/heartbeat") == 42
    entry = struct.pack("<IIQ", SCALAR, 0, 42)
    struct.pack_into("<Q", written.memory, written.memory.find(entry) + 8, 43)
    assert segment.scalar("/sys/heartbeat") == 43


def test_what_is_read_is_a_copy(tmp_path: Path, written: Written) -> None:
    segment = opened(tmp_path, written)
    simple = segment.simple("/err/ipshare/x")
    rows = written.combined("/more", [(9, 9)])
    struct.pack_into("<Q", written.memory, rows[0] - BASE, 77)
    assert simple.tolist() == [[5], [7]]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda s: s.combined("/none"), "no counter /none"),
        (lambda s: s.combined("/err/ipshare/x"), "of another kind"),
        (lambda s: s.scalar("/ipshare/cells"), "of another kind"),
        (lambda s: s.simple("/if/names"), "of another kind"),
    ],
)
def test_no_such_counter(tmp_path: Path, written: Written, ask: Any, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        ask(opened(tmp_path, written))


def test_a_segment_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="of version 1, this reads version 2"):
        opened(tmp_path, Written().done(version=1))


@pytest.mark.parametrize("place", [8, 40, BASE - 8, BASE, BASE + 47, BASE + SIZE + 1, BASE - SIZE, 2**64 - 8])
@pytest.mark.parametrize("what", ["directory", "threads", "row"])
def test_pointers_lead_nowhere_else(tmp_path: Path, place: int, what: str) -> None:
    made = Written()
    if what == "row":
        made.entries.append((COMBINED, made.vector(struct.pack("<Q", place), 1), "/x"))
    elif what == "threads":
        made.entries.append((COMBINED, place, "/x"))
    made.done(**({"directory": place} if what == "directory" else {}))
    with pytest.raises(EngineError, match="outside of itself"):
        opened(tmp_path, made).combined("/x")


@pytest.mark.parametrize("count", [SIZE, 2**32 - 1])
def test_a_vector_longer_than_the_segment(tmp_path: Path, count: int) -> None:
    made = Written()
    row = made.combined("/x", [(1, 2)])[0]
    struct.pack_into("<I", made.memory, row - BASE - 8, count)
    with pytest.raises(EngineError, match="outside of itself"):
        opened(tmp_path, made.done()).combined("/x")


def test_a_lock_that_is_never_released(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "LOCKED_S", 0.05)
    segment = opened(tmp_path, written)
    struct.pack_into("<Q", written.memory, 24, 1)
    with pytest.raises(EngineSilent, match="locked"):
        segment.combined("/ipshare/cells")
    struct.pack_into("<Q", written.memory, 24, 0)
    assert segment.combined("/ipshare/cells")[0].tolist() == [101, 2, 3]


def move(written: Written, name: str, value: int, epoch: int) -> None:
    """VPP puts the counters elsewhere, with other content."""
    kind = next(entry[0] for entry in written.entries if entry[2] == name)
    written.entries = [entry for entry in written.entries if entry[2] != name]
    if kind == COMBINED:
        written.combined(name, [(value, 1)])
    else:
        written.simple(name, [value])
    written.done(epoch=epoch)


def test_a_directory_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment, calls = opened(tmp_path, written), []
    rows = segment._rows

    def disturbed(*args: Any) -> Any:
        found = rows(*args)
        calls.append(1)
        if len(calls) <= 3:
            move(written, "/err/ipshare/x", 1000 * len(calls), 1 + len(calls))
        return found

    monkeypatch.setattr(segment, "_rows", disturbed)
    assert segment.simple("/err/ipshare/x").tolist() == [[3000]]
    assert len(calls) == 4


@pytest.mark.parametrize(("moves", "wanted"), [(False, [101, 2, 3]), (True, [1000])])
def test_counters_that_move_while_they_are_summed_are_read_where_they_are(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch, moves: bool, wanted: list[int]
) -> None:
    """The old vectors may hold anything by now: what they held is not the answer. A change elsewhere in the
    directory costs no second sum."""
    segment, looks = opened(tmp_path, written), []
    steady = segment._steady

    def disturbed(look: Any) -> Any:
        found = steady(look)
        looks.append(1)
        if len(looks) == 1:
            if moves:
                move(written, "/ipshare/cells", 1000, 2)
            written.done(epoch=3)
        return found

    monkeypatch.setattr(segment, "_steady", disturbed)
    assert segment.combined("/ipshare/cells")[0].tolist() == wanted
    assert len(looks) == (4 if moves else 2)


def test_nobody_hands_out_a_segment(tmp_path: Path) -> None:
    with pytest.raises(EngineGone, match="no VPP answers"):
        Segment(tmp_path / "none")
    with served(tmp_path / "s", None) as path, pytest.raises(EngineGone, match="no descriptor"):
        Segment(path)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        pytest.raises(EngineSilent, match="hands out no stats segment"),
    ):
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        Segment(tmp_path / "silent", timeout_s=0.05)


def test_an_empty_segment(tmp_path: Path) -> None:
    empty = os.memfd_create("stats")
    with served(tmp_path / "s", empty) as path, pytest.raises(EngineError, match="cannot be mapped"):
        Segment(path)


def test_closed(tmp_path: Path, written: Written) -> None:
    with opened(tmp_path, written) as segment:
        kept = segment.combined("/ipshare/cells")[0]
    assert kept.tolist() == [101, 2, 3]
    with pytest.raises(EngineError):
        segment.combined("/ipshare/cells")
