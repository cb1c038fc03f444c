"""desk: what a director answers operators: the verbs of its control socket, a JSON line each.

status, wait      the revision, its outcome at each node; wait: when all have acked, or after timeout_s
diff, apply       a file, or an earlier revision again: what would change; make it so
history, show     revisions with who, why, when; what became of one, what one node gets
export            the topology in force, for who writes it into a file
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ipshare.agent.server import Asker
from ipshare.director import config
from ipshare.director.daemon import Director, Tended
from ipshare.director.drains import is_drained
from ipshare.director.evacuation.places import faults
from ipshare.director.rollout import FINAL, MAKE, Rollout
from ipshare.director.topology import Topology, changes
from ipshare.errors import IpshareError, NoPrivilege, Refused

MOST = 1000
WAIT_S = 3600.0
Request = dict[str, Any]
Verb = Callable[[Asker, Request], Awaitable[Request]]


class Desk:
    """Of ``director``; ``file``: its own, which is read where a request names none."""

    def __init__(self, director: Director, file: Path) -> None:
        self._director, self._file = director, file
        self.troubles: list[Callable[[], list[str]]] = []  # of what stands beside the director
        self.coming: frozenset[str] = frozenset()  # verbs that will be added
        self._verbs: dict[str, Verb] = {
            "status": self._status,
            "wait": self._wait,
            "diff": self._diff,
            "apply": self._apply,
            "history": self._history,
            "show": self._show,
            "export": self._export,
        }

    def add(self, verbs: Mapping[str, Verb], troubles: Callable[[], list[str]]) -> None:
        """What something beside the director answers, and what it has to say in status."""
        self._verbs |= verbs
        self.troubles.append(troubles)

    def knows(self, verb: str) -> bool:
        """Whether something here answers it."""
        return verb in self._verbs

    async def handle(self, caller: Asker, request: Request) -> Request:
        if not caller.is_owner:
            raise NoPrivilege("only root may ask the director")
        verb = request["verb"]
        if verb not in self._verbs:
            if bar := self._director.bar():
                raise Refused(bar, hint="ask the director that leads, on its machine")
            if verb in self.coming:
                raise Refused("the director has only begun", hint="ask again in a moment")
            raise IpshareError(
                f"the director knows no verb {verb!r}", hint=f"it knows {', '.join(self._verbs)}"
            )
        return await self._verbs[verb](caller, request)

    # ---- looking --------------------------------------------------------------

    async def _status(self, _caller: Asker, _request: Request) -> Request:
        return self.status()

    def status(self) -> Request:
        director = self._director
        revision, outcomes = director.revision, director.outcomes()
        return {
            "director": director.settings.name,
            "leader": director.leading.sight.leader if director.leading.is_shared else director.settings.name,
            "leads": not director.bar(),
            "store": {"kind": director.leading.kind, "trouble": director.leading.trouble or director.trouble},
            "term": director.term or director.leading.sight.term,
            "revision": director.number,
            "who": revision.who if revision else None,
            "why": revision.why if revision else None,
            "time": revision.time if revision else None,
            "settled": bool(outcomes) and set(outcomes.values()) <= {"acked"},
            "troubles": self._troubles(),
            "faults": faults(director.topology),
            "notes": director.rollout.notes() if director.rollout else [],
            "nodes": [self._node(node, outcomes[name]) for name, node in director.nodes.items()],
        }

    def _troubles(self) -> list[str]:
        director = self._director
        found = [director.superseded, director.trouble, director.leading.trouble]
        if director.term:
            found.append(director.leading.bar())
        found += [text for told in self.troubles for text in told()]
        return list(dict.fromkeys(text for text in found if text))

    def _node(self, node: Tended, outcome: str) -> Request:
        director, facts = self._director, self._director.facts(node)
        row, told = node.row, node.told if facts.alive else {}
        why = node.trouble if outcome == "silent" else node.refused if outcome == "refused" else ""
        if outcome in ("waiting", "working"):
            why = director.wanted.get(row.name, (-1, ""))[1]
        return {
            "name": row.name,
            "endpoint": row.endpoint,
            "distribution": row.distribution,
            "address": row.address,
            "state": "alive" if facts.alive else "unknown",
            "heard_s": round(time.monotonic() - node.heard_s, 1) if node.heard_s is not None else None,
            "outcome": outcome,
            "why": why,
            "revision": facts.has[0],
            "final": facts.has[1] == FINAL,
            "announces": facts.announces,
            "drained": is_drained(director.topology, row.name),
            "drained_by": told.get("drained_by") or [],
            "stale_refused": told.get("stale_refused"),
        }

    async def _wait(self, _caller: Asker, request: Request) -> Request:
        timeout_s, number = request.get("timeout_s", 10.0), request.get("revision", self._director.number)
        if (
            not isinstance(timeout_s, int | float)
            or not 0 <= timeout_s <= WAIT_S
            or not isinstance(number, int)
        ):
            raise IpshareError(f"timeout_s is a number of seconds up to {WAIT_S:g}, revision a number")
        await self._director.settled(number, timeout_s)
        return self.status()

    async def _history(self, _caller: Asker, request: Request) -> Request:
        limit = request.get("limit", 20)
        if not isinstance(limit, int) or not 0 < limit <= MOST:
            raise IpshareError(f"limit is a number from 1 to {MOST}")
        found = await self._director.work(self._director.store.history, limit + 1)
        older = [one.topology for one in found[1:]] + [Topology()]
        counts = await asyncio.to_thread(_counts, [one.topology for one in found[:limit]], older)
        return {
            "revisions": [
                {
                    "revision": one.number,
                    "term": one.term,
                    "time": one.time,
                    "who": one.who,
                    "why": one.why,
                    "changes": count,
                }
                for one, count in zip(found, counts, strict=False)
            ]
        }

    async def _show(self, _caller: Asker, request: Request) -> Request:
        director, node, number = self._director, request.get("node"), request.get("revision")
        if number is not None:
            revision = await director.work(director.store.revision, _number(number))
            if revision is None:
                raise Refused(f"there is no revision {number}", hint="ipshare director history")
            before = await director.work(director.store.revision, revision.number - 1)
            outcomes = await director.work(director.store.outcomes, revision.number)
            old = before.topology if before else Topology()
            found = await asyncio.to_thread(_changes, old, revision.topology)
            return {
                "revision": revision.number,
                "time": revision.time,
                "who": revision.who,
                "why": revision.why,
                "changes": found,
                "outcomes": [
                    {"node": one.node, "time": one.time, "outcome": one.outcome, "detail": one.detail}
                    for one in outcomes
                ],
            }
        if director.rollout is None or node not in director.rollout.new.nodes:
            raise Refused(f"there is no node {node!r}", hint="ipshare director status")
        texts = [director.rollout.text(node, step) for step in (MAKE, FINAL)]
        return {"node": node, "make": texts[0], "final": texts[1]}

    async def _export(self, _caller: Asker, request: Request) -> Request:
        """The topology in force; with `path`: which revision has what that file says, None: none has."""
        director, path, applied = self._director, request.get("path"), None
        number, tables = director.number, director.topology.tables
        if isinstance(path, str):
            wanted = (await asyncio.to_thread(config.load, Path(path))).topology
            for earlier in range(number, 0, -1):
                found = await director.work(director.store.revision, earlier)
                if found is not None and found.topology == wanted:
                    applied = earlier
                    break
        tables = {kind: list(rows) for kind, rows in tables.items()}
        return {"revision": number, "tables": tables, "applied": applied}

    # ---- changing -------------------------------------------------------------

    async def _diff(self, _caller: Asker, request: Request) -> Request:
        topology = await self._wanted(request)
        rollout = await self._director.planned(topology)
        found = await asyncio.to_thread(_changes, self._director.topology, topology)
        return {
            "changes": found,
            "order": order(rollout) if found else [],
            "notes": rollout.notes() if found else [],
            "faults": await asyncio.to_thread(faults, topology),
        }

    async def _apply(self, caller: Asker, request: Request) -> Request:
        why, expect = request.get("why", ""), request.get("expect")
        who = request.get("who", "") or str(caller)
        if (
            not isinstance(why, str)
            or not isinstance(who, str)
            or not (expect is None or type(expect) is int)
        ):
            raise IpshareError("who and why are text, expect is the number of a revision")
        self._director.refuse_if_barred()  # before a store is asked that may not answer
        changed = await self._director.change(await self._wanted(request), who, why, expect)
        return {"changed": changed, "revision": self._director.number}

    async def _wanted(self, request: Request) -> Topology:
        if (number := request.get("again")) is not None:
            revision = await self._director.work(self._director.store.revision, _number(number))
            if revision is None:
                raise Refused(f"there is no revision {number}", hint="ipshare director history")
            return revision.topology
        path = request.get("path")
        file = Path(path) if isinstance(path, str) else self._file
        return (await asyncio.to_thread(config.load, file)).topology


def _changes(old: Topology, new: Topology) -> list[str]:
    """Beside the event loop, where leases wait: large installations take their time."""
    return list(changes(old, new))


def _counts(new: Sequence[Topology], old: Sequence[Topology]) -> list[int]:
    return [len(_changes(before, after)) for after, before in zip(new, old, strict=False)]


def order(rollout: Rollout) -> list[str]:
    """What is done, in order, for people."""
    nodes = rollout.new.nodes
    two = sorted(name for name in nodes if nodes[name].endpoint and not rollout.is_one_step(name))
    points = sorted(name for name in nodes if nodes[name].distribution)
    ends = sorted(name for name in nodes if nodes[name].endpoint and not nodes[name].distribution)
    lines = [f"{', '.join(ends)}: what is new, and what is sent to it until then"] if ends else []
    lines += [f"{', '.join(points)}: the new revision"] if points else []
    return [*lines, *([f"{', '.join(two)}: the new revision alone"] if two else [])]


def _number(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise IpshareError("a revision is a number from 1 on")
    return value
