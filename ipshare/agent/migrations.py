"""migrations: a workload leaves this node alive, or comes to it, as a director says (SYSTEMS.md S1.11).

    migrate_check    whether it can leave for a node: its [[migration]], the storage, the target, the redirect
    migrate_expect   at the target: the tables learn its addresses
    migrate_start    the adapter begins; at its "runs at the target" the redirect comes at once, without
                     a word of the director
    migrate_state    what came of it; with wait_s the answer waits for news
    migrate_cancel   the adapter ends it
    migrate_clear    redirect and expectation end

Each may come again and does nothing twice; `id` and `workload` say which one is meant. A director of an
earlier term is refused. An agent that was started again asks the adapter where its workloads run: what left
meanwhile is redirected then, and nothing is taken for failed that nobody saw fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from ipshare.agent import redirects
from ipshare.agent.reconcile import Done, Reconciler
from ipshare.agent.redirects import Phase, Run
from ipshare.agent.server import Asker
from ipshare.engine.redirected import unable
from ipshare.errors import IpshareError, NoPrivilege, Refused
from ipshare.migration.adapter import (
    Adapter,
    MigrationError,
    Moved,
    NotInTime,
    Target,
    Where,
    adapter_of,
    target_of,
)
from ipshare.model import Config, Migrating, Prefix

log = logging.getLogger(__name__)
Request = dict[str, Any]
ASK_AGAIN_S = 0.5
"""Between two questions where a workload runs, when nobody saw how its migration ended."""
MOST_WAIT_S = 30.0


class Migrations:
    """Of one node. ``work`` and ``change`` as the daemon has them; ``term``: the highest that was heard;
    ``note``: (topic, what is wrong)."""

    def __init__(
        self,
        node: Reconciler,
        work: Callable[..., Awaitable[Any]],
        change: Callable[[str, str, str, Callable[[], Done]], Awaitable[Done]],
        term: Callable[[], int],
        note: Callable[[str, str], None],
        adapters: Callable[[Migrating], Adapter] = adapter_of,
    ) -> None:
        self._node, self._work, self._change, self._term, self._note = node, work, change, term, note
        self._adapters = adapters
        self._jobs: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._changing = asyncio.Lock()
        self.verbs = {
            "migrate_check": self._check,
            "migrate_expect": self._expect,
            "migrate_start": self._start,
            "migrate_state": self._state,
            "migrate_cancel": self._cancel,
            "migrate_clear": self._clear,
        }

    async def resume(self) -> None:
        """What an agent before began goes on."""
        try:
            runs = self._runs()
        except IpshareError as error:
            self._note("migration", error.message)
            return
        for run in runs:
            if run.phase is Phase.MOVING:
                self._follow(run, begin=False)
            elif not run.is_settled:  # the pass that this agent began with has redirected it
                await self._put(replace(run, redirected_s=time.time()), None, "redirected", passes=False)

    async def close(self) -> None:
        """Ends what is asked; what was started goes on without us."""
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)

    # ---- verbs ----------------------------------------------------------------

    async def _check(self, caller: Asker, request: Request) -> Request:
        self._judge(caller, request)
        wanted, target = self._wanted(request)
        config, to = self._config(), _text(request, "to")
        _check_lease(config, wanted.workload)
        await self._adapters(wanted).check(target)
        why_not = [why for prefix in _prefixes(request) if (why := unable(config, prefix, to))]
        return {"redirect": why_not[0] if why_not else ""}

    async def _expect(self, caller: Asker, request: Request) -> Request:
        self._judge(caller, request)
        config, prefixes = self._config(), _prefixes(request)
        if config.self_endpoint is None:
            raise Refused(f"node {config.node.name} is no end point")
        _check_lease(config, _text(request, "workload"))
        run = Run(
            _text(request, "id"), _text(request, "workload"), config.node.name, config.self_endpoint.name,
            prefixes, _networks(request), Phase.EXPECTED,
        )  # fmt: skip
        if self._run(run.key) == run:
            return run.report()
        await self._put(run, caller, "expects")
        return run.report()

    async def _start(self, caller: Asker, request: Request) -> Request:
        self._judge(caller, request)
        wanted, target = self._wanted(request)
        key = _text(request, "id"), _text(request, "workload")
        had = self._run(key)
        if had is not None and had.phase in (Phase.MOVING, Phase.THERE):
            return had.report()
        if other := next((r for r in self._runs() if r.workload == key[1] and r.phase is Phase.MOVING), None):
            raise Refused(f"workload {key[1]} is in migration {other.id}")
        run = Run(
            *key, target.node, _text(request, "to"), _prefixes(request), (), Phase.MOVING,
            started_s=time.time(),
        )  # fmt: skip
        await self._put(run, caller, f"leaves for {target.node}", passes=False)
        self._follow(run, begin=True)
        return run.report()

    async def _state(self, caller: Asker, request: Request) -> Request:
        self._judge(caller, request)
        wait_s, key = request.get("wait_s", 0), (_text(request, "id"), _text(request, "workload"))
        if not isinstance(wait_s, int | float) or not 0 <= wait_s <= MOST_WAIT_S:
            raise IpshareError(f"wait_s is a number of seconds up to {MOST_WAIT_S:g}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while (run := self._run(key)) is not None and not run.is_settled:
                    await self._news.wait()
        run = self._run(key)
        return run.report() if run is not None else {"phase": None}

    async def _cancel(self, caller: Asker, request: Request) -> Request:
        self._judge(caller, request)
        run = self._run((_text(request, "id"), _text(request, "workload")))
        if run is not None and run.phase is Phase.MOVING:
            wanted = self._migrating(run.workload)
            await self._adapters(wanted).cancel(target_of(wanted, run.node))
        return run.report() if run is not None else {"phase": None}

    async def _clear(self, caller: Asker, request: Request) -> Request:
        self._judge(caller, request)
        key = _text(request, "id"), _text(request, "workload")
        run = self._run(key)
        if run is None:
            return {"cleared": False}
        if run.phase is Phase.MOVING:
            raise Refused(f"workload {run.workload} is on its way: cancel that first")
        await self._change("migration", f"{run.workload}: over", str(caller), lambda: self._without(key))
        return {"cleared": True}

    # ---- one that leaves --------------------------------------------------------

    def _follow(self, run: Run, *, begin: bool) -> None:
        job = self._jobs.get(run.key)
        if job is None or job.done():
            job = asyncio.get_running_loop().create_task(
                self._leave(run, begin), name=f"leave {run.workload}"
            )
            self._jobs[run.key] = job

    async def _leave(self, run: Run, begin: bool) -> None:
        """Until it is certain where it runs."""
        moved, detail = None, ""
        target = adapter = None
        while moved is None:
            try:
                wanted = self._migrating(run.workload)
                target, adapter = target_of(wanted, run.node), self._adapters(wanted)
                if begin:
                    begin = False
                    moved = await adapter.migrate(target)
                    break
                where = await adapter.where(target)
                if where is Where.THERE:
                    moved = Moved()
                elif where is Where.HERE:
                    return await self._ended(run, detail or "it runs here, and nothing is under way")
            except IpshareError as error:
                detail = error.message
                self._note("migration", f"workload {run.workload}: {detail}")
                log.error("workload %s: %s", run.workload, detail)
                if isinstance(error, NotInTime) and target is not None and adapter is not None:
                    with contextlib.suppress(IpshareError):
                        await adapter.cancel(target)
            except Exception:
                log.exception("workload %s: it is asked again where it runs", run.workload)
            if moved is None:
                await asyncio.sleep(ASK_AGAIN_S)
        await self._arrived(run, moved)
        return None

    async def _arrived(self, run: Run, moved: Moved) -> None:
        """It runs at the target: the redirect, at once, and again until it is there."""
        there_s = time.time()
        run = replace(run, phase=Phase.THERE, there_s=there_s, downtime_ms=moved.downtime_ms)
        while True:
            try:
                await self._put(run, None, f"runs at {run.node}")
                break
            except IpshareError as error:
                self._note(
                    "migration", f"workload {run.workload} left and is not redirected: {error.message}"
                )
                await asyncio.sleep(ASK_AGAIN_S)
        await self._put(replace(run, redirected_s=time.time()), None, "redirected", passes=False)
        self._note("migration", "")
        log.warning("workload %s runs at %s: redirected after %.0f ms", run.workload, run.node,
                    (time.time() - there_s) * 1e3)  # fmt: skip
        self._tell()

    async def _ended(self, run: Run, detail: str) -> None:
        await self._put(replace(run, phase=Phase.HERE, detail=detail), None, f"stays: {detail}", passes=False)
        self._note("migration", "")
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # ---- what is kept -----------------------------------------------------------

    def _runs(self) -> tuple[Run, ...]:
        return redirects.load(self._node.store)

    def _run(self, key: tuple[str, str]) -> Run | None:
        return next((run for run in self._runs() if run.key == key), None)

    async def _put(self, run: Run, caller: Asker | None, what: str, *, passes: bool = True) -> None:
        """In the work thread, where everything that changes the node is done, one after the other."""

        def change() -> Done:
            others = [other for other in self._runs() if other.key != run.key]
            redirects.save(self._node.store, [*others, run])
            return self._node.reconcile() if passes else Done(self._node.left[1])

        who = str(caller) if caller is not None else "agent"
        await self._change("migration", f"{run.workload}: {what}", who, change)

    def _without(self, key: tuple[str, str]) -> Done:
        redirects.save(self._node.store, [run for run in self._runs() if run.key != key])
        return self._node.reconcile()

    # ---- what is asked ------------------------------------------------------------

    def _judge(self, caller: Asker, request: Request) -> None:
        if not (caller.is_owner or getattr(caller, "may_assign", False)):
            raise NoPrivilege("only a director, or root, may migrate")
        term = request.get("term")
        if not caller.is_owner and (type(term) is not int or term < self._term()):
            raise Refused(f"stale: a director of term {self._term()} was heard", hint="ask that one")

    def _config(self) -> Config:
        config = self._node.config
        if config is None:
            raise Refused("this node has no configuration yet")
        return config

    def _wanted(self, request: Request) -> tuple[Migrating, Target]:
        wanted = self._migrating(_text(request, "workload"))
        try:
            return wanted, target_of(wanted, _text(request, "node"))
        except MigrationError as error:
            raise Refused(error.message, hint=error.hint) from None

    def _migrating(self, workload: str) -> Migrating:
        found = next((one for one in self._config().migrations if one.workload == workload), None)
        if found is None:
            raise Refused(
                f"node {self._config().node.name} has no [[migration]] of workload {workload}",
                hint="docs/migration.md says what to write into its site file",
            )
        return found


def _check_lease(config: Config, workload: str) -> None:
    """What runs on a lease is stopped where it has none: it would be, on its arrival. Raises Refused."""
    if any(one.name == workload for one in config.workloads):
        raise Refused(
            f"{workload} runs on a lease at {config.node.name} ([[workload]] in its site file)",
            hint="a lease does not move alive: take the table away at both nodes, or let failover move it",
        )


def _text(request: Request, key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 128:
        raise IpshareError(f"{key} is a text")
    return value


def _prefixes(request: Request) -> tuple[Prefix, ...]:
    value = request.get("prefixes")
    try:
        return tuple(ip_network(one) for one in value)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise IpshareError("prefixes are Global IPs, as text") from None


def _networks(request: Request) -> tuple[tuple[str, Prefix], ...]:
    value = request.get("networks")
    try:
        return tuple((str(name), ip_network(prefix)) for name, prefix in value)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        raise IpshareError("networks are pairs of name and prefix") from None
