"""migrations: a director carries out ipshare.migration.machine: asks the two nodes what is due, writes down
what came of it, and goes on, a task for each migration.

Each state is in the store (a note, "migration/ID") before the next thing is done, so whoever directs next
begins with what was due; every request may come twice. A node that is silent is asked again, for as long as
it takes: what nobody knows is neither undone nor flipped. The flip is Director.change like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

from ipshare.director import fit
from ipshare.director.daemon import Director
from ipshare.director.link import Link, Silent
from ipshare.director.moves import moved
from ipshare.director.rollout import FINAL
from ipshare.director.topology import changes
from ipshare.errors import IpshareError, Refused
from ipshare.migration import machine
from ipshare.migration.machine import Event, Migration, Step

log = logging.getLogger(__name__)
NOTE = "migration/"
ASK_S = 20.0
"""How long a node may take for an answer: the check asks the adapter, which has limits of its own."""
NEWS_S = 10.0
"""How long a node holds an answer back that waits for news."""
MOST_OVER = 100
"""Migrations that are over and still shown."""
AGAIN_S, AGAIN_MAX_S = 0.2, 5.0


@dataclass
class Carried:
    """A migration, as its task has it."""

    state: Migration
    trouble: str = ""
    kick: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Migrations:
    """Of ``director``. ``busy``: functions of others that say why a workload may not move now, on whose order
    (of an evacuation, "": none), or ""."""

    def __init__(self, director: Director) -> None:
        self._director = director
        self._all: dict[str, Carried] = {}
        self._moving: dict[str, Carried] | None = None  # by workload, those that are not over; None: look
        self._news = asyncio.Event()
        self.busy: list[Callable[[str, str], str]] = []

    async def start(self) -> None:
        """What is not over goes on. Raises IpshareError."""
        notes = await self._director.work(self._director.store.notes, NOTE)
        for key in sorted(notes):
            try:
                state = machine.decoded(notes[key])
            except ValueError as error:
                log.error("note %s is not readable: %s", key, error)
                continue
            self._all[state.id] = Carried(state)
            self._moving = None
            self._carry(self._all[state.id])

    async def close(self) -> None:
        tasks = [one.task for one in self._all.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- asked for ------------------------------------------------------------------

    async def begin(self, workload: str, to: str, who: str, why: str, order: str = "") -> Migration:
        """``order``: of the evacuation that has it done. Raises Refused: why it cannot be. What nodes have
        against it shows afterwards."""
        known, state = self._intended(workload, to, who, why, order)
        if known is not None:
            return await self._put(known, state)
        one, self._moving = Carried(state), None
        self._all[state.id] = one
        try:
            return await self._put(one, state)
        except IpshareError:
            del self._all[state.id]
            self._moving = None
            raise

    async def plan(self, workload: str, to: str) -> dict[str, Any]:
        """What ``begin`` would do, and what the two nodes have against it; nothing is changed. Raises Refused
        as that does."""
        known, state = self._intended(workload, to, "", "")
        before, links = self._director.topology, dict[str, Link]()
        after = moved(before, dict.fromkeys(state.workloads, state.target))
        found: dict[str, Any] = {
            "workloads": list(state.workloads), "source": state.source, "target": state.target,
            "resumes": state.id if known is not None else None, "revision": self._director.number,
            "changes": list(changes(before, after)), "against": "", "notes": [],
        }  # fmt: skip
        if known is not None:  # its nodes were asked when it began
            return found
        try:
            _, more = await self._check(state, self._asker(state, links))
        finally:
            for link in links.values():
                link.close()
        return found | {"against": more.get("why", ""), "notes": list(more.get("notes", ()))}

    def _intended(
        self, workload: str, to: str, who: str, why: str, order: str = ""
    ) -> tuple[Carried | None, Migration]:
        """A new migration, or a split one that goes on. Raises Refused."""
        topology = self._director.topology
        if bar := self._director.bar():
            raise Refused(bar, hint="ask the director that leads")
        members = fit.together(topology, workload)
        for one in self._all.values():
            if one.state.is_over or not set(one.state.workloads) & set(members):
                continue
            if one.state.step is Step.SPLIT and to in (one.state.target, self._site(one.state.target)):
                return one, machine.resumed(one.state, who, time.time())
            raise Refused(
                f"{', '.join(one.state.workloads)} is in migration {one.state.id} to {one.state.target}",
                hint=f"ipshare migrate --cancel {one.state.id}",
            )
        self._check_free(members, order)
        target = fit.chosen(topology, members, to)
        source = topology.by_name["workload"][workload]["node"]
        moved(topology, dict.fromkeys(members, target))  # refused here rather than after it has moved
        now = time.time()
        return None, Migration(
            self._new_id(members[0]), members, source, target, who, why,
            times=(machine.Moment(now, "asked for"),), order=order,
        )  # fmt: skip

    async def cancel(self, which: str) -> Migration:
        """``which``: an id, or a workload. Raises Refused where there is no way back."""
        one = self._find(which)
        state = await self._put(one, machine.cancelled(one.state, time.time()))
        if state.step is Step.MIGRATING:
            with contextlib.suppress(IpshareError):  # said again until it is certain where it runs
                link = self._link(state.source)
                try:
                    await self._ask(link, "migrate_cancel", self._words(state, state.member))
                finally:
                    link.close()
        return state

    async def settled(self, which: str, timeout_s: float) -> Migration:
        """Until nothing is due any more, or for so long."""
        one = self._find(which)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while one.state.step not in machine.IDLE:
                    await self._news.wait()
        return one.state

    def holds(self, workload: str) -> str:
        """Why nobody else may move it now; "": nothing is against it."""
        m = self.under_way(workload)
        return f"migration {m.id} moves it" if m is not None else ""

    def under_way(self, workload: str) -> Migration | None:
        """The one that moves it, if one does."""
        if self._moving is None:  # asked for each workload at each judgement of the warden
            under_way = [one for one in self._all.values() if not one.state.is_over]
            self._moving = {name: one for one in under_way for name in one.state.workloads}
        one = self._moving.get(workload)
        return one.state if one is not None else None

    def now(self, id_: str) -> tuple[Migration, str]:
        """How it stands, and what is in its way."""
        return self._all[id_].state, self._all[id_].trouble

    async def news(self) -> None:
        """Until something came of one of them."""
        await self._news.wait()

    async def able(self, workloads: tuple[str, ...], target: str, order: str) -> tuple[str, tuple[str, ...]]:
        """Why they cannot go to node ``target`` alive, as the nodes and their adapters say now; "": they can,
        with notes on how. Nothing is done."""
        topology, links = self._director.topology, dict[str, Link]()
        if (known := self.under_way(workloads[0])) is not None:
            return "" if known.target == target else f"migration {known.id} moves it to {known.target}", ()
        source = topology.by_name["workload"][workloads[0]]["node"]
        m = Migration("check", workloads, source, target, "", "", order=order)
        try:
            moved(topology, dict.fromkeys(workloads, target))
            event, more = await self._check(m, self._asker(m, links))
        except IpshareError as error:
            return error.message, ()
        finally:
            for link in links.values():
                link.close()
        return (more["why"], ()) if event is Event.REFUSED else ("", tuple(more["notes"]))

    def all(self) -> list[tuple[Migration, str]]:
        """With what is in the way of each, the newest first."""
        found = [(one.state, one.trouble) for one in self._all.values()]
        return sorted(found, key=lambda pair: pair[0].times[0].at, reverse=True)

    def _find(self, which: str) -> Carried:
        if which in self._all:
            return self._all[which]
        found = [one for one in self._all.values() if which in one.state.workloads]
        found.sort(key=lambda one: (not one.state.is_over, one.state.times[0].at))
        if not found:
            raise Refused(f"there is no migration {which!r}", hint="ipshare migrate --list")
        return found[-1]

    def _check_free(self, members: tuple[str, ...], order: str) -> None:
        for name in members:
            for busy in self.busy:
                if why := busy(name, order):
                    raise Refused(f"{name}: {why}", hint="wait until it is there, or end that")

    def _new_id(self, name: str) -> str:
        base = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        number = sum(1 for known in self._all if known.startswith(base))
        return f"{base}-{number + 1}" if number else base

    def _site(self, node: str) -> str | None:
        row = self._director.topology.by_name["node"].get(node)
        return row.get("site") if row is not None else None

    # ---- carried out ----------------------------------------------------------------

    async def _put(self, one: Carried, state: Migration) -> Migration:
        """In the store first."""
        director = self._director
        await director.work(director.store.put_note, director.term, NOTE + state.id, machine.encoded(state))
        if state.step is not one.state.step:
            log.warning(
                "migration %s: %s%s", state.id, state.step.value, state.reason and f": {state.reason}"
            )
        one.state, self._moving = state, None
        self._tell()
        self._carry(one)
        if state.is_over:
            await self._prune()
        return state

    async def _prune(self) -> None:
        """What is kept of those that are over is bounded."""
        over = [one.state for one in self._all.values() if one.state.is_over]
        over.sort(key=lambda state: state.times[-1].at)
        for state in over[: max(0, len(over) - MOST_OVER)]:
            self._all.pop(state.id, None)
            with contextlib.suppress(IpshareError):  # the next one that is over tries again
                await self._director.work(
                    self._director.store.put_note, self._director.term, NOTE + state.id, ""
                )

    def _carry(self, one: Carried) -> None:
        one.kick.set()
        if one.state.step not in machine.IDLE and (one.task is None or one.task.done()):
            one.task = asyncio.create_task(self._run(one), name=f"migration {one.state.id}")

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
        self._director.tell()

    async def _run(self, one: Carried) -> None:
        pause_s = AGAIN_S
        links: dict[str, Link] = {}
        try:
            while one.state.step not in machine.IDLE:
                one.kick.clear()
                try:
                    if await self._once(one, links):
                        one.trouble = ""
                    pause_s = AGAIN_S
                    continue
                except IpshareError as error:
                    if one.trouble != error.message:
                        log.error("migration %s, %s: %s", one.state.id, one.state.step.value, error.message)
                    one.trouble = error.message
                    self._tell()
                except Exception:
                    log.exception("migration %s: a step failed; it is done again", one.state.id)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await one.kick.wait()
                pause_s = min(2 * pause_s, AGAIN_MAX_S)
        finally:
            for link in links.values():
                link.close()

    async def _once(self, one: Carried, links: dict[str, Link]) -> bool:
        """What is due, once. False: nothing came of it yet, after a time. Raises what went wrong."""
        m = one.state
        event, more = await _DUE[m.step](self, m, self._asker(m, links))
        if event is None:
            return False
        notes, moments = more.pop("notes", ()), more.pop("moments", ())
        times = more.pop("state", {})
        state = one.state  # a cancellation may have come meanwhile
        state = replace(state, notes=tuple(dict.fromkeys([*state.notes, *notes])), **times)
        for at, what in moments:
            state = machine.noted(state, at, what)
        await self._put(one, machine.advanced(state, event, time.time(), **more))
        return True

    def _asker(self, m: Migration, links: dict[str, Link]) -> Callable[..., Any]:
        """Asks a node about a member; ``links`` are for the caller to close."""

        def ask(node: str, verb: str, member: str, **more: Any) -> Any:
            if node not in links:
                links[node] = self._link(node)
            return self._ask(links[node], verb, self._words(m, member) | more)

        return ask

    async def _check(self, m: Migration, ask: Any) -> Any:
        notes = []
        if m.cancelling:
            return Event.DID, {}
        try:
            self._check_free(m.workloads, m.order)
            for member in m.workloads:
                said = await ask(m.source, "migrate_check", member)
                if said["redirect"]:
                    notes.append(
                        f"{member}: no redirect, what still comes to {m.source} until the flip is lost: "
                        f"{said['redirect']}"
                    )
            await ask(m.target, "migrate_state", m.workloads[0])  # it is there, and takes our word
        except Silent as error:
            return Event.REFUSED, {"why": f"a node is silent: {error.message}"}
        except IpshareError as error:
            return Event.REFUSED, {"why": error.message}
        return Event.DID, {"notes": notes}

    async def _expect(self, m: Migration, ask: Any) -> Any:
        try:
            for member in m.workloads:
                await ask(m.target, "migrate_expect", member, networks=self._networks(member))
                if member not in m.there:  # what an earlier attempt left
                    await ask(m.source, "migrate_clear", member)
        except Silent:
            if not m.cancelling:
                raise
        except IpshareError as error:
            return Event.REFUSED, {"why": error.message}
        return Event.DID, {}

    async def _migrate(self, m: Migration, ask: Any) -> Any:
        member = m.member
        said = await ask(m.source, "migrate_state", member)
        if said["phase"] is None and m.cancelling:
            return Event.HERE, {"why": "cancelled"}
        if said["phase"] is None:
            try:
                await ask(m.source, "migrate_start", member)
            except Silent:
                raise
            except IpshareError as error:
                return Event.REFUSED, {"why": error.message}
        elif said["phase"] == "moving" and m.cancelling:
            await ask(m.source, "migrate_cancel", member)
        said = await ask(m.source, "migrate_state", member, wait_s=NEWS_S)
        if said["phase"] == "here":
            return Event.HERE, {"why": said["detail"]}
        if said["phase"] != "there":
            self._all[m.id].trouble = ""  # it answers: it is on its way
            return None, {}
        moments = [
            (said["started_s"], f"{member} began to leave {m.source}"),
            (said["there_s"], f"{member} runs at {m.target}"),
        ]
        if not any(note.startswith(f"{member}: ") for note in m.notes):
            moments.append((said["redirected_s"], f"{member} is redirected at {m.source}"))
        took_ms = round((said["redirected_s"] - said["there_s"]) * 1e3, 1)
        downtime = said["downtime_ms"]
        state = {
            "redirected_ms": max(took_ms, m.redirected_ms or 0.0),
            "downtime_ms": max(downtime, m.downtime_ms or 0.0) if downtime is not None else m.downtime_ms,
        }
        return Event.THERE, {"moments": moments, "state": state}

    async def _flip(self, m: Migration, _ask: Any) -> Any:
        director, moves = self._director, dict.fromkeys(m.workloads, m.target)
        why = f"migration {m.id}" + (f": {m.why}" if m.why else "")
        await director.change(lambda now: moved(now, moves), m.who, why)  # it runs there, whatever else came
        return Event.DID, {"revision": director.number}

    async def _settle(self, m: Migration, _ask: Any) -> Any:
        """Until every distribution point has it, or says that it announces nothing."""
        director = self._director
        rows = director.topology.by_name["workload"]
        if any(name in rows and rows[name]["node"] != m.target for name in m.workloads):
            return Event.REFUSED, {"why": "another revision had it elsewhere, and it runs here"}
        late = [
            name
            for name, node in director.nodes.items()
            if node.row.distribution
            and node.kept.has < (m.revision, FINAL)
            and not director.facts(node).is_withdrawn
        ]
        if not late:
            return Event.DID, {}
        if bar := director.bar():
            raise IpshareError(bar)
        self._all[m.id].trouble = f"waits for {', '.join(late)}"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_MAX_S):
                await director.judged()
        return None, {}

    async def _clear(self, m: Migration, ask: Any) -> Any:
        for node in (m.source, m.target):
            if node in self._director.topology.nodes:
                for member in m.workloads:
                    await ask(node, "migrate_clear", member)
        return Event.DID, {}

    def _networks(self, member: str) -> list[list[str]]:
        """Global Networks that its addresses are in: name and prefix."""
        topology = self._director.topology
        found = [topology.network_of(prefix) for prefix in self._prefixes(member)]
        return [[row["name"], row["prefix"]] for row in found if row is not None]

    def _prefixes(self, member: str) -> list[Any]:
        row = self._director.topology.by_name["workload"].get(member, {})
        return [ip_network(address) for address in row.get("addresses", ())]

    def _words(self, m: Migration, member: str) -> dict[str, Any]:
        target = self._director.topology.nodes.get(m.target)
        return {
            "term": self._director.term,
            "id": m.id,
            "workload": member,
            "node": m.target,
            "to": target.endpoint if target is not None else m.target,
            "prefixes": [str(prefix) for prefix in self._prefixes(member)],
        }

    def _link(self, node: str) -> Link:
        row = self._director.topology.nodes.get(node)
        if row is None:
            raise IpshareError(f"node {node} is not in the topology any more", hint="put it back, or cancel")
        return self._director.link(node, row.address)

    async def _ask(self, link: Link, verb: str, words: dict[str, Any]) -> dict[str, Any]:
        """Raises Silent, or what the node answered."""
        if bar := self._director.bar():
            raise Silent(bar)
        try:
            return await link.ask(verb, ASK_S + words.get("wait_s", 0.0), **words)
        except Silent as error:
            raise Silent(f"node {link.name}: {error.message}") from None


_DUE = {
    Step.CHECKING: Migrations._check,
    Step.EXPECTING: Migrations._expect,
    Step.MIGRATING: Migrations._migrate,
    Step.FLIPPING: Migrations._flip,
    Step.SETTLING: Migrations._settle,
    Step.CLEARING: Migrations._clear,
    Step.UNDOING: Migrations._clear,
}
