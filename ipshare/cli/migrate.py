"""migrate: a workload goes to another node while it runs, and packets follow it (docs/migration.md)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ipshare.cli import exits, output
from ipshare.cli.director import _director, _who, file_option
from ipshare.cli.options import Duration, json_option

STEP_S = 30.0
"""How long one question waits for news of a migration that is watched."""


@click.command("migrate")
@click.argument("workload", required=False)
@click.option("--to", metavar="NODE|SITE", help="Where to; of a site the node with the most room.")
@click.option("--why", default="", help="The reason, kept with the migration and its revision.")
@click.option("--plan", "planned", is_flag=True, help="Ask the nodes, show what would be; change nothing.")
@click.option("--watch", is_flag=True, help="Stay until it is over, and show its steps.")
@click.option(
    "--wait", "wait_s", type=Duration(), default=3600.0, show_default="1h", help="How long --watch stays."
)
@click.option("--list", "listed", is_flag=True, help="Show all migrations; with WORKLOAD its last one.")
@click.option("--cancel", is_flag=True, help="End the one of WORKLOAD, while it does not run at the target.")
@file_option
@json_option
@click.pass_context
def migrate_(
    ctx: click.Context, workload: str | None, to: str | None, why: str, planned: bool, watch: bool,
    wait_s: float,
    listed: bool, cancel: bool, file: Path, as_json: bool,
) -> None:  # fmt: skip
    """Migrate WORKLOAD alive to a node or a site; with its group.

    Ends with 0 when it is under way, or, with --watch, done; with 6 if it was refused, failed or was
    cancelled, or is not done within --wait; with --plan, if a node has something against it.
    """
    _check_words(workload, to, listed, cancel)
    if planned and not (listed or cancel):
        with _director(file, STEP_S + 60) as director:
            found = director.call("migrate", workload=workload, to=to, plan=True)
        output.emit(found) if as_json else _show_plan(found)
        ctx.exit(exits.NO if found["against"] else exits.OK)
    with _director(file, STEP_S + 60) as director:
        if listed and workload is None:
            _list(director.call("migrations")["migrations"], as_json)
            return
        if listed:
            found = director.call("migrations", which=workload)
        elif cancel:
            found = director.call("migrate_cancel", which=workload)
        else:
            found = director.call("migrate", workload=workload, to=to, why=why, who=_who())
        shown = 0 if as_json else _show(found, 0)
        ends = _now() + (wait_s if watch else 0)
        while not _is_idle(found) and _now() < ends:
            found = director.call("migrations", which=found["id"], wait_s=min(1.0, ends - _now()))
            shown = shown if as_json else _show(found, shown)
    if as_json:
        output.emit(found)
    elif _is_idle(found):
        _end(found)
    ctx.exit(exits.NO if (watch and found["step"] != "done") or _went_wrong(found) else exits.OK)


def _show_plan(found: dict[str, Any]) -> None:
    output.line(f"{', '.join(found['workloads'])}, {found['source']} -> {found['target']}")
    output.marked(found["changes"])
    for note in found["notes"]:
        output.line(f"! {note}", fg="magenta")
    if found["against"]:
        output.line(f"it cannot be: {found['against']}", fg="red")


def _check_words(workload: str | None, to: str | None, listed: bool, cancel: bool) -> None:
    if listed and (cancel or to):
        raise output.UsageProblem(
            "--list goes with nothing that changes something", "leave --to and --cancel"
        )
    if cancel and (workload is None or to):
        raise output.UsageProblem("--cancel takes a workload, or the id of a migration, alone", "name it")
    if not listed and not cancel and (workload is None or to is None):
        raise output.UsageProblem("which workload, and where to?", "ipshare migrate WORKLOAD --to NODE")


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _is_idle(found: dict[str, Any]) -> bool:
    return bool(found["over"]) or found["step"] == "split"


def _went_wrong(found: dict[str, Any]) -> bool:
    return found["step"] in ("refused", "failed", "split")


def _show(found: dict[str, Any], shown: int) -> int:
    """Lines of the timeline that were not shown yet."""
    if not shown:
        output.line(f"{found['id']}: {', '.join(found['workloads'])}, {found['source']} -> {found['target']}")
        for note in found["notes"]:
            output.line(f"! {note}", fg="magenta")
    began = found["times"][0]["at"]
    for moment in found["times"][shown:]:
        clock = datetime.fromtimestamp(moment["at"]).astimezone().isoformat(timespec="milliseconds")
        output.line(f"{clock[11:23]}  +{moment['at'] - began:8.3f} s  {moment['what']}")
    return len(found["times"])


def _end(found: dict[str, Any]) -> None:
    if found["downtime_ms"] is not None:
        output.line(f"it stood still for {found['downtime_ms']:g} ms, says who migrated it")
    if found["redirected_ms"] is not None:
        output.line(f"packets followed it {found['redirected_ms']:g} ms after it ran at {found['target']}")
    if found["step"] != "done":
        output.line(f"{found['step']}: {found['reason']}", fg="red")


def _list(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        return output.emit(found)
    rows = [
        (one["id"], ", ".join(one["workloads"]), one["source"], one["target"], one["step"],
         one["trouble"] or one["reason"])
        for one in found
    ]  # fmt: skip
    output.table(("migration", "workloads", "from", "to", "step", "why"), rows)
    return None
