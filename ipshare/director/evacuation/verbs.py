"""verbs: what a director answers operators about evacuations and hazards, added to those of its desk.

evacuate             the plan for a site or a node; proposed, or begun, where that is asked for; `digest`:
                     only if the plan is still that one
evacuations          all that are kept, or one with its steps and events
approve, refuse      a proposal; stop, continue, abort: one that runs
hazards              feeds, sites, episodes
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from ipshare.agent.server import Asker
from ipshare.director.evacuation.record import Evacuation
from ipshare.director.evacuation.runner import Ask, Evacuations
from ipshare.director.evacuation.watch import HazardWatch
from ipshare.errors import IpshareError, Refused

Request = dict[str, Any]
Verb = Callable[[Asker, Request], Awaitable[Request]]
WAIT_S = 3600.0
MOST_TEXT = 1000
VERBS = frozenset(("evacuate", "evacuations", "approve", "refuse", "stop", "continue", "abort", "hazards"))
"""Their names, for who has to know them before they are there."""


class Verbs:
    """Of ``evacuations``; ``watch``: None: the file has no [hazards]."""

    def __init__(self, evacuations: Evacuations, watch: HazardWatch | None) -> None:
        self.evacuations, self.watch = evacuations, watch
        self.verbs: dict[str, Verb] = {
            "evacuate": self._evacuate,
            "evacuations": self._all,
            "approve": self._approve,
            "refuse": self._refuse,
            "stop": self._stop,
            "continue": self._continue,
            "abort": self._abort,
            "hazards": self._hazards,
        }

    def troubles(self) -> list[str]:
        """For status: of feeds, of sites in danger, of evacuations."""
        own = [self.evacuations.trouble] if self.evacuations.trouble else []
        waiting = [
            f"evacuation {one.id} waits for an answer: {one.what}, {one.why or 'no reason given'}"
            for one in self.evacuations.known.values()
            if one.state == "proposed"
        ]
        return [*own, *waiting, *(self.watch.troubles() if self.watch is not None else [])]

    async def _evacuate(self, caller: Asker, request: Request) -> Request:
        ask = Ask(_text(request, "site"), _text(request, "node"), _names(request, "avoid"))
        evacuations = self.evacuations
        evacuations.check(ask)
        await evacuations.acquainted()
        plan = await evacuations.plan(ask)
        ways = await evacuations.ways.checked(plan.moves)
        found = {
            "possible": plan.is_possible,
            "alarm": plan.is_alarm,
            "exact": plan.is_exact,
            "moves": [asdict(m) | asdict(going) for m, going in zip(plan.moves, ways, strict=True)],
            "stays": [asdict(stay) for stay in plan.stays],
            "avoided": sorted({*ask.avoid, *evacuations.unsafe()} - {ask.site}),
            "unfit": evacuations.unfit(),
            "at_once": evacuations.settings.at_once,
            "changes": evacuations.differences(plan),
            "exclusive": evacuations.exclusive(plan),
            "not_live": evacuations.settings.not_live,
            "evacuation": None,
        }
        found["digest"] = digest_of(found["moves"], found["stays"])
        if (seen := _text(request, "digest")) and seen != found["digest"]:
            raise Refused("the plan is another one by now", hint="look at it, and confirm that one")
        if request.get("propose") or request.get("run"):
            who, why = _who(caller, request), _text(request, "why")
            one = await evacuations.propose(ask, who, why)
            if request.get("run"):
                one = await evacuations.answer(one.id, True, who, why)
            found["evacuation"] = one.id
        return found

    async def _all(self, _caller: Asker, request: Request) -> Request:
        """One: after at most ``timeout_s``, or when nothing of it is under way any more."""
        if id_ := _text(request, "id"):
            timeout_s = request.get("timeout_s", 0.0)
            if not isinstance(timeout_s, int | float) or not 0 <= timeout_s <= WAIT_S:
                raise IpshareError(f"timeout_s is a number of seconds up to {WAIT_S:g}")
            one = self.evacuations.one(id_)
            if timeout_s:
                await asyncio.wait([asyncio.ensure_future(self.evacuations.ended(id_))], timeout=timeout_s)
                one = self.evacuations.one(id_)
            return asdict(one)
        return {"evacuations": [_short(one) for one in self.evacuations.known.values()]}

    async def _approve(self, caller: Asker, request: Request) -> Request:
        one, who, why = self._one(request), _who(caller, request), _text(request, "why")
        if one.episode and one.state == "proposed" and self.watch is not None:
            return _short(await self.watch.approve(one, who, why))
        return _short(await self.evacuations.answer(one.id, True, who, why))

    async def _refuse(self, caller: Asker, request: Request) -> Request:
        one = self._one(request)
        return _short(
            await self.evacuations.answer(one.id, False, _who(caller, request), _text(request, "why"))
        )

    async def _stop(self, caller: Asker, request: Request) -> Request:
        return _short(await self.evacuations.stop(self._one(request).id, _who(caller, request)))

    async def _continue(self, caller: Asker, request: Request) -> Request:
        return _short(await self.evacuations.go_on(self._one(request).id, _who(caller, request)))

    async def _abort(self, caller: Asker, request: Request) -> Request:
        return _short(await self.evacuations.abort(self._one(request).id, _who(caller, request)))

    async def _hazards(self, _caller: Asker, _request: Request) -> Request:
        if self.watch is None:
            return {"mode": None, "at": None, "feeds": [], "sites": [], "unknown": [], "ignored": {}}
        return self.watch.record()

    def _one(self, request: Request) -> Evacuation:
        return self.evacuations.one(_text(request, "id"))


def digest_of(*parts: Any) -> str:
    """Names what would go where, by which way, and what stays."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _short(one: Evacuation) -> Request:
    """Without its steps and events."""
    return {
        "id": one.id,
        "state": one.state,
        "site": one.site,
        "node": one.node,
        "avoid": list(one.avoid),
        "who": one.who,
        "why": one.why,
        "time": one.time,
        "episode": one.episode,
        "answered_by": one.answered_by,
        "answer": one.answer,
        "moved": len(one.of("done")),
        "moving": len(one.of("moving")),
        "waiting": len(one.of("waiting")),
        "failed": len(one.of("failed")),
        "stays": len(one.stays),
    }


def _who(caller: Asker, request: Request) -> str:
    return _text(request, "who") or str(caller)


def _text(request: Request, key: str) -> str:
    value = request.get(key) or ""
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise IpshareError(f"{key} is a text of {MOST_TEXT} characters at most")
    return value


def _names(request: Request, key: str) -> tuple[str, ...]:
    value = request.get(key) or []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise IpshareError(f"{key} is a list of names")
    return tuple(value)
