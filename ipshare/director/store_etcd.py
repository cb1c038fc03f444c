"""store_etcd: a director's memory in etcd, for several directors of which one leads (ipshare.director.seat).

    PREFIX/leader            who leads (seat)           PREFIX/schema    version of all this
    PREFIX/term              the newest term            PREFIX/facts     node -> what it has and may have
    PREFIX/revisions/N       the one small key that makes revision N count; PREFIX/text/N/ID/I: its topology
    PREFIX/outcomes/N        node -> outcome -> when, detail
    PREFIX/notes/KEY         what other parts of a director have to remember

A write is one transaction that claims the term. A topology may be longer than a request to etcd may be: its
text (compressed) is written in chunks first, each claiming that N does not count yet, and N last, with a
digest of it all. What was interrupted before that is nobody's, and goes with the next revision. A request
that nobody answered is sent again: either it was carried out, and that is seen, or it is now.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import zlib
from collections.abc import Mapping
from typing import Any

from ipshare.director.etcd import Entry, Etcd, Op, Unheard, absent, after, equal, present, put, remove, same
from ipshare.director.store import Kept, Outcome, Overtaken, Revision, now_text
from ipshare.director.topology import Topology
from ipshare.errors import IpshareError, Refused

SCHEMA = 1
CHUNK = 512 * 1024
"""Bytes; etcd takes requests of 1.5 MiB."""
TRIES = 3
REMEMBERED = 32
"""Topologies that were read; a revision is never changed."""


class EtcdStore:
    """Below ``prefix``. ``mark``: what the leader's key says while this process leads."""

    def __init__(self, etcd: Etcd, prefix: str, mark: bytes, chunk: int = CHUNK) -> None:
        self._etcd, self._prefix, self._mark, self._chunk = etcd, prefix, mark, chunk
        self._leader, self._term = key(prefix, "leader"), key(prefix, "term")
        self._facts = key(prefix, "facts")
        self._read: dict[str, Topology] = {}  # by digest

    def close(self) -> None:
        self._etcd.close()

    def begin(self, least: int = 0) -> int:
        schema = key(self._prefix, "schema")
        for _ in range(TRIES):
            held, leader, version = self._etcd.look(self._term, self._leader, schema)
            _check_schema(version)
            if leader.value != self._mark:
                raise Overtaken(f"{who(leader.value)} leads", hint="one director leads at a time")
            term = max(number_in(held) + 1, least)
            claims = [same(self._term, held), equal(self._leader, self._mark), same(schema, version)]
            ops = [put(self._term, str(term).encode()), put(schema, str(SCHEMA).encode())]
            if self._etcd.transact(claims, ops)[0]:
                return term
        raise IpshareError("no term could be begun: others write the same keys of etcd", hint="look at them")

    def latest(self) -> Revision | None:
        return next(iter(self.history(1)), None)

    def revision(self, number: int) -> Revision | None:
        [found] = self._etcd.look(self._number("revisions", number))
        return self._whole(found) if found.revision else None

    def history(self, limit: int) -> list[Revision]:
        return [self._whole(found) for found in self._etcd.newest(key(self._prefix, "revisions/"), limit)]

    def outcomes(self, number: int) -> list[Outcome]:
        [found] = self._etcd.look(self._number("outcomes", number))
        rows = [
            Outcome(node, time, outcome, detail)
            for node, outcomes in _unpacked(found).items()
            for outcome, (time, detail) in outcomes.items()
        ]
        return sorted(rows, key=lambda one: (one.time, one.node))

    def facts(self) -> dict[str, Kept]:
        [found] = self._etcd.look(self._facts)
        return {node: Kept((has[0], has[1]), frozenset(may)) for node, (has, may) in _unpacked(found).items()}

    def add(self, revision: Revision, facts: Mapping[str, Kept]) -> None:
        text = _packed(revision.topology.tables)
        chunks = [text[at : at + self._chunk] for at in range(0, len(text), self._chunk)]
        commit = self._number("revisions", revision.number)
        fence = [self._in_term(revision.term), absent(commit)]
        if revision.number > 1:
            fence.append(present(self._number("revisions", revision.number - 1)))
        row = {
            "number": revision.number, "term": revision.term, "who": revision.who, "why": revision.why,
            "time": revision.time, "bases": revision.bases, "chunks": len(chunks), "digest": _digest(text),
            "id": secrets.token_hex(8),
        }  # fmt: skip
        for index, chunk in enumerate(chunks):
            if not self._etcd.transact(fence, [put(self._part(row, index), chunk)])[0]:
                self._refuse(revision)
        self._commit(revision, fence, json.dumps(row).encode(), facts)

    def keep(
        self, term: int, facts: Mapping[str, Kept], outcomes: Mapping[tuple[int, str, str], str]
    ) -> None:
        names = [self._number("outcomes", number) for number in sorted({one[0] for one in outcomes})]
        for _ in range(TRIES):
            known, *before = self._etcd.look(self._facts, *names)
            claims, ops = self._merged(known, facts)
            for name, entry in zip(names, before, strict=True):
                said = _unpacked(entry)
                for (number, node, outcome), detail in outcomes.items():
                    if name == self._number("outcomes", number):
                        said.setdefault(node, {}).setdefault(outcome, [now_text(), detail])
                claims, ops = [*claims, same(name, entry)], [*ops, put(name, _packed(said))]
            if self._etcd.transact([self._in_term(term), *claims], ops)[0]:
                return
            self._check(term)
        raise IpshareError("what is known could not be kept: others write the same keys of etcd")

    def put_note(self, term: int, key: str, text: str) -> None:
        name = self._note(key)
        op = put(name, zlib.compress(text.encode())) if text else remove(name)
        if not self._etcd.transact([self._in_term(term)], [op])[0]:
            self._check(term)
            raise IpshareError(f"the note {key!r} could not be kept: others write the same keys of etcd")

    def notes(self, prefix: str) -> dict[str, str]:
        found = {}
        for name, entry in self._etcd.below(self._note(prefix)):
            try:
                found[name.removeprefix(self._note(""))] = zlib.decompress(entry.value).decode()
            except (zlib.error, UnicodeDecodeError):
                hint = "who else writes there?"
                raise IpshareError(f"{name} in etcd is no director's", hint=hint) from None
        return found

    # ---- inside ---------------------------------------------------------------

    def _note(self, name: str) -> str:
        return key(self._prefix, f"notes/{name}")

    def _commit(self, revision: Revision, fence: list[Op], row: bytes, facts: Mapping[str, Kept]) -> None:
        """``row`` counts from now on; parts that no revision has go."""
        name, own = self._number("revisions", revision.number), json.loads(row)
        first, behind = self._part(own, 0), self._part(own, own["chunks"])
        left = [remove(self._number("text", revision.number), first)]
        left.append(remove(behind, after(key(self._prefix, "text/"))))
        failed: Unheard | None = None
        for _ in range(TRIES):
            try:
                known, there = self._etcd.look(self._facts, name)
                if there.value == row:
                    return  # it was carried out, and not answered
                claims, ops = self._merged(known, facts)
                if self._etcd.transact([*fence, *claims], [put(name, row), *ops, *left])[0]:
                    return
                failed = None
            except Unheard as error:
                failed = error
        if failed is not None:
            raise Unheard(
                f"it is not known whether revision {revision.number} was written: {failed.message}",
                hint="the director finds out when etcd answers: ipshare director history",
            )
        self._refuse(revision)

    def _merged(self, known: Entry, facts: Mapping[str, Kept]) -> tuple[list[Op], list[Op]]:
        rows = _unpacked(known) | {node: [kept.has, sorted(kept.may)] for node, kept in facts.items()}
        return [same(self._facts, known)], [put(self._facts, _packed(rows))]

    def _refuse(self, revision: Revision) -> None:
        """A fence was shut: says which."""
        self._check(revision.term)
        found = self._etcd.newest(key(self._prefix, "revisions/"), 1)
        last = commit_in(found[0])["number"] if found else 0
        raise Refused(f"revision {last} came meanwhile", hint="look at it, then apply again")

    def _check(self, term: int) -> None:
        [held] = self._etcd.look(self._term)
        if held.value != str(term).encode():
            later = held.value.decode() or "0"
            raise Overtaken(f"term {term} is over: a director of term {later} has begun")

    def _whole(self, found: Entry) -> Revision:
        row = commit_in(found)
        number, digest = row["number"], row["digest"]
        if (topology := self._read.get(digest)) is None:
            parts = [self._etcd.look(self._part(row, index))[0].value for index in range(row["chunks"])]
            if _digest(text := b"".join(parts)) != digest:
                raise IpshareError(
                    f"the text of revision {number} in etcd is not what was written",
                    hint="who else writes there? restore etcd from a snapshot",
                )
            topology = Topology(json.loads(zlib.decompress(text)))
            if len(self._read) >= REMEMBERED:
                self._read.pop(next(iter(self._read)))
            self._read[digest] = topology
        words = (row["term"], row["who"], row["why"], row["time"])
        return Revision(number, *words, topology, tuple(row["bases"]))

    def _in_term(self, term: int) -> Op:
        return equal(self._term, str(term).encode())

    def _number(self, folder: str, number: int) -> str:
        return key(self._prefix, f"{folder}/{number:010}")

    def _part(self, row: Mapping[str, Any], index: int) -> str:
        """Each attempt has names of its own: one that comes late overwrites nothing."""
        return f"{self._number('text', row['number'])}/{row['id']}/{index:06}"


