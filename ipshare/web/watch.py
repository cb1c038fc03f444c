"""watch: what happens at the director, as events with numbers: for SSE, timelines, and those who come late.

    revision   one came: who, why
    node       what became of it at a node changed: outcome, and what is waited for
    settled    every node has it
    over       of a stream of one revision: every node has it, or another one came
    trouble    the director itself: a later term was heard of, its disk is full; "": over

The last MOST events are kept in memory, and readers read from there, each at its own pace: one that is too
slow, or comes back after a restart (a new term), is told `reset` and looks at everything again. An event's
id is TERM.NUMBER. What must outlive the process is in the director's store.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from ipshare.director.daemon import Director
from ipshare.director.store import now_text

log = logging.getLogger(__name__)
MOST = 4096
BEAT_S = 15.0
MOST_READERS = 64


@dataclass(frozen=True, slots=True)
class Event:
    number: int
    time: str
    kind: str
    data: dict[str, Any]


class Watch:
    """Of ``director``."""

    def __init__(self, director: Director) -> None:
        self._director = director
        self.events: deque[Event] = deque(maxlen=MOST)
        self.readers = 0
        self._number = 0
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._said: dict[str, tuple[str, str]] = {}
        self._revision, self._settled, self._trouble = 0, False, ""
        self.since_s: dict[str, float] = {}

    def start(self) -> None:
        self.look()
        self._task = asyncio.create_task(self._run(), name="watch")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._director.judged()
            try:
                self.look()
            except Exception:
                log.exception("a look for events failed; it is tried again")

    def look(self) -> None:
        """What changed since the last look becomes events."""
        director = self._director
        outcomes = director.outcomes()
        if director.number != self._revision:
            self._revision, self._settled, self._said = director.number, False, {}
            made = director.revision
            if made is not None:
                self._add("revision", {"revision": made.number, "who": made.who, "why": made.why})
        for name, outcome in outcomes.items():
            why = self.why(name, outcome)
            if self._said.get(name) != (outcome, why):
                self._said[name] = (outcome, why)
                data = {"revision": self._revision, "node": name, "outcome": outcome, "why": why}
                self._add("node", data)
        settled = bool(outcomes) and set(outcomes.values()) <= {"acked"}
        if settled != self._settled:
            self._settled = settled
            if settled:
                self._add("settled", {"revision": self._revision})
        trouble = director.superseded or director.trouble
        if trouble != self._trouble:
            self._trouble = trouble
            self._add("trouble", {"text": trouble})

    def why(self, name: str, outcome: str) -> str:
        """What a node's outcome is about."""
        node = self._director.nodes[name]
        if outcome == "silent":
            return node.trouble
        if outcome == "refused":
            return node.refused
        return self._director.wanted.get(name, (-1, ""))[1] if outcome in ("waiting", "working") else ""

    def _add(self, kind: str, data: dict[str, Any]) -> None:
        self._number += 1
        self.events.append(Event(self._number, now_text(), kind, data))
        came, self._came = self._came, asyncio.Event()
        came.set()

    # ---- readers --------------------------------------------------------------

    def identifier(self, number: int) -> str:
        return f"{self._director.term}.{number}"

    async def read(
        self, last: str, goes_on: Callable[[], bool], revision: int | None = None
    ) -> AsyncIterator[str]:
        """Server-sent events after the one of id ``last`` ("": from now on, or from the first one of
        ``revision``), until ``goes_on`` says no, or ``revision`` is over."""
        self.readers += 1
        try:
            at, lost = self._begin(last, revision)
            yield "retry: 2000\n\n" + (_event("reset", "", {}) if lost else "")
            while True:
                oldest = self.events[0].number if self.events else self._number + 1
                if at + 1 < oldest and at < self._number:
                    yield _event("reset", "", {})
                    at = oldest - 1
                for event in [one for one in self.events if one.number > at]:
                    at = event.number
                    if revision is None or event.data.get("revision") == revision or event.kind == "trouble":
                        data = {"time": event.time, **event.data}
                        yield _event(event.kind, self.identifier(event.number), data)
                if revision is not None and self._is_over(revision):
                    yield _event("over", "", {"revision": revision})
                    return
                came = self._came
                if at == self._number:
                    try:
                        async with asyncio.timeout(BEAT_S):
                            await came.wait()
                    except TimeoutError:
                        yield ": still here\n\n"
                if not goes_on():
                    return
        finally:
            self.readers -= 1

    def _is_over(self, revision: int) -> bool:
        return self._revision != revision or self._settled

    def _begin(self, last: str, revision: int | None) -> tuple[int, bool]:
        """After which event, and whether something in between is lost."""
        term, _, number = last.partition(".")
        if last and term == str(self._director.term) and number.isascii() and number.isdigit():
            return min(int(number[:18]), self._number), False
        return (0 if revision is not None else self._number), bool(last)


def _event(kind: str, identifier: str, data: dict[str, Any]) -> str:
    named = f"id: {identifier}\n" if identifier else ""
    return f"{named}event: {kind}\ndata: {json.dumps(data)}\n\n"
