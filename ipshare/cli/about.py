"""about: version and shell completion."""

from __future__ import annotations

import contextlib

import click

from ipshare.cli import output
from ipshare.cli.options import json_option


@click.command("version")
@json_option
def version_(as_json: bool) -> None:
    """Print the versions of ipshare, its C core's table format, and Python."""
    import platform

    from ipshare import __version__
    from ipshare.core import lib
    from ipshare.engine.embedded.launch import binary
    from ipshare.engine.vpp.find import find
    from ipshare.errors import NotRunning

    try:
        engine = str(binary())
    except NotRunning:
        engine = "not built"
    vpp = plugin = "not installed"
    with contextlib.suppress(NotRunning):
        install = find()
        vpp, plugin = str(install.binary), str(install.plugin or plugin)
    record = {
        "ipshare": __version__,
        "table_format": int(lib.IPS_IMAGE_VERSION),
        "control_protocol": int(lib.IPS_CTL_VERSION),
        "engine": engine,
        "vpp": vpp,
        "vpp_plugin": plugin,
        "python": platform.python_version(),
    }
    if as_json:
        output.emit(record)
    else:
        for name, value in record.items():
            output.line(f"{name.replace('_', ' '):17} {value}")


@click.command(
    "completion", epilog="bash: source <(ipshare completion bash); fish: ipshare completion fish | source"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion_(shell: str, as_json: bool) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from ipshare.cli.app import COMPLETE, cli

    kind = get_completion_class(shell)
    assert kind is not None, "click knows the three"
    script = kind(cli, {}, "ipshare", COMPLETE).source()
    output.emit({"shell": shell, "script": script}) if as_json else output.line(script)
