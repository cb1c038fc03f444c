"""Where each key of a TOML text stands: a scanner for key paths, nothing else.

tomllib gives values without places, and it judges what is valid; this runs only on text that
tomllib has accepted, so it can skip values by their outer form. A path is a tuple of keys and array indexes:
``("endpoint", 0, "path_mtu", "v4")``. The tests hold the set of paths equal to tomllib's for any valid text.
Source: TOML 1.0.0, sections Keys, String, Table, Array of Tables.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Any

KeyPath = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'  # up to two quotes may stand before the closing three
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def scan(text: str) -> dict[KeyPath, tuple[int, int]]:
    """Key path -> (line, column), 1-based, of the first place where it is named. `text` must be valid
    TOML.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return scanner.positions()


def render(path: KeyPath) -> str:
    """The path as people write it: ``endpoint[0].path_mtu``; keys that need quotes get them."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = (
                part
                if _BARE_KEY.fullmatch(part)
                else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            )
            text += f".{name}" if text else name
    return text


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[KeyPath, int] = {}
        self.elements: dict[KeyPath, int] = {}  # array of tables -> how many elements it has so far

    def positions(self) -> dict[KeyPath, tuple[int, int]]:
        starts = [0] + [match.end() for match in re.finditer("\n", self.text)]
        lines = {path: bisect_right(starts, at) for path, at in self.found.items()}
        return {path: (line, self.found[path] - starts[line - 1] + 1) for path, line in lines.items()}

    def document(self) -> None:
        table: KeyPath = ()
        self.skip(_GAP)
        while self.at < len(self.text):
            table = self.header() if self.text[self.at] == "[" else self.pair(table)
            self.skip(_GAP)

    def header(self) -> KeyPath:
        """[a.b] or [[a.b]]; returns the path of the table that it opens."""
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        parts = self.key()
        self.at += 2 if is_array else 1
        path: KeyPath = ()
        for part, at in parts[:-1]:
            path = self.note((*path, part), at)
            if path in self.elements:
                path = (*path, self.elements[path] - 1)
        path = self.note((*path, parts[-1][0]), parts[-1][1])
        if not is_array:
            return path
        index = self.elements.get(path, 0)
        self.elements[path] = index + 1
        return self.note((*path, index), parts[-1][1])

    def pair(self, table: KeyPath) -> KeyPath:
        """key = value, in `table`, which is returned."""
        path = table
        for part, at in self.key():
            path = self.note((*path, part), at)
        self.at += 1  # the equals sign
        self.skip(_BLANK)
        self.value(path)
        return table

    def key(self) -> list[tuple[str, int]]:
        """A key with its dotted parts, each with its position; stops before what follows the blanks."""
        parts: list[tuple[str, int]] = []
        while True:
            self.skip(_BLANK)
            at = self.at
            bare = _BARE_KEY.match(self.text, at)
            if bare:
                self.at = bare.end()
                parts.append((bare[0], at))
            else:
                self.skip(_STRING)
                quoted: dict[str, Any] = tomllib.loads(f"key = {self.text[at : self.at]}")
                parts.append((quoted["key"], at))
            self.skip(_BLANK)
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def value(self, path: KeyPath) -> None:
        if self.text[self.at] == "[":
            self.elements_of(path)
        elif self.text[self.at] == "{":
            self.pairs_of(path)
        elif not self.skip(_STRING):
            self.skip(_SCALAR)

    def elements_of(self, path: KeyPath) -> None:
        """An array of values."""
        self.at += 1
        index = 0
        while self.ahead() != "]":
            self.value(self.note((*path, index), self.at))
            index += 1
            if self.ahead() == ",":
                self.at += 1
        self.at += 1

    def pairs_of(self, path: KeyPath) -> None:
        """An inline table."""
        self.at += 1
        while self.ahead() != "}":
            self.pair(path)
            if self.ahead() == ",":
                self.at += 1
        self.at += 1

    def ahead(self) -> str:
        self.skip(_GAP)
        return self.text[self.at]

    def note(self, path: KeyPath, at: int) -> KeyPath:
        self.found.setdefault(path, at)
        return path

    def skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match is not None
