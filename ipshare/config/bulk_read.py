"""A bindings file (CSV or JSON) -> columns of cells, with the line of each row.

CSV: UTF-8, a header line with names of [[binding]] keys in any order (`global` is needed), commas, optional
double quotes; blank lines and lines that begin with '#' are skipped. JSON: an array of objects with the
same keys. Mistakes in the file's form are collected, row by row; what the cells say is not judged here.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ipshare.config.bulk_text import Bytes, Cells, Ints
from ipshare.errors import Problem

COLUMNS = ("global", "to", "local", "policy", "here", "down", "copy", "track", "observe")
MOST_PROBLEMS = 100  # of one file; the rest are counted
_NEWLINE, _COMMA, _HASH = (ord(c) for c in "\n,#")


@dataclass
class Columns:
    """Rows of a file: for each of COLUMNS its cells, the line (CSV) or number (JSON) of each row; 1-based."""

    path: Path
    cells: dict[str, Cells]
    line: Ints
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.line)


def read_columns(path: Path) -> Columns:
    """The columns of a file. Raises OSError; everything else is in `problems`."""
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if path.suffix.lower() == ".json":
        return _json(path, raw)
    if path.suffix.lower() == ".csv":
        return _csv(path, raw)
    hint = "name it .csv or .json, according to what is in it"
    return _nothing(path, [Problem(str(path), 0, 0, "", "a bindings file ends in .csv or .json", hint)])


def capped(problems: Sequence[Problem], total: int) -> list[Problem]:
    """At most MOST_PROBLEMS of one file, and a line that counts the rest. total: how many rows have one."""
    shown = list(problems[:MOST_PROBLEMS])
    if total > len(shown) and shown:
        message = f"and {total - len(shown)} more rows with mistakes"
        shown.append(
            Problem(shown[0].file, shown[-1].line, 0, "", message, "correct the first ones, check again")
        )
    return shown


def _nothing(path: Path, problems: list[Problem]) -> Columns:
    return _from_texts(path, {}, 0, problems)


def _csv(path: Path, raw: bytes) -> Columns:
    if b'"' in raw:
        try:
            raw = _unquoted(raw)
        except csv.Error as error:  # a cell of more than 128 KiB: more often than not a quote is missing
            hint = "a quote that is opened has to be closed in its cell"
            return _nothing(path, [Problem(str(path), 0, 0, "", f"not CSV: {error}", hint)])
    text = np.frombuffer(raw + b"\n\n", np.uint8)
    breaks = np.flatnonzero(text == _NEWLINE)
    first, end = _trim(text, np.concatenate([[0], breaks[:-1] + 1]), breaks)
    kept = np.flatnonzero((first < end) & (text[first] != _HASH))
    first, end, line = first[kept], end[kept], kept + 1
    if not len(line):
        return _nothing(path, [Problem(str(path), 1, 0, "", "the header line is missing", _HEADER_HINT)])
    header = [
        name.strip() for name in text[first[0] : end[0]].tobytes().decode("utf-8", "replace").split(",")
    ]
    wrong = _header_problems(path, int(line[0]), header)
    if wrong:
        return _nothing(path, wrong)
    commas = np.flatnonzero(text == _COMMA)
    begins = np.searchsorted(commas, first)
    counts = np.searchsorted(commas, end) - begins
    bad = np.flatnonzero(counts != len(header) - 1)
    hint = f"the header has {len(header)} columns: {','.join(header)}"
    problems = [
        Problem(str(path), int(line[row]), 0, "", f"{counts[row] + 1} cells instead of {len(header)}", hint)
        for row in bad[:MOST_PROBLEMS]
    ]
    good = np.flatnonzero(counts == len(header) - 1)[1:]
    first, end, begins = first[good], end[good], begins[good]
    cells = {}
    for number, name in enumerate(header):
        left = first if number == 0 else commas[begins + number - 1] + 1
        right = end if number == len(header) - 1 else commas[begins + number]
        cells[name] = Cells(text, *_trim(text, left, right))
    nothing = Cells(text, first, first)
    return Columns(
        path, {name: cells.get(name, nothing) for name in COLUMNS}, line[good], capped(problems, len(bad))
    )


_HEADER_HINT = "begin with the line global,to,local (columns: " + ", ".join(COLUMNS) + ")"


def _header_problems(path: Path, line: int, header: list[str]) -> list[Problem]:
    problems = []
    for number, name in enumerate(header):
        if name not in COLUMNS:
            close = difflib.get_close_matches(name, COLUMNS, 1)
            hint = f"did you mean {close[0]!r}?" if close else _HEADER_HINT
            problems.append(Problem(str(path), line, 0, name, f"unknown column {name!r}", hint))
        elif name in header[:number]:
            problems.append(Problem(str(path), line, 0, name, f"column {name!r} twice", "leave one of them"))
    if "global" not in header and not problems:
        problems.append(Problem(str(path), line, 0, "global", "column 'global' is missing", _HEADER_HINT))
    return problems


def _unquoted(raw: bytes) -> bytes:
    """The same lines without quotes. A comma or line break inside a cell becomes '?', which no cell may
    hold.
    """
    rows = csv.reader(io.StringIO(raw.decode("utf-8", "replace"), newline=""), skipinitialspace=True)
    lines: list[str] = []
    for row in rows:
        lines += [""] * (rows.line_num - 1 - len(lines))  # a cell went over several lines: keep the count
        lines.append(",".join(cell.replace(",", "?").replace("\n", "?").replace("\r", "?") for cell in row))
    return "\n".join(lines).encode()


def _trim(text: Bytes, first: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Without blanks and carriage returns around."""
    first, end = first.copy(), end.copy()
    while (blank := (first < end) & np.isin(text[first], (9, 13, 32))).any():
        first += blank
    while (blank := (first < end) & np.isin(text[end - 1], (9, 13, 32))).any():
        end -= blank
    return first, end


