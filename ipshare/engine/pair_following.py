"""pair_following: the states of a node's half of a pair, one after the other, whatever becomes of its engine.

``next`` gives the first state at once and each further one when it is there. An engine that is away is waited
for as long as somebody is there to start another; that one begins anew, in `initial`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ipshare.engine.pairing import Pairing, PairState, PairWaiter
from ipshare.engine.watching import PATIENCE_S
from ipshare.errors import EngineError, NotRunning, Refused

AGAIN_S = 0.1
"""Time between two looks whether another engine is there."""


class PairFollowing:
    """``engine`` gives the one that runs now, and raises NotRunning where none does; ``is_kept`` tells
    whether an agent is there to start another. ``clock``: seconds, monotonic."""

    def __init__(
        self,
        engine: Callable[[], Pairing],
        is_kept: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._is_kept, self._clock = engine, is_kept, clock
        self._ended = threading.Event()
        self._waiter: PairWaiter | None = None
        self._seen: PairState | None = None

    def next(self) -> PairState:
        """Blocks until the state is another. Raises NotRunning (no engine, and none to come; or interrupted),
        Refused (half of no pair any more)."""
        began = self._clock()
        while True:
            try:
                state = self._wait()
            except NotRunning:
                self._waiter, waited_s = None, self._clock() - began
                if self._ended.is_set() or waited_s > PATIENCE_S or not (self._seen and self._is_kept()):
                    raise
                self._ended.wait(AGAIN_S)
                continue
            self._seen = state
            return state

    def interrupt(self) -> None:
        """From any thread: ``next`` raises NotRunning."""
        self._ended.set()
        if self._waiter is not None:
            self._waiter.interrupt()

    def _wait(self) -> PairState:
        if self._waiter is not None and self._seen is not None:
            try:
                return self._waiter.wait(self._seen.changes)
            except NotRunning:
                raise
            except EngineError:  # not the engine is gone but its pair, or that was set anew
                self._waiter = None
        if self._ended.is_set():
            raise NotRunning("the pair is followed no more")
        engine = self._engine()
        self._waiter, state = engine.watch_pair(), engine.pair_state()
        if state is None:
            raise Refused("the engine is half of no pair", hint="was [pair] taken out of the configuration?")
        return state
