"""options: what several verbs take: the configuration, --json, durations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ipshare.cli.output import UsageProblem, working

if TYPE_CHECKING:
    from ipshare.api import Node

    _Seconds = click.ParamType[float]
else:
    _Seconds = click.ParamType  # before click 8.4 it takes no type

DEFAULT_FILE = Path("/etc/ipshare/site.toml")
SITES_FILE = Path("/etc/ipshare/sites.toml")
STATE_ROOT = Path("/var/lib/ipshare")
F = TypeVar("F", bound=Callable[..., Any])
FILE: click.Path = click.Path(path_type=Path, readable=False)
"""Whether it can be read is found, and told with its remedy, by whoever reads it."""


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
file_option = click.option(
    "-c",
    "--config",
    "file",
    type=FILE,
    envvar="IPSHARE_CONFIG",
    help=f"Configuration file. Default: $IPSHARE_CONFIG, or {DEFAULT_FILE}.",
)
sites_option = click.option(
    "-c",
    "--config",
    "file",
    type=FILE,
    default=SITES_FILE,
    show_default=True,
    help="File with the sites; tables that the verb does not need are not looked at.",
)
file_argument = click.argument("file", required=False, type=FILE, envvar="IPSHARE_CONFIG")


def config_option(verb: F) -> F:
    """``-c FILE`` or ``-n NODE``; a verb gets both as ``file`` and ``node_name``."""
    verb = click.option(
        "-n", "--node", "node_name", metavar="NAME", help="A node of this machine, by what was applied to it."
    )(verb)
    return file_option(verb)


class Duration(_Seconds):
    """ "10ms", "5m": seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from ipshare.config.units import Invalid, duration

        if isinstance(value, float):
            return value
        try:
            return duration(value)
        except Invalid as error:
            raise UsageProblem(error.message, error.hint) from None


def named_file(file: Path | None) -> Path:
    """The configuration that was named, or the one by custom. Raises UsageProblem if neither is there."""
    if file is None and not DEFAULT_FILE.exists():
        raise UsageProblem(
            f"no configuration was named, and there is no {DEFAULT_FILE}",
            "name one: as argument or with -c FILE (see --help), or in $IPSHARE_CONFIG",
        )
    return file or DEFAULT_FILE


def node_of(file: Path | None, node_name: str | None = None, *, quiet: bool = False) -> Node:
    """The node that a verb is about. Raises ConfigError, NotRunning."""
    with working("reading the configuration", quiet=quiet):
        from ipshare.api import Node

        if node_name is not None:
            return Node.stored(STATE_ROOT / node_name)
        return Node(named_file(file))
