"""failover: a unit of workloads whose place, or which itself, is down: what is to be done about it. Pure.

    nothing -> proposed   down by quorum, long enough, not suppressed; somewhere to go
            -> alarm      the same, and nowhere to go
    proposed -> moving    approved; in automatic mode at once, as far as the rate limit lets it
    moving -> done        it runs at the target: then the topology is changed, and the case is over

What is proposed, or an alarm, is withdrawn when it is up again. What moves is not called back: it may be
stopped already; only its target changes, if that one fails too. A case is a value that the director keeps in
its store: each step is taken once, or again with the same outcome, also by another director.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Phase = Literal["proposed", "alarm", "moving"]


@dataclass(frozen=True, slots=True)
class Case:
    """Of one unit. ``why``: what was seen when it began; ``note``: what it waits for, or why nothing can be
    done."""

    unit: str
    workloads: tuple[str, ...]
    source: str
    target: str
    phase: Phase
    why: str
    time: str
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "unit": self.unit, "workloads": list(self.workloads), "source": self.source,
            "target": self.target, "phase": self.phase, "why": self.why, "time": self.time,
            "note": self.note,
        }  # fmt: skip

    @classmethod
    def of_json(cls, data: dict[str, Any]) -> Case:
        return cls(**(data | {"workloads": tuple(data["workloads"])}))


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one unit now. ``down_s``: how long it has been down by quorum, in this arrangement; None: it is not.
    ``after_s``: how long what is down has to be; None: as long as the rules say.
    ``target``: where it could go, "": nowhere, because of ``nowhere``. ``is_target_able``: the target of its
    case can still take it. ``at``: the node that the topology has it on; ``is_there``: all of it runs at the
    case's target."""

    workloads: tuple[str, ...]
    at: str
    down_s: float | None
    why: str
    is_suppressed: bool = False
    target: str = ""
    nowhere: str = ""
    is_target_able: bool = True
    is_there: bool = False
    after_s: float | None = None

    def left_s(self, rules: Rules) -> float:
        """Until it has been down for long enough; 0 or less: it has. For ever where it is not down."""
        after_s = rules.after_s if self.after_s is None else self.after_s
        return math.inf if self.down_s is None else after_s - self.down_s


@dataclass(frozen=True, slots=True)
class Rules:
    """``mode``: off, propose, automatic. ``after_s``: how long it has to be down. ``has_room``: the rate
    limit lets another one begin."""

    mode: str
    after_s: float
    has_room: bool = True


def step(case: Case | None, unit: str, facts: Facts, rules: Rules, time: str) -> Case | None:
    """The next state; None: there is nothing to do. ``time``: now, for people."""
    if case is not None and (case.workloads != facts.workloads or facts.at != case.source):
        return None  # the topology is another one by now: it was moved, by this or by somebody
    if case is not None and case.phase == "moving":
        if facts.is_target_able:
            return case
        if facts.target:
            return replace(case, target=facts.target, note=f"{case.target} failed too")
        return replace(case, note=f"{case.target} failed too: {facts.nowhere}")
    if rules.mode == "off" or facts.left_s(rules) > 0 or facts.is_suppressed:
        return None
    begun = case or Case(unit, facts.workloads, facts.at, "", "proposed", facts.why, time)
    if not facts.target:
        return replace(begun, target="", phase="alarm", note=facts.nowhere)
    if rules.mode == "automatic" and rules.has_room:
        return replace(begun, target=facts.target, phase="moving", note="")
    limited = rules.mode == "automatic"
    note = "too many failovers lately: waits for approval" if limited else "waits for approval"
    target = (
        begun.target if begun.phase == "proposed" and begun.target and facts.is_target_able else facts.target
    )
    return replace(begun, target=target, phase="proposed", note=note)


def approved(case: Case) -> Case:
    """Somebody says yes to a proposal."""
    return replace(case, phase="moving", note="")


def is_done(case: Case, facts: Facts) -> bool:
    """It runs at its target: the topology may say so."""
    return case.phase == "moving" and facts.is_target_able and facts.is_there


def together(cases: Sequence[Case]) -> list[Case]:
    """Cases that go the same way for the same reason, as one each."""
    found: dict[tuple[str, str, str], Case] = {}
    for case in cases:
        key = (case.source, case.target, case.why)
        one = found.get(key)
        found[key] = case if one is None else replace(one, workloads=(*one.workloads, *case.workloads))
    return list(found.values())


def reason(case: Case, how: Mapping[str, str]) -> str:
    """What the revision says. ``how``: how each exclusive workload was freed at the source."""
    words = [f"{name} {how[name]}" for name in case.workloads if name in how]
    freed = f"; {', '.join(words)}" if words else ""
    return f"{', '.join(case.workloads)} from {case.source} to {case.target}: {case.why}{freed}"
