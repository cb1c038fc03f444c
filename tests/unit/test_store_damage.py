"""A director's store with real damage: an error with the path and what to do, and the file is as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ipshare.director.store import Kept, Revision, SqliteStore
from ipshare.director.topology import Topology
from ipshare.errors import IpshareError

PAGE = 4096
TOPOLOGY = Topology({"network": [{"name": "web" * 999, "prefix": "203.0.113.0/24"}]})


def filled(folder: Path) -> SqliteStore:
    """Of several dozen pages, with all of it in the write-ahead log still."""
    store = SqliteStore(folder)
    term = store.begin()
    for number in range(1, 30):
        made = Revision(number, term, "me", "why", "2026-11-28T00:00:00.000+00:00", TOPOLOGY)
        store.add(made, {"a1": Kept((number, 1), frozenset([number]))})
    return store


def header(raw: bytearray) -> None:
    raw[:32] = b"\xff" * 32


def in_pages(raw: bytearray) -> None:
    for at in range(PAGE, len(raw), PAGE):
        raw[at : at + 64] = b"\xa5" * 64


def cut(raw: bytearray) -> None:
    del raw[len(raw) // 2 + 100 :]


def nothing_but_a_header(raw: bytearray) -> None:
    del raw[100:]


@pytest.mark.parametrize("damage", [header, in_pages, cut, nothing_but_a_header])
def test_a_damaged_store_is_refused_and_kept(tmp_path: Path, damage: Callable[[bytearray], None]) -> None:
    filled(tmp_path).close()
    path = tmp_path / "director.db"
    raw = bytearray(path.read_bytes())
    damage(raw)
    path.write_bytes(raw)
    for _ in range(2):  # the lock is free again
        with pytest.raises(IpshareError, match=f"{path} is damaged") as caught:
            SqliteStore(tmp_path)
        assert "--least-term" in caught.value.hint
    assert path.read_bytes() == raw


def test_what_is_damaged_while_it_is_open_or_in_its_text_is_said(tmp_path: Path) -> None:
    filled(tmp_path).close()
    path = tmp_path / "director.db"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'{"network"', b'{"nXXXXXX '))
    store = SqliteStore(tmp_path)
    for ask in (store.latest, lambda: store.revision(3), lambda: store.history(5)):
        with pytest.raises(IpshareError, match=f"{path} is damaged"):
            ask()
    store.close()
    path.write_bytes(raw)
    store = SqliteStore(tmp_path)
    worse = bytearray(raw)
    in_pages(worse)
    path.write_bytes(worse)
    for look in (store.latest, lambda: store.revision(3), store.facts, lambda: store.outcomes(1)):
        with pytest.raises(IpshareError, match=f"{path} is damaged"):
            look()
    with pytest.raises(IpshareError, match=f"{path} is damaged"):
        store.notes("")
    with pytest.raises(IpshareError, match=f"{path} is damaged"):
        store.begin()
    store.close()


def test_a_write_ahead_log_that_is_cut_ends_with_what_was_whole(tmp_path: Path) -> None:
    """As after a loss of power on a disk that lies: earlier revisions, and never half of one."""
    store = filled(tmp_path / "own")
    log = (tmp_path / "own" / "director.db-wal").read_bytes()
    numbers = []
    for part in range(1, 9):
        copy = tmp_path / str(part)
        copy.mkdir()
        shutil.copy(tmp_path / "own" / "director.db", copy)
        (copy / "director.db-wal").write_bytes(log[: len(log) * part // 8])
        there = SqliteStore(copy)
        found = there.history(100)
        assert all(one.topology == TOPOLOGY for one in found)
        assert [one.number for one in found] == list(range(len(found), 0, -1))
        numbers.append(len(found))
        there.close()
    store.close()
    assert numbers == sorted(numbers) and numbers[-1] == 29 > numbers[0]
