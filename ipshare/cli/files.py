"""files: the verbs that only read files: check, import, schema."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from ipshare.cli import exits, output
from ipshare.cli.options import FILE, file_argument, file_option, json_option, named_file


@click.command("check")
@file_argument
@click.option("--machine", is_flag=True, help="Also say what this machine has against it (needs root).")
@json_option
@click.pass_context
def check_(ctx: click.Context, file: Path | None, machine: bool, as_json: bool) -> None:
    """Find every mistake in the configuration FILE: all of them at once, each with its place and a remedy."""
    from ipshare import config

    file = named_file(file)
    with output.working("checking", quiet=as_json):
        report = config.check(file)
    found = list(report.problems)
    against = []
    if machine and report.config is not None:
        from ipshare.api import Node

        against = list(Node(report.config).check())
    code = exits.USAGE if found else exits.REFUSED if against else exits.OK
    if as_json:
        record = {"ok": not code, "file": str(file), "problems": [asdict(p) for p in found]}
        record |= {"warnings": [asdict(p) for p in report.warnings], "machine": [asdict(p) for p in against]}
        output.emit(record)
    else:
        output.problems(report.warnings, warning=True)
        output.problems([*found, *against])
        if not code and report.config is not None:
            output.line(f"{file}: no mistakes ({_size(report.config)})")
        elif found:
            output.line(f"{len(found)} mistake{'s' if len(found) != 1 else ''}")
    ctx.exit(code)


def _size(config: object) -> str:
    from ipshare.model import Config

    assert isinstance(config, Config), "a report without problems has one"
    bindings = len(config.bindings) + (len(config.bulk) if config.bulk is not None else 0)
    counts = {"network": len(config.networks), "end point": len(config.endpoints), "binding": bindings}
    return ", ".join(f"{n:,} {name}{'s' if n != 1 else ''}" for name, n in counts.items())


@click.command("import")
@click.argument("bindings", type=FILE)
@file_option
@click.option("--write", is_flag=True, help="Put it in the place of the configured bindings file.")
@json_option
def import_(bindings: Path, file: Path | None, write: bool, as_json: bool) -> None:
    """Read the bindings file BINDINGS (CSV or JSON), and show how it differs from what is configured.

    Nothing is changed without --write, and nothing a packet sees before the next apply.
    """
    from ipshare import config
    from ipshare.config.bulk import render_diff
    from ipshare.errors import Refused

    file = named_file(file)
    with output.working("reading bindings", quiet=as_json):
        new = config.import_bindings(bindings)
        report = config.check(file)
        if report.config is None:
            from ipshare.errors import ConfigError

            raise ConfigError(report.problems, report.warnings)
        files = report.config.bulk.files if report.config.bulk is not None else ()
        if len(files) > 1:
            raise Refused(
                f"the configuration has {len(files)} bindings files",
                hint="put them together, or edit the one you mean",
            )
        if write and not files:
            raise Refused(
                "the configuration names no bindings file to replace",
                hint=f'add [[bindings_file]] with path = "{bindings}" to it',
            )
        old = config.import_bindings(files[0]) if files else type(new)(new.rows[:0], (), (), ())
        difference = config.diff_bindings(old, new)
    written = False
    if write and difference:
        from ipshare.cli.replace import replace_checked

        replace_checked(bindings, files[0], file)
        written = True
    if as_json:
        counts = {
            "added": len(difference.added),
            "removed": len(difference.removed),
            "changed": len(difference.before),
        }
        output.emit({"bindings": len(new), **counts, "written": str(files[0]) if written else None})
        return
    output.marked(render_diff(difference).splitlines() if difference else ["nothing differs"])
    if written:
        output.line(f"{files[0]} replaced; `ipshare apply` makes it live")
    elif difference:
        output.line("nothing was changed" + ("; --write does" if files and not write else ""))


@click.command("schema")
@click.option("--json", "_as_json", is_flag=True, help="It is JSON in any case.")
def schema_(_as_json: bool) -> None:
    """Print the JSON Schema of configuration files, for editors."""
    from ipshare import config

    output.emit(config.json_schema())
