"""One half of a pair without network: all that an engine can be asked about its pair, moved by hand.

States, reasons and waiting are those of the control socket (IPS_CTL_PAIR_*): ``changes`` goes up at each set
and each change of state, a wait ends as soon as it differs from what was seen, at a clear, and with the
engine. Orders act at once; the peer is what the test says it is.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any, Self

from ipshare.core.pair import PAIR_REASONS
from ipshare.engine.failures import EngineGone, EngineSilent
from ipshare.engine.pairing import Order, PairSettings, PairState, encode
from ipshare.errors import EngineError, Refused

NOW_NS = 10**12
EMPTY = PairState(
    state="initial", old_state="initial", reason="NONE", reason_text=PAIR_REASONS[0].text, changes=0,
    since_ns=NOW_NS, now_ns=NOW_NS, epoch=0, epoch_node=0, forward_until_ns=0, peer_state="unknown",
    peer_heard_ns=0, paths_up=(), links_down=(), notes=(), sent=0, received=0, refused=0, jitter_ns=0,
    vip_answers=0, vip_refused=0, announcements=0,
)  # fmt: skip
TEXTS = {reason.name: reason.text for reason in PAIR_REASONS}


class PairedMemory:
    """What ``ipshare.engine.pairing.Pairing`` asks for. ``move`` and ``say`` are the test's hands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.settings: PairSettings | None = None
        self.now = EMPTY
        self.sets = 0
        self.is_gone = False
        self.moved = threading.Condition()

    def move(self, state: str, reason: str, **other: Any) -> None:
        """A change of state, and whoever waits is told."""
        with self.moved:
            self.now = replace(
                self.now, old_state=self.now.state, state=state, reason=reason, reason_text=TEXTS[reason],
                changes=self.now.changes + 1, **other,
            )  # fmt: skip
            self.moved.notify_all()

    def say(self, **other: Any) -> None:
        """Something else is so now; nobody is woken."""
        with self.moved:
            self.now = replace(self.now, **other)

    def pair_gone(self) -> None:
        """The engine's process ends."""
        with self.moved:
            self.is_gone = True
            self.moved.notify_all()

    # what an engine answers
    def set_pair(self, settings: PairSettings) -> None:
        with self.moved:
            if self.settings is None or encode(settings) != encode(self.settings):
                self.settings, self.now = settings, replace(EMPTY, changes=self.now.changes + 1)
                self.sets += 1
                self.moved.notify_all()

    def clear_pair(self) -> None:
        with self.moved:
            self.settings = None
            self.moved.notify_all()

    def pair_state(self) -> PairState | None:
        with self.moved:
            if self.is_gone:
                raise EngineGone("it was stopped")
            return self.now if self.settings is not None else None

    def watch_pair(self) -> Waiter:
        return Waiter(self)

    def pair_command(self, order: Order) -> None:
        if self.settings is None:
            raise Refused("no pair is set")
        if order == "switchover" and self.now.peer_state != "standby":
            raise Refused("the peer is not ready to take over")
        became = {"switchover": ("standby", "HANDED_OVER"), "force": ("active", "ORDERED"),
                  "maintenance": ("inop", "MAINTENANCE"), "service": ("standby", "FACTS_GOOD")}  # fmt: skip
        self.move(*became[order])


class Waiter:
    """One connection that waits."""

    def __init__(self, engine: PairedMemory) -> None:
        self.engine, self.ended = engine, False

    def wait(self, seen: int, timeout_s: float | None = None) -> PairState:
        engine, end = self.engine, None if timeout_s is None else time.monotonic() + timeout_s
        with engine.moved:
            while True:
                if self.ended:
                    raise EngineGone("the engine closed the connection")
                if engine.settings is None:
                    raise EngineError("no pair is set")
                if engine.now.changes != seen:
                    return engine.now
                if engine.is_gone:
                    raise EngineGone("the engine closed the connection")
                if not engine.moved.wait(None if end is None else max(0.0, end - time.monotonic())):
                    raise EngineSilent("nothing changed in time")

    def interrupt(self) -> None:
        with self.engine.moved:
            self.ended = True
            self.engine.moved.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True
