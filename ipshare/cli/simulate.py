"""simulate: what failures of sites and links cost, in numbers, on a virtual clock."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from ipshare.cli import output
from ipshare.cli.options import FILE, Duration, json_option
from ipshare.cli.output import UsageProblem

TEXT = {
    "detection": "site failed until the director knows",
    "lease": "... until its leases have ended",
    "start": "... until workloads run elsewhere",
    "rollout": "... until every point has the bindings",
    "outage": "all of it: a binding is out of service",
    "link": "a link is down: one point's clients wait",
}


@click.command("simulate")
@click.option("-c", "--config", "file", type=FILE, help="File with [[site]] and [[workload]].")
@click.option("--sites", type=click.IntRange(2, 5000), help="Instead of a file: so many sites.")
@click.option("--bindings", type=click.IntRange(1, 10_000_000), default=1_000_000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The same gives the same.")
@click.option(
    "--points", type=click.IntRange(1, 1000), default=10, help="Distribution points.  [default: 10]"
)
@click.option("--duration", type=Duration(), help="Simulated time.  [default: 30d]")
@click.option("--site-mtbf", type=Duration(), help="Between failures of a site.  [default: 365d]")
@click.option("--site-mttr", type=Duration(), help="Until a site is repaired.  [default: 4h]")
@click.option("--link-mtbf", type=Duration(), help="Between failures of a link.  [default: 90d]")
@click.option("--link-mttr", type=Duration(), help="Until a link is repaired.  [default: 10m]")
@click.option("--interval", type=Duration(), help="Between two probes.  [default: 1s]")
@click.option("--fall", type=click.IntRange(1, 100), help="Probes missed in a row.  [default: 3]")
@click.option("--lease", type=Duration(), help="Of an exclusive workload.  [default: 10s]")
@click.option("--start", type=Duration(), help="Of a workload at its target, median.  [default: 20s]")
@json_option
def simulate_(
    file: Path | None, sites: int | None, bindings: int, seed: int, as_json: bool, **given: Any
) -> None:
    """Let sites and links fail, and measure detection, placement and roll-out, on a virtual clock.

    Nothing real is touched. Placement is that of `evacuate plan`; all else is assumed, and told.
    """
    if (file is None) == (sites is None):
        raise UsageProblem("simulate what?", "name a file with -c FILE, or a number of --sites")
    with output.working("simulating", quiet=as_json):
        import numpy as np

        from ipshare.placement import settings
        from ipshare.simulation import report, run, world

        names = {field.name for field in fields(world.Assumptions)}
        wanted = {}
        for key, value in given.items():
            name = next(n for n in (key, f"{key}_s", f"{key}_median_s") if n in names)
            if value is not None:
                wanted[name] = value
            if isinstance(value, float) and value <= 0 and key != "lease":
                raise UsageProblem(f"--{key.replace('_', '-')} must be above 0", "for example 1s")
        assumed = world.Assumptions(**wanted)
        rng = np.random.default_rng(seed)
        layout = settings.load(file) if file is not None else world.made_up(sites or 2, rng)
        there = world.world(layout, bindings, assumed, rng)
        found = report.record(there, assumed, run.run(there, assumed, rng))
    if as_json:
        return output.emit(found)
    for key in ("sites", "workloads", "bindings", "connections", "site_failures", "link_failures"):
        output.line(f"{key.replace('_', ' '):<20} {found[key]:>14,}")
    for key in ("plans", "moves", "stuck", "bindings_moved", "connections_broken"):
        output.line(f"{key.replace('_', ' '):<20} {found[key]:>14,}")
    output.line(f"{'availability':<20} {found['availability']:>14.6%}")
    output.line()
    rows = [
        (TEXT[kind], t["count"], *(f"{t[key]:.3f}" for key in ("p50_s", "p90_s", "p99_s", "max_s")))
        for kind in TEXT
        if (t := found["times"].get(kind)) is not None
    ]
    output.table(("time", "bindings", "p50 s", "p90 s", "p99 s", "max s"), rows)
    return None
