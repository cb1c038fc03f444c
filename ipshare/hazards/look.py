"""look(now, sites, reports, policy): which hazards meet which site. Pure, and the only judge of that.

Order: messages of all feeds, each once (by sender and identifier) -> without those that a later message of
the same sender replaced or cancelled -> Actual ones of type Alert or Update -> current by their times ->
as severe, certain and urgent as the policy wants -> meeting a site. Where an alert has a polygon or circle
and the site has coordinates, these decide; codes of zones and counties decide otherwise, as the counties of
a storm's polygon are mostly outside of it. Sources: CAP 1.2, chapter 3.2; the weather service's CAP guide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ipshare.hazards.geometry import distance_km, in_circle, in_polygon
from ipshare.hazards.model import (
    CERTAINTIES,
    SEVERITIES,
    URGENCIES,
    Alert,
    Area,
    Finding,
    Info,
    Key,
    Look,
    Place,
    Policy,
    Quake,
    Report,
)

SKEW_S = 300.0
"""A sender's clock may be ahead of ours by so much."""


def look(now: float, sites: Sequence[Place], reports: Sequence[Report], policy: Policy) -> Look:
    """All findings at the time `now`, worst first within a site, sites in their order."""
    ignored: Counter[str] = Counter()
    found = [*_alerts(now, sites, reports, policy, ignored), *_quakes(now, sites, reports, policy, ignored)]
    order = {site.name: number for number, site in enumerate(sites)}
    found.sort(key=lambda f: (order[f.site], SEVERITIES.index(f.severity), f.starts, f.id))
    blind = tuple(report.feed for report in reports if not report.is_fresh)
    return Look(now, tuple(order), tuple(found), blind, ignored)


def _alerts(
    now: float, sites: Sequence[Place], reports: Sequence[Report], policy: Policy, ignored: Counter[str]
) -> Iterator[Finding]:
    seen: dict[Key, tuple[Alert, list[str]]] = {}
    for report in reports:
        for alert in report.alerts:
            known = seen.setdefault(alert.key, (alert, []))
            if report.feed not in known[1]:
                known[1].append(report.feed)
    void = replaced((alert for alert, _ in seen.values()), now)
    void = void.union(*(report.voids for report in reports))
    for alert, feeds in seen.values():
        why_not = _no_alert(alert, void, now)
        infos = [] if why_not else [(info, _no_hazard(info, alert, policy, now)) for info in alert.infos]
        good = [info for info, reason in infos if not reason]
        if not good:
            ignored[why_not or next((reason for _, reason in infos if reason), "says nothing")] += 1
            continue
        for site in sites:
            hits = [(info, why) for info in good if (why := _meets(info.area, site))]
            if hits:
                info, why = min(hits, key=lambda hit: SEVERITIES.index(hit[0].severity))
                until = _until(info, policy)
                yield Finding(
                    site.name, "alert", alert.key[1], info.event, info.severity, info.starts, until, why,
                    tuple(feeds), info.headline,
                )  # fmt: skip


def replaced(alerts: Iterable[Alert], now: float) -> frozenset[Key]:
    """Keys that messages of the same sender, not older and Actual, replace or cancel."""
    every = {alert.key: alert for alert in alerts}
    void = set()
    for alert in every.values():
        if alert.status == "Actual" and alert.kind in ("Update", "Cancel") and alert.sent <= now + SKEW_S:
            for key in alert.references:
                old = every.get(key)
                newer = old is None or old.sent <= alert.sent
                if key[0] == alert.key[0] and key != alert.key and newer:
                    void.add(key)
    return frozenset(void)


def _no_alert(alert: Alert, void: frozenset[Key], now: float) -> str:
    if alert.status != "Actual":
        return "not actual"
    if alert.kind not in ("Alert", "Update"):
        return "cancelled" if alert.kind == "Cancel" else "no alert"
    if alert.key in void:
        return "replaced"
    return "from the future" if alert.sent > now + SKEW_S else ""


def _until(info: Info, policy: Policy) -> float:
    return info.starts + policy.longest_s if info.until is None else info.until


