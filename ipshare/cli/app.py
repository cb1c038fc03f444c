"""app: finds the verb, runs it, and turns whatever it raises into one sentence, a hint and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

import ipshare
from ipshare.cli import exits, output
from ipshare.errors import IpshareError

# group of verbs -> verb -> (module of ipshare.cli, one line). The order is that of --help.
VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Configuration": {
        "check": ("files", "Find every mistake in a configuration, and what this machine has against it."),
        "diff": ("change", "Show what apply would change."),
        "apply": ("change", "Make a configuration the node's, in one step."),
        "confirm": ("change", "Keep a configuration that was applied on trial."),
        "rollback": ("change", "Go back to the configuration before."),
        "import": ("files", "Read a bindings file, and show how it differs from what is configured."),
        "plan": ("clusters", "What a configuration needs around the node: addresses of clusters."),
        "schema": ("files", "Print the JSON Schema of configuration files."),
    },
    "Running": {
        "agent": ("node", "Run this node's agent."),
        "down": ("node", "End this node: agent, engine, routes."),
        "witness": ("witness", "A third voter for a pair: run it, on a machine of its own or on etcd."),
        "remap": ("remap", "Move an address to another end point while its connections live on."),
        "bgp": ("bgp", "Announcements by BGP: status, drain."),
        "director": (
            "director",
            "One source of truth for many nodes: run, status, apply, evacuate, hazards, and more.",
        ),
        "migrate": ("migrate", "Migrate a workload alive to another node; packets follow it."),
        "cert": ("cert", "Certificates of nodes, directors, operators: init, issue, rotate, show, revoke."),
        "token": ("token", "Tokens for the director's HTTP API and web page: add, list, revoke."),
        "pair": ("pair", "A redundant pair: status, switchover, force, maintenance, key."),
    },
    "Looking": {
        "show": ("show", "Show what is live: tables, bindings, endpoints, policies, groups, clusters, info."),
        "sessions": ("sessions", "Tracked connections: list, top, export, close."),
        "nat": ("nat", "NAT pools: public addresses, ports in use, refusals."),
        "natlog": ("nat_log", "The NAT log: collectors, what was sent and lost."),
        "whois": ("nat_log", "Who has a public port, where ports are deterministic."),
        "leases": ("leases", "Public addresses by DHCP: who has which, until when."),
        "mirror": ("mirror", "The mirror of sessions in a pair: status."),
        "counters": ("counters", "Packets, bytes, drops: by verdict, by binding, by address."),
        "why": ("why", "Ask what happens to a packet, and why."),
        "probe": ("probe", "Measure paths (mtu), or whether the provider lets replies out (egress)."),
        "capture": ("capture", "Capture packets to pcapng."),
        "copy": ("capture", "Show the copies for intrusion detection."),
    },
    "Sites": {
        "hazards": ("hazards", "Severe weather and earthquakes near sites: check, watch, feeds."),
        "evacuate": ("evacuate", "What would move where if a site or a node is left: plan."),
        "simulate": ("simulate", "What failures of sites and links cost, on a virtual clock."),
    },
    "Appliance": {
        "appliance": ("appliance", "A bootable image: build, seed, bundle, install, status."),
        "hw-check": ("machine", "What this machine has for a node: cards, hugepages, cores."),
        "vpp": ("vpp", "The VPP that the agent starts: its start-up file, and the machine under it."),
        "support-bundle": ("machine", "Configuration, logs and counters in one archive, without secrets."),
    },
    "Trying": {
        "demo": ("lab", "Watch an address move between two datacenters, with real traffic."),
        "lab": ("lab", "A small Internet in network namespaces: up, down, run, exec."),
        "bench": ("lab", "Measure this machine: core, tables, engine."),
    },
    "About": {
        "version": ("about", "Print versions."),
        "completion": ("about", "Print a shell completion script."),
    },
}
COMPLETE = "_IPSHARE_COMPLETE"
NEEDS = {"demo": "lab/demo", "bench": "bench", "lab": "lab/lab"}
"""Verbs that are there only if this part of the package is installed."""


class Verbs(click.Group):
    """A group whose verbs are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for group in VERBS.values() for verb in group if _is_there(verb)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for group in VERBS.values():
            if cmd_name in group and _is_there(cmd_name):
                command: click.Command = getattr(
                    import_module(f"ipshare.cli.{group[cmd_name][0]}"),
                    f"{cmd_name.replace('-', '_')}_",
                )
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see ipshare --help"
            raise output.UsageProblem(f"there is no verb {args[0]!r}", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in VERBS.items():
            rows = [(verb, text) for verb, (_, text) in group.items() if _is_there(verb)]
            with formatter.section(title):
                formatter.write_dl(rows)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in exits.TEXT.items()])


