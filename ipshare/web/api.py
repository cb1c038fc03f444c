"""api: the routes of /api/v1 that look: status, nodes, revisions, topology, operations, events, audit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ipshare.errors import Refused
from ipshare.web import models
from ipshare.web.gate import Asked
from ipshare.web.hub import Hub
from ipshare.web.problems import MEDIA, Failure
from ipshare.web.tokens import Role
from ipshare.web.watch import MOST_READERS, Of
from ipshare.web.who import Caller, may

Route = TypeVar("Route", bound=Callable[..., Any])
Limit = Annotated[int, Query(ge=1, le=1000, description="How many, the newest first.")]
NumberPath = Annotated[int, Path(ge=1, le=2**53, description="A revision.")]
NamePath = Annotated[str, Path(pattern=models.NAME, max_length=63)]
OperationPath = Annotated[
    str, Path(alias="id", pattern=r"^[1-9][0-9]{0,15}$", description="An operation, as 202 named it.")
]
SameEtag = Annotated[str | None, Header(alias="If-None-Match", description="304 if it is that one.")]
Last = Annotated[
    str, Header(alias="Last-Event-ID", max_length=64, description="What came last: it goes on after that.")
]
ETAG = {"ETag": {"description": "The revision: what If-Match wants.", "schema": {"type": "string"}}}


def problem(text: str) -> dict[str, Any]:
    return {"description": text, "model": models.Problem, "content": {MEDIA: {}}}


LOOKING: dict[int | str, dict[str, Any]] = {
    400: problem("The request is none."),
    401: problem("Nobody knows who asks."),
    403: problem("The caller may not do that."),
    422: problem("A parameter is unknown, or has a value that is none."),
    429: problem("Too many failures from that address."),
    500: problem("A bug."),
    503: problem("The director cannot do it now."),
}
MISSING: dict[int | str, dict[str, Any]] = {404: problem("There is none.")}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


def known(request: Request) -> None:
    """Raises Failure for a query parameter that the route does not know, or that stands there twice."""
    dependant = request.scope["route"].dependant
    names = {one.alias for one in dependant.query_params}
    for name, _ in request.query_params.multi_items():
        if name not in names:
            hint = f"known here: {', '.join(sorted(names)) or 'none'}"
            raise Failure(422, f"unknown parameter {name[:64]!r}", hint, kind="parameter")
        if len(request.query_params.getlist(name)) > 1:
            raise Failure(422, f"{name} stands there twice", "write it once", kind="parameter")


def asked(request: Request) -> Asked:
    found: Asked = request.state.asked
    return found


def caller(request: Request, role: Role = Role.viewer) -> Caller:
    """Raises Failure where nobody is known, or may less than ``role``."""
    found = asked(request).caller
    if found is None:
        raise Failure(401, "nobody knows who asks", "send a token, or a client certificate")
    may(found, role)
    return found


def etag(number: int) -> dict[str, str]:
    return {"ETag": f'"{number}"'}


def tagged(content: Any, number: int, if_none_match: str | None) -> Response:
    """With the revision as a strong ETag; 304 where the caller has that one."""
    if if_none_match is not None and f'"{number}"' in re.findall(r'"[^"]*"', if_none_match):
        return Response(status_code=304, headers=etag(number))
    return JSONResponse(content, headers=etag(number))


def stream(hub: Hub, request: Request, last: str, of: Of | None) -> Response:
    """Server-sent events, as of Watch.read. Raises Failure."""
    who = caller(request)
    if hub.watch.readers >= MOST_READERS:
        raise Failure(503, f"{MOST_READERS} streams are open", "close one, or ask without a stream")
    fresh = getattr(request.state, "is_fresh", None)
    content = hub.watch.read(last, lambda: hub.door.still(who) and (fresh is None or fresh()), of)
    return StreamingResponse(content, media_type="text/event-stream")


def router(hub: Hub) -> APIRouter:
    routes = APIRouter(prefix="/api/v1", dependencies=[Depends(known)])
    director = hub.director
    unchanged: dict[int | str, dict[str, Any]] = {
        304: {"description": "As the caller has it.", "headers": ETAG}
    }
    with_etag: dict[int | str, dict[str, Any]] = {200: {"headers": ETAG}}

    def get(path: str, model: Any, **more: Any) -> Callable[[Route], Route]:
        responses = LOOKING | more.pop("responses", {})
        return routes.get(path, response_model=model, responses=responses, **more)

    @get("/status", models.Status)
    async def status() -> Any:
        """The director, the revision that counts, and how many nodes have it."""
        return hub.status()

    @get("/nodes", models.Nodes)
    async def nodes() -> Any:
        """All nodes: what is known of each, and what became of the revision there."""
        return {"items": hub.nodes()}

    @get("/nodes/{name}", models.NodeTables, responses=MISSING)
    async def node(name: NamePath) -> Any:
        """A node, and the tables that it gets."""
        found = next((one for one in hub.nodes() if one["name"] == name), None)
        if found is None:
            raise Failure(404, f"there is no node {name!r}", "GET /api/v1/nodes lists them")
        texts = await hub.ask("show", node=name)
        return found | {"make": texts["make"], "final_text": texts["final"]}

    @get("/sites", models.Sites)
    async def sites() -> Any:
        """Where sites are, and which prefixes live there."""
        return {"items": hub.sites()}

    @get("/workloads", models.Workloads)
    async def workloads() -> Any:
        """Workloads, and where they run."""
        return {"items": hub.workloads()}

    @get("/hazards", dict[str, Any], responses=MISSING)
    async def hazards() -> Any:
        """Dangers to sites, where the director looks for them."""
        found = await hub.hazards()
        if found is None:
            raise Failure(404, "this director looks for no hazards", "docs/hazards.md says how it would")
        return found

    @get("/health", dict[str, Any], responses=MISSING)
    async def health() -> Any:
        """What is up and down, in whose words; `failover`: who has which exclusive workload."""
        found = await hub.health()
        if found is None:
            raise Failure(404, "this director looks after nothing", "docs/health.md says how it would")
        return found

    @get("/revisions", models.Revisions)
    async def revisions(limit: Limit = 20) -> Any:
        """Revisions: when, who, why."""
        return {"items": (await hub.ask("history", limit=limit))["revisions"]}

    @get("/revisions/{number}", models.RevisionDetail, responses=MISSING)
    async def revision(number: NumberPath) -> Any:
        """A revision, and what became of it at each node."""
        return await shown(number)

    @get("/revisions/{number}/diff", models.Diff, responses=MISSING)
    async def diff(number: NumberPath) -> Any:
        """What a revision changed, a line each: + - ~."""
        return await shown(number)

    async def shown(number: int) -> dict[str, Any]:
        try:
            return await hub.ask("show", revision=number)
        except Refused as error:
            raise Failure(404, error.message, "GET /api/v1/revisions lists them") from None

    @get("/topology", models.Tables, responses=with_etag | unchanged | MISSING)
    async def topology(
        revision: Annotated[int | None, Query(ge=1, le=2**53, description="An earlier one.")] = None,
        if_none_match: SameEtag = None,
    ) -> Any:
        """The tables of the installation, as PUT takes them."""
        if director.revision is None:
            raise Failure(503, "there is no revision yet", "the director has just started: ask again")
        found = await hub.revision(revision if revision is not None else director.number)
        return tagged(found.topology.tables, found.number, if_none_match)

    @get("/bindings", models.Bindings, responses=with_etag | unchanged)
    async def bindings(if_none_match: SameEtag = None) -> Any:
        """All bindings."""
        return tagged({"items": list(director.topology.bindings.values())}, director.number, if_none_match)

    @get("/operations", models.Operations)
    async def operations(limit: Limit = 20) -> Any:
        """Roll-outs, the newest first, with what became of them."""
        found = (await hub.ask("history", limit=min(limit, 100)))["revisions"]
        return {"items": [await hub.operation(one["revision"]) for one in found]}

    @get("/operations/{id}", models.Operation, responses=MISSING)
    async def operation(number: OperationPath) -> Any:
        """A roll-out: state, nodes, events."""
        return await hub.operation(int(number))

    @get("/operations/{id}/events", None, responses=MISSING | STREAM, response_class=StreamingResponse)
    async def operation_events(
        request: Request,
        number: OperationPath,
        last: Last = "",
    ) -> Any:
        """Server-sent events of a roll-out, from its beginning, until every node has it or another came."""
        await hub.revision(int(number))
        return stream(hub, request, last, ("revision", int(number)))

    @get("/events", None, responses=STREAM, response_class=StreamingResponse)
    async def events(request: Request, last: Last = "") -> Any:
        """Server-sent events of everything: revision, node, settled, trouble, migration, evacuation,
        failover, health, reset."""
        return stream(hub, request, last, None)

    @get("/audit", models.AuditEntries)
    async def audit(request: Request, limit: Limit = 100) -> Any:
        """Changes that were asked for over HTTP: who, what, when, and how it ended. For operators."""
        caller(request, Role.operator)
        try:
            return {"items": await asyncio.to_thread(hub.trail.newest, limit)}
        except OSError as error:
            raise Failure(
                503, f"the audit log cannot be read: {error.strerror}", "see the director's disk"
            ) from None

    return routes
