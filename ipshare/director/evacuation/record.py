"""record: an evacuation as a value, JSON through ``to_text``: what it leaves, its steps, what became of them.

    proposed     its plan waits for an answer; `refused` for good, or `over` with the hazard that it came from
    running      until everything that had to go went: `done`; or not all of it: `incomplete`
    stopped      begins nothing more until it is continued, as `incomplete` may be; `aborted`: never

The plan is made again before each batch, from what is then: steps that wait are replaced, those that moved,
failed or are on their way stay as they are. A step is a unit of placement: a group, or a workload that has
none. Pure: times come in as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from ipshare.placement.plan import Move, Plan

State = Literal["proposed", "running", "stopped", "done", "incomplete", "refused", "aborted", "over"]
StepState = Literal["waiting", "moving", "done", "failed"]
MOST_EVENTS = 500
OPEN: tuple[State, ...] = ("proposed", "running", "stopped")


@dataclass(frozen=True, slots=True)
class Step:
    """One unit on its way. ``revision``: the one that moved it; ``alone``: it failed beside others, and is
    tried once more by itself; ``way``: how it goes; ``bar``: why it cannot go so."""

    unit: str
    workloads: tuple[str, ...]
    size: float
    source: str
    source_site: str
    target: str
    target_site: str
    why: str
    state: StepState = "waiting"
    outcome: str = ""
    revision: int = 0
    alone: bool = False
    way: str = ""
    bar: str = ""


@dataclass(frozen=True, slots=True)
class Rest:
    """What cannot go anywhere."""

    unit: str
    workloads: tuple[str, ...]
    size: float
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Event:
    time: str
    text: str


@dataclass(frozen=True, slots=True)
class Evacuation:
    """``site`` or ``node``: what is left, the other one is empty. ``episode``: of hazards, if these began it.
    ``answer``: why it was approved or refused, by ``answered_by``."""

    id: str
    site: str
    node: str
    avoid: tuple[str, ...]
    who: str
    why: str
    time: str
    episode: str = ""
    state: State = "proposed"
    answered_by: str = ""
    answer: str = ""
    steps: tuple[Step, ...] = ()
    stays: tuple[Rest, ...] = ()
    exact: bool = True
    events: tuple[Event, ...] = ()

    @property
    def what(self) -> str:
        return f"site {self.site}" if self.site else f"node {self.node}"

    def of(self, *states: StepState) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.state in states)

    def noted(self, time: str, text: str) -> Evacuation:
        return replace(self, events=(*self.events, Event(time, text))[-MOST_EVENTS:])


def planned(
    evacuation: Evacuation, plan: Plan, way: Callable[[Move], tuple[str, str]] = lambda _move: ("", "")
) -> Evacuation:
    """With ``plan`` in place of what waits; ``way``: of each move, and why it cannot go so. Units that were
    moved or failed are not moved again."""
    kept = [step for step in evacuation.steps if step.state != "waiting"]
    alone = {step.workloads for step in evacuation.steps if step.alone}
    settled = {name for step in kept for name in step.workloads}
    new = [
        Step(
            move.unit, move.workloads, move.size, move.source, move.source_site, move.target,
            move.target_site, move.why, "waiting", "", 0, move.workloads in alone, *way(move),
        )
        for move in plan.moves
        if not settled.intersection(move.workloads)
    ]  # fmt: skip
    stays = [
        Rest(stay.unit, stay.workloads, stay.size, stay.node, stay.why)
        for stay in plan.stays
        if not settled.intersection(stay.workloads)
    ]
    return replace(evacuation, steps=(*kept, *new), stays=tuple(stays), exact=plan.is_exact)


def batch(evacuation: Evacuation, at_once: int) -> tuple[Step, ...]:
    """What is moved next, at once. Nothing while something is on its way; what is tried alone comes last."""
    if evacuation.of("moving"):
        return ()
    waiting = evacuation.of("waiting")
    together = tuple(step for step in waiting if not step.alone)
    return together[:at_once] or waiting[:1]


def stepped(evacuation: Evacuation, steps: Iterable[Step]) -> Evacuation:
    """With these in place of those of the same workloads."""
    new = {step.workloads: step for step in steps}
    return replace(evacuation, steps=tuple(new.get(step.workloads, step) for step in evacuation.steps))


def failed_together(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Steps of one batch that failed, as what they become: if there are several, each may be innocent and is
    tried once more, alone. What failed to go alive harmed nobody, and nobody harmed it: it has failed."""
    failed = [step for step in steps if step.state == "failed" and step.way != "live"]
    if len(failed) < 2:
        return tuple(failed)
    return tuple(step if step.alone else replace(step, state="waiting", alone=True) for step in failed)


def again(evacuation: Evacuation) -> Evacuation:
    """To be gone on with: what failed waits, with the others."""
    steps = (
        replace(s, state="waiting", outcome="", alone=False) if s.state == "failed" else s
        for s in evacuation.steps
    )
    return replace(evacuation, steps=tuple(steps), state="running")


def ended(evacuation: Evacuation) -> Evacuation:
    """When nothing waits and nothing is on its way."""
    good = not evacuation.stays and not evacuation.of("failed")
    return replace(evacuation, state="done" if good else "incomplete")


def to_text(evacuation: Evacuation) -> str:
    return json.dumps(asdict(evacuation))


def from_text(text: str) -> Evacuation:
    record = json.loads(text)
    steps = tuple(Step(**{**one, "workloads": tuple(one["workloads"])}) for one in record.pop("steps"))
    stays = tuple(Rest(**{**one, "workloads": tuple(one["workloads"])}) for one in record.pop("stays"))
    events = tuple(Event(**one) for one in record.pop("events"))
    record["avoid"] = tuple(record["avoid"])
    return Evacuation(**record, steps=steps, stays=stays, events=events)
