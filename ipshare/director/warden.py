"""warden: the director's look after health and exclusive workloads: asks nodes, judges, keeps, acts.

A task for each node sends it what to probe, its leases and what it has to stop, and hears what it sees. One
task judges: ipshare.director.health says what is down, ipshare.director.failover what follows,
ipshare.exclusive.grants who has a workload. What changed is in the store before anything comes of it. A lease
leaves only after the store said, later than the reading it counts from, that this director still counts. A
failover ends in Director.change.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from ipshare.agent.confirm import SystemClock
from ipshare.certs.contexts import Contexts
from ipshare.director import answers, elsewhere, failover, listening, pace, probing
from ipshare.director.attended import Attended, Request, boottime_s, troubles
from ipshare.director.daemon import Director
from ipshare.director.failover import Case, Facts
from ipshare.director.fencing import Fences
from ipshare.director.health import Track, suspects, tracked, verdicts
from ipshare.director.link import Link
from ipshare.director.moves import moved
from ipshare.director.noted import BEGAN, NOTES, read
from ipshare.director.rollout import FINAL
from ipshare.director.schema_health import Failover, Watch
from ipshare.director.staying import Point, gone_s, may_withdraw
from ipshare.director.store import now_text
from ipshare.errors import IpshareError, Refused
from ipshare.exclusive import grants
from ipshare.exclusive.grants import Grant, Seen

log = logging.getLogger(__name__)
DRIFT = 0.01
"""Where there is no [failover] to say it."""


class Warden:
    """Of ``director``, by ``watch``. ``held``: why somebody else moves a workload now, "": nobody does."""

    def __init__(
        self, director: Director, watch: Watch, held: Callable[[str], str] = lambda _workload: ""
    ) -> None:
        self.director, self.watch, self._held = director, watch, held
        self._contexts = Contexts(director.settings.files, server=False)
        self.nodes: dict[str, Attended] = {}
        self.tracks: dict[str, Track] = {}
        self.grants: dict[str, Grant] = {}
        self.cases: dict[str, Case] = {}
        self._coming: dict[str, Case] = {}  # on their way to the store
        self._barred: dict[str, str] = {}  # unit -> why it is down and no case
        self._suspected: frozenset[str] = frozenset()
        self._began: list[float] = []  # boottime_s
        self._boot = SystemClock().boot_id()
        self._counted_s = dict[str, float]()  # workload -> when the newest reading came that a lease has
        self._arranged_s: dict[str, tuple[object, float]] = {}  # unit -> its arrangement, since when it is so
        self._ran: dict[str, int] = {}  # workload -> epoch in which it was said to run
        self._fences = Fences(self.fenced)
        self._news = asyncio.Event()
        self._changing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._start_s = 0.0
        self._soonest_s = math.inf  # until something has been down for long enough

    async def start(self) -> None:
        """Goes on where the store says that somebody was."""
        self._start_s = boottime_s()
        self.director.withdrew = self.withdrew
        noted = read(await self.director.work(self.director.store.notes, NOTES))
        self.grants, self.cases = noted.grants, noted.cases
        if noted.began:
            self._began = pace.of_text(noted.began, self._boot, self._start_s)
        self._task = asyncio.create_task(self._judging(), name="warden")

    async def close(self) -> None:
        await self._fences.close()
        tasks = [self._task, *(node.task for node in self.nodes.values())]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)
        for node in self.nodes.values():
            await node.ear.close()
            node.link.close()

    # ---- nodes ------------------------------------------------------------------

    async def _follow(self) -> None:
        """A task for each node of the topology."""
        rows = self.director.topology.nodes
        for name in [n for n, one in self.nodes.items() if n not in rows or rows[n].address != one.address]:
            gone = self.nodes.pop(name)
            assert gone.task is not None, "each node has one"
            gone.task.cancel()
            await gone.ear.close()
            gone.link.close()
        for name, row in rows.items():
            if name not in self.nodes:
                links = [Link(name, row.address, self._contexts) for _ in range(2)]
                node = self.nodes[name] = Attended(name, row.address, links[0], self._ear(links[1]))
                node.task = asyncio.create_task(self._attend(node), name=f"attend {name}")

    def _ear(self, link: Link) -> listening.Ear:
        def listens() -> bool:
            return link.name in self.nodes and self.nodes[link.name].probes and not self.director.bar()

        return listening.Ear(link, self._news.set, listens, self.director.settings.interval_s, self._stale_s)

    async def _attend(self, node: Attended) -> None:
        while True:
            if not self.director.bar():
                try:
                    await self._ask(node)
                except IpshareError as error:
                    node.trouble = error.message
                except Exception:
                    log.exception("node %s: a look failed; it is tried again", node.name)
                self._news.set()
            await asyncio.sleep(self.director.settings.interval_s)

    async def _ask(self, node: Attended) -> None:
        stamp, heard_s = node.stamp, node.heard_s
        if any(grant.is_held and grant.node == node.name for grant in self.grants.values()):
            await self.director.work(self.director.store.keep, self.director.term, {}, {})  # or Refused
        probes = probing.probes(self.director.topology, self.watch.health, node.name)
        holds = list(self._holds(node.name, stamp, heard_s))
        stops = [
            {"name": name, "epoch": grant.epoch}
            for name, grant in self.grants.items()
            if grant.leaving and grant.node == node.name
        ]
        words: Request = {"term": self.director.term, "probes": probes, "holds": holds, "stops": stops}
        if stamp is not None:
            words["heard"] = self._heard(node, stamp)
        said = answers.seen(await node.link.ask("watch", self.director.settings.stale_after_s, **words))
        node.withdraws, node.stays = said["may_withdraw"] is True, said["may_withdraw"] is False
        node.heard_s, node.said, node.trouble = boottime_s(), said, ""
        node.ear.take(said, node.heard_s)
        node.stamp = (said["clock"]["boot"], said["clock"]["ns"])

    def _heard(self, node: Attended, stamp: tuple[str, int]) -> Request:
        """Since when it hears this director, by its own clock, and whether it may withdraw without it."""
        points = {one.name: self._point(one) for one in self.nodes.values()}
        told: Request = {
            "boot": stamp[0],
            "since_ns": stamp[1],
            "may_withdraw": may_withdraw(node.name, points),
        }
        node.stays = node.stays and not told["may_withdraw"]  # before it leaves
        node.withdraws = node.withdraws and told["may_withdraw"]
        tended, rollout = self.director.nodes.get(node.name), self.director.rollout
        newest = (rollout.revision, FINAL) if rollout is not None else None
        return told | {"current": tended is not None and tended.kept.has == newest}

    def _point(self, node: Attended) -> Point:
        row = self.director.topology.nodes.get(node.name)
        heard = self.is_heard(node.name, boottime_s()) and row is not None and row.distribution is not None
        return Point(heard and node.said is not None and node.said["announces"] is True, node.stays)

    def withdrew(self, name: str) -> bool:
        """Whether a node that is not heard has withdrawn by itself by now."""
        node = self.nodes.get(name)
        after_s = node.said["withdraw_after_s"] if node is not None and node.said is not None else None
        if node is None or after_s is None or not node.withdraws:
            return False
        drift = self.watch.failover.drift if self.watch.failover is not None else DRIFT
        return boottime_s() - node.heard_s >= gone_s(after_s, drift)

    def _holds(self, node: str, stamp: tuple[str, int] | None, heard_s: float) -> Iterator[Request]:
        """Leases that count from ``stamp``, which came at ``heard_s``."""
        if stamp is None or self.watch.failover is None:
            return
        rows = self.director.topology.by_name["workload"]
        for name, grant in self.grants.items():
            if grant.is_held and grant.node == node and name in rows:
                self._counted_s[name] = max(self._counted_s.get(name, 0.0), heard_s)
                yield {
                    "name": name,
                    "epoch": grant.epoch,
                    "boot": stamp[0],
                    "since_ns": stamp[1],
                    "lease_s": self.watch.failover.lease,
                    "stop_s": self.watch.failover.stop_time,
                    "addresses": list(rows[name].get("addresses", ())),
                }

    def is_heard(self, node: str, now_s: float) -> bool:
        one = self.nodes.get(node)
        return one is not None and one.said is not None and now_s - one.heard_s < self._stale_s

    @property
    def _stale_s(self) -> float:
        return self.director.settings.stale_after_s

    # ---- judging ----------------------------------------------------------------

    async def _judging(self) -> None:
        while True:
            self._news.clear()
            try:
                await self._follow()
                async with self._changing:
                    await self._judge()
                if self.watch.failover is not None:
                    await self._act(boottime_s(), self.watch.failover)
            except IpshareError as error:
                log.error("warden: %s", error.message)
            except Exception:
                log.exception("warden: a judgement failed; it is tried again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self.director.settings.interval_s, self._soonest_s)):
                    await self._news.wait()

    async def _judge(self) -> None:
        now_s = boottime_s()
        self._look(now_s)
        if self.watch.failover is None or self.director.bar() or not self.director.number:
            return
        notes: dict[str, str] = {}
        cases = self._coming = self._cases(now_s, self.watch.failover, notes)
        held = self._granted(now_s, cases, notes)
        await self._note(notes)
        for name, grant in held.items():
            if grant.epoch != self.grants.get(name, Grant()).epoch:
                self._counted_s.pop(name, None)
                log.warning("workload %s: epoch %d at %s (%s)", name, grant.epoch, grant.node, grant.how)
        for unit, case in cases.items():
            if case != self.cases.get(unit):
                log.warning("failover of %s: %s: %s %s", unit, case.phase, case.why, case.note)
        self.cases, self.grants = cases, held

    def _look(self, now_s: float) -> None:
        """What is down, and since when."""
        topology, health = self.director.topology, self.watch.health
        places = probing.places(topology)
        observations = listening.heard((node.ear for node in self.nodes.values()), places)
        self._suspected = suspects(observations, now_s, health.stale)
        targets = probing.targets(topology, health)
        found = verdicts(targets, observations, now_s, stale_s=health.stale, quorum=health.quorum)
        self.tracks = tracked(self.tracks, found, now_s, flaps=health.flaps, half_life_s=health.half_life)

    def _cases(self, now_s: float, settings: Failover, notes: dict[str, str]) -> dict[str, Case]:
        """The next state of each; what changed goes into ``notes``."""
        began = pace.lately(self._began, now_s, settings.period)
        found: dict[str, Case] = {}
        self._barred, self._soonest_s = {}, math.inf
        left = {case.source for case in self.cases.values() if case.phase == "moving"}
        for unit, workloads in elsewhere.units(self.director.topology).items():
            case = self.cases.get(unit)
            facts = self._facts(unit, workloads, case, now_s)
            has_room = facts.at in left or len(began) < settings.limit  # all that leaves a node counts once
            rules = failover.Rules(settings.mode, settings.after, has_room)
            left_s = facts.left_s(rules)
            self._soonest_s = min(self._soonest_s, left_s if left_s > 0 else math.inf)
            why = next(filter(None, map(self._held, workloads)), "")
            if why and (case is None or case.phase != "moving"):
                if left_s <= 0:
                    self._barred[unit] = f"{facts.why}; no failover: {why}"
                continue
            after = failover.step(case, unit, facts, rules, now_text())
            if after is not None:
                found[unit] = after
                if after.phase == "moving" and facts.at not in left:
                    began += [now_s] if settings.mode == "automatic" else []
                    left.add(facts.at)
        for unit in set(found) | set(self.cases):
            if found.get(unit) != self.cases.get(unit):
                notes[f"case/{unit}"] = json.dumps(found[unit].to_json()) if unit in found else ""
        if began != self._began:
            notes[BEGAN] = pace.to_text(began, self._boot)
        self._began = began
        return found

    def _facts(self, unit: str, workloads: tuple[str, ...], case: Case | None, now_s: float) -> Facts:
        topology = self.director.topology
        at = topology.by_name["workload"][workloads[0]]["node"]
        arrangement = (at, tuple((self.grants.get(name), self._has_run(name)) for name in workloads))
        if self._arranged_s.get(unit, (None, 0.0))[0] != arrangement:
            self._arranged_s[unit] = (arrangement, now_s)
        down = list(self._down(unit, workloads, at, now_s))
        steady = [one for one in down if not one[2]] or down
        worst = max(steady, key=lambda one: one[0] - one[3], default=(None, "", False, None))
        able, to, nowhere = set[str](), "", ""
        if down or (case is not None and case.phase == "moving"):  # else nobody asks where to: it takes long
            able = {name for name in topology.nodes if self._is_able(name, workloads, now_s)}
            to, nowhere = elsewhere.place(topology, at, workloads, able - {at})
        target = case.target if case is not None else ""
        return Facts(
            workloads,
            at,
            worst[0],
            "; ".join(one[1] for one in down),
            bool(down) and all(one[2] for one in down),
            to,
            nowhere,
            not target or target in able or self._may_come_back(target, now_s),
            bool(target) and all(self._runs(name, target, now_s) for name in workloads),
            worst[3],
        )

    def _down(
        self, unit: str, workloads: tuple[str, ...], at: str, now_s: float
    ) -> Iterator[tuple[float, str, bool, float]]:
        """(for how long in this arrangement, why, suppressed, how long it has to be) of what is down."""
        assert self.watch.failover is not None, "who acts has the table"
        names = [probing.endpoint_key(self.director.topology.nodes[at].endpoint or "")]
        for workload in workloads:
            row = self.nodes[at].row(workload) if self.is_heard(at, now_s) else None
            grant = self.grants.get(workload)
            is_being_moved = self._is_exclusive(workload) and (grant is None or not grant.is_held)
            if not is_being_moved and not (row is not None and row["state"] == "starting"):
                names.append(probing.workload_key(workload))
        quick = set[str]() if any(map(self._is_exclusive, workloads)) else {names[0]}
        quick &= probing.by_echo(self.director.topology, self.watch.health)
        for name in names:
            one = self.tracks.get(name)
            if one is not None and one.verdict.word == "down":
                since_s = max(one.since_s, self._arranged_s[unit][1])
                after_s = self.watch.failover.shared_after if name in quick else self.watch.failover.after
                yield now_s - since_s, f"{name} is down ({one.verdict.why})", one.is_suppressed, after_s

    def _is_down(self, node: str) -> bool:
        row = self.director.topology.nodes.get(node)
        one = self.tracks.get(probing.endpoint_key(row.endpoint or "")) if row is not None else None
        return row is None or (one is not None and one.verdict.word == "down")

    def _is_able(self, node: str, workloads: tuple[str, ...], now_s: float) -> bool:
        """It is heard, not down, and has what the workloads need."""
        row = self.director.topology.nodes[node]
        if row.endpoint is None or not self.is_heard(node, now_s) or self._is_down(node):
            return False
        needed = [name for name in workloads if self._is_exclusive(name)]
        return all(self.nodes[node].row(name) is not None for name in needed)

    def _may_come_back(self, node: str, now_s: float) -> bool:
        """Not heard, but not for long, and nobody says that it is down."""
        one, failover = self.nodes.get(node), self.watch.failover
        if one is None or failover is None or self.is_heard(node, now_s) or self._is_down(node):
            return False
        return now_s - max(one.heard_s, self._start_s) < self._stale_s + failover.after

    def _is_exclusive(self, workload: str) -> bool:
        row = self.director.topology.by_name["workload"].get(workload)
        return row is not None and row.get("kind", "exclusive") == "exclusive"

    def _runs(self, workload: str, node: str, now_s: float) -> bool:
        if not self._is_exclusive(workload):
            return True
        grant, row = self.grants.get(workload), self.nodes[node].row(workload) if node in self.nodes else None
        if grant is None or row is None or not self.is_heard(node, now_s):
            return False
        return (
            grant.is_held and (grant.node, grant.epoch) == (node, row["epoch"]) and row["state"] == "running"
        )

    def runs(self, workload: str, node: str) -> bool:
        """Whether it runs there now, as far as anybody knows: an exclusive one on its lease."""
        return self._runs(workload, node, boottime_s())

    def has(self, workload: str, node: str) -> bool | None:
        """Whether the node has a [[workload]] of that name; None: it has said nothing yet."""
        one = self.nodes.get(node)
        return one.row(workload) is not None if one is not None and one.said is not None else None

    def busy(self, workload: str, _order: str = "") -> str:
        """Why nobody else may move it now; "": nothing is against it."""
        for case in (*self._coming.values(), *self.cases.values()):
            if workload in case.workloads:
                return f"its failover from {case.source} is open ({case.phase}): {case.why}"
        grant = self.grants.get(workload)
        if grant is not None and grant.leaving and any(self.has(workload, name) for name in self.nodes):
            return f"its lease at {grant.node} is not given back yet"
        return ""

    def _has_run(self, workload: str) -> bool:
        """Whether it was said to run on its present grant: from then on it counts how long it is down."""
        grant = self.grants.get(workload)
        row = self.nodes[grant.node].row(workload) if grant is not None and grant.node in self.nodes else None
        if grant is not None and row is not None and (row["epoch"], row["state"]) == (grant.epoch, "running"):
            self._ran[workload] = grant.epoch
        return grant is not None and self._ran.get(workload) == grant.epoch

    def _granted(self, now_s: float, cases: dict[str, Case], notes: dict[str, str]) -> dict[str, Grant]:
        """The next record of each exclusive workload."""
        wanted = elsewhere.exclusive(self.director.topology, cases.values())
        found = dict[str, Grant]()
        for name in set(wanted) | set(self.grants):
            before = self.grants.get(name, Grant())
            if self._held(name):  # it goes alive: nobody gets a lease of it, or loses one
                found |= {name: before} if name in self.grants else {}
                continue
            rows = {one.name: one.row(name) for one in self.nodes.values()}
            highest = answers.highest(row["epoch"] for row in rows.values() if row)
            row = rows.get(before.node) if self.is_heard(before.node, now_s) else None
            seen = Seen(row["epoch"], row["released"], row["state"]) if row else None
            quiet_s = now_s - max(self._counted_s.get(name, 0.0), self._start_s)
            after = grants.step(before, wanted.get(name, ""), seen, quiet_s, self.watch.wait_s, highest)
            if name in wanted or after.node:
                found[name] = after
            if found.get(name) != self.grants.get(name):
                notes[f"grant/{name}"] = json.dumps(asdict(after)) if name in found else ""
        return found

    def troubles(self) -> list[str]:
        """What the director's status says of it."""
        said = [f"{name} sees nothing up anywhere, and is not counted" for name in sorted(self._suspected)]
        said += [f"{unit} is down: {why}" for unit, why in self._barred.items()]
        return [*said, *troubles(self.nodes, self.cases, self.grants)]

    async def _note(self, notes: dict[str, str]) -> None:
        """What others have to go on with; each by itself is as good as all together."""
        for key, text in notes.items():
            await self.director.work(self.director.store.put_note, self.director.term, NOTES + key, text)

    # ---- acting -----------------------------------------------------------------

    async def _act(self, now_s: float, settings: Failover) -> None:
        done = {}
        for unit, case in list(self.cases.items()):
            if case.phase != "moving":
                continue
            for name in case.workloads:
                self._fence(name, case, settings, now_s)
            if failover.is_done(case, self._facts(unit, case.workloads, case, now_s)):
                done[unit] = case
        if done and not await self._move(done):  # what is wrong with one keeps no other back
            for unit, case in done.items() if len(done) > 1 else ():
                await self._move({unit: case})

    async def _move(self, done: dict[str, Case]) -> bool:
        """One revision for all of them; False: it was not to be."""
        moves = {name: case.target for case in done.values() for name in case.workloads}
        how = {name: grant.how for name, grant in self.grants.items()}
        why = "; ".join(failover.reason(case, how) for case in failover.together(list(done.values())))
        number = self.director.number  # what comes meanwhile is not undone: then it is done again
        try:
            topology = moved(self.director.topology, moves)
            return await self.director.change(topology, "failover", why, number)
        except IpshareError as error:
            note = error.message.partition("\n")[0]
            self.cases |= {unit: replace(case, note=note) for unit, case in done.items()}
        return False

    def _fence(self, name: str, case: Case, settings: Failover, now_s: float) -> None:
        """Of a node that is not heard, and has not given it up."""
        grant, target = self.grants.get(name), self.nodes.get(case.target)
        if grant is None or not grant.leaving or grant.node != case.source or target is None:
            return
        if grant.fenced >= grant.epoch or self.is_heard(grant.node, now_s):
            return
        row = target.row(name)
        if settings.fence:
            self._fences.run_here(name, grant, settings, now_s)
        elif row is not None and row["can_fence"]:
            link, term = Link(target.name, target.address, self._contexts), self.director.term
            self._fences.run_there(name, grant, settings, now_s, link, term)

    async def fenced(self, name: str, epoch: int | None = None) -> Grant:
        """Nobody runs that epoch, says a fence command, or an operator: then None is the one that is left.
        Raises Refused: nobody is waited for."""
        async with self._changing:
            grant = self.grants.get(name, Grant(leaving=False))
            if not grant.leaving or not grant.epoch or epoch not in (None, grant.epoch):
                raise Refused(f"nobody has to give up {name!r}", hint="ipshare director failover show")
            grant = replace(grant, fenced=grant.epoch)
            await self._note({f"grant/{name}": json.dumps(asdict(grant))})
            self.grants[name] = grant
        self._news.set()
        return grant

    async def approve(self, unit: str) -> Case:
        """What is proposed is done. Raises Refused."""
        async with self._changing:
            case = self.cases.get(unit)
            if case is None or case.phase != "proposed":
                known = ", ".join(name for name, one in self.cases.items() if one.phase == "proposed")
                raise Refused(f"nothing is proposed for {unit!r}", hint=f"proposed: {known or 'nothing'}")
            if why := next(filter(None, map(self._held, case.workloads)), ""):
                raise Refused(f"{unit}: {why}", hint="ipshare migrate --list")
            case = failover.approved(case)
            await self._note({f"case/{unit}": json.dumps(case.to_json())})
            self.cases[unit] = case
        self._news.set()
        return case
