"""Files -> one document: reads the main file and its includes, merges them, remembers every place.

Merge rules: tables merge key by key, arrays of tables append (the including file's first, then the included
files' in the order of `include`, globs sorted by name); anything else that two files set is an error that
names both places. A file is read once; a cycle, a second inclusion and a missing file are errors.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipshare.config.keys import KeyPath, render, scan
from ipshare.errors import Problem
from ipshare.model import Place

_MAGIC = re.compile(r"[*?\[]")
MOST_BYTES = 64 << 20
"""Of one file. Bindings in such numbers belong in a bindings file; and a device may never end."""
MOST_NESTED = 32
"""Levels of arrays and tables, of files that include files: far more than a site needs, and far fewer than
Python's stack holds."""


@dataclass
class Document:
    """The merged data, where each key path of it was written, the files in reading order, what went wrong."""

    main: Path
    data: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """Of `path`, or of the nearest table or array around it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return Place(self.main)

    def problem(self, path: KeyPath, message: str, hint: str) -> Problem:
        place = self.place(path)
        return Problem(str(place.file), place.line, place.column, render(path), message, hint)


@dataclass
class _File:
    path: Path
    data: dict[str, Any]
    places: dict[KeyPath, Place]


def read(path: Path) -> Document:
    """The document of the file at `path` and of all that it includes. Mistakes are in its `problems`."""
    document = Document(path)
    _read(document, path, text_of(document, path, Place(path), ""), ())
    return document


def read_text(text: str, name: Path) -> Document:
    """The same for a text that is in memory; `name` is its file's name, includes are relative to that."""
    document = Document(name)
    _read(document, name, text, ())
    return document


def add(document: Document, path: Path, text: str) -> None:
    """One more file, with ``text`` in it, as if the main file included it."""
    _read(document, path, text, (_resolved(document.main),))


def text_of(document: Document, path: Path, asked_at: Place, key: str) -> str | None:
    """Of a file; None: it has none, which is a problem at ``asked_at``."""

    def refuse(message: str, hint: str, line: int = 0) -> None:
        where = Place(path, line, 1) if line else asked_at
        document.problems.append(Problem(str(where.file), where.line, where.column, key, message, hint))

    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        refuse(f"no such file: {path}", "check the name; includes are relative to the file that names them")
        return None
    except OSError as error:
        refuse(f"cannot read {path}: {error.strerror}", "it has to be a file that this user may read")
        return None
    if len(raw) > MOST_BYTES:
        refuse(
            f"{path} is longer than {MOST_BYTES >> 20} MiB", "put bindings in bulk into a [[bindings_file]]"
        )
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(
            f"not UTF-8: byte 0x{raw[error.start]:02x}",
            "TOML is UTF-8: save the file so",
            raw.count(b"\n", 0, error.start) + 1,
        )
        return None


def _read(document: Document, path: Path, text: str | None, parents: tuple[Path, ...]) -> None:
    document.files.append(path)
    if text is None:
        return
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        document.problems.append(_syntax(path, text, error))
        return
    except (RecursionError, ValueError) as error:  # ValueError: an integer of thousands of digits
        document.problems.append(_unreadable(path, str(error).partition(";")[0].lower()))
        return
    if _is_deep(data):
        document.problems.append(
            _unreadable(path, f"more than {MOST_NESTED} arrays and tables in each other")
        )
        return
    places = {key: Place(path, *position) for key, position in scan(text).items()}
    includes = data.pop("include", []) if parents else data.get("include", [])
    _merge(document, _File(path, data, places), document.data, data, (), ())
    for index, pattern in enumerate(includes if isinstance(includes, list) else [includes]):
        at = places.get(("include", index)) or places[("include",)]
        if isinstance(pattern, str) and pattern:
            _include(document, path, pattern, at, f"include[{index}]", (*parents, _resolved(path)))
        elif parents:  # the main file's own list is judged by the schema
            document.problems.append(
                Problem(
                    str(path),
                    at.line,
                    at.column,
                    f"include[{index}]",
                    f"not a file name: {pattern!r}",
                    'write include = ["site.d/*.toml"]',
                )
            )


