"""probe: what the network around a node really does: path MTU, and whether replies get out."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.agent.egress import PORT
from ipshare.cli import exits, output
from ipshare.cli.options import config_option, json_option, node_of

if TYPE_CHECKING:
    from ipshare.api import Node


@click.group("probe")
def probe_() -> None:
    """Measure the network around this node."""


def _measured(node: Node) -> list[dict[str, Any]]:
    from ipshare.agent.client import AgentClient
    from ipshare.agent.prober import Prober
    from ipshare.errors import NotRunning

    try:
        with AgentClient(node.config.node.runtime_dir) as agent:
            rows: list[dict[str, Any]] = agent.call("probe")["paths"]
            return rows
    except NotRunning:
        prober = Prober()
        prober.run(node.config)
        return prober.report()


@probe_.command("mtu")
@config_option
@json_option
@click.pass_context
def mtu(ctx: click.Context, file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Measure what the paths to the other nodes carry, both ways, with DF.

    Needs a tunnel address at the other end: its engine answers there. Where an agent runs, it
    measures and tells its engine what it found; otherwise nothing is changed.
    """
    from ipshare.agent.prober import paths

    with node_of(file, node_name, quiet=as_json) as node, output.working("probing", quiet=as_json):
        rows = _measured(node)
    without = _without_address(node.config, {path.name for path in paths(node.config)})
    if as_json:
        output.emit({"paths": rows, "not_probed": without})
    else:
        if rows:
            keys = ("name", "family", "address", "configured", "measured", "state")
            output.table(keys, [tuple(row[key] for key in keys) for row in rows])
        for name in without:
            output.line(f"{name}: not probed, it has no tunnel address that would answer", fg="yellow")
        if not rows and not without:
            output.line("nothing to probe: this node has no other one to send to")
    ctx.exit(exits.OK if all(row["state"] == "ok" for row in rows) else exits.NO)


def _without_address(config: Any, probed: set[str]) -> list[str]:
    far = [
        *(config.endpoints if config.self_distribution is not None else ()),
        *(config.distributions if config.self_endpoint is not None else ()),
    ]
    return [place.name for place in far if not place.is_self and place.name not in probed]


@probe_.command("egress")
@click.option("--listen", is_flag=True, help="Answer probes; run this on a host elsewhere.")
@click.option("--address", default="0.0.0.0", show_default=True, help="With --listen: where; :: for IPv6.")
@click.option("--to", "host", metavar="HOST", help="The host that runs --listen.")
@click.option("--source", metavar="GLOBAL-IP", help="The Global IP that replies will leave with.")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65535), help="UDP port.")
@json_option
@click.pass_context
def egress(
    ctx: click.Context,
    listen: bool,
    address: str,
    host: str | None,
    source: str | None,
    port: int,
    as_json: bool,
) -> None:
    """Find out whether the provider lets packets out whose source is a Global IP.

    \b
    elsewhere:         ipshare probe egress --listen
    at the end point:  ipshare probe egress --to ELSEWHERE --source 203.0.113.5
    """
    from ipshare.agent import egress as prober

    if listen:
        server = prober.open_listener(address, port)
        if not as_json:
            output.line(f"listening at {address} port {port} (UDP) until Ctrl-C")
        return prober.listen(server, heard=lambda nonce, sender: _heard(nonce, sender, as_json))
    if host is None or source is None:
        raise output.UsageProblem("--to and --source are needed", "or --listen at the other end")
    try:
        wanted = ip_address(source)
    except ValueError:
        raise output.UsageProblem(f"{source!r} is no address", "--source 203.0.113.5") from None
    answer = prober.probe(wanted, host, port)
    if as_json:
        output.emit(
            {
                "source": str(answer.source),
                "listener": answer.listener,
                "passes": answer.passes,
                "seen_as": answer.seen_as,
                "text": answer.sentence,
            }
        )
    else:
        output.line(answer.sentence, fg="green" if answer.passes else "red")
    ctx.exit(exits.OK if answer.passes else exits.FAILURE if answer.passes is None else exits.NO)
    return None


def _heard(nonce: str, sender: str, as_json: bool) -> None:
    if as_json:
        output.emit({"nonce": nonce, "from": sender}, one_line=True)
    else:
        output.line(f"heard {nonce} from {sender}")
