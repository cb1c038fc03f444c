"""api_changes: the routes of /api/v1 that change something, and the dry run before.

Each wants If-Match with the revision that the caller has looked at, honours Idempotency-Key, is written to
the audit log before and after, and ends in Director.change. The answer is the roll-out that began.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request
from starlette.responses import JSONResponse, Response

from ipshare.errors import IpshareError
from ipshare.web import changing, models
from ipshare.web.api import ETAG, LOOKING, asked, caller, etag, known, problem
from ipshare.web.hub import Hub
from ipshare.web.problems import Failure, of_error

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description='The revision that was looked at, as ETag: "12".',
        json_schema_extra={"pattern": '^"[1-9][0-9]{0,15}"$'},
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="A word of the caller's own: sent again with the same request, that is answered again "
        "and carried out once. Kept for a day, in memory.",
        json_schema_extra={"pattern": "^[!-~]{1,255}$"},
    ),
]
WhyQuery = Annotated[str, Query(max_length=500, description="The reason, for the history.")]
OverlapQuery = Annotated[bool, Query(description="Also where an earlier revision is still under way.")]
Address = Annotated[str, Path(max_length=45, description="Of the Global prefix.", examples=["198.51.100.7"])]
Length = Annotated[int, Path(ge=0, le=128, description="Of the Global prefix.")]
LOCATION = {"Location": {"description": "The operation.", "schema": {"type": "string"}}}
REPLAYED = {
    "Idempotency-Replayed": {
        "description": "It was carried out before.", "schema": {"type": "string"}, "required": False,
    }
}  # fmt: skip
CHANGING: dict[int | str, dict[str, Any]] = LOOKING | {
    200: {"description": "Nothing differed.", "headers": ETAG | REPLAYED},
    202: {
        "description": "A new revision is being rolled out.", "model": models.Operation,
        "headers": ETAG | LOCATION | REPLAYED,
    },
    404: problem("What it names is not there."),
    409: problem("It conflicts with what is under way, or another director decides."),
    412: problem("The revision is another one."),
    413: problem("Too large."),
    415: problem("Not JSON."),
    428: problem("If-Match is missing."),
}  # fmt: skip


def expected(if_match: str | None) -> set[int]:
    """The revisions that If-Match names. Raises Failure."""
    if if_match is None or if_match.strip() == "*":
        hint = 'send If-Match: "N" with the revision that you looked at; GET answers have it as ETag'
        raise Failure(428, "a change says which revision it was made from", hint, kind="if-match")
    tags = [tag.strip() for tag in if_match.split(",")]
    found = [match for tag in tags if (match := re.fullmatch(r'(?:W/)?"([^"]*)"', tag))]
    if len(found) != len(tags):
        raise Failure(400, "If-Match is no entity tag", 'write If-Match: "12"', kind="if-match")
    strong = [m[1] for m in found if not m[0].startswith("W/")]
    return {int(text) for text in strong if re.fullmatch(r"[1-9][0-9]{0,15}", text)}


def router(hub: Hub) -> APIRouter:
    routes = APIRouter(prefix="/api/v1", dependencies=[Depends(known)])
    director = hub.director

    @routes.post("/plan", response_model=models.Plan, responses=LOOKING | {
        k: CHANGING[k] for k in (404, 409, 413, 415)
    })  # fmt: skip
    async def plan(request: Request, wish: Annotated[models.PlanRequest, Body()]) -> Any:
        """What a change would do: differences, order, gaps. Nothing is changed."""
        asked(request).verb = "plan"
        return JSONResponse(await changing.plan(director, wish.change), headers=etag(director.number))

    @routes.post("/changes", response_model=models.Operation, responses=CHANGING)
    async def changes(
        request: Request,
        wish: Annotated[models.ChangeRequest, Body()],
        if_match: IfMatch = None,
        key: IdempotencyKey = None,
    ) -> Response:
        """Move workloads, replace some bindings, drain a distribution point, bring back an earlier revision,
        or replace everything."""
        return await change(request, wish.change, wish.why, wish.overlap, if_match, key)

    @routes.put("/topology", response_model=models.Operation, responses=CHANGING)
    async def replace(
        request: Request,
        topology: Annotated[models.Tables, Body()],
        why: WhyQuery = "",
        overlap: OverlapQuery = False,
        if_match: IfMatch = None,
        key: IdempotencyKey = None,
    ) -> Response:
        """All of it. For admins."""
        wish = models.Replace(do="replace", topology=topology)
        return await change(request, wish, why, overlap, if_match, key)

    @routes.put("/bindings/{address}/{length}", response_model=models.Operation, responses=CHANGING)
    async def bind(
        request: Request,
        address: Address,
        length: Length,
        target: Annotated[models.Target, Body()],
        why: WhyQuery = "",
        overlap: OverlapQuery = False,
        if_match: IfMatch = None,
        key: IdempotencyKey = None,
    ) -> Response:
        """One binding is made or replaced."""
        wish = models.Bind(do="bind", set={prefix(address, length): target})
        return await change(request, wish, why, overlap, if_match, key)

    @routes.delete("/bindings/{address}/{length}", response_model=models.Operation, responses=CHANGING)
    async def unbind(
        request: Request,
        address: Address,
        length: Length,
        why: WhyQuery = "",
        overlap: OverlapQuery = False,
        if_match: IfMatch = None,
        key: IdempotencyKey = None,
    ) -> Response:
        """One binding is taken away."""
        wish = models.Bind(do="bind", remove=[prefix(address, length)])
        return await change(request, wish, why, overlap, if_match, key)

    async def change(
        request: Request, wish: models.Change, why: str, overlap: bool, if_match: str | None, key: str | None
    ) -> Response:
        who = caller(request, changing.least_role(wish))
        revisions = expected(if_match)

        async def job() -> Response:
            return await perform(hub, request, wish, why, revisions, overlap)

        digest = hashlib.sha256(asked(request).body).hexdigest()
        path = f"{request.url.path}?{request.url.query}"
        return await hub.keys.answer(str(who), request.method, path, key, digest, job)

    return routes


async def perform(
    hub: Hub, request: Request, wish: models.Change, why: str, revisions: set[int], overlap: bool
) -> Response:
    """The change, for the caller whom the gate knows. Raises Failure."""
    director, who = hub.director, caller(request, changing.least_role(wish))
    assert hub.gate is not None, "requests come through it"
    expect = director.number
    if expect not in revisions:
        changing.stale(director, max(revisions, default=0))
    if isinstance(wish, models.Move) and (migration := await hub.held(wish.moves)):
        hint = f"wait, or ipshare migrate --cancel {migration}"
        raise Failure(409, f"live migration {migration} moves it", hint, kind="migrating")
    await hub.gate.begin(request, "change", changing.said(wish)[:1000] + (f": {why}" if why else ""))
    try:
        changed = await changing.carry_out(director, wish, who.name, why, expect, overlap)
    except IpshareError as error:
        raise of_error(error) from None
    number = director.number
    asked(request).revision = number
    if not changed:
        asked(request).detail = "nothing differed"
    return JSONResponse(
        await hub.operation(number),
        202 if changed else 200,
        headers=etag(number) | ({"Location": f"/api/v1/operations/{number}"} if changed else {}),
    )


def prefix(address: str, length: int) -> str:
    """Raises Failure."""
    return str(changing.prefix_of(f"{address}/{length}"))
