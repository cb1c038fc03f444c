"""daemon: the loop of one node's agent: signals, control socket, timers; all work in one thread beside it.

The event loop never blocks; every change goes through one worker thread, one at a time, in the order in
which it was asked for. The agent's death changes nothing that packets see: engine and routes stay, and the
next agent finds them. SIGHUP reloads the file (a bad one is refused with all its mistakes, the old stays),
SIGTERM ends the agent alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ipshare import __version__
from ipshare import config as configuration
from ipshare.agent import notify
from ipshare.agent.assignment import Assignment
from ipshare.agent.audit import Audit
from ipshare.agent.bgp import Announcer
from ipshare.agent.client import socket_path
from ipshare.agent.confirm import remaining_s
from ipshare.agent.done import check_rollback, result
from ipshare.agent.flows_watch import FlowsWatch
from ipshare.agent.guard import SOCKET_GONE, EngineGuard
from ipshare.agent.leases import Leases
from ipshare.agent.migrations import Migrations
from ipshare.agent.pair_hooks import PairHooks
from ipshare.agent.pair_routes import PairRoutes
from ipshare.agent.pair_watch import PairChange, PairWatch
from ipshare.agent.prober import Prober
from ipshare.agent.reconcile import Done, Reconciler
from ipshare.agent.remap_desk import RemapDesk
from ipshare.agent.remote import RemoteServer
from ipshare.agent.rounds import for_ever, going_on
from ipshare.agent.server import Asker, Server
from ipshare.agent.workloads import Workloads
from ipshare.engine.pair_text import report as pair_report
from ipshare.engine.pair_text import troubles
from ipshare.engine.pairing import ORDERS
from ipshare.engine.session_filter import SessionFilter
from ipshare.errors import ConfigError, IpshareError, NoPrivilege, NotRunning
from ipshare.model import Config

log = logging.getLogger(__name__)
T = TypeVar("T")

DRIFT_S = 10.0  # between two looks at whether engine and routes are still what they should be
TRIAL_POLL_S = 5.0
"""CLOCK_BOOTTIME runs on in suspend and the event loop's clock does not: look again at least this often."""
PROBE_AGAIN_S = 2.0
RETRY_S, RETRY_MAX_S = 0.02, 3.0
"""Pauses between attempts to start an engine again: the first, and the longest."""
AWAIT_S = 0.1
"""Time between two looks whether a VPP is back that is started by somebody else."""
START_LOOKS, START_LOOK_S = 20, 0.5
"""How often, and with what pause, an agent that starts looks for such a VPP before it gives up."""
PATH_KEPT_ROUNDS = 3
"""A measured path MTU is forgotten when so many rounds of probes did not renew it."""
ABOUT_FILE = ("start", "apply", "reload", "rollback", "assign")
"""Verbs whose success ends what was wrong with the others."""
STUCK_S = 60.0
"""Work that takes longer than this keeps the watchdog's sign of life back."""


