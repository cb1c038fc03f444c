"""problems: every error as application/problem+json (RFC 9457), with `hint`: what to do about it.

`type` is a URN of ipshare's own for what a program may want to tell apart, else about:blank. Nothing of the
inside of the process gets into an answer.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from ipshare.errors import ConfigError, IpshareError, NoPrivilege, NotRunning, Refused

MEDIA = "application/problem+json"
MOST_PROBLEMS = 100


class Failure(Exception):
    """A request that is answered with a problem."""

    def __init__(
        self, status: int, detail: str, hint: str = "", *, kind: str = "",
        headers: dict[str, str] | None = None, problems: list[dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.status, self.detail, self.hint, self.kind = status, detail, hint, kind
        self.headers, self.problems = headers or {}, problems

    def response(self) -> JSONResponse:
        body: dict[str, Any] = {
            "type": f"urn:ipshare:problem:{self.kind}" if self.kind else "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "hint": self.hint,
        }
        if self.problems is not None:
            body["problems"] = self.problems
        return JSONResponse(body, self.status, headers=self.headers, media_type=MEDIA)


def of_error(error: IpshareError) -> Failure:
    """What the director's own refusals are over HTTP."""
    if isinstance(error, ConfigError):
        found = [
            {"key": one.key, "message": one.message, "hint": one.hint}
            for one in error.problems[:MOST_PROBLEMS]
        ]
        count = len(error.problems)
        text = f"{count} mistake{'s' if count != 1 else ''}: {error.problems[0].message if count else ''}"
        hint = error.problems[0].hint if count else ""
        return Failure(422, text, hint, kind="mistakes", problems=found)
    if isinstance(error, Refused):
        return Failure(409, error.message, error.hint or "look at what is so now", kind="conflict")
    if isinstance(error, NoPrivilege):
        return Failure(403, error.message, error.hint)
    if isinstance(error, NotRunning):
        return Failure(503, error.message, error.hint)
    return Failure(503, error.message, error.hint, kind="director")
