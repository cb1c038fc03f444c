"""Bindings in bulk: a file -> BindingSet, a million rows without an object each; and the difference of two
sets.

bulk_read finds the cells, bulk_text parses the addresses, here they become rows. A row that the fast way does
not take is given to the same pydantic model that judges a [[binding]], which also words its mistakes. What
rows mean among networks and end points is bulk_check's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from ipshare.config import schema, units
from ipshare.config.bulk_read import MOST_PROBLEMS, Columns, capped, read_columns
from ipshare.config.bulk_text import Bytes, Cells, Prefixes, prefixes, words
from ipshare.config.site import explain_row
from ipshare.errors import ConfigError, Problem
from ipshare.model import (
    BINDING_ROW,
    NO_NAME,
    TRACKINGS,
    BindingKind,
    BindingSet,
    host_prefix,
    packed,
    unpacked,
)

Rows = npt.NDArray[Any]

_FLAGS = {"": False, "false": False, "no": False, "0": False, "true": True, "yes": True, "1": True}
TRACK, OBSERVE = ("off", "always"), ("inbound", "both")
"""What may be in these columns; an empty cell is the first one."""
_TARGET_HINT = 'fill exactly one of the columns to, policy, here ("true") and down ("true")'


@dataclass(frozen=True, slots=True)
class Parsed:
    """A BindingSet in the order of its file, the lengths of the local prefixes (0: none), and what was
    wrong.
    """

    bindings: BindingSet
    local_len: Bytes
    problems: list[Problem]


@dataclass(frozen=True, slots=True)
class BindingsDiff:
    """What it takes to get from one set to another. Rows keep the numbering of the set that they are from:
    removed and before of the old one, added and after of the new one. before[i] and after[i] have one
    prefix."""

    old: BindingSet
    new: BindingSet
    added: Rows
    removed: Rows
    before: Rows
    after: Rows

    def __bool__(self) -> bool:
        return bool(len(self.added) or len(self.removed) or len(self.before))


def import_bindings(path: Path | str) -> BindingSet:
    """The rows of a CSV or JSON file, sorted; locals as written (kind ENDPOINT throughout).

    Raises ConfigError with the mistakes of all rows (the first hundred, and how many more).
    """
    try:
        parsed = parse(read_columns(Path(path)))
    except OSError as error:
        raise ConfigError([unreadable(Path(path), error)]) from None
    rows = parsed.bindings.rows[sort_order(parsed.bindings.rows)]
    problems = parsed.problems + duplicates(rows, Path(path))
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: problem.line))
    return BindingSet(rows, parsed.bindings.targets, parsed.bindings.copies, parsed.bindings.files)


def unreadable(path: Path, error: OSError) -> Problem:
    hint = "a bindings file is named relative to the file that names it"
    return Problem(str(path), 0, 0, "", f"cannot read {path}: {error.strerror}", hint)


def parse(columns: Columns) -> Parsed:
    """Columns -> rows. Rows with mistakes are left out and reported."""
    n = len(columns)
    rows = np.zeros(n, BINDING_ROW)
    rows["line"] = columns.line
    prefix, local = _judged(columns.cells["global"]), _judged(columns.cells["local"])
    rows["global"], rows["family"], rows["prefix_len"] = prefix.address, prefix.family, prefix.prefix_len
    rows["local"], rows["local_family"] = local.address, local.family
    bad = (prefix.family == 0) | ((local.family == 0) & ~columns.cells["local"].is_empty)
    to, policy = (_names(columns.cells[name]) for name in ("to", "policy"))
    targets = tuple(dict.fromkeys([*to.names, *policy.names]))
    rows["target"] = np.where(to.code != NO_NAME, to.among(targets), policy.among(targets))
    copies = _names(columns.cells["copy"])
    rows["copy"] = copies.among(tuple(copies.names))
    count = (to.code != NO_NAME).astype(np.uint8) + (policy.code != NO_NAME)
    rows["kind"] = np.where(to.code != NO_NAME, BindingKind.ENDPOINT, BindingKind.POLICY)
    for name, kind in (("here", BindingKind.HERE), ("down", BindingKind.DOWN)):
        is_set, is_bad = _flags(columns.cells[name])
        rows["kind"][is_set] = kind
        count += is_set
        bad |= is_bad
    track, observe = (
        _choice(columns.cells[name], known) for name, known in (("track", TRACK), ("observe", OBSERVE))
    )
    rows["tracking"] = np.where(track[0] == 1, 1 + observe[0], 0)
    bad |= track[1] | observe[1] | ((track[0] != 1) & ~columns.cells["observe"].is_empty)
    bad |= to.is_bad | policy.is_bad | copies.is_bad | (count != 1)
    bad |= (local.family != 0) & (to.code == NO_NAME)
    problems = list(_explained(columns, np.flatnonzero(bad)))
    good = ~bad
    found = BindingSet(rows[good], targets, tuple(copies.names), (columns.path,))
    return Parsed(found, local.prefix_len[good], columns.problems + problems)


def _judged(cells: Cells) -> Prefixes:
    """Parsed the fast way, and where that did not do, by units.prefix."""
    out = prefixes(cells)
    for row in np.flatnonzero((out.family == 0) & ~cells.is_empty):
        try:
            value = units.prefix(cells.one(int(row)))
        except units.Invalid:
            continue
        out.address[row] = np.frombuffer(packed(value.network_address), np.uint8)
        out.family[row], out.prefix_len[row] = value.version, value.prefixlen
    return out


@dataclass(frozen=True, slots=True)
class _Names:
    names: list[str]
    code: npt.NDArray[np.uint32]
    is_bad: npt.NDArray[np.bool_]

    def among(self, names: tuple[str, ...]) -> npt.NDArray[np.uint32]:
        """The codes, renumbered to places in `names`."""
        table = np.array([names.index(name) for name in self.names] + [NO_NAME], np.uint32)
        return table[np.where(self.code == NO_NAME, len(self.names), self.code)]


def _names(cells: Cells) -> _Names:
    found, code = words(cells)
    good = [text for text in found if text and _is_name(text)]
    table = np.array([good.index(text) if text in good else NO_NAME for text in found], np.uint32)
    bad = np.array([bool(text) and text not in good for text in found], np.bool_)
    return _Names(good, table[code], bad[code])


def _is_name(text: str) -> bool:
    try:
        units.name(text)
    except units.Invalid:
        return False
    return True


def _flags(cells: Cells) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(true, neither true nor false) for each cell."""
    found, code = words(cells)
    is_set = np.array([_FLAGS.get(text.lower(), False) for text in found], np.bool_)
    is_bad = np.array([text.lower() not in _FLAGS for text in found], np.bool_)
    return is_set[code], is_bad[code]


