"""director_evacuations: verbs of `ipshare director` about leaving sites and nodes, and about hazards.

evacuate shows a plan and, where asked to, proposes or begins it; proposals, evacuations show; approve, refuse
answer a proposal; stop, continue, abort steer what runs; hazards shows feeds and sites in danger.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ipshare.cli import exits, output
from ipshare.cli.director import ANSWER_S, _director, _who, director_, file_option
from ipshare.cli.options import Duration, json_option
from ipshare.cli.output import UsageProblem

why_option = click.option("--why", default="", help="The reason, kept with the evacuation.")
wait_option = click.option(
    "--wait", "wait_s", type=Duration(), default=0.0, show_default="not at all",
    help="How long to wait until nothing of it is under way any more.",
)  # fmt: skip


@director_.command("evacuate")
@click.argument("site", required=False)
@click.option("--node", "node_name", metavar="NODE", help="Instead of a site: leave this node.")
@click.option("--avoid", multiple=True, metavar="SITE", help="Nothing goes there; may be repeated.")
@click.option("--yes", "run", is_flag=True, help="Begin it.")
@click.option("--propose", is_flag=True, help="Keep it until somebody approves or refuses it.")
@click.option(
    "--plan", "digest", default="", metavar="DIGEST", help="Only if the plan is the one of that name."
)
@why_option
@wait_option
@file_option
@json_option
@click.pass_context
def evacuate(
    ctx: click.Context, site: str | None, node_name: str | None, avoid: tuple[str, ...], run: bool,
    propose: bool, digest: str, why: str, wait_s: float, file: Path, as_json: bool,
) -> None:  # fmt: skip
    """Show what would move where if SITE were left, in order and with reasons; with --yes, begin.

    Exit code 6 if something cannot go anywhere, or with --wait has not gone.
    """
    if (site is None) == (node_name is None):
        raise UsageProblem("what is left?", "name a site, or a node with --node")
    if run and propose:
        raise UsageProblem("begin it, or propose it?", "give --yes or --propose")
    words = {"site": site or "", "node": node_name or "", "avoid": list(avoid), "digest": digest}
    with _director(file, wait_s + ANSWER_S) as director:
        found = director.call("evacuate", **words, run=run, propose=propose, why=why, who=_who())
        seen = None
        if run and wait_s:
            seen = director.call("evacuations", id=found["evacuation"], timeout_s=wait_s)
    if as_json:
        output.emit(found | ({"seen": seen} if seen is not None else {}))
    else:
        _show_plan(found)
        if found["evacuation"]:
            word = "has begun" if run else "waits: ipshare director approve or refuse it"
            output.line(f"evacuation {found['evacuation']} {word}")
        if seen is not None:
            _show_one(seen)
    good = seen["state"] == "done" if seen is not None else found["possible"]
    ctx.exit(exits.OK if good else exits.NO)


@director_.command("evacuations")
@click.argument("id_", metavar="[ID]", required=False)
@wait_option
@file_option
@json_option
@click.pass_context
def evacuations(ctx: click.Context, id_: str | None, wait_s: float, file: Path, as_json: bool) -> None:
    """List evacuations, or show one: its steps, what became of each, what happened.

    With --wait, exit code 6 if not everything has gone by then.
    """
    with _director(file, wait_s + ANSWER_S) as director:
        if id_ is not None:
            found = director.call("evacuations", id=id_, timeout_s=wait_s)
            output.emit(found) if as_json else _show_one(found)
            ctx.exit(exits.NO if wait_s and found["state"] != "done" else exits.OK)
        rows = director.call("evacuations")["evacuations"]
    _show_all(rows, as_json)


@director_.command("proposals")
@file_option
@json_option
def proposals(file: Path, as_json: bool) -> None:
    """List evacuations that wait for an answer."""
    with _director(file) as director:
        rows = director.call("evacuations")["evacuations"]
    _show_all([row for row in rows if row["state"] == "proposed"], as_json)


@director_.command("approve")
@click.argument("id_", metavar="ID")
@why_option
@file_option
@json_option
def approve(id_: str, why: str, file: Path, as_json: bool) -> None:
    """Let a proposed evacuation begin."""
    _steer("approve", id_, file, as_json, why=why)


@director_.command("refuse")
@click.argument("id_", metavar="ID")
@why_option
@file_option
@json_option
def refuse(id_: str, why: str, file: Path, as_json: bool) -> None:
    """Refuse a proposed evacuation, for good: of a hazard, for as long as that lasts."""
    _steer("refuse", id_, file, as_json, why=why)


@director_.command("stop")
@click.argument("id_", metavar="ID")
@file_option
@json_option
def stop(id_: str, file: Path, as_json: bool) -> None:
    """Begin nothing more of an evacuation; what is under way is seen through."""
    _steer("stop", id_, file, as_json)


@director_.command("continue")
@click.argument("id_", metavar="ID")
@file_option
@json_option
def continue_(id_: str, file: Path, as_json: bool) -> None:
    """Go on with an evacuation that was stopped, or of which something failed."""
    _steer("continue", id_, file, as_json)


@director_.command("abort")
@click.argument("id_", metavar="ID")
@file_option
@json_option
def abort(id_: str, file: Path, as_json: bool) -> None:
    """End an evacuation for good. What was moved stays where it is."""
    _steer("abort", id_, file, as_json)


@director_.command("hazards")
@file_option
@json_option
@click.pass_context
def hazards(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Show feeds, and which site is in danger, as the director sees them.

    Exit code 6 if a site is in danger; 1 if none is seen to be, but a feed cannot be relied on.
    """
    with _director(file) as director:
        found = director.call("hazards")
    if as_json:
        output.emit(found)
    else:
        _show_hazards(found)
    danger = any(site["episode"] for site in found["sites"])
    blind = any(feed["state"] != "fresh" for feed in found["feeds"])
    ctx.exit(exits.NO if danger else exits.FAILURE if blind else exits.OK)


