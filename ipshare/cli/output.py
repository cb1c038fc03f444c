"""output: everything that a verb says: text for people or JSON for programs, errors on stderr, progress on
a terminal.

What others wrote (a reason, a node's answer) must not steer the terminal: control characters are escaped.
Colour only on a terminal and never with NO_COLOR (no-color.org). ``--json``: exactly one JSON value on stdout
(``counters --watch`` and ``capture``: one a line), and errors as one JSON object on stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from ipshare.errors import Problem, printable


class UsageProblem(click.ClickException):
    """A command line that cannot be meant, with a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def coloured(stream: Any = None) -> bool:
    return (stream or sys.stdout).isatty() and not os.environ.get("NO_COLOR")


def line(text: str = "", **style: Any) -> None:
    text = printable(text)
    click.echo(click.style(text, **style) if style and coloured() else text)


def emit(value: Any, *, one_line: bool = False) -> None:
    """JSON on stdout."""
    click.echo(json.dumps(value) if one_line else json.dumps(value, indent=2))


def marked(lines: Iterable[str]) -> None:
    """Lines of a plan, coloured by their mark."""
    colours = {"+": "green", "-": "red", "~": "yellow", "!": "magenta"}
    for text in lines:
        colour = colours.get(text[:1])
        line(text, **({"fg": colour} if colour else {}))


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as they need; numbers to the right, with thousands separators."""
    rows = list(rows)
    cells = [[f"{cell:,}" if isinstance(cell, int) else _cell(cell) for cell in row] for row in rows]
    right = [bool(rows) and all(isinstance(row[i], int) for row in rows) for i in range(len(headings))]
    widths = [max(len(text) for text in column) for column in zip(headings, *cells, strict=True)]
    for number, row in enumerate([list(headings), *cells]):
        texts = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right, strict=True)]
        line("  ".join(texts).rstrip(), **({"bold": True} if number == 0 else {}))


def _cell(value: Any) -> str:
    """On one line."""
    return str(value or "-").replace("\n", " ")


def problems(found: Iterable[Problem], *, warning: bool = False) -> None:
    """Problems on stderr, with the word in colour."""
    word, colour = ("warning", "yellow") if warning else ("error", "red")
    for problem in found:
        start = click.style(word, fg=colour) if coloured(sys.stderr) else word
        click.echo(f"{start}: {problem}", err=True)


def fail(message: str, hint: str, code: int, *, as_json: bool, problems: Sequence[Problem] = ()) -> int:
    """One error on stderr; returns ``code``."""
    with contextlib.suppress(BrokenPipeError):
        if as_json:
            record = {"message": message.partition("\n")[0], "hint": hint, "exit_code": code}
            click.echo(json.dumps({"error": record | {"problems": [asdict(p) for p in problems]}}), err=True)
        else:
            start = click.style("error", fg="red", bold=True) if coloured(sys.stderr) else "error"
            said = printable(message) + (f"\n  hint: {printable(hint)}" if hint else "")
            click.echo(f"{start}: {said}", err=True)
    return code


@contextlib.contextmanager
def working(text: str, *, quiet: bool = False) -> Iterator[None]:
    """A moving bar with the time that passed, on a terminal, while work goes on that may take seconds."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(text, total=None)
        yield
