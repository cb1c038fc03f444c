"""gate: what every request passes first: who is it, how large, is it what it says; and what every answer has.

Who asks is found out before a byte of the body is read. Bodies are bounded in size and time, and JSON
that is none is refused here (no NaN, no lone surrogates, no depths). An exception becomes a problem without
its inside. Each request that would change something leaves a line in the audit log. ASGI, outermost.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ipshare.director.daemon import Director
from ipshare.errors import IpshareError
from ipshare.web.audit import BEGUN, Trail, entry
from ipshare.web.problems import Failure, of_error
from ipshare.web.server_peer import NOBODY
from ipshare.web.who import Caller, Doorkeeper

log = logging.getLogger(__name__)
MAX_BODY = 16 << 20
"""Bytes: a topology with some hundred thousand bindings."""
MAX_FORM = 64 << 10
BODY_S = 30.0
LOOKS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
OPEN = ("/login", "/static/")
"""Paths for everybody."""
REFUSALS, REFUSALS_S = 60, 60.0
"""So many lines of the audit log in so many seconds are those of people who did not get in."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "geolocation=(), camera=(), microphone=()",
}


@dataclass
class Asked:
    """A request, as the gate knows it. ``verb``, ``what``, ``detail``: for the audit log."""

    id: str
    caller: Caller | None = None
    body: bytes = b""
    verb: str = ""
    what: str = ""
    detail: str = ""
    revision: int | None = None
    begun: bool = False
    marks: dict[str, Any] = field(default_factory=dict)


class Gate:
    """Before ``app``."""

    def __init__(self, app: ASGIApp, director: Director, door: Doorkeeper, trail: Trail) -> None:
        self._app, self._director, self.door, self.trail = app, director, door, trail
        self.requests: Counter[tuple[str, int]] = Counter()
        self._refusals: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        asked = Asked(secrets.token_hex(8))
        scope = {**scope, "state": {**scope.get("state", {}), "asked": asked}}
        sent: list[int] = []

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent.append(message["status"])
                message = {**message, "headers": _headers(scope, message["headers"], asked.id)}
                await self._audited(scope, asked, message["status"])
            await send(message)

        try:
            await self._pass(scope, receive, answering, asked)
        except Exception as error:
            if sent == [500]:  # answered within
                log.exception("request %s failed", asked.id, exc_info=error)
                return
            if sent:
                raise
            await self._answer(error, asked)(scope, receive, answering)
        finally:
            self.requests[
                scope["method"] if scope["method"] in METHODS else "other", sent[0] if sent else 0
            ] += 1

    async def begin(self, request: Request, verb: str, what: str) -> None:
        """A change is about to be asked for. Raises Failure where that cannot be written down."""
        asked: Asked = request.state.asked
        asked.verb, asked.what = verb, what
        line = entry(asked.id, str(asked.caller), verb, what, self._director.number, BEGUN, "")
        try:
            await asyncio.to_thread(self.trail.record, line)
        except OSError as error:
            text = f"the audit log cannot be written: {error.strerror}"
            raise Failure(503, text, "make room on the director's disk; nothing was changed") from None
        asked.begun = True

    # ---- inside ---------------------------------------------------------------

    async def _pass(self, scope: Scope, receive: Receive, send: Send, asked: Asked) -> None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        api = path.startswith(("/api/", "/metrics")) or path == "/api"
        address = (scope.get("client") or ("?",))[0]
        is_open = path.startswith(OPEN)
        try:
            asked.caller = self.door.caller(headers, scope["state"].get("peer", NOBODY), address)
        except Failure as failure:
            if not is_open:
                if api or method not in ("GET", "HEAD") or failure.status != 401:
                    raise
                await RedirectResponse("/login", 303)(scope, receive, send)
                return
        if method not in LOOKS:
            self._same_site(headers, asked, api)
        asked.body = await _body(receive, headers, MAX_BODY if api else MAX_FORM)
        if asked.body and api:
            _json(headers, asked.body)
        await self._app(scope, _given(asked.body, receive), send)

    def _same_site(self, headers: Headers, asked: Asked, api: bool) -> None:
        """A change that another site makes a browser ask for is refused. Forms show their word later."""
        site = headers.get("sec-fetch-site")
        origin, host = headers.get("origin"), headers.get("host", "")
        foreign = site not in (None, "same-origin", "none") if site is not None else False
        if origin is not None and origin.partition("://")[2] != host:
            foreign = True
        if foreign:
            raise Failure(403, "another site asks for this", "open the page of this director itself")
        caller = asked.caller
        by_session = api and caller is not None and caller.by == "session"
        if (
            caller is not None
            and by_session
            and not self.door.is_own_word(caller, headers.get("x-csrf-token", ""))
        ):
            hint = "send X-CSRF-Token as the page has it, or a token in Authorization"
            raise Failure(403, "a session alone changes nothing", hint)

    def _answer(self, error: Exception, asked: Asked) -> Response:
        if isinstance(error, IpshareError):
            error = of_error(error)
        if not isinstance(error, Failure):
            log.exception("request %s failed", asked.id, exc_info=error)
            error = Failure(
                500, f"this is a bug; the log names it {asked.id}", "tell whoever runs the director"
            )
        asked.detail = error.detail
        return error.response()

    async def _audited(self, scope: Scope, asked: Asked, status: int) -> None:
        """The line that says how it ended. What was looked at leaves none, nor a plan."""
        if scope["method"] in LOOKS or scope["path"] in QUIET or (asked.caller is None and self._many()):
            return
        who = str(asked.caller) if asked.caller else f"nobody at {(scope.get('client') or ('?',))[0]}"
        verb = asked.verb or f"{scope['method']} {scope['path'][:200]}"
        outcome = "done" if status < 400 else f"refused {status}"
        revision = asked.revision if asked.revision is not None else self._director.number
        line = entry(asked.id, who, verb, asked.what, revision, outcome, asked.detail[:1000])
        try:
            await asyncio.to_thread(self.trail.record, line)
        except OSError:
            return  # counted and logged there; that it was begun is on the disk

    def _many(self) -> bool:
        now = time.monotonic()
        self._refusals = [at for at in self._refusals if now - at < REFUSALS_S]
        if len(self._refusals) >= REFUSALS:
            return True
        self._refusals.append(now)
        return False


METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
QUIET = frozenset({"/api/v1/plan", "/api/v1/plan/migration", "/api/v1/plan/evacuation", "/move/plan"})
"""They change nothing."""


def _headers(scope: Scope, given: Any, identifier: str) -> list[tuple[bytes, bytes]]:
    headers = [*given, (b"x-request-id", identifier.encode()), (b"date", formatdate(usegmt=True).encode())]
    headers += [(name.encode(), value.encode()) for name, value in SAFE.items()]
    if not any(name.lower() == b"cache-control" for name, _ in given):
        headers.append((b"cache-control", b"no-store"))
    if scope.get("scheme") == "https":
        headers.append((b"strict-transport-security", b"max-age=31536000"))
    return headers


async def _body(receive: Receive, headers: Headers, most: int) -> bytes:
    told = headers.get("content-length", "0")
    if not (told.isascii() and told.isdigit()) or int(told[:18]) > most:
        raise _too_large(most)
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Failure(400, "the connection ended before the request did", "send it again")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise _too_large(most)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise Failure(
            408, "the request takes too long", "send it at once", headers={"Connection": "close"}
        ) from None


def _too_large(most: int) -> Failure:
    return Failure(413, f"more than {most >> 10} KiB", "send less at once", headers={"Connection": "close"})


def _json(headers: Headers, body: bytes) -> None:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Failure(415, f"{kind[:100] or 'no type'} is not taken", "send application/json")
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Failure(400, f"the body is no JSON: {str(error)[:200]}", "mend it") from None


def _given(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body, then what comes after it (that the caller has gone)."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
