"""machine: a remap as a pure state machine: what is to be done now, and what follows from what came of it.

    binding -> readying -> preparing -> syncing -> leaving -> fencing -> taking      undoing -> undone
       -> flipping -> draining (-> naming) -> clearing -> done

``todo`` of a progress is a list of actions, each of which may be done again; ``advance`` takes what came of
one. Before ``flipping`` every failure is undone; from it on there is only forward (back is another remap).
Invariants, proved by tests over every order of events: nobody takes before the fence is applied, nobody flips
before the taker takes, nothing is cleared before every distribution point has flipped. Where connections of
an earlier giver drain still, it has a part of its own in the plan: it gives to the same taker, and leaves
when the later giver's fence is applied. No I/O, no clock: times are seconds that the caller says.
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
class Part:
    """What one giver gives; to the engines a remap of its own."""

    id: int
    prefix: Prefix
    origin: str
    giver: str
    channel: str
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of a remap; giver, taker and points are nodes, origin and to their end points.

    ``earlier``: who had it before and drains still, the oldest first; ids are lower. ``taker_had``: what the
    taker's tables said before. ``silence_s``: zero connections end it only after the address was tracked that
    long. ``patience_s``: of steps that can be undone.
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
    earlier: tuple[Part, ...] = ()
    replies_by_channel: bool = False
    quic: bool = False
    unknown_here: bool = False
    taker_had: str | None = None
    deadline_s: float | None = None
    silence_s: float = 0.0
    patience_s: float = 30.0

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of all givers, the oldest first."""
        return (*self.earlier, Part(self.id, self.prefix, self.origin, self.giver, self.channel, self.slot))

    @property
    def givers(self) -> tuple[str, ...]:
        return tuple(part.giver for part in self.parts)

    def part(self, remap: int) -> Part:
        return next(part for part in self.parts if part.id == remap)

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
    deadline counts. ``did``: ids of parts that are through with this step; ``fenced``: whose fence is done.
    ``opened_there``: of an undone remap, connections that the taker had opened."""

    plan: Plan
    step: Step = Step.BINDING
    since_s: float = 0.0
    took_s: float | None = None
    flipped: tuple[str, ...] = ()
    did: tuple[int, ...] = ()
    fenced: tuple[int, ...] = ()
    cleared: tuple[str, ...] = ()
    reason: str = ""
    cut: Cut | None = None
    opened_there: int = 0

    @property
    def leaving(self) -> Part:
        """Whose turn it is to leave: the latest giver first, so that whoever it is asked by opens."""
        return next(part for part in reversed(self.plan.parts) if part.id not in self.fenced)

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
    """``part``: id of the part that it is about; 0: of the whole."""

    what: What
    node: str
    role: RemapRole | None = None
    part: int = 0


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
    taker, left = plan.taker, [part for part in plan.parts if part.id not in at.did]
    match at.step:
        case Step.BINDING:
            return (Action(What.BIND, taker),)
        case Step.READYING | Step.TAKING:
            role = RemapRole.READY if at.step is Step.READYING else RemapRole.TAKING
            return tuple(Action(What.ROLE, taker, role, part.id) for part in left)
        case Step.PREPARING:
            return tuple(Action(What.ROLE, part.giver, RemapRole.PREPARING, part.id) for part in left)
        case Step.LEAVING:
            return (Action(What.ROLE, at.leaving.giver, RemapRole.LEAVING, at.leaving.id),)
        case Step.FENCING:
            return (Action(What.LOOK, at.leaving.giver, part=at.leaving.id),)
        case Step.SYNCING | Step.DRAINING:
            looked_at = left if at.step is Step.SYNCING else plan.parts
            return tuple(Action(What.LOOK, part.giver, part=part.id) for part in looked_at)
        case Step.FLIPPING:
            return tuple(Action(What.BIND, point) for point in at.waits_for)
        case Step.NAMING:
            nodes = ((node, part.id) for part in left for node in (part.giver, taker))
            return tuple(Action(What.NAME, node, part=remap) for node, remap in nodes)
        case Step.CLEARING:
            return _ends(at, [*((taker, part.id) for part in plan.parts), *_gives(plan)]) or tuple(
                Action(What.RELEASE, part.giver, part=part.id) for part in left
            )
        case Step.UNDOING:
            # Givers first, the latest before the earlier ones: each opens connections again before the node
            # that it asks forgets what it opened.
            ends = _ends(at, [*reversed(_gives(plan)), *((taker, part.id) for part in plan.parts)])
            return ends[:1] or (Action(What.UNBIND, taker),)
        case _:
            return ()


def _gives(plan: Plan) -> list[tuple[str, int]]:
    return [(part.giver, part.id) for part in plan.parts]


def _ends(at: Progress, halves: list[tuple[str, int]]) -> tuple[Action, ...]:
    """Those that are not cleared yet."""
    actions = [Action(What.CLEAR, node, part=remap) for node, remap in halves]
    return tuple(action for action in actions if _half_name(at.plan, action) not in at.cleared)


def _half_name(plan: Plan, action: Action) -> str:
    return action.node if action.part == plan.id else f"{action.node} {action.part}"


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
    return after if after != at else _waited(at, action, outcome, now_s)


def abort(at: Progress, now_s: float) -> Progress:
    """By an operator's wish; unchanged where it is too late for that."""
    return undo(at, "aborted", now_s) if at.step.can_be_undone else at


