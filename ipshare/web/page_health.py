"""page_health: what is up and down, who has which exclusive workload, failovers that wait for an answer; and
the drain of a distribution point, from its node's page.

An answer carries the tag of what was shown: a case that is another one by now is not approved.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from ipshare.web import models, operating
from ipshare.web.api import caller
from ipshare.web.api_changes import perform
from ipshare.web.hub import Hub
from ipshare.web.page import Pages, own_form
from ipshare.web.page_migrate import IdPath, number_of
from ipshare.web.problems import Failure
from ipshare.web.tokens import Role


def router(hub: Hub) -> APIRouter:
    routes, pages = APIRouter(), Pages(hub)

    async def words_of(request: Request) -> dict[str, Any]:
        found = await hub.health()
        failover = (found or {}).get("failover")
        if failover is not None:
            cases = [case | {"tag": operating.tag_of(case)} for case in failover["cases"]]
            failover = failover | {"cases": cases}
        may = caller(request).role >= Role.operator
        return {"health": found, "failover": failover, "may": may}

    @routes.get("/health")
    async def health(request: Request) -> Response:
        return pages.show(request, "health.html", here="/health", **await words_of(request))

    @routes.get("/parts/health")
    async def part(request: Request) -> Response:
        return pages.show(request, "part_health.html", **await words_of(request))

    @routes.post("/failover/approve")
    async def approve(request: Request) -> Response:
        words = dict(own_form(hub, request))
        await operating.approve_failover(hub, request, words.get("unit", ""), {words.get("tag", "")})
        return RedirectResponse("/health", 303)

    @routes.post("/failover/fenced")
    async def fenced(request: Request) -> Response:
        words = dict(own_form(hub, request))
        epoch = words.get("epoch", "")
        if not (epoch.isascii() and epoch.isdigit() and len(epoch) < 16):
            raise Failure(422, "that is not the form of the page", "open the page again")
        if words.get("sure") != "yes":
            hint = "go back, and say that it is certain: the workload would run twice otherwise"
            raise Failure(422, "that has to be certain", hint)
        node, workload = words.get("node", ""), words.get("workload", "")
        await operating.fenced(hub, request, workload, node, int(epoch))
        return RedirectResponse("/health", 303)

    @routes.post("/nodes/{id}/drain")
    async def drain(request: Request, id_: IdPath) -> Response:
        fields = own_form(hub, request)
        words = dict(fields)
        number, why = number_of(words), words.get("why", "")
        on, force = words.get("drained") == "yes", words.get("force") == "yes"
        if id_ not in hub.director.topology.nodes:
            raise Failure(404, f"there is no node {id_[:64]!r}", "look at the list of nodes")
        wish = models.Drain(do="drain", node=id_, drained=on, force=force)

        async def job() -> Response:
            await perform(hub, request, wish, why, {number}, False)
            return RedirectResponse(f"/nodes/{id_}", 303)

        who, digest = str(caller(request)), repr(sorted(fields))
        return await hub.keys.answer(who, "POST", request.url.path, words.get("key") or None, digest, job)

    return routes
