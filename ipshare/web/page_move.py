"""page_move: the wizard: what is moved and where to, the plan, the move; then the roll-out's own page.

The plan is a page of its own with an address; only its form changes something. It holds the revision that it
was made from, and a key, so that a form that is sent twice is carried out once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from ipshare.errors import IpshareError
from ipshare.web import changing, models
from ipshare.web.api import caller
from ipshare.web.api_changes import perform
from ipshare.web.hub import Hub
from ipshare.web.page import Pages, own_form
from ipshare.web.problems import Failure, of_error
from ipshare.web.tokens import Role

MOST_SHOWN = 200
"""Bindings that the wizard lists; it is for people."""


def router(hub: Hub) -> APIRouter:
    routes, pages = APIRouter(), Pages(hub)

    def choose(request: Request, failure: Failure | None, chosen: Sequence[str], to: str) -> Response:
        workloads = hub.workloads()
        taken = {address for one in workloads for address in one["addresses"]}
        rows = [row for prefix, row in hub.director.topology.bindings.items() if str(prefix) not in taken]
        shown = [
            {"global": row["global"], "to": row.get("to"), "policy": row.get("policy")}
            for row in rows[:MOST_SHOWN]
        ]
        return pages.show(
            request, "move.html", failure.status if failure else 200, here="/move", failure=failure,
            workloads=workloads, bindings=shown, hidden=len(rows) - len(shown), chosen=chosen, to=to,
            targets=[one for one in hub.nodes() if one["endpoint"]],
        )  # fmt: skip

    @routes.get("/move")
    async def begin(request: Request) -> Response:
        return choose(request, None, request.query_params.getlist("item"), request.query_params.get("to", ""))

    @routes.get("/move/plan")
    async def plan(request: Request) -> Response:
        who = caller(request)
        chosen, to = request.query_params.getlist("item"), request.query_params.get("to", "")
        try:
            wish, added = wished(hub, chosen, to)
            found = await changing.plan(hub.director, wish)
        except Failure as failure:
            return choose(request, failure, chosen, to)
        except IpshareError as error:
            return choose(request, of_error(error), chosen, to)
        return pages.show(
            request, "move_plan.html", here="/move", plan=found, chosen=chosen, to=to, added=added,
            silent=[one for one in hub.nodes() if one["outcome"] == "silent"], key=secrets.token_hex(16),
            may=who.role >= Role.operator,
        )  # fmt: skip

    @routes.post("/move/confirm")
    async def confirm(request: Request) -> Response:
        fields = own_form(hub, request)
        words = dict(fields)
        wish, _ = wished(hub, [value for name, value in fields if name == "item"], words.get("to", ""))
        number, why = words.get("revision", ""), words.get("why", "")
        if not (number.isascii() and number.isdigit() and len(number) < 16) or len(why) > 500:
            raise Failure(422, "that is not the form of the plan", "make the plan again")

        async def job() -> Response:
            await perform(hub, request, wish, why, {int(number)}, words.get("overlap") == "yes")
            return RedirectResponse(f"/operations/{hub.director.number}", 303)

        who, digest = str(caller(request)), repr(sorted(fields))
        return await hub.keys.answer(who, "POST", "/move/confirm", words.get("key") or None, digest, job)

    return routes


def wished(hub: Hub, chosen: Sequence[str], to: str) -> tuple[models.Change, list[str]]:
    """What that choice means, and what comes with it because of its group. Raises Failure."""
    node = hub.director.topology.nodes.get(to)
    if node is None or node.endpoint is None:
        raise Failure(422, "choose where to", "one of the nodes that are end points")
    named = [text.partition(" ") for text in chosen]
    names = [name for kind, _, name in named if kind == "workload"]
    prefixes = [name for kind, _, name in named if kind == "binding"]
    if not names and not prefixes:
        raise Failure(422, "choose what is moved", "at least one workload or binding")
    if names and prefixes:
        raise Failure(422, "workloads and bindings move in two steps", "choose either")
    try:
        if prefixes:
            target = models.Target(to=node.endpoint)
            return models.Bind(do="bind", set=dict.fromkeys(prefixes, target)), []
        rows: dict[str, Any] = {one["name"]: one for one in hub.workloads()}
        groups = {rows[name]["group"] for name in names if name in rows and rows[name]["group"]}
        added = [name for name, row in rows.items() if row["group"] in groups and name not in names]
        return models.Move(do="move", moves=dict.fromkeys([*names, *added], to)), added
    except ValidationError:
        raise Failure(422, "that is no workload or prefix", "choose from the list") from None