def _is_there(verb: str) -> bool:
    if verb not in NEEDS:
        return True
    path = Path(ipshare.__file__).parent / NEEDS[verb]  # looked at, not imported: --help stays fast
    return path.is_dir() or path.with_suffix(".py").is_file()


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--version", "show_version", is_flag=True, help="Print the version.")
@click.pass_context
def cli(ctx: click.Context, show_version: bool) -> None:
    """A public IP address that outlives the place where it is served."""
    if show_version:
        from ipshare import __version__

        click.echo(f"ipshare {__version__}")
    elif ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        ctx.exit(exits.USAGE)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; every way out passes here."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    _open_closed()
    try:
        instruction = os.environ.get(COMPLETE)
        if instruction:
            return _complete(instruction)
        _end_like_ctrl_c()
        # Not cli.main(): that has ideas of its own about broken pipes and Ctrl-C.
        with cli.make_context("ipshare", words) as context:
            cli.invoke(context)
        sys.stdout.flush()
        return exits.OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()  # the group's help
        return exits.USAGE
    except click.ClickException as error:
        hint = error.hint if isinstance(error, output.UsageProblem) else _usage_hint(error)
        return output.fail(error.format_message(), hint, exits.USAGE, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        return exits.INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(
            OSError, ValueError
        ):  # so that the interpreter's own flush at exit is silent
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    except OSError as error:
        if _was_named(error.filename, words):
            text = f"cannot use {error.filename}: {error.strerror}"
            return output.fail(text, "name another file", exits.FAILURE, as_json=as_json)
        if error.errno in (errno.EACCES, errno.EPERM):
            text = f"may not use {error.filename or 'what it needs'}: {error.strerror}"
            return output.fail(text, "run as root", exits.NO_PRIVILEGE, as_json=as_json)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            return _unexpected(error, as_json)
        text = f"no room for what there is to say or keep: {error.strerror}"
        with contextlib.suppress(OSError, ValueError):  # as for a broken pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return output.fail(
            text, "the disk behind the output or a temporary file is full", exits.FAILURE, as_json=as_json
        )
    except IpshareError as error:
        problems = getattr(error, "problems", ())
        return output.fail(error.message, error.hint, error.exit_code, as_json=as_json, problems=problems)
    except Exception as error:
        return _unexpected(error, as_json)


def _was_named(path: object, words: Sequence[str]) -> bool:
    """Whether the command line names this path, one that it is made beside, or one below or above it: then
    what is wrong with it is no bug."""
    if not isinstance(path, str):
        return False
    failed = str(Path(path).absolute())
    named = [str(Path(part).absolute()) for word in words for part in (word, word.partition("=")[2]) if part]
    return any(
        failed == one or failed.startswith((one + "/", one + ".")) or one.startswith(failed + "/")
        for one in named
    )


def _unexpected(error: Exception, as_json: bool) -> int:
    if os.environ.get("IPSHARE_DEBUG"):
        raise error
    text = f"unexpected {type(error).__name__}: {error}"
    return output.fail(text, "this is a bug; IPSHARE_DEBUG=1 shows where", exits.FAILURE, as_json=as_json)


def _open_closed() -> None:
    """A shell may start us with standard output or error closed: then nothing is said there, nor into a file
    that got its number."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123


def _end_like_ctrl_c() -> None:
    """SIGTERM and a terminal that closes take back what Ctrl-C would: a lab, a capture. Under nohup SIGHUP is
    ignored and stays so; the agent has handlers of its own."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _complete(instruction: str) -> int:
    """What the shell asks for at a Tab, in the words of click's completion scripts."""
    from click.shell_completion import shell_complete

    return shell_complete(cli, {}, "ipshare", COMPLETE, instruction)


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context is not None else ""
