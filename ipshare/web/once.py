"""once: Idempotency-Key: a change that is sent again is answered again, and carried out once.

A key is its sender's, for one method and path. The answer to what was carried out is kept for a day, the
last MOST of them, in memory; a refusal changed nothing and is judged anew. After a restart keys are
forgotten, and If-Match still says no to a change that came through before: it is then answered with 412.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from starlette.responses import Response

from ipshare.web.problems import Failure

KEEP_S = 86400.0
MOST = 1000
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
Named = tuple[str, str, str, str]
"""Who, method, path, key."""


class Keys:
    """The answers that are kept."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Named, tuple[str, float, Response | None]] = OrderedDict()

    async def answer(
        self, who: str, method: str, path: str, key: str | None, digest: str,
        job: Callable[[], Awaitable[Response]],
    ) -> Response:  # fmt: skip
        """``job``'s answer, or the one that it gave before. ``digest``: of the body. Raises Failure."""
        if key is None:
            return await job()
        if not _KEY.fullmatch(key):
            raise Failure(400, "Idempotency-Key is no key", "1 to 255 visible characters of ASCII")
        name, now = (who, method, path, key), time.monotonic()
        known = self._answers.get(name)
        if known is not None and now - known[1] < KEEP_S:
            if known[0] != digest:
                hint = "take a new key for another request"
                raise Failure(422, "this key came with another body", hint, kind="key-reused")
            if known[2] is None:
                raise Failure(
                    409, "the same request is being carried out", "ask again soon", kind="in-progress"
                )
            return _again(known[2])
        self._answers[name] = (digest, now, None)
        kept: Response | None = None
        try:
            kept = await job()
            return kept
        finally:
            if kept is None:
                self._answers.pop(name, None)
            else:
                self._answers[name] = (digest, now, kept)
                self._answers.move_to_end(name)
            self._forget(now)

    def _forget(self, now: float) -> None:
        over = [name for name, (_, came, _) in self._answers.items() if now - came >= KEEP_S]
        done = [name for name, (_, _, answer) in self._answers.items() if answer is not None]
        for name in [*over, *done[: max(0, len(done) - MOST)]]:
            self._answers.pop(name, None)


def _again(answer: Response) -> Response:
    headers = dict(answer.headers) | {"Idempotency-Replayed": "true"}
    return Response(bytes(answer.body), answer.status_code, headers=headers)
