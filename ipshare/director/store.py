"""store: what a director remembers: its term, every revision, and what nodes may have; in SQLite (WAL).

One file, `state_dir`/director.db, and a lock beside it: one director at a time. A term is one start. Each
write names the term that it belongs to and is refused when a later one has begun. A revision is never changed
or removed. Everything is on the disk when a call returns (synchronous = FULL). ``SCHEMA`` is the version of
the tables: a store of a later one is refused, not guessed at. So is one that is damaged: it is looked through
before it is opened for writing, and stays as it is. Blocking; calls come from one thread.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ipshare.director.topology import Topology
from ipshare.errors import IpshareError, NoPrivilege, Refused

T = TypeVar("T")
SCHEMA = 2
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE revisions (
    number INTEGER PRIMARY KEY, term INTEGER NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL,
    time TEXT NOT NULL, topology TEXT NOT NULL, bases TEXT NOT NULL);
CREATE TABLE facts (node TEXT PRIMARY KEY, has TEXT NOT NULL, may TEXT NOT NULL);
CREATE TABLE outcomes (
    revision INTEGER NOT NULL, node TEXT NOT NULL, time TEXT NOT NULL, outcome TEXT NOT NULL,
    detail TEXT NOT NULL, PRIMARY KEY (revision, node, outcome));
"""
NOTES = "CREATE TABLE notes (key TEXT PRIMARY KEY, text TEXT NOT NULL);"
"""What came with version 2."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of the installation. ``bases``: revisions that distribution points might have had then."""

    number: int
    term: int
    who: str
    why: str
    time: str
    topology: Topology
    bases: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """Of a node: (revision, step) that it had, revisions by which it may send."""

    has: tuple[int, int] = (0, 1)
    may: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a revision at a node. One line for each kind of outcome."""

    node: str
    time: str
    outcome: str
    detail: str


class Overtaken(Refused):
    """Another director leads, or began a term."""


class Store(Protocol):
    """Where a director keeps what must outlive it. Methods raise IpshareError; those that write raise
    Overtaken where ``term`` is not the newest any more."""

    def begin(self, least: int = 0) -> int:
        """A new term, at least ``least``."""

    def latest(self) -> Revision | None:
        """The newest revision."""

    def revision(self, number: int) -> Revision | None:
        """One of them."""

    def history(self, limit: int) -> list[Revision]:
        """The newest first."""

    def outcomes(self, number: int) -> list[Outcome]:
        """Of a revision."""

    def facts(self) -> dict[str, Kept]:
        """Of every node that was ever kept."""

    def add(self, revision: Revision, facts: Mapping[str, Kept]) -> None:
        """The next revision, and what is known then, at once. Raises Refused if it is not the next."""

    def keep(
        self, term: int, facts: Mapping[str, Kept], outcomes: Mapping[tuple[int, str, str], str]
    ) -> None:
        """What is known now. ``outcomes``: (revision, node, outcome) -> detail; the first of a kind stays.
        With nothing to keep it still raises Refused where ``term`` is over (who gives leases asks so)."""

    def put_note(self, term: int, key: str, text: str) -> None:
        """Keeps a text under a name; an empty one removes it."""

    def notes(self, prefix: str) -> dict[str, str]:
        """Texts whose names begin so, in the order of names."""

    def close(self) -> None:
        """Ends it."""


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class SqliteStore:
    """The store in ``folder``. Raises Refused where another director uses it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "director.db"
        self._lock = lock(folder)
        try:
            _look_through(self.path)
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            os.chmod(self.path, 0o600)  # noqa: PTH101
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock)
            raise _unusable(self.path, error) from None
        except IpshareError:
            os.close(self._lock)
            raise

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)

    def begin(self, least: int = 0) -> int:
        with self._change() as db:
            term = max(self._term() + 1, least)
            db.execute("INSERT OR REPLACE INTO meta VALUES ('term', ?)", (term,))
        return term

    def latest(self) -> Revision | None:
        return next(iter(self.history(1)), None)

    def revision(self, number: int) -> Revision | None:
        rows = self._rows("SELECT * FROM revisions WHERE number = ?", number)
        return self._read(_revision, rows)[0] if rows else None

    def history(self, limit: int) -> list[Revision]:
        rows = self._rows("SELECT * FROM revisions ORDER BY number DESC LIMIT ?", limit)
        return self._read(_revision, rows)

    def outcomes(self, number: int) -> list[Outcome]:
        query = "SELECT node, time, outcome, detail FROM outcomes WHERE revision = ? ORDER BY time, node"
        return [Outcome(*row) for row in self._rows(query, number)]

    def facts(self) -> dict[str, Kept]:
        return dict(self._read(_kept, self._rows("SELECT node, has, may FROM facts")))

    def add(self, revision: Revision, facts: Mapping[str, Kept]) -> None:
        with self._change() as db:
            self._check(revision.term)
            last = db.execute("SELECT coalesce(max(number), 0) FROM revisions").fetchone()[0]
            if revision.number != last + 1:
                raise Refused(f"revision {last} came meanwhile", hint="look at it, then apply again")
            content, bases = json.dumps(revision.topology.tables), json.dumps(revision.bases)
            row = (revision.number, revision.term, revision.who, revision.why, revision.time, content, bases)
            db.execute("INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            self._keep(facts)

    def keep(
        self, term: int, facts: Mapping[str, Kept], outcomes: Mapping[tuple[int, str, str], str]
    ) -> None:
        with self._change() as db:
            self._check(term)
            self._keep(facts)
            rows = [(rev, node, now_text(), what, detail) for (rev, node, what), detail in outcomes.items()]
            db.executemany("INSERT OR IGNORE INTO outcomes VALUES (?, ?, ?, ?, ?)", rows)

    def put_note(self, term: int, key: str, text: str) -> None:
        with self._change() as db:
            self._check(term)
            if text:
                db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, text))
            else:
                db.execute("DELETE FROM notes WHERE key = ?", (key,))

    def notes(self, prefix: str) -> dict[str, str]:
        query = "SELECT key, text FROM notes WHERE substr(key, 1, ?) = ? ORDER BY key"
        return dict(self._rows(query, len(prefix), prefix))

    # ---- inside ---------------------------------------------------------------

    def _rows(self, query: str, *words: Any) -> list[Any]:
        try:
            return self._db.execute(query, words).fetchall()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None

    def _read(self, of: Callable[[Any], T], rows: list[Any]) -> list[T]:
        try:
            return [of(row) for row in rows]
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise _unusable(self.path, error) from None

    def _keep(self, facts: Mapping[str, Kept]) -> None:
        rows = [(node, json.dumps(kept.has), json.dumps(sorted(kept.may))) for node, kept in facts.items()]
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)

    def _check(self, term: int) -> None:
        if term != self._term():
            raise Overtaken(f"term {term} is over: a director of term {self._term()} has begun")

    def _term(self) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE key = 'term'").fetchone()
        return int(row[0]) if row else 0

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA:
            return
        if version == 1:
            self._db.executescript(f"BEGIN IMMEDIATE; {NOTES} PRAGMA user_version = {SCHEMA}; COMMIT;")
            return
        if version or self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise Refused(
                f"{self.path} has tables of version {version}, this director knows {SCHEMA}",
                hint="start the director that made it",
            )
        self._db.executescript(f"BEGIN IMMEDIATE; {TABLES} {NOTES} PRAGMA user_version = {SCHEMA}; COMMIT;")

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if _is_damage(error):
                raise _unusable(self.path, error) from None
            raise IpshareError(f"cannot write {self.path}: {error}", hint="is the disk full?") from None