def undo(at: Progress, reason: str, now_s: float) -> Progress:
    return replace(at, step=Step.UNDOING, since_s=now_s, did=(), reason=reason)


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
        return replace(at, step=step, since_s=now_s, did=(), **more)  # type: ignore[arg-type]

    def through(step: Step, **more: object) -> Progress:
        """This part is; the next step when all are."""
        did = tuple(dict.fromkeys((*at.did, action.part)))
        if len(did) == len(at.plan.parts):
            return go(step, **more)
        return replace(at, did=did, **{key: value for key, value in more.items() if key == "cut"})  # type: ignore[arg-type]

    state, node = outcome.state, action.node
    match at.step:
        case Step.TAKING:
            return through(Step.FLIPPING, took_s=now_s)
        case Step.BINDING | Step.LEAVING:
            return go(_NEXT[at.step])
        case Step.READYING | Step.PREPARING:
            return through(_NEXT[at.step])
        case Step.SYNCING | Step.FENCING if state is None or not state.role.gives:
            return undo(at, f"{node} knows nothing of it any more", now_s)
        case Step.SYNCING if state is not None and state.is_ready:
            return through(Step.LEAVING)
        case Step.FENCING if state is not None and state.fence_applied:
            fenced = (*at.fenced, action.part)
            return go(Step.TAKING if len(fenced) == len(at.plan.parts) else Step.LEAVING, fenced=fenced)
        case Step.FLIPPING:
            flipped = replace(at, flipped=(*at.flipped, node))
            return flipped if flipped.waits_for else replace(flipped, step=Step.DRAINING, since_s=now_s)
        case Step.DRAINING if state is None:
            return replace(through(Step.CLEARING), reason=f"{node} knew nothing of it any more")
        case Step.DRAINING if state is not None and is_drained(at.plan, state):
            return through(Step.CLEARING)
        case Step.DRAINING:
            return replace(at, did=tuple(part for part in at.did if part != action.part))
        case Step.NAMING:
            return through(Step.CLEARING, cut=_together(at.cut, outcome.cut))
        case Step.CLEARING:
            if action.what is What.RELEASE:
                return through(Step.DONE)
            return replace(at, cleared=(*at.cleared, _half_name(at.plan, action)))
        case Step.UNDOING:
            if action.what is What.UNBIND:
                return go(Step.UNDONE)
            opened = at.opened_there + (_opened(state) if node == at.plan.taker else 0)
            return replace(at, cleared=(*at.cleared, _half_name(at.plan, action)), opened_there=opened)
        case _:
            return at


def _together(one: Cut | None, other: Cut | None) -> Cut | None:
    """Of two givers."""
    if one is None or other is None:
        return one or other
    return Cut(one.count + other.count, one.is_exact and other.is_exact, (*one.flows, *other.flows))


def _opened(state: RemapState | None) -> int:
    counters = state.counters if state is not None else {}
    return counters.get("opened", 0) + counters.get("opened_asked", 0)


def _waited(at: Progress, action: Action, outcome: Outcome, now_s: float) -> Progress:
    """Too long, perhaps."""
    waited = now_s - at.since_s >= at.plan.patience_s
    if at.step.can_be_undone and waited:
        return undo(at, _why(at, action, outcome), now_s)
    if at.step is Step.DRAINING and left_s(at, now_s) == 0:
        return replace(at, step=Step.NAMING, since_s=now_s, did=())
    if at.step is Step.NAMING and waited:
        return replace(at, step=Step.CLEARING, since_s=now_s, did=())
    return at


def _why(at: Progress, action: Action, outcome: Outcome) -> str:
    plan, within = at.plan, f"in {at.plan.patience_s:g} s"
    if not isinstance(outcome, Did):
        return f"{at.step.value}: {outcome.reason}"
    origin = plan.part(action.part).origin if action.part else plan.origin
    state = outcome.state
    if state is not None and not state.heard_ns:
        return f"{origin} did not hear {plan.to} {within}: is the channel's path open both ways?"
    if at.step is Step.FENCING:
        return f"{plan.to} did not have every connection of {origin} {within}"
    phase = f" (the mirror is {state.phase})" if state is not None else ""
    return f"the connections of {origin} were not at {plan.to} {within}{phase}"
