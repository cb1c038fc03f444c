"""A director's store: what is in it outlives everything, and one director at a time writes."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ipshare.director.store import SCHEMA, Kept, Revision, SqliteStore
from ipshare.director.topology import Topology
from ipshare.errors import IpshareError, Refused

TOPOLOGY = Topology({"network": [{"name": "web", "prefix": "203.0.113.0/24"}]})


def revision(number: int, term: int = 1) -> Revision:
    return Revision(number, term, "me", "why", "2026-11-28T00:00:00.000+00:00", TOPOLOGY, (number - 1,))


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s")
    assert store.latest() is None
    assert store.begin() == 1
    store.add(revision(1), {"c1": Kept((0, 1), frozenset([1]))})
    store.keep(1, {"c1": Kept((1, 1), frozenset([1]))}, {(1, "c1", "acked"): "", (1, "a1", "refused"): "no"})
    store.keep(1, {}, {(1, "a1", "refused"): "again", (1, "a1", "acked"): ""})
    store.close()
    store = SqliteStore(tmp_path / "s")
    assert store.begin() == 2
    assert store.latest() == store.revision(1) == revision(1)
    assert store.facts() == {"c1": Kept((1, 1), frozenset([1]))}
    said = [(one.node, one.outcome, one.detail) for one in store.outcomes(1)]
    assert sorted(said) == [("a1", "acked", ""), ("a1", "refused", "no"), ("c1", "acked", "")]
    store.close()


def test_a_term_that_is_over_writes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.begin()
    assert store.begin(least=9) == 9
    with pytest.raises(Refused, match="term 1 is over"):
        store.add(revision(1, term=1), {})
    with pytest.raises(Refused, match="term 1 is over"):
        store.keep(1, {"c1": Kept()}, {})
    assert (store.latest(), store.facts()) == (None, {})
    assert store.begin(least=3) == 10
    store.close()


def test_notes_are_put_together_by_the_newest_term_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.begin()
    store.put(1, {"a": "one", "b": "two"})
    store.put(1, {"a": "three", "b": "", "c": ""})
    store.put(1, {})
    store.close()
    store = SqliteStore(tmp_path)
    assert store.notes() == {"a": "three"}
    store.begin()
    for notes in ({}, {"a": "late"}):
        with pytest.raises(Refused, match="term 1 is over"):
            store.put(1, notes)
    assert store.notes() == {"a": "three"}
    store.close()


def test_a_store_from_before_there_were_notes_gets_them(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.begin()
    store.close()
    with sqlite3.connect(tmp_path / "director.db") as db:
        db.execute("DROP TABLE notes")
    db.close()
    store = SqliteStore(tmp_path)
    store.put(1, {"a": "one"})
    assert store.notes() == {"a": "one"}
    store.close()


def test_revisions_have_no_gap_and_are_never_replaced(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.begin()
    store.add(revision(1), {})
    for number in (1, 3):
        with pytest.raises(Refused, match="revision 1 came meanwhile"):
            store.add(revision(number), {"c1": Kept((7, 1))})
    assert store.facts() == {}, "all of it, or nothing"
    store.close()


def test_one_director_at_a_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(Refused, match="a director runs"):
        SqliteStore(tmp_path)
    store.close()
    SqliteStore(tmp_path).close()


def test_it_is_private_and_synchronous(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_store_of_another_version_or_of_others_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "director.db") as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(Refused, match=f"version {SCHEMA + 1}"):
        SqliteStore(tmp_path)
    (tmp_path / "other").mkdir()
    with sqlite3.connect(tmp_path / "other" / "director.db") as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(Refused, match="version 0"):
        SqliteStore(tmp_path / "other")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "director.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(IpshareError, match="cannot use"):
        SqliteStore(tmp_path / "broken")
    SqliteStore(tmp_path / "fresh").close()


def test_a_process_that_is_killed_leaves_what_it_was_told_is_written(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.unit.test_director_store import *;"
        "store = SqliteStore(Path(sys.argv[1])); store.begin(); store.add(revision(1), {});"
        "store._db.execute('BEGIN IMMEDIATE'); store._db.execute('DELETE FROM revisions');"
        "os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, env=dict(os.environ), check=False
    )
    assert done.returncode == -9
    store = SqliteStore(tmp_path)
    assert store.latest() == revision(1)
    store.close()