def _no_hazard(info: Info, alert: Alert, policy: Policy, now: float) -> str:
    event = info.event.lower()
    if info.is_over:
        return "all clear"
    if _until(info, policy) <= now:
        return "over"
    if info.starts - policy.lead_s > now:
        return "not yet"
    if event in policy.ignore or (policy.events and event not in policy.events):
        return "event not asked for"
    if SEVERITIES.index(info.severity) > SEVERITIES.index(policy.severity):
        return "not severe enough"
    if CERTAINTIES.index(info.certainty) > CERTAINTIES.index(policy.certainty):
        return "not certain enough"
    if URGENCIES.index(info.urgency) > URGENCIES.index(policy.urgency):
        return "not urgent enough"
    return ""


def _meets(area: Area, site: Place) -> str:
    """How the area meets the site; empty if it does not."""
    x, y = site.longitude, site.latitude
    if x is not None and y is not None and (area.polygons or area.circles):
        if any(in_polygon(x, y, polygon) for polygon in area.polygons):
            return "inside its polygon"
        for circle in area.circles:
            if in_circle(x, y, circle):
                return f"inside its circle of {circle.radius_km:.0f} km"
        return ""
    common = sorted(site.codes & area.codes) or sorted(site.codes & _whole_states(area, site))
    return f"zone or county {common[0]}" if common else ""


def _whole_states(area: Area, site: Place) -> frozenset[str]:
    """Codes of the site that a code of the area for a whole state ("TXZ000", "48000") or the whole
    country ("00000") covers."""
    whole = {code[:3] if code[0].isalpha() else code[:2] for code in area.codes if code.endswith("000")}
    return frozenset(
        code
        for code in site.codes
        if (code[:3] if code[0].isalpha() else code[:2]) in whole or (code[0].isdigit() and "00" in whole)
    )


def _quakes(
    now: float, sites: Sequence[Place], reports: Sequence[Report], policy: Policy, ignored: Counter[str]
) -> Iterator[Finding]:
    for quake, feeds in _one_each((report.feed, quake) for report in reports for quake in report.quakes):
        age = now - quake.at
        if quake.is_deleted or age > policy.quake_age_s or age < -SKEW_S:
            ignored["deleted" if quake.is_deleted else "over" if age > 0 else "from the future"] += 1
            continue
        if not any(quake.magnitude >= rule.magnitude for rule in policy.quakes):
            ignored["too weak"] += 1
            continue
        for site in sites:
            if site.longitude is None or site.latitude is None:
                continue
            far = distance_km(site.longitude, site.latitude, quake.longitude, quake.latitude)
            meant = [r for r in policy.quakes if quake.magnitude >= r.magnitude and far <= r.within_km]
            if meant:
                severity = min((rule.severity for rule in meant), key=SEVERITIES.index)
                yield Finding(
                    site.name, "earthquake", min(quake.ids), f"Earthquake {quake.magnitude:.1f}", severity,
                    quake.at, quake.at + policy.quake_age_s, f"{far:.0f} km away", feeds, quake.place,
                )  # fmt: skip


def _one_each(quakes: Iterable[tuple[str, Quake]]) -> Iterator[tuple[Quake, tuple[str, ...]]]:
    """Earthquakes that share a name are one: what was said of it last counts."""
    groups: list[tuple[set[str], list[tuple[str, Quake]]]] = []
    by_name: dict[str, int] = {}
    for feed, quake in quakes:
        met = sorted({by_name[name] for name in quake.ids if name in by_name})
        if not met:
            met = [len(groups)]
            groups.append((set(), []))
        home = groups[met[0]]
        for other in met[1:]:
            home[0].update(groups[other][0])
            home[1].extend(groups[other][1])
            groups[other] = (set(), [])
        home[0].update(quake.ids)
        home[1].append((feed, quake))
        by_name.update(dict.fromkeys(home[0], met[0]))
    for _, members in groups:
        if members:
            last = max((quake for _, quake in members), key=lambda quake: quake.updated)
            yield last, tuple(dict.fromkeys(feed for feed, _ in members))
