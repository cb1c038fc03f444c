"""counters: what was counted, or with --watch what is being counted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import output
from ipshare.cli.options import Duration, config_option, json_option, node_of

if TYPE_CHECKING:
    from ipshare.engine.totals import Totals


@click.command("counters")
@config_option
@click.option("--watch", is_flag=True, help="Increments, again and again, until Ctrl-C.")
@click.option(
    "--interval", type=Duration(), default="1s", show_default=True, help="Time between two lines of --watch."
)
@click.option(
    "--max", "most", default=10, show_default=True, type=click.IntRange(1), help="Rows of each table."
)
@json_option
def counters_(
    file: Path | None, node_name: str | None, watch: bool, interval: float, most: int, as_json: bool
) -> None:
    """Packets and bytes since the engine began: by verdict, by binding, by address; and what was dropped
    where."""
    with node_of(file, node_name, quiet=as_json) as node:
        if not watch:
            totals = node.counters()
            output.emit(totals.to_json(most)) if as_json else _print(totals, most)
            return
        engine = ""
        for delta in node.watch(interval):
            restarted, engine = engine not in ("", delta.boot_id), delta.boot_id
            if as_json:
                record = {"time": time.time(), "interval_s": interval, "restarted": restarted}
                output.emit(record | delta.to_json(most), one_line=True)
            else:
                if restarted:
                    output.line("--- the engine was restarted: its counters began anew ---", fg="yellow")
                _print_rates(delta, most, interval)


def _print(totals: Totals, most: int) -> None:
    verdicts = totals.verdicts()
    if not verdicts:
        return output.line("no packet was counted yet")
    output.table(
        ("side", "verdict", "packets", "meaning"),
        [(v["side"], v["verdict"], v["packets"], v["text"]) for v in verdicts[:most]],
    )
    _section("bindings", ("global", "to", "packets", "bytes"), totals.bindings(most), ("binding", "target"))
    _section("addresses", ("address", "packets", "bytes"), totals.talkers(most), ("address",))
    drops = totals.drops(most)
    if drops:
        output.line()
        output.table(
            ("binding", "other than translated", "packets", "meaning"),
            [(d["binding"] or "(none)", d["verdict"], d["packets"], d["text"]) for d in drops],
        )
    output.line()
    output.line(
        f"ICMP errors sent {totals.raw.errors_sent:,}, withheld by icmp_rate {totals.raw.errors_limited:,}"
    )
    return None


def _section(
    title: str, headings: tuple[str, ...], rows: list[dict[str, Any]], names: tuple[str, ...]
) -> None:
    if rows:
        output.line()
        output.table(
            headings, [(*(row[name] for name in names), row["packets"], row["bytes"]) for row in rows]
        )
    else:
        output.line(f"\nno {title} with packets")


def _print_rates(delta: Totals, most: int, interval: float) -> None:
    output.line(f"--- {time.strftime('%H:%M:%S')}, per second ---", bold=True)
    rows = [(v["side"], v["verdict"], round(v["packets"] / interval)) for v in delta.verdicts()[:most]]
    if not rows:
        return output.line("no packet")
    output.table(("side", "verdict", "packets/s"), rows)
    busiest = [
        (b["binding"], b["target"], round(b["packets"] / interval), round(b["bytes"] * 8 / interval))
        for b in delta.bindings(most)
    ]
    if busiest:
        output.table(("global", "to", "packets/s", "bit/s"), busiest)
    return None