def _is_deep(data: dict[str, Any]) -> bool:
    level: list[Any] = [data]
    for _ in range(MOST_NESTED):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
    return bool(level)


def _unreadable(path: Path, why: str) -> Problem:
    return Problem(
        str(path), 0, 0, "", f"not a configuration: {why}", "nothing that is configured needs that"
    )


def _resolved(path: Path) -> Path:
    """Through its links; a path whose links lead in a circle is itself, and is refused when it is read."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _syntax(path: Path, text: str, error: tomllib.TOMLDecodeError) -> Problem:
    match = re.search(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error), re.DOTALL)
    message = match[1] if match else str(error)
    line, column = (int(match[2]), int(match[3])) if match and match[2] else (text.count("\n") + 1, 1)
    return Problem(
        str(path),
        line,
        column,
        "",
        f"not TOML: {message}",
        "look at this line and the one before: strings need quotes, tables are written [name] or [[name]]",
    )


def _include(
    document: Document, parent: Path, pattern: str, at: Place, key: str, chain: tuple[Path, ...]
) -> None:
    names = [parent.parent / pattern]
    if _MAGIC.search(pattern):
        relative = Path(pattern)
        root = Path(relative.anchor) if relative.is_absolute() else parent.parent
        try:
            names = sorted(p for p in root.glob(str(relative.relative_to(relative.anchor))) if p.is_file())
        except (ValueError, NotImplementedError) as error:
            document.problems.append(
                Problem(
                    str(at.file),
                    at.line,
                    at.column,
                    key,
                    f"bad glob {pattern!r}: {error}",
                    "** has to stand alone between slashes",
                )
            )
            return
        if not names:
            document.warnings.append(
                Problem(
                    str(at.file),
                    at.line,
                    at.column,
                    key,
                    f"no file matches {pattern!r}",
                    f"looked in {parent.parent}",
                )
            )
    for name in names:
        again = _resolved(name)
        if len(chain) > MOST_NESTED:
            document.problems.append(
                Problem(
                    str(at.file),
                    at.line,
                    at.column,
                    key,
                    f"included through {MOST_NESTED} other files",
                    "include it from the main file",
                )
            )
        elif again in chain:
            message = (
                f"{name} includes itself" if again == chain[-1] else f"{name} is included by what it includes"
            )
            document.problems.append(
                Problem(
                    str(at.file),
                    at.line,
                    at.column,
                    key,
                    message,
                    "break the cycle: an included file must not include its includer",
                )
            )
        elif again in map(_resolved, document.files):
            document.problems.append(
                Problem(
                    str(at.file),
                    at.line,
                    at.column,
                    key,
                    f"{name} is included twice",
                    "name it once; a glob may match it already",
                )
            )
        else:
            _read(document, name, text_of(document, name, at, key), chain)


def _merge(
    document: Document, source: _File, into: dict[str, Any], data: dict[str, Any], old: KeyPath, new: KeyPath
) -> None:
    """Adds `data` (at path `old` in its file) to the table `into` (at path `new` in the document)."""
    for key, value in data.items():
        here, there = (*old, key), (*new, key)
        if key not in into:
            into[key] = value
            _graft(document, source, value, here, there)
        elif isinstance(value, dict) and isinstance(into[key], dict):
            _merge(document, source, into[key], value, here, there)
        elif _is_array_of_tables(value) and _is_array_of_tables(into[key]):
            first = len(into[key])
            into[key].extend(value)
            for index, element in enumerate(value):
                _graft(document, source, element, (*here, index), (*there, first + index))
        else:
            at, before = source.places[here], document.place(there)
            document.problems.append(
                Problem(
                    str(at.file),
                    at.line,
                    at.column,
                    render(there),
                    f"set twice: already set at {before}",
                    "leave it in one of the files",
                )
            )


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(element, dict) for element in value)


def _graft(document: Document, source: _File, value: Any, old: KeyPath, new: KeyPath) -> None:
    """Takes over the places of `value` and of everything in it."""
    document.places[new] = source.places[old]
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        _graft(document, source, child, (*old, key), (*new, key))
