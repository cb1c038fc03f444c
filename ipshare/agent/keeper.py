"""keeper: the process that keeps exclusive workloads to their leases, beside the agent and without it.

The agent brings leases, orders and commands over a socket in runtime_dir (the protocol of
ipshare.agent.server) and asks how things stand; what is to be done says ipshare.exclusive.holder. All
commands run here, one at a time for each workload, so that an agent that dies, hangs or is replaced stops
nothing from being stopped in time. Leases are kept in runtime_dir/leases.json, what was given back in
state_dir/released.json, on the disk before anybody is told: a keeper that is started again goes on, and
without a lease it starts nothing and stops what runs. It ends when it has no workloads any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ipshare.agent import hooks
from ipshare.agent.confirm import Clock, SystemClock
from ipshare.agent.server import Asker, Server
from ipshare.agent.store import Store
from ipshare.errors import IpshareError, Refused
from ipshare.exclusive import holder
from ipshare.exclusive.holder import Held, Word

log = logging.getLogger(__name__)
SOCKET = "keeper.sock"
LEASES, RELEASED = "leases.json", "released.json"
STATUS_S, STATUS_EVERY_S = 10.0, 2.0
AGAIN_S = 1.0
"""Pause after a command that failed."""
Request = dict[str, Any]


@dataclass
class Kept:
    """A workload, as its task has it."""

    name: str
    spec: dict[str, Any]
    held: Held
    addresses: list[str] = field(default_factory=list)
    over_ns: int = 0
    """The latest end of any lease since it was seen to be stopped; an order to stop does not change it."""
    why: str = ""
    kick: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def stop_ns(self) -> int:
        return int(self.spec["stop_s"] * 1e9)


class Keeper:
    """Of one node, whose name commands are told."""

    def __init__(self, runtime_dir: Path, state_dir: Path, node: str, clock: Clock) -> None:
        self._clock, self._node = clock, node
        self._volatile, self._lasting = runtime_dir / LEASES, Store(state_dir)
        self.kept: dict[str, Kept] = {}
        self.ended = asyncio.Event()
        released = self._lasting.kept(RELEASED)
        self._released: dict[str, int] = released or {}
        path = state_dir / RELEASED
        is_lost = released is None and path.exists()
        if is_lost:
            aside = path.with_name(RELEASED + ".damaged")
            path.replace(aside)
            log.error("%s is damaged, and kept as %s: no lease of before is held", path, aside.name)
        self._known, self._written = ({} if is_lost else self._load()), ""
        self._verbs = {"order": self._order, "fence": self._fence, "end": self._end}

    async def handle(self, caller: Asker, request: Request) -> Request:
        if not caller.is_owner or request["verb"] not in self._verbs:
            raise Refused("the keeper serves its agent alone")
        return await self._verbs[request["verb"]](request)

    async def _order(self, request: Request) -> Request:
        """{"specs": [...] or none, "holds": [...], "stops": [...]} -> how everything stands."""
        if request.get("specs") is not None:
            self._follow({spec["name"]: spec for spec in request["specs"]})
        for hold in request.get("holds", ()):
            self._hold(hold)
        for stop in request.get("stops", ()):
            if (kept := self.kept.get(stop["name"])) is not None:
                self._now(kept, holder.ordered_off(kept.held, stop["epoch"]))
        for kept in self.kept.values():
            kept.kick.set()
        self._write()
        return {"workloads": [self._row(kept) for kept in self.kept.values()]}

    def _follow(self, specs: dict[str, dict[str, Any]]) -> None:
        for name, spec in specs.items():
            if name in self.kept:
                self.kept[name].spec = spec
            else:
                addresses, held, over = self._known.pop(name, ([], Held(), 0))  # once: it may be given back
                held = replace(held, released=self._released.get(name, 0))
                if held.epoch <= held.released:
                    held = replace(held, until_ns=0, lease_ns=0)
                kept = self.kept[name] = Kept(name, spec, held, addresses, over)
                kept.task = asyncio.create_task(self._tend(kept), name=name)
        for name in set(self.kept) - set(specs):
            kept = self.kept[name]
            self._now(kept, replace(kept.held, until_ns=0, lease_ns=0))
            kept.spec = {**kept.spec, "gone": True}
        if not self.kept:
            self.ended.set()

    async def _end(self, _request: Request) -> Request:
        """Stops everything, then ends; answers when all has stopped."""
        self._follow({})
        while self.kept:
            for kept in list(self.kept.values()):
                kept.kick.set()
                assert kept.task is not None, "begun when it was followed"
                await kept.task
        return {"ended": True}

    def _hold(self, hold: Request) -> None:
        kept = self.kept.get(hold["name"])
        if kept is None or kept.spec.get("gone"):
            return
        if kept.spec["stop_s"] > hold["stop_s"]:
            kept.why = f"its stop_time is above the director's ({hold['stop_s']:g} s): no lease is taken"
            return
        try:
            if hold["boot"] != self._clock.boot_id():
                raise Refused("a lease from before this machine started")
            now, lease = self._clock.boottime_ns(), int(hold["lease_s"] * 1e9)
            self._now(kept, holder.granted(kept.held, hold["epoch"], hold["since_ns"], lease, now))
            kept.addresses = hold["addresses"]
        except Refused as error:
            kept.why = error.message

    async def _fence(self, request: Request) -> Request:
        kept = self.kept.get(request["name"])
        if kept is None or not kept.spec["fence"]:
            raise Refused(f"this node cannot fence {request['name']}", hint="see fence in [[workload]]")
        ran = await hooks.run(
            kept.spec["fence"], request["within_s"], workload=kept.name, node=request["node"]
        )
        if not ran.is_good:
            raise IpshareError(f"the fence command ended with {ran.status}: {ran.said}")
        return {"fenced": request["node"]}

    def _row(self, kept: Kept) -> Request:
        now = self._clock.boottime_ns()
        return {
            "name": kept.name,
            "epoch": kept.held.epoch,
            "released": kept.held.released,
            "state": kept.held.word,
            "may_run": kept.held.may_run(now, kept.stop_ns),
            "lease_left_s": round(max(0.0, (kept.held.until_ns - now) / 1e9), 3),
            "addresses": kept.addresses,
            "can_fence": bool(kept.spec["fence"]),
            "why": kept.why,
        }

    # ---- one workload -----------------------------------------------------------

    async def _tend(self, kept: Kept) -> None:
        while True:
            kept.kick.clear()
            pause_s: float | None = STATUS_EVERY_S
            try:
                pause_s = await self._round(kept)
            except Exception:
                log.exception("workload %s: a round failed; it is tried again", kept.name)
                self._now(kept, holder.became(kept.held, "unknown"))
            if kept.spec.get("gone") and kept.held.word == "stopped":
                del self.kept[kept.name]
                self._write()
                return self.ended.set() if not self.kept else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await kept.kick.wait()

    async def _round(self, kept: Kept) -> float | None:
        """One look and what follows; the pause after it, unless something comes."""
        now = self._clock.boottime_ns()
        what = holder.due(kept.held, now, kept.stop_ns)
        if what == "stop":
            return 0.0 if await self._stop(kept) else AGAIN_S
        if what == "start":
            return 0.0 if await self._start(kept) else AGAIN_S
        if what == "look" or kept.held.word == "running":
            runs = await self._runs(kept)
            if kept.held.word in ("unknown", "running"):
                if runs is False and kept.held.word == "running":
                    kept.why = "it ended by itself"
                word: Word = "unknown" if runs is None else "running" if runs else "stopped"
                self._now(kept, holder.became(kept.held, word))
            if not runs:
                return AGAIN_S if what != "look" or runs is None else 0.0
        wake = holder.wake_ns(kept.held, self._clock.boottime_ns(), kept.stop_ns)
        if kept.held.word == "running":
            return min(STATUS_EVERY_S, max(0.0, (wake or 0) / 1e9))
        return None if wake is None else max(0.0, wake / 1e9)

    async def _start(self, kept: Kept) -> bool:
        """False: it failed. A start that is under way when the lease runs out, or its time, is killed, and
        stopped."""
        self._now(kept, holder.became(kept.held, "starting"))
        most_s = kept.spec["start_s"]
        end_ns = self._clock.boottime_ns() + int(most_s * 1e9)
        try:
            running = await hooks.begin(kept.spec["start"], workload=kept.name, node=self._node)
        except OSError as error:
            kept.why = f"{kept.spec['start'][0]} cannot be started: {error.strerror}"
            self._now(kept, holder.became(kept.held, "stopped"))
            return False
        while (ran := await self._or_news(kept, running, end_ns)) is None:
            now = self._clock.boottime_ns()
            if not kept.held.may_run(now, kept.stop_ns):
                await running.kill()
                return True  # `due` says stop now
            if now >= end_ns:
                await running.kill()
                kept.why = f"start took longer than start_time ({most_s:g} s) and was killed"
                log.error("workload %s: %s", kept.name, kept.why)
                await self._stop(kept)
                return False
        if ran.is_good and await self._runs(kept):
            kept.why = ""
            self._now(kept, holder.became(kept.held, "running"))
            return True
        kept.why = f"start ended with {ran.status}, and it does not run: {ran.said}"
        await self._stop(kept)
        return False

    async def _or_news(self, kept: Kept, running: hooks.Running, end_ns: int) -> hooks.Ran | None:
        """Until it ends, the lease does, its time does, or something comes."""
        kept.kick.clear()
        now = self._clock.boottime_ns()
        wake = min(holder.wake_ns(kept.held, now, kept.stop_ns) or 0, end_ns - now)
        news = asyncio.create_task(kept.kick.wait())
        end = asyncio.create_task(running.wait(max(0.0, wake / 1e9)))
        await asyncio.wait({news, end}, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        if not end.done():
            end.cancel()
            await asyncio.gather(end, return_exceptions=True)
            return None
        return end.result()

    async def _stop(self, kept: Kept) -> bool:
        self._now(kept, holder.became(kept.held, "stopping"))
        ran = await hooks.run(kept.spec["stop"], kept.spec["stop_s"], workload=kept.name, node=self._node)
        runs = await self._runs(kept)
        if not ran.is_good or runs is not False:
            still = f"and {kept.why}" if runs is None else "and runs" if runs else "and may run"
            kept.why = f"it was to be stopped {still}: stop ended with {ran.status}: {ran.said}"
            log.error("workload %s: %s", kept.name, kept.why)
            self._now(kept, holder.became(kept.held, "stuck"))
            return False
        self._now(kept, holder.became(kept.held, "stopped"))
        return True

    async def _runs(self, kept: Kept) -> bool | None:
        """None: nobody knows, for its status command gave no answer; that is never taken for an end."""
        ran = await hooks.run(kept.spec["status"], STATUS_S, workload=kept.name, node=self._node)
        if ran.status is None or ran.status < 0:
            kept.why = f"nobody knows whether it runs: status ended with {ran.status}: {ran.said}"
            return None
        return ran.is_good

    # ---- what is remembered -------------------------------------------------------

    def _now(self, kept: Kept, held: Held) -> None:
        """What was given back is on the disk before ``held`` can be told to anybody."""
        if held == kept.held:
            return
        if held.released != kept.held.released:
            self._released[kept.name] = held.released
            self._lasting.keep(RELEASED, self._released)
        if held.word != kept.held.word:
            log.warning("workload %s: %s -> %s (epoch %d)", kept.name, kept.held.word, held.word, held.epoch)
        kept.held = held
        kept.over_ns = 0 if held.word == "stopped" else max(kept.over_ns, held.until_ns)
        self._write()

    def _write(self) -> None:
        """Leases; whoever loses them stops what runs, so that nothing has to be on the disk. Words and ends
        are for ipshare.appliance.guard_leases."""
        content = {
            kept.name: {
                "epoch": kept.held.epoch, "until_ns": kept.held.until_ns, "lease_ns": kept.held.lease_ns,
                "leaving": kept.held.leaving, "addresses": kept.addresses,
                "word": kept.held.word, "over_ns": kept.over_ns, "stop_ns": kept.stop_ns,
            }
            for kept in self.kept.values()
        }  # fmt: skip
        text = json.dumps({"boot": self._clock.boot_id(), "leases": content})
        if text == self._written:
            return
        aside = self._volatile.with_name(LEASES + ".new")
        aside.write_text(text)
        aside.replace(self._volatile)
        self._written = text

    def _load(self) -> dict[str, tuple[list[str], Held, int]]:
        try:
            record = json.loads(self._volatile.read_text())
            if record["boot"] != self._clock.boot_id():
                return {}
            return {
                name: (
                    list(one["addresses"]),
                    Held(int(one["epoch"]), int(one["until_ns"]), int(one["lease_ns"]), int(one["leaving"])),
                    int(one.get("over_ns", one["until_ns"])),
                )
                for name, one in record["leases"].items()
            }
        except (OSError, ValueError, KeyError, TypeError):
            return {}


async def serve(runtime_dir: Path, state_dir: Path, node: str) -> None:
    """Until it has no workloads, or SIGTERM; that leaves them as they are, for the next keeper."""
    lock = os.open(runtime_dir / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two would run two commands of one workload at once
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    keeper = Keeper(runtime_dir, state_dir, node, SystemClock())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, keeper.ended.set)
    server = Server(runtime_dir / SOCKET, keeper.handle)
    await server.start()
    os.write(1, b"ready\n")
    try:
        await keeper.ended.wait()
    finally:
        for kept in keeper.kept.values():
            if kept.task is not None:
                kept.task.cancel()
        await asyncio.gather(*(k.task for k in keeper.kept.values() if k.task), return_exceptions=True)
        await server.stop()


def main() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.Formatter.converter = time.gmtime
    asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))


if __name__ == "__main__":
    main()
