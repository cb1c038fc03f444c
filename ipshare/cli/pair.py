"""pair: the verbs about a redundant pair: status, ready, switchover, force, maintenance, key, drill."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import exits, output
from ipshare.cli.drill import drill
from ipshare.cli.options import FILE, Duration, config_option, json_option, node_of
from ipshare.errors import Refused

if TYPE_CHECKING:
    from ipshare.api import Node
    from ipshare.engine.pairing import PairState

timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=Duration(),
    default="10s",
    show_default=True,
    help="How long to wait for what comes of it.",
)


@click.group("pair")
def pair_() -> None:
    """This node's half of a redundant pair: where it is, and orders to it."""


@pair_.command("status")
@config_option
@click.option("--watch", is_flag=True, help="Then each change, until Ctrl-C.")
@json_option
def status(file: Path | None, node_name: str | None, watch: bool, as_json: bool) -> None:
    """Show whether this node is initial, active, standby or inop, why, and what is wrong with the pair.

    Asks this node's engine; what it says of the other node is what that one said last.
    """
    with node_of(file, node_name, quiet=as_json) as node:
        if not watch:
            _show(node, node.pair(), as_json)
            return
        for number, state in enumerate(node.watch_pair()):
            if as_json:
                output.emit(_report(node, state), one_line=True)
            elif number == 0:
                _show(node, state, as_json)
            else:
                _say_change(state)


@pair_.command("ready")
@config_option
@click.option(
    "--wait",
    "wait_s",
    type=Duration(),
    default="0s",
    show_default=True,
    help="How long to wait for it, also for an engine that is still to start.",
)
@json_option
@click.pass_context
def ready(ctx: click.Context, file: Path | None, node_name: str | None, wait_s: float, as_json: bool) -> None:
    """Would a switchover be taken now: one node active, the other standby, with all sessions? Ask either."""
    with node_of(file, node_name, quiet=as_json) as node, output.working("waiting", quiet=as_json):
        state = node.pair_ready(wait_s=wait_s)
        if as_json:
            output.emit(_report(node, state))
        else:
            _say_ready(node, state)
    if not state.is_ready:
        ctx.exit(exits.NO)


@pair_.command("switchover")
@config_option
@timeout_option
@json_option
def switchover(file: Path | None, node_name: str | None, timeout_s: float, as_json: bool) -> None:
    """Make the other node active: the active one hands over, if its peer is ready. Ask either of them."""
    with node_of(file, node_name, quiet=as_json) as node, output.working("switching over", quiet=as_json):
        state = node.pair_switchover(timeout_s=timeout_s)
        _done(node, state, as_json)


@pair_.command("force")
@click.option("--yes", is_flag=True, help="The other node forwards nothing: I have seen to it.")
@config_option
@timeout_option
@json_option
def force(file: Path | None, node_name: str | None, yes: bool, timeout_s: float, as_json: bool) -> None:
    """Make this node active although it does not hear its peer.

    Where the peer is active after all, both answer for the VIP and forward, until they hear each other.
    """
    if not yes:
        raise output.UsageProblem(
            "force makes this node active whatever the other one does: two may be active then",
            "switch the other node off (or its ports), and say --yes",
        )
    with node_of(file, node_name, quiet=as_json) as node:
        _done(node, node.pair_force(timeout_s=timeout_s), as_json)


@pair_.command("maintenance")
@click.argument("switch", type=click.Choice(["on", "off"]))
@config_option
@timeout_option
@json_option
def maintenance(
    switch: str, file: Path | None, node_name: str | None, timeout_s: float, as_json: bool
) -> None:
    """Take this node out of the pair (inop; an active one hands over), or back into it."""
    with node_of(file, node_name, quiet=as_json) as node:
        _done(node, node.pair_maintenance(switch == "on", timeout_s=timeout_s), as_json)


@pair_.command("key")
@click.argument("target", metavar="FILE", type=FILE)
@json_option
def key(target: Path, as_json: bool) -> None:
    """Make a key for a pair in the new file FILE, mode 0600. Both nodes need the same one."""
    from ipshare.agent.pair import make_key

    make_key(target)
    if as_json:
        output.emit({"file": str(target)})
    else:
        output.line(f"{target} made; copy it to the other node, where it is root's and of mode 0600 as well")


pair_.add_command(drill)


def _report(node: Node, state: PairState) -> dict[str, Any]:
    from ipshare.engine.pair_text import report

    pair = _pair(node)
    return report(state, pair)


def _pair(node: Node) -> Any:
    """Of what was applied."""
    return (node.store.current() or node.config).pair


def _show(node: Node, state: PairState, as_json: bool) -> None:
    from ipshare.engine.pair_text import lines, troubles

    if as_json:
        return output.emit(_report(node, state))
    for text in lines(state, _pair(node)):
        output.line(text)
    for text in troubles(state, _pair(node)):
        output.line(f"{'note':12} {text}", fg="yellow")
    return None


def _say_change(state: PairState) -> None:
    import time

    from ipshare.engine.pair_text import change_line

    output.line(f"{time.strftime('%H:%M:%S')} {change_line(state)}")


def _say_ready(node: Node, state: PairState) -> None:
    from ipshare.engine.flows_text import mirror_troubles
    from ipshare.engine.pair_text import ready_lines

    config, found = node.store.current() or node.config, []
    if config.mirror is not None:
        try:
            found = mirror_troubles(node.mirror_state(), config)
        except Refused as error:  # not yet
            found = [error.message]
    for text in ready_lines(state, _pair(node), found):
        output.line(text)


def _done(node: Node, state: PairState, as_json: bool) -> None:
    if as_json:
        output.emit(_report(node, state))
    else:
        output.line(f"this node is {state.state}: {state.reason_text}")
