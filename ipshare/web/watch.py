"""watch: what happens at the director, as events with numbers: for SSE, timelines, and those who come late.

    revision   one came: who, why
    node       what became of it at a node changed: outcome, and what is waited for
    drain      who drains a distribution point, as it says: director, operator, nobody
    settled    every node has it
    over       of a stream of one revision: every node has it, or another one came; of one migration or
               evacuation: nothing more comes of it
    trouble    the director itself: a later term was heard of, its disk is full; "": over
    migration, evacuation, failover, health     what stands beside the director (ipshare.web.beside_states)

The last MOST events are kept in memory, and readers read from there, each at its own pace: one that is too
slow, or comes back after a restart (a new term), is told `reset` and looks at everything again. An event's
id is TERM.NUMBER. What must outlive the process is in the director's store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ipshare.director.daemon import Director
from ipshare.director.store import now_text

log = logging.getLogger(__name__)
MOST = 4096
BEAT_S = 15.0
STILL_S = 1.0
"""A reader that may not read any more reads so much longer at most, also where nothing happens."""
MOST_READERS = 64
PAUSE_S, LOOK_S = 0.1, 1.0
"""Between two looks at what stands beside the director, at least and at most."""
Of = tuple[str, int | str]
"""What a stream is about: ("revision", 7), ("migration", ID), ("evacuation", ID)."""


@dataclass(frozen=True, slots=True)
class Event:
    number: int
    time: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class State:
    """Of one thing beside the director. ``said``: an event when it changes; ``moments``: (time, what), each
    an event; ``over``: nothing more comes of it."""

    kind: str
    name: str
    said: dict[str, Any]
    moments: tuple[tuple[str, str], ...] = ()
    over: bool = False


class Watch:
    """Of ``director``. ``beside``: what there is beside it, given those that were seen and were not over."""

    def __init__(
        self, director: Director, beside: Callable[[set[Of]], Awaitable[list[State]]] | None = None
    ) -> None:
        self._director, self._states = director, beside
        self._beside: dict[Of, State] = {}
        self._has_looked = False
        self._tasks: list[asyncio.Task[None]] = []
        self.events: deque[Event] = deque(maxlen=MOST)
        self.readers = 0
        self._number = 0
        self._came = asyncio.Event()
        self._said: dict[str, tuple[str, str]] = {}
        self._drained: dict[str, list[str]] = {}
        self._revision, self._settled, self._trouble = 0, False, ""
        self.since_s: dict[str, float] = {}

    def start(self) -> None:
        self.look()
        self._tasks = [asyncio.create_task(self._run(), name="watch")]
        if self._states is not None:
            self._tasks.append(asyncio.create_task(self._run_beside(), name="watch beside"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._director.judged()
            try:
                self.look()
            except Exception:
                log.exception("a look for events failed; it is tried again")

    async def _run_beside(self) -> None:
        while True:
            try:
                await self.look_beside()
            except Exception:
                log.exception("a look at what is beside the director failed; it is tried again")
            await asyncio.sleep(PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._director.judged()

    async def look_beside(self) -> None:
        """What changed there becomes events. What is over when it is seen first is none."""
        if self._states is None:
            return
        known = {of for of, state in self._beside.items() if not state.over}
        found: dict[Of, State] = {(state.kind, state.name): state for state in await self._states(known)}
        for of, state in found.items():
            had = self._beside.get(of)
            if had == state or (had is None and state.over and not self._has_looked):
                continue
            new = state.moments[len(had.moments) if had is not None else 0 :]
            for at, what in new:
                self._add(state.kind, {state.kind: state.name, "at": at, "what": what, **state.said})
            if not new:
                self._add(state.kind, {state.kind: state.name, **state.said})
        for of in known - set(found):
            self._add(of[0], {of[0]: of[1], "gone": True})
        over = {of: state for of, state in self._beside.items() if state.over}
        self._beside = dict([*over.items(), *found.items()][-MOST:])
        self._has_looked = True

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
            drained_by = list(director.nodes[name].told.get("drained_by") or ())
            if self._drained.get(name, []) != drained_by:
                self._drained[name] = drained_by
                self._add("drain", {"node": name, "by": drained_by})
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

    async def read(self, last: str, goes_on: Callable[[], bool], of: Of | None = None) -> AsyncIterator[str]:
        """Server-sent events after the one of id ``last`` ("": from now on, or from the first one ``of``
        something), until ``goes_on`` says no, or that is over."""
        self.readers += 1
        try:
            at, lost = self._begin(last, of)
            yield "retry: 2000\n\n" + (_event("reset", "", {}) if lost else "")
            said_s = time.monotonic()
            while True:
                oldest = self.events[0].number if self.events else self._number + 1
                if at + 1 < oldest and at < self._number:
                    yield _event("reset", "", {})
                    at = oldest - 1
                for event in [one for one in self.events if one.number > at]:
                    at = event.number
                    if of is None or event.data.get(of[0]) == of[1] or event.kind == "trouble":
                        data = {"time": event.time, **event.data}
                        yield _event(event.kind, self.identifier(event.number), data)
                if of is not None and self._is_over(of):
                    yield _event("over", "", {of[0]: of[1]})
                    return
                came = self._came
                if at == self._number:
                    try:
                        async with asyncio.timeout(min(BEAT_S, STILL_S)):
                            await came.wait()
                    except TimeoutError:
                        if time.monotonic() - said_s >= BEAT_S:
                            said_s = time.monotonic()
                            yield ": still here\n\n"
                if not goes_on():
                    return
        finally:
            self.readers -= 1

    def _is_over(self, of: Of) -> bool:
        if of[0] == "revision":
            return self._revision != of[1] or self._settled
        return of not in self._beside or self._beside[of].over

    def _begin(self, last: str, of: Of | None) -> tuple[int, bool]:
        """After which event, and whether something in between is lost."""
        term, _, number = last.partition(".")
        if last and term == str(self._director.term) and number.isascii() and number.isdigit():
            return min(int(number[:18]), self._number), False
        return (0 if of is not None else self._number), bool(last)


def _event(kind: str, identifier: str, data: dict[str, Any]) -> str:
    named = f"id: {identifier}\n" if identifier else ""
    return f"{named}event: {kind}\ndata: {json.dumps(data)}\n\n"
