"""remap half: this node's halves of remaps, by its agent: what is there, and a remap's steps one by one.

For whoever does them by hand, or looks at what an interrupted remap has left. `ipshare remap` does them all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ipshare.cli import output
from ipshare.cli.options import config_option, json_option, node_of

if TYPE_CHECKING:
    from ipshare.engine.remapping import RemapState


@click.group("half")
def half_() -> None:
    """This node's halves of remaps: list, state, prepare, leave, take, clear."""


@half_.command("list")
@config_option
@json_option
def list_(file: Path | None, node_name: str | None, as_json: bool) -> None:
    """List this node's halves, and the addresses that remaps have bound elsewhere than the file says."""
    with node_of(file, node_name, quiet=as_json) as node:
        found = node.remaps()
    if as_json:
        return output.emit(found)
    for half in found["halves"]:
        _say(half["state"], f"remap {half['id']}  {half['prefix']}  {half['role']}, not in the engine")
    for move in found["moves"]:
        holds = "" if move["holds"] else "; the file says otherwise by now, and holds"
        output.line(f"{move['prefix']}  from {move['was'] or 'nowhere'} to {move['to']} by a remap{holds}")
    if not found["halves"] and not found["moves"]:
        output.line("this node is half of no remap")
    return None


@half_.command("state")
@click.argument("remap_id", metavar="ID", type=int)
@config_option
@json_option
def state(remap_id: int, file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Show one half as the engine sees it."""
    with node_of(file, node_name, quiet=as_json) as node:
        _emit(node.remap_state(remap_id), as_json, f"there is no remap {remap_id} in the engine")


@half_.command("prepare")
@click.argument("remap_id", metavar="ID", type=int)
@click.argument("prefix")
@click.option("--side", type=click.Choice(["giver", "taker"]), required=True, help="Which half this node is.")
@click.option("--channel", required=True, metavar="NAME", help="The [[channel]].")
@click.option("--replies", type=click.Choice(["direct", "channel"]), default="direct", show_default=True)
@click.option("--quic", is_flag=True, help="UDP of it is QUIC.")
@config_option
@json_option
def prepare(
    remap_id: int, prefix: str, side: Literal["giver", "taker"], channel: str, quic: bool,
    replies: Literal["direct", "channel"], file: Path | None, node_name: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Make this node the giver or the taker of remap ID of PREFIX; the other node is the other one."""
    with node_of(file, node_name, quiet=as_json) as node:
        made = node.remap_prepare(remap_id, prefix, side=side, channel=channel, replies=replies, quic=quic)
        _emit(made, as_json)


@half_.command("leave")
@click.argument("remap_id", metavar="ID", type=int)
@config_option
@json_option
def leave(remap_id: int, file: Path | None, node_name: str | None, as_json: bool) -> None:
    """The giver opens no connection any more."""
    with node_of(file, node_name, quiet=as_json) as node:
        _emit(node.remap_leave(remap_id), as_json)


@half_.command("take")
@click.argument("remap_id", metavar="ID", type=int)
@config_option
@json_option
def take(remap_id: int, file: Path | None, node_name: str | None, as_json: bool) -> None:
    """The taker opens all new connections; only after the giver's fence was applied."""
    with node_of(file, node_name, quiet=as_json) as node:
        _emit(node.remap_take(remap_id), as_json)


@half_.command("clear")
@click.argument("remap_id", metavar="ID", type=int)
@config_option
@json_option
def clear(remap_id: int, file: Path | None, node_name: str | None, as_json: bool) -> None:
    """End this node's half, whatever the other one does."""
    with node_of(file, node_name, quiet=as_json) as node:
        _emit(node.remap_clear(remap_id), as_json, f"nothing to do: there is no remap {remap_id}")


def _emit(state: RemapState | None, as_json: bool, none: str = "") -> None:
    from ipshare.engine.remap_text import state_json

    found = state_json(state) if state is not None else None
    output.emit({"state": found}) if as_json else _say(found, none)


def _say(state: dict[str, Any] | None, none: str) -> None:
    from ipshare.engine.remap_text import lines, state_of

    for text in lines(state_of(state)) if state is not None else [none]:
        output.line(text)
