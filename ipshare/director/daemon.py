"""daemon: the director's loop: a task for each node, one place where facts change, one where a revision
begins.

A node's task looks at its node every interval, and at once when something is to be sent; whether something is
says ipshare.director.rollout from the facts of all nodes. What a node says of itself is believed over what is
remembered; of one that is silent nothing is known but what it may have. Nothing is sent after a node has
shown the signature of a newer director; one that claims to have heard one and has none is silent. SIGTERM
ends the director alone: nodes go on with what they have.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ipshare.certs import terms
from ipshare.certs.contexts import Contexts
from ipshare.director import answers, render
from ipshare.director.config import Settings, problems_at
from ipshare.director.leading import Alone, Leading
from ipshare.director.link import Link, Silent
from ipshare.director.rollout import FINAL, Facts, Rollout, bases_of, outcome
from ipshare.director.seat import Sight
from ipshare.director.store import Kept, Overtaken, Revision, Store, now_text
from ipshare.director.topology import NodeRow, Topology
from ipshare.errors import ConfigError, IpshareError, Problem, Refused

log = logging.getLogger(__name__)
T = TypeVar("T")
SAVE_S = 0.2
"""What was learnt is written so long after, together. What may be out is written before it is sent."""
REST = 9
"""After all nodes were judged the next time waits so many times as long: whatever their number, a tenth of
the time goes into judging, and what many of them say at once is judged together."""


@dataclass
class Tended:
    """A node, as its task has it."""

    row: NodeRow
    link: Link
    kept: Kept = Kept()
    heard_s: float | None = None  # when it answered last
    announces: bool | None = None
    refused: str = ""
    refused_at: tuple[tuple[int, int], float] = ((0, 0), 0.0)  # which it was, and when
    trouble: str = ""
    asked: tuple[int, int] | None = None  # the (revision, step) that it was sent and has not answered
    told: dict[str, Any] = field(default_factory=dict)  # its last answer
    judged: Facts | None = None  # what was judged of it last
    kick: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Director:
    """``store``: where it remembers; ``leading``: whether it counts now. Everything but the store's work is
    in the event loop."""

    def __init__(
        self, settings: Settings, store: Store, least_term: int = 0, leading: Leading | None = None
    ) -> None:
        self.settings, self.store, self._least = settings, store, least_term
        self.leading: Leading = leading or Alone()
        self._contexts = Contexts(settings.files, server=False)
        self._signer = terms.Signer(settings.files)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._changing = asyncio.Lock()
        self._unsaved: set[str] = set()
        self._outcomes: dict[tuple[int, str, str], str] = {}
        self._saving: asyncio.Task[None] | None = None
        self._unsure: asyncio.Task[None] | None = None  # whether a revision was written
        self._judging = False
        self._rested_s = 0.0  # from when on the next judgement may be
        self._heard = asyncio.Event()  # set at the next judgement
        self.term = 0
        self.revision: Revision | None = None
        self.rollout: Rollout | None = None
        self.nodes: dict[str, Tended] = {}
        self.wanted: dict[str, tuple[int, str]] = {}
        self.superseded = ""
        self.trouble = ""
        self.withdrew: Callable[[str], bool] = lambda _node: False
        """Whether a node that is silent announces nothing any more: ipshare.director.warden knows."""

    async def start(self) -> None:
        """A new term begins; what the store has is rolled out. Raises IpshareError."""
        self._contexts.current()
        self.term = await self.work(self.store.begin, self._least)
        self.leading.begun(self.term)
        latest = await self.work(self.store.latest)
        if latest is not None:
            kept = await self.work(self.store.facts)
            await self._adopt(latest, kept)
        log.info("director %s: term %d, revision %d", self.settings.name, self.term, self.number)

    async def follow(self, sight: Sight) -> None:
        """As a standby: what the store has is shown, and nobody is tended. Raises IpshareError."""
        if sight.revision != self.number and (latest := await self.work(self.store.latest)) is not None:
            self.rollout = await self._planned(latest.number, latest.topology, {}, latest.bases)
            self.revision = latest

    async def close(self) -> None:
        for node in self.nodes.values():
            await self._leave(node)
        for task in (self._saving, self._unsure):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._save_now()
        self._worker.shutdown()

    @property
    def number(self) -> int:
        """Of the revision that counts; 0: there is none."""
        return self.revision.number if self.revision is not None else 0

    @property
    def topology(self) -> Topology:
        return self.revision.topology if self.revision is not None else Topology()

    def bar(self) -> str:
        """Why it may not change or send anything now; "": it may."""
        return self.superseded or self.leading.bar() or ("" if self.term else "it has not begun a term yet")

    def refuse_if_barred(self) -> None:
        if why := self.bar():
            raise Refused(why, hint="ask the director that leads: ipshare director apply, on its machine")

    async def work(self, job: Callable[..., T], *arguments: Any) -> T:
        """In the one thread that has the store."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, job, *arguments)

    # ---- a new revision -------------------------------------------------------

    async def planned(self, topology: Topology) -> Rollout:
        """What would be done for it. Raises ConfigError: what nodes would have against it."""
        kept = await self.work(self.store.facts)
        kept |= {name: node.kept for name, node in self.nodes.items()}
        return await self._planned(self.number + 1, topology, kept)

    async def change(
        self, wanted: Topology | Callable[[Topology], Topology], who: str, why: str, expect: int | None = None
    ) -> bool:
        """``wanted`` is so from now on, or what it makes of what is so when its turn comes; False: it was so
        before. ``expect``: the revision that the caller has seen; Refused where it is another one."""
        async with self._changing:
            self.refuse_if_barred()
            if self._unsure is not None and not self._unsure.done():
                raise Refused(
                    f"the store has not said yet whether it has a revision {self.number + 1}",
                    hint="ipshare director status, then again",
                )
            if expect is not None and expect != self.number:
                raise Refused(
                    f"the revision is {self.number}, not {expect}", hint="look at what came, then again"
                )
            topology = wanted if isinstance(wanted, Topology) else wanted(self.topology)
            if topology == self.topology and self.revision is not None:
                return False
            rollout = await self.planned(topology)
            number = self.number + 1
            made = Revision(number, self.term, who, why, now_text(), topology, rollout.numbers)
            kept = self._kept_with(number, topology)
            try:
                await self.work(self.store.add, made, kept)
            except IpshareError as error:
                self.trouble = error.message
                self._unsure = asyncio.create_task(self._find_out())
                raise
            log.warning("revision %d by %s: %s", number, who, why or "no reason given")
            await self._adopt(made, kept, rollout)
            return True

    def _kept_with(self, number: int, topology: Topology) -> dict[str, Kept]:
        """What is known of nodes from when revision ``number`` counts."""
        kept = {}
        for name, row in topology.nodes.items():
            had = self.nodes[name].kept if name in self.nodes else Kept()
            kept[name] = replace(had, may=had.may | {number}) if row.distribution else had
        return kept

    async def _find_out(self) -> None:
        """Whether a revision that was to be written is there: then it counts."""
        while True:
            await asyncio.sleep(self.settings.interval_s)
            with contextlib.suppress(IpshareError):
                latest = await self.work(self.store.latest)
                self.trouble = ""
                if latest is not None and latest.number > self.number and latest.term == self.term:
                    log.warning("revision %d was written", latest.number)
                    await self._adopt(latest, self._kept_with(latest.number, latest.topology))
                return

    async def _planned(
        self, number: int, topology: Topology, kept: Mapping[str, Kept], bases: tuple[int, ...] | None = None
    ) -> Rollout:
        if bases is None:
            bases = bases_of({name: Facts(may=one.may) for name, one in kept.items()}, topology.nodes, number)
        found = [await self.work(self.store.revision, base) for base in bases]
        there = [one for one in found if one is not None]
        rollout = Rollout(number, topology, [b.topology for b in there], tuple(b.number for b in there))
        return await asyncio.to_thread(_judged, rollout)

    async def _adopt(
        self, revision: Revision, kept: Mapping[str, Kept], rollout: Rollout | None = None
    ) -> None:
        if rollout is None:
            rollout = await self._planned(revision.number, revision.topology, kept, revision.bases)
        self.revision, self.rollout = revision, rollout
        for name in [
            name for name, node in self.nodes.items() if revision.topology.nodes.get(name) != node.row
        ]:
            await self._leave(self.nodes.pop(name))
        for name, row in revision.topology.nodes.items():
            if name not in self.nodes:
                node = Tended(row, Link(name, row.address, self._contexts))
                self.nodes[name] = node
                node.task = asyncio.create_task(self._tend(node), name=f"node {name}")
            self.nodes[name].kept = kept.get(name, self.nodes[name].kept)
            self.nodes[name].refused = ""
        self._judge_now()  # at once: a step of the revision before says nothing of this one

    async def _leave(self, node: Tended) -> None:
        if node.task is not None:
            node.task.cancel()
            await asyncio.gather(node.task, return_exceptions=True)
        node.link.close()

    # ---- one node -------------------------------------------------------------

    async def _tend(self, node: Tended) -> None:
        while True:
            node.kick.clear()
            try:
                await self._round(node)
            except IpshareError as error:
                node.trouble = error.message
            except Exception:
                log.exception("node %s: a round failed; it is tried again", node.row.name)
            if self.facts(node) != node.judged:
                self._judge()
            else:
                self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.interval_s):
                    await node.kick.wait()

    async def _round(self, node: Tended) -> None:
        step = self._due(node)
        if step is None:
            self._learn(node, await node.link.ask("assigned", self.settings.stale_after_s))
        else:
            await self._send(node, step)

    async def _send(self, node: Tended, step: int) -> None:
        assert self.rollout is not None, "something is due"
        number, text = self.rollout.revision, self.rollout.text(node.row.name, step)
        digest = self.rollout.digest(node.row.name, step)
        proof = self._signer.proof(self.term)
        words = {"number": [self.term, number, step], "digest": digest, "text": text, "proof": proof}
        node.asked = (number, step)
        try:
            answer = await node.link.ask("assign", self.settings.patience_s, self.bar, **words)
            self._learn(node, answer)
            node.refused = ""
        except Silent:
            raise
        except IpshareError as error:
            problems = getattr(error, "problems", ())
            if number != self.number:  # of a revision that does not count any more
                return
            node.refused = problems[0].message if problems else error.message
            node.refused_at = ((number, step), time.monotonic())
            node.heard_s = time.monotonic()
            self._outcomes[number, node.row.name, "refused"] = node.refused
            log.error("node %s refuses revision %d: %s", node.row.name, number, node.refused)
            self._learn(node, await node.link.ask("assigned", self.settings.stale_after_s))
        finally:
            node.asked = None

    def _due(self, node: Tended) -> int | None:
        """The step that it is to be sent now; None: nothing is."""
        return self._next(node) if self.rollout is not None and not self.bar() else None

    def _next(self, node: Tended) -> int | None:
        assert self.rollout is not None, "nodes come from a revision"
        step, _ = self.wanted.get(node.row.name, (-1, ""))
        target = (self.rollout.revision, step)
        if step < 0 or node.kept.has >= target:
            return None
        refused, when = node.refused_at
        if node.refused and refused == target and time.monotonic() - when < self.settings.patience_s:
            return None
        return step

    def _learn(self, node: Tended, told: dict[str, Any]) -> None:
        """What a node said of itself. Raises IpshareError for what cannot be understood."""
        told = answers.assigned(told)
        self._judge_terms(node.row.name, told)
        name, rollout = node.row.name, self.rollout
        node.heard_s, node.trouble, node.told, node.announces = time.monotonic(), "", told, told["announces"]
        assert rollout is not None, "nodes come from a revision"
        _, revision, step = told["has"]
        if revision > rollout.revision:
            revision, step = 0, FINAL
        elif revision == rollout.revision and told["digest"] != rollout.digest(name, step):
            revision, step = 0, FINAL  # of another store, or rendered by another version
        may = node.kept.may
        if not may or ((revision, step) == (rollout.revision, FINAL) and revision == max(may)):
            may = frozenset([revision]) - {0}
        kept = Kept((revision, step), may)
        if kept != node.kept:
            node.kept = kept
            self._unsaved.add(name)
            if kept.has == (rollout.revision, FINAL):
                self._outcomes[rollout.revision, name, "acked"] = ""
            self._save_soon()

    def _judge_terms(self, name: str, told: dict[str, Any]) -> None:
        """A later director that signed its term is believed, and nothing is sent any more. Raises
        IpshareError for one that the node alone tells of: that is the node's own trouble."""
        claimed = max(told["has"][0], told["seen"][0])
        if claimed <= self.term:
            return
        if not terms.is_proven(claimed, told["proof"] or "", self.settings.files):
            raise IpshareError(
                f"it claims to have heard term {claimed}, which no director has signed",
                hint="if a store was lost, start with --least-term; else revoke the node's certificate",
            )
        self.superseded = f"node {name} has heard a director of term {claimed}"
        log.error("%s, this one has %d: nothing is sent any more", self.superseded, self.term)

    # ---- all nodes ------------------------------------------------------------

    def facts(self, node: Tended) -> Facts:
        heard = node.heard_s is not None and time.monotonic() - node.heard_s < self.settings.stale_after_s
        announces, withdrew = node.announces if heard else None, self.withdrew(node.row.name)
        return Facts(node.kept.has, node.kept.may, heard, node.refused, announces, withdrew)

    def _judge(self) -> None:
        """Soon, once for all that was learnt until then."""
        if not self._judging:
            self._judging = True
            asyncio.get_running_loop().call_at(self._rested_s, self._judge_now)

    def _judge_now(self) -> None:
        """Who shall have what now; who has something to be sent is kicked."""
        self._judging = False
        if self.rollout is None:
            return
        began_s = time.thread_time()
        facts = {name: self.facts(node) for name, node in self.nodes.items()}
        self.wanted = self.rollout.wanted(facts)
        barred = bool(self.bar())
        for name, node in self.nodes.items():
            node.judged = facts[name]
            step = None if barred else self._next(node)
            if step is not None and node.asked != (self.rollout.revision, step):
                node.kick.set()
        took_s = time.thread_time() - began_s
        self._rested_s = asyncio.get_running_loop().time() + took_s * REST
        self._tell()

    def _tell(self) -> None:
        """Who waits for news looks again."""
        self._heard.set()
        self._heard = asyncio.Event()

    def outcomes(self) -> dict[str, str]:
        """Of the revision that counts, by node: acked, refused, silent, working, waiting."""
        return {
            name: outcome(self.facts(node), self.wanted.get(name, (-1, "")), self.number)
            for name, node in self.nodes.items()
        }

    def _is_settled(self) -> bool:
        final = (self.number, FINAL)  # asked after each answer of a node: what is cheap goes first
        return all(node.kept.has == final for node in self.nodes.values()) and set(
            self.outcomes().values()
        ) <= {"acked"}

    async def settled(self, number: int, timeout_s: float) -> bool:
        """Until every node has acked revision ``number``, or a later one came; False: not by then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.number <= number and not self._is_settled():
                    await self._heard.wait()
                return True
        return False

    async def judged(self) -> None:
        """Until what is known of nodes was judged again."""
        await self._heard.wait()

    def tell(self) -> None:
        """Something beside it has news: who waits for ``judged`` looks again."""
        self._tell()

    def link(self, node: str, address: str) -> Link:
        """A connection of its own, for who asks more than a node's task does. The caller closes it."""
        return Link(node, address, self._contexts)

    # ---- the store ------------------------------------------------------------

    def _save_soon(self) -> None:
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save())

    async def _save(self) -> None:
        await asyncio.sleep(SAVE_S)
        while self._unsaved or self._outcomes:  # more may come while it is written
            if not await self._save_now():
                await asyncio.sleep(self.settings.interval_s)

    async def _save_now(self) -> bool:
        """False: it has to be tried again."""
        facts = {name: self.nodes[name].kept for name in self._unsaved if name in self.nodes}
        outcomes, self._outcomes = self._outcomes, {}
        self._unsaved = set()
        if not facts and not outcomes:
            return True
        try:
            await self.work(self.store.keep, self.term, facts, outcomes)
            self.trouble = ""
        except IpshareError as error:  # what is remembered is then more than what is: the safe side
            if self.trouble != error.message:
                log.error("%s", error.message)
            self.trouble = error.message
            if not isinstance(error, Overtaken):  # else it is another's business
                self._unsaved |= set(facts)
                self._outcomes = outcomes | self._outcomes
                return False
        return True


def _judged(rollout: Rollout) -> Rollout:
    """Rendered, with nodes found that cannot have both revisions at once. Raises ConfigError: what one of
    them would have against the new one."""
    problems: list[Problem] = []
    unsafe: set[str] = set()
    seen: set[tuple[str | None, bool]] = set()
    for name, node in rollout.new.nodes.items():
        kind = (node.endpoint, node.distribution is None)
        if node.endpoint is None or kind in seen:
            continue
        seen.add(kind)
        if rollout.is_one_step(name):
            continue
        if problems_at(rollout.new, name, render.make(rollout.bases, rollout.new, node)):
            problems += problems_at(rollout.new, name, render.final(rollout.new, node))
            unsafe |= {other for other, row in rollout.new.nodes.items() if row.endpoint == node.endpoint}
    if problems:
        raise ConfigError(problems)
    judged = replace(rollout, unsafe=frozenset(unsafe)) if unsafe else rollout
    assert judged.digests is not None, "rendered here, beside the event loop"
    assert judged.gains is not None, "and found"
    return judged
