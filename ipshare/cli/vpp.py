"""vpp: the verbs about the VPP that the agent starts: startup prints its start-up file, prepare gets the
machine ready for it."""

from __future__ import annotations

from pathlib import Path

import click

from ipshare.cli import output
from ipshare.cli.machine import report
from ipshare.cli.options import file_argument, json_option, named_file


@click.group("vpp")
def vpp_() -> None:
    """The VPP that the agent starts ([vpp] managed = true): its start-up file, and the machine under it."""


@vpp_.command("startup")
@file_argument
@json_option
def startup_(file: Path | None, as_json: bool) -> None:
    """Print the start-up file that the agent would start VPP with.

    Where no VPP is installed its plugins' directories are left out.
    """
    from ipshare import config
    from ipshare.agent.vpp import settings
    from ipshare.engine.vpp.cards import addresses
    from ipshare.engine.vpp.find import PLUGIN, Install, find
    from ipshare.engine.vpp.startup import startup_conf
    from ipshare.errors import NotRunning, Refused

    wanted = config.load(named_file(file))
    if wanted.vpp is None or not wanted.vpp.managed:
        raise Refused(
            f"the agent of {wanted.node.name} starts no VPP",
            hint='[engine] kind = "vpp" and [vpp] managed = true; another VPP has its own start-up file',
        )
    what = settings(wanted)
    is_installed = True
    try:
        install = find(what.binary, what.plugin_path)
    except NotRunning:
        is_installed, install = False, Install(Path("vpp"), (), Path(PLUGIN), ())
    cards = addresses(what.metal.cards)
    text = startup_conf(what, install, cards)
    if as_json:
        output.emit({"text": text, "is_installed": is_installed, "cards": cards})
    else:
        click.echo(text, nl=False)


@vpp_.command("prepare")
@file_argument
@click.option("--last-good", is_flag=True, help="Where FILE has mistakes, take what was applied last.")
@json_option
@click.pass_context
def prepare_(ctx: click.Context, file: Path | None, last_good: bool, as_json: bool) -> None:
    """Get the machine ready for the node's VPP: hugepages, cards for DPDK, cores of its own.

    What is so already stays; what cannot be had is said, and the rest is done. 6 if something is missing.
    """
    from ipshare import config
    from ipshare.appliance import metal
    from ipshare.errors import ConfigError

    file = named_file(file).absolute()
    try:
        wanted = config.load(file)
    except ConfigError as error:
        from ipshare.agent.run import applied_last

        found = applied_last(file) if last_good else None
        if found is None:
            raise
        output.problems(error.problems)
        wanted = found
    if wanted.vpp is None:
        if as_json:
            return output.emit([])
        return output.line(f"{wanted.node.name} has no VPP: nothing to do")
    return report(ctx, metal.prepare(wanted.vpp.metal), as_json=as_json)
