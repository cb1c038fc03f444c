"""topology: what a revision says of the whole installation, as a value: sites, nodes, networks, bindings.

Tables are kept as the file has them (they were checked by ipshare.director.config), so that a revision read
from the store years later is what somebody wrote. Here: who is involved in what, and what changes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_network
from typing import Any

from ipshare.model import Prefix, contains

Row = Mapping[str, Any]
KINDS = ("site", "node", "network", "endpoint", "distribution", "policy", "binding", "workload")
PATH_KEYS = ("local", "path", "tunnel", "gue_port")
"""Of an end point: what its old packets and its new ones would have to agree on."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the topology has it."""

    name: str
    address: str
    endpoint: str | None
    distribution: str | None


@dataclass(frozen=True)
class Topology:
    """``tables``: kind -> rows; equal tables, equal topologies."""

    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    def rows(self, kind: str) -> Sequence[Row]:
        return self.tables.get(kind, ())

    @cached_property
    def nodes(self) -> dict[str, NodeRow]:
        return {
            row["name"]: NodeRow(row["name"], row["address"], row.get("endpoint"), row.get("distribution"))
            for row in self.rows("node")
        }

    @cached_property
    def bindings(self) -> dict[Prefix, Row]:
        return {ip_network(row["global"]): row for row in self.rows("binding")}

    @cached_property
    def by_name(self) -> dict[str, dict[str, Row]]:
        """kind -> name -> row, of what has names."""
        return {kind: {row["name"]: row for row in self.rows(kind)} for kind in KINDS if kind != "binding"}

    def endpoints_of(self, binding: Row) -> frozenset[str]:
        """The end points that serve it."""
        if "to" in binding:
            return frozenset([binding["to"]])
        policy = self.by_name["policy"].get(binding.get("policy", ""))
        return frozenset(member["endpoint"] for member in policy["members"]) if policy else frozenset()

    def cover(self, prefix: Prefix) -> Row | None:
        """The binding that decides about all of ``prefix``: its own, or the longest around it."""
        step = prefix
        while True:
            if (found := self.bindings.get(step)) is not None:
                return found
            if step.prefixlen == 0:
                return None
            step = step.supernet()

    def serves(self, prefix: Prefix, endpoint: str) -> bool:
        """Whether ``endpoint`` serves it."""
        found = self.cover(prefix)
        return found is not None and endpoint in self.endpoints_of(found)

    def network_of(self, prefix: Prefix) -> Row | None:
        return next(
            (row for row in self.rows("network") if contains(ip_network(row["prefix"]), prefix)), None
        )


def gaining(bases: Sequence[Topology], new: Topology) -> dict[str, bool]:
    """End points that serve something in ``new`` that they do not in one of ``bases`` -> whether another one
    serves it there: then connections break if it is not ready."""
    found: dict[str, bool] = {}
    for prefix, row in new.bindings.items():
        for endpoint in new.endpoints_of(row):
            for base in bases:
                had = base.cover(prefix)
                before = base.endpoints_of(had) if had is not None else frozenset()
                if endpoint not in before:
                    found[endpoint] = found.get(endpoint, False) or bool(before)
        for base in bases:  # what is inside it elsewhere now comes back to it
            for inner, inside in base.bindings.items():
                if inner != prefix and inner not in new.bindings and new.cover(inner) is row:
                    for endpoint in new.endpoints_of(row) - base.endpoints_of(inside):
                        found[endpoint] = found.get(endpoint, False) or bool(base.endpoints_of(inside))
    return found


def gaps(bases: Sequence[Topology], new: Topology) -> list[str]:
    """What cannot be changed without a moment in which packets are lost, a line each."""
    found = []
    for name, row in new.by_name["endpoint"].items():
        for base in bases:
            old = base.by_name["endpoint"].get(name)
            changed = [key for key in PATH_KEYS if old is not None and old.get(key) != row.get(key)]
            if changed:
                what = f"end point {name}: {', '.join(changed)} changes"
                found.append(f"{what}: until every distribution point has that too, packets to it are lost")
                break
    return found


def changes(old: Topology, new: Topology) -> Iterator[str]:
    """A line for each row that differs, with its mark: + - ~."""
    for kind in KINDS:
        before, after = _keyed(old, kind), _keyed(new, kind)
        for key in [*after, *(key for key in before if key not in after)]:
            if key not in before:
                yield f"+ {kind} {key}{_said(kind, after[key])}"
            elif key not in after:
                yield f"- {kind} {key}{_said(kind, before[key])}"
            elif before[key] != after[key]:
                yield f"~ {kind} {key}: {_difference(before[key], after[key])}"


def _keyed(topology: Topology, kind: str) -> dict[str, Row]:
    if kind == "binding":
        return {str(prefix): row for prefix, row in topology.bindings.items()}
    return dict(topology.by_name[kind])


def _said(kind: str, row: Row) -> str:
    if kind != "binding":
        return ""
    return ": " + ", ".join(f"{key} {value}" for key, value in row.items() if key != "global")


def _difference(old: Row, new: Row) -> str:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {old.get(key, '-')} -> {new.get(key, '-')}" for key in keys)
