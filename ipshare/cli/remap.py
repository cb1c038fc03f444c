"""remap: an address to another end point while its connections live on: begin, go on, abort, look (S4).

`ipshare remap ADDRESS --from A --to B` is the verb itself; status, list, resume, abort, half stand beside it.
What a remap is lies in ipshare.remap; here are words, a live view, and exit codes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import exits, output
from ipshare.cli.options import FILE, Duration, json_option
from ipshare.cli.remap_half import half_

if TYPE_CHECKING:
    from ipshare.remap.executor import OnChange, View
    from ipshare.remap.machine import Progress

JOURNAL = Path("/var/lib/ipshare/remaps")


class RemapGroup(click.Group):
    """Whose first word is a verb, or the address of a new remap."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, "start")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "start", self.commands["start"], args


@click.group("remap", cls=RemapGroup, subcommand_metavar="ADDRESS --from A --to B | VERB ...")
def remap_() -> None:
    """Move an address to another end point while its open connections live on (docs/remap.md).

    ADDRESS is an address or a prefix that is bound to end point A. New connections are opened at B, those of
    A stay there until they end, or the deadline cuts them.
    """


def nodes_options(verb: Any) -> Any:
    verb = click.option(
        "--node", "named", metavar="NAME=SOCKET", multiple=True,
        help="A node and its agent's control socket (or the runtime_dir that it is in). For each node: both "
        "end points' and every distribution point.",
    )(verb)  # fmt: skip
    verb = click.option(
        "--nodes", "file", type=FILE, envvar="IPSHARE_NODES",
        help="A TOML file with [[node]] name and socket, or address. Default: $IPSHARE_NODES.",
    )(verb)  # fmt: skip
    return journal_option(verb)


journal_option = click.option(
    "--journal", type=FILE, envvar="IPSHARE_REMAPS", default=JOURNAL, show_default=True,
    help="Directory where remaps are written down, so that an interrupted one can go on.",
)  # fmt: skip
deadline_option = click.option(
    "--deadline", "deadline_s", type=Duration(),
    help='After so long, connections that are left at A are cut and named, for example "2h". Default: never.',
)  # fmt: skip


