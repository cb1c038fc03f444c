"""appliance install-disk, wizard, console: the first minutes of a box without a seed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ipshare.cli import exits, output
from ipshare.cli.options import json_option
from ipshare.errors import Refused


@click.command("install-disk")
@click.argument("disk", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="What the disk has may be lost.")
@json_option
def install_disk_(disk: Path, yes: bool, as_json: bool) -> None:
    """At the live system of the ISO: make DISK (/dev/sda) a disk of the appliance. What it has is lost."""
    from ipshare.appliance import disks, medium

    found = medium.read()
    known = {each.device: each for each in disks.look(found.disk.size)}
    wanted = known.get(str(disk.resolve()))
    if wanted is None:
        raise Refused(
            f"{disk} is no disk", hint=f"one of {', '.join(known) or 'none: this machine has no disk'}"
        )
    if wanted.against:
        raise Refused(f"{disk}: {'; '.join(wanted.against)}", hint="nothing was written")
    if not yes:
        raise Refused(
            f"everything on {disk} ({wanted.size / 1e9:,.1f} GB {wanted.model}) is lost",
            hint="--yes, if that is meant",
        )
    medium.install(found, medium.PLACE, Path(wanted.device), (lambda text: None) if as_json else output.line)
    if as_json:
        output.emit({"disk": wanted.device, "version": found.version})
        return
    output.line(f"{disk} has ipshare {found.version}: take the medium out, and start again")


@click.command("wizard")
@json_option
@click.pass_context
def wizard_(ctx: click.Context, as_json: bool) -> None:
    """At the box: asks what it is to be told, shows it, applies it as a seed. With --json the questions go to
    standard error."""
    from ipshare.appliance import firstboot, volumes, wizard

    if not Path("/run/ipshare-slot").is_dir():
        raise Refused("this machine was not started from an appliance image", hint="docs/appliance.md")
    terminal = wizard.Terminal(sys.stdin, sys.stderr if as_json else sys.stdout)
    before, said = wizard.state(), list[str]()
    is_applied = False
    try:
        texts = wizard.ask(terminal, wizard.ethernets(), volumes.public_keys, Path("/"))
        is_applied = wizard.apply(texts, before, said.append if as_json else terminal.say)
        firstboot.take_effect()
    except wizard.Left:
        terminal.say("\nLeft; nothing was changed.")
    if as_json:
        output.emit({"applied": is_applied, "said": said})
    if not is_applied:
        ctx.exit(exits.NO)


@click.command("console")
def console_() -> None:
    """At the box, by its unit, on tty1 and the serial line: menu, wizard, or what the box is. No shell."""
    from ipshare.appliance import console, slots, wizard

    if not sys.stdin.isatty():
        raise Refused("this is no terminal", hint="ipshare appliance wizard")
    console.run(wizard.Terminal(sys.stdin, sys.stdout), console.Box(slots.is_live()))
