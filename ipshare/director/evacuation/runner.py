"""runner: evacuations, carried out: a batch of groups, until all of them arrived or are back, then the next.

Each state is in the store (notes `evacuation/ID`) before what follows from it is done, so that whoever dies
in between is gone on from by the next director: what was under way is seen through, then the plan is made
again. It is made again before each batch anyway, from the topology, from which nodes answer, and without the
sites that are in danger then; so a change by somebody else is never overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NoReturn

from ipshare.director.daemon import Director
from ipshare.director.evacuation import record
from ipshare.director.evacuation.mover import Group, Moved, Mover, Seen, TopologyMover
from ipshare.director.evacuation.places import layout
from ipshare.director.evacuation.record import Evacuation, Step
from ipshare.director.evacuation.settings import Settings
from ipshare.director.evacuation.ways import Ways
from ipshare.director.moves import moved
from ipshare.director.topology import changes
from ipshare.errors import IpshareError, Refused
from ipshare.placement import plan as placement
from ipshare.placement.plan import Move, Plan

log = logging.getLogger(__name__)
PREFIX = "evacuation/"
MOST_ENDED = 100
"""Evacuations that are over and still shown."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is to be left: a site, or a node; ``avoid``: sites where nothing goes."""

    site: str = ""
    node: str = ""
    avoid: tuple[str, ...] = ()


