"""nat: the verb about NAT pools: public addresses, how many of their ports are in use, what was refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ipshare.cli import output
from ipshare.cli.options import config_option, json_option, node_of


@click.command("nat")
@config_option
@click.option(
    "--max", "most", default=10, show_default=True, type=click.IntRange(0), help="Addresses of each; 0: all."
)
@json_option
def nat_(file: Path | None, node_name: str | None, most: int, as_json: bool) -> None:
    """Show each NAT: its public addresses, the fullest first, and how many of their ports are in use."""
    with node_of(file, node_name, quiet=as_json) as node:
        report = node.nat(limit=most)
    if as_json:
        return output.emit(report)
    for nat in report["nats"]:
        _nat(nat)
    refused = report["ports_exhausted"]
    if refused:
        text = f"{refused:,} connections were refused because no address of their pool had a port"
        output.line(text, fg="yellow")
    else:
        output.line("no connection was refused for want of a port")
    return None


def _nat(nat: dict[str, Any]) -> None:
    output.line(f"{nat['name']}: {', '.join(nat['inside'])} -> {', '.join(nat['pools'])}", bold=True)
    keys = ("address", "tcp", "udp", "icmp", "whole")
    output.table(
        (*keys[:-1], "others", "ports used"),
        [(*(row[key] for key in keys), f"{row['used']:.1%}") for row in nat["addresses"]],
    )
    if nat["count"] > len(nat["addresses"]):
        output.line(f"... and {nat['count'] - len(nat['addresses']):,} more (--max 0 shows all)")
    output.line()