def _look_through(path: Path) -> None:
    """Every page; nothing is written, also not what waits in the write-ahead log. Raises sqlite3.Error."""
    if not path.exists() or not path.stat().st_size:
        return
    looked = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        found = looked.execute("PRAGMA quick_check(1)").fetchone()[0]
    finally:
        looked.close()
    if found != "ok":
        raise sqlite3.DatabaseError(f"it is damaged: {str(found).splitlines()[-1]}")


def _is_damage(error: Exception) -> bool:
    return not isinstance(error, sqlite3.OperationalError | OSError)


def _unusable(path: Path, error: Exception) -> IpshareError:
    """What is wrong with it, and what to do: the file is as it was."""
    if not _is_damage(error):
        return IpshareError(
            f"cannot use {path}: {error}", hint="is it a director's store, and may it be read?"
        )
    return IpshareError(
        f"{path} is damaged, or no director's store: {error}",
        hint=f"it was not repaired. Put back a copy; or move {path.name}* away, and start with --least-term "
        "(docs/director.md, Whose word counts)",
    )


def _kept(row: tuple[str, str, str]) -> tuple[str, Kept]:
    node, has, may = row
    return node, Kept(_pair(has), frozenset(json.loads(may)))


def _revision(row: tuple[int, int, str, str, str, str, str]) -> Revision:
    number, term, who, why, time, topology, bases = row
    return Revision(number, term, who, why, time, Topology(json.loads(topology)), tuple(json.loads(bases)))


def _pair(text: str) -> tuple[int, int]:
    revision, step = json.loads(text)
    return revision, step


def lock(folder: Path) -> int:
    """One director's process on this folder, while the descriptor is open. Raises Refused, NoPrivilege."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoPrivilege(f"may not use {folder}: {error.strerror}", hint="run as root") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise Refused(f"a director runs with the store in {folder}", hint="end it first") from None
    return fd
