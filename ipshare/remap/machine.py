"""machine: a remap as a pure state machine: what is to be done now, and what follows from what came of it.

    binding -> readying -> preparing -> syncing -> leaving -> fencing -> taking      undoing -> undone
       -> flipping -> draining (-> naming) -> clearing -> done

``todo`` of a progress is a list of actions, each of which may be done again; ``advance`` takes what came of
one. Before ``flipping`` every failure is undone; from it on there is only forward (back is another remap).
Invariants, proved by tests over every order of events: nobody takes before the fence is applied, nobody flips
before the taker takes, nothing is cleared before every distribution point has flipped. No I/O, no clock:
times are seconds that the caller says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ipshare.engine.remapping import RemapRole, RemapState
from ipshare.model import Prefix


class Step(StrEnum):
    """Where a remap is: what is being done."""

    BINDING = "binding"  # the taker's tables learn the address
    READYING = "readying"
    PREPARING = "preparing"
    SYNCING = "syncing"  # the giver's connections go to the taker
    LEAVING = "leaving"
    FENCING = "fencing"
    TAKING = "taking"
    FLIPPING = "flipping"
    DRAINING = "draining"
    NAMING = "naming"  # the deadline has passed: what is cut
    CLEARING = "clearing"
    DONE = "done"
    UNDOING = "undoing"
    UNDONE = "undone"

    @property
    def is_over(self) -> bool:
        return self in (Step.DONE, Step.UNDONE)

    @property
    def can_be_undone(self) -> bool:
        """Nobody has flipped, nor was told to."""
        return self in _BEFORE


_BEFORE = (
    Step.BINDING, Step.READYING, Step.PREPARING, Step.SYNCING, Step.LEAVING, Step.FENCING, Step.TAKING,
)  # fmt: skip
_AFTER_FENCE = (Step.LEAVING, Step.FENCING, Step.TAKING)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of a remap; giver, taker and points are nodes, origin and to their end points.

    ``taker_had``: what the taker's tables said before. ``silence_s``: zero connections end it only after the
    address was tracked that long. ``patience_s``: of steps that can be undone.
    """

    id: int
    prefix: Prefix
    origin: str
    to: str
    giver: str
    taker: str
    points: tuple[str, ...]
    channel: str
    slot: int = 0
    replies_by_channel: bool = False
    quic: bool = False
    unknown_here: bool = False
    taker_had: str | None = None
    deadline_s: float | None = None
    silence_s: float = 0.0
    patience_s: float = 30.0

    def __str__(self) -> str:
        return f"{self.prefix} from {self.origin} to {self.to}"


@dataclass(frozen=True, slots=True)
class Cut:
    """Connections that the deadline cut. ``is_exact`` False: at most so many. ``flows``: as text, the first
    ones."""

    count: int
    is_exact: bool
    flows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a remap is. ``since_s``: when this step began; ``took_s``: when the taker took, from which the
    deadline counts. ``opened_there``: of an undone remap, connections that the taker had opened."""

    plan: Plan
    step: Step = Step.BINDING
    since_s: float = 0.0
    took_s: float | None = None
    flipped: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()
    reason: str = ""
    cut: Cut | None = None
    opened_there: int = 0

    @property
    def waits_for(self) -> tuple[str, ...]:
        """Distribution points that have not flipped."""
        return tuple(point for point in self.plan.points if point not in self.flipped)


class What(StrEnum):
    """What a node is asked for."""

    BIND = "bind"  # the address to the new end point
    UNBIND = "unbind"  # as it was at the taker
    RELEASE = "release"  # the giver's tables: it is elsewhere now, unless it came back
    ROLE = "role"
    LOOK = "look"
    NAME = "name"  # the giver's connections
    CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class Action:
    what: What
    node: str
    role: RemapRole | None = None


@dataclass(frozen=True, slots=True)
class Did:
    """It was done. ``state``: of the node's half; ``cut``: of NAME."""

    state: RemapState | None = None
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class No:
    """The node understood, and says why not."""

    reason: str


@dataclass(frozen=True, slots=True)
class Silent:
    """Nobody knows whether it was done."""

    reason: str


Outcome = Did | No | Silent


def todo(at: Progress) -> tuple[Action, ...]:
    """What is to be done now, in any order; again and again until the step changes."""
    plan = at.plan
    giver, taker = plan.giver, plan.taker
    match at.step:
        case Step.BINDING:
            return (Action(What.BIND, taker),)
        case Step.READYING:
            return (Action(What.ROLE, taker, RemapRole.READY),)
        case Step.PREPARING:
            return (Action(What.ROLE, giver, RemapRole.PREPARING),)
        case Step.LEAVING:
            return (Action(What.ROLE, giver, RemapRole.LEAVING),)
        case Step.TAKING:
            return (Action(What.ROLE, taker, RemapRole.TAKING),)
        case Step.SYNCING | Step.FENCING | Step.DRAINING:
            return (Action(What.LOOK, giver),)
        case Step.FLIPPING:
            return tuple(Action(What.BIND, point) for point in at.waits_for)
        case Step.NAMING:
            return Action(What.NAME, giver), Action(What.NAME, taker)
        case Step.CLEARING:
            ends = tuple(Action(What.CLEAR, node) for node in (taker, giver) if node not in at.cleared)
            return ends or (Action(What.RELEASE, giver),)
        case Step.UNDOING:
            # The giver first: it opens connections again before the taker forgets what it opened.
            left = [Action(What.CLEAR, node) for node in (giver, taker) if node not in at.cleared]
            return tuple(left[:1]) or (Action(What.UNBIND, taker),)
        case _:
            return ()


