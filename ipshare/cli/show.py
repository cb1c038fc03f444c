"""show: what is live on a node, by name: info, tables, bindings, endpoints, policies, groups, clusters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ipshare.cli import output
from ipshare.cli.options import config_option, json_option, node_of

if TYPE_CHECKING:
    from ipshare.api import Node
    from ipshare.engine.tables import Tables

TOPICS = ("info", "tables", "bindings", "endpoints", "policies", "groups", "clusters")


@click.command("show")
@click.argument("topic", type=click.Choice(TOPICS), default="info")
@click.argument("prefix", required=False)
@config_option
@click.option(
    "--max", "most", default=50, show_default=True, type=click.IntRange(0), help="Bindings; 0: all."
)
@json_option
def show_(
    topic: str, prefix: str | None, file: Path | None, node_name: str | None, most: int, as_json: bool
) -> None:
    """Show what is live. PREFIX (for bindings): only those inside it, and those that cover it."""
    with node_of(file, node_name, quiet=as_json) as node:
        if topic == "info":
            _info(node, as_json)
        elif topic == "clusters":
            from ipshare.cli.clusters import show_clusters

            show_clusters(node.clusters(), as_json)
        elif topic == "bindings":
            _bindings(node.tables(), prefix, most, as_json)
        elif topic == "endpoints":
            _endpoints(node.tables(), _paths(node), as_json)
        else:
            pages: dict[str, Callable[[Tables, bool], None]] = {
                "tables": _tables,
                "policies": _policies,
                "groups": _groups,
            }
            pages[topic](node.tables(), as_json)


def _info(node: Node, as_json: bool) -> None:
    from ipshare.agent.client import AgentSilent
    from ipshare.errors import NotRunning

    silent = False
    info = asdict(node.info()) | {"node": node.config.node.name, "agent": None}
    try:
        info["agent"] = node.status()
    except NotRunning:
        pass
    except AgentSilent:
        silent = True
    if as_json:
        return output.emit(info)
    agent = info.pop("agent")
    for name, value in info.items():
        output.line(f"{name.replace('_', ' '):12} {_plain(name, value)}")
    if silent:
        return output.line(
            "agent        does not answer: it is stopped, or at work; see its log", fg="yellow"
        )
    if agent is None:
        return output.line("agent        none: the data path goes on, nobody watches it", fg="yellow")
    output.line(
        f"agent        pid {agent['pid']}, {agent['file']}, engine restarts {agent['engine_restarts']}"
    )
    if agent["confirm_within_s"] is not None:
        output.line(f"on trial     {agent['confirm_within_s']:.0f} s left to confirm", fg="yellow")
    if agent["pair"] is not None:
        pair = agent["pair"]
        output.line(f"pair         {pair['state']}, {pair['peer']} is {pair['peer_state']}: {pair['text']}")
    if agent.get("sessions") is not None:
        found = agent["sessions"]
        room = f"{found['sessions']:,} of {found['capacity']:,}, {found['half_open']:,} half-open"
        output.line(f"sessions     {room}")
    if agent.get("mirror") is not None:
        mirror = agent["mirror"]
        ready = "ready" if mirror["ready"] else "not ready"
        output.line(f"mirror       {mirror['role']}, {ready}, {mirror['uncommitted']:,} uncommitted")
    for path in agent["paths"]:
        size = f"{path['measured'] or 'none'} of {path['configured']} bytes"
        output.line(f"path         {path['name']} IPv{path['family']} {path['state']}: {size}")
    for note in agent["notes"].values():
        output.line(f"note         {note}", fg="yellow")
    return None


def _plain(name: str, value: Any) -> str:
    if name == "digest":
        return f"{value:016x}"
    if name in ("bindings", "table_bytes"):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{side} {device}" for side, device in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _tables(tables: Tables, as_json: bool) -> None:
    from ipshare.engine.plan_text import UNMATCHED, option_text, prefix_text
    from ipshare.engine.tables import SECTIONS

    networks = [
        {"prefix": prefix_text(n, "prefix"), "unmatched": UNMATCHED[n["unmatched"]]} for n in tables.networks
    ]
    options = {name: option_text(name, value) for name, value in tables.options.items()}
    counts = {name: len(tables.section(name)) for name in SECTIONS}
    if as_json:
        return output.emit({"networks": networks, "options": options, "counts": counts})
    output.table(("network", "unmatched"), [(n["prefix"], n["unmatched"]) for n in networks])
    output.line()
    output.table(("records", "count"), counts.items())
    output.line()
    output.table(("option", "value"), options.items())
    return None


def _paths(node: Node) -> dict[tuple[str, int], dict[str, Any]]:
    """What the agent's probes last found, by (name, family of the path); empty without an agent."""
    from ipshare.agent.client import AgentSilent
    from ipshare.errors import NotRunning

    try:
        return {(path["name"], path["family"]): path for path in node.status()["paths"]}
    except (NotRunning, AgentSilent):
        return {}