class Evacuations:
    """Of ``director``; ``mover`` moves groups, by default the topology alone."""

    def __init__(
        self,
        director: Director,
        settings: Settings,
        mover: Mover | None = None,
        wall: Callable[[], float] = time.time,
        ways: Ways | None = None,
    ) -> None:
        self.director, self.settings, self._wall = director, settings, wall
        self.mover = mover or TopologyMover(director, settings.patience_s)
        self.ways = ways or Ways(director)
        self.known: dict[str, Evacuation] = {}
        self.unsafe: Callable[[], Collection[str]] = frozenset  # sites in danger: nothing goes there
        self.held: Callable[[str], str] = lambda _workload: ""  # why somebody else moves it now
        self.trouble = ""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._began = 0.0

    async def start(self) -> None:
        """Goes on with what an earlier director began."""
        self._began = time.monotonic()
        for key, text in (await self.director.work(self.director.store.notes, PREFIX)).items():
            try:
                found = record.from_text(text)
            except (ValueError, KeyError, TypeError):
                self.trouble = f"cannot read {key} in the store: it is left alone"
                log.error("%s", self.trouble)
                continue
            self.known[found.id] = found
            if found.state == "running" or found.of("moving"):
                log.warning("evacuation %s is gone on with", found.id)
                self._spawn(found.id)

    async def close(self) -> None:
        """Nothing of it ends: what is under way is for the next start."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks = {}

    # ---- looking --------------------------------------------------------------

    def unfit(self) -> dict[str, str]:
        """Nodes that take nothing now, and why."""
        found = {}
        for name, node in self.director.nodes.items():
            if node.row.endpoint is None:
                continue
            if not self.director.facts(node).alive:
                found[name] = "silent"
            elif node.refused:
                found[name] = f"refused: {node.refused}"
        return found

    async def plan(self, ask: Ask) -> Plan:
        """Where everything would go, from what is known now."""
        seen = layout(self.director.topology, self.unfit())
        avoid = {*ask.avoid, *self.unsafe()}
        if ask.site:
            return await asyncio.to_thread(placement.evacuate, seen, ask.site, avoid)
        return await asyncio.to_thread(placement.plan, seen, {ask.node}, avoid, f"{ask.node} is left")

    def differences(self, plan: Plan) -> list[str]:
        """What carrying it out would change, a line for each row."""
        before = after = self.director.topology
        refused = []
        for move in plan.moves:
            try:
                after = moved(after, dict.fromkeys(move.workloads, move.target))
            except Refused as error:
                refused.append(f"! {move.unit} will not go: {error.message}")
        return [*changes(before, after), *refused]

    def exclusive(self, plan: Plan) -> list[str]:
        """Workloads that would have to be stopped and started, which nobody does."""
        going = {n for m in plan.moves if self.ways.way(m).way == "by hand" for n in m.workloads}
        rows = self.director.topology.rows("workload")
        return [row["name"] for row in rows if row["name"] in going and row.get("kind") != "shared"]

    def moves(self, workload: str, order: str = "") -> str:
        """Why nobody else may move it now, but on ``order`` of an evacuation; "": nothing is against it."""
        for one in self.known.values():
            if one.id == order:
                continue
            steps = one.of("waiting", "moving") if one.state in ("running", "stopped") else one.of("moving")
            if any(workload in step.workloads for step in steps):
                return f"evacuation {one.id} moves it"
        return ""

    async def acquainted(self) -> None:
        """Until every node was heard, or has had the time: before that nobody knows who is there."""
        rest = self._began + self.director.settings.stale_after_s - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(rest, 0)):
                while any(node.heard_s is None for node in self.director.nodes.values()):
                    await self.director.judged()

    def check(self, ask: Ask) -> None:
        """Raises Refused for what is not there, and for what is being left already."""
        topology = self.director.topology
        ends = [name for name, row in topology.nodes.items() if row.endpoint]
        sites = list(topology.by_name["site"])
        if (ask.site == "") == (ask.node == ""):
            raise Refused("what is left?", hint="name a site, or a node with --node")
        for site in (*([ask.site] if ask.site else []), *ask.avoid):
            if site not in sites:
                raise Refused(f"there is no site {site!r}", hint=f"known: {', '.join(sites) or 'none'}")
        if ask.node and ask.node not in ends:
            text = f"there is no node {ask.node!r} that is an end point"
            raise Refused(text, hint=f"known: {', '.join(ends) or 'none'}")

    # ---- changing -------------------------------------------------------------

    async def propose(self, ask: Ask, who: str, why: str, episode: str = "") -> Evacuation:
        """Kept, with its plan, until somebody answers. Raises Refused."""
        self.check(ask)
        await self.acquainted()
        plan = await self.plan(ask)
        for one in self.known.values():
            if one.state in record.OPEN and (one.site, one.node) == (ask.site, ask.node):
                hint = f"ipshare director evacuations {one.id}"
                raise Refused(f"{one.what} is being left already: {one.id} is {one.state}", hint=hint)
        if not plan.moves and not plan.stays:
            raise Refused(f"nothing runs at {ask.site or ask.node}", hint="it is left already")
        name = episode or self._name(ask)
        new = Evacuation(name, ask.site, ask.node, ask.avoid, who, why, self._now(), episode)
        new = record.planned(new, plan, self._way).noted(
            self._now(), f"proposed by {who}: {why or 'no reason given'}"
        )
        await self._put(new)
        log.warning("evacuation %s is proposed by %s: %s", name, who, why)
        return new

    async def answer(self, id_: str, good: bool, who: str, why: str) -> Evacuation:
        """A proposal is approved and begins, or is refused for good. Raises Refused."""
        one = self.one(id_)
        if one.state != "proposed":
            self._not(one, "answered", "ipshare director proposals")
        word = "approved" if good else "refused"
        new = replace(one, state="running" if good else "refused", answered_by=who, answer=why)
        await self._put(new.noted(self._now(), f"{word} by {who}: {why or 'no reason given'}"))
        log.warning("evacuation %s is %s by %s: %s", id_, word, who, why)
        if good:
            self._spawn(id_)
        return self.known[id_]

    async def over(self, id_: str, why: str) -> None:
        """A proposal that nobody answered does not count any more."""
        await self._put(replace(self.one(id_), state="over").noted(self._now(), why))

    async def stop(self, id_: str, who: str) -> Evacuation:
        """No further batch begins; what is under way is seen through."""
        if (one := self.one(id_)).state != "running":
            self._not(one, "stopped")
        await self._put(replace(one, state="stopped").noted(self._now(), f"stopped by {who}"))
        return self.known[id_]

    async def go_on(self, id_: str, who: str) -> Evacuation:
        """One that was stopped, or ended with something left: what failed is tried again."""
        if (one := self.one(id_)).state not in ("stopped", "incomplete"):
            self._not(one, "continued")
        await self._put(record.again(one).noted(self._now(), f"continued by {who}"))
        self._spawn(id_)
        return self.known[id_]

    async def abort(self, id_: str, who: str) -> Evacuation:
        """It ends for good, as ``stop``. What was moved stays where it is."""
        if (one := self.one(id_)).state not in ("running", "stopped"):
            self._not(one, "aborted")
        await self._put(replace(one, state="aborted").noted(self._now(), f"aborted by {who}"))
        return self.known[id_]

    def one(self, id_: str) -> Evacuation:
        if id_ not in self.known:
            raise Refused(f"there is no evacuation {id_!r}", hint="ipshare director evacuations")
        return self.known[id_]

    async def ended(self, id_: str) -> Evacuation:
        """When nothing of it is under way any more."""
        while True:
            task = self._tasks.get(id_)
            if task is not None and not task.done():
                await asyncio.wait([task])
            elif self.one(id_).state == "running":  # it is being written down, and begins then
                await self.director.judged()
            else:
                return self.one(id_)

    # ---- inside ---------------------------------------------------------------

    def _not(self, one: Evacuation, what: str, hint: str = "ipshare director evacuations") -> NoReturn:
        raise Refused(f"{one.id} cannot be {what}: it is {one.state}", hint=hint)

    def _spawn(self, id_: str) -> None:
        if id_ not in self._tasks or self._tasks[id_].done():
            self._tasks[id_] = asyncio.create_task(self._run(id_), name=f"evacuation {id_}")

    async def _run(self, id_: str) -> None:
        while True:
            try:
                goes_on = await self._round(id_)
                self.trouble = ""
                if not goes_on and (id_ not in self.known or self.known[id_].state != "running"):
                    return  # somebody may have continued it meanwhile
            except Exception as error:
                text = error.message if isinstance(error, IpshareError) else repr(error)
                self.trouble = f"evacuation {id_}: {text}"
                log.error("%s", self.trouble, exc_info=not isinstance(error, IpshareError))
                if self.director.superseded:
                    return
                await asyncio.sleep(self.director.settings.interval_s)

    async def _round(self, id_: str) -> bool:
        """A batch; False: there is nothing to do any more."""
        one, seen = self.known[id_], Seen(self.director.number)
        moving = one.of("moving")
        if not moving:
            await self.acquainted()
            seen = Seen(self.director.number)
            plan = await self.plan(Ask(one.site, one.node, one.avoid))
            one = self.known[id_]
            if one.state != "running":
                return False
            one = record.planned(one, plan, self._way)
            moving = tuple(replace(step, state="moving") for step in record.batch(one, self.settings.at_once))
            if not moving:
                one = record.ended(one)
                await self._put(one.noted(self._now(), _summary(one)))
                log.warning("evacuation %s: %s", id_, _summary(one))
                return await self._prune()
            await self._put(record.stepped(one, moving))
        results = await asyncio.gather(*(self._move(one, step, seen) for step in moving))
        new = [self._stepped(step, moved) for step, moved in zip(moving, results, strict=True)]
        one = self.known[id_]
        for step, result in zip(new, results, strict=True):
            text = f"{step.unit}, {step.source} to {step.target}: {result.outcome}"
            one = one.noted(self._now(), text + (f", {result.why}" if result.why else ""))
            log.warning("evacuation %s: %s", id_, one.events[-1].text)
        await self._put(record.stepped(one, [*new, *record.failed_together(new)]))
        if any(result.outcome == "again" for result in results):
            await asyncio.sleep(self.director.settings.interval_s)  # what was in the way may be still
        return True

    async def _move(self, one: Evacuation, step: Step, seen: Seen) -> Moved:
        why = f"evacuation {one.id}: {step.unit} from {step.source} to {step.target}"
        held = next((text for name in step.workloads if (text := self.held(name))), "")
        if held and step.way != "live":  # else it may be this one's own
            return Moved("failed", held)
        try:
            who = one.answered_by or one.who
            ends = (step.workloads, step.source, step.target)
            return await self.mover.move(Group(*ends, who, why, step.way, step.bar, one.id), seen)
        except Exception as error:
            if self.director.bar():
                raise
            log.exception("%s", why)
            return Moved("failed", getattr(error, "message", repr(error)))

    def _way(self, move: Move) -> tuple[str, str]:
        going = self.ways.way(move)
        return going.way, going.bar

    def _stepped(self, step: Step, moved: Moved) -> Step:
        if moved.outcome == "again":
            return replace(step, state="waiting")
        new = replace(step, state=moved.outcome, outcome=moved.why, revision=moved.revision)
        if moved.target in ("", step.target):
            return new
        site = self.director.topology.by_name["node"].get(moved.target, {}).get("site", "")
        return replace(new, target=moved.target, target_site=site)

    async def _put(self, one: Evacuation) -> None:
        """What cannot be kept is not so."""
        before, store = self.known.get(one.id), self.director.store
        self.known[one.id] = one
        try:
            await self.director.work(store.put_note, self.director.term, PREFIX + one.id, record.to_text(one))
            self.director.tell()
        except IpshareError:
            if self.known[one.id] is one:
                if before is None:
                    del self.known[one.id]
                else:
                    self.known[one.id] = before
            raise

    async def _prune(self) -> bool:
        over = [one.id for one in self.known.values() if one.state not in record.OPEN]
        for name in over[: max(0, len(over) - MOST_ENDED)]:
            del self.known[name]
            await self.director.work(self.director.store.put_note, self.director.term, PREFIX + name, "")
        return False

    def _name(self, ask: Ask) -> str:
        at = int(self._wall())
        while f"{ask.site or ask.node}@{at}" in self.known:
            at += 1
        return f"{ask.site or ask.node}@{at}"

    def _now(self) -> str:
        return datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")


def _summary(one: Evacuation) -> str:
    done, failed = len(one.of("done")), len(one.of("failed"))
    return f"{one.state}: {done} moved, {failed} failed, {len(one.stays)} had nowhere to go"
