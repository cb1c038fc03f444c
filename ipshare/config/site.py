"""One document -> Site: every table judged alone, and what is sound of a damaged one kept.

pydantic would stop at the first table that fails and never reach the checks between tables. Here each table
is validated on its own; of one with mistakes the good keys are kept and the bad ones are marked as broken
(schema.Table), so that one run reports everything. `Site.incomplete` names kinds of tables of which some
could not be read at all: a name that is missing there is no mistake of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ipshare.config import schema
from ipshare.config.keys import KeyPath
from ipshare.config.read import Document

T = TypeVar("T", bound=schema.Table)

_ARRAYS: dict[str, type[schema.Table]] = {
    "network": schema.Network,
    "endpoint": schema.Endpoint,
    "distribution": schema.Distribution,
    "policy": schema.Policy,
    "binding": schema.Binding,
    "bindings_file": schema.BindingsFile,
    "copy": schema.Copy,
    "interface": schema.Interface,
    "bridge": schema.Bridge,
    "route": schema.Route,
    "neighbor": schema.Neighbor,
    "nat": schema.Nat,
    "lease": schema.Lease,
    "group": schema.Group,
    "channel": schema.Channel,
    "cluster": schema.Cluster,
    "workload": schema.SiteWorkload,
    "migration": schema.Migration,
}
_TABLES: dict[str, type[schema.Table]] = {
    "node": schema.Node,
    "engine": schema.Engine,
    "probe": schema.Probe,
    "vpp": schema.Vpp,
}
_OPTIONAL: dict[str, type[schema.Table]] = {
    "pair": schema.Pair,
    "sessions": schema.Sessions,
    "mirror": schema.Mirror,
    "nat_log": schema.NatLog,
    "bgp": schema.Bgp,
    "remote": schema.Remote,
}
"""As _TABLES, but it matters whether the table is there at all."""


@dataclass
class Site:
    """The tables of a document, by kind, as far as they could be read."""

    document: Document
    node: schema.Node
    engine: schema.Engine
    probe: schema.Probe
    vpp: schema.Vpp
    pair: schema.Pair | None = None
    sessions: schema.Sessions | None = None
    mirror: schema.Mirror | None = None
    nat_log: schema.NatLog | None = None
    bgp: schema.Bgp | None = None
    remote: schema.Remote | None = None
    network: list[schema.Network] = field(default_factory=list)
    endpoint: list[schema.Endpoint] = field(default_factory=list)
    distribution: list[schema.Distribution] = field(default_factory=list)
    policy: list[schema.Policy] = field(default_factory=list)
    binding: list[schema.Binding] = field(default_factory=list)
    bindings_file: list[schema.BindingsFile] = field(default_factory=list)
    copy: list[schema.Copy] = field(default_factory=list)
    interface: list[schema.Interface] = field(default_factory=list)
    bridge: list[schema.Bridge] = field(default_factory=list)
    route: list[schema.Route] = field(default_factory=list)
    neighbor: list[schema.Neighbor] = field(default_factory=list)
    nat: list[schema.Nat] = field(default_factory=list)
    lease: list[schema.Lease] = field(default_factory=list)
    group: list[schema.Group] = field(default_factory=list)
    channel: list[schema.Channel] = field(default_factory=list)
    cluster: list[schema.Cluster] = field(default_factory=list)
    workload: list[schema.SiteWorkload] = field(default_factory=list)
    migration: list[schema.Migration] = field(default_factory=list)
    incomplete: set[str] = field(default_factory=set)

    def tables(self, kind: str) -> list[Any]:
        """All tables of a kind, also of one that can stand only once."""
        found = getattr(self, kind)
        return found if isinstance(found, list) else [] if found is None else [found]

    def where(self, table: schema.Table) -> str:
        """File and line of a table, for messages about another one."""
        return str(self.document.place(table._path))


def sort_out(document: Document) -> Site:
    """The document as a Site; mistakes within one table are added to `document.problems`."""
    tables = {kind: single(document, kind, model) for kind, model in _TABLES.items()}
    site = Site(document, **tables)  # type: ignore[arg-type]
    for kind, model in _OPTIONAL.items():
        if kind in document.data:
            setattr(site, kind, single(document, kind, model))
    for kind, model in _ARRAYS.items():
        setattr(site, kind, list(array(document, site.incomplete, kind, model)))
    _include(document)
    known = [*_TABLES, *_OPTIONAL, *_ARRAYS, "include"]
    for key in document.data:
        if key not in known:
            meant = difflib.get_close_matches(key, known, 1)
            site.incomplete.update(meant)
            for kind in set(meant) & set(_TABLES):
                _break(getattr(site, kind), getattr(site, kind).__class__.model_fields)
            document.problems.append(document.problem((key,), f"unknown key {key!r}", _suggest(key, known)))
    return site


def single(document: Document, kind: str, model: type[T]) -> T:
    """The one table of a kind. Mistakes are added to the document's."""
    data = document.data.get(kind, {})
    if kind == "node" and kind not in document.data:
        document.problems.append(
            document.problem((), "table [node] is missing", 'write [node] with name = "..."')
        )
    elif not isinstance(data, dict):
        document.problems.append(document.problem((kind,), f"{kind} must be a table", f"write [{kind}]"))
    else:
        return _table(document, (kind,), model, data)
    table = model.model_construct()
    _break(table, model.model_fields)
    return table


