"""config: director.toml -> Settings and Topology, with every mistake at once, file and line.

[director] and [[node]] are judged by the models here, [[site]] and [[workload]] by those of hazards and
placement, [hazards] and [evacuation] by ipshare.director.evacuation; [[network]], [[endpoint]],
[[distribution]], [[policy]] and [[binding]] are those of a site file, judged by the same checks
(ipshare.config), as each kind of node will see them. Includes work as in a site file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from ipshare.certs.contexts import Files
from ipshare.config import some
from ipshare.config.assigned import KINDS as SHARED
from ipshare.config.read import Document, read, read_text
from ipshare.config.report import judged
from ipshare.config.schema_hazards import Hazards, Positive
from ipshare.config.schema_hazards import SiteTable as Site
from ipshare.config.schema_placement import Workload
from ipshare.config.site import array, single
from ipshare.config.values import Duration, Name, PathEnd, Table
from ipshare.director import config_http, limits, schema_health, workloads
from ipshare.director.config_store import EtcdSettings, Store, problems, settings_of
from ipshare.director.evacuation import settings as evacuation
from ipshare.director.topology import KINDS, Topology
from ipshare.errors import ConfigError, Problem

OTHERS = ("hazards", "evacuation")
"""Tables that are judged by ipshare.director.evacuation.settings."""


class Director(Table):
    """This director."""

    name: Name = Field(description="Its name, as its certificate says.")
    ca: str = Field(min_length=1, description="Certificate of the authority, relative to this file.")
    certificate: str = Field(
        min_length=1,
        description="Its private key and certificate (`ipshare cert issue director`), mode 0600.",
    )
    revoked: str | None = Field(default=None, min_length=1, description="List of revoked certificates.")
    state_dir: str = Field(
        default="/var/lib/ipshare-director", min_length=1, description="Directory of its store."
    )
    runtime_dir: str = Field(
        default="/run/ipshare-director", min_length=1, description="Directory of its control socket."
    )
    interval: Duration = Field(
        default=1.0, json_schema_extra={"default": "1s"}, description="Time between two looks at a node."
    )
    stale_after: Duration = Field(
        default=5.0,
        json_schema_extra={"default": "5s"},
        description="A node that was not heard for so long is silent: nothing is known of it.",
    )
    patience: Duration = Field(
        default=30.0,
        json_schema_extra={"default": "30s"},
        description="How long a node may take to apply what it is sent, and a refusal stands before it is "
        "tried again.",
    )


class Node(Table):
    """A node: where its agent listens, and what it is."""

    name: Name = Field(description="Its name: [node] name in its site file, and in its certificate.")
    address: PathEnd = Field(description="Address and port where its agent listens ([remote] there).")
    site: Name | None = Field(default=None, description="The [[site]] that it is at.")
    capacity: Positive | None = Field(
        default=None, description="How much fits, in the unit of the workloads' sizes."
    )
    endpoint: Name | None = Field(default=None, description="The [[endpoint]] that it is.")
    distribution: Name | None = Field(default=None, description="The [[distribution]] that it is.")
    drained: bool = Field(
        default=False, description="Taken out of service: its neighbours prefer others, then it withdraws."
    )


class File(Table):
    """A director's file, as far as it is not that of a site."""

    director: Director
    store: Store = Store()
    http: config_http.Http | SkipJsonSchema[None] = None
    node: list[Node] = []
    workload: list[Workload] = []
    health: schema_health.Health
    failover: schema_health.Failover
    hazards: Hazards
    evacuation: evacuation.Evacuation


@dataclass(frozen=True, slots=True)
class Settings:
    """What a director's process needs to know, from start to end."""

    name: str
    files: Files
    state_dir: Path
    runtime_dir: Path
    interval_s: float
    stale_after_s: float
    patience_s: float
    watch: schema_health.Watch | None = None
    http: config_http.HttpSettings | None = None
    evacuation: evacuation.Settings = evacuation.Settings()
    etcd: EtcdSettings | None = None
    """None: the store is SQLite."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that was read."""

    settings: Settings
    topology: Topology


def load(path: Path) -> Wanted:
    """Raises ConfigError with all mistakes."""
    return _wanted(read(path))


def load_text(text: str, name: Path) -> Wanted:
    """The same for a text in memory; `name` stands in messages, and includes are relative to it."""
    return _wanted(read_text(text, name))


def topology(tables: Mapping[str, Any], name: str) -> Topology:
    """The same for the tables of a topology alone, as JSON has them; `name` stands in messages."""
    document = Document(Path(name))
    document.data = dict(tables)
    found = _topology(document, KINDS)
    if document.problems:
        raise ConfigError(_sorted(document))
    return found


def problems_at(topology: Topology, node: str, tables: dict[str, Any]) -> tuple[Problem, ...]:
    """What a node of that topology would have against ``tables``, as far as that can be seen from here."""
    document = Document(Path(f"what {node} gets"))
    document.data = {"node": {"name": node}} | {
        kind: [dict(r) for r in rows] for kind, rows in tables.items()
    }
    return judged(document).problems


