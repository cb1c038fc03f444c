"""page_migrate: the wizard for a live migration: workload and target, the plan with what both nodes say, and
the migration's own page with its timeline, which follows it by events.

The plan is a page with an address; only its form changes something. It holds the revision that the plan was
made from, and a key, so that a form that is sent twice begins one migration.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from ipshare.web import operating
from ipshare.web.api import caller
from ipshare.web.hub import Hub
from ipshare.web.page import Pages, own_form
from ipshare.web.problems import Failure
from ipshare.web.tokens import Role

STEPS = (
    ("checking", "checked"), ("expecting", "target expects it"), ("migrating", "migrated"),
    ("flipping", "revision made"), ("settling", "everybody sends there"), ("clearing", "cleared up"),
)  # fmt: skip
BACK = ("checking", "expecting", "migrating")
"""While a migration may be cancelled."""
TONE = {"done": "good", "refused": "bad", "failed": "bad", "split": "bad", "cancelled": ""}
IdPath = Annotated[str, Path(alias="id", max_length=128)]


def number_of(words: dict[str, str]) -> int:
    """The revision in a form. Raises Failure."""
    text = words.get("revision", "")
    if not (text.isascii() and text.isdigit() and len(text) < 16) or len(words.get("why", "")) > 500:
        raise Failure(422, "that is not the form of the plan", "make the plan again")
    return int(text)


def told(one: dict[str, Any]) -> dict[str, Any]:
    """A migration for its page."""
    at = next((n for n, (step, _) in enumerate(STEPS) if step == one["step"]), None)
    reached = max((n for n, (step, _) in enumerate(STEPS) if _was(one, step)), default=-1)
    now = len(STEPS) if one["step"] == "done" else reached if at is None else at
    track = [
        {"text": text, "is": "done" if n < now else "now" if n == now and at is not None else "next"}
        for n, (_, text) in enumerate(STEPS)
    ]
    began = one["times"][0]["at"]
    times = [
        {"time": datetime.fromtimestamp(t["at"], UTC), "after": t["at"] - began, "what": t["what"]}
        for t in one["times"]
    ]
    tone = TONE.get(one["step"], "warn")
    return one | {"track": track, "lines": times, "tone": tone, "may_cancel": one["step"] in BACK}


def _was(one: dict[str, Any], step: str) -> bool:
    return any(moment["what"].partition(":")[0] == step for moment in one["times"])


def router(hub: Hub) -> APIRouter:
    routes, pages = APIRouter(), Pages(hub)

    async def choose(request: Request, failure: Failure | None, workload: str, to: str) -> Response:
        return pages.show(
            request, "migrate.html", failure.status if failure else 200, here="/migrate", failure=failure,
            workloads=hub.workloads(), chosen=workload, to=to, sites=hub.sites(),
            targets=[one for one in hub.nodes() if one["endpoint"]],
            migrations=[told(one) for one in (await hub.migrations())[:20]],
        )  # fmt: skip

    @routes.get("/migrate")
    async def begin(request: Request) -> Response:
        query = request.query_params
        return await choose(request, None, query.get("workload", ""), query.get("to", ""))

    @routes.get("/migrate/plan")
    async def plan(request: Request) -> Response:
        workload, to = request.query_params.get("workload", ""), request.query_params.get("to", "")
        try:
            if not workload or not to:
                raise Failure(422, "choose a workload, and where it goes", "one of each")
            found = await operating.migration_plan(hub, workload, to)
        except Failure as failure:
            return await choose(request, failure, workload, to)
        return pages.show(
            request, "migrate_plan.html", here="/migrate", plan=found, workload=workload,
            key=secrets.token_hex(16), may=caller(request).role >= Role.operator,
            added=[name for name in found["workloads"] if name != workload],
        )  # fmt: skip

    @routes.post("/migrate/confirm")
    async def confirm(request: Request) -> Response:
        fields = own_form(hub, request)
        words = dict(fields)
        number, why = number_of(words), words.get("why", "")

        async def job() -> Response:
            workload, to = words.get("workload", ""), words.get("to", "")
            found = await operating.migrate(hub, request, workload, to, why, {number})
            return RedirectResponse(f"/migrations/{found['id']}", 303)

        who, digest = str(caller(request)), repr(sorted(fields))
        return await hub.keys.answer(who, "POST", "/migrate/confirm", words.get("key") or None, digest, job)

    async def words_of(request: Request, id_: str) -> dict[str, Any]:
        may = caller(request).role >= Role.operator
        return {"m": told(await operating.migration(hub, id_)), "may": may}

    @routes.get("/migrations/{id}")
    async def migration(request: Request, id_: IdPath) -> Response:
        return pages.show(request, "migration.html", here="/migrate", **await words_of(request, id_))

    @routes.get("/parts/migrations/{id}")
    async def part(request: Request, id_: IdPath) -> Response:
        return pages.show(request, "part_migration.html", **await words_of(request, id_))

    @routes.post("/migrations/{id}/cancel")
    async def cancel(request: Request, id_: IdPath) -> Response:
        own_form(hub, request)
        await operating.cancel(hub, request, id_)
        return RedirectResponse(f"/migrations/{id_}", 303)

    return routes
