"""The verb: options, what is said while it runs, files at the end."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Literal

from ipshare.errors import IpshareError, Refused
from ipshare.lab import userns
from ipshare.lab.internet import LabSpec

PathName = Literal["rewrite", "ipip", "gue"]
PATHS: tuple[PathName, ...] = ("rewrite", "gue")


def main(arguments: list[str]) -> int:
    """Runs the demo; 0 if everything was as it should be, 1 otherwise, 2 for a wrong option."""
    options = _parser().parse_args(arguments)
    _check_writable(options.out)
    userns.become_root()
    from ipshare.lab.demo import plot, report
    from ipshare.lab.demo.story import Scale, tell

    scale = Scale() if not options.quick else Scale(12, 8_000, 3, 12, 3, 2, 30)
    began = time.monotonic()

    def say(text: str) -> None:
        if not options.json:
            print(f"[{time.monotonic() - began:5.1f} s] {text}", flush=True)

    paths: tuple[PathName, ...] = options.path or PATHS
    chapters = [tell(LabSpec(path=path, engine=options.engine), scale, say) for path in paths]
    result = report.as_json(chapters)
    _save(options.out, plot.svg(chapters), result)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        _show(chapters, result, options.out)
    return 0 if result["ok"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ipshare demo", description="An address moves between two datacenters, with real traffic."
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    parser.add_argument("--quick", action="store_true", help="little traffic: a smoke test")
    parser.add_argument(
        "--path", action="append", choices=("rewrite", "ipip", "gue"), help="only this path (may be repeated)"
    )
    parser.add_argument(
        "--engine",
        choices=("embedded", "vpp"),
        default="embedded",
        help="what translates: ipshare-engine (default), or VPP where it is installed",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="where plot and JSON go (demo-out)"
    )
    return parser


def _check_writable(directory: Path) -> None:
    """Before a minute of work. Raises Refused; makes nothing."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "may not be written to" if there.is_dir() else "is no directory"
        raise Refused(f"cannot write to {directory}: {there} {why}", hint="choose another one with --out")


def _save(directory: Path, plot: str, result: dict[str, object]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "demo.svg").write_text(plot)
        (directory / "demo.json").write_text(json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise IpshareError(
            f"cannot write to {directory}: {error.strerror}", hint="choose another directory with --out"
        ) from None


def _show(chapters: list, result: dict, directory: Path) -> None:  # type: ignore[type-arg]
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from ipshare.lab.demo import report

    console = Console(highlight=False)
    console.width = max(console.width, 110)  # rich would drop figures; a narrow terminal wraps the lines
    table = Table(title="Every payload was hashed at both ends, every destination compared", box=SIMPLE)
    for heading in ("path", "served", "what", "tried", "good", "lost", "corrupted", "misdelivered"):
        left = heading in ("path", "served", "what")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in report.tables(chapters):
        table.add_row(*row)
    console.print(table)
    for chapter in chapters:
        for move in chapter.moves:
            way = f"{move.origin} to {move.to}"
            console.print(f"\n[bold]{chapter.path}[/bold], {way}: new connections while the address moved")
            for text in [*report.timeline(move), *report.cost(move)]:
                console.print(f"  {text}", markup=False)
        for text in report.sentences(chapter):
            console.print(f"  {text}", markup=False)
    word = (
        f"[green]{report.VERDICT_OK}[/green]"
        if result["ok"]
        else "[red]not everything was as it should be[/red]"
    )
    broken, open_ = (result[f"open_connections_{key}"] for key in ("broken_by_the_move", "at_the_move"))
    console.print(f"\n{broken} of {open_} connections broken", highlight=False)
    console.print(f"{word}\nplot: {directory / 'demo.svg'}   figures: {directory / 'demo.json'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
