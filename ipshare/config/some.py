"""Some tables of a file, whatever else it holds: for files that several parts of ipshare read.

As ipshare.config.site, each table is judged alone and every mistake is reported with its line; tables that
were not asked for are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ipshare.config.keys import KeyPath
from ipshare.config.read import Document, read
from ipshare.config.site import _table
from ipshare.config.values import Table, Unreadable
from ipshare.errors import ConfigError

T = TypeVar("T", bound=Table)
Finding = tuple[KeyPath, str, str]
"""Key path, message, hint."""


def document_of(path: Path) -> Document:
    """The file and what it includes; mistakes are in its `problems`.

    Raises ConfigError if there is nothing in it to judge: no such file, no TOML.
    """
    document = read(path)
    if not document.data:
        done(document)
    return document


def one(document: Document, kind: str, model: type[T]) -> T | None:
    """The table [kind], None if there is none (or it is none at all)."""
    data = document.data.get(kind)
    if data is None:
        return None
    if not isinstance(data, dict):
        document.problems.append(document.problem((kind,), f"{kind} must be a table", f"write [{kind}]"))
        return None
    return _table(document, (kind,), model, data)


def every(document: Document, kind: str, model: type[T]) -> list[T]:
    """All tables [[kind]]."""
    data = document.data.get(kind, [])
    if not isinstance(data, list) or not all(isinstance(element, dict) for element in data):
        hint = f"write [[{kind}]] with two brackets"
        document.problems.append(document.problem((kind,), f"{kind} must be an array of tables", hint))
        return []
    return [_table(document, (kind, index), model, element) for index, element in enumerate(data)]


def twice(tables: Iterable[Table], what: str) -> Iterator[Finding]:
    """Names that two tables have."""
    seen: set[str] = set()
    for table in tables:
        if "name" not in table._broken:
            name: str = table.name  # type: ignore[attr-defined]
            if name in seen:
                yield (*table._path, "name"), f"two {what} have the name {name!r}", "give one another name"
            seen.add(name)


def note(document: Document, findings: Iterable[Finding]) -> None:
    """Takes over findings, until one would need a value that was refused already."""
    try:
        for path, message, hint in findings:
            document.problems.append(document.problem(path, message, hint))
    except Unreadable:
        return


def done(document: Document) -> None:
    """Raises ConfigError if there is any mistake."""
    if document.problems:
        found = sorted(document.problems, key=lambda problem: (problem.file, problem.line, problem.column))
        raise ConfigError(found, document.warnings)
