"""plan_text: a plan for people and for JSON: what is added, changed and removed, by name.

``summarize(plan)`` -> Summary; lists are capped (a plan may change a million bindings), counts are not.
Names come from the two Tables of the plan; where one has none (an engine keeps no names),
``named`` lends it those of another. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

import numpy as np

from ipshare.core import lib
from ipshare.engine.plan import Change, Plan
from ipshare.engine.tables import NO_POLICY, Records, Tables, plural
from ipshare.model import BindingKind, unpacked

MAX_ITEMS = 20
MARKS = {"add": "+", "change": "~", "remove": "-"}
ROLES = {
    lib.IPS_ROLE_OUTER: "outer",
    lib.IPS_ROLE_INNER: "inner",
    lib.IPS_ROLE_REPLY_TUNNEL: "reply-tunnel",
    lib.IPS_ROLE_REPLY_LOCAL: "reply-local",
    lib.IPS_ROLE_REPLY_GLOBAL: "reply-global",
}
ENCAPS = {lib.IPS_ENCAP_NONE: "rewrite", lib.IPS_ENCAP_IPIP: "ipip", lib.IPS_ENCAP_GUE: "gue"}
EP_FLAGS = {
    lib.IPS_EP_SELF: "self",
    lib.IPS_EP_MSS_CLAMP: "mss-clamp",
    lib.IPS_EP_DISTRIBUTION: "distribution",
    lib.IPS_EP_TRACE_TUNNEL: "trace-tunnel",
    lib.IPS_EP_WAY: "way",
}
UNMATCHED = ("drop", "unreachable", "pass")


@dataclass(frozen=True, slots=True)
class Item:
    """``count`` records of ``section`` that are added, changed or removed; ``lines`` describes the first
    of them."""

    verb: str
    section: str
    count: int
    lines: tuple[str, ...]

    @property
    def omitted(self) -> int:
        return self.count - len(self.lines)


@dataclass(frozen=True, slots=True)
class Summary:
    """A plan in words. ``moved``: policy -> share (0..1) of its clients that the plan sends elsewhere;
    ``kept``: of which of them the connections go on where they were, for ``drain_s`` seconds."""

    items: tuple[Item, ...]
    moved: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    drain_s: dict[str, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(item.count for item in self.items)

    def to_json(self) -> dict[str, Any]:
        return {
            "changes": [
                {"verb": i.verb, "section": i.section, "count": i.count, "first": list(i.lines)}
                for i in self.items
            ],
            "count": self.count,
            "moved_share": self.moved,
            "kept_share": self.kept,
            "drain_s": self.drain_s,
        }

    def lines(self) -> list[str]:
        """Text for people, one change a line, marked + ~ or -."""
        text: list[str] = []
        for item in self.items:
            text += [f"{MARKS[item.verb]} {item.section} {line}" for line in item.lines]
            if item.omitted > 0:
                text.append(f"{MARKS[item.verb]} ... and {item.omitted:,} more {plural(item.section)}")
        for name, share in self.moved.items():
            moves = f"! policy {name}: {share:.1%} of its clients move to another end point; "
            text.append(moves + self._then(share, self.kept.get(name, 0.0), self.drain_s.get(name, 0.0)))
        return text

    def _then(self, share: float, kept: float, drain_s: float) -> str:
        if not kept:
            return "their connections break"
        goes_on = f"their connections go on at the one that they had for {duration(drain_s)} from `apply` on"
        return goes_on + (f", but those of {share - kept:.1%} break" if share - kept > 0.0005 else "")


def summarize(
    plan: Plan,
    *,
    moved: dict[str, float] | None = None,
    kept: dict[str, float] | None = None,
    drain_s: dict[str, float] | None = None,
    max_items: int = MAX_ITEMS,
) -> Summary:
    """``moved``, ``kept`` as computed by ``ipshare.engine.moved``; absent, nothing is said of shares."""
    items = tuple(_item(plan, change, max_items) for change in plan)
    return Summary(items, moved or {}, kept or {}, drain_s or {})


def duration(seconds: float) -> str:
    """As a person would say it: 15 min, 90 s."""
    return f"{seconds / 60:g} min" if seconds >= 60 and seconds % 60 == 0 else f"{seconds:g} s"


def named(tables: Tables, names: Tables) -> Tables:
    """``tables`` with the names of ``names`` where both have as many records."""
    return replace(
        tables,
        endpoint_names=names.endpoint_names if len(names.endpoints) == len(tables.endpoints) else (),
        policy_names=names.policy_names if len(names.policies) == len(tables.policies) else (),
    )


def _item(plan: Plan, change: Change, most: int) -> Item:
    if change.section == "option":
        old, new = (option_text(change.name, values[0]) for values in (change.before, change.after))
        return Item(change.verb, "option", 1, (f"{change.name}: {old} -> {new}",))
    before = [record_text(plan.actual, change.section, record) for record in change.before[:most]]
    after = [record_text(plan.desired, change.section, record) for record in change.after[:most]]
    if change.verb == "change":
        lines = [_joined(old, new) for old, new in zip(before, after, strict=True)]
    else:
        lines = after or before
    return Item(change.verb, change.section, change.count, tuple(lines))


def _joined(old: str, new: str) -> str:
    """Both texts, the name that they share written once."""
    name, _, rest = new.partition(": ")
    if rest and old.startswith(f"{name}: "):
        return f"{name}: {old.removeprefix(f'{name}: ')} -> {rest}"
    return f"{old} -> {new}"


def option_text(name: str, value: Any) -> str:
    """One of ``Tables.options`` in words."""
    if name in ("icmp_source4", "icmp_source6"):
        raw = bytes(value).ljust(16, b"\0")  # an array of bytes loses the zeros at its end
        return str(unpacked(raw, int(name[-1]))) if any(raw) else "none"
    if name == "roles":
        return bits_text(int(value), ROLES)
    if name == "reply_policy":
        return "none" if int(value) == NO_POLICY else f"policy record {int(value)}"
    return str(value)


def bits_text(value: int, names: dict[int, str]) -> str:
    return "+".join(name for bit, name in names.items() if value & bit) or "none"


def record_text(tables: Tables, section: str, record: Any) -> str:
    """One record in words, ``NAME: what it is``."""
    if section == "network":
        return f"{prefix_text(record, 'prefix')}: unmatched {UNMATCHED[record['unmatched']]}"
    if section == "endpoint":
        return _endpoint_text(tables, record)
    if section == "policy":
        before = f", {record['n_previous']} before" if record["n_previous"] else ""
        return f"{_policy_name(tables, record)}: {record['n_members']} members{before}"
    if section == "peer":
        return _peer_text(record)
    if section == "member":
        return f"{tables.endpoint_name(int(record['endpoint']))}: weight {record['weight']}"
    return f"{prefix_text(record, 'global')}: {target_text(tables, record)}"


def _peer_text(record: Any) -> str:
    family = int(record["family"])
    name, now = (unpacked(record[key].tobytes(), family) for key in ("address", "now"))
    where = str(now) if record["now"].any() else "where it was"
    if record["flags"] & lib.IPS_PEER_ALSO:
        where = f"also {now}"
    return f"{name}: {where}" + (", next to this node" if record["flags"] & lib.IPS_PEER_HERE else "")


def peer_rows(tables: Tables) -> list[dict[str, Any]]:
    """Members of groups, one row for each address: ``group`` (its number), ``address``, ``now``, ``also``,
    ``here``."""
    rows: dict[bytes, dict[str, Any]] = {}
    for record in tables.peers:
        family = int(record["family"])
        address, now = (str(unpacked(record[key].tobytes(), family)) for key in ("address", "now"))
        key = bytes([family]) + record["address"].tobytes()
        row = rows.setdefault(
            key, {"group": int(record["group"]), "address": address, "now": address, "also": []}
        )
        row["here"] = bool(record["flags"] & lib.IPS_PEER_HERE)
        if record["flags"] & lib.IPS_PEER_ALSO:
            row["also"].append(now)
        elif record["now"].any():
            row["now"] = now
    return list(rows.values())


def prefix_text(record: Any, name: str) -> str:
    family = int(record["family"])
    address = unpacked(record[name].tobytes(), family)
    length = int(record["prefix_len"])
    return str(address) if length == address.max_prefixlen else f"{address}/{length}"


def _endpoint_text(tables: Tables, record: Any) -> str:
    found = np.flatnonzero(tables.endpoints == record)
    name = tables.endpoint_name(int(found[0])) if len(found) else "?"
    local = prefix_text(record, "local") if record["prefix_len"] else f"any IPv{record['family']} address"
    if record["flags"] & lib.IPS_EP_WAY:
        local = f"what changed policies left at {unpacked(record['local'].tobytes(), int(record['family']))}"
    words = [f"{name}: {local}", ENCAPS.get(int(record["encap"]), "?")]
    if record["tunnel_family"]:
        words.append(f"tunnel {unpacked(record['tunnel_remote'].tobytes(), int(record['tunnel_family']))}")
    words.append(f"path-mtu {record['path_mtu']}")
    flags = bits_text(int(record["flags"]), EP_FLAGS)
    return " ".join(words + ([flags] if flags != "none" else []))


def _policy_name(tables: Tables, record: Any) -> str:
    found = np.flatnonzero(tables.policies == record)
    index = int(found[0]) if len(found) else -1
    return tables.policy_names[index] if 0 <= index < len(tables.policy_names) else f"#{index}"


def policy_name(tables: Tables, index: int) -> str:
    return tables.policy_names[index] if index < len(tables.policy_names) else f"#{index}"


def target_text(tables: Tables, record: Any) -> str:
    """Where a binding record sends its packets: ``A 10.1.0.5``, ``policy web``, ``here``, ``down``."""
    kind, target = int(record["kind"]), int(record["target"])
    if kind == BindingKind.HERE:
        return "here"
    if kind == BindingKind.DOWN:
        return "down"
    copied = " (copied)" if int(record["flags"]) & lib.IPS_BINDING_COPY else ""
    if int(record["flags"]) & lib.IPS_BINDING_TRACK:
        copied += " (tracked)"
    if kind == BindingKind.POLICY:
        return f"policy {policy_name(tables, target)}{copied}"
    if kind not in (BindingKind.ENDPOINT, BindingKind.ADDRESS) or target >= len(tables.endpoints):
        return "nothing"
    return f"{tables.endpoint_name(target)} {local_text(tables, record)}{copied}".rstrip()


def local_text(tables: Tables, record: Any) -> str:
    """The local address or prefix of a binding record; empty where packets keep their destination."""
    kind, family = int(record["kind"]), int(record["family"])
    local = unpacked(record["local"].tobytes(), family)
    if kind == BindingKind.ADDRESS:
        first = local
    elif kind == BindingKind.ENDPOINT:
        endpoint = tables.endpoints[int(record["target"])]
        if not endpoint["prefix_len"]:
            return ""
        first = unpacked(endpoint["local"].tobytes(), family) + int(local)
    else:
        return ""
    length = int(record["prefix_len"])
    return str(first) if length == first.max_prefixlen else str(ip_network((first, length)))


def binding_rows(tables: Tables, records: Records) -> list[dict[str, Any]]:
    """Binding records as JSON values: global, kind, target, local, copied."""
    rows = []
    for record in records:
        kind = BindingKind(int(record["kind"]))
        target = int(record["target"])
        names = {
            BindingKind.ENDPOINT: tables.endpoint_name(target),
            BindingKind.ADDRESS: tables.endpoint_name(target),
            BindingKind.POLICY: policy_name(tables, target),
        }
        rows.append(
            {
                "global": prefix_text(record, "global"),
                "kind": kind.name.lower(),
                "target": names.get(kind),
                "local": local_text(tables, record) or None,
                "copied": bool(int(record["flags"]) & lib.IPS_BINDING_COPY),
            }
        )
    return rows
