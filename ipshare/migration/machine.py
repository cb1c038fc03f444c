"""machine: the steps of one migration, as a value; facts in, the next thing to do out. Pure.

    checking    every member can be migrated, its storage is in sync       refused: nothing was done
    expecting   the target's tables learn the addresses
    migrating   one member after the other; each is redirected by its own node the moment it runs there
    flipping    a new revision has the addresses at the target
    settling    until every distribution point has it
    clearing    redirects go                                                done
    undoing     nothing runs there: the target forgets the addresses       failed, cancelled

The line is the first member that runs at the target: before it everything is undone, after it there is no
way back but another migration. A group of which some are there and one failed is ``split``: it is served
where it runs, by the redirects, and the same command again sends the others after it. What is due follows
from the value alone, and may be done any number of times: a director that dies anywhere begins there again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from ipshare.errors import Refused


class Step(StrEnum):
    CHECKING = "checking"
    EXPECTING = "expecting"
    MIGRATING = "migrating"
    FLIPPING = "flipping"
    SETTLING = "settling"
    CLEARING = "clearing"
    UNDOING = "undoing"
    SPLIT = "split"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = frozenset({Step.DONE, Step.REFUSED, Step.FAILED, Step.CANCELLED})
IDLE = OVER | {Step.SPLIT}
"""Nothing is due."""


class Event(StrEnum):
    """What came of what was due."""

    DID = "did"
    REFUSED = "refused"
    THERE = "there"
    """The member that was due runs at the target, and is redirected if it can be."""
    HERE = "here"
    """It runs where it was, and nothing is under way."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A line of the timeline. ``at``: seconds since the epoch, of the clock of who saw it."""

    at: float
    what: str


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration of ``workloads`` (a group, or one) from node ``source`` to ``target``. ``there``: those
    that run at the target; ``revision``: the one that flips; ``reason``: what went wrong; ``order``: the
    evacuation that it is a step of."""

    id: str
    workloads: tuple[str, ...]
    source: str
    target: str
    who: str
    why: str
    step: Step = Step.CHECKING
    there: tuple[str, ...] = ()
    revision: int = 0
    reason: str = ""
    cancelling: bool = False
    notes: tuple[str, ...] = ()
    downtime_ms: float | None = None
    redirected_ms: float | None = None
    """From "runs at the target" to the redirect, of the slowest member."""
    times: tuple[Moment, ...] = ()
    order: str = ""

    @property
    def is_over(self) -> bool:
        return self.step in OVER

    @property
    def member(self) -> str:
        """The one that is due to be migrated."""
        return next(name for name in self.workloads if name not in self.there)


def advanced(m: Migration, event: Event, now: float, *, why: str = "", revision: int = 0) -> Migration:
    """What is so once ``event`` came of what was due. An event that does not belong to the step raises."""
    if m.step is Step.CHECKING:
        if m.cancelling:
            return _to(m, Step.CANCELLED, now)
        if event is Event.REFUSED:
            return _to(replace(m, reason=why), Step.REFUSED, now, why)
        return _to(m, Step.EXPECTING, now)
    if m.step is Step.EXPECTING:
        if event is Event.REFUSED or m.cancelling:
            reason = why or "cancelled"
            if m.there:  # a group that is split stays so
                return _to(replace(m, reason=reason, cancelling=False), Step.SPLIT, now, reason)
            return _to(replace(m, reason=reason), Step.UNDOING, now, reason)
        return _to(m, Step.MIGRATING, now)
    if m.step is Step.MIGRATING:
        return _migrated(m, event, now, why)
    if m.step is Step.FLIPPING and event is Event.DID:
        return _to(replace(m, revision=revision), Step.SETTLING, now, f"revision {revision}")
    if m.step is Step.SETTLING and event is Event.DID:
        return _to(m, Step.CLEARING, now)
    if m.step is Step.SETTLING and event is Event.REFUSED:  # somebody put the addresses back
        return _to(m, Step.FLIPPING, now, why)
    if m.step is Step.CLEARING and event is Event.DID:
        return _to(m, Step.DONE, now)
    if m.step is Step.UNDOING and event is Event.DID:
        return _to(m, Step.CANCELLED if m.cancelling else Step.FAILED, now)
    raise ValueError(f"{event.value} while {m.step.value}")


def _migrated(m: Migration, event: Event, now: float, why: str) -> Migration:
    if event is Event.THERE:
        m = replace(m, there=(*m.there, m.member))
        if len(m.there) < len(m.workloads):
            return m if not m.cancelling else _to(replace(m, cancelling=False), Step.SPLIT, now, "cancelled")
        return _to(replace(m, cancelling=False, reason=""), Step.FLIPPING, now)
    if event in (Event.HERE, Event.REFUSED):
        step = Step.SPLIT if m.there else Step.UNDOING
        reason = why or ("cancelled" if m.cancelling else "it runs where it was")
        return _to(replace(m, reason=reason, cancelling=m.cancelling and not m.there), step, now, reason)
    raise ValueError(f"{event.value} while {m.step.value}")


def cancelled(m: Migration, now: float) -> Migration:
    """Asked for by somebody; carried out by what is due. Raises Refused where there is no way back."""
    if m.is_over:
        raise Refused(f"migration {m.id} is over: {m.step.value}", hint="ipshare migrate --list")
    if m.step in (Step.FLIPPING, Step.SETTLING, Step.CLEARING, Step.SPLIT):
        raise Refused(
            f"{', '.join(m.there)} runs at {m.target}: there is no way back but another migration",
            hint=f"once it is done: ipshare migrate {m.workloads[0]} --to {m.source}",
        )
    return replace(m, cancelling=True, times=(*m.times, Moment(now, "cancellation asked for")))


def resumed(m: Migration, who: str, now: float) -> Migration:
    """A split group goes on."""
    if m.step is not Step.SPLIT:
        raise Refused(f"migration {m.id} is {m.step.value}")
    return _to(replace(m, reason="", who=who), Step.EXPECTING, now)


def noted(m: Migration, at: float, what: str) -> Migration:
    """A line more, once."""
    moment = Moment(at, what)
    return m if moment in m.times else replace(m, times=(*m.times, moment))


def _to(m: Migration, step: Step, now: float, detail: str = "") -> Migration:
    what = step.value + (f": {detail}" if detail else "")
    return replace(m, step=step, times=(*m.times, Moment(now, what)))


# ---- kept ---------------------------------------------------------------------


def encoded(m: Migration) -> str:
    return json.dumps(asdict(m))


def decoded(text: str) -> Migration:
    """Raises ValueError where ``text`` is none."""
    try:
        data: dict[str, Any] = json.loads(text)
        for name in ("workloads", "there", "notes"):
            data[name] = tuple(data[name])
        data["step"] = Step(data["step"])
        data["times"] = tuple(Moment(**moment) for moment in data["times"])
        return Migration(**data)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no migration: {error}") from None
