"""report: series and states become figures (ipshare.bench Result), a table, JSON and a plot.

Names: added.v4.nat44-ed.tcp, growth.v4.ipshare.stacked.1m.all, programming.1-worker.loaded.commit. An added
cost is in clocks (of the time stamp counter, as VPP counts) per packet; its ratio is to one pass of
ip-lookup and ip-rewrite in the same burst. A growth's ratio is to 1 k bindings and few destinations of the
same round.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from statistics import median
from typing import Any

from ipshare.bench import machine, plot
from ipshare.bench.result import Result, beside, table
from vpp.process import version
from vpp.programming import Programming
from vpp.series import Series

BASE = "ip-lookup + ip-rewrite"
HOT = "1k.few"
GROUPS = tuple(
    (f"{part}.v{family}", "clocks/packet", title.format(family=family))
    for part, title in (
        ("added", "Added clocks per packet, IPv{family}, 250 bindings (ratio to lookup and rewrite)"),
        ("growth", "Growth, IPv{family}: clocks per packet (ratio to 1 k bindings, few destinations)"),
    )
    for family in (4, 6)
)


def added(series: Mapping[str, Series]) -> Iterator[Result]:
    for name, s in series.items():
        if ".plain." in name:
            yield Result(f"added.{name.replace('plain', 'plain-routing')}", s.base, "clocks/packet")
        else:
            yield Result(f"added.{name}", s.added, "clocks/packet", BASE, s.ratio)


def growth(series: Mapping[str, Series]) -> Iterator[Result]:
    for name, s in series.items():
        peer = ".".join([*name.split(".")[:-2], HOT])
        if peer == name:
            yield Result(f"growth.{name}", s.added, "clocks/packet")
            continue
        pairs = zip(s.samples, series[peer].samples, strict=True)
        ratio = median(one.added / hot.added for one, hot in pairs)
        yield Result(f"growth.{name}", s.added, "clocks/packet", f"growth.{peer}", ratio)


def programming(states: Iterable[Programming]) -> Iterator[Result]:
    """Medians; the commit's peer is preparing the same tables."""
    for state in states:
        at = f"programming.{state.name}"
        prepare = median(load.prepare_s for load in state.loads)
        commit = median(load.commit_s for load in state.loads)
        packed = median(state.packed)
        yield Result(f"{at}.arrays-and-image", packed, "s")
        yield Result(f"{at}.prepare", prepare, "s")
        yield Result(f"{at}.total", packed + prepare + commit, "s")
        yield Result(f"{at}.by-driver", median(state.driven), "s")
        yield Result(f"{at}.counters-read", median(state.counted), "s")
        for what, loads in (("commit", state.loads), ("evacuation", state.evacuations)):
            seen = median(load.commit_s for load in loads)
            inside = max(load.commit_in_plugin_s for load in loads)
            yield beside(f"{at}.{what}", seen, "s", f"{at}.prepare", prepare)
            yield beside(f"{at}.{what}.in-plugin-at-worst", inside, "s", f"{at}.prepare", prepare)
        yield Result(f"{at}.barriers", len(state.barriers), "barriers")
        yield Result(f"{at}.lost", state.lost, f"packets of {state.packets:,}")


def measured_on() -> str:
    return f"{machine.this().describe()}; VPP {version()}"


def text(results: list[Result], crashed: Mapping[str, str]) -> str:
    lines = [measured_on(), "", table(results), *(f"{n}: {why}" for n, why in crashed.items())]
    return "\n".join(lines) + "\n"


def document(results: list[Result], series: Mapping[str, Series], crashed: Mapping[str, str]) -> str:
    """JSON: all figures, and the clocks of each node behind them."""
    nodes: dict[str, Any] = {
        name: {"base": round(s.base, 2), "ratio": round(s.ratio, 3), "nodes": s.clocks()}
        for name, s in series.items()
    }
    return json.dumps(
        {
            "machine": measured_on(),
            "figures": [r.as_dict() for r in results],
            "nodes": nodes,
            "crashed": dict(crashed),
        },
        indent=1,
    )


def svg(results: list[Result]) -> str:
    """Of added costs the packets that every translator takes; of programming nothing: it is in the table."""
    drawn = [r for r in results if not r.name.endswith((".tcp", ".fragment")) or r.name.startswith("growth")]
    seldom = {r.name for r in drawn if r.name.endswith(".udp")}
    mixed = {r.name.replace(".mixed", ".udp") for r in drawn if r.name.endswith(".mixed")}
    shown = [r for r in drawn if r.name not in seldom & mixed]
    return plot.svg(shown, measured_on(), groups=GROUPS)
