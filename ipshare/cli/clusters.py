"""clusters: what is seen of clusters: servers and why each gets what it gets; and `plan`: addresses that
they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ipshare.cli import output
from ipshare.cli.options import config_option, json_option, node_of


def show_clusters(rows: list[dict[str, Any]], as_json: bool) -> None:
    """``ipshare show clusters``."""
    if as_json:
        return output.emit(rows)
    for number, row in enumerate(rows):
        if number:
            output.line()
        by = ", ".join(["weight", *row["by"]])
        output.line(f"cluster {row['cluster']} at {row['address']}, by {by}")
        heads = (
            "server",
            "address",
            "state",
            "weight",
            "effective",
            "share",
            "connections",
            "new/s",
            "answers in",
        )
        output.table((*heads, "because of"), [_cells(server) for server in row["servers"]])
        for server in row["servers"]:
            for text in _notes(server):
                output.line(text, fg="yellow")
    return None


def _cells(server: dict[str, Any]) -> tuple[Any, ...]:
    response = server["response_ms"]
    return (
        server["name"],
        server["address"],
        server["state"],
        server["weight"],
        f"{server['effective']:g}",
        f"{server['share']:.1%}",
        f"at most {server['connections_at_most']:,} ({server['open_at_most']:,} open)",
        f"{server['new_per_s']:g}",
        f"{response:.1f} ms" if response is not None else None,
        ", ".join(f"{name.replace('_', ' ')} x {value:g}" for name, value in server["factors"].items()),
    )


def _notes(server: dict[str, Any]) -> list[str]:
    name = server["name"] or server["address"]
    notes = []
    if server["mac"] is None:
        notes.append(
            f"note: {name} answers no ARP or solicitation: nothing can be sent to {server['address']}"
        )
    if server["unsent"]:
        notes.append(f"note: {server['unsent']:,} packets for {name} could not be sent")
    if server["untracked"]:
        notes.append(
            f"note: {server['untracked']:,} packets for {name} without a session: the table was full"
        )
    return notes


@click.group("plan")
def plan_() -> None:
    """Work out what a configuration needs around this node."""


@plan_.command("addresses")
@config_option
@json_option
def addresses(file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Print the private addresses that each cluster needs, and how many public ones are saved.

    Nothing runs and nothing is asked: the configuration alone is read. What it does not name is suggested.
    """
    with node_of(file, node_name, quiet=as_json) as node:
        plans = node.address_plan()
    if as_json:
        return output.emit(plans)
    for number, plan in enumerate(plans):
        if number:
            output.line()
        output.line(f"cluster {plan['cluster']} at {plan['address']}, access subnet {plan['subnet']}")
        rows = [
            (r["role"], r["name"], r["address"], "suggested" if r["suggested"] else None)
            for r in plan["needed"]
        ]
        output.table(("role", "what", "address", ""), rows)
        output.line(f"static route of the routers: {plan['route']}")
        output.line(
            f"public addresses: {plan['public_before']} -> {plan['public_now']}, {plan['saved']} saved"
        )
    return None