def _wanted(document: Document) -> Wanted:
    if document.problems and not document.data:
        raise ConfigError(document.problems)
    director = single(document, "director", Director) if "director" in document.data else None
    if director is None:
        document.problems.append(document.problem((), "table [director] is missing", "write [director]"))
    store, http = single(document, "store", Store), _http(document)
    document.problems += problems(document, store)
    found = _topology(
        document, ("director", "store", "http", "health", "failover", "include", *KINDS, *OTHERS)
    )
    if director is not None:
        some.note(document, limits.director(director))
    sound = director if director is not None and not director._broken else None
    watch = schema_health.watch(document, sound.interval) if sound is not None else None
    beside = evacuation.read(document, sound.patience if sound is not None else 0.0)
    if document.problems or director is None:
        raise ConfigError(_sorted(document))
    return Wanted(replace(_settings(document, director, store, http), evacuation=beside, watch=watch), found)


def _topology(document: Document, known: Sequence[str]) -> Topology:
    """What the document says of the installation; mistakes are in its problems."""
    incomplete: set[str] = set()
    sites = list(array(document, incomplete, "site", Site))
    nodes = list(array(document, incomplete, "node", Node))
    for key in document.data:
        if key not in known:
            message = f"unknown key {key!r}"
            document.problems.append(document.problem((key,), message, f"known here: {', '.join(known)}"))
    placed = list(array(document, incomplete, "workload", Workload))
    if not incomplete:
        document.problems += _together(document, {"site": sites, "node": nodes, "workload": placed})
        _placed(document, sites, nodes, placed)
    document.problems += _shared(document, nodes)
    return Topology({kind: document.data[kind] for kind in KINDS if document.data.get(kind)})


def _sorted(document: Document) -> list[Problem]:
    order = {str(file): number for number, file in enumerate(document.files)}
    found = dict.fromkeys(document.problems)
    return sorted(found, key=lambda p: (order.get(p.file, len(order)), p.line, p.column))


def _http(document: Document) -> config_http.Http | None:
    table = some.one(document, "http", config_http.Http)
    if table is not None:
        some.note(document, config_http.findings(table))
    return table


def settings(path: Path) -> Settings:
    """[director] of a file alone, for those who ask a director that runs. Raises ConfigError."""
    document = read(path)
    if document.problems and not document.data:
        raise ConfigError(document.problems)
    director, store = single(document, "director", Director), single(document, "store", Store)
    if document.problems:
        raise ConfigError(document.problems)
    return _settings(document, director, store, None)


def _settings(
    document: Document, director: Director, store: Store, http: config_http.Http | None
) -> Settings:
    folder = document.main.parent
    return Settings(
        name=director.name,
        files=Files(
            folder / director.ca,
            folder / director.certificate,
            folder / director.revoked if director.revoked else None,
        ),
        state_dir=folder / director.state_dir,
        runtime_dir=folder / director.runtime_dir,
        interval_s=director.interval,
        stale_after_s=director.stale_after,
        patience_s=director.patience,
        etcd=settings_of(store, folder),
        http=config_http.made(http, folder, folder / director.certificate) if http is not None else None,
    )


def _placed(document: Document, sites: list[Site], nodes: list[Node], placed: list[Workload]) -> None:
    """What [[workload]] has against the rest of the file."""
    sound = {node.name: node for node in nodes if not node._broken}
    names = {site.name for site in sites if "name" not in site._broken}
    bindings = document.data.get("binding", [])
    found = workloads.findings(placed, sound, names, bindings if isinstance(bindings, list) else [])
    some.note(document, found)


def _together(document: Document, rows: dict[str, list[Any]]) -> Iterator[Problem]:
    nodes: list[Node] = rows["node"]
    for kind, tables in rows.items():
        seen: dict[str, Any] = {}
        for index, table in enumerate(tables):
            if "name" in table._broken:
                continue
            if table.name in seen:
                hint = f"the other one is at {document.place(seen[table.name])}"
                yield document.problem((kind, index, "name"), f"a second {kind} {table.name!r}", hint)
            seen[table.name] = (kind, index)
    named = {
        kind: {row.get("name") for row in document.data.get(kind, []) if isinstance(row, dict)}
        for kind in ("site", "endpoint", "distribution")
    }
    points: dict[str, int] = {}
    for index, node in enumerate(nodes):
        if node._broken:
            continue
        for kind, names in named.items():
            name = getattr(node, kind)
            if name is not None and name not in names:
                hint = f"known: {', '.join(sorted(map(str, names))) or 'none'}"
                yield document.problem(("node", index, kind), f"there is no {kind} {name!r}", hint)
        if node.endpoint is None and node.distribution is None:
            hint = "set endpoint, distribution or both"
            yield document.problem(("node", index), f"node {node.name} is nothing", hint)
        if node.drained and node.distribution is None:
            hint = "only a distribution point announces something"
            yield document.problem(("node", index, "drained"), f"node {node.name} cannot be drained", hint)
        if str(node.address) in points:
            yield document.problem(
                ("node", index, "address"), "another node has that address", "each has its own"
            )
        points[str(node.address)] = index


def _shared(document: Document, nodes: list[Node]) -> Iterator[Problem]:
    """The tables that nodes get, as an end point, a distribution point, and one that is both judge them."""
    kinds: dict[tuple[bool, bool], Node] = {}
    for node in nodes:
        if not node._broken:
            kinds.setdefault((node.endpoint is None, node.distribution is None), node)
    views = [{"name": n.name, "endpoint": n.endpoint, "distribution": n.distribution} for n in kinds.values()]
    for view in views or [{"name": "director"}]:
        part = Document(document.main, files=list(document.files), places=document.places)
        part.data = {kind: document.data[kind] for kind in SHARED if kind in document.data}
        part.data["node"] = {key: value for key, value in view.items() if value is not None}
        yield from judged(part).problems
