"""readiness: whether a node announces, and why (DESIGN.md 10). Pure: facts in, a state out.

It announces while the data path lives, has a complete generation of this node (whichever: never the newest
one only) that was seen to be so not longer than `max_stale` ago, the node is not drained, and, with
`withdraw_after`, its director is heard or this is the one that stays. Down at once, up when all has been well
for UP_S. End points do not enter: one that is dead withdraws nothing, since no
node knows whether others reach it, or whether it is the last that announces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

UP_S = 3.0
Word = Literal["announced", "draining", "drained", "rising", "held"]


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one moment. ``is_alive``: the engine answers. ``is_complete``: it has tables of this node.
    ``stale_s``: since it was last seen to have them. ``drained_s``: since a drain began; None: no drain.
    ``unheard_s``: since the director was heard that has others announce; None: there is none, or this node is
    the one that stays."""

    is_alive: bool
    is_complete: bool
    stale_s: float
    drained_s: float | None = None
    unheard_s: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """``good_since``: when all became well (monotonic seconds); None: it is not."""

    word: Word = "held"
    why: str = "not looked at yet"
    good_since: float | None = None

    @property
    def announces(self) -> bool:
        return self.word in ("announced", "draining")

    @property
    def is_draining(self) -> bool:
        return self.word == "draining"


def decide(
    state: State, facts: Facts, now: float, *, max_stale_s: float, drain_s: float,
    withdraw_after_s: float | None = None,
) -> State:  # fmt: skip
    """The next state. ``now``: monotonic seconds."""
    if trouble := _trouble(facts, max_stale_s) or _cut_off(facts, withdraw_after_s):
        return State("held", trouble)
    good_since = now if state.good_since is None else state.good_since
    if facts.drained_s is not None:
        left = drain_s - facts.drained_s
        if state.announces and left > 0:
            return State("draining", f"asks to prefer others; withdrawn in {left:.0f} s", good_since)
        return State("drained", "withdrawn by a drain", good_since)
    if state.word == "drained":  # as after a fault
        good_since = now
    if state.announces or now - good_since >= UP_S:
        return State("announced", "all is well", good_since)
    return State("rising", f"announced when all was well for {UP_S:g} s", good_since)


def wake_s(state: State, facts: Facts, now: float, drain_s: float) -> float | None:
    """In how many seconds ``decide`` says something else, if the facts stay; None: never."""
    if state.word == "rising" and state.good_since is not None:
        return max(0.0, state.good_since + UP_S - now)
    if state.word == "draining" and facts.drained_s is not None:
        return max(0.0, drain_s - facts.drained_s)
    return None


def _trouble(facts: Facts, max_stale_s: float) -> str:
    if not facts.is_alive:
        return "the engine is gone, or does not answer"
    if not facts.is_complete:
        return "the engine has no tables of this node yet"
    if facts.stale_s > max_stale_s:
        return f"for {facts.stale_s:.0f} s it is not known that the engine has this node's tables (max_stale)"
    return ""


def _cut_off(facts: Facts, withdraw_after_s: float | None) -> str:
    if withdraw_after_s is None or facts.unheard_s is None or facts.unheard_s < withdraw_after_s:
        return ""
    return f"the director was not heard for {facts.unheard_s:.0f} s, and others announce (withdraw_after)"
