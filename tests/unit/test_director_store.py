"""A director's store: what is in it outlives everything, and one director at a time writes. One contract for
both kinds of store; the one in etcd is on a real etcd."""

from __future__ import annotations

import itertools
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipshare.director.etcd import Etcd
from ipshare.director.store import SCHEMA, TABLES, Kept, Revision, SqliteStore, Store
from ipshare.director.topology import Topology
from ipshare.errors import IpshareError, Refused
from tests.etcd_world import EtcdServer, Successor
from tests.remote_world import host

TOPOLOGY = Topology({"network": [{"name": "web", "prefix": "203.0.113.0/24"}]})
Open = Callable[[], Store]
FOLDERS = itertools.count()


def revision(number: int, term: int = 1, topology: Topology = TOPOLOGY) -> Revision:
    return Revision(number, term, "me", "why", "2026-11-28T00:00:00.000+00:00", topology, (number - 1,))


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    server = EtcdServer(host(200))
    try:
        yield server.start()
    finally:
        server.end()


@pytest.fixture(params=["sqlite", "etcd"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """What opens the same store again and again, each time as another process would."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "s")
    server, prefix = request.getfixturevalue("etcd"), f"/test/{next(FOLDERS)}"
    return lambda: Successor(Etcd([server.url], 30.0), prefix, chunk=4096).store


def test_what_was_written_is_there_again(opened: Open) -> None:
    store = opened()
    assert store.latest() is None
    assert store.begin() == 1
    store.add(revision(1), {"c1": Kept((0, 1), frozenset([1]))})
    store.keep(1, {"c1": Kept((1, 1), frozenset([1]))}, {(1, "c1", "acked"): "", (1, "a1", "refused"): "no"})
    store.keep(1, {}, {(1, "a1", "refused"): "again", (1, "a1", "acked"): ""})
    store.close()
    store = opened()
    assert store.begin() == 2
    assert store.latest() == store.revision(1) == revision(1)
    assert store.revision(2) is None
    assert store.facts() == {"c1": Kept((1, 1), frozenset([1]))}
    said = [(one.node, one.outcome, one.detail) for one in store.outcomes(1)]
    assert sorted(said) == [("a1", "acked", ""), ("a1", "refused", "no"), ("c1", "acked", "")]
    assert store.outcomes(2) == []
    store.close()


def test_history_is_the_newest_first_and_facts_are_kept_for_each_node(opened: Open) -> None:
    store = opened()
    assert (store.history(5), store.facts()) == ([], {})
    store.begin()
    for number in range(1, 13):
        store.add(revision(number), {f"c{number}": Kept((number, 0), frozenset([number, 7]))})
    assert store.history(5) == [revision(number) for number in range(12, 7, -1)]
    assert len(store.history(100)) == 12
    store.keep(1, {"c3": Kept((12, 1), frozenset())}, {(3, "c3", "acked"): "", (12, "c3", "acked"): "x"})
    assert store.facts()["c3"] == Kept((12, 1), frozenset())
    assert store.facts()["c4"] == Kept((4, 0), frozenset([4, 7]))
    assert [one.detail for one in store.outcomes(12)] == ["x"]
    store.close()


def test_a_term_that_is_over_writes_nothing(opened: Open) -> None:
    store = opened()
    store.begin()
    assert store.begin(least=9) == 9
    with pytest.raises(Refused, match="term 1 is over"):
        store.add(revision(1, term=1), {})
    with pytest.raises(Refused, match="term 1 is over"):
        store.keep(1, {"c1": Kept()}, {})
    with pytest.raises(Refused, match="term 1 is over"):
        store.keep(1, {}, {})  # a director that gives leases asks so whether it still counts
    store.keep(9, {}, {})
    assert (store.latest(), store.facts()) == (None, {})
    assert store.begin(least=3) == 10
    store.close()


def test_revisions_have_no_gap_and_are_never_replaced(opened: Open) -> None:
    store = opened()
    store.begin()
    store.add(revision(1), {})
    for number in (1, 3):
        with pytest.raises(Refused, match="revision 1 came meanwhile"):
            store.add(revision(number), {"c1": Kept((7, 1))})
    assert store.facts() == {}, "all of it, or nothing"
    assert store.history(9) == [revision(1)]
    store.close()


def test_a_topology_of_many_bindings_is_one_revision(opened: Open) -> None:
    rows = [{"global": f"10.{n >> 8}.{n & 255}.0/24", "to": "A" * (n % 97)} for n in range(5000)]
    big = revision(1, topology=Topology({"binding": rows}))
    store = opened()
    store.begin()
    store.add(big, {})
    assert store.latest() == big
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
    with pytest.raises(IpshareError, match="no director's store"):
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


def test_notes_are_kept_replaced_and_removed(opened: Open) -> None:
    store = opened()
    store.begin()
    for key, text in (("b/2", "x"), ("b/1", "y"), ("b%", "z"), ("a", "w"), ("b/2", "new"), ("b/3", "gone")):
        store.put_note(1, key, text)
    store.put_note(1, "b/3", "")
    store.put_note(1, "b/4", "")
    assert store.notes("b/") == {"b/1": "y", "b/2": "new"}
    store.begin()
    with pytest.raises(Refused, match="term 1 is over"):
        store.put_note(1, "b/1", "")
    store.close()
    store = opened()
    assert list(store.notes("")) == ["a", "b%", "b/1", "b/2"]
    store.close()


def test_a_store_of_the_first_version_goes_on(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "director.db") as db:
        db.executescript(f"{TABLES} PRAGMA user_version = 1;")
        db.execute("INSERT INTO meta VALUES ('term', 6)")
    for term in (7, 8):
        store = SqliteStore(tmp_path)
        assert store.begin() == term
        store.put_note(term, str(term), "x")
        store.close()
    store = SqliteStore(tmp_path)
    assert store.notes("") == {"7": "x", "8": "x"}
    store.close()
