"""sessions: the verbs about tracked connections: what is open, the greatest of it, and to end it."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ipshare.cli import output
from ipshare.cli.options import FILE, config_option, json_option, node_of

if TYPE_CHECKING:
    from ipshare.api import Node
    from ipshare.engine.flows import SessionDump
    from ipshare.engine.session_filter import SessionFilter

F = TypeVar("F", bound=Callable[..., Any])
LIST_AT_MOST = 1 << 20
"""Sessions that are fetched to list and count them; --top, --csv and --npy fetch all."""


def filter_options(verb: F) -> F:
    """What a session has to be; all that is given has to hold."""
    for option in reversed(
        (
            click.option("--src", metavar="PREFIX", help="Who opened it; of NAT: the inside."),
            click.option("--dst", metavar="PREFIX", help="Whom it was opened to."),
            click.option("--mapped", metavar="PREFIX", help="The public address of NAT."),
            click.option("--src-port", metavar="PORT"),
            click.option("--dst-port", metavar="PORT"),
            click.option("--mapped-port", metavar="PORT"),
            click.option("--proto", metavar="NAME|NUMBER", help="tcp, udp, icmp, icmp6, ... or its number."),
            click.option("--state", metavar="STATE", help="opening, open, client_closed, server_closed, ..."),
            click.option("--kind", metavar="KIND", help="napt, track, dispatch."),
            click.option("--nat", metavar="NAME", help="Of this [[nat]]."),
        )
    ):
        verb = option(verb)
    return verb


@click.group("sessions", invoke_without_command=True)
@filter_options
@click.option("--top", type=click.IntRange(1), metavar="N", help="Only the N greatest.")
@click.option(
    "--by",
    "measure",
    type=click.Choice(["bytes", "packets", "source"]),
    default="bytes",
    show_default=True,
    help="What makes one great; source: sources, by their sessions.",
)
@click.option(
    "--max", "most", default=50, show_default=True, type=click.IntRange(0), help="Sessions shown; 0: all."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, all of them.")
@click.option("--npy", type=FILE, help="Write all of them to a NumPy file.")
@config_option
@json_option
@click.pass_context
def sessions_(
    ctx: click.Context, /, file: Path | None, node_name: str | None, top: int | None, measure: str, most: int,
    as_csv: bool, npy: Path | None, as_json: bool, nat: str | None, **words: Any,
) -> None:  # fmt: skip
    """Show tracked connections: who opened them, to whom, what NAT made of them, what they moved.

    Counts are exact where both directions are seen, else an upper bound, and say so.
    """
    if ctx.invoked_subcommand is not None:
        if nat is not None or any(value is not None for value in words.values()):
            raise output.UsageProblem(
                "filters of close are written after it", "ipshare sessions close --src ..."
            )
        return
    with node_of(file, node_name, quiet=as_json) as node:
        limit = 0 if top or as_csv or npy is not None else max(most, LIST_AT_MOST) if most else 0
        dump = node.session_dump(_filter(node, nat, words | {"limit": limit}))
        names = _nats(node)
        if npy is not None:
            _npy(dump, npy, as_json)
        elif as_csv:
            _csv(dump, names)
        elif top is not None:
            _top(dump, names, top, measure, as_json)
        else:
            _list(dump, names, most, as_json)
            if not as_json:
                _note_troubles(node)


def _note_troubles(node: Node) -> None:
    from ipshare.engine.flows_text import sessions_troubles

    for text in sessions_troubles(node.flows()):
        output.line(f"note: {text}", fg="yellow")


@sessions_.command("close")
@filter_options
@click.option("--yes", is_flag=True, help="End them: I have looked at what matches.")
@config_option
@json_option
def close(
    file: Path | None, node_name: str | None, yes: bool, as_json: bool, nat: str | None, **words: Any
) -> None:
    """End the sessions that match: their ports are free, and what still comes is refused or opens anew."""
    with node_of(file, node_name, quiet=as_json) as node:
        wanted = _filter(node, nat, words)
        if wanted.is_empty:
            raise output.UsageProblem(
                "no filter: that would end every session", "say which ones; --src 0.0.0.0/0 is all of IPv4"
            )
        if not yes:
            from dataclasses import replace

            matched = node.session_dump(replace(wanted, limit=1)).matched
            raise output.UsageProblem(
                f"{matched:,} sessions match, and would be ended", "look at them without close, and say --yes"
            )
        closed = node.close_sessions(wanted)
    if as_json:
        output.emit({"closed": closed})
    else:
        output.line(f"{closed:,} sessions ended")


def _filter(node: Node, nat: str | None, words: dict[str, Any]) -> SessionFilter:
    from ipshare.engine.session_filter import BadFilter, SessionFilter

    if nat is not None:
        realms = {name: realm for realm, name in _nats(node).items()}
        if nat not in realms:
            known = ", ".join(realms) or "none"
            raise output.UsageProblem(f"there is no NAT named {nat!r}", f"known: {known}")
        words = words | {"realm": realms[nat]}
    try:
        wanted = SessionFilter.parse(words)
        wanted.encode()
    except BadFilter as error:
        raise output.UsageProblem(error.message, error.hint) from None
    return wanted


def _nats(node: Node) -> dict[int, str]:
    """Realm -> name, of what was applied."""
    return {nat.realm: nat.name for nat in (node.store.current() or node.config).nats}


def _list(dump: SessionDump, names: dict[int, str], most: int, as_json: bool) -> None:
    from ipshare.engine.session_text import count_words, counted, rows

    shown = dump.records[: most or None]
    if as_json:
        return output.emit(counted(dump) | {"sessions": list(rows(shown, names))})
    if len(shown):
        _table(list(rows(shown, names)))
    output.line(count_words(dump))
    if len(shown) < len(dump.records):
        output.line(f"{len(shown):,} shown (--max 0 shows all)")
    return None


def _top(dump: SessionDump, names: dict[int, str], top: int, measure: str, as_json: bool) -> None:
    from ipshare.engine.session_text import count_words, counted, greatest, rows, sources

    if measure == "source":
        found = sources(dump.records, top)
        if as_json:
            return output.emit(counted(dump) | {"sources": found})
        keys = ("source", "sessions", "packets", "bytes")
        output.table(keys, [tuple(row[key] for key in keys) for row in found])
    else:
        records = greatest(dump.records, top, "packets" if measure == "packets" else "bytes")
        if as_json:
            return output.emit(counted(dump) | {"sessions": list(rows(records, names))})
        _table(list(rows(records, names)))
    output.line(count_words(dump))
    return None


def _table(found: list[dict[str, Any]]) -> None:
    from ipshare.engine.session_text import end

    output.table(
        ("proto", "state", "source", "destination", "mapped", "nat", "packets", "bytes", "idle s"),
        [
            (
                r["proto"], r["state"] + ("*" if r["one_sided"] else ""), end(r["src"], r["src_port"]),
                end(r["dst"], r["dst_port"]), end(r["mapped"], r["mapped_port"]), r["nat"] or r["kind"],
                r["packets_out"] + r["packets_in"], r["bytes_out"] + r["bytes_in"], f"{r['idle_s']:.1f}",
            )
            for r in found
        ],
    )  # fmt: skip
    if any(r["one_sided"] for r in found):
        output.line("* only what goes to the device is seen: the device's own close is not")


def _csv(dump: SessionDump, names: dict[int, str]) -> None:
    from ipshare.engine.session_text import COLUMNS, rows

    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    writer.writerows([row[key] for key in COLUMNS] for row in rows(dump.records, names))


def _npy(dump: SessionDump, file: Path, as_json: bool) -> None:
    import numpy as np

    from ipshare.engine.session_text import count_words, counted

    try:
        with file.open("wb") as target:
            np.save(target, dump.records, allow_pickle=False)
    except OSError as error:
        raise output.UsageProblem(f"cannot write {file}: {error.strerror}", "name another file") from None
    if as_json:
        output.emit(counted(dump) | {"file": str(file)})
    else:
        output.line(f"{file}: {count_words(dump)}")
