"""node: the verbs that run and end a node: agent, down."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from ipshare.cli import output
from ipshare.cli.options import FILE, config_option, file_argument, json_option, named_file, node_of
from ipshare.errors import printable

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


@click.command("agent")
@file_argument
@click.option("--group", metavar="NAME", help="Group whose members may use the control socket.")
@click.option("--last-good", is_flag=True, help="Where FILE has mistakes, start with what was applied last.")
@click.option("--verbose", is_flag=True, help="Log more.")
@json_option
def agent_(file: Path | None, group: str | None, last_good: bool, verbose: bool, as_json: bool) -> None:
    """Run this node's agent with FILE: engine, tables and routes, kept as they should be.

    Ends with SIGTERM; the engine and the routes stay (`ipshare down` ends them). SIGHUP reads FILE again.
    """
    from ipshare.agent.run import run_agent

    log_to_stderr(verbose, as_json)
    run_agent(named_file(file).absolute(), group=group, last_good=last_good)


@click.command("down")
@config_option
@click.argument("path", metavar="[FILE]", required=False, type=FILE)
@json_option
def down_(path: Path | None, file: Path | None, node_name: str | None, as_json: bool) -> None:
    """End this node: its agent, its engine, and every route, rule and sysctl that was set for it."""
    with (
        node_of(path or file, node_name, quiet=as_json) as node,
        output.working("ending the node", quiet=as_json),
    ):
        lines = node.down()
    if as_json:
        output.emit({"changed": bool(lines), "done": lines})
    else:
        for text in lines or [f"nothing to do: node {node.config.node.name} is not running"]:
            output.line(text)


def log_to_stderr(verbose: bool, as_json: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else _Lines(journal=bool(os.environ.get("JOURNAL_STREAM"))))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("pyroute2").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)


class _Lines(logging.Formatter):
    """Text; under systemd with the priority in front (sd-daemon(3)) and without the time, which the journal
    has. Further lines of a message are indented, and control characters escaped: what a caller sends forges
    no line."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(message)s" if journal else "%(asctime)s %(levelname)-7s %(message)s")
        self.journal = journal

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message).replace("\n", "\n    ")
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self.journal:
            return text
        priority = PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import json

        entry = {"time": record.created, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry | {"from": record.name})
