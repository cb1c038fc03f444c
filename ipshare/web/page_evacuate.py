"""page_evacuate: leaving a site or a node: what is left, the plan, and the evacuation's own page with its
steps, which follows it by events; answers to proposals, also to those of hazards.

The plan is confirmed by its digest, a proposal by the tag of what was shown: what changed meanwhile is not
begun by accident.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from starlette.responses import RedirectResponse, Response

from ipshare.web import operating
from ipshare.web.api import caller
from ipshare.web.hub import Hub
from ipshare.web.page import Pages, endangered, own_form
from ipshare.web.page_migrate import IdPath, number_of
from ipshare.web.problems import Failure
from ipshare.web.tokens import Role

MAY = {
    "proposed": ("approve", "refuse"), "running": ("stop", "abort"), "stopped": ("continue", "abort"),
    "incomplete": ("continue",),
}  # fmt: skip
"""What may be done with an evacuation in a state."""
Verb = Annotated[Literal["approve", "refuse", "stop", "continue", "abort"], Path()]


def router(hub: Hub) -> APIRouter:
    routes, pages = APIRouter(), Pages(hub)

    async def choose(request: Request, failure: Failure | None, leave: str, avoid: list[str]) -> Response:
        workloads, hazards = hub.workloads(), await hub.hazards()
        sites = [
            site | {"workloads": [one["name"] for one in workloads if one["site"] == site["name"]]}
            for site in hub.sites()
        ]
        nodes = [
            node | {"workloads": [one["name"] for one in workloads if one["node"] == node["name"]]}
            for node in hub.nodes()
            if node["endpoint"]
        ]
        danger = endangered(hazards)
        return pages.show(
            request, "evacuate.html", failure.status if failure else 200, here="/evacuate", failure=failure,
            sites=sites, nodes=nodes, leave=leave, avoid=avoid, evacuations=(await hub.evacuations())[:20],
            hazards=hazards, dangers=danger, in_danger={one["site"] for one in danger},
        )  # fmt: skip

    @routes.get("/evacuate")
    async def begin(request: Request) -> Response:
        query = request.query_params
        return await choose(request, None, query.get("leave", ""), query.getlist("avoid"))

    @routes.get("/evacuate/plan")
    async def plan(request: Request) -> Response:
        leave, avoid = request.query_params.get("leave", ""), request.query_params.getlist("avoid")
        try:
            site, node = left(leave)
            found = await operating.evacuation_plan(hub, site, node, avoid)
        except Failure as failure:
            return await choose(request, failure, leave, avoid)
        return pages.show(
            request, "evacuate_plan.html", here="/evacuate", plan=found, what=site or node, leave=leave,
            avoid=avoid, key=secrets.token_hex(16), may=caller(request).role >= Role.operator,
        )  # fmt: skip

    @routes.post("/evacuate/confirm")
    async def confirm(request: Request) -> Response:
        fields = own_form(hub, request)
        words = dict(fields)
        avoid = [value for name, value in fields if name == "avoid"]
        number, (site, node) = number_of(words), left(words.get("leave", ""))

        async def job() -> Response:
            found = await operating.evacuate(
                hub, request, site, node, avoid, words.get("why", ""), digest=words.get("digest", ""),
                propose=words.get("how") == "propose", revisions={number},
            )  # fmt: skip
            return RedirectResponse(f"/evacuations/{found['id']}", 303)

        who, digest = str(caller(request)), repr(sorted(fields))
        return await hub.keys.answer(who, "POST", "/evacuate/confirm", words.get("key") or None, digest, job)

    async def words_of(request: Request, id_: str) -> dict[str, Any]:
        one = await operating.evacuation(hub, id_)
        may = MAY.get(one["state"], ()) if caller(request).role >= Role.operator else ()
        gone = sum(step["state"] == "done" for step in one["steps"])
        return {"e": one, "may": may, "tag": operating.evacuation_tag(one), "gone": gone}

    @routes.get("/evacuations/{id}")
    async def evacuation(request: Request, id_: IdPath) -> Response:
        return pages.show(request, "evacuation.html", here="/evacuate", **await words_of(request, id_))

    @routes.get("/parts/evacuations/{id}")
    async def part(request: Request, id_: IdPath) -> Response:
        return pages.show(request, "part_evacuation.html", **await words_of(request, id_))

    @routes.post("/evacuations/{id}/{verb}")
    async def steer(request: Request, id_: IdPath, verb: Verb) -> Response:
        words = dict(own_form(hub, request))
        tags = {words.get("tag", "")} if verb in operating.ANSWERS else None
        await operating.steer(hub, request, id_, verb, words.get("why", "")[:500], tags)
        return RedirectResponse(f"/evacuations/{id_}", 303)

    return routes


def left(leave: str) -> tuple[str, str]:
    """(site, node) of a choice "site houston", "node a1". Raises Failure."""
    kind, _, name = leave.partition(" ")
    if kind not in ("site", "node") or not name:
        raise Failure(422, "choose what is left", "a site, or a node")
    return (name, "") if kind == "site" else ("", name)
