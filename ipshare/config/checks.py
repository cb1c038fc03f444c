"""What single tables cannot know: checks between tables, each a generator of findings about one table.

`run` gives every table of a kind to every check of that kind. A check that reads a key whose value was
refused ends there (schema.Unreadable): its mistake is reported already, all other checks go on. Here: the
machinery, names, this node, the engine, probes. Places and bindings have modules of their own. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ipshare.config import schema
from ipshare.config.keys import KeyPath
from ipshare.config.resolve import named, own_name, readable
from ipshare.config.site import Site
from ipshare.config.units import Invalid, bad_scope, device
from ipshare.model import host_prefix


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake, or a warning, at a key path of the document."""

    path: KeyPath
    message: str
    hint: str
    is_warning: bool = False


Check = Callable[[Site, Any], Iterator[Finding]]


def run(site: Site, checks: dict[str, list[Check]]) -> Iterator[Finding]:
    """All findings of `checks`: kind of table -> checks of one such table."""
    for kind, functions in checks.items():
        for table in site.tables(kind):
            yield from run_one(site, table, functions)


def run_one(site: Site, table: Any, functions: list[Check]) -> Iterator[Finding]:
    """All findings about one table."""
    for function in functions:
        yield from _until_unreadable(function(site, table))


def _until_unreadable(findings: Iterable[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except schema.Unreadable:
        return


def unknown_name(site: Site, kind: str, path: KeyPath, name: str, article: str) -> Iterator[Finding]:
    """A reference to a table of `kind` that does not exist."""
    if kind in site.incomplete or named(site.tables(kind), name) is not None:
        return
    names = [table.name for table in readable(site.tables(kind), "name")]
    close = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
    yield Finding(path, f"there is no {article} named {name!r}", hint)


def unique_name(site: Site, table: Any) -> Iterator[Finding]:
    """Two tables of one kind with one name."""
    kind = str(table._path[0])
    for other in readable(site.tables(kind), "name"):
        if other is table:
            return
        if other.name == table.name:
            message = f"the name {table.name!r} is taken by the {kind} at {site.where(other)}"
            yield Finding((*table._path, "name"), message, "give every one a name of its own")
            return


def own_place(site: Site, node: schema.Node) -> Iterator[Finding]:
    """[node].endpoint and [node].distribution against the tables and their `self`."""
    for kind, words in (("endpoint", "end point"), ("distribution", "distribution point")):
        chosen = getattr(node, kind)
        if chosen is not None:
            yield from unknown_name(site, kind, ("node", kind), chosen, words)
        mine = [table for table in readable(site.tables(kind), "is_self", "name") if table.is_self]
        for table in mine:
            if table.name != (chosen or mine[0].name):
                other = (
                    f"node.{kind} = {chosen!r}" if chosen else f"{mine[0].name!r} at {site.where(mine[0])}"
                )
                message = f"this node cannot be {words} {table.name!r} and also {other}"
                yield Finding(
                    (*table._path, "self"), message, "a node is at most one of each: leave one `self`"
                )


def has_role(site: Site, node: schema.Node) -> Iterator[Finding]:
    if {"endpoint", "distribution", "nat", "cluster"} & site.incomplete or site.nat or site.cluster:
        return
    if site.remote is not None:  # a director says it
        return
    if own_name(site, "endpoint") is None and own_name(site, "distribution") is None:
        broken = any(t._broken & {"is_self", "name"} for t in (*site.endpoint, *site.distribution))
        if not broken:
            message = "this node is neither an end point nor a distribution point: it translates nothing"
            hint = "set endpoint or distribution in [node], or `self = true` in one of those tables"
            yield Finding(("node",), message, hint, is_warning=True)


def directories(site: Site, node: schema.Node) -> Iterator[Finding]:
    for key in ("runtime_dir", "state_dir"):
        value = None if key in node._broken else getattr(node, key)
        if value is not None and not value.startswith("/"):
            yield Finding(("node", key), f"{value!r} is not an absolute path", "begin it with /")


def icmp_sources(site: Site, node: schema.Node) -> Iterator[Finding]:
    seen: set[int] = set()
    for index, source in enumerate(node.icmp_source):
        path: KeyPath = ("node", "icmp_source", index)
        if source.version in seen:
            yield Finding(
                path, f"a second IPv{source.version} source", "at most one per family: leave one out"
            )
        seen.add(source.version)
        if scope := bad_scope(host_prefix(source)):
            yield Finding(
                path, f"{source} is {scope}: no router answers from it", "use an address of this node"
            )
    missing = sorted({n.prefix.version for n in readable(site.network, "prefix")} - seen)
    for family in missing:
        message = (
            f"no IPv{family} address in icmp_source: path MTU discovery and traceroute stay without answer"
        )
        yield Finding(("node",), message, "add an address of this node to icmp_source", is_warning=True)


def is_vpp(site: Site) -> bool:
    """Whether the engine is VPP; a kind that was refused counts as the embedded engine."""
    return "kind" not in site.engine._broken and site.engine.kind == "vpp"


def linux_names(site: Site, node: schema.Node) -> Iterator[Finding]:
    """Interfaces are Linux devices with the embedded engine."""
    if is_vpp(site):
        return
    named: list[tuple[KeyPath, str]] = [
        (("node", key, index), name)
        for key in ("outside", "inside")
        for index, name in enumerate([] if key in node._broken else getattr(node, key))
    ]
    named += [((*c._path, "interface"), c.interface) for c in readable(site.copy, "interface") if c.interface]
    for path, name in named:
        try:
            device(name)
        except Invalid as error:
            yield Finding(path, error.message, error.hint)


def devices(site: Site, engine: schema.Engine) -> Iterator[Finding]:
    if is_vpp(site):
        return
    ours = {
        getattr(engine, key): key for key in ("outer_device", "inner_device") if key not in engine._broken
    }
    if len(ours) == 1 and not engine._broken & {"outer_device", "inner_device"}:
        message = f"outer_device and inner_device are both {engine.inner_device!r}"
        yield Finding(("engine", "inner_device"), message, "give them different names")
    for key in ("outside", "inside"):
        for index, name in enumerate([] if key in site.node._broken else getattr(site.node, key)):
            if name in ours:
                hint = "name the interface that the packets arrive on"
                yield Finding(("node", key, index), f"{name!r} is the engine's own {ours[name]}", hint)
    for copy in readable(site.copy, "interface"):
        if copy.interface in ours:
            message = (
                f"{copy.interface!r} is the engine's own {ours[copy.interface]}: copies would "
                f"be translated again"
            )
            yield Finding((*copy._path, "interface"), message, "name an interface that leads to the IDS")


def routing_tables(site: Site, engine: schema.Engine) -> Iterator[Finding]:
    if is_vpp(site):
        return
    reserved = {255: "local", 254: "main", 253: "default"}
    tables = {
        key: getattr(engine, key)
        for key in ("service_table", "reply_table", "nat_table", "group_table")
        if key not in engine._broken
    }
    for key, number in tables.items():
        if number in reserved:
            message = f"routing table {number} is {reserved[number]}, one of the kernel's own"
            yield Finding(("engine", key), message, "choose a free number from 1 to 252 or above 255")
    seen: dict[int, str] = {}
    for key, number in tables.items():
        if number in seen:
            message = f"{seen[number]} and {key} are both {number}"
            yield Finding(("engine", key), message, "give each a table of its own")
        seen.setdefault(number, key)


def probe_times(site: Site, probe: schema.Probe) -> Iterator[Finding]:
    for key in ("interval", "timeout"):
        if key not in probe._broken and getattr(probe, key) <= 0:
            yield Finding(("probe", key), "must be more than 0", 'write for example "1s"')
            return
    if probe.timeout >= probe.interval:
        message = f"timeout ({probe.timeout:g} s) is not below interval ({probe.interval:g} s)"
        yield Finding(("probe", "timeout"), message, "a probe must end before the next one: lower timeout")


CHECKS: dict[str, list[Check]] = {
    "node": [own_place, has_role, directories, icmp_sources, linux_names],
    "engine": [devices, routing_tables],
    "probe": [probe_times],
    **{
        kind: [unique_name]
        for kind in ("network", "endpoint", "distribution", "policy", "bindings_file", "copy")
    },
}