def _choice(cells: Cells, known: tuple[str, ...]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """(place among ``known``, none of them) for each cell."""
    found, code = words(cells)
    place = np.array([known.index(text) if text in known else 0 for text in found], np.uint8)
    is_bad = np.array([text not in ("", *known) for text in found], np.bool_)
    return place[code], is_bad[code]


def _explained(columns: Columns, bad: npt.NDArray[np.int64]) -> Iterator[Problem]:
    problems: list[Problem] = []
    for row in bad[:MOST_PROBLEMS]:
        cells = {name: cells.one(int(row)) for name, cells in columns.cells.items()}
        problems += _row_problems(columns.path, int(columns.line[row]), cells)
    yield from capped(problems, len(problems) + max(0, len(bad) - MOST_PROBLEMS))


def _row_problems(path: Path, line: int, cells: dict[str, str]) -> Iterator[Problem]:
    """The mistakes of one row, as the model of a [[binding]] sees them."""
    data: dict[str, Any] = {name: text for name, text in cells.items() if text}
    for name in ("here", "down"):
        if name in data:
            data[name] = _FLAGS.get(data[name].lower(), data[name])
    try:
        binding = schema.Binding.model_validate(data)
    except ValidationError as error:
        for key, message, hint in explain_row(schema.Binding, error):
            yield Problem(str(path), line, 0, key, message, hint)
        return
    given = [name for name in ("to", "policy", "here", "down") if getattr(binding, name)]
    if len(given) != 1:
        message = f"{' and '.join(given)} exclude each other" if given else "this binding leads nowhere"
        yield Problem(str(path), line, 0, "", message, _TARGET_HINT)
    if binding.local is not None and not binding.to:
        hint = (
            "a policy uses the same offset at every member; here and down translate nothing: leave it empty"
        )
        yield Problem(str(path), line, 0, "local", "local goes only together with `to`", hint)
    if cells["observe"] and binding.track == "off":
        hint = "write always in the column track, or leave it empty"
        yield Problem(str(path), line, 0, "observe", "observe goes only together with track", hint)


def sort_order(rows: Rows) -> npt.NDArray[np.int64]:
    """Indexes that sort rows by (family, global, prefix_len); equal ones stay in order."""
    high, low = (np.ascontiguousarray(rows["global"][:, i : i + 8]).view(">u8").reshape(-1) for i in (0, 8))
    return np.lexsort((rows["prefix_len"], low, high, rows["family"])).astype(np.int64)


def keys(rows: Rows) -> npt.NDArray[np.bytes_]:
    """(n,) family, global, prefix_len in 18 bytes that compare like the rows' order."""
    flat = np.empty((len(rows), 18), np.uint8)
    flat[:, 0], flat[:, 1:17], flat[:, 17] = rows["family"], rows["global"], rows["prefix_len"]
    return flat.view("S18").reshape(-1)


def prefix_of(row: Any) -> str:
    """The global prefix of one row, as text."""
    return f"{unpacked(row['global'].tobytes(), int(row['family']))}/{row['prefix_len']}"


def duplicates(rows: Rows, path: Path) -> list[Problem]:
    """Equal prefixes in sorted rows of one file."""
    key = keys(rows)
    again = np.flatnonzero(key[1:] == key[:-1]) + 1
    problems = []
    for i in again[:MOST_PROBLEMS]:
        message = f"{prefix_of(rows[i])} is bound a second time: first in line {rows[i - 1]['line']}"
        problems.append(Problem(str(path), int(rows[i]["line"]), 0, "global", message, "leave one of them"))
    return capped(problems, len(again))


def diff_bindings(old: BindingSet, new: BindingSet) -> BindingsDiff:
    """Which prefixes are added, removed, or lead somewhere else. Lines and files do not count."""
    old_keys, new_keys = keys(old.rows), keys(new.rows)
    _, in_old, in_new = np.intersect1d(old_keys, new_keys, assume_unique=True, return_indices=True)
    differs = _meaning(old, old, new)[in_old] != _meaning(new, old, new)[in_new]
    return BindingsDiff(
        old,
        new,
        added=new.rows[np.setdiff1d(np.arange(len(new)), in_new, assume_unique=True)],
        removed=old.rows[np.setdiff1d(np.arange(len(old)), in_old, assume_unique=True)],
        before=old.rows[in_old[differs]],
        after=new.rows[in_new[differs]],
    )


def _meaning(which: BindingSet, old: BindingSet, new: BindingSet) -> npt.NDArray[np.bytes_]:
    """(n,) what a row leads to, with names numbered alike for both sets."""
    flat = np.empty((len(which), 28), np.uint8)
    rows = which.rows
    flat[:, 26] = rows["tracking"]
    flat[:, :16], flat[:, 16], flat[:, 17] = rows["local"], rows["local_family"], rows["kind"]
    for at, column, names in ((18, "target", "targets"), (22, "copy", "copies")):
        both = list(dict.fromkeys([*getattr(old, names), *getattr(new, names)]))
        table = np.array([both.index(name) for name in getattr(which, names)] + [NO_NAME], ">u4")
        place = np.where(rows[column] == NO_NAME, len(table) - 1, rows[column])
        flat[:, at : at + 4] = table[place].view(np.uint8).reshape(-1, 4)
    flat[:, 27] = 1  # NumPy strips zero bytes from the end of a string
    return flat.view("S28").reshape(-1)


def render_diff(diff: BindingsDiff, most: int = 20) -> str:
    """For people: a line of counts, then at most `most` changes."""
    lines = [f"{len(diff.added)} added, {len(diff.removed)} removed, {len(diff.before)} changed"]
    changes = [f"- {_row_text(diff.old, row)}" for row in diff.removed[:most]]
    changes += [f"+ {_row_text(diff.new, row)}" for row in diff.added[:most]]
    for before, after in zip(diff.before[:most], diff.after[:most], strict=True):
        changes.append(f"~ {_row_text(diff.old, before)}  =>  {_row_text(diff.new, after).split(' ', 1)[1]}")
    lines += changes[:most]
    rest = len(diff.added) + len(diff.removed) + len(diff.before) - len(changes[:most])
    return "\n".join(lines + ([f"... and {rest} more"] if rest else []))


def _row_text(bindings: BindingSet, row: Any) -> str:
    kind = BindingKind(int(row["kind"]))
    target = bindings.targets[row["target"]] if row["target"] != NO_NAME else kind.name.lower()
    text = f"{prefix_of(row)} -> {'policy ' if kind is BindingKind.POLICY else ''}{target}"
    if row["local_family"]:
        text += f" {host_prefix(unpacked(row['local'].tobytes(), int(row['local_family']))).network_address}"
    text += f" copy {bindings.copies[row['copy']]}" if row["copy"] != NO_NAME else ""
    return text + (f" track {TRACKINGS[row['tracking']].value}" if row["tracking"] else "")
