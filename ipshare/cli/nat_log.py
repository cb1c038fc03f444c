"""nat_log: the verbs about who had a public port: natlog (how the log goes), whois (deterministic ports)."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ipshare.cli import output
from ipshare.cli.options import config_option, json_option, node_of


@click.command("natlog")
@config_option
@json_option
def natlog_(file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Show the NAT log: its collectors, what was sent to them, and what was lost."""
    with node_of(file, node_name, quiet=as_json) as node:
        report = node.nat_log()
    if as_json:
        return output.emit(report)
    output.line(f"{', '.join(report['events'])}: {report['records']:,} records, {report['lost']:,} lost")
    keys = ("address", "port", "format", "datagrams", "unsent")
    rows = [
        (*(row[key] for key in keys), os.strerror(row["last_errno"]) if row["last_errno"] else "")
        for row in report["collectors"]
    ]
    output.table((*keys, "last refusal"), rows)
    return None


@click.command("whois")
@config_option
@click.argument("address")
@click.argument("port", required=False, type=click.IntRange(0, 65535))
@json_option
def whois_(file: Path | None, node_name: str | None, address: str, port: int | None, as_json: bool) -> None:
    """Say who has a public ADDRESS and PORT, or which ports the inside ADDRESS has.

    Of NATs with deterministic ports; it follows from the configuration, so no engine has to run. ICMP
    identifiers are ports here.
    """
    with node_of(file, node_name, quiet=as_json) as node:
        found = node.nat_whois(address, port)
    rows = [
        {
            "nat": block.nat,
            "subscriber": str(block.subscriber),
            "address": str(block.address),
            "first": block.first,
            "last": block.last,
        }
        for block in found
    ]
    if as_json:
        return output.emit({"found": rows})
    if not rows:
        output.line("nobody: no NAT with deterministic ports has it")
    for row in rows:
        text = f"{row['subscriber']} has {row['address']} ports {row['first']}-{row['last']} ({row['nat']})"
        output.line(text)
    return None
