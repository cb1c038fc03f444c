"""page: the web page's routes that look: overview with map, nodes, history, roll-outs, audit; signing in.

Every page is whole without JavaScript; with it, parts are asked for again when an event says that something
changed. What changes something is in page_move, page_migrate, page_evacuate and page_health.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, FastAPI, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from ipshare.web.api import NumberPath, asked, caller
from ipshare.web.hub import Hub
from ipshare.web.picture import picture
from ipshare.web.problems import Failure
from ipshare.web.tokens import Role
from ipshare.web.who import COOKIE, SESSION_S

HERE = Path(__file__).parent
NAV = (
    ("/", "Overview"),
    ("/nodes", "Nodes"),
    ("/health", "Health"),
    ("/move", "Move"),
    ("/migrate", "Migrate"),
    ("/evacuate", "Evacuate"),
    ("/history", "History"),
    ("/audit", "Audit"),
)
TONES = {
    "acked": "good", "settled": "good", "alive": "good", "refused": "bad", "silent": "bad", "superseded": "",
    "working": "warn", "waiting": "warn", "running": "warn", "proposed": "warn", "done": "good",
    "failed": "bad", "up": "good", "down": "bad", "moving": "warn", "alarm": "bad", "incomplete": "bad",
    "stopped": "warn", "split": "bad",
}  # fmt: skip
WORST = ("refused", "silent", "waiting", "working", "acked")
MOST_FIELDS = 2000


def environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters |= {
        "tone": lambda word: TONES.get(word, ""), "moment": moment, "lasting": lasting, "kinds": kinds,
    }  # fmt: skip
    return found


def moment(text: str) -> str:
    """2026-11-28 21:05:09 of an ISO 8601 time in UTC."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")


