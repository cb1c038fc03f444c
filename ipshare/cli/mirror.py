"""mirror: the verb about the stream of session changes between the nodes of a pair: status."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ipshare.cli import output
from ipshare.cli.options import Duration, config_option, json_option, node_of

if TYPE_CHECKING:
    from ipshare.api import Node


@click.group("mirror")
def mirror_() -> None:
    """The mirror: session changes from the active node of a pair to the other."""


@mirror_.command("status")
@config_option
@click.option("--watch", is_flag=True, help="Then a line in each interval, until Ctrl-C.")
@click.option("--interval", "interval_s", type=Duration(), default="1s", show_default=True)
@json_option
def status(file: Path | None, node_name: str | None, watch: bool, interval_s: float, as_json: bool) -> None:
    """Show whether the other node could take over without losing a connection, and what is wrong."""
    with node_of(file, node_name, quiet=as_json) as node:
        _show(node, as_json, one_line=watch)
        while watch:
            time.sleep(interval_s)
            _say(node, as_json)


def _show(node: Node, as_json: bool, *, one_line: bool) -> None:
    from ipshare.engine.flows_text import mirror_lines, mirror_report, mirror_troubles

    state, config = node.mirror_state(), node.store.current() or node.config
    if as_json:
        return output.emit(mirror_report(state, config), one_line=one_line)
    for text in mirror_lines(state, config):
        output.line(text)
    for text in mirror_troubles(state, config):
        output.line(f"{'note':14} {text}", fg="yellow")
    return None


def _say(node: Node, as_json: bool) -> None:
    """One moment; of an engine that its agent starts again: what is said of that."""
    from ipshare.engine.flows_text import mirror_line
    from ipshare.errors import EngineError, NotRunning, Refused

    if as_json:
        return _show(node, as_json, one_line=True)
    try:
        text = mirror_line(node.mirror_state(), node.store.current() or node.config)
    except (EngineError, NotRunning, Refused) as error:
        if not node._is_kept():
            raise
        text = error.message
    return output.line(f"{time.strftime('%H:%M:%S')} {text}")
