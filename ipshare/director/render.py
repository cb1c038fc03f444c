"""render: a topology as what one node gets: TOML text with the tables of a site file. Pure.

A distribution point gets everything. An end point gets the Global Networks of which it serves something,
with all that is bound in them (its devices talk to those that are elsewhere), and all end points and
distribution points. ``self = true`` tells a node which one it is.

``make`` is what an end point has while distribution points may still have an earlier revision: what is new,
and what those send to it yet. A prefix has one binding, so where both would be different bindings of one
prefix the end point keeps to what it serves. ``final`` is the new revision alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ipshare.director.topology import NodeRow, Row, Topology
from ipshare.model import Prefix

Tables = dict[str, list[Row]]
Rows = dict[int, tuple[Row, str]]
"""id of a row -> the row, and its text."""
ORDER = ("network", "endpoint", "distribution", "policy", "binding")


def final(new: Topology, node: NodeRow) -> Tables:
    """What ``node`` has in the end."""
    return _tables(new, node, dict(new.bindings), {}, [new])


def make(bases: Sequence[Topology], new: Topology, node: NodeRow) -> Tables:
    """What ``node`` has until no distribution point has one of ``bases`` (the newest first) any more."""
    mine = node.endpoint
    if mine is None or not bases:
        return final(new, node)
    bindings: dict[Prefix, Row] = {}
    policies: dict[str, Row] = {}
    every = dict.fromkeys([*new.bindings, *(prefix for base in bases for prefix in base.bindings)])
    for prefix in every:
        row = new.bindings.get(prefix)
        if row is not None and mine in new.endpoints_of(row):
            bindings[prefix] = row
        elif (kept := _kept(bases, prefix, mine)) is not None:
            base, bindings[prefix] = kept
            policy = bindings[prefix].get("policy")
            if policy is not None:
                policies.setdefault(policy, base.by_name["policy"][policy])
        elif row is not None and not any(base.serves(prefix, mine) for base in bases):
            bindings[prefix] = row  # else: a part of what it serves moved away, and is served here still
    for name in list(policies):
        now = new.by_name["policy"].get(name)
        if now is not None and any(member["endpoint"] == mine for member in now["members"]):
            del policies[name]
    return _tables(new, node, bindings, policies, [new, *bases])


def _kept(bases: Sequence[Topology], prefix: Prefix, mine: str) -> tuple[Topology, Row] | None:
    """The newest binding of just this prefix by which packets come here."""
    for base in bases:
        row = base.bindings.get(prefix)
        if row is not None and mine in base.endpoints_of(row):
            return base, row
    return None


def _tables(
    new: Topology, node: NodeRow, bindings: Mapping[Prefix, Row], policies: Mapping[str, Row],
    sources: Sequence[Topology],
) -> Tables:  # fmt: skip
    """``policies``: those that are not as in ``new``. ``sources``: where tables are looked for, in order."""
    networks: dict[str, Row] = {}
    of = {}
    for prefix in bindings:
        network = next(n for source in sources if (n := source.network_of(prefix)) is not None)
        networks.setdefault(network["name"], network)
        of[prefix] = network["name"]
    if node.distribution is None:
        policy_of = {**new.by_name["policy"], **policies}
        mine = {of[p] for p, row in bindings.items() if node.endpoint in _served_by(row, policy_of)}
    else:
        networks = {**networks, **new.by_name["network"]}
        mine = set(networks)
    rows = [row for prefix, row in sorted(bindings.items(), key=_order) if of[prefix] in mine]
    named = {row["policy"] for row in rows if "policy" in row}
    policy_rows = [
        _found(name, "policy", policies, sources)
        for name in sorted(named | (set(new.by_name["policy"]) if node.distribution else set()))
    ]
    needed = {row["to"] for row in rows if "to" in row}
    needed |= {member["endpoint"] for row in policy_rows for member in row["members"]}
    endpoints = dict(new.by_name["endpoint"])
    for name in sorted(needed - set(endpoints)):
        endpoints[name] = _found(name, "endpoint", {}, sources)
    return {
        "network": [networks[name] for name in sorted(mine)],
        "endpoint": [_with_self(row, node.endpoint) for _, row in sorted(endpoints.items())],
        "distribution": [_with_self(r, node.distribution) for r in new.rows("distribution")],
        "policy": policy_rows,
        "binding": rows,
    }


def _served_by(row: Row, policies: Mapping[str, Row]) -> set[str]:
    if "to" in row:
        return {row["to"]}
    return {member["endpoint"] for member in policies[row["policy"]]["members"]} if "policy" in row else set()


def _found(name: str, kind: str, first: Mapping[str, Row], sources: Sequence[Topology]) -> Row:
    return first.get(name) or next(s.by_name[kind][name] for s in sources if name in s.by_name[kind])


def _with_self(row: Row, own: str | None) -> Row:
    return {**row, "self": True} if row["name"] == own else row


def _order(item: tuple[Prefix, Row]) -> tuple[int, int, int]:
    prefix = item[0]
    return prefix.version, int(prefix.network_address), prefix.prefixlen


def text(tables: Tables, known: Rows | None = None) -> str:
    """As TOML. ``known``: rows that are text already, by identity: most nodes get most of the same."""
    parts = []
    known = {} if known is None else known
    for kind in ORDER:
        for row in tables.get(kind, ()):
            found = known.get(id(row))
            if found is None:
                found = known[id(row)] = (row, row_text(kind, row))  # with it the row lives, and its id
            parts.append(found[1])
    return "".join(parts) or "\n"


def row_text(kind: str, row: Row) -> str:
    """One row, as TOML."""
    return "\n".join([f"[[{kind}]]", *(f"{key} = {_value(value)}" for key, value in row.items())]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