def array(document: Document, incomplete: set[str], kind: str, model: type[T]) -> Iterable[T]:
    """The tables of a kind. Mistakes are added to the document's; ``incomplete``: as in Site."""
    data = document.data.get(kind, [])
    if not isinstance(data, list):
        incomplete.add(kind)
        document.problems.append(
            document.problem(
                (kind,), f"{kind} must be an array of tables", f"write [[{kind}]] with two brackets"
            )
        )
        return
    for index, element in enumerate(data):
        if isinstance(element, dict):
            table = _table(document, (kind, index), model, element)
            if "name" in table._broken:
                incomplete.add(kind)
            yield table
        else:
            incomplete.add(kind)
            document.problems.append(
                document.problem(
                    (kind, index), f"{kind} must be a table, not {element!r}", f"write [[{kind}]]"
                )
            )


def _include(document: Document) -> None:
    value = document.data.get("include", [])
    names = value if isinstance(value, list) else [value]
    good = isinstance(value, list) and all(isinstance(name, str) and name for name in names)
    if not good:
        message = "include must be an array of file names"
        document.problems.append(document.problem(("include",), message, 'write include = ["site.d/*.toml"]'))


def _table(document: Document, path: KeyPath, model: type[T], data: dict[str, Any]) -> T:
    try:
        table = model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        document.problems += [_problem(document, path, model, detail) for detail in details]
        table = _salvage(model, data, details)
    table._path = path
    return table


def _salvage(model: type[T], data: dict[str, Any], details: list[ErrorDetails]) -> T:
    """The table with what is sound in it; keys with a mistake, and those that an unknown key may have meant,
    broken.
    """
    aliases = {info.alias or name: name for name, info in model.model_fields.items()}
    broken: set[str] = set()
    for detail in details:
        key = str(detail["loc"][0])
        guess = [key] if key in aliases else difflib.get_close_matches(key, aliases, 1)
        broken.update(aliases[alias] for alias in guess)
    good = {
        name: _value(model.model_fields[name], data[alias])
        for alias, name in aliases.items()
        if alias in data and name not in broken
    }
    table = model.model_construct()
    table.__dict__.update(good)
    _break(table, broken)
    return table


def _value(info: FieldInfo, value: Any) -> Any:
    annotation: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    return TypeAdapter(annotation).validate_python(value, strict=True)


def _break(table: schema.Table, fields: Iterable[str]) -> None:
    table._broken = table._broken | frozenset(fields)
    for name in table._broken:
        table.__dict__.pop(name, None)


def _problem(document: Document, path: KeyPath, model: type[BaseModel], detail: ErrorDetails) -> Any:
    where = detail["loc"]
    holder, info = _find(model, where)
    message, hint = _explain(detail, holder, info)
    place = (*path, *where) if detail["type"] != "missing" else (*path, *where[:-1])
    return document.problem(place, message, hint)


def explain_row(model: type[BaseModel], error: ValidationError) -> Iterator[tuple[str, str, str]]:
    """Key, message and hint of each mistake in a table that does not come from TOML."""
    for detail in error.errors(include_url=False):
        yield str(detail["loc"][-1]), *_explain(detail, *_find(model, detail["loc"]))


def _find(model: type[BaseModel], where: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """The model that holds the key at `where`, and its field (None for an unknown key)."""
    info: FieldInfo | None = None
    for part in where:
        if isinstance(part, int):
            continue
        if info is not None:
            model = _model_in(info.annotation) or model
        info = next((i for name, i in model.model_fields.items() if (i.alias or name) == part), None)
    return model, info


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _suggest(word: str, known: Iterable[str]) -> str:
    words = list(known)
    close = difflib.get_close_matches(word, words, 1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(words)}"


def _explain(detail: ErrorDetails, holder: type[BaseModel], info: FieldInfo | None) -> tuple[str, str]:
    """pydantic's finding in our words: message and hint."""
    key, value, kind, context = detail["loc"][-1], detail["input"], detail["type"], detail.get("ctx", {})
    about = (info.description or "") if info is not None else ""
    if kind == "ipshare":
        return context["text"], context["hint"]
    if kind == "extra_forbidden":
        return f"unknown key {key!r}", _suggest(
            str(key), (i.alias or n for n, i in holder.model_fields.items())
        )
    if kind == "missing":
        return f"key {key!r} is missing", about
    if kind == "literal_error" and info is not None:
        return _explain_literal(value, info)
    wanted = _WANTED.get(kind)
    if wanted:
        return f"must be {wanted.format(**context)}, not {value!r}", about
    return detail["msg"], about


def _explain_literal(value: Any, info: FieldInfo) -> tuple[str, str]:
    choices = [str(c) for c in _literals(info.annotation)]
    return f"{value!r} is not one of {', '.join(choices)}", _suggest(str(value), choices)


def _literals(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in _literals(part))


_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "an array",
    "model_type": "a table",
    "string_too_short": "a string that is not empty",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}
