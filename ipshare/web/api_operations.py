"""api_operations: the routes of /api/v1 for what takes long: live migrations, evacuations, failovers.

What begins wants If-Match with the revision, an answer to a proposal the proposal's own tag; all honour
Idempotency-Key, and end at the director's desk like the command line (ipshare.web.operating).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Path, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ipshare.web import models_operations as models
from ipshare.web import operating
from ipshare.web.api import LOOKING, MISSING, STREAM, Last, asked, caller, etag, known, problem, stream
from ipshare.web.api_changes import CHANGING, LOCATION, REPLAYED, IdempotencyKey, IfMatch, expected
from ipshare.web.hub import Hub
from ipshare.web.problems import Failure

Id = Annotated[
    str, Path(alias="id", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@:-]{0,127}$", description="As lists have it.")
]
Unit = Annotated[
    str, Path(pattern=r"^(group )?[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", description="A workload, or a group.")
]
IfSame = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="What was looked at, as its ETag.",
        json_schema_extra={"pattern": '^"[0-9a-f]{16}"$'},
    ),
]
Steering = Literal["approve", "refuse", "stop", "continue", "abort"]
TAG = {"ETag": {"description": "Of its state and plan: what If-Match wants.", "schema": {"type": "string"}}}
PLANNING = LOOKING | {code: CHANGING[code] for code in (404, 409, 413, 415)}
STEERING: dict[int | str, dict[str, Any]] = PLANNING | {200: {"headers": REPLAYED}}
ANSWERING = STEERING | {412: problem("It is not what was looked at."), 428: CHANGING[428]}
BEGINNING: dict[int | str, dict[str, Any]] = {
    code: said for code, said in CHANGING.items() if code not in (200, 202)
} | {202: {"description": "It is under way, or proposed.", "headers": LOCATION | REPLAYED}}


def tags(if_match: str | None, look: str) -> set[str]:
    """The tags that If-Match names. Raises Failure."""
    if if_match is None or if_match.strip() == "*":
        hint = f"send If-Match with the ETag of {look}"
        raise Failure(428, "an answer says what was looked at", hint, kind="if-match")
    return set(re.findall(r'(?<!W/)"([0-9a-f]{16})"', if_match))


def router(hub: Hub) -> APIRouter:
    routes = APIRouter(prefix="/api/v1", dependencies=[Depends(known)])

    async def once(request: Request, key: str | None, job: Callable[[], Awaitable[Response]]) -> Response:
        digest = hashlib.sha256(asked(request).body).hexdigest()
        return await hub.keys.answer(str(caller(request)), request.method, request.url.path, key, digest, job)

    def begun(found: dict[str, Any], kind: str) -> Response:
        return JSONResponse(found, 202, headers={"Location": f"/api/v1/{kind}/{found['id']}"})

    # ---- migrations -------------------------------------------------------------------

    @routes.get("/migrations", response_model=models.Migrations, responses=LOOKING)
    async def migrations() -> Any:
        """Live migrations, under way or over, the newest first."""
        return {"items": await hub.migrations()}

    @routes.post("/plan/migration", response_model=models.MigrationPlan, responses=PLANNING)
    async def migration_plan(request: Request, wish: Annotated[models.MigrationWish, Body()]) -> Any:
        """What a migration would do, and what its two nodes have against it. Nothing is changed."""
        asked(request).verb = "plan"
        found = await operating.migration_plan(hub, wish.workload, wish.to)
        return JSONResponse(found, headers=etag(found["revision"]))

    @routes.post("/migrations", response_model=models.Migration, status_code=202, responses=BEGINNING)
    async def migrate(
        request: Request,
        wish: Annotated[models.MigrationRequest, Body()],
        if_match: IfMatch = None,
        key: IdempotencyKey = None,
    ) -> Response:
        """A workload, with its group, is migrated alive; or a split migration goes on."""
        revisions = expected(if_match)

        async def job() -> Response:
            found = await operating.migrate(hub, request, wish.workload, wish.to, wish.why, revisions)
            return begun(found, "migrations")

        return await once(request, key, job)

    @routes.get("/migrations/{id}", response_model=models.Migration, responses=LOOKING | MISSING)
    async def migration(id_: Id) -> Any:
        """One, with its timeline."""
        return await operating.migration(hub, id_)

    @routes.get(
        "/migrations/{id}/events", response_model=None, responses=LOOKING | MISSING | STREAM,
        response_class=StreamingResponse,
    )  # fmt: skip
    async def migration_events(request: Request, id_: Id, last: Last = "") -> Any:
        """Server-sent events of a migration, from its beginning, until it is over."""
        await operating.migration(hub, id_)
        await hub.watch.look_beside()
        return stream(hub, request, last, ("migration", id_))

    @routes.post("/migrations/{id}/cancel", response_model=models.Migration, responses=STEERING)
    async def cancel(request: Request, id_: Id, key: IdempotencyKey = None) -> Response:
        """It ends, if nothing of it runs at the target yet."""

        async def job() -> Response:
            return JSONResponse(await operating.cancel(hub, request, id_))

        return await once(request, key, job)

    # ---- evacuations ------------------------------------------------------------------

    @routes.get("/evacuations", response_model=models.Evacuations, responses=LOOKING)
    async def evacuations() -> Any:
        """Evacuations that are proposed, run, or are over, the newest first."""
        return {"items": await hub.evacuations()}

    @routes.post("/plan/evacuation", response_model=models.EvacuationPlan, responses=PLANNING)
    async def evacuation_plan(request: Request, wish: Annotated[models.EvacuationWish, Body()]) -> Any:
        """What would go where if a site or a node were left, in order, with reasons. Nothing is changed."""
        asked(request).verb = "plan"
        found = await operating.evacuation_plan(hub, wish.site or "", wish.node or "", wish.avoid)
        return JSONResponse(found, headers=etag(found["revision"]))

    @routes.post("/evacuations", response_model=models.Evacuation, status_code=202, responses=BEGINNING)
    async def evacuate(
        request: Request,
        wish: Annotated[models.EvacuationRequest, Body()],
        if_match: IfMatch = None,
        key: IdempotencyKey = None,
    ) -> Response:
        """The plan that `digest` names begins, or is proposed. If it is another one by now: 412."""
        revisions = expected(if_match)

        async def job() -> Response:
            found = await operating.evacuate(
                hub, request, wish.site or "", wish.node or "", wish.avoid, wish.why,
                digest=wish.digest, propose=wish.propose, revisions=revisions,
            )  # fmt: skip
            return begun(found, "evacuations")

        return await once(request, key, job)

    @routes.get(
        "/evacuations/{id}", response_model=models.Evacuation,
        responses=LOOKING | MISSING | {200: {"headers": TAG}},
    )  # fmt: skip
    async def evacuation(id_: Id) -> Any:
        """One: its steps, what became of each, what happened."""
        found = await operating.evacuation(hub, id_)
        return JSONResponse(found, headers={"ETag": f'"{operating.evacuation_tag(found)}"'})

    @routes.get(
        "/evacuations/{id}/events", response_model=None, responses=LOOKING | MISSING | STREAM,
        response_class=StreamingResponse,
    )  # fmt: skip
    async def evacuation_events(request: Request, id_: Id, last: Last = "") -> Any:
        """Server-sent events of an evacuation, until nothing of it is under way any more."""
        await operating.evacuation(hub, id_)
        await hub.watch.look_beside()
        return stream(hub, request, last, ("evacuation", id_))

    def steering(verb: Steering, text: str) -> None:
        needs_tag = verb in operating.ANSWERS

        async def steer(
            request: Request, id_: str, answer: models.Answer, if_match: str | None, key: str | None
        ) -> Response:
            seen = tags(if_match, f"GET /api/v1/evacuations/{id_}") if needs_tag else None

            async def job() -> Response:
                return JSONResponse(await operating.steer(hub, request, id_, verb, answer.why, seen))

            return await once(request, key, job)

        async def answered(
            request: Request, id_: Id, answer: Annotated[models.Answer, Body()], if_match: IfSame = None,
            key: IdempotencyKey = None,
        ) -> Response:  # fmt: skip
            return await steer(request, id_, answer, if_match, key)

        async def ended(
            request: Request, id_: Id, answer: Annotated[models.Answer, Body()], key: IdempotencyKey = None
        ) -> Response:
            return await steer(request, id_, answer, None, key)

        routes.post(
            f"/evacuations/{{id}}/{verb}", response_model=models.Evacuation, description=text,
            responses=ANSWERING if needs_tag else STEERING, operation_id=f"{verb}_evacuation",
        )(answered if needs_tag else ended)  # fmt: skip

    steering("approve", "A proposal begins; one of a hazard may have to wait for its turn.")
    steering("refuse", "A proposal is refused for good.")
    steering("stop", "No further batch begins; what is under way is seen through.")
    steering("continue", "One that was stopped, or of which something failed, goes on.")
    steering("abort", "It ends for good. What was moved stays where it is.")

    # ---- failovers --------------------------------------------------------------------

    @routes.get(
        "/failover", response_model=models.Failover, responses=LOOKING | MISSING | {409: CHANGING[409]}
    )
    async def failover() -> Any:
        """Who has which exclusive workload, and failovers that are proposed or under way."""
        return await operating.failover(hub)

    @routes.post("/failover/{unit}/approve", response_model=models.Case, responses=ANSWERING)
    async def approve(
        request: Request, unit: Unit, if_match: IfSame = None, key: IdempotencyKey = None
    ) -> Response:
        """What is proposed is carried out. If-Match: the case's `etag` in GET /failover."""
        seen = tags(if_match, "the case in GET /api/v1/failover")

        async def job() -> Response:
            return JSONResponse(await operating.approve_failover(hub, request, unit, seen))

        return await once(request, key, job)

    @routes.post("/fenced", response_model=models.FencedDone, responses=STEERING | {412: ANSWERING[412]})
    async def fenced(
        request: Request, word: Annotated[models.Fenced, Body()], key: IdempotencyKey = None
    ) -> Response:
        """The word of who asks that a node does not run a workload any more: it is started elsewhere at once.
        If that is not true, it runs twice."""

        async def job() -> Response:
            found = await operating.fenced(hub, request, word.workload, word.node, word.epoch)
            return JSONResponse(found)

        return await once(request, key, job)

    return routes