def key(prefix: str, name: str) -> str:
    return f"{prefix.rstrip('/')}/{name}"


def who(mark: bytes) -> str:
    """For people, of what the leader's key says: "d1 at host"."""
    name, _, rest = mark.decode(errors="replace").partition(" ")
    return f"{name} at {rest.partition(' ')[0]}" if name else "nobody"


def number_in(found: Entry) -> int:
    """Of the term's key."""
    try:
        return int(found.value or 0)
    except ValueError:
        raise IpshareError(f"the term in etcd is {found.value!r}", hint="who else writes there?") from None


def commit_in(found: Entry) -> dict[str, Any]:
    """The row that makes a revision count."""
    try:
        row: dict[str, Any] = json.loads(found.value)
        return row | {"number": int(row["number"])}
    except (ValueError, KeyError, TypeError):
        raise IpshareError(
            f"a revision in etcd is {found.value[:80]!r}", hint="who else writes there?"
        ) from None


def _check_schema(version: Entry) -> None:
    if version.revision and version.value != str(SCHEMA).encode():
        said = version.value.decode(errors="replace")
        raise Refused(
            f"the store in etcd is of version {said}, this director knows {SCHEMA}",
            hint="start the director that made it",
        )


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value).encode())


def _unpacked(found: Entry) -> dict[str, Any]:
    try:
        rows: dict[str, Any] = json.loads(zlib.decompress(found.value)) if found.revision else {}
    except (ValueError, zlib.error):
        raise IpshareError("what etcd has is no director's", hint="who else writes there?") from None
    return rows


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
