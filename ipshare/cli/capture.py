"""capture: packets to pcapng for people (capture), and the copies for intrusion detection (copy status)."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import output
from ipshare.cli.options import Duration, config_option, json_option, node_of

if TYPE_CHECKING:
    from ipshare.api import Node
    from ipshare.engine.capture import Capturing, TapState


@click.command("capture")
@config_option
@click.option(
    "-w", "target", metavar="FILE", required=True, help="pcapng file to write; - for standard output."
)
@click.option("--what", type=click.Choice(["before", "after", "both"]), default="both", show_default=True)
@click.option("--side", type=click.Choice(["outer", "inner"]), help="Only packets that enter this side.")
@click.option("--binding", metavar="PREFIX", help="Only packets of this binding.")
@click.option(
    "--verdict", "verdicts", multiple=True, metavar="NAME", help="Only this verdict; may be repeated."
)
@click.option("--drops", is_flag=True, help="Only what is dropped.")
@click.option("--count", default=0, type=click.IntRange(0), help="End after so many packets.")
@click.option("--duration", type=Duration(), default="0s", help="End after this time.")
@click.option(
    "--snaplen", default=0, type=click.IntRange(0, 65535), help="Bytes kept of each packet; 0: all."
)
@click.option("--sample", default=1, type=click.IntRange(1), help="One packet of so many.")
@json_option
def capture_(
    file: Path | None,
    node_name: str | None,
    target: str,
    what: Any,
    side: Any,
    binding: str | None,
    verdicts: tuple[str, ...],
    drops: bool,
    count: int,
    duration: float,
    snaplen: int,
    sample: int,
    as_json: bool,
) -> None:
    """Capture packets as they came and as they went, until Ctrl-C, --count or --duration.

    Forwarding is never slowed: what the disk cannot take is lost to the capture, and said.
    """
    from ipshare.agent.engines import capturing
    from ipshare.core import VERDICTS
    from ipshare.engine.capture import TapRule, ToFile
    from ipshare.errors import IpshareError

    if as_json and target == "-":
        raise output.UsageProblem("--json and -w - both want standard output", "write to a file")
    names = frozenset(v.upper() for v in verdicts) | {v.name for v in VERDICTS if drops and v.is_drop}
    with node_of(file, node_name, quiet=True) as node:
        engine = capturing(node.engine)
        cells = _cells(node, binding) if binding else None
        with _opened(target) as fd:
            rule = TapRule(
                ToFile(fd),
                what=what,
                sides=frozenset([side] if side else ["outer", "inner"]),
                sample=sample,
                snaplen=snaplen,
                cells=cells,
                verdicts=names,
                max_packets=count,
                max_s=duration,
            )
            state = _run(engine, rule, quiet=as_json or target == "-")
    record = asdict(state) | {"file": target, "lost": state.lost}
    if as_json:
        output.emit(record)
    else:
        lost = f", {state.lost:,} lost" if state.lost else ""
        click.echo(f"{state.packets:,} packets, {state.bytes:,} bytes{lost}", err=target == "-")
    if state.target_errno not in (0, errno.EAGAIN, errno.EPIPE):  # neither slow, nor a reader that had enough
        why = os.strerror(state.target_errno)
        raise IpshareError(f"{target} did not take all of it: {why}", hint="what was counted is in it")


def _run(engine: Capturing, rule: Any, *, quiet: bool) -> TapState:
    """Until it ends by itself or by Ctrl-C; then every packet is delivered."""
    tap = engine.start_tap(rule)
    if not quiet:
        click.echo("capturing; Ctrl-C ends", err=True)
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return engine.wait_tap(tap.id)
    except KeyboardInterrupt:
        return engine.stop_tap(tap.id)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _opened(target: str) -> Iterator[int]:
    from ipshare.errors import IpshareError, NoPrivilege

    if target == "-":
        mode = os.fstat(sys.stdout.fileno()).st_mode
        if sys.stdout.isatty() or not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
            raise output.UsageProblem("pcapng is no text", "-w FILE, or pipe it: ... | tcpdump -r -")
        yield sys.stdout.fileno()
        return
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except PermissionError:
        raise NoPrivilege(f"may not write {target}", hint="choose another file, or run as root") from None
    except OSError as error:
        raise IpshareError(f"cannot write {target}: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _cells(node: Node, binding: str) -> tuple[int, int]:
    from ipshare.cli.show import as_prefix
    from ipshare.engine.plan_text import prefix_text
    from ipshare.errors import Refused

    tables, wanted = node.tables(), as_prefix(binding)
    name = str(wanted.network_address) if wanted.num_addresses == 1 else str(wanted)
    for record in tables.bindings[tables.bindings["prefix_len"] == wanted.prefixlen]:
        if prefix_text(record, "global") == name:
            first, span = node.engine.counter_cells(record.reshape(1))
            return int(first[0]), int(span[0])
    raise Refused(f"there is no binding {name}", hint="ipshare show bindings")


@click.group("copy")
def copy_() -> None:
    """Copies of untranslated packets for intrusion detection."""


@copy_.command("status")
@config_option
@json_option
def status(file: Path | None, node_name: str | None, as_json: bool) -> None:
    """Show the copies that are configured, whether they run, and what they delivered and lost."""
    from ipshare.agent.engines import copy_status

    with node_of(file, node_name, quiet=as_json) as node:
        rows = copy_status(node.engine, node.store.current() or node.config)
    if as_json:
        return output.emit(rows)
    if not rows:
        return output.line("no copies are configured")
    keys = ("name", "target", "runs", "packets", "bytes", "lost")
    output.table(keys, [tuple("yes" if row[k] is True else row[k] for k in keys) for row in rows])
    return None
