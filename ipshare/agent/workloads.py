"""workloads: the agent's part in exclusive workloads and health: it carries, and stops delivering.

    watch   from a director: what to probe, leases and orders to stop; answers as `seen`
    seen    this node's clock, what its probes and paths say, how its workloads stand
    news    from a director: what its probes say, as soon as that is not what it was told last
    fence   from a director: run the fence command against another node

Leases and commands go to the keeper (ipshare.agent.keeper), which the agent starts, and starts again. A
Global IP whose workload may not run here is not delivered (ipshare.engine.halted). Nothing of this needs a
director that answers: what a lease allows ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ipshare.agent.assignment import Assignment
from ipshare.agent.client import AgentClient
from ipshare.agent.heard import Heard
from ipshare.agent.keeper import SOCKET
from ipshare.agent.reconcile import Done, Reconciler
from ipshare.agent.server import Asker
from ipshare.agent.spawn import search_path
from ipshare.agent.watcher import Watcher, parsed
from ipshare.errors import IpshareError, NoPrivilege, NotRunning, Refused
from ipshare.model import Config

LOOK_S = 0.5
ANSWER_S = 5.0
LONGEST_NEWS_S = 30.0
MOST_FENCE_S = 600.0
Request = dict[str, Any]


class Workloads:
    """Of one node; in the event loop. ``change`` and ``note`` as the daemon has them; ``paths``: what its
    prober reports."""

    def __init__(
        self,
        node: Reconciler,
        assignment: Assignment,
        change: Callable[[str, str, str, Callable[[], Done]], Awaitable[Done]],
        note: Callable[[str, str], None],
        paths: Callable[[], list[Request]],
    ) -> None:
        self._node, self._assignment, self._change, self._note = node, assignment, change, note
        self._paths = paths
        self.heard = Heard(node)
        self._watcher = Watcher()
        self._asking = asyncio.Lock()
        self._rows: list[Request] = []
        self._term, self._ended = 0, False
        self.verbs = {"watch": self._watch, "seen": self._seen, "fence": self._fence, "news": self._news}

    async def run(self) -> None:
        """For the life of the agent."""
        while True:
            try:
                await self.look()
                self._note("workloads", self._troubles())
            except IpshareError as error:
                self._note("workloads", error.message)
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        await self._watcher.close()

    async def end(self) -> None:
        """The node is taken down: what runs on a lease is stopped first."""
        config, self._ended = self._node.config, True
        if config is not None and self._socket(config).exists():
            longest = max((one.stop_s for one in config.workloads), default=0.0)
            with contextlib.suppress(NotRunning):  # it ends with its answer
                await asyncio.to_thread(_call, self._socket(config), "end", longest + ANSWER_S, {})

    async def look(self, **orders: Any) -> None:
        """Asks the keeper how everything stands, with what there is to tell it, and follows."""
        config = self._node.config
        if config is None or self._ended or not (config.workloads or self._socket(config).exists()):
            self._rows = []
        else:
            specs = [_spec(config, one) for one in config.workloads]
            answer = await self._keeper(config, "order", ANSWER_S, specs=specs, **orders)
            self._rows = answer["workloads"]
        halted = frozenset(
            ip_network(address) for row in self._rows if not row["may_run"] for address in row["addresses"]
        )
        if halted != self._node.halted:
            self._node.halted = halted
            what = "not delivered: " + (", ".join(map(str, sorted(halted, key=str))) or "nothing")
            await self._change("workloads", what, "leases", self._node.reconcile)

    def report(self) -> list[Request]:
        return self._rows

    # ---- verbs ------------------------------------------------------------------

    async def _seen(self, _caller: Asker, _request: Request) -> Request:
        clock = self._node.clock
        return {
            "clock": {"boot": clock.boot_id(), "ns": clock.boottime_ns()},
            "term": max(self._term, self._assignment.seen.number[0]),
            **self._probes(),
            "paths": self._paths(),
            "workloads": self._rows,
            "announces": self._assignment.report()["announces"],
            "withdraw_after_s": self.heard.withdraw_after_s,
            "may_withdraw": self.heard.may_withdraw,
        }

    async def _watch(self, caller: Asker, request: Request) -> Request:
        self._check(caller, request)
        self._watcher.follow(parsed(request.get("probes", [])))
        holds, stops = request.get("holds", []), request.get("stops", [])
        _check_orders(holds, stops)
        self.heard.take(request.get("heard"))
        await self.look(holds=holds, stops=stops)
        return await self._seen(caller, request)

    async def _news(self, caller: Asker, request: Request) -> Request:
        """Changes nothing: a director that does not count any more may hear it."""
        since, within_s = request.get("version"), request.get("within_s")
        if (
            type(since) is not int
            or not isinstance(within_s, int | float)
            or not 0 <= within_s <= LONGEST_NEWS_S
        ):
            raise IpshareError(f"version is a number, within_s one up to {LONGEST_NEWS_S:g}")
        await self._watcher.changed(since, within_s)
        return self._probes()

    def _probes(self) -> Request:
        clock = self._node.clock
        return {
            "read": [clock.boot_id(), clock.boottime_ns()],
            "version": self._watcher.version,
            "probes": self._watcher.report(),
        }

    async def _fence(self, caller: Asker, request: Request) -> Request:
        self._check(caller, request)
        config, name, node = self._node.config, request.get("name"), request.get("node")
        timeout_s = request.get("within_s")
        good = isinstance(timeout_s, int | float) and 0 < timeout_s <= MOST_FENCE_S
        if config is None or not isinstance(name, str) or not isinstance(node, str) or not good:
            raise IpshareError(f"name and node are text, within_s is a number up to {MOST_FENCE_S:g}")
        if node == config.node.name:
            raise Refused("a node does not fence itself")
        assert isinstance(timeout_s, int | float), "checked"
        words: Request = {"name": name, "node": node, "within_s": timeout_s}
        return await self._keeper(config, "fence", timeout_s + ANSWER_S, **words)

    def _check(self, caller: Asker, request: Request) -> None:
        if not (caller.is_owner or getattr(caller, "may_assign", False)):
            raise NoPrivilege("only a director, or root, may give leases")
        term, heard = request.get("term"), max(self._term, self._assignment.seen.number[0])
        if type(term) is not int or term < 1:
            raise IpshareError("term is a number from 1 on")
        if term < heard:
            raise Refused(f"stale: term {heard} was heard of", hint="another director has taken over")
        self._term = term

    # ---- the keeper ---------------------------------------------------------------

    async def _keeper(self, config: Config, verb: str, timeout_s: float, **words: Any) -> Request:
        if verb == "fence":  # takes its time: leases do not wait for it
            return await asyncio.to_thread(_call, self._socket(config), verb, timeout_s, words)
        async with self._asking:
            try:
                return await asyncio.to_thread(_call, self._socket(config), verb, timeout_s, words)
            except NotRunning:
                await asyncio.to_thread(_start, config)
                return await asyncio.to_thread(_call, self._socket(config), verb, timeout_s, words)

    @staticmethod
    def _socket(config: Config) -> Path:
        return config.node.runtime_dir / SOCKET

    def _troubles(self) -> str:
        return "; ".join(f"workload {row['name']}: {row['why']}" for row in self._rows if row["why"])


def _spec(config: Config, one: Any) -> Request:
    return {
        "name": one.name,
        "start": list(one.start),
        "stop": list(one.stop),
        "status": list(one.status),
        "fence": list(one.fence),
        "stop_s": one.stop_s,
        "start_s": one.start_s,
    }


def _call(socket: Path, verb: str, timeout_s: float, words: Request) -> Request:
    who = ("keeper", "the agent does it")
    with AgentClient(socket.parent, timeout_s=timeout_s, path=socket, who=who) as keeper:
        return keeper.call(verb, **words)


def _start(config: Config) -> None:
    """Returns when it serves. Its messages go where the agent's go."""
    node = config.node
    command = [sys.executable, "-m", "ipshare.agent.keeper", str(node.runtime_dir), str(node.state_dir)]
    process = subprocess.Popen(
        [*command, node.name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": search_path()},
        start_new_session=True,
    )
    assert process.stdout is not None, "asked for"
    with process.stdout as out:
        if out.readline() != b"ready\n":
            raise IpshareError("the keeper of workloads does not start", hint="see the agent's log")


def _check_orders(holds: Any, stops: Any) -> None:
    kinds: tuple[tuple[str, type | tuple[type, ...]], ...] = (
        ("name", str), ("epoch", int), ("boot", str), ("since_ns", int), ("lease_s", (int, float)),
        ("stop_s", (int, float)), ("addresses", list),
    )  # fmt: skip
    try:
        good = all(isinstance(hold[key], kind) for hold in holds for key, kind in kinds)
        good = good and all(0 < hold["lease_s"] <= 86400 and hold["epoch"] > 0 for hold in holds)
        good = good and all(isinstance(stop[key], kind) for stop in stops for key, kind in kinds[:2])
        for hold in holds:
            for address in hold["addresses"]:
                ip_network(address)
    except (TypeError, KeyError, ValueError):
        good = False
    if not good:
        raise IpshareError("holds and stops are lists of objects: docs/health.md")