@remap_.command("start")
@click.argument("address")
@click.option("--from", "origin", required=True, metavar="A", help="End point that has it.")
@click.option("--to", "to", required=True, metavar="B", help="End point that gets it.")
@deadline_option
@click.option(
    "--replies", type=click.Choice(["direct", "channel"]), default="direct", show_default=True,
    help="How replies of connections at A leave: straight to the client, or back through the channel and B.",
)  # fmt: skip
@click.option("--quic", is_flag=True, help="UDP of it is QUIC: an unknown short header opens nothing at B.")
@click.option("--channel", metavar="NAME", help="Which [[channel]]. Default: the first that suits.")
@click.option(
    "--silence", "silence_s", type=Duration(), default=300.0, show_default="5m",
    help="How long a connection may be silent without being missed: no connections left ends the remap only "
    "once the address was tracked that long.",
)  # fmt: skip
@click.option(
    "--patience", "patience_s", type=Duration(), default=30.0, show_default="30s",
    help="How long a step may take that can be undone.",
)  # fmt: skip
@nodes_options
@json_option
@click.pass_context
def start(
    ctx: click.Context, /, address: str, origin: str, to: str, as_json: bool,
    named: tuple[str, ...], file: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Remap ADDRESS from end point A to B. The same command again goes on with one that was interrupted."""
    prefix = _prefix(address)
    from ipshare.remap import remap

    def work(look: OnChange) -> Progress:
        nodes = _nodes(named, file)
        return remap(prefix, origin=origin, to=to, nodes=nodes, on_change=look, **options)

    _watch(ctx, work, as_json)


@remap_.command("resume")
@click.argument("remap_id", metavar="[ID]", type=int, required=False)
@deadline_option
@nodes_options
@json_option
@click.pass_context
def resume_(
    ctx: click.Context, remap_id: int | None, deadline_s: float | None, as_json: bool,
    named: tuple[str, ...], file: Path | None, journal: Path,
) -> None:  # fmt: skip
    """Go on with a remap that was interrupted. `--deadline 0s` ends one that drains."""
    from ipshare.remap import resume

    def work(look: OnChange) -> Progress:
        nodes = _nodes(named, file)
        return resume(remap_id, nodes=nodes, deadline_s=deadline_s, journal=journal, on_change=look)

    _watch(ctx, work, as_json)


@remap_.command("abort")
@click.argument("remap_id", metavar="[ID]", type=int, required=False)
@nodes_options
@json_option
@click.pass_context
def abort_(
    ctx: click.Context, remap_id: int | None, as_json: bool,
    named: tuple[str, ...], file: Path | None, journal: Path,
) -> None:  # fmt: skip
    """Undo a remap, as long as no distribution point was told to flip."""
    from ipshare.remap import abort
    from ipshare.remap.text import outcome, report

    done = abort(remap_id, nodes=_nodes(named, file, needed=False), journal=journal)
    if done is None:
        said = "the process that works on it was told to undo it"
        return output.emit({"told": True, "remap": None}) if as_json else output.line(said)
    if as_json:
        output.emit({"told": False, "remap": report(done)})
    else:
        for text in outcome(done):
            output.line(text)
    return None


@remap_.command("status")
@click.argument("remap_id", metavar="[ID]", type=int, required=False)
@nodes_options
@json_option
def status(
    remap_id: int | None, as_json: bool, named: tuple[str, ...], file: Path | None, journal: Path
) -> None:
    """Show where a remap is: by its journal and, where nodes are named, by what they say now."""
    from ipshare.remap.run import seen
    from ipshare.remap.text import count_line, doing, report

    progress, view = seen(remap_id, nodes=_nodes(named, file, needed=False), journal=journal)
    if as_json:
        return output.emit(report(progress, view))
    output.line(f"remap {progress.plan.id}: {progress.plan}")
    output.line(f"  {progress.step.value}: {doing(progress)}" + _because(progress))
    for text in filter(None, [count_line(progress, view), _late(progress)]):
        output.line(f"  {text}")
    for node, why in view.silent.items():
        output.line(f"  {node} does not answer: {why}", fg="yellow")
    return None


@remap_.command("list")
@journal_option
@json_option
def list_(journal: Path, as_json: bool) -> None:
    """List the remaps of the journal, the earliest first."""
    from ipshare.remap import listed
    from ipshare.remap.text import report

    entries = listed(journal)
    if as_json:
        return output.emit([report(entry.progress) for entry in entries])
    if not entries:
        return output.line("there was no remap")
    rows = [(str(e.id), str(e.progress.plan), e.progress.step.value, e.progress.reason) for e in entries]
    output.table(("id", "remap", "step", "why"), rows)
    return None


remap_.add_command(half_)


def _because(progress: Progress) -> str:
    return f" ({progress.reason})" if progress.reason else ""


def _late(progress: Progress) -> str:
    from ipshare.remap.machine import Step

    if progress.step is not Step.FLIPPING:
        return ""
    return f"not flipped yet: {', '.join(progress.waits_for)}"


def _prefix(address: str) -> Any:
    from ipaddress import ip_network

    try:
        return ip_network(address)
    except ValueError:
        raise output.UsageProblem(
            f"{address!r} is neither an address or prefix nor a verb of remap",
            "write 203.0.113.7 or 203.0.113.0/24, or see ipshare remap --help",
        ) from None


def _nodes(named: tuple[str, ...], file: Path | None, *, needed: bool = True) -> dict[str, Any]:
    from ipshare.remap.nodes import AgentNode, read_nodes

    nodes = read_nodes(file) if file is not None else {}
    for text in named:
        name, equals, socket = text.partition("=")
        if not (name and equals and socket):
            raise output.UsageProblem(f"--node {text!r} is not NAME=SOCKET", "as in a1=/run/ipshare/a1")
        nodes[name] = AgentNode(Path(socket))
    if needed and not nodes:
        raise output.UsageProblem(
            "no node was named",
            "name both end points' nodes and every distribution point: --node NAME=SOCKET or --nodes FILE",
        )
    return nodes


def _watch(ctx: click.Context, work: Callable[[OnChange], Progress], as_json: bool) -> None:
    """Does ``work`` under a live view, a line a step, or silently; then says what became of it."""
    from ipshare.remap.machine import Step
    from ipshare.remap.text import outcome, report

    last: list[View] = []

    def keep(progress: Progress, view: View) -> None:
        last[:] = [view]

    if as_json:
        progress = work(keep)
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        progress = _live(work)
    else:
        progress = work(_LineByLine())
    if as_json:
        output.emit(report(progress, last[0] if last else None))
    else:
        for text in outcome(progress):
            output.line(text)
    ctx.exit(exits.REFUSED if progress.step is Step.UNDONE else exits.OK)


class _LineByLine:
    """For pipes and logs: each step once, and the count when it has changed, every few seconds."""

    EVERY_S = 5.0

    def __init__(self) -> None:
        self._step, self._said, self._at = "", "", 0.0

    def __call__(self, progress: Progress, view: View) -> None:
        from ipshare.remap.text import count_line, doing

        if progress.step.is_over:
            return
        if progress.step.value != self._step:
            self._step = progress.step.value
            output.line(f"{self._step}: {doing(progress)}" + _because(progress))
        text = count_line(progress, view) if self._step == "draining" else _late(progress)
        if text and text != self._said and view.now_s - self._at >= self.EVERY_S:
            self._said, self._at = text, view.now_s
            output.line(f"  {text}")


def _live(work: Callable[[OnChange], Progress]) -> Progress:
    """The steps with what is done, and what is left at A, drawn again and again."""
    from rich.console import Console
    from rich.live import Live

    from ipshare.cli.remap_view import panel

    console = Console(no_color=bool(os.environ.get("NO_COLOR")))
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        return work(lambda progress, view: live.update(panel(progress, view)))