def _endpoints(tables: Tables, paths: dict[tuple[str, int], dict[str, Any]], as_json: bool) -> None:
    from ipshare.engine.plan_text import ENCAPS, EP_FLAGS, bits_text, prefix_text
    from ipshare.model import unpacked

    rows: list[dict[str, Any]] = []
    for index, record in enumerate(tables.endpoints):
        family = int(record["tunnel_family"])
        name = tables.endpoint_name(index)
        found = paths.get((name, family if record["encap"] else int(record["family"])), {})
        rows.append(
            {
                "record": index,
                "name": name,
                "local": prefix_text(record, "local") if record["prefix_len"] else None,
                "family": int(record["family"]),
                "path": ENCAPS[int(record["encap"])],
                "tunnel": str(unpacked(record["tunnel_remote"].tobytes(), family)) if family else None,
                "path_mtu": int(record["path_mtu"]),
                "path_mtu_measured": found.get("measured"),
                "path_state": found.get("state"),
                "flags": bits_text(int(record["flags"]), EP_FLAGS),
            }
        )
    if as_json:
        return output.emit(rows)
    keys = ("name", "local", "path", "tunnel", "path_mtu")
    output.table(
        ("#", *keys[:-1], "path mtu", "measured", "flags"),
        [(str(r["record"]), *(r[key] for key in keys), _measured(r), r["flags"]) for r in rows],
    )
    return None


def _measured(row: dict[str, Any]) -> Any:
    """Bytes; "down": nothing came back; None: nobody probes it."""
    return "down" if row["path_state"] == "down" else row["path_mtu_measured"]


def _policies(tables: Tables, as_json: bool) -> None:
    from ipshare.engine.plan_text import policy_name

    rows: list[dict[str, Any]] = []
    for index, record in enumerate(tables.policies):
        first, count = int(record["first_member"]), int(record["n_members"])
        members = tables.members[first : first + count]
        total = sum(int(m["weight"]) for m in members) or 1
        shares = [
            {
                "endpoint": tables.endpoint_name(int(m["endpoint"])),
                "weight": int(m["weight"]),
                "share": int(m["weight"]) / total,
            }
            for m in members
        ]
        rows.append({"name": policy_name(tables, index), "members": shares})
    if as_json:
        return output.emit(rows)
    if not rows:
        return output.line("no policies")
    texts = [", ".join(f"{m['endpoint']} {m['share']:.0%}" for m in row["members"]) for row in rows]
    output.table(("policy", "members"), [(row["name"], text) for row, text in zip(rows, texts, strict=True)])
    return None


def _groups(tables: Tables, as_json: bool) -> None:
    from ipshare.engine.plan_text import peer_rows

    rows = peer_rows(tables)
    if as_json:
        return output.emit(rows)
    if not rows:
        return output.line("no members of groups: none is next to this node, or none has moved")
    output.table(
        ("group", "address", "now", "also", "here"),
        [
            (r["group"], r["address"], r["now"], ", ".join(r["also"]) or None, "yes" if r["here"] else None)
            for r in rows
        ],
    )
    return None


def _bindings(tables: Tables, prefix: str | None, most: int, as_json: bool) -> None:
    from ipshare.engine.plan_text import binding_rows
    from ipshare.engine.within import within

    records = tables.bindings if prefix is None else within(tables.bindings, as_prefix(prefix))
    shown = binding_rows(tables, records[: most or None])
    if as_json:
        return output.emit({"count": len(records), "bindings": shown})
    if not len(records):
        return output.line("no bindings" + (f" in {prefix}" if prefix else ""))
    output.table(
        ("global", "kind", "target", "local", "copied"),
        [(r["global"], r["kind"], r["target"], r["local"], "yes" if r["copied"] else None) for r in shown],
    )
    if len(records) > len(shown):
        output.line(f"... and {len(records) - len(shown):,} more (--max 0 shows all)")
    return None


def as_prefix(text: str) -> Any:
    from ipaddress import ip_network

    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise output.UsageProblem(f"{text!r} is no prefix", "write 203.0.113.0/24 or an address") from None