def _steer(verb: str, id_: str, file: Path, as_json: bool, **words: str) -> None:
    with _director(file) as director:
        found = director.call(verb, id=id_, who=_who(), **words)
    if as_json:
        return output.emit(found)
    text = f"evacuation {id_}: {found['state']}"
    if verb == "approve" and found["state"] == "proposed":
        text += ": approved, and it waits: ipshare director hazards says for what"
    return output.line(text)


def _show_plan(found: dict[str, Any]) -> None:
    rows = [
        (str(n // found["at_once"] + 1), m["unit"], ", ".join(m["workloads"]), f"{m['size']:g}", m["source"],
         f"{m['target']} ({m['target_site']})", m["way"], m["why"])
        for n, m in enumerate(found["moves"])
    ]  # fmt: skip
    if rows:
        output.table(("batch", "unit", "workloads", "size", "from", "to", "way", "why"), rows)
    for move in found["moves"]:
        if move["bar"]:
            text = f"{move['unit']} cannot go so ({move['way']}) now, and will stay: {move['bar']}"
            output.line(text, fg="red")
        if move["note"]:
            output.line(f"{move['unit']}: {move['note']}", fg="yellow")
    for stay in found["stays"]:
        output.line(f"{stay['unit']} ({', '.join(stay['workloads'])}) cannot go: {stay['why']}", fg="red")
    for name, why in found["unfit"].items():
        output.line(f"{name} takes nothing: {why}", fg="yellow")
    for name in found["avoided"]:
        output.line(f"{name} is avoided", fg="yellow")
    if found["exclusive"]:
        names = ", ".join(found["exclusive"])
        output.line(f"{names}: exclusive; addresses move, nothing is stopped or started", fg="yellow")
    if not found["moves"] and not found["stays"]:
        output.line("nothing runs there")
    if found["alarm"]:
        output.line("nothing can be moved: nowhere is safe", fg="red")
    if not found["exact"]:
        output.line("not every way was tried: there may be a better plan", fg="yellow")
    output.marked(found["changes"])
    output.line(f"plan {found['digest']}")


def _show_one(found: dict[str, Any]) -> None:
    what = f"site {found['site']}" if found["site"] else f"node {found['node']}"
    output.line(f"evacuation {found['id']} of {what}: {found['state']}")
    output.line(f"{found['time'][:19]} by {found['who']}: {found['why'] or '-'}")
    if found["answered_by"]:
        output.line(f"answered by {found['answered_by']}: {found['answer'] or '-'}")
    rows = [
        (s["unit"], ", ".join(s["workloads"]), s["source"], s["target"], s["way"], s["state"],
         str(s["revision"] or ""), s["outcome"])
        for s in found["steps"]
    ]  # fmt: skip
    if rows:
        output.table(("unit", "workloads", "from", "to", "way", "state", "revision", "outcome"), rows)
    for stay in found["stays"]:
        output.line(f"{stay['unit']} ({', '.join(stay['workloads'])}) cannot go: {stay['why']}", fg="red")
    for event in found["events"]:
        output.line(f"{event['time'][:19]}  {event['text']}")


def _show_all(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        return output.emit(rows)
    if not rows:
        return output.line("there is none")
    heads = ("evacuation", "state", "moved", "moving", "waiting", "failed", "stays", "by", "why")
    cells = [
        (r["id"], r["state"], r["moved"], r["moving"], r["waiting"], r["failed"], r["stays"],
         r["answered_by"] or r["who"], r["answer"] or r["why"])
        for r in rows
    ]  # fmt: skip
    return output.table(heads, cells)


def _show_hazards(found: dict[str, Any]) -> None:
    if found["mode"] is None:
        return output.line("no feed is asked: the director's file has no [hazards]")
    rows = [
        (f["feed"], f["state"], "-" if f["age_s"] is None else f"{f['age_s']:.0f} s", f["alerts"],
         f["quakes"], sum(f["refused"].values()), f["why"])
        for f in found["feeds"]
    ]  # fmt: skip
    output.table(("feed", "state", "age", "alerts", "earthquakes", "refused", "why"), rows)
    for text in found["unknown"]:
        output.line(text, fg="yellow")
    blind = any(feed["state"] != "fresh" for feed in found["feeds"])
    for site in found["sites"]:
        episode = site["episode"]
        if episode is None:
            output.line(f"{site['site']}: no hazard" + (" that was seen" if blind else ""))
            continue
        state = f", evacuation {episode['evacuation']}" if episode["evacuation"] else ""
        output.line(
            f"{site['site']}: {episode['stage']}{state} ({episode['id']}); {episode['why']}", fg="red"
        )
        if episode["stuck"]:
            output.line(f"  {episode['stuck']}", fg="red")
        for one in site["hazards"]:
            times = f"{one['starts']} to {one['until']}"
            output.line(f"  {one['event']} ({one['severity']}), {one['why']}, {times}")
    return None
