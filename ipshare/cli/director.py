"""director: one source of truth for many nodes: run, status, diff, apply, history, show.

Verbs about evacuations and hazards are in director_evacuations, export is in director_export.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import exits, output
from ipshare.cli.node import log_to_stderr
from ipshare.cli.options import FILE, Duration, json_option

if TYPE_CHECKING:
    from ipshare.agent.client import AgentClient

DEFAULT = Path("/etc/ipshare/director.toml")
ANSWER_S = 120.0

file_option = click.option(
    "-c", "--config", "file", type=FILE, envvar="IPSHARE_DIRECTOR", default=DEFAULT, show_default=True,
    help="The director's file. Default: $IPSHARE_DIRECTOR.",
)  # fmt: skip
again_option = click.option(
    "--revision", "again", type=int, metavar="N", help="An earlier revision again, in place of the file."
)
wait_option = click.option(
    "--wait", "wait_s", type=Duration(), default=10.0, show_default="10s",
    help="How long to wait until every node has it.",
)  # fmt: skip


@click.group("director")
def director_() -> None:
    """Networks, end points and bindings of all nodes, from one file, kept in step (docs/director.md)."""


@director_.command("run")
@file_option
@click.option(
    "--least-term", type=click.IntRange(0, 2**62), default=0,
    help="Begin a term of at least this number: docs/director.md.",
)  # fmt: skip
@click.option("--verbose", is_flag=True, help="Log more.")
@json_option
def run(file: Path, least_term: int, verbose: bool, as_json: bool) -> None:
    """Run the director, until SIGTERM. Nodes go on without it. SIGHUP takes the file again."""
    from ipshare.director.run import run_director
    from ipshare.web.beside import beside

    log_to_stderr(verbose, as_json)
    run_director(file.absolute(), least_term=least_term, beside=beside)


@director_.command("status")
@file_option
@json_option
def status(file: Path, as_json: bool) -> None:
    """Show the revision that counts, and what became of it at each node."""
    with _director(file) as director:
        found = director.call("status")
    _report(found, as_json)


@director_.command("diff")
@click.argument("wanted", metavar="[FILE]", required=False, type=FILE)
@again_option
@click.option("--exit-code", is_flag=True, help="End with 6 if anything differs.")
@file_option
@json_option
@click.pass_context
def diff(
    ctx: click.Context, wanted: Path | None, again: int | None, exit_code: bool, file: Path, as_json: bool
) -> None:
    """Show what apply would change, in which order, and what of it cannot be done without a gap."""
    with _director(file) as director:
        found = director.call("diff", **_wanted(wanted, again))
    _changes(found, as_json)
    ctx.exit(exits.NO if exit_code and found["changes"] else exits.OK)


@director_.command("apply")
@click.argument("wanted", metavar="[FILE]", required=False, type=FILE)
@again_option
@click.option("--why", default="", help="The reason, kept with the revision.")
@click.option("--expect", type=int, metavar="N", help="Refuse unless N is the revision that counts now.")
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@wait_option
@file_option
@json_option
@click.pass_context
def apply(
    ctx: click.Context, wanted: Path | None, again: int | None, why: str, expect: int | None, dry_run: bool,
    wait_s: float, file: Path, as_json: bool,
) -> None:  # fmt: skip
    """Make FILE (default: the director's own) the new revision, and see it through.

    Ends with 0 when every node has it, with 6 if some have not within --wait: they get it when they can.
    """
    with _director(file, wait_s + ANSWER_S) as director:
        words = _wanted(wanted, again)
        if dry_run:
            _changes(director.call("diff", **words), as_json)
            ctx.exit(exits.OK)
        done = director.call("apply", **words, why=why, who=_who(), expect=expect)
        found = director.call("wait", revision=done["revision"], timeout_s=wait_s)
    if as_json:
        output.emit({"changed": done["changed"], **found})
    else:
        output.line(
            f"revision {done['revision']}" + ("" if done["changed"] else ": nothing had to be changed")
        )
        _report(found, as_json)
    ctx.exit(exits.OK if found["settled"] else exits.NO)


@director_.command("history")
@click.option("--limit", type=int, default=20, show_default=True, help="How many revisions.")
@file_option
@json_option
def history(limit: int, file: Path, as_json: bool) -> None:
    """List revisions, the newest first: when, who, why."""
    with _director(file) as director:
        found = director.call("history", limit=limit)["revisions"]
    if as_json:
        return output.emit(found)
    rows = [(str(r["revision"]), r["time"][:19], r["who"], r["changes"], r["why"]) for r in found]
    output.table(("revision", "time", "who", "changes", "why"), rows)
    return None


@director_.command("show")
@click.argument("what", metavar="REVISION|NODE")
@click.option(
    "--make", is_flag=True, help="Of a node: what it has until every distribution point has flipped."
)
@file_option
@json_option
def show(what: str, make: bool, file: Path, as_json: bool) -> None:
    """Show what a revision changed and what became of it, or what a node gets."""
    with _director(file) as director:
        found = director.call("show", **({"revision": int(what)} if what.isdigit() else {"node": what}))
    if as_json:
        return output.emit(found)
    if "node" in found:
        return output.line(found["make" if make else "final"].rstrip())
    output.line(f"revision {found['revision']}, {found['time'][:19]}, {found['who']}: {found['why'] or '-'}")
    output.marked(found["changes"])
    for one in found["outcomes"]:
        output.line(
            f"{one['time'][:23]}  {one['node']} {one['outcome']}"
            + (f": {one['detail']}" if one["detail"] else "")
        )
    return None


def _wanted(wanted: Path | None, again: int | None) -> dict[str, Any]:
    if wanted is not None and again is not None:
        raise output.UsageProblem("a file and a revision were named", "name one of them")
    if again is not None:
        return {"again": again}
    return {"path": str(wanted.absolute())} if wanted is not None else {}


def _director(file: Path, timeout_s: float = ANSWER_S) -> AgentClient:
    from ipshare.agent.client import AgentClient
    from ipshare.director import config
    from ipshare.director.run import SOCKET

    folder = config.settings(file).runtime_dir
    return AgentClient(
        folder, timeout_s=timeout_s, path=folder / SOCKET, who=("director", "ipshare director run")
    )


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _changes(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return output.emit(found)
    if not found["changes"]:
        return output.line("nothing differs")
    output.marked(found["changes"])
    for number, text in enumerate(found["order"], 1):
        output.line(f"{number}. {text}")
    for text in (*found["notes"], *found["faults"]):
        output.line(f"! {text}", fg="magenta")
    return None


def _report(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return output.emit(found)
    standing = "" if found["leads"] or not found["leader"] else f" stands by, {found['leader']} leads"
    head = f"director {found['director']}{standing}, term {found['term']}, revision {found['revision']}"
    output.line(head + (f": {found['why']} ({found['who']})" if found["why"] else ""))
    for text in found["troubles"]:
        output.line(text, fg="red")
    for text in (*(found["notes"] if not found["settled"] else ()), *found["faults"]):
        output.line(f"! {text}", fg="magenta")
    rows = [
        (node["name"], _role(node), node["state"], node["outcome"], str(node["revision"]), node["why"])
        for node in found["nodes"]
    ]
    output.table(("node", "is", "state", "outcome", "has", "why"), rows)
    return None


def _role(node: dict[str, Any]) -> str:
    said = [f"end point {node['endpoint']}"] if node["endpoint"] else []
    return ", ".join(
        [*said, *([f"distribution point {node['distribution']}"] if node["distribution"] else [])]
    )


@director_.command("health")
@file_option
@json_option
def health(file: Path, as_json: bool) -> None:
    """Show what is up, down or unknown, in the words of who looks after it."""
    with _director(file) as director:
        found = director.call("health")
    if as_json:
        return output.emit(found)
    rows = [
        (
            one["name"],
            one["state"] + (", suppressed" if one["suppressed"] else ""),
            f"{one['for_s']:g} s",
            one["why"],
        )
        for one in found["targets"]
    ]
    output.table(("what", "state", "for", "seen by"), rows)
    for node in found["nodes"]:
        if node["state"] != "alive":
            output.line(f"node {node['name']} sees nothing: {node['why'] or 'not heard lately'}", fg="red")
    return None


@director_.group("failover")
def failover() -> None:
    """Exclusive workloads, and what takes the place of what is down (docs/health.md)."""


@failover.command("show")
@file_option
@json_option
def failover_show(file: Path, as_json: bool) -> None:
    """Show who has which workload, and failovers that are proposed or under way."""
    with _director(file) as director:
        found = director.call("failover")
    if as_json:
        return output.emit(found)
    output.line(f"mode {found['mode'] or 'none: there is no [failover]'}")
    rows = [
        (
            one["name"],
            one["node"] or "nobody",
            str(one["epoch"]),
            one["state"] + (", leaving" if one["leaving"] else ""),
            one["freed"],
            one["why"],
        )
        for one in found["workloads"]
    ]
    output.table(("workload", "node", "epoch", "state", "freed", "why"), rows)
    for case in found["cases"]:
        where = f"{case['source']} -> {case['target'] or 'nowhere'}"
        output.line(f"{case['phase']}: {case['unit']} {where}: {case['why']}", fg="magenta")
        if case["note"]:
            output.line(f"    {case['note']}")
    return None


@failover.command("approve")
@click.argument("unit", metavar="NAME")
@file_option
@json_option
def failover_approve(unit: str, file: Path, as_json: bool) -> None:
    """Carry out the failover that is proposed for NAME, a workload or a group."""
    with _director(file) as director:
        found = director.call("failover_approve", unit=unit)
    if as_json:
        return output.emit(found)
    return output.line(f"{found['unit']}: from {found['source']} to {found['target']}")


@failover.command("fenced")
@click.argument("workload", metavar="WORKLOAD")
@click.option("--yes", is_flag=True, help="It is certain: the old node does not run it, and will not.")
@file_option
@json_option
def failover_fenced(workload: str, yes: bool, file: Path, as_json: bool) -> None:
    """Say that the node which has to give WORKLOAD up does not run it any more: it was switched off.

    The workload is started elsewhere at once. If that is not true, it runs twice.
    """
    if not yes:
        raise output.UsageProblem(
            "it would run twice if the old node has it still", "if it is certain: --yes"
        )
    with _director(file) as director:
        found = director.call("failover_fenced", workload=workload)
    if as_json:
        return output.emit(found)
    return output.line(f"{found['workload']}: {found['node']} does not run it any more")


from ipshare.cli import (  # noqa: E402  they add their verbs
    director_drains,  # noqa: F401
    director_evacuations,  # noqa: F401
    director_export,  # noqa: F401
)
