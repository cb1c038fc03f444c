"""leases: the verb about public addresses by DHCP: who has which, until when, what is wrong."""

from __future__ import annotations

from pathlib import Path

import click

from ipshare.cli import output
from ipshare.cli.options import config_option, json_option, node_of


@click.command("leases")
@config_option
@json_option
def leases_(file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Show each workload of [[lease]]: the address that it has by DHCP, until when, and what is wrong.

    Asks this node's agent, which speaks DHCP while the node is active.
    """
    with node_of(file, node_name, quiet=as_json) as node:
        rows = node.leases()
    if as_json:
        return output.emit({"leases": rows})
    if not rows:
        output.line("no workload has a lease: there is no [[lease]]")
        return None
    keys = ("name", "mac", "local", "address", "state")
    table = [
        (
            *(row[key] or "-" for key in keys),
            "-"
            if row["address"] is None
            else "never"
            if row["ends_in_s"] is None
            else f"{row['ends_in_s']} s",
            row["trouble"],
        )
        for row in rows
    ]
    output.table((*keys, "ends in", "trouble"), table)
    return None
