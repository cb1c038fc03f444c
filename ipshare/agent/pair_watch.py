"""pair_watch: follows the state of the engine's half of a pair, and tells each change once: log, hook.

A thread waits in the engine (IPS_CTL_PAIR_WAIT) and hands every state to the event loop, which never blocks.
What was told last is in runtime_dir/pair.json, for one boot of the machine: an agent that was started again
tells what happened meanwhile, and nothing twice; after the engine's death, that another began.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ipshare.engine.pairing import Pairing, PairState, PairWaiter
from ipshare.engine.protocol import Engine
from ipshare.errors import IpshareError

log = logging.getLogger(__name__)


BEGAN = "NONE"
"""The core's reason as long as nothing has changed since the pair was set."""
LAST_WORDS_S = 2.0
"""How long an engine that was ended may take to end its connection."""


@dataclass(frozen=True, slots=True)
class PairChange:
    """One change of state, as log and hook get it. ``old`` "": nothing was told before."""

    old: str
    new: str
    reason: str
    text: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Told:
    """The last state that was told: of which run of the engine, its number of changes there, its name."""

    boot_id: str = ""
    changes: int = 0
    state: str = ""


def change_between(told: Told, boot_id: str, now: PairState) -> PairChange | None:
    """What to tell after ``told``; None: nothing new. Pure.

    Of changes that were missed within one run of the engine the last one is told: its state is what counts,
    and it is told even if it is the state told before (the peer was active in between). A half that began
    anew (another run of the engine, another [pair]) is `initial`."""
    if told.boot_id == boot_id and told.changes == now.changes:
        return None
    if now.reason != BEGAN:
        return PairChange(now.old_state, now.state, now.reason, now.reason_text, now.epoch)
    if told.state in ("", now.state):
        return None
    return PairChange(told.state, now.state, now.reason, "the engine began anew", now.epoch)


class _Follower(threading.Thread):
    """Waits in one run of an engine, and ends with it, with its pair, or by ``stop``."""

    def __init__(self, engine: Pairing, heard: Callable[[_Follower, PairState | None], None]) -> None:
        super().__init__(name="pair", daemon=True)
        self._engine, self._heard, self._loop = engine, heard, asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._stopped = False
        self._waiter: PairWaiter | None = None

    def stop(self) -> None:
        """At once, from any thread; nothing is heard of it in the loop any more."""
        with self._lock:
            self._stopped = True
            if self._waiter is not None:
                self._waiter.interrupt()

    def run(self) -> None:
        try:
            with self._engine.watch_pair() as waiter:
                with self._lock:
                    self._waiter = waiter
                state = None if self._stopped else self._engine.pair_state()
                while state is not None:
                    self._say(state)
                    state = waiter.wait(state.changes)
        except IpshareError as error:
            log.debug("following the pair ended: %s", error.message)
        self._say(None)

    def _say(self, state: PairState | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._heard, self, state)


class PairWatch:
    """``tell`` is called in the event loop, once for each change. Call everything there."""

    def __init__(self, memory: Path, tell: Callable[[PairChange], None]) -> None:
        self.memory, self.tell = memory, tell
        self.state: PairState | None = None
        self._boot_id = ""
        self._follower: _Follower | None = None

    def follow(self, engine: Engine | None, boot_id: str) -> None:
        """From now on that engine's pair; None: no pair is wanted. Following on is nothing."""
        if engine is None or not isinstance(engine, Pairing):
            return self.close()
        if self._follower is not None and boot_id == self._boot_id:
            return None
        self.close()
        self._boot_id, self._follower = boot_id, _Follower(engine, self._heard)
        self._follower.start()
        return None

    def close(self) -> None:
        """Follows nothing any more."""
        if self._follower is not None:
            self._follower.stop()
        self._follower, self.state, self._boot_id = None, None, ""

    async def forget(self) -> None:
        """The engine was ended: what it said last is told, then nothing is followed or remembered."""
        if self._follower is not None:
            await asyncio.to_thread(self._follower.join, LAST_WORDS_S)
        self.close()
        self.memory.unlink(missing_ok=True)

    def _heard(self, follower: _Follower, state: PairState | None) -> None:
        if follower is not self._follower:
            return  # of an engine that is followed no more
        self.state = state
        if state is None:
            self._follower = None  # the next pass follows again
            return
        told = self._told()
        change = change_between(told, self._boot_id, state)
        if (told.boot_id, told.changes) != (self._boot_id, state.changes):
            self._remember(Told(self._boot_id, state.changes, state.state))
        if change is not None:
            self.tell(change)

    def _told(self) -> Told:
        try:
            return Told(**json.loads(self.memory.read_text()))
        except (OSError, ValueError, TypeError):
            return Told()

    def _remember(self, told: Told) -> None:
        aside = self.memory.with_suffix(".new")
        try:
            aside.write_text(json.dumps(asdict(told)))
            aside.replace(self.memory)
        except OSError as error:
            log.warning("cannot write %s: %s", self.memory, error.strerror)
