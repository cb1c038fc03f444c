"""health: what several nodes see of one end point or workload -> up, down or unknown; and how steady that is.

An observation counts while it is fresh; what is older says nothing, so that silence makes nobody down. An
observer that sees nothing but failures, at more than one place, is suspected itself and not counted. Down
takes a quorum: of a fixed number, or more than half of those that are heard. What went down too often lately
is suppressed: the verdict is shown, and nobody acts on it. Pure; times are seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

Word = Literal["up", "down", "unknown"]


@dataclass(frozen=True, slots=True)
class Observation:
    """``observer`` saw ``target``, which is at ``place``, at ``at_s``, and the same since ``since_s`` at
    least; None: at ``at_s`` only."""

    observer: str
    target: str
    up: bool
    at_s: float
    place: str = ""
    since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``why``: the observers' words; ``since_s``: since when enough of them see it down."""

    word: Word = "unknown"
    why: str = "nobody was heard"
    since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Track:
    """A verdict over time. ``since_s``: since when it is this one; ``penalty``: flaps, of which half is
    forgotten in each half-life, as of ``at_s``; ``last``: the last verdict that was not unknown."""

    verdict: Verdict = Verdict()
    since_s: float = 0.0
    penalty: float = 0.0
    at_s: float = 0.0
    last: Word = "unknown"
    is_suppressed: bool = False


def suspects(observations: Iterable[Observation], now_s: float, stale_s: float) -> frozenset[str]:
    """Observers that look at two places or more, and see nothing up at any."""
    places: dict[str, set[str]] = {}
    good: set[str] = set()
    for one in observations:
        if now_s - one.at_s <= stale_s:
            places.setdefault(one.observer, set()).add(one.place)
            good |= {one.observer} if one.up else set()
    return frozenset(name for name, at in places.items() if len(at) > 1) - good


def verdicts(
    targets: Iterable[str], observations: Iterable[Observation], now_s: float, *, stale_s: float,
    quorum: int | None = None,
) -> dict[str, Verdict]:  # fmt: skip
    """Of each target. ``quorum``: observers that it takes; None: more than half of those that are heard."""
    every = list(observations)
    doubted = suspects(every, now_s, stale_s)
    by_target: dict[str, list[Observation]] = {target: [] for target in targets}
    for one in every:
        if one.target in by_target:
            by_target[one.target].append(one)
    return {target: _verdict(seen, doubted, now_s, stale_s, quorum) for target, seen in by_target.items()}


def _verdict(
    seen: list[Observation], doubted: frozenset[str], now_s: float, stale_s: float, quorum: int | None
) -> Verdict:
    words, since = [], list[float]()
    ups = 0
    for one in sorted(seen, key=lambda one: one.observer):
        age_s = now_s - one.at_s
        said = f"{one.observer}: {'answers' if one.up else 'does not answer'}"
        if age_s > stale_s:
            words.append(f"{said}, {age_s:.0f} s ago: stale")
        elif one.observer in doubted:
            words.append(f"{said}, as nothing else does: not counted")
        else:
            words.append(said)
            ups += one.up
            since += [] if one.up else [one.at_s if one.since_s is None else one.since_s]
    why = "; ".join(words) or "nobody was heard"
    needed = quorum if quorum is not None else (ups + len(since)) // 2 + 1
    if len(since) >= max(1, needed):
        return Verdict("down", why, sorted(since)[max(1, needed) - 1])
    return Verdict("up" if ups else "unknown", why)


def track(before: Track, verdict: Verdict, now_s: float, *, flaps: int, half_life_s: float) -> Track:
    """The next state. Each change from up to down is a flap; suppressed from ``flaps`` of them on, until half
    of that is left."""
    penalty = before.penalty * 0.5 ** ((now_s - before.at_s) / half_life_s)
    if verdict.word == "down" and before.last == "up":
        penalty += 1
    is_suppressed = penalty >= (flaps / 2 if before.is_suppressed else flaps - 0.5)
    return Track(
        verdict,
        before.since_s if verdict.word == before.verdict.word else _began_s(before, verdict, now_s),
        penalty,
        now_s,
        before.last if verdict.word == "unknown" else verdict.word,
        is_suppressed,
    )


def tracked(
    before: Mapping[str, Track], found: Mapping[str, Verdict], now_s: float, *, flaps: int, half_life_s: float
) -> dict[str, Track]:
    """The next state of each."""
    return {
        name: track(
            before.get(name, Track(since_s=now_s, at_s=now_s)),
            verdict,
            now_s,
            flaps=flaps,
            half_life_s=half_life_s,
        )
        for name, verdict in found.items()
    }


def _began_s(before: Track, verdict: Verdict, now_s: float) -> float:
    """When a change was: what is down was so when the first probe began that nobody answered, and not before
    it was something else."""
    return now_s if verdict.since_s is None else min(now_s, max(verdict.since_s, before.since_s))


def rearranged(tracks: Mapping[str, Track], names: Iterable[str], now_s: float) -> dict[str, Track]:
    """What was changed on purpose has a new beginning: how long it was down before says nothing of now."""
    wanted = set(names)
    return {n: replace(t, since_s=now_s) if n in wanted else t for n, t in tracks.items()}
