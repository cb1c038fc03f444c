"""lab: a small Internet on this machine (lab up, down, run, exec, list), the demo and the benchmarks.

Thin: what a lab is lies in ipshare.lab, what the demo and the benchmarks take as options in their own
modules.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import exits, output
from ipshare.cli.options import json_option

if TYPE_CHECKING:
    from ipshare.lab.lab import Lab

PASS_ON: dict[str, Any] = {"ignore_unknown_options": True, "help_option_names": []}


@click.command("demo", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def demo_(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Watch an address move between two datacenters, with real traffic."""
    from importlib import import_module

    ctx.exit(import_module("ipshare.lab.demo").main(list(arguments)))


@click.command("bench", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench_(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Measure this machine: core, tables, engine."""
    from importlib import import_module

    ctx.exit(import_module("ipshare.bench").main(list(arguments)))


@click.group("lab")
def lab_() -> None:
    """A small Internet in network namespaces: clients, routers, distribution points C and D, end points A
    and B."""


def spec_options(verb: Any) -> Any:
    for option in (
        click.option(
            "--path", type=click.Choice(["rewrite", "ipip", "gue"]), default="rewrite", show_default=True
        ),
        click.option(
            "--replies",
            type=click.Choice(["direct", "tunnel", "rewrite"]),
            default="direct",
            show_default=True,
        ),
        click.option(
            "--engine",
            type=click.Choice(["embedded", "vpp"]),
            default="embedded",
            show_default=True,
            help="What translates at C, D, A and B.",
        ),
        click.option("--combined", is_flag=True, help="Distribution point C is end point A as well."),
        click.option(
            "--target", type=click.Choice(["A", "B"]), default="A", help="Where the address is served."
        ),
    ):
        verb = option(verb)
    return verb


def _lab(target: str, **spec: Any) -> Lab:
    from ipshare.lab.agents import lab_with_agents
    from ipshare.lab.internet import LabSpec

    return lab_with_agents(LabSpec(**spec), target=target)


@lab_.command("up")
@spec_options
@json_option
def up(target: str, as_json: bool, **spec: Any) -> None:
    """Build a lab that stays until `lab down`. Needs root; without it, `lab run` makes one for a command."""
    _needs_root("a lab that stays", hint="ipshare lab run -- COMMAND works without it")
    lab = _lab(target, **spec)
    with output.working("building the lab", quiet=as_json):
        lab.__enter__()
    nodes = {name: lab.namespace(name) for name in lab.topology.nodes}
    if as_json:
        return output.emit({"lab": lab.prefix, "directory": str(lab.directory), "namespaces": nodes})
    output.table(("node", "namespace"), nodes.items())
    output.line(f"\nlab {lab.prefix} is up; try: ipshare lab exec c1 -- ping -c 3 203.0.113.10")
    return None


@lab_.command("down")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Every lab of this machine, whoever made it.")
@json_option
def down(name: str | None, everything: bool, as_json: bool) -> None:
    """Remove the lab NAME, with every process in it."""
    from ipshare.lab import state

    if everything and name is not None:
        raise output.UsageProblem(f"--all, or {name}?", "name one lab, or say --all")
    names = _names(name)
    if name is None and not everything and names:
        raise output.UsageProblem(
            "which lab?", f"name it, or say --all for every lab of this machine: {', '.join(names)}"
        )
    if names:
        _needs_root("removing a lab")
    removed = {prefix: state.remove(prefix) for prefix in names}
    if as_json:
        return output.emit({"removed": removed})
    for prefix, namespaces in removed.items():
        output.line(f"lab {prefix} removed: {len(namespaces)} namespaces")
    if not removed:
        output.line("nothing to do: there is no lab")
    return None


def _needs_root(what: str, hint: str = "run as root") -> None:
    from ipshare.errors import NoPrivilege
    from ipshare.lab import userns

    if not userns.is_root():
        raise NoPrivilege(f"{what} needs root", hint=hint)


def _names(name: str | None) -> list[str]:
    from ipshare.errors import NotRunning
    from ipshare.lab import state

    known = [lab.prefix for lab in state.labs()]
    if name is not None and name not in known:
        raise NotRunning(f"there is no lab {name}", hint=f"labs here: {', '.join(known) or 'none'}")
    return [name] if name is not None else known


@lab_.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the labs of this machine."""
    from ipshare.lab import state

    labs = [{"lab": lab.prefix, "directory": str(state.directory(lab.prefix))} for lab in state.labs()]
    if as_json:
        return output.emit(labs)
    for lab in labs:
        output.line(f"{lab['lab']}  {lab['directory']}")
    if not labs:
        output.line("there is no lab")
    return None


@lab_.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--lab", "name", help="Which lab, where there are several.")
def exec_(node: str, command: tuple[str, ...], name: str | None) -> None:
    """Run COMMAND in NODE of a lab. Its exit code is ours.

    At C, D, A and B the verbs of ipshare are about that node: IPSHARE_CONFIG names its configuration.
    """
    from ipshare.errors import NotRunning, Refused
    from ipshare.lab import state
    from ipshare.lab.netns import NETNS_DIR

    names = _names(name or os.environ.get("IPSHARE_LAB"))
    if len(names) > 1:
        raise Refused(f"there are {len(names)} labs", hint=f"say --lab, one of: {', '.join(names)}")
    if not names:
        raise NotRunning("there is no lab", hint="ipshare lab up")
    namespace = NETNS_DIR / f"{names[0]}-{node}"
    if not namespace.exists():
        raise Refused(f"lab {names[0]} has no node {node}", hint="nodes: " + ", ".join(_nodes(names[0])))
    _needs_root("entering a node of a lab")
    if shutil.which(command[0]) is None:
        raise output.UsageProblem(f"there is no command {command[0]}")
    site = state.directory(names[0]) / node / "site.toml"
    environment = os.environ | ({"IPSHARE_CONFIG": str(site)} if site.exists() else {})
    os.execvpe("nsenter", ["nsenter", f"--net={namespace}", "--", *command], environment)


def _nodes(prefix: str) -> list[str]:
    from ipshare.lab.netns import NETNS_DIR

    return sorted(path.name.removeprefix(f"{prefix}-") for path in NETNS_DIR.glob(f"{prefix}-*"))


@lab_.command("run", context_settings={"ignore_unknown_options": True})
@spec_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, /, target: str, command: tuple[str, ...], **spec: Any) -> None:
    """Build a lab, run COMMAND beside it (with IPSHARE_LAB set), and remove it. Works without root where the
    kernel allows user namespaces. The exit code is the command's."""
    from ipshare.lab import userns

    userns.become_root()
    with _lab(target, **spec) as lab:
        try:
            done = subprocess.run(command, env=os.environ | {"IPSHARE_LAB": lab.prefix}, check=False)
        except FileNotFoundError:
            raise output.UsageProblem(f"there is no command {command[0]}") from None
    ctx.exit(done.returncode if done.returncode >= 0 else exits.FAILURE)
