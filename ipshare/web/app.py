"""app: the routes put together, behind the gate; and a description of the API that is true."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from ipshare.errors import IpshareError
from ipshare.web import (
    api,
    api_changes,
    api_operations,
    metrics,
    models,
    page,
    page_evacuate,
    page_health,
    page_migrate,
    page_move,
)  # fmt: skip
from ipshare.web.gate import Gate
from ipshare.web.hub import Hub
from ipshare.web.problems import MEDIA, Failure, of_error

DESCRIPTION = """The director of an ipshare installation (docs/web.md). Errors are RFC 9457 problems, with
`hint`: what to do. A change names the revision that it was made from in If-Match, and is answered with the
operation that rolls it out. Parameters and fields that are not described are refused."""
WHAT = {
    400: ("that is no request", "see /api/v1/openapi.json"),
    404: ("there is nothing here", "see /api/v1/openapi.json"),
}


def make(hub: Hub) -> Gate:
    """The whole application; ``hub.gate`` is set."""
    app = FastAPI(
        title="ipshare director", version="1", description=DESCRIPTION, openapi_url="/api/v1/openapi.json",
        docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    described = [api.router(hub), api_changes.router(hub), api_operations.router(hub), metrics.router(hub)]
    pages = [part.router(hub) for part in (page, page_move, page_migrate, page_evacuate, page_health)]
    for router in described:
        app.include_router(router)
    for router in pages:
        app.include_router(router, include_in_schema=False)
    app.state.known = [route for router in (*described, *pages) for route in router.routes]
    page.mount_static(app, hub)
    app.add_exception_handler(Exception, _bug)
    for kind in (Failure, IpshareError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    hub.gate = Gate(app, hub.director, hub.door, hub.trail)
    return hub.gate


async def _answer(request: Request, error: Exception) -> Response:
    failure = _failure(request, error)
    request.state.asked.detail = failure.detail
    if page.wants_html(request):
        return page.problem(request, failure)
    return failure.response()


async def _bug(request: Request, _error: Exception) -> Response:
    identifier = request.state.asked.id
    text = f"this is a bug; the log names it {identifier}"
    return await _answer(request, Failure(500, text, "tell whoever runs the director"))


def _failure(request: Request, error: Exception) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, IpshareError):
        return of_error(error)
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    assert isinstance(error, HTTPException), "no other is handled here"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        allowed = ", ".join(_methods(request)) or "GET, HEAD"
        return Failure(
            405, f"{request.method} does not work here", f"it may be {allowed}", headers={"Allow": allowed}
        )
    detail, hint = WHAT.get(error.status_code, (str(error.detail), ""))
    return Failure(error.status_code, detail, hint, headers=headers)


def _invalid(error: RequestValidationError) -> Failure:
    found = []
    for one in error.errors()[:100]:
        where = ".".join(str(part) for part in one["loc"])
        known = "unknown field" if one["type"] == "extra_forbidden" else one["msg"]
        found.append({"key": where[:500], "message": known, "hint": "see /api/v1/openapi.json"})
    first = found[0] if found else {"key": "", "message": "?"}
    return Failure(
        422, f"{first['key']}: {first['message']}", "see /api/v1/openapi.json", kind="invalid", problems=found
    )


def _methods(request: Request) -> list[str]:
    """What the path of the request can be asked with."""
    found: set[str] = set()
    for route in request.app.state.known:
        methods = getattr(route, "methods", None)
        if methods and route.matches({**request.scope, "method": next(iter(methods))})[0] is Match.FULL:
            found |= methods
    return sorted(found)


def _described(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema:
        return app.openapi_schema
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    parts = schema["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    parts["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "ipshare token add"},
        "certificate": {"type": "mutualTLS", "description": "Of a director or an operator."},
    }
    schema["security"] = [{"token": []}]
    parts["schemas"].setdefault("Problem", models.Problem.model_json_schema())
    reference = {"$ref": "#/components/schemas/Problem"}
    for path in schema["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if status.isdigit() and int(status) >= 400:
                    response["content"] = {MEDIA: {"schema": reference}}
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "If-Match":  # what is missing is answered with 428
                    parameter["required"] = True
                    parameter["schema"] = {"type": "string", "pattern": parameter["schema"]["pattern"]}
                if parameter["name"] == "Idempotency-Key":
                    parameter["schema"] = {"type": "string", "pattern": "^[!-~]{1,255}$"}
    app.openapi_schema = schema
    return schema
