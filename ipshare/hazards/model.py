"""The nouns: what a feed says (Alert, Quake), where sites are, what is looked for, what was found.

Times are seconds since 1970 (UTC), as alerts carry wall time. Every text in an Alert or Quake came from
outside and was cut to a length by its parser. Words of severity, certainty and urgency are CAP's
(CAP 1.2, 3.2.2), worst first. Pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from ipshare.hazards.geometry import Circle, Polygon

SEVERITIES = ("Extreme", "Severe", "Moderate", "Minor", "Unknown")
CERTAINTIES = ("Observed", "Likely", "Possible", "Unlikely", "Unknown")
URGENCIES = ("Immediate", "Expected", "Future", "Past", "Unknown")

Key = tuple[str, str]
"""Sender and identifier: nobody withdraws what somebody else said."""


@dataclass(frozen=True, slots=True)
class Area:
    """Where. `codes` are UGC ("TXZ213", "TXC201") and counties by number ("48201")."""

    polygons: tuple[Polygon, ...] = ()
    circles: tuple[Circle, ...] = ()
    codes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Info:
    """What is to be expected: one <info> of a CAP message."""

    event: str
    severity: str
    certainty: str
    urgency: str
    starts: float
    """onset, or effective, or sent."""
    until: float | None
    """ends, or expires; None: it says neither."""
    area: Area
    headline: str = ""
    is_over: bool = False
    """Its response type is AllClear."""


@dataclass(frozen=True, slots=True)
class Alert:
    key: Key
    sent: float
    status: str
    kind: str
    """Message type: Alert, Update, Cancel, Ack, Error."""
    references: tuple[Key, ...]
    """What it takes the place of, or cancels."""
    infos: tuple[Info, ...]


@dataclass(frozen=True, slots=True)
class Quake:
    ids: frozenset[str]
    """All names of it: each network that saw it gives one."""
    at: float
    updated: float
    magnitude: float
    longitude: float
    latitude: float
    place: str
    is_deleted: bool = False


@dataclass(slots=True)
class Parsed:
    """What one document said, and how much of it was refused, by reason."""

    alerts: list[Alert] = field(default_factory=list)
    quakes: list[Quake] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    written: float | None = None
    """When the document was written, as it says itself."""


class Unsound(ValueError):
    """A document, or a part of one, that cannot be taken. The text is the reason: one of a few, no data."""


@dataclass(frozen=True, slots=True)
class Place:
    """A site: coordinates, codes of its zones and county, or both."""

    name: str
    longitude: float | None = None
    latitude: float | None = None
    codes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class QuakeRule:
    """An earthquake of at least this magnitude within this distance is a hazard of this severity."""

    magnitude: float
    within_km: float
    severity: str = "Severe"


@dataclass(frozen=True, slots=True)
class Policy:
    """What counts as a hazard."""

    severity: str = "Severe"
    certainty: str = "Likely"
    urgency: str = "Expected"
    events: frozenset[str] = frozenset()
    """Only these, in lower case; empty: all."""
    ignore: frozenset[str] = frozenset()
    lead_s: float = 3600.0
    """A hazard counts so long before it starts."""
    longest_s: float = 86400.0
    """For so long counts what does not say when it ends."""
    quakes: tuple[QuakeRule, ...] = ()
    quake_age_s: float = 21600.0


@dataclass(frozen=True, slots=True)
class Report:
    """What one feed says now: its last good document, and whether that can still be relied on."""

    feed: str
    alerts: tuple[Alert, ...] = ()
    quakes: tuple[Quake, ...] = ()
    is_fresh: bool = True
    voids: frozenset[Key] = frozenset()
    """Withdrawn by earlier documents of this feed, whether or not it still says so."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A hazard meets a site."""

    site: str
    kind: Literal["alert", "earthquake"]
    id: str
    event: str
    severity: str
    starts: float
    until: float
    why: str
    feeds: tuple[str, ...]
    headline: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """The whole picture at one time. `blind`: feeds that are not fresh, so that a hazard may be missing."""

    at: float
    sites: tuple[str, ...]
    findings: tuple[Finding, ...]
    blind: tuple[str, ...]
    ignored: Counter[str]
    """Alerts and earthquakes that were sound and do not count, by reason."""

    def of(self, site: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.site == site)
