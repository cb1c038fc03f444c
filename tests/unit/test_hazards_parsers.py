"""Documents of feeds: what is taken from good ones, and that no bad one does more than be counted."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.hazards import cap, nws, usgs
from ipshare.hazards.feeds import PARSERS
from ipshare.hazards.geometry import in_polygon
from ipshare.hazards.model import Parsed, Unsound
from ipshare.hazards.reading import MOST_TEXT, code, json_object
from tests import hazard_feeds as made
from tests.examples import examples
from tests.hazard_feeds import NOW, SENDER

ATOM = '<feed xmlns="http://www.w3.org/2005/Atom"><entry><content type="text/xml">{}</content></entry></feed>'


def test_an_alert_of_the_weather_service() -> None:
    found = nws.parse(made.nws(made.nws_feature(references=[made.reference(7)])))
    (alert,) = found.alerts
    assert alert.key == (SENDER, made.reference(1)["identifier"])
    assert alert.references == ((SENDER, made.reference(7)["identifier"]),)
    assert (alert.status, alert.kind, alert.sent) == ("Actual", "Alert", NOW - 600)
    (info,) = alert.infos
    assert (info.event, info.severity, info.starts, info.until) == (
        "Tornado Warning",
        "Extreme",
        NOW - 300,
        NOW + 3600,
    )
    assert info.area.codes == {"TXC201", "48201"}
    assert in_polygon(-95.4, 29.7, info.area.polygons[0]) and found.written == NOW
    assert not found.refused


def test_times_that_are_missing_have_others_in_their_place() -> None:
    feature = made.nws_feature(onset=None, ends=None)
    (info,) = nws.parse(made.nws(feature)).alerts[0].infos
    assert (info.starts, info.until) == (NOW - 600, NOW + 1800)
    feature = made.nws_feature(onset=None, effective=None, ends=None, expires=None)
    (info,) = nws.parse(made.nws(feature)).alerts[0].infos
    assert (info.starts, info.until) == (NOW - 600, None)


def test_several_polygons_and_holes() -> None:
    hole = [[-95.6, 29.4], [-95.4, 29.4], [-95.4, 29.6], [-95.6, 29.6], [-95.6, 29.4]]
    far = [[[1, 1], [2, 1], [2, 2], [1, 1]]]
    feature = made.nws_feature()
    feature["geometry"] = {"type": "MultiPolygon", "coordinates": [[made.BOX, hole], far]}
    first, second = nws.parse(made.nws(feature)).alerts[0].infos[0].area.polygons
    assert in_polygon(-95.2, 29.2, first) and not in_polygon(-95.5, 29.5, first) and second.outer.east == 2
    collection = {"type": "GeometryCollection", "geometries": [feature["geometry"]] * 2}
    feature["geometry"] = collection | {"geometries": [*collection["geometries"], collection]}
    assert len(nws.parse(made.nws(feature)).alerts[0].infos[0].area.polygons) == 4


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"sent": "2026-11-28 10:00"}, "no time sent"),
        ({"sent": "2026-11-28T10:00:00"}, "no time sent"),
        ({"sent": "9999-99-99T10:00:00Z"}, "no time sent"),
        ({"sent": 5}, "no time sent"),
        ({"ends": "tomorrow"}, "no end"),
        ({"sender": None}, "no sender"),
        ({"id": "x" * 1000}, "no identifier"),
        ({"id": "a\x1b[2Jb"}, "no identifier"),
        ({"event": ["Tornado"]}, "no event"),
        ({"status": {}}, "no status"),
    ],
)
def test_an_alert_that_is_not_sound_is_refused_alone(about: dict[str, Any], reason: str) -> None:
    found = nws.parse(made.nws(made.nws_feature(1, **about), made.nws_feature(2)))
    assert len(found.alerts) == 1 and found.refused == {reason: 1}


@pytest.mark.parametrize(
    ("rings", "reason"),
    [
        ([[[0, 0], [1, 1], [0, 0]]], "less than a triangle"),
        ([[["a", "b"]] * 4], "not positions"),
        ([[5, 6, 7, 8]], "not positions"),
        ([[[10**400, 0], [1, 1], [0, 1], [10**400, 0]]], "not positions"),
        ([[{}, {}, {}, {}]], "not positions"),
        ([[[0, 0], [500, 0], [1, 1], [0, 0]]], "off the Earth"),
        ([[[0, 0], [1, 0], [1, 1], [0, 0]] * 200_000], "too many vertices"),
    ],
)
def test_an_absurd_polygon_leaves_the_zones(rings: Any, reason: str) -> None:
    found = nws.parse(made.nws(made.nws_feature(rings=rings)))
    assert found.refused == {f"polygon: {reason}": 1}
    assert found.alerts[0].infos[0].area.polygons == () and found.alerts[0].infos[0].area.codes


def test_texts_are_cut_and_printable() -> None:
    found = nws.parse(made.nws(made.nws_feature(headline="\x1b]0;x\x07" + "y" * 10_000, severity="Huge")))
    (info,) = found.alerts[0].infos
    assert info.headline == "]0;x" + "y" * (MOST_TEXT - 4) and info.severity == "Unknown"


@pytest.mark.parametrize(
    ("written", "is_code"),
    [
        ("TXZ213", "TXZ213"),
        ("txc201", "TXC201"),
        ("TXZALL", "TXZ000"),
        ("048201", "48201"),
        ("148201", "48201"),
        ("48201", "48201"),
        ("TX201", ""),
        ("TXX201", ""),
        ("TXZ21", ""),
        ("²²²²²", ""),
        (48201, ""),
    ],
)
def test_codes(written: Any, is_code: str) -> None:
    assert code(written) == is_code


def test_a_cap_message() -> None:
    area = (
        f"<polygon>{made.POLYGON}</polygon><circle>29.7,-95.4 12.5</circle>"
        "<geocode><valueName>UGC</valueName><value>TXZ213</value></geocode>"
        "<geocode><valueName>SAME</valueName><value>048201</value></geocode>"
    )
    ending = "<parameter><valueName>eventEndingTime</valueName><value>{}</value></parameter>"
    more = ending.format(made.iso(NOW + 9000))
    found = cap.parse(made.cap(area=area, more=more, kind="Update", references=f"{SENDER},old,x").encode())
    (alert,) = found.alerts
    assert (alert.status, alert.kind, alert.sent) == ("Actual", "Update", NOW - 600)
    assert alert.key == nws.parse(made.nws(made.nws_feature())).alerts[0].key
    assert alert.references == ((SENDER, "old"),)
    (info,) = alert.infos
    assert (info.event, info.starts, info.until) == ("Hurricane Warning", NOW - 300, NOW + 9000)
    assert in_polygon(-95.4, 29.7, info.area.polygons[0]) and info.area.codes == {"TXZ213", "48201"}
    assert (info.area.circles[0].latitude, info.area.circles[0].radius_km) == (29.7, 12.5)
    assert not found.refused


def test_cap_messages_in_lists_and_atom_feeds() -> None:
    listed = f"<alerts>{made.cap(1)}{made.cap(2)}</alerts>"
    assert len(cap.parse(listed.encode()).alerts) == 2
    assert len(cap.parse(ATOM.format(made.cap()).encode()).alerts) == 1
    assert cap.parse(b"<alert><identifier>no CAP</identifier></alert>").alerts == []


BOMB = '<!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;">]>'
FILE = '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (BOMB + made.cap().replace("Hurricane Warning", "&m;"), "document type"),
        (FILE + made.cap().replace("Hurricane Warning", "&f;"), "document type"),
        ('<!DOCTYPE alert SYSTEM "http://127.0.0.1/x.dtd">' + made.cap(), "document type"),
        (made.cap().replace("Hurricane Warning", "&unknown;"), "not XML"),
        ("<a>" * 10_000, "too deep"),
        ("<a>" + "<b/>" * 600_000 + "</a>", "too many elements"),
        ("", "not XML"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "not XML"),
    ],
)
def test_hostile_xml(document: str, reason: str) -> None:
    with pytest.raises(Unsound, match=reason):
        cap.parse(document.encode())


def test_many_small_values_are_refused_before_they_are_built() -> None:
    """Where 32 MiB would become a GB. Half a million vertices are far from it."""
    few, many = b"[1,2]," * 500_000, b"[],{}," * 800_000
    assert json_object(b'{"features":[],"x":[' + few + b"0]}")["features"] == []
    with pytest.raises(Unsound, match="too many values"):
        json_object(b'{"features":[],"x":[' + many + b"0]}")


@pytest.mark.parametrize(
    ("area", "reason"),
    [
        ("<polygon>1,2 3,4</polygon>", "polygon: less than a triangle"),
        ("<polygon>nan,2 3,4 5,6 nan,2</polygon>", "polygon: not a number"),
        ("<polygon>-96,29 -95,29 -95,30 -96,29</polygon>", "polygon: off the Earth"),
        ("<polygon>here and there</polygon>", "polygon: not positions"),
        ("<circle>1,2 -5</circle>", "circle: not a radius"),
        ("<circle>1,2 1e9</circle>", "circle: larger than any hazard"),
        ("<circle>1,2</circle>", "circle: not a circle"),
    ],
)
def test_absurd_areas_of_cap(area: str, reason: str) -> None:
    found = cap.parse(made.cap(area=area).encode())
    assert len(found.alerts) == 1 and found.refused == {reason: 1}


def test_earthquakes() -> None:
    blast = made.quake_feature("b", type="quarry blast")
    feature = made.quake_feature(ids=",us7000abcd,tx2026xyz,", status="reviewed")
    found = usgs.parse(made.usgs(feature, blast, made.quake_feature("c", mag=None)))
    (quake,) = found.quakes
    assert quake.ids == {"us7000abcd", "tx2026xyz"} and not quake.is_deleted
    assert (quake.magnitude, quake.longitude, quake.latitude) == (6.1, -95.4, 29.7)
    assert (quake.at, quake.updated, found.written) == (NOW - 600, NOW - 300, NOW)
    assert found.refused == {"no earthquake": 1, "no magnitude": 1}


@pytest.mark.parametrize("where", [[], [1], ["a", "b"], [200, 0, 5], [0, None], "here", [True, 1]])
def test_an_earthquake_that_is_nowhere(where: Any) -> None:
    found = usgs.parse(made.usgs(made.quake_feature(where=where)))
    assert (found.quakes, found.refused) == ([], {"no position": 1})


GOOD = {
    "nws": made.nws(made.nws_feature(1, references=[made.reference(7)]), made.nws_feature(2, rings=None)),
    "cap": f"<a>{made.cap(1)}{made.cap(2)}</a>".encode(),
    "usgs": made.usgs(made.quake_feature(), made.quake_feature("b", ids=",b,c,")),
}


def survives(kind: str, document: bytes) -> Parsed | None:
    """No other exception than Unsound."""
    try:
        return PARSERS[kind](document)
    except Unsound as error:
        assert len(str(error)) < 80, "a reason, no data"
        return None


@pytest.mark.parametrize("kind", GOOD)
def test_cut_at_every_byte(kind: str) -> None:
    for end in range(len(GOOD[kind])):
        assert survives(kind, GOOD[kind][:end]) is None


@pytest.mark.parametrize("kind", GOOD)
def test_damaged_bytes(kind: str) -> None:
    luck = random.Random(7)
    for _ in range(1500):
        damaged = bytearray(GOOD[kind])
        for _ in range(luck.randint(1, 4)):
            damaged[luck.randrange(len(damaged))] = luck.choice([luck.randrange(256), *b'"<>&{}[],:0-9eN'])
        survives(kind, bytes(damaged))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["type", "coordinates", "geometries", "properties", "geometry", "id", "sent", "ids", "references"]
KEYS += ["geocode", "affectedZones", "UGC", "mag", "time", "updated", "sender", "metadata", "generated"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


@pytest.mark.parametrize("kind", ["nws", "usgs"])
def test_anything_in_the_place_of_anything(kind: str) -> None:
    """Every value of a good document in turn is replaced by values of other types."""
    good = json.loads(GOOD[kind])
    others: list[Any] = [None, True, -1, 1e308, 10**30, "", "x", [], {}, [[]], [{}], {"type": "Polygon"}]
    for path in places(good):
        for other in others:
            document = json.loads(GOOD[kind])
            home = document
            for key in path[:-1]:
                home = home[key]
            if path:
                home[path[-1]] = other
            survives(kind, json.dumps(document if path else other).encode())


@given(
    st.sampled_from(["nws", "usgs"]), st.lists(st.dictionaries(st.sampled_from(KEYS), anything), max_size=3)
)
@examples(120)
def test_any_json(kind: str, features: list[Any]) -> None:
    survives(kind, json.dumps({"features": features}).encode())


@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=200))
@examples(100)
def test_any_bytes(kind: str, document: bytes) -> None:
    survives(kind, document)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"features": ' + "[" * 100_000, '{"features": [NaN]}', "5"])
def test_json_that_is_none(text: str) -> None:
    assert survives("nws", text.encode()) is None
