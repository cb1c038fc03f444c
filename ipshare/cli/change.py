"""change: the verbs about what a node is on: diff, apply, confirm, rollback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import exits, output
from ipshare.cli.options import Duration, config_option, file_argument, json_option, node_of

if TYPE_CHECKING:
    from ipshare.api import Applied
    from ipshare.engine.plan_text import Summary

most_option = click.option(
    "--max",
    "most",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    help="Lines for each kind of change.",
)


@click.command("diff")
@file_argument
@most_option
@click.option("--exit-code", "by_code", is_flag=True, help=f"Exit with {exits.NO} if there are differences.")
@json_option
@click.pass_context
def diff_(ctx: click.Context, file: Path | None, most: int, by_code: bool, as_json: bool) -> None:
    """Show what `apply FILE` would change, and how many clients it would move. Changes nothing."""
    with node_of(file, quiet=as_json) as node:
        with output.working("comparing", quiet=as_json):
            summary = node.diff(max_items=most)
        _print_summary(summary, as_json)
    ctx.exit(exits.NO if by_code and summary.count else exits.OK)


@click.command("apply")
@file_argument
@click.option(
    "--dry-run", is_flag=True, help="Show what it would change, and what this machine has against it."
)
@click.option(
    "--confirm-within",
    "confirm_within_s",
    type=Duration(),
    help='Go back by itself unless `ipshare confirm` comes in time, for example "5m". Needs the agent.',
)
@most_option
@json_option
@click.pass_context
def apply_(
    ctx: click.Context,
    file: Path | None,
    dry_run: bool,
    confirm_within_s: float | None,
    most: int,
    as_json: bool,
) -> None:
    """Make the configuration FILE the node's: tables, copies and routes, in one step; or nothing at all."""
    with node_of(file, quiet=as_json) as node:
        with output.working("comparing", quiet=as_json):
            summary = node.diff(max_items=most)
        if dry_run:
            against = node.check()
            _print_summary(summary, as_json, {"dry_run": True, "machine": [p.message for p in against]})
            if not as_json:
                output.problems(against)
                output.line("dry run: nothing was changed")
            ctx.exit(exits.REFUSED if against else exits.OK)
        with output.working(f"applying {summary.count:,} changes", quiet=as_json):
            applied = node.apply(confirm_within_s=confirm_within_s)
        if as_json:
            output.emit(
                _applied(applied)
                | {"plan": summary.to_json(), "confirm_within_s": confirm_within_s, "dry_run": False}
            )
            return
        output.marked(summary.lines())
        _say(applied)
        if confirm_within_s is not None and applied.changed:
            output.line(
                f"on trial: goes back by itself after {confirm_within_s:g} s unless you `ipshare confirm`"
            )


@click.command("confirm")
@config_option
@json_option
def confirm_(file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Keep the configuration that was applied with --confirm-within."""
    with node_of(file, node_name, quiet=as_json) as node:
        node.confirm()
    output.emit({"confirmed": True}) if as_json else output.line("confirmed: it stays")


@click.command("rollback")
@config_option
@json_option
def rollback_(file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Go back to the configuration before the current one; again: return to where you were."""
    with node_of(file, node_name, quiet=as_json) as node, output.working("rolling back", quiet=as_json):
        applied = node.rollback()
    if as_json:
        output.emit(_applied(applied))
    else:
        _say(applied)


def _print_summary(summary: Summary, as_json: bool, more: dict[str, Any] | None = None) -> None:
    if as_json:
        output.emit(summary.to_json() | (more or {}))
    elif summary.count:
        output.marked(summary.lines())
        output.line(f"{summary.count:,} change{'s' if summary.count != 1 else ''}")
    else:
        output.line("nothing differs: the engine has all of this")


def _applied(applied: Applied) -> dict[str, Any]:
    return {
        "generation": applied.generation,
        "changed": applied.changed,
        "changes": applied.changes,
        "routes": list(applied.routes),
        "by": "agent" if applied.by_agent else "engine",
    }


def _say(applied: Applied) -> None:
    for text in applied.routes:
        output.line(f"  {text}")
    if applied.changed:
        what = f"{applied.changes:,} changes in tables, {len(applied.routes)} of routes"
        output.line(f"generation {applied.generation} is live: {what}")
    else:
        output.line(f"nothing to do: generation {applied.generation} is what the configuration asks for")
