"""bgp: what the agent has to do with announcements: looks, decides (ipshare.bgp.readiness), tells BIRD.

The engine's death needs nobody: BIRD sees the device go. The agent says when an announcement may begin, and
ends it for what only the agent sees: an engine that does not answer, tables that are not this node's, a
drain (ipshare.agent.bgp_drain). Its own death changes nothing; the next agent goes on from what BIRD
announces.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ipshare.agent import bgp_drain
from ipshare.agent.assignment import newest
from ipshare.agent.reconcile import Reconciler
from ipshare.agent.server import Asker
from ipshare.bgp.control import BirdGone
from ipshare.bgp.readiness import Facts, State, decide, wake_s
from ipshare.bgp.render import render
from ipshare.bgp.report import neighbor_rows, trouble_of
from ipshare.bgp.speaker import Report, find
from ipshare.bgp.where import namespace
from ipshare.errors import IpshareError, NoPrivilege, Problem, Refused
from ipshare.model import Bgp, BgpNeighbor, Config

log = logging.getLogger(__name__)
LOOK_S = 1.0
AGAIN_S = 10.0
"""Pause after BIRD could not be started or told."""
NO_BGP = "this node announces nothing"


class Announcer:
    """Of one node; everything in the event loop. ``work`` runs a job in the thread that all work of the
    node is done in; ``note`` (topic, text) notes what is wrong, "": nothing; ``changed`` (verb, what, who,
    result) is told of a drain."""

    def __init__(
        self,
        node: Reconciler,
        work: Callable[..., Awaitable[Any]],
        note: Callable[[str, str], None],
        changed: Callable[[str, str, str, Any], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._work, self._note, self._clock = node, work, note, clock
        self._audit = changed
        self.speaker = node.speaker
        self.state: State | None = None  # None: not looked yet
        self._seen_s = clock()  # when the engine was last seen to have this node's tables
        self._changed = asyncio.Event()
        self._busy = asyncio.Lock()
        self._trouble, self._not_before, self._holds = "", 0.0, 0
        self.unheard_s: Callable[[], float | None] = lambda: None
        """Since when its director is not heard, where that matters (ipshare.agent.workloads)."""
        self.verbs = {"bgp": self._bgp, "drain": self._drain}

    async def run(self) -> None:
        """For the life of the agent, from the first pass on."""
        while True:
            pause_s = LOOK_S
            try:
                pause_s = await self.look()
            except Exception:
                log.exception("looking after announcements failed; it is tried again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            self._changed.clear()

    def look_soon(self) -> None:
        """Something happened that a look may be due for: a new configuration, the engine's end."""
        self._changed.set()

    async def look(self) -> float:
        """One look, and what follows from it; returns in how many seconds the next one is due."""
        async with self._busy:
            config, holds = self._node.config, self.speaker.holds
            if config is None or config.bgp is None:
                await self._end_old(config)
                return LOOK_S
            facts, now = await self._facts(config), self._clock()
            if self.state is None:
                runs = await asyncio.to_thread(self.speaker.is_announcing, config.node.runtime_dir)
                self.state = State("announced", "as before", now) if runs else State()
            elif holds != self._holds:
                self.state = State("held", "another engine was started")
            self._holds = holds
            if holds != self.speaker.holds:  # an engine was started meanwhile: these facts are of the old one
                return 0.0
            before, bgp = self.state, config.bgp
            self.state = decide(
                before,
                facts,
                now,
                max_stale_s=bgp.max_stale_s,
                drain_s=bgp.drain_s,
                withdraw_after_s=bgp.withdraw_after_s,
            )
            if self.state.word != before.word:
                log.warning("announcements: %s -> %s: %s", before.word, self.state.word, self.state.why)
            await self._tell(config, holds)
            due = wake_s(self.state, facts, self._clock(), bgp.drain_s)
            return LOOK_S if due is None else min(LOOK_S, due + 0.001)

    async def _bgp(self, _caller: Asker, _request: dict[str, Any]) -> dict[str, Any]:
        found = await self.status()
        if found is None:
            raise Refused(NO_BGP, hint="see [bgp] in docs/configuration.md")
        return found

    async def _drain(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        """Answers when BIRD was told."""
        on = request.get("on")
        if not isinstance(on, bool):
            raise IpshareError("on is true or false")
        await self._bgp(caller, request)
        by = bgp_drain.asking(caller, request, newest(self._node.store.dir).number[0])
        await self._work(bgp_drain.keep, self._node.store, self._node.clock, on, by)
        self._audit("drain", "on" if on else "off", str(caller), None)
        await self.look()
        self.look_soon()
        return await self._bgp(caller, request)

    def announces(self) -> bool | None:
        """As far as this node decides it: None where it has no [bgp], or BIRD does not obey."""
        config = self._node.config
        if config is None or config.bgp is None or self.state is None or self._trouble:
            return None
        return self.state.announces

    async def status(self) -> dict[str, Any] | None:
        """For people and JSON; None: this node announces nothing."""
        config = self._node.config
        if config is None or config.bgp is None:
            return None
        report, state = await self._report(config), self.state or State()
        wanting = bgp_drain.holders(self._node.store)
        return {
            "state": state.word,
            "why": state.why,
            "drain": bool(wanting),
            "drained_by": wanting,
            "asn": config.bgp.asn,
            "router_id": str(config.bgp.router_id),
            "bird_pid": report.pid if report else None,
            "bird_version": report.version if report else None,
            "trouble": self._trouble,
            "networks": [
                {"name": n.name, "prefix": str(n.prefix), "announced": state.announces and report is not None}
                for n in config.networks
            ],
            "neighbors": neighbor_rows(config.bgp, report, time.time()),
        }

    # ---- inside ---------------------------------------------------------------

    async def _facts(self, config: Config) -> Facts:
        info = await self._work(self._node.engine_info)
        is_complete = info is not None and (info.boot_id, info.generation) == self._node.left
        now = self._clock()
        if is_complete:
            self._seen_s = now
        has_tables = info is not None and info.generation > 0 and info.boot_id == self._node.left[0]
        drained_s = bgp_drain.since_s(self._node.store, self._node.clock)
        return Facts(info is not None, has_tables, now - self._seen_s, drained_s, self.unheard_s())

    async def _tell(self, config: Config, holds: int) -> None:
        assert self.state is not None and config.bgp is not None, "looked at before"
        if self._clock() < self._not_before:
            return
        try:
            text = render(
                config,
                announces=self.state.announces,
                is_draining=self.state.is_draining,
                passwords=await asyncio.to_thread(passwords_of, config.bgp),
            )
            if await asyncio.to_thread(
                self.speaker.publish, config.node.runtime_dir, text, holds, namespace(config)
            ):
                log.info("BIRD was told: %s", self.state.word)
            self._trouble = ""
        except IpshareError as error:
            self._trouble = error.message
            self._not_before = self._clock() + AGAIN_S
            if not self.state.announces:  # what could not be told must not be announced all the same
                await asyncio.to_thread(self.speaker.hold, config.node.runtime_dir)
        held = f"nothing is announced: {self.state.why}" if self.state.word == "held" else ""
        if self.state.word in ("draining", "drained"):
            held = f"{self.state.word}: {bgp_drain.ends_it(bgp_drain.holders(self._node.store))}"
        sessions = "" if self._trouble else trouble_of(config.bgp, await self._report(config), time.time())
        self._note("bgp", "; ".join(filter(None, [self._trouble, held, sessions])))

    async def _report(self, config: Config) -> Report | None:
        try:
            return await asyncio.to_thread(self.speaker.report, config.node.runtime_dir)
        except BirdGone:
            return None
        except IpshareError as error:
            self._trouble = error.message
            return None

    async def _end_old(self, config: Config | None) -> None:
        """A configuration without [bgp] took the place of one with it."""
        self.state = None
        if config is not None and self.speaker.is_there(config.node.runtime_dir):
            await asyncio.to_thread(self.speaker.end, config.node.runtime_dir)
            log.warning("announcements ended: the configuration has no [bgp]")
        self._note("bgp", "")


def preflight(config: Config) -> list[Problem]:
    """What keeps this node from announcing: no BIRD, a password that cannot be had."""
    found = []
    if config.bgp is not None:
        try:
            find()
            render(config, announces=True, passwords=passwords_of(config.bgp))
        except IpshareError as error:
            found.append(Problem("this machine", 0, 0, "", error.message, error.hint))
    return found


def passwords_of(bgp: Bgp) -> dict[str, str]:
    """By address of the neighbour. Raises Refused, NoPrivilege."""
    return {
        str(n.address): _password(n, n.password_file) for n in bgp.neighbors if n.password_file is not None
    }


def _password(neighbor: BgpNeighbor, file: Path) -> str:
    whose = f"the password of neighbour {neighbor.address} in {file}"
    try:
        mode, text = stat.S_IMODE(file.stat().st_mode), file.read_text()
    except PermissionError:
        raise NoPrivilege(f"may not read {whose}", hint="run as root") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise Refused(f"cannot read {whose}: {reason}", hint="write it into that file, chmod 0600") from None
    if mode & 0o077:
        raise Refused(f"others than its owner may read {whose} (mode {mode:04o})", hint=f"chmod 0600 {file}")
    return text.partition("\n")[0].strip()
