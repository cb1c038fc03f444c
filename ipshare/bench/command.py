"""command: ``ipshare bench``: options, progress on stderr, figures on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ipshare.bench import SELECTIONS, machine, plot, run
from ipshare.bench.result import table
from ipshare.errors import IpshareError


@click.command("bench")
@click.argument("selection", nargs=-1, type=click.Choice(SELECTIONS))
@click.option("--quick", is_flag=True, help="Fewer bindings and repetitions: under half a minute.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of {name, value, unit, peer, ratio}.")
@click.option("--plot", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write an SVG.")
def bench(selection: tuple[str, ...], quick: bool, as_json: bool, file: Path | None) -> None:
    """Measure this machine: core (ns per packet), tables (programming), mirror (changes a second), remap
    (ns per packet), forwarding (beside nftables).

    Takes about three minutes; forwarding needs root. docs/performance.md says what the figures mean.
    """
    if file is not None:
        _claim(file)
    here = machine.this()
    click.echo(here.describe(), err=True)
    results = run(selection or None, progress=lambda line: click.echo(line, err=True), quick=quick)
    if file is not None:
        file.write_text(plot.svg(results, here.describe()))
    click.echo(json.dumps([r.as_dict() for r in results], indent=1) if as_json else table(results))


def _claim(file: Path) -> None:
    """Before minutes of work. Raises IpshareError where the file cannot be written."""
    try:
        file.touch()
    except OSError as error:
        raise IpshareError(f"cannot write {file}: {error.strerror}", hint="--plot FILE elsewhere") from None


def main(arguments: list[str]) -> int:
    """Returns the exit code. An IpshareError is the caller's: the CLI prints it with its hint."""
    try:
        bench.main(arguments, prog_name="ipshare bench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Abort:
        return 130
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except IpshareError as error:
        sys.exit(f"{error.message}{f' ({error.hint})' if error.hint else ''}")
