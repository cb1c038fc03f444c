"""A file's `[[site]]`, `[[node]]` and `[[workload]]` -> Layout; all mistakes at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ipshare.config import some
from ipshare.config.read import Document
from ipshare.config.schema_hazards import SiteTable
from ipshare.config.schema_placement import PlaceNode
from ipshare.config.schema_placement import Workload as WorkloadTable
from ipshare.config.some import Finding
from ipshare.placement.model import Layout, Node, Site, Workload


def load(path: Path) -> Layout:
    """Raises ConfigError with every mistake."""
    return layout(some.document_of(path))


def layout(document: Document) -> Layout:
    """The same for a file that was read; raises ConfigError, also for what `document` had against it."""
    sites = some.every(document, "site", SiteTable)
    nodes = some.every(document, "node", PlaceNode)
    tables = some.every(document, "workload", WorkloadTable)
    for kind, every in (("sites", sites), ("nodes", nodes), ("workloads", tables)):
        some.note(document, some.twice(every, kind))
    if not sites and "site" not in document.data:
        some.note(document, [((), "there is no site", 'write [[site]] with name = "..." and capacity')])
    some.done(document)
    some.note(document, _nodes(sites, nodes))
    some.done(document)
    places = list(_places(sites, nodes))
    names = {site.name for site in sites}
    homes = {node.name: node.site for node in places}
    found: list[Workload] = []
    for table in tables:
        some.note(document, workload_findings(table, names, homes, found))
    some.note(document, group_findings(tables, found))
    some.done(document)
    held = {name: sum(node.capacity for node in places if node.site == name) for name in names}
    made = [Site(site.name, site.capacity or held[site.name], site.weight) for site in sites]
    return Layout(tuple(made), tuple(places), tuple(found))


def _nodes(sites: Sequence[SiteTable], nodes: Sequence[PlaceNode]) -> Iterator[Finding]:
    names = {site.name for site in sites}
    with_nodes = {node.site for node in nodes if node.capacity is not None}
    for node in nodes:
        if node.site not in names:
            yield (*node._path, "site"), f"there is no site {node.site!r}", _known(names)
        if node.name in names and node.name != node.site:
            yield (*node._path, "name"), f"{node.name!r} is the name of a site", "name the node otherwise"
    for site in sites:
        if site.capacity is None and site.name not in with_nodes:
            text = f"nobody knows how much fits into {site.name}"
            yield site._path, text, "write capacity, here or at its nodes"


def _places(sites: Sequence[SiteTable], nodes: Sequence[PlaceNode]) -> Iterator[Node]:
    """Nodes with a capacity; a site that has none is its own."""
    able = [node for node in nodes if node.capacity is not None]
    for node in able:
        yield Node(node.name, node.site, node.capacity or 0.0)
    for site in sites:
        if site.capacity is not None and site.name not in {node.site for node in able}:
            yield Node(site.name, site.name, site.capacity)


def workload_findings(
    table: WorkloadTable, sites: set[str], homes: dict[str, str], found: list[Workload]
) -> Iterator[Finding]:
    """Mistakes of one workload, which is added to `found` if it has none."""
    path = table._path
    home = table.node or table.site
    wrong = False
    for index, site in enumerate(table.allowed):
        if site not in sites:
            wrong = True
            yield (*path, "allowed", index), f"there is no site {site!r}", _known(sites)
    if (table.node is None) == (table.site is None):
        yield path, f"where does {table.name} run?", "write node or site, one of them"
    elif table.node is not None and table.node not in homes:
        text = f"there is no node {table.node!r} with a capacity"
        yield (*path, "node"), text, _known(set(homes))
    elif table.site is not None and table.site not in sites:
        yield (*path, "site"), f"there is no site {table.site!r}", _known(sites)
    elif table.site is not None and homes.get(table.site) != table.site:
        yield (*path, "site"), f"{table.site} has nodes: which one is it?", "write node instead of site"
    elif not wrong and home is not None:
        allowed, apart = frozenset(table.allowed), frozenset(table.apart)
        found.append(Workload(table.name, table.size, home, table.group or "", allowed, apart))


def group_findings(tables: Sequence[WorkloadTable], found: Sequence[Workload]) -> Iterator[Finding]:
    """Workloads of a group are on one node, and do not keep apart from each other."""
    paths = {table.name: table._path for table in tables}
    first: dict[str, Workload] = {}
    labels: dict[tuple[str, str], str] = {}
    for workload in found:
        if not workload.group:
            continue
        other = first.setdefault(workload.group, workload)
        if other.node != workload.node:
            text = f"group {workload.group}: {other.name} runs on {other.node}, not {workload.node}"

            yield (*paths[workload.name], "group"), text, "a group runs on one node"
        for label in sorted(workload.apart):
            before = labels.setdefault((workload.group, label), workload.name)
            if before != workload.name:
                text = f"group {workload.group}: {before} and {workload.name} are kept apart by {label!r}"
                yield (*paths[workload.name], "apart"), text, "a group runs on one node: take the label away"


def _known(names: set[str]) -> str:
    return f"known here: {', '.join(sorted(names))}" if names else "there is none"
