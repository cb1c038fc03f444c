"""watch: feeds are asked, hazards at sites found, and what follows from one is made a proposal, or done.

Which site is in danger and who has to agree says ipshare.hazards (look, decide: pure); the state of that is
kept (note `hazards`) before anything follows from it. Then, of each episode, by its stage:

    would, hold, empty   nothing
    alarm                nothing moves: every site is in danger
    approval, limit      a proposal, with its plan
    ordered              the proposal is carried out: by whom it was approved, or by itself, but then only if
                         everything that has to go has a place, and no policy is broken by it

An evacuation has its episode's name, so that there is one at most for an episode, over restarts. A feed that
is silent moves nothing: it is a trouble of the director, for people.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from ipshare.director.evacuation.places import faults
from ipshare.director.evacuation.record import Evacuation
from ipshare.director.evacuation.runner import Ask, Evacuations
from ipshare.director.moves import moved
from ipshare.errors import IpshareError, Refused
from ipshare.hazards import evacuations as rules
from ipshare.hazards.evacuations import TEXT, Episode, State
from ipshare.hazards.look import look
from ipshare.hazards.model import Look, Place
from ipshare.hazards.poller import Poller
from ipshare.hazards.settings import Settings, places
from ipshare.hazards.tell import hazards_of, moment

log = logging.getLogger(__name__)
KEY = "hazards"
LONGEST_S = 60.0
"""Between two looks, whatever feeds want: an alert begins, ends."""
MACHINE = "automatic"


class HazardWatch:
    """Of the sites of the director's topology. ``poller``: has the feeds."""

    def __init__(
        self,
        evacuations: Evacuations,
        settings: Settings,
        poller: Poller,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.evacuations, self.settings, self.poller, self._wall = evacuations, settings, poller, wall
        self.director = evacuations.director
        self.state = State()
        self.seen: Look | None = None
        self.stuck: dict[str, str] = {}
        """Episode -> why nothing of it is done by itself."""
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""
        self._places: tuple[int, list[Place], list[str]] = (-1, [], [])
        evacuations.unsafe = lambda: rules.unsafe(self.state)

    async def start(self) -> None:
        text = (await self.director.work(self.director.store.notes, KEY)).get(KEY)
        if text is not None:
            try:
                self.state = rules.from_record(json.loads(text))
            except (ValueError, KeyError, TypeError):
                log.error("what was kept of hazards cannot be read: episodes begin anew")
        self._task = asyncio.create_task(self._watch(), name="hazards")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                await self.tick()
                self._trouble = ""
            except Exception as error:
                self._trouble = f"hazards: {getattr(error, 'message', repr(error))}"
                log.error("%s", self._trouble, exc_info=not isinstance(error, IpshareError))
            await asyncio.sleep(min(max(self.poller.next_s(), 0.1), LONGEST_S))

    async def tick(self) -> None:
        """Feeds that are due are asked; what follows is done."""
        await self.poller.poll()
        async with self._turn:
            await self._judge()

    # ---- answers --------------------------------------------------------------

    async def approve(self, one: Evacuation, who: str, why: str) -> Evacuation:
        """A proposal of an episode: rate limit and alarm still count. Raises Refused."""
        async with self._turn:
            episode = self._episode(one)
            if self.seen is None:
                raise Refused("the feeds were not asked yet", hint="ask again in a moment")
            if episode is None:
                raise Refused(f"there is no episode {one.episode!r} any more", hint=f"evacuate {one.site}")
            if episode.stage != "ordered":  # if it is, nobody but this proposal waits for an answer
                state, why_not = rules.approve(self.state, one.episode, who)
                if why_not:
                    raise Refused(why_not, hint="ipshare director hazards")
                await self._keep(state)
                await self._judge(False)
                episode = self._episode(one)
            if episode is None or episode.stage != "ordered":
                return self.evacuations.one(one.id)
            if self.evacuations.one(one.id).state != "proposed":
                return self.evacuations.one(one.id)
            return await self.evacuations.answer(one.id, True, who, why)

    def _episode(self, one: Evacuation) -> Episode | None:
        found = self.state.episodes.get(one.site)
        return found if found is not None and found.id == one.episode else None

    # ---- what follows ---------------------------------------------------------

    async def _judge(self, acts: bool = True) -> None:
        """``acts``: whether what is ordered begins here."""
        found, reports = self._sites(), self.poller.reports()
        seen = await asyncio.to_thread(look, self._wall(), found, reports, self.settings.policy)
        empty = {site.name for site in found} - self._used()
        state, events = rules.decide(seen, self.settings.rules, self.state, empty)
        if state != self.state:
            await self._keep(state)
        self.seen = seen
        for event in events:
            log.warning("hazards: %s", event.text)
        here = {episode.id for episode in state.episodes.values()}
        self.stuck = {name: why for name, why in self.stuck.items() if name in here}
        for one in list(self.evacuations.known.values()):
            if one.state == "proposed" and one.episode and one.episode not in here:
                await self.evacuations.over(one.id, "the hazard is over, and the site safe again")
        for episode in state.episodes.values():
            if episode.last == seen.at and episode.stage in ("approval", "limit", "ordered"):
                await self._propose(episode, acts)

    async def _propose(self, episode: Episode, acts: bool) -> None:
        one = self.evacuations.known.get(episode.id)
        if one is None:
            try:
                one = await self.evacuations.propose(
                    Ask(site=episode.site), "hazards", episode.why, episode.id
                )
            except Refused as error:  # nothing runs there, or somebody evacuates it already
                self.stuck[episode.id] = error.message
                return
        if one.state != "proposed" or episode.stage != "ordered" or not acts:
            self.stuck.pop(episode.id, None)
            return
        if episode.by != MACHINE:
            self.stuck.pop(episode.id, None)
            await self.evacuations.answer(one.id, True, episode.by, "approved before, and waited")
        elif why_not := await self._cannot(episode.site):
            if self.stuck.get(episode.id) != why_not:
                log.error("hazards: %s is not evacuated by itself: %s", episode.site, why_not)
            self.stuck[episode.id] = why_not
        else:
            self.stuck.pop(episode.id, None)
            await self.evacuations.answer(one.id, True, MACHINE, episode.why)

    async def _cannot(self, site: str) -> str:
        """Why nobody but a person may begin it."""
        plan = await self.evacuations.plan(Ask(site=site))
        if plan.is_alarm:
            return f"nothing can be moved: nowhere is safe: {plan.stays[0].unit}: {plan.stays[0].why}"
        if plan.stays:
            text = f"{len(plan.stays)} of {len(plan.stays) + len(plan.moves)} cannot go"
            return f"{text}: {plan.stays[0].unit}: {plan.stays[0].why}"
        if exclusive := self.evacuations.exclusive(plan):
            return f"{', '.join(exclusive)}: exclusive, and nothing here stops and starts workloads"
        before = self.director.topology
        try:
            after = moved(before, {name: move.target for move in plan.moves for name in move.workloads})
        except Refused as error:
            return error.message
        return next((fault for fault in faults(after) if fault not in faults(before)), "")

    async def _keep(self, state: State) -> None:
        """On the disk first."""
        text = json.dumps(rules.to_record(state))
        await self.director.work(self.director.store.put_note, self.director.term, KEY, text)
        self.state = state

    def _sites(self) -> list[Place]:
        if self._places[0] != self.director.number:
            self._places = (self.director.number, *places(self.director.topology.rows("site")))
        return self._places[1]

    def _used(self) -> set[str]:
        """Sites where something runs."""
        topology = self.director.topology
        nodes = topology.by_name["node"]
        return {nodes[row["node"]].get("site", "") for row in topology.rows("workload")}

    # ---- telling --------------------------------------------------------------

    def troubles(self) -> list[str]:
        """A line for each feed that cannot be relied on, each site in danger, each order that waits."""
        found = [self._trouble] if self._trouble else []
        found += self._places[2]
        for feed in self.poller.status():
            if feed["state"] != "fresh" and feed["polls"]:
                age = "" if feed["age_s"] is None else f", {feed['age_s']:.0f} s old"
                found.append(f"feed {feed['feed']}: {feed['state']}{age}: {feed['why']}")
        for site, episode in sorted(self.state.episodes.items()):
            waits = self.stuck.get(episode.id)
            found.append(f"{site}: {TEXT[episode.stage]}; {episode.why}" + (f"; {waits}" if waits else ""))
        return found

    def record(self) -> dict[str, Any]:
        seen = self.seen
        return {
            "mode": self.settings.rules.mode,
            "at": moment(seen.at) if seen is not None else None,
            "feeds": self.poller.status(),
            "sites": [
                {
                    "site": site.name,
                    "episode": self._told(self.state.episodes.get(site.name)),
                    "hazards": hazards_of(seen, site.name) if seen is not None else [],
                }
                for site in self._sites()
            ],
            "unknown": self._places[2],
            "ignored": dict(sorted(seen.ignored.items())) if seen is not None else {},
        }

    def _told(self, episode: Episode | None) -> dict[str, Any] | None:
        if episode is None:
            return None
        one = self.evacuations.known.get(episode.id)
        return {
            "id": episode.id,
            "since": moment(episode.since),
            "last": moment(episode.last),
            "stage": episode.stage,
            "severity": episode.severity,
            "why": episode.why,
            "by": episode.by,
            "stuck": self.stuck.get(episode.id, ""),
            "evacuation": one.state if one is not None else None,
        }


@contextlib.asynccontextmanager
async def feeds_of(settings: Settings) -> Any:
    """A poller of the configured feeds, over HTTP. Raises Refused where that is not installed."""
    try:
        from ipshare.hazards.fetch import Fetcher
    except ImportError as error:
        hint = "pip install 'ipshare[hazards]', or take [hazards] out of the file"
        raise Refused(f"the Python package {error.name} is not installed", hint=hint) from None
    fetcher = Fetcher(settings.contact, settings.timeout_s)
    try:
        yield Poller(settings.feeds, fetcher)
    finally:
        await fetcher.close()