_NEXT = {
    Step.BINDING: Step.READYING,
    Step.READYING: Step.PREPARING,
    Step.PREPARING: Step.SYNCING,
    Step.LEAVING: Step.FENCING,
    Step.TAKING: Step.FLIPPING,
}


def advance(at: Progress, action: Action, outcome: Outcome, now_s: float) -> Progress:
    """What follows from ``outcome`` of an action of ``todo``. Anything else changes nothing."""
    if action not in todo(at):
        return at
    if isinstance(outcome, Did):
        after = _done(at, action, outcome, now_s)
    elif isinstance(outcome, No) and at.step.can_be_undone:
        return undo(at, f"{action.node}: {outcome.reason}", now_s)
    else:
        after = at
    return after if after != at else _waited(at, outcome, now_s)


def abort(at: Progress, now_s: float) -> Progress:
    """By an operator's wish; unchanged where it is too late for that."""
    return undo(at, "aborted", now_s) if at.step.can_be_undone else at


def undo(at: Progress, reason: str, now_s: float) -> Progress:
    return replace(at, step=Step.UNDOING, since_s=now_s, reason=reason)


def left_s(at: Progress, now_s: float) -> float | None:
    """Until the deadline; None: there is none, or it does not run yet."""
    if at.plan.deadline_s is None or at.took_s is None:
        return None
    return max(0.0, at.took_s + at.plan.deadline_s - now_s)


def is_drained(plan: Plan, state: RemapState) -> bool:
    """Nothing is left at the giver, counted after the fence, of an address that was tracked long enough."""
    counted = state.counted_ns > state.fence_ns > 0
    return counted and state.flows == 0 and state.now_ns - state.tracked_ns >= plan.silence_s * 1e9


def _done(at: Progress, action: Action, outcome: Did, now_s: float) -> Progress:
    def go(step: Step, **more: object) -> Progress:
        return replace(at, step=step, since_s=now_s, **more)  # type: ignore[arg-type]

    state, node = outcome.state, action.node
    match at.step:
        case Step.TAKING:
            return go(Step.FLIPPING, took_s=now_s)
        case Step.BINDING | Step.READYING | Step.PREPARING | Step.LEAVING:
            return go(_NEXT[at.step])
        case Step.SYNCING | Step.FENCING if state is None or not state.role.gives:
            return undo(at, f"{node} knows nothing of it any more", now_s)
        case Step.SYNCING if state is not None and state.is_ready:
            return go(Step.LEAVING)
        case Step.FENCING if state is not None and state.fence_applied:
            return go(Step.TAKING)
        case Step.FLIPPING:
            flipped = replace(at, flipped=(*at.flipped, node))
            return flipped if flipped.waits_for else replace(flipped, step=Step.DRAINING, since_s=now_s)
        case Step.DRAINING if state is None:
            return go(Step.CLEARING, reason=f"{node} knew nothing of it any more")
        case Step.DRAINING if state is not None and is_drained(at.plan, state):
            return go(Step.CLEARING)
        case Step.NAMING:
            return go(Step.CLEARING, cut=outcome.cut)
        case Step.CLEARING:
            if action.what is What.RELEASE:
                return go(Step.DONE)
            return replace(at, cleared=(*at.cleared, node))
        case Step.UNDOING:
            if action.what is What.UNBIND:
                return go(Step.UNDONE)
            opened = _opened(state) if node == at.plan.taker else at.opened_there
            return replace(at, cleared=(*at.cleared, node), opened_there=opened)
        case _:
            return at


def _opened(state: RemapState | None) -> int:
    counters = state.counters if state is not None else {}
    return counters.get("opened", 0) + counters.get("opened_asked", 0)


def _waited(at: Progress, outcome: Outcome, now_s: float) -> Progress:
    """Too long, perhaps."""
    waited = now_s - at.since_s >= at.plan.patience_s
    if at.step.can_be_undone and waited:
        return undo(at, _why(at, outcome), now_s)
    if at.step is Step.DRAINING and left_s(at, now_s) == 0:
        return replace(at, step=Step.NAMING, since_s=now_s)
    if at.step is Step.NAMING and waited:
        return replace(at, step=Step.CLEARING, since_s=now_s)
    return at


def _why(at: Progress, outcome: Outcome) -> str:
    plan, within = at.plan, f"in {at.plan.patience_s:g} s"
    if not isinstance(outcome, Did):
        return f"{at.step.value}: {outcome.reason}"
    state = outcome.state
    if state is not None and not state.heard_ns:
        return f"{plan.origin} did not hear {plan.to} {within}: is the channel's path open both ways?"
    if at.step is Step.FENCING:
        return f"{plan.to} did not have every connection of {plan.origin} {within}"
    phase = f" (the mirror is {state.phase})" if state is not None else ""
    return f"the connections of {plan.origin} were not at {plan.to} {within}{phase}"
