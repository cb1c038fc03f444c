"""changing: from what somebody wants to a topology, a plan, a revision: the one way to the director.

Everything ends in Director.change, with the name of who asked and the revision that was looked at. A change
of what an earlier revision is still being rolled out for is a conflict, unless it is meant (``overlap``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from ipshare.director import config, drains
from ipshare.director.daemon import Director
from ipshare.director.desk import order
from ipshare.director.moves import moved
from ipshare.director.topology import Topology, changes
from ipshare.errors import Refused
from ipshare.model import Prefix
from ipshare.web import models
from ipshare.web.problems import Failure
from ipshare.web.tokens import Role

MOST_NESTED = 16


def least_role(change: models.Change) -> Role:
    """Who may do that."""
    return Role.operator if isinstance(change, models.Move | models.Bind | models.Drain) else Role.admin


def said(change: models.Change) -> str:
    """In words, for the audit log."""
    if isinstance(change, models.Move):
        return "move " + ", ".join(f"{name} to {node}" for name, node in change.moves.items())
    if isinstance(change, models.Bind):
        parts = [f"bind {p} to {t.to or t.policy}" for p, t in change.set.items()]
        return ", ".join([*parts, *(f"unbind {prefix}" for prefix in change.remove)])
    if isinstance(change, models.Drain):
        return f"{'drain' if change.drained else 'undrain'} {change.node}" + (
            ", forced" if change.force else ""
        )
    return f"restore revision {change.revision}" if isinstance(change, models.Restore) else "replace all"


async def wanted(director: Director, change: models.Change, why: str = "") -> Topology:
    """Raises Failure or IpshareError."""
    now = director.topology
    if isinstance(change, models.Move):
        try:
            found = moved(now, change.moves)
        except Refused as error:
            raise Failure(422, error.message, error.hint, kind="move") from None
    elif isinstance(change, models.Bind):
        found = bound(now, change)
    elif isinstance(change, models.Drain):
        found = drained(director, change, why)
    elif isinstance(change, models.Restore):
        revision = await director.work(director.store.revision, change.revision)
        if revision is None:
            raise Failure(404, f"there is no revision {change.revision}", "GET /api/v1/revisions lists them")
        return revision.topology
    else:
        tables = change.topology.model_dump(exclude_defaults=True)
        _plain(tables)
        return await asyncio.to_thread(config.topology, tables, "topology")
    rows = {kind: list(rows) for kind, rows in found.tables.items()}
    return await asyncio.to_thread(config.topology, rows, "topology")  # leases wait for the event loop


def drained(director: Director, change: models.Drain, why: str) -> Topology:
    """As ipshare.director.drains has it. Raises Failure."""
    point = director.topology.nodes.get(change.node)
    if point is None or point.distribution is None:
        hint = "GET /api/v1/nodes lists what is a distribution point"
        raise Failure(422, f"there is no distribution point {change.node!r}", hint, kind="drain")
    others = drains.announcers(director)
    try:
        return drains.wanted(
            director.topology, change.node, change.drained, others=others, force=change.force, why=why
        )
    except Refused as error:
        raise Failure(409, error.message, error.hint, kind="last-announcer") from None


def bound(topology: Topology, change: models.Bind) -> Topology:
    """With other bindings. Raises Failure for a prefix that is none, or is not bound and is to be removed."""
    if not change.set and not change.remove:
        raise Failure(422, "nothing is to be changed", "name prefixes in `set` or `remove`", kind="change")
    rows = {prefix: dict(row) for prefix, row in topology.bindings.items()}
    for text in change.remove:
        if rows.pop(prefix_of(text), None) is None:
            raise Failure(404, f"there is no binding of {text}", "GET /api/v1/bindings lists them")
    for text, target in change.set.items():
        prefix = prefix_of(text)
        written = rows.get(prefix, {}).get("global", str(prefix))
        rows[prefix] = {"global": written, **target.model_dump(exclude_none=True)}
    return replace(topology, tables={**topology.tables, "binding": list(rows.values())})


def prefix_of(text: str) -> Prefix:
    """Raises Failure."""
    try:
        if "/" not in text:
            raise ValueError("no length")
        return ip_network(text)
    except ValueError:
        hint = "write 198.51.100.7/32, without bits behind the length"
        raise Failure(422, f"{text[:64]!r} is no prefix", hint, kind="prefix") from None


def under_way(director: Director) -> frozenset[Prefix]:
    """Prefixes that the revision that counts changed, while some node has not got it yet."""
    rollout = director.rollout
    outcomes = director.outcomes()
    if rollout is None or set(outcomes.values()) <= {"acked"}:
        return frozenset()
    new = rollout.new.bindings
    return frozenset(
        prefix
        for base in rollout.bases
        for prefix in {**base.bindings, **new}
        if base.bindings.get(prefix) != new.get(prefix)
    )


def conflicts(director: Director, topology: Topology) -> list[str]:
    """Prefixes that are under way and would be changed again."""
    now, then = director.topology.bindings, topology.bindings
    return sorted(str(prefix) for prefix in under_way(director) if now.get(prefix) != then.get(prefix))


def exclusive(topology: Topology, change: models.Change) -> list[str]:
    """What a move of workloads does not do by itself."""
    if not isinstance(change, models.Move):
        return []
    rows = topology.by_name["workload"]
    return [
        f"{name} is exclusive: it has to end at {rows[name]['node']} before it begins at {node}; "
        "this changes where its packets go"
        for name, node in change.moves.items()
        if rows[name].get("kind", "exclusive") == "exclusive" and rows[name]["node"] != node
    ]


async def plan(director: Director, change: models.Change) -> dict[str, Any]:
    number = director.number
    topology = await wanted(director, change, "a plan")
    rollout = await director.planned(topology)
    now = director.topology
    found = await asyncio.to_thread(lambda: list(changes(now, topology)))
    return {
        "revision": number,
        "changes": found,
        "order": order(rollout) if found else [],
        "notes": [*rollout.notes(), *exclusive(director.topology, change)] if found else [],
        "conflicts": conflicts(director, topology),
    }


async def carry_out(
    director: Director, change: models.Change, who: str, why: str, expect: int, overlap: bool
) -> bool:
    """False: it was so before. Raises Failure or IpshareError; nothing was changed then."""
    stale(director, expect)
    topology = await wanted(director, change, why)
    found = conflicts(director, topology)
    if found and not overlap:
        text = f"revision {director.number} is still being rolled out for {', '.join(found[:5])}"
        hint = f"wait for /api/v1/operations/{director.number}, or say overlap"
        raise Failure(409, text, hint, kind="under-way")
    try:
        return await director.change(topology, who, why, expect)
    except Refused:
        stale(director, expect)
        raise


def stale(director: Director, expect: int) -> None:
    """Raises Failure where the revision is another one."""
    if expect != director.number:
        text = f"the revision is {director.number}, not {expect}"
        raise Failure(
            412, text, f"look at GET /api/v1/revisions/{director.number}/diff, plan again", kind="stale",
            headers={"ETag": f'"{director.number}"'},
        )  # fmt: skip


def _plain(value: Any, depth: int = 0) -> None:
    """Raises Failure for what no TOML file could say."""
    if value is None:
        raise Failure(422, "null is no value here", "leave the key out", kind="mistakes")
    if depth > MOST_NESTED:
        raise Failure(422, "nested too deeply", f"at most {MOST_NESTED} levels", kind="mistakes")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise Failure(422, f"{value} is out of range", "numbers have 64 bits", kind="mistakes")
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for one in inner:
        _plain(one, depth + 1)