class Daemon:
    """One node's agent. ``file``: what SIGHUP and ``reload`` read."""

    def __init__(
        self,
        file: Path,
        config: Config,
        reconciler: Reconciler,
        *,
        group: str | None = None,
        drift_s: float = DRIFT_S,
        keep_lock: Callable[[], None] = lambda: None,
    ) -> None:
        self.file, self.wanted, self.node, self.drift_s = file, config, reconciler, drift_s
        self.keep_lock = keep_lock
        self.audit = Audit(config.node.state_dir)
        self.server = Server(socket_path(config.node.runtime_dir), self.handle, group)
        self.prober = Prober()
        self.guard = EngineGuard(self._engine_ended)
        self.pair = PairWatch(config.node.runtime_dir / "pair.json", self._pair_changed)
        self.hooks = PairHooks(lambda trouble: self._note("hook", trouble))
        self.routes = PairRoutes(lambda trouble: self._note("pair routes", trouble))
        self.flows = FlowsWatch(reconciler, self._work, self._note)
        self.remaps = RemapDesk(reconciler)
        self.bgp = Announcer(reconciler, self._work, self._note, self._changed)
        self.assignment = Assignment(reconciler, file, self._work, self._change, self.bgp.announces)
        self.workloads = Workloads(reconciler, self.assignment, self._change, self._note, self.prober.report)
        self.bgp.unheard_s = self.workloads.heard.unheard_s
        self.remote = RemoteServer(self.handle, self._note)
        self.migrations = Migrations(reconciler, self._work, self._change, self.assignment.term, self._note)
        self.leases = Leases(config.node.state_dir, lambda: self._spawn(self._leases_changed()))
        self.notes: dict[str, str] = {}  # topic -> what is wrong now
        self.generation = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="work")
        self._busy_since: float | None = None
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()  # everything is up and the socket serves
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Callable[[Asker, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
            "status": self._status,
            "apply": self._apply,
            "reload": self._reload,
            "confirm": self._confirm,
            "rollback": self._rollback,
            "probe": self._probe,
            "pair": self._pair,
            "close_sessions": self._close_sessions,
            "down": self._down,
            **self.bgp.verbs,
            **self.assignment.verbs,
            **self.workloads.verbs,
            **self.migrations.verbs,
        }

    async def run(self) -> None:
        """Until SIGTERM, SIGINT or ``down``. Raises what keeps the node from starting."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._on_hangup()))
        try:
            done, note = await self._first_pass()
            self._changed("start", str(self.file), "agent start", done)
            self._note("start", note)
            await self.server.start()
            await self._follow_remote()
            await self.migrations.resume()
            jobs = (self._drift, self._trial, self._probing, self.bgp.run, self.workloads.run)
            for job in (*map(for_ever, jobs), notify.watchdog(self._is_well)):
                self._spawn(job)
            self._ready()
            self.ready.set()
            await self._stop.wait()
        finally:
            notify.notify("STOPPING=1")
            self.pair.close()
            self.leases.close()
            await self.server.stop()
            await self.remote.close()
            await self.workloads.close()
            await self.migrations.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self.guard.close()
            await self.routes.close()
            await self.flows.close()
            await self.hooks.close()
            self._worker.shutdown()

    async def _first_pass(self) -> tuple[Done, str]:
        """At boot, somebody else's VPP may come a moment after us."""
        vpp = self.wanted.vpp
        for left in reversed(range(START_LOOKS if vpp is not None and not vpp.managed else 1)):
            try:
                return await self._work(self.node.start, self.wanted)
            except NotRunning as error:
                if not left or self._stop.is_set():
                    raise
                self._note("engine", f"waiting: {error.message}")
            await asyncio.sleep(START_LOOK_S)
        raise AssertionError("the last look returns or raises")

    async def handle(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        """A request of the control socket. Raises IpshareError with what the caller should know."""
        verb = request["verb"]
        if verb in self.remaps.verbs:
            return await self._remap(caller, request)
        if verb not in self._handlers:
            known = ", ".join([*self._handlers, *self.remaps.verbs])
            raise IpshareError(f"the agent knows no verb {verb!r}", hint=f"it knows {known}")
        return await self._handlers[verb](caller, request)

    # ---- verbs --------------------------------------------------------------

    async def _status(self, _caller: Asker, _request: dict[str, Any]) -> dict[str, Any]:
        state = self.node.store.state()
        config = self.node.config or self.wanted
        info = await self._work(self.node.engine_info)
        return {
            "node": config.node.name,
            "version": __version__,
            "pid": os.getpid(),
            "file": str(self.file),
            "engine_pid": info.pid if info else None,
            "generation": info.generation if info else 0,
            "engine_restarts": self.guard.restarts,
            "confirm_within_s": remaining_s(state, self.node.clock),
            "can_roll_back": bool(state.previous),
            "notes": dict(self.notes),
            "paths": self.prober.report(),
            "pair": await self._pair_status(config),
            "leases": self.leases.report(),
            "bgp": await self.bgp.status(),
            "assigned": self.assignment.report(),
            "remote": self.remote.report(),
            "workloads": self.workloads.report(),
            **await self.flows.status(config),
        }

    async def _pair_status(self, config: Config) -> dict[str, Any] | None:
        state = await self._work(self.node.pair_state)
        return pair_report(state, config.pair) if state is not None and config.pair is not None else None

    async def _apply(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        path, within = request.get("path"), request.get("confirm_within_s")
        file = Path(path) if isinstance(path, str) else self.file
        if file != self.file and not caller.is_owner:
            raise NoPrivilege(
                f"only root may make the agent read {file}",
                hint=f"others may apply its own file, {self.file}",
            )
        if within is not None and not isinstance(within, int | float):
            raise IpshareError("confirm_within_s is a number of seconds")

        def change() -> Done:
            return self.node.apply(configuration.load(file), within)

        done = await self._change("apply", str(file), str(caller), change)
        return result(done) | {"confirm_within_s": within}

    async def _reload(self, caller: Asker, _request: dict[str, Any]) -> dict[str, Any]:
        return await self._apply(caller, {})

    async def _confirm(self, caller: Asker, _request: dict[str, Any]) -> dict[str, Any]:
        await self._change("confirm", "the configuration on trial", str(caller), self.node.confirm)
        return {"confirmed": True}

    async def _rollback(self, caller: Asker, _request: dict[str, Any]) -> dict[str, Any]:
        check_rollback(self.node.store.state(), self.assignment)
        return result(await self._change("rollback", "to the one before", str(caller), self.node.rollback))

    async def _probe(self, _caller: Asker, _request: dict[str, Any]) -> dict[str, Any]:
        await self._probe_once()
        return {"paths": self.prober.report()}

    async def _pair(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        order = request.get("order")
        if order not in ORDERS:
            raise IpshareError(f"a pair knows no order {order!r}", hint=f"it knows {', '.join(ORDERS)}")
        if order == "force" and not caller.is_owner:
            raise NoPrivilege("only root may force this node to be active")
        await self._change("pair", order, str(caller), lambda: self.node.pair_command(order))
        return {"ordered": order}

    async def _close_sessions(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        words = request.get("wanted")
        if not isinstance(words, dict):
            raise IpshareError("wanted is an object: which sessions")
        wanted, what = SessionFilter.parse(words), ", ".join(f"{k} {v}" for k, v in words.items())
        closed = await self._change(
            "close_sessions", what or "all", str(caller), lambda: self.node.close_sessions(wanted)
        )
        return {"closed": closed}

    async def _remap(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        changes, job = self.remaps.verbs[request["verb"]]
        if not changes:
            return await self._work(job, request)
        what = " ".join(f"{k}={v}" for k, v in request.items() if k != "verb")
        done = await self._change(request["verb"], what, str(caller), lambda: job(request))
        self.generation = done.get("generation", self.generation)
        self._note("remap", await self._work(self.remaps.troubles))
        return done

    async def _down(self, caller: Asker, _request: dict[str, Any]) -> dict[str, Any]:
        if not caller.is_owner:
            raise NoPrivilege("only root may take the node down")
        config = self.node.config or self.wanted
        self.guard.close()
        await self.workloads.end()
        self.leases.give_back()
        self.leases.close()
        down = await self._change("down", "everything", str(caller), lambda: self.node.down(config))
        await self.pair.forget()
        asyncio.get_running_loop().call_later(0.05, self._stop.set)  # the answer goes out first
        return {
            "engine_stopped": down.engine_stopped,
            "engine": down.engine,
            "routes": list(down.routes),
        }

    # ---- jobs ---------------------------------------------------------------

    async def _on_hangup(self) -> None:
        notify.reloading()
        with contextlib.suppress(IpshareError):  # logged, noted and audited; the old configuration stays
            done = await self._change("reload", str(self.file), "SIGHUP", self._load_and_apply)
            log.info("reloaded %s: generation %d", self.file, done.generation)
        self._ready()

    def _load_and_apply(self) -> Done:
        return self.node.apply(configuration.load(self.file))

    def _engine_ended(self) -> None:
        self.bgp.look_soon()
        self._spawn(self._restart_engine())

    async def _restart_engine(self) -> None:
        began = time.monotonic()
        await asyncio.sleep(self.guard.backoff_s())
        log.error("the engine ended: starting it again")
        pause_s = RETRY_S
        while True:
            try:
                done = await self._work(self.node.reconcile)
                break
            except NotRunning as error:  # somebody else's VPP comes back when he starts it
                self._note("engine", f"the engine ended: {error.message}")
                pause_s = AWAIT_S / 2
            except IpshareError as error:  # the kernel may keep the old one's devices for a moment
                self._note("engine", f"the engine ended and does not start: {error.message}")
            if pause_s > RETRY_MAX_S:
                return  # the drift job tries again
            await asyncio.sleep(pause_s)
            pause_s *= 2
        self._changed("restart", "the engine had ended", "agent", done)
        took_ms = (time.monotonic() - began) * 1e3
        log.warning("the engine is back after %.0f ms, generation %d", took_ms, done.generation)

    async def _drift(self) -> None:
        while True:
            await asyncio.sleep(self.drift_s)
            with going_on("looking after the sockets"):
                await self._stay_reachable()
            with going_on("looking for drift"):
                drift = await self._work(self.node.drift)
                self._note("drift", "")
                if drift:
                    log.warning("not as it should be: %s; mending", "; ".join(drift))
                    await self._change("mend", "; ".join(drift), "agent", self.node.reconcile)
            await self._look_at_pair()
            await self.flows.look()
            self._note("remap", await self._work(self.remaps.troubles))
            self._follow_leases()

    def _pair_changed(self, change: PairChange) -> None:
        """In the event loop, once for each change of the engine's half of the pair."""
        what = f"{change.old or 'nothing'} -> {change.new}"
        log.warning("pair: %s: %s (epoch %d)", what, change.text, change.epoch)
        self.audit.record(
            who="engine", verb="pair", what=what, generation=self.generation, outcome=change.reason
        )
        config = self.node.config or self.wanted
        if config.pair is not None:
            self.routes.look(config.pair, change.new, change.epoch)
            self.hooks.changed(config.pair, change)
        self._follow_leases()
        self._spawn(self._look_at_pair())

    async def _look_at_pair(self) -> None:
        """What is wrong with the pair, as a note; and a watch that ended begins again."""
        state = await self._work(self.node.pair_state)
        pair = self.node.config.pair if self.node.config is not None else None
        self._note("pair", "; ".join(troubles(state, pair)) if state is not None and pair is not None else "")
        if state is not None and pair is not None:  # an agent that was started again points them again
            self.routes.look(pair, state.state, state.epoch)
        info = await self._work(self.node.engine_info)
        if info is not None:
            self._follow_pair(info.boot_id)

    def _follow_pair(self, boot_id: str) -> None:
        config = self.node.config
        self.pair.follow(self.node.engine if config is not None and config.pair else None, boot_id)

    async def _follow_remote(self) -> None:
        await self.remote.follow(self.node.config.remote if self.node.config is not None else None)
        self._note("assignment", self.assignment.trouble)

    def _follow_leases(self) -> None:
        """DHCP is spoken by the active node alone."""
        if self.node.config is not None:
            self.leases.follow(self.node.config, self.pair.state)
            self._note("leases", self.leases.troubles())

    async def _leases_changed(self) -> None:
        await self._change("lease", self.leases.summary(), "dhcp", self.node.reconcile)

    async def _stay_reachable(self) -> None:
        """Somebody emptied runtime_dir: lock and socket are made again; the engine's socket only the engine
        could make."""
        try:
            self.keep_lock()
            if not self.server.is_there():
                log.warning("%s was removed or replaced: making it again", self.server.path)
                self.server.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                await self.server.again()
            self._note("reach", "")
        except (IpshareError, OSError) as error:
            self._note("reach", f"nobody can reach this agent: {error}")
        well = await self._work(self.node.is_reachable)
        info = await self._work(self.node.engine_info)
        self._note("socket", "" if well or info is None else SOCKET_GONE.format(pid=info.pid))

    async def _trial(self) -> None:
        while True:
            left = remaining_s(self.node.store.state(), self.node.clock)
            if left == 0:
                with going_on("the rollback of a trial"):
                    await self._change("rollback", "not confirmed in time", "confirm timer", self.node.expire)
            await asyncio.sleep(min(left or TRIAL_POLL_S, TRIAL_POLL_S) + 0.001)

    def _is_well(self) -> bool:
        return self._busy_since is None or time.monotonic() - self._busy_since < STUCK_S

    async def _probing(self) -> None:
        """A round every interval; sooner, but ever more slowly, while a node is silent (starting)."""
        again_s = PROBE_AGAIN_S
        while True:
            config = self.node.config or self.wanted
            if config.probe.mtu:
                with going_on("probing"):
                    await self._probe_once()
            again_s = again_s * 2 if self.prober.silent() else PROBE_AGAIN_S
            await asyncio.sleep(min(config.probe.interval_s, again_s if self.prober.silent() else math.inf))

    async def _probe_once(self) -> None:
        config = self.node.config or self.wanted
        await asyncio.to_thread(self.prober.run, config)
        self._note("path_mtu", "; ".join(self.prober.alarms()))
        keep_s = int(PATH_KEPT_ROUNDS * config.probe.interval_s) + 1
        await self._work(self.node.learn, self.prober.measured(), keep_s)

    # ---- all changes pass here ----------------------------------------------

    async def _change(self, verb: str, what: str, who: str, change: Callable[[], T]) -> T:
        try:
            result = await self._work(change)
        except IpshareError as error:
            message = error.message.partition("\n")[0]
            self.audit.record(who=who, verb=verb, what=what, generation=self.generation, outcome=message)
            self._note(verb, f"{verb} failed: {message}")
            if isinstance(error, ConfigError):
                for problem in error.problems:
                    log.error("%s", problem)
            raise
        self._changed(verb, what, who, result)
        return result

    def _changed(self, verb: str, what: str, who: str, result: Any) -> None:
        if isinstance(result, Done):
            self.generation = result.generation
        self.audit.record(who=who, verb=verb, what=what, generation=self.generation, outcome="ok")
        for topic in ABOUT_FILE if verb in ABOUT_FILE else (verb,):
            self._note(topic, "")
        if isinstance(result, Done) and self.node.engine is not None:
            info = self.node.engine.info()
            self.guard.watch(info.pid)
            self._follow_pair(info.boot_id)
            self._spawn(self.flows.look())
            self._follow_leases()
            self.bgp.look_soon()
            self._spawn(self._follow_remote())
            self._note("engine", "")

    def _note(self, topic: str, text: str) -> None:
        if text and self.notes.get(topic) != text:
            log.warning("%s", text)
        if text:
            self.notes[topic] = text
        else:
            self.notes.pop(topic, None)

    async def _work(self, job: Callable[..., T], *arguments: Any) -> T:
        def timed() -> T:
            self._busy_since = time.monotonic()
            try:
                return job(*arguments)
            finally:
                self._busy_since = None

        return await asyncio.get_running_loop().run_in_executor(self._worker, timed)

    def _spawn(self, job: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await job
            except Exception:
                log.exception("a job of the agent failed")

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ready(self) -> None:
        well = "; ".join(self.notes.values()) or "all well"
        notify.notify("READY=1", f"STATUS=generation {self.generation}; {well}")
