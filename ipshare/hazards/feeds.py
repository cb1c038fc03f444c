"""What is known of one feed: its last good document, how old that is, when to ask again. Pure.

A feed is fresh while its last good answer ("as before", 304, is one) is not older than max_age, and, where
the configuration asks for it, the document itself is not older than content_max_age: some feeds stop and go
on answering. Otherwise it is stale, or it never answered. What it said last goes on counting until it ends
by its own times. Two clocks: `at` is monotonic seconds (intervals, ages), `now` is wall time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ipshare.hazards import cap, nws, usgs
from ipshare.hazards.look import replaced
from ipshare.hazards.model import Key, Parsed, Report, Unsound

PARSERS: dict[str, Callable[[bytes], Parsed]] = {"nws": nws.parse, "cap": cap.parse, "usgs": usgs.parse}
LONGEST_BACKOFF_S = 900.0
LONGEST_WISH_S = 3600.0
"""A server may ask for so long a pause (Retry-After)."""
VOIDS_KEPT_S = 172_800.0
"""Cancelled messages are remembered so long after a document named them last: another feed may be slower."""
MOST_VOIDS = 100_000


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed as configured."""

    name: str
    kind: Literal["nws", "cap", "usgs"]
    url: str
    interval_s: float = 60.0
    max_age_s: float = 600.0
    content_max_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What fetching gave. `body` None: not modified. `error`: why there is no answer."""

    body: bytes | None = None
    etag: str = ""
    modified: str = ""
    error: str = ""
    retry_after_s: float = 0.0
    parsed: Parsed | str | None = None
    """What ``parse`` said of the body, where somebody asked it already."""


@dataclass(slots=True)
class Known:
    """State of one feed; changed by ``take`` alone."""

    feed: Feed
    parsed: Parsed = field(default_factory=Parsed)
    etag: str = ""
    modified: str = ""
    good_at: float | None = None
    due_at: float = 0.0
    failures: int = 0
    error: str = ""
    polls: int = 0
    unchanged: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Over all documents, by reason."""
    voids: dict[Key, float] = field(default_factory=dict)


def take(known: Known, answer: Answer, at: float, now: float) -> None:
    """Takes in an answer. Never raises for what it holds."""
    known.polls += 1
    error = answer.error
    if not error and answer.body is not None:
        error = _read(known, answer, now)
    elif not error and known.good_at is None:
        error = "says that nothing changed since it never answered"
    if error:
        known.error = error
        known.failures += 1
        pause = min(known.feed.interval_s * 2 ** min(known.failures, 16), LONGEST_BACKOFF_S)
        wish = min(answer.retry_after_s, LONGEST_WISH_S)
        known.due_at = at + max(pause, known.feed.interval_s, wish)
        if answer.body is not None or error == "too long":
            known.refused[f"document: {error}"] += 1
        return
    known.unchanged += answer.body is None
    known.error, known.failures = "", 0
    known.good_at, known.due_at = at, at + known.feed.interval_s


def parse(kind: str, body: bytes) -> Parsed | str:
    """The document, or why it is none. It may take a second of a processor: not for an event loop."""
    try:
        return PARSERS[kind](body)
    except Unsound as error:
        return str(error)
    except Exception as error:  # a feed must never end the watch
        return f"unexpected {type(error).__name__}"


def _read(known: Known, answer: Answer, now: float) -> str:
    assert answer.body is not None, "the caller looked"
    parsed = answer.parsed if answer.parsed is not None else parse(known.feed.kind, answer.body)
    if isinstance(parsed, str):
        return parsed
    known.parsed, known.etag, known.modified = parsed, answer.etag, answer.modified
    known.refused.update(parsed.refused)
    known.voids.update(dict.fromkeys(replaced(parsed.alerts, now), now))
    fresh = [(key, seen) for key, seen in known.voids.items() if now - seen < VOIDS_KEPT_S]
    known.voids = dict(fresh[-MOST_VOIDS:])
    return ""


def state(known: Known, at: float, now: float) -> tuple[Literal["fresh", "stale", "never"], str]:
    """Whether the feed can be relied on, and why not."""
    if known.good_at is None:
        return "never", known.error or "not asked yet"
    if at - known.good_at > known.feed.max_age_s:
        return "stale", known.error or f"not asked for {at - known.good_at:.0f} s"
    limit, written = known.feed.content_max_age_s, known.parsed.written
    if limit is not None:
        if written is None:
            return "stale", "does not say when it was written"
        if now - written > limit:
            return "stale", f"answers, but what it says is {now - written:.0f} s old"
    return "fresh", known.error


def report(known: Known, at: float, now: float) -> Report:
    parsed = known.parsed
    is_fresh = state(known, at, now)[0] == "fresh"
    voids = frozenset(known.voids)
    return Report(known.feed.name, tuple(parsed.alerts), tuple(parsed.quakes), is_fresh, voids)


def status(known: Known, at: float, now: float) -> dict[str, Any]:
    """For people and programs."""
    word, why = state(known, at, now)
    return {
        "feed": known.feed.name,
        "kind": known.feed.kind,
        "url": known.feed.url,
        "state": word,
        "why": why,
        "age_s": None if known.good_at is None else round(at - known.good_at, 1),
        "written_s": None if known.parsed.written is None else round(now - known.parsed.written, 1),
        "next_s": round(max(0.0, known.due_at - at), 1),
        "polls": known.polls,
        "unchanged": known.unchanged,
        "failures": known.failures,
        "alerts": len(known.parsed.alerts),
        "quakes": len(known.parsed.quakes),
        "refused": dict(sorted(known.refused.items())),
    }