def lasting(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def kinds(node: dict[str, Any]) -> str:
    found = [f"end point {node['endpoint']}"] if node["endpoint"] else []
    return ", ".join(
        [*found, *([f"distribution point {node['distribution']}"] if node["distribution"] else [])]
    )


class Pages:
    """Renders for whoever asks."""

    def __init__(self, hub: Hub) -> None:
        self.hub, self._templates = hub, environment()

    def show(self, request: Request, name: str, code: int = 200, here: str = "", **words: Any) -> Response:
        text = self._templates.get_template(name).render(
            nav=NAV, here=here, caller=asked(request).caller, director=self.hub.director, **words
        )
        return HTMLResponse(text, code)

    async def overview(self) -> dict[str, Any]:
        hub = self.hub
        nodes, hazards, health = by_need(hub.nodes()), await hub.hazards(), await hub.health()
        danger, seen = endangered(hazards), {one["name"]: one for one in (health or {}).get("targets", ())}
        workloads = [one | {"health": seen.get(f"workload {one['name']}")} for one in hub.workloads()]
        sites = [one | _site_state(one, nodes, workloads, seen) for one in hub.sites()]
        return {
            "status": hub.status(), "nodes": nodes, "workloads": workloads, "sites": sites,
            "health": health, "down": [one for one in seen.values() if one["state"] == "down"],
            "alive": sum(one["state"] == "alive" for one in nodes), "hazards": hazards, "dangers": danger,
            "dangers_names": {one["site"] for one in danger}, "picture": picture(sites),
            "bindings": len(hub.director.topology.bindings), "evacuations": (await hub.evacuations())[:5],
            "migrations": (await hub.migrations())[:5],
        }  # fmt: skip

    async def operation(self, number: int) -> dict[str, Any]:
        found = await self.hub.operation(number)
        return {"op": found, "acked": sum(one["outcome"] == "acked" for one in found["nodes"])}

    def problem(self, request: Request, failure: Failure) -> Response:
        if asked(request).caller is None:
            return self.show(request, "login.html", failure.status, failure=failure)
        return self.show(request, "problem.html", failure.status, failure=failure)


def by_need(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that want attention first."""
    return sorted(nodes, key=lambda one: (WORST.index(one["outcome"]), one["name"]))


def endangered(hazards: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Sites in danger, and by what."""
    found = []
    for one in (hazards or {}).get("sites", ()):
        texts = [f"{h['event']}, {h['severity']}: {h['headline'] or h['why']}" for h in one["hazards"]]
        if one["episode"] and one["episode"]["why"]:
            texts.append(f"{one['episode']['stage']}: {one['episode']['why']}")
        if texts:
            found.append({"site": one["site"], "texts": texts[:6]})
    return found


def _site_state(
    site: dict[str, Any], nodes: Sequence[dict[str, Any]], workloads: Sequence[dict[str, Any]],
    seen: dict[str, dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """In one word: what is down there, or the worst of its nodes."""
    here = [one for one in nodes if one["name"] in site["nodes"]]
    keys = [f"end point {one['endpoint']}" for one in here if one["endpoint"]]
    keys += [f"workload {one['name']}" for one in workloads if one["site"] == site["name"]]
    down = [key for key in dict.fromkeys(keys) if seen.get(key, {}).get("state") == "down"]
    there = [one["outcome"] for one in here]
    if down:
        return {"tone": "bad", "said": f"{down[0]} down" if len(down) == 1 else f"{len(down)} down"}
    if not there:
        return {"tone": "", "said": "no node"}
    worst = min(there, key=WORST.index)
    good = sum(one == "acked" for one in there)
    return {
        "tone": TONES[worst],
        "said": f"{good} of {len(there)} acked" if good < len(there) else "all acked",
    }


def form(request: Request) -> list[tuple[str, str]]:
    """The fields of a form. Raises Failure for what is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Failure(415, f"{kind[:100] or 'no type'} is not taken", "send the form of the page")
    try:
        text = asked(request).body.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise Failure(400, "that is no form", "send the form of the page") from None


def own_form(hub: Hub, request: Request) -> list[tuple[str, str]]:
    """The same, if it came from a page that was given to this caller. Raises Failure."""
    who, fields = caller(request), form(request)
    if not hub.door.is_own_word(who, dict(fields).get("csrf", "")):
        raise Failure(403, "this form is of another session", "open the page again, and send it from there")
    return fields


def wants_html(request: Request) -> bool:
    path = request.url.path
    return not path.startswith(("/api", "/metrics", "/static/")) and "text/html" in request.headers.get(
        "accept", "text/html"
    )


def problem(request: Request, failure: Failure) -> Response:
    pages: Pages = request.app.state.pages
    found = pages.problem(request, failure)
    found.headers.update(failure.headers)
    return found


def mount_static(app: FastAPI, hub: Hub) -> None:
    app.state.pages = Pages(hub)
    app.mount("/static", _Static(directory=HERE / "static"), name="static")


class _Static(StaticFiles):
    def file_response(self, *args: Any, **more: Any) -> Response:
        found = super().file_response(*args, **more)
        found.headers["Cache-Control"] = "max-age=3600"
        return found


def router(hub: Hub) -> APIRouter:
    routes, pages = APIRouter(), Pages(hub)

    @routes.get("/login")
    async def login_page(request: Request) -> Response:
        return pages.show(request, "login.html", failure=None)

    @routes.post("/login")
    async def login(request: Request) -> Response:
        asked(request).verb = "login"
        address = request.client.host if request.client else "?"
        try:
            token = dict(form(request)).get("token", "").strip()
            cookie, asked(request).caller = hub.door.login(token, address)
        except Failure as failure:
            asked(request).detail = failure.detail
            return pages.show(request, "login.html", failure.status, failure=failure)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE, cookie, max_age=int(SESSION_S), path="/", httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    @routes.post("/logout")
    async def logout(request: Request) -> Response:
        asked(request).verb = "logout"
        own_form(hub, request)
        hub.door.logout(caller(request))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    @routes.get("/")
    async def overview(request: Request) -> Response:
        return pages.show(request, "overview.html", here="/", **await pages.overview())

    @routes.get("/parts/overview")
    async def overview_part(request: Request) -> Response:
        return pages.show(request, "part_overview.html", **await pages.overview())

    @routes.get("/nodes")
    async def nodes(request: Request) -> Response:
        return pages.show(request, "nodes.html", here="/nodes", nodes=by_need(hub.nodes()))

    @routes.get("/parts/nodes")
    async def nodes_part(request: Request) -> Response:
        return pages.show(request, "part_nodes.html", nodes=by_need(hub.nodes()))

    def known(name: str) -> dict[str, Any]:
        """Raises Failure."""
        found = next((one for one in hub.nodes() if one["name"] == name), None)
        if found is None:
            raise Failure(404, f"there is no node {name[:64]!r}", "look at the list of nodes")
        return found

    @routes.get("/parts/nodes/{name}")
    async def node_part(request: Request, name: str) -> Response:
        return pages.show(request, "part_node.html", node=known(name))

    @routes.get("/nodes/{name}")
    async def node(request: Request, name: str) -> Response:
        found = known(name)
        texts = await hub.ask("show", node=name)
        told = found | {"make": texts["make"], "final_text": texts["final"]}
        may = caller(request).role >= Role.operator
        key, number = secrets.token_hex(16), hub.director.number
        return pages.show(request, "node.html", here="/nodes", node=told, may=may, key=key, revision=number)

    @routes.get("/history")
    async def history(request: Request) -> Response:
        found = (await hub.ask("history", limit=50))["revisions"]
        rows = [one | {"state": (await hub.operation(one["revision"]))["state"]} for one in found]
        return pages.show(request, "history.html", here="/history", revisions=rows)

    @routes.get("/operations/{number}")
    async def operation(request: Request, number: NumberPath) -> Response:
        words = await pages.operation(number)
        changes = (await hub.ask("show", revision=number))["changes"]
        return pages.show(request, "operation.html", here="/history", changes=changes, **words)

    @routes.get("/parts/operations/{number}")
    async def operation_part(request: Request, number: NumberPath) -> Response:
        return pages.show(request, "part_operation.html", **await pages.operation(number))

    @routes.get("/audit")
    async def audit(request: Request) -> Response:
        caller(request, Role.operator)
        try:
            entries = await asyncio.to_thread(hub.trail.newest, 200)
        except OSError as error:
            text = f"the audit log cannot be read: {error.strerror}"
            raise Failure(503, text, "see the director's disk") from None
        return pages.show(request, "audit.html", here="/audit", entries=entries)

    return routes