def _json(path: Path, raw: bytes) -> Columns:
    try:
        rows = json.loads(raw)
    except json.JSONDecodeError as error:
        hint = "a bindings file in JSON is an array of objects"
        return _nothing(
            path, [Problem(str(path), error.lineno, error.colno, "", f"not JSON: {error.msg}", hint)]
        )
    except UnicodeDecodeError:
        return _nothing(path, [Problem(str(path), 0, 0, "", "not UTF-8", "save the file as UTF-8")])
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        hint = "a bindings file in JSON is an array of objects whose values are texts, true or false"
        return _nothing(path, [Problem(str(path), 0, 0, "", f"{error}".partition(";")[0].lower(), hint)])
    if not isinstance(rows, list):
        hint = 'write [{"global": "198.51.100.7", "to": "A"}]'
        return _nothing(path, [Problem(str(path), 1, 1, "", "not an array of objects", hint)])
    problems = [problem for number, row in enumerate(rows, 1) for problem in _row_problems(path, number, row)]
    texts = {
        name: [_cell(row.get(name)) if isinstance(row, dict) else "" for row in rows] for name in COLUMNS
    }
    wrong = {problem.line for problem in problems}
    columns = _from_texts(path, texts, len(rows), capped(problems, len(wrong)))
    good = np.flatnonzero(~np.isin(columns.line, list(wrong)))
    cells = {name: column[good] for name, column in columns.cells.items()}
    return Columns(path, cells, columns.line[good], columns.problems)


def _row_problems(path: Path, number: int, row: Any) -> list[Problem]:
    if not isinstance(row, dict):
        return [
            Problem(
                str(path), number, 0, "", f"row {number} is no object", 'write {"global": ..., "to": ...}'
            )
        ]
    problems = []
    for key, value in row.items():
        if key not in COLUMNS:
            close = difflib.get_close_matches(key, COLUMNS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(COLUMNS)}"
            problems.append(Problem(str(path), number, 0, key, f"unknown key {key!r} in row {number}", hint))
        elif not isinstance(value, (str, bool, type(None))):
            message = f"{value!r} in row {number} is neither text nor true or false"
            problems.append(
                Problem(str(path), number, 0, key, message, "write addresses and names in quotes")
            )
    return problems


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.strip() if isinstance(value, str) else ""


def _from_texts(path: Path, texts: dict[str, list[str]], n: int, problems: list[Problem]) -> Columns:
    cells = {}
    for name in COLUMNS:
        column = [text.encode("utf-8", "surrogatepass") for text in texts.get(name, [])]
        ends = np.cumsum([len(cell) for cell in column], dtype=np.int64)
        lengths = np.diff(ends, prepend=0)
        cells[name] = Cells(np.frombuffer(b"".join(column) + b"\n", np.uint8), ends - lengths, ends)
    return Columns(path, cells, np.arange(1, n + 1), problems)
