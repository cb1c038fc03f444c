"""bgp: the verbs about announcements: status, drain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ipshare.cli import output
from ipshare.cli.options import config_option, json_option, node_of


@click.group("bgp")
def bgp_() -> None:
    """This node's announcements by BGP."""


@bgp_.command("status")
@config_option
@json_option
def status(file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Show what is announced, why or why not, and the session with each neighbour.

    Asks this node's agent, which asks BIRD.
    """
    with node_of(file, node_name, quiet=as_json) as node:
        _show(node.bgp(), as_json)


@bgp_.command("drain")
@click.argument("switch", type=click.Choice(["on", "off"]))
@config_option
@json_option
def drain(switch: str, file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Take this node out of service without losing a packet, or back into it.

    Its neighbours are asked to prefer others (RFC 8326); after drain_time the announcements are withdrawn.
    Stays so over restarts and reboots.
    """
    with node_of(file, node_name, quiet=as_json) as node:
        _show(node.drain(switch == "on"), as_json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        return output.emit(found)
    colour = {"announced": "green", "held": "red"}.get(found["state"], "yellow")
    output.line(f"{found['state']}: {found['why']}", fg=colour)
    bird = (
        f"BIRD {found['bird_version']}, process {found['bird_pid']}" if found["bird_pid"] else "no BIRD runs"
    )
    output.line(f"AS {found['asn']}, router id {found['router_id']}; {bird}")
    if found["trouble"]:
        output.line(f"note: {found['trouble']}", fg="yellow")
    names = [(n["name"], n["prefix"], "yes" if n["announced"] else "no") for n in found["networks"]]
    output.table(("network", "prefix", "announced"), names)
    rows = [
        (
            n["address"],
            f"AS {n['asn']}",
            n["state"],
            "-" if n["since_s"] is None else f"{n['since_s']} s",
            str(n["announced"]),
            n["bfd"] or "-",
            n["trouble"],
        )
        for n in found["neighbors"]
    ]
    output.table(("neighbour", "", "session", "for", "routes", "BFD", "trouble"), rows)
    return None
