"""export: a director's file with the topology that is in force, for who wants file and store to agree again.

A text is cut into blocks: the rows ([[workload]] and what belongs to it, with the comment lines directly
above), and all else, which stays as it is to the byte. Each row that differs is changed within its block, by
tomlkit, so that comments and order of keys stay; rows that are gone go, new ones come after the last of their
kind, and where the order is another one the blocks change places. (tomlkit alone would gather rows that other
tables stand between.) Files that are included are dealt with in the same way. What comes out is read again
and compared before anybody gets it. Pure: files come and go as text.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import tomlkit

from ipshare.config.keys import scan
from ipshare.director.render import row_text
from ipshare.director.topology import KINDS, Row, Topology
from ipshare.errors import Refused

Texts = Mapping[str, str]
"""File -> its text, in the order in which they are read."""
HINT = "`ipshare director export --json` has the tables; write them by hand"


@dataclass(slots=True)
class Block:
    """``kind`` of row, "": it is none. ``text`` "": it is gone."""

    kind: str
    text: str


def exported(texts: Texts, topology: Topology) -> dict[str, str]:
    """``texts`` with that topology in them. Raises Refused where they are written in a way that cannot be
    changed so."""
    blocks = {file: list(_blocks(text)) for file, text in texts.items()}
    now, _ = _read(texts)
    for kind in [kind for kind in KINDS if now.get(kind, []) != list(topology.rows(kind))]:
        _settle([(file, one) for file, found in blocks.items() for one in found if one.kind == kind],
                kind, topology.rows(kind), blocks)  # fmt: skip
    made = {file: "".join(block.text for block in found) for file, found in blocks.items()}
    _check(texts, made, topology)
    return made


# ---- blocks -------------------------------------------------------------------


def _blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines(keepends=True)
    starts = [(0, "")]
    inside = ""  # kind of the row that is being read
    for number, names, is_array in _headers(text, lines):
        if len(names) > 1 and names[0] == inside:  # [[policy.members]] belongs to its [[policy]]
            continue
        inside = names[0] if is_array and len(names) == 1 and names[0] in KINDS else ""
        first = number
        while inside and first > starts[-1][0] and lines[first - 1].lstrip().startswith("#"):
            first -= 1
        starts.append((first, inside))
    ends = [start for start, _ in starts[1:]] + [len(lines)]
    for (start, kind), end in zip(starts, ends, strict=True):
        yield Block(kind, "".join(lines[start:end]))


def _headers(text: str, lines: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...], bool]]:
    """(index of the line, names, whether [[...]]) of each table's header."""
    named: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    for path, (line, _column) in scan(text).items():
        named[line - 1].add(tuple(part for part in path if isinstance(part, str)))
    for number in sorted(named):
        header = lines[number].strip()
        if not header.startswith("["):
            continue
        try:
            data: Any = tomllib.loads(header)
        except tomllib.TOMLDecodeError:
            continue  # a line of an array
        names, is_array = [], False
        while data:
            name, data = next(iter(data.items()))
            names.append(name)
            if isinstance(data, list):
                data, is_array = data[0], True
        if tuple(names) in named[number]:
            yield number, tuple(names), is_array


# ---- rows ---------------------------------------------------------------------


def _settle(
    slots: Sequence[tuple[str, Block]], kind: str, rows: Sequence[Row], blocks: dict[str, list[Block]]
) -> None:
    """The rows of a kind are those, in this order."""
    wanted = {_key(kind, row): row for row in rows}
    had: dict[object, Block] = {}
    for _file, block in slots:
        (row,) = tomllib.loads(block.text)[kind]
        had[_key(kind, row)] = Block(kind, block.text)
        block.text = block.text if _key(kind, row) in wanted else ""
    free = [(file, block) for file, block in slots if block.text]
    texts = [_changed(had[key].text, kind, row) if key in had else "\n" + row_text(kind, row)
             for key, row in wanted.items()]  # fmt: skip
    for (_file, block), text in zip(free, texts, strict=False):
        block.text = text
    rest = texts[len(free) :]
    if not rest:
        return
    file, last = slots[-1] if slots else (next(iter(blocks)), None)
    place = blocks[file].index(last) + 1 if last is not None else len(blocks[file])
    before = blocks[file][place - 1]
    if before.text and not before.text.endswith("\n"):
        before.text += "\n"
    blocks[file].insert(place, Block(kind, "".join(rest)))


def _changed(text: str, kind: str, row: Row) -> str:
    document = tomlkit.parse(text)
    table: Any = document[kind][0]
    before = tomllib.loads(text)[kind][0]
    if before == row:
        return text
    for key in before:
        if key not in row:
            del table[key]
    for key, value in row.items():
        if key not in before or before[key] != value:
            table[key] = value
    return tomlkit.dumps(document)


def _key(kind: str, row: Row) -> object:
    return ip_network(row["global"]) if kind == "binding" else row["name"]


# ---- looked at again ------------------------------------------------------------


def _check(before: Texts, after: Texts, topology: Topology) -> None:
    """Raises Refused: it is not what was wanted, whatever the reason."""
    found, rests = _read(after)
    if {kind: list(rows) for kind, rows in topology.tables.items() if rows} != found:
        kinds = [kind for kind in KINDS if found.get(kind, []) != list(topology.rows(kind))]
        text = f"the file's {', '.join(kinds)} cannot be rewritten: rows have to be [[...]] tables"
        raise Refused(text, hint=HINT)
    if rests != _read(before)[1]:
        raise Refused("the file cannot be rewritten without a change of its settings", hint=HINT)


def _read(texts: Texts) -> tuple[dict[str, list[Row]], list[dict[str, Any]]]:
    """Its rows, and what else is in each file. Raises Refused."""
    rows: dict[str, list[Row]] = defaultdict(list)
    rests = []
    for file, text in texts.items():
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise Refused(f"{file} cannot be rewritten: {error}", hint=HINT) from None
        for kind in KINDS:
            if found := data.pop(kind, None):
                rows[kind] += found
        rests.append(data)
    return dict(rows), rests
