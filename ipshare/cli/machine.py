"""machine: the verbs about the machine that a node is on: hw-check, support-bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ipshare.cli import exits, output
from ipshare.cli.options import FILE, json_option

if TYPE_CHECKING:
    from ipshare.appliance.machine import Finding


@click.command("hw-check")
@click.argument("file", required=False, type=FILE)
@json_option
@click.pass_context
def hw_check_(ctx: click.Context, file: Path | None, as_json: bool) -> None:
    """Say what this machine has for a node: processor, cards and their drivers, hugepages, IOMMU, NUMA. With
    FILE: also whether it has what that configuration asks for its VPP."""
    from ipshare import config
    from ipshare.appliance import hardware, metal

    wanted = config.load(file) if file is not None else None
    found = hardware.look()
    if wanted is not None and wanted.vpp is not None:
        found += metal.ask(wanted.vpp.metal)
    report(ctx, found, as_json=as_json)


def report(ctx: click.Context, found: Sequence[Finding], *, as_json: bool) -> None:
    """Shows findings, and ends with NO if something is missing."""
    if as_json:
        output.emit([asdict(finding) for finding in found])
    else:
        words = {True: "good", False: "missing", None: "-"}
        output.table(["what", "", "found"], [[f.name, words[f.is_good], f.text] for f in found])
    if any(finding.is_good is False for finding in found):
        ctx.exit(exits.NO)


@click.command("support-bundle")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), required=True, help="The .tar.gz.")
@json_option
def support_bundle_(target: Path, as_json: bool) -> None:
    """Collect configuration, state, logs and counters of this machine's nodes in one archive, secrets
    removed."""
    from ipshare.appliance import support

    with output.working("collecting", quiet=as_json):
        texts = support.files([Path("/etc/ipshare"), Path("/run/ipshare"), Path("/var/lib/ipshare")])
        texts |= support.outputs()
        support.write(target, texts)
    if as_json:
        output.emit({"file": str(target), "entries": sorted(texts)})
    else:
        output.line(f"{target}: {len(texts)} entries; look through it before it leaves the house")
