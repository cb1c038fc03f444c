"""director_drains: `ipshare director drain` and `undrain`: a distribution point out of service, and back."""

from __future__ import annotations

from pathlib import Path

import click

from ipshare.cli import output
from ipshare.cli.director import _director, _who, director_, file_option
from ipshare.cli.options import json_option

why_option = click.option("--why", default="", help="The reason, kept with the revision.")


@director_.command("drain")
@click.argument("node", metavar="NODE")
@why_option
@click.option("--force", is_flag=True, help="Also the last one that announces; wants --why.")
@file_option
@json_option
def drain(node: str, why: str, force: bool, file: Path, as_json: bool) -> None:
    """Take a distribution point out of service: its neighbours are asked to prefer others, then it withdraws.

    It stays so, over restarts of it and of the director, until it is undrained.
    """
    _ask("drain", node, why, file, as_json, force=force)


@director_.command("undrain")
@click.argument("node", metavar="NODE")
@why_option
@file_option
@json_option
def undrain(node: str, why: str, file: Path, as_json: bool) -> None:
    """Let a distribution point announce again. What its own operator drained stays so."""
    _ask("undrain", node, why, file, as_json)


def _ask(verb: str, node: str, why: str, file: Path, as_json: bool, **more: bool) -> None:
    with _director(file) as director:
        found = director.call(verb, node=node, why=why, who=_who(), **more)
    if as_json:
        return output.emit(found)
    word = "drained" if found["drained"] else "not drained"
    text = (
        f"revision {found['revision']}: {node} is {word}" if found["changed"] else f"{node} was {word} before"
    )
    return output.line(text)
