"""why: what happens to one packet, and because of what. Nothing is sent and nothing is counted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import output
from ipshare.cli.options import config_option, json_option, node_of

if TYPE_CHECKING:
    from ipshare.engine.asking import Answer


@click.command(
    "why",
    epilog="Words: syn ack rst fin psh urg df, ttl N, len N, frag N[+], id N, tos N, type N, code N, mtu N.",
)
@click.argument("description", nargs=-1, required=True)
@config_option
@click.option("--offline", is_flag=True, help="Ask the configuration file instead of the running engine.")
@click.option(
    "--side", type=click.Choice(["outer", "inner"]), help="Where it enters. Default: by its destination."
)
@json_option
def why_(
    description: tuple[str, ...],
    file: Path | None,
    node_name: str | None,
    offline: bool,
    side: Any,
    as_json: bool,
) -> None:
    """Ask what happens to a packet: which binding, which verdict, what is sent.

    \b
    ipshare why 'tcp 198.51.100.7:1234 > 203.0.113.5:80 syn ttl 64'
    ipshare why 'udp 198.51.100.7:53 > 203.0.113.5:53 len 1500 df'
    ipshare why hex:450000...
    """
    with node_of(file, node_name, quiet=as_json) as node:
        answer = node.why(" ".join(description), side=side, offline=offline)
    output.emit(answer.to_json()) if as_json else _print(answer, offline)


def _print(answer: Answer, offline: bool) -> None:
    colour = "red" if answer.disposition == "drop" else "green"
    output.line(f"packet      {answer.packet}")
    output.line(f"enters      the {answer.side} side" + (" (asked of the file, offline)" if offline else ""))
    output.line(f"binding     {answer.binding or 'none'}" + (f" -> {answer.target}" if answer.target else ""))
    if answer.endpoint:
        output.line(f"end point   {answer.endpoint}")
    output.line(f"generation  {answer.generation}")
    output.line(f"verdict     {answer.verdict}: {answer.text}", fg=colour)
    for made in answer.packets:
        output.line(f"sends       {made['text']}")
    for made in answer.errors:
        output.line(f"answers     {made['text']}")
    if not answer.packets and not answer.errors:
        is_sent = answer.disposition == "send"  # a flow's first packet through NAT
        output.line("sends       " + ("it, from a public port that is chosen then" if is_sent else "nothing"))
