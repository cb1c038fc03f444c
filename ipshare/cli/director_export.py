"""director_export: `ipshare director export`: the topology in force, as a director's file.

The director says what is in force, and whether some revision has what FILE says; ipshare.director.export
makes the text; here it is printed, or put in FILE's place. A file is replaced in one step, after a copy of
what it was (FILE.bak) is on the disk, and not at all if somebody wrote to it meanwhile.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from ipshare.cli import output
from ipshare.cli.director import _director, director_, file_option
from ipshare.cli.options import FILE, json_option
from ipshare.errors import ConfigError, IpshareError, Refused


@director_.command("export")
@click.option(
    "--write", "target", type=FILE, metavar="FILE", help="Bring FILE up to date, and keep FILE.bak."
)
@click.option("--force", is_flag=True, help="With --write: also over changes in FILE that no revision has.")
@file_option
@json_option
def export(target: Path | None, force: bool, file: Path, as_json: bool) -> None:
    """Print the director's file with the topology in force, as after a failover; or write it.

    Settings, comments and what did not change stay as they are. `ipshare director diff` then shows nothing.
    """
    base = target if target is not None and target.exists() else file
    texts = _texts(base)
    with _director(file) as director:
        found = director.call("export", **({"path": str(base.absolute())} if base == target else {}))
    if base == target and found["applied"] is None and not force:
        raise Refused(
            f"{target} has changes that no revision has: they would be lost",
            hint="ipshare director diff shows them: apply them first; or --force; or --write another file",
        )
    made = _made(texts, found["tables"])
    changed = [name for name in made if made[name] != texts[name]]
    written = []
    if target is not None:
        new = {str(target): made[str(base)]} if base != target else {name: made[name] for name in changed}
        if base != target and len(made) > 1:
            raise Refused(
                f"{base} includes other files, and {target} would too", hint="--write the file itself"
            )
        written = [_written(Path(name), text, texts.get(name)) for name, text in new.items()]
    if as_json:
        return output.emit(
            {
                "revision": found["revision"],
                "tables": found["tables"],
                "changed": changed,
                "written": written,
            }
        )
    if target is not None:
        for name in written:
            output.line(f"{name}: written, as of revision {found['revision']}")
        return output.line("nothing differs") if not written else None
    for name, text in made.items():
        if len(made) > 1:
            click.echo(f"# ---- {name}")
        click.echo(text, nl=False)
    return None


def _texts(file: Path) -> dict[str, str]:
    """Of the file and of all that it includes, in their order. Raises ConfigError."""
    from ipshare.config.read import read, text_of
    from ipshare.model import Place

    document = read(file)
    if document.problems:
        raise ConfigError(document.problems)
    return {str(path): text_of(document, path, Place(path), "") or "" for path in document.files}


def _made(texts: dict[str, str], tables: dict[str, Any]) -> dict[str, str]:
    try:
        from ipshare.director.export import exported
    except ImportError as error:
        raise Refused(
            f"the Python package {error.name} is not installed", hint="pip install 'ipshare[export]'"
        ) from None
    from ipshare.director.topology import Topology

    return exported(texts, Topology(tables))


def _written(file: Path, text: str, before: str | None) -> str:
    """In one step, with the owner and mode that it had. ``before``: what it was when it was read; None: it
    was not there."""
    file = file.resolve()
    try:
        aside = file.with_name(file.name + ".new")
        if before is not None:
            if file.read_text("utf-8-sig") != before:
                raise Refused(f"{file} was written meanwhile", hint="look at it, then again")
            backup = file.with_name(file.name + ".bak")
            shutil.copy2(file, aside)
            os.chown(aside, file.stat().st_uid, file.stat().st_gid)
            _to_disk(aside)
            aside.replace(backup)
            shutil.copy2(file, aside)
            os.chown(aside, file.stat().st_uid, file.stat().st_gid)
        aside.write_text(text, "utf-8")
        _to_disk(aside)
        aside.replace(file)
    except OSError as error:
        raise IpshareError(f"cannot write {file}: {error.strerror}") from None
    return str(file)


def _to_disk(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
