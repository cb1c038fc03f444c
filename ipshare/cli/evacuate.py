"""evacuate: what would move where if a site were left, or a node died: plan. Nothing is moved."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ipshare.cli import exits, output
from ipshare.cli.options import json_option, sites_option
from ipshare.cli.output import UsageProblem


@click.group("evacuate")
def evacuate_() -> None:
    """Leave a site, or a node that died."""


@evacuate_.command("plan")
@click.argument("site", required=False)
@click.option("--node", "node_name", metavar="NODE", help="Instead of a site: this node died.")
@click.option("--avoid", multiple=True, metavar="SITE", help="Nothing goes there; may be repeated.")
@sites_option
@json_option
@click.pass_context
def plan(
    ctx: click.Context,
    site: str | None,
    node_name: str | None,
    avoid: tuple[str, ...],
    file: Path,
    as_json: bool,
) -> None:
    """Show what would move where if SITE were left, in order and with reasons. Nothing is moved.

    Exit code 6 if something cannot go anywhere.
    """
    if (site is None) == (node_name is None):
        raise UsageProblem("what is left?", "name a site, or a node with --node")
    from ipshare.placement import settings
    from ipshare.placement.plan import evacuate, fail

    layout = settings.load(file)
    sites = {known.name for known in layout.sites}
    for named in (*avoid, *([site] if site else [])):
        if named not in sites:
            raise UsageProblem(f"there is no site {named!r}", f"known: {', '.join(sorted(sites))}")
    nodes = {known.name for known in layout.nodes}
    if node_name is not None and node_name not in nodes:
        raise UsageProblem(f"there is no node {node_name!r}", f"known: {', '.join(sorted(nodes))}")
    found = fail(layout, node_name, avoid) if node_name else evacuate(layout, site or "", avoid)
    if as_json:
        output.emit(
            {
                "possible": found.is_possible,
                "alarm": found.is_alarm,
                "exact": found.is_exact,
                "moves": [asdict(move) for move in found.moves],
                "stays": [asdict(stay) for stay in found.stays],
            }
        )
    else:
        rows = [
            (m.unit, ", ".join(m.workloads), f"{m.size:g}", m.source, m.target, m.why) for m in found.moves
        ]
        if rows:
            output.table(("unit", "workloads", "size", "from", "to", "why"), rows)
        for stay in found.stays:
            output.line(f"{stay.unit} ({', '.join(stay.workloads)}) cannot go: {stay.why}", fg="red")
        if not found.moves and not found.stays:
            output.line("nothing runs there")
        if found.is_alarm:
            output.line("nothing can be moved: nowhere is safe", fg="red")
        if not found.is_exact:
            output.line("not every way was tried: there may be a better plan", fg="yellow")
    ctx.exit(exits.OK if found.is_possible else exits.NO)
