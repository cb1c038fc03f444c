"""Which alerts and earthquakes count, and which site they meet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipshare.hazards import cap, nws, usgs
from ipshare.hazards.look import look
from ipshare.hazards.model import Finding, Look, Place, Policy, QuakeRule, Report
from tests import hazard_feeds as made
from tests.hazard_feeds import NOW, SENDER

HOUSTON = Place("houston", -95.37, 29.76, frozenset({"TXZ213", "TXC201", "48201"}))
DENVER = Place("denver", -104.99, 39.74, frozenset({"COZ040"}))
CODES = Place("codes", codes=frozenset({"TXC201"}))
SITES = (HOUSTON, DENVER)
POLICY = Policy(quakes=(QuakeRule(5.5, 100), QuakeRule(7, 300, "Extreme")))


def alerts(*features: Any, feed: str = "weather") -> Report:
    return Report(feed, tuple(nws.parse(made.nws(*features)).alerts))


def messages(*texts: str, feed: str = "cap") -> Report:
    return Report(feed, tuple(cap.parse(f"<a>{''.join(texts)}</a>".encode()).alerts))


def quakes(*features: Any, feed: str = "usgs") -> Report:
    return Report(feed, quakes=tuple(usgs.parse(made.usgs(*features)).quakes))


def seen(*reports: Report, now: float = NOW, policy: Policy = POLICY, sites: Any = SITES) -> Look:
    return look(now, sites, reports, policy)


def found(*reports: Report, **more: Any) -> list[tuple[str, str]]:
    return [(finding.site, finding.why) for finding in seen(*reports, **more).findings]


def test_an_alert_meets_the_site_in_its_polygon_and_no_other() -> None:
    (finding,) = seen(alerts(made.nws_feature())).findings
    assert finding == Finding(
        "houston",
        "alert",
        made.reference(1)["identifier"],
        "Tornado Warning",
        "Extreme",
        NOW - 300,
        NOW + 3600,
        "inside its polygon",
        ("weather",),
        "Tornado Warning issued by NWS Houston/Galveston TX",
    )


def test_codes_count_where_there_is_no_shape_or_no_place() -> None:
    assert found(alerts(made.nws_feature(rings=None))) == [("houston", "zone or county 48201")]
    elsewhere = [[[1, 1], [2, 1], [2, 2], [1, 1]]]
    assert found(alerts(made.nws_feature(rings=elsewhere))) == []
    assert found(alerts(made.nws_feature(rings=elsewhere)), sites=[CODES]) == [
        ("codes", "zone or county TXC201")
    ]
    absurd = [[[0, 0], [500, 0], [1, 1], [0, 0]]]
    assert found(alerts(made.nws_feature(rings=absurd))) == [("houston", "zone or county 48201")]


@pytest.mark.parametrize("same", ["048000", "000000", "TXZ000", "TXC000", "548201"])
def test_codes_of_whole_states_and_parts_of_counties(same: str) -> None:
    key = "SAME" if same.isdigit() else "UGC"
    feature = made.nws_feature(rings=None, geocode={key: [same]}, affectedZones=[])
    assert [site for site, _ in found(alerts(feature), sites=[HOUSTON])] == ["houston"]
    feature = made.nws_feature(rings=None, geocode={key: [same.replace("48", "08").replace("TX", "NM")]})
    feature["properties"]["affectedZones"] = []
    assert found(alerts(feature), sites=[HOUSTON]) == (
        [("houston", "zone or county 48201")] if same == "000000" else []
    )


def test_a_circle() -> None:
    assert found(messages(made.cap(area="<circle>29.7,-95.4 20</circle>"))) == [
        ("houston", "inside its circle of 20 km")
    ]
    assert found(messages(made.cap(area="<circle>29.7,-95.4 5</circle>"))) == []


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"status": "Exercise"}, "not actual"),
        ({"status": "Test"}, "not actual"),
        ({"status": "System"}, "not actual"),
        ({"status": "actual"}, "not actual"),
        ({"messageType": "Cancel"}, "cancelled"),
        ({"messageType": "Ack"}, "no alert"),
        ({"messageType": "Error"}, "no alert"),
        ({"severity": "Moderate"}, "not severe enough"),
        ({"severity": "None of ours"}, "not severe enough"),
        ({"certainty": "Possible"}, "not certain enough"),
        ({"urgency": "Future"}, "not urgent enough"),
        ({"urgency": "Past"}, "not urgent enough"),
        ({"ends": made.iso(NOW)}, "over"),
        ({"ends": None, "expires": made.iso(NOW - 1)}, "over"),
        ({"ends": made.iso(NOW - 1), "expires": made.iso(NOW + 999)}, "over"),
        ({"onset": made.iso(NOW + 3601), "ends": None, "expires": made.iso(NOW + 9999)}, "not yet"),
        ({"sent": made.iso(NOW + 400)}, "from the future"),
        ({"response": "AllClear"}, "all clear"),
    ],
)
def test_what_does_not_count(about: dict[str, Any], reason: str) -> None:
    picture = seen(alerts(made.nws_feature(**about)))
    assert (picture.findings, picture.ignored) == ((), {reason: 1})


def test_an_alert_counts_ahead_and_ends_some_time() -> None:
    coming = alerts(made.nws_feature(onset=made.iso(NOW + 3000), ends=None, expires=made.iso(NOW + 9000)))
    assert len(found(coming)) == 1
    endless = alerts(made.nws_feature(ends=None, expires=None))
    assert len(found(endless, now=NOW + 86000)) == 1 and not found(endless, now=NOW + 86400)


def test_events_that_are_asked_for() -> None:
    one = alerts(made.nws_feature())
    assert found(one, policy=replace(POLICY, events=frozenset({"tornado warning"})))
    assert not found(one, policy=replace(POLICY, events=frozenset({"hurricane warning"})))
    assert not found(one, policy=replace(POLICY, ignore=frozenset({"tornado warning"})))


@pytest.mark.parametrize("kind", ["Cancel", "Update"])
def test_a_message_takes_the_place_of_those_it_refers_to(kind: str) -> None:
    old = made.nws_feature(1, sent=made.iso(NOW - 900))
    new = made.nws_feature(2, rings=None, messageType=kind, references=[made.reference(1)])
    new["properties"]["geocode"], new["properties"]["affectedZones"] = {}, []
    assert found(alerts(old)) and not found(alerts(old, new)) and not found(alerts(new, old))


def test_who_cannot_cancel() -> None:
    """Another sender; a test; a message from the future; an older one."""
    old = made.nws_feature(1)
    told = {"messageType": "Cancel", "references": [made.reference(1)]}
    for about in (
        {"sender": "somebody@example.net"},
        {"status": "Exercise"},
        {"sent": made.iso(NOW + 4000)},
        {"sent": made.iso(NOW - 4000)},
    ):
        assert found(alerts(old, made.nws_feature(2, **told | about))), about
    assert not found(alerts(old, made.nws_feature(2, **told)))


def test_one_message_from_two_feeds_is_one_and_a_cancel_counts_for_both() -> None:
    twice = seen(alerts(made.nws_feature()), messages(made.cap()))
    assert [finding.feeds for finding in twice.findings] == [("weather", "cap")]
    name = made.reference(1)["identifier"]
    cancel = made.cap(2, kind="Cancel", references=f"{SENDER},{name},{made.iso(NOW - 600)}")
    assert found(alerts(made.nws_feature()), messages(cancel)) == []
    kept = Report("cap", voids=frozenset({(SENDER, name)}))
    assert found(alerts(made.nws_feature()), kept) == []


def test_worst_first_and_the_worst_part_of_a_message() -> None:
    mild = made.nws_feature(1, severity="Severe")
    picture = seen(alerts(mild, made.nws_feature(2)))
    assert [finding.severity for finding in picture.findings] == ["Extreme", "Severe"]
    (part,) = cap.parse(made.cap(severity="Severe").encode()).alerts
    both = replace(part, infos=(part.infos[0], replace(part.infos[0], severity="Extreme", event="Worse")))
    assert [finding.event for finding in seen(Report("x", (both,))).findings] == ["Worse"]


def test_earthquakes_by_magnitude_and_distance() -> None:
    (finding,) = seen(quakes(made.quake_feature())).findings
    assert (finding.site, finding.kind, finding.severity, finding.why) == (
        "houston",
        "earthquake",
        "Severe",
        "7 km away",
    )
    assert not found(quakes(made.quake_feature(mag=5.4)))
    away = [-97.74, 30.27, 5]  # 237 km
    assert not found(quakes(made.quake_feature(where=away)))
    (strong,) = seen(quakes(made.quake_feature(where=away, mag=7.2))).findings
    assert strong.severity == "Extreme"


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"status": "deleted"}, "deleted"),
        ({"time": (NOW - 21601) * 1000}, "over"),
        ({"time": (NOW + 400) * 1000}, "from the future"),
        ({"mag": 3}, "too weak"),
    ],
)
def test_earthquakes_that_do_not_count(about: dict[str, Any], reason: str) -> None:
    picture = seen(quakes(made.quake_feature(**about)))
    assert (picture.findings, picture.ignored) == ((), {reason: 1})


def test_one_earthquake_of_many_names_is_one_and_the_last_word_counts() -> None:
    first = made.quake_feature("us1", ids=",us1,", updated=1)
    second = made.quake_feature("tx1", ids=",tx1,", updated=2)
    joint = made.quake_feature("us1", ids=",us1,tx1,", updated=3, mag=6.9)
    picture = seen(quakes(first, second), quakes(joint, feed="other"))
    assert [(f.event, f.feeds) for f in picture.findings] == [("Earthquake 6.9", ("usgs", "other"))]
    gone = made.quake_feature("us1", ids=",us1,tx1,", updated=4, status="deleted")
    assert not found(quakes(first, second, joint), quakes(gone, feed="other"))


def test_feeds_that_are_not_fresh_are_named() -> None:
    stale = replace(alerts(made.nws_feature()), is_fresh=False)
    picture = seen(stale, quakes())
    assert picture.blind == ("weather",) and len(picture.findings) == 1
