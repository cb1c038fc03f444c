"""A file's `[hazards]` and `[[site]]` -> Settings; all mistakes at once, other tables are not looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ipshare.config import some
from ipshare.config.read import Document
from ipshare.config.schema_hazards import Hazards, SiteTable
from ipshare.config.some import Finding
from ipshare.hazards.evacuations import Rules
from ipshare.hazards.feeds import Feed
from ipshare.hazards.model import Place, Policy, QuakeRule
from ipshare.hazards.reading import code
from ipshare.hazards.zips import NoSuchZip, locate


@dataclass(frozen=True, slots=True)
class Settings:
    sites: tuple[Place, ...]
    feeds: tuple[Feed, ...]
    policy: Policy
    rules: Rules
    contact: str
    timeout_s: float


def load(path: Path) -> Settings:
    """Raises ConfigError with every mistake."""
    return settings(some.document_of(path))


def settings(document: Document) -> Settings:
    """The same for a file that was read; raises ConfigError, also for what `document` had against it."""
    sites = some.every(document, "site", SiteTable)
    table = some.one(document, "hazards", Hazards)
    some.note(document, some.twice(sites, "sites"))
    places: list[Place] = []
    for site in sites:
        some.note(document, _site(site, places))
    if not sites and "site" not in document.data:
        some.note(document, [((), "there is no site", 'write [[site]] with name = "..." and zip = "..."')])
    if table is None and "hazards" not in document.data:
        some.note(document, [((), "table [hazards] is missing", "write [hazards] and [[hazards.feed]]")])
    if table is not None:
        some.note(document, _hazards(table))
    some.done(document)
    assert table is not None, "that was a mistake"
    return Settings(tuple(places), _feeds(table), _policy(table), _rules(table), table.contact, table.timeout)


def places(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Place], list[str]]:
    """Rows of `[[site]]` that were judged before -> places, and what nobody knows about others."""
    found: list[Place] = []
    unknown = []
    for row in rows:
        site = SiteTable.model_validate(dict(row))
        one: list[Place] = []
        mistakes = list(_site(site, one))
        if mistakes:
            unknown.append(f"site {site.name}: {mistakes[0][1]}")
        else:
            found += one
    return found, unknown


def _site(site: SiteTable, places: list[Place]) -> Iterator[Finding]:
    """Mistakes of one site, which is added to `places` if it has none."""
    path = site._path
    codes = set()
    for key, wanted in (("ugc", "TXZ213 or TXC201"), ("same", "048201")):
        for index, written in enumerate(getattr(site, key)):
            if code(written) and code(written)[0].isdigit() == (key == "same"):
                codes.add(code(written))
            else:
                yield (*path, key, index), f"not a code: {written!r}", f"write it as {wanted}"
    x, y = site.longitude, site.latitude
    if (x is None) != (y is None):
        yield path, "latitude and longitude go together", "write both, or zip"
    elif site.zip is not None and x is None:
        try:
            x, y = locate(site.zip)
        except NoSuchZip as error:
            yield (*path, "zip"), error.message, error.hint
    elif x is None and not codes:
        yield path, "nobody knows where this site is", "write zip, or latitude and longitude, or ugc"
    places.append(Place(site.name, x, y, frozenset(codes)))


def _hazards(table: Hazards) -> Iterator[Finding]:
    if not table.feed:
        yield ("hazards", "feed"), "no feed is asked", "write [[hazards.feed]] with kind and url"
    for key in ("timeout", "per"):
        if getattr(table, key) <= 0:
            yield ("hazards", key), "must be above 0", 'for example "10s"'
    names: set[str] = set()
    for index, feed in enumerate(table.feed):
        path = ("hazards", "feed", index)
        if feed.name in names:
            yield (*path, "name"), f"two feeds have the name {feed.name!r}", "give one another name"
        names.add(feed.name)
        if not _is_url(feed.url):
            yield (*path, "url"), f"not a URL: {feed.url!r}", "write https://host/path"
        if feed.interval < 1:
            yield (*path, "interval"), "asks too often", 'at least "1s"; public feeds want a minute'
        if feed.max_age <= feed.interval:
            text = "the feed would be stale between two questions"
            yield (*path, "max_age"), text, "make it several times interval"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _feeds(table: Hazards) -> tuple[Feed, ...]:
    return tuple(
        Feed(feed.name, feed.kind, feed.url, feed.interval, feed.max_age, feed.content_max_age)
        for feed in table.feed
    )


def _policy(table: Hazards) -> Policy:
    return Policy(
        table.severity,
        table.certainty,
        table.urgency,
        frozenset(event.lower() for event in table.events),
        frozenset(event.lower() for event in table.ignore),
        table.lead,
        table.longest,
        tuple(QuakeRule(rule.magnitude, rule.within_km, rule.severity) for rule in table.earthquake),
        table.earthquake_age,
    )


def _rules(table: Hazards) -> Rules:
    return Rules(table.evacuate, table.automatic_severity, table.hold, table.at_most, table.per)
