"""appliance backup, restore, factory-reset: the verbs for what a box was told; clock, the time that it knows;
guard, which resets it."""

from __future__ import annotations

from pathlib import Path

import click

from ipshare.cli import output
from ipshare.cli.options import json_option
from ipshare.errors import IpshareError, Refused

PATH = click.Path(path_type=Path)


@click.command("backup")
@click.option(
    "-o", "--output", "target", type=PATH, required=True, help="The backup. It holds keys: mode 0600."
)
@json_option
def backup_(target: Path, as_json: bool) -> None:
    """At the box: what it was told (site files, keys, name, addresses) in one file; no state."""
    import ipshare
    from ipshare.appliance import backup

    names = backup.backup(target, ipshare.__version__)
    if as_json:
        output.emit({"file": str(target), "entries": names})
        return
    output.line(f"{target}: {len(names)} files; it holds keys")


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def restore_(file: Path, as_json: bool) -> None:
    """At the box: make what it was told that of a backup. One with a site file that has mistakes changes
    nothing."""
    from ipshare.appliance import backup, slots

    slots.at_box()
    about, names = backup.restore(file)
    if as_json:
        output.emit({"hostname": about.get("hostname"), "version": about.get("version"), "entries": names})
        return
    output.line(f"{about.get('hostname')}: {len(names)} files; they count from the next start")


@click.command("factory-reset")
@click.option("--everything", is_flag=True, help="Epochs and terms, too: the box leaves its pair for good.")
@click.option("--reboot", is_flag=True, help="Start at once.")
@click.option("--yes", is_flag=True, help="It is meant.")
@json_option
def factory_reset_(everything: bool, reboot: bool, yes: bool, as_json: bool) -> None:
    """At the box: at the next start forget what it was told, keys and logs, too. Its seed is applied anew."""
    from ipshare.appliance import backup, restart, slots

    slots.running()
    if not yes:
        raise Refused("a factory reset takes configuration, keys and logs", hint="--yes, if that is meant")
    order = backup.order_reset(everything)
    if as_json:
        output.emit({"order": order})
    else:
        output.line(f"factory reset at the next start: {order}")
    if reboot:
        restart.now()


@click.command("clock")
@click.option("--keep", is_flag=True, help="Keep the time of now for the next start, instead.")
@json_option
def clock_(keep: bool, as_json: bool) -> None:
    """At the box, by its unit: put a clock that is empty forward to the last known time."""
    from ipshare.appliance import clock, slots

    slots.at_box()
    try:
        if keep:
            kept, late = clock.keep(), 0.0
        else:
            kept = clock.known()
            late = clock.put_forward(lambda text: None if as_json else output.line(f"ipshare: {text}"))
    except OSError as error:
        raise IpshareError(
            f"the time cannot be {'kept' if keep else 'set'}: {error.strerror}", hint="run as root"
        ) from error
    if as_json:
        output.emit({"known": kept, "put_forward_s": late})


@click.command("guard")
def guard_() -> None:
    """At the box, by its unit: reset the machine if its data path hangs for half a minute, or a workload may
    run beyond its lease."""
    from ipshare.appliance import guard, slots

    slots.at_box()
    guard.run(lambda text: output.line(f"ipshare: {text}"))
