"""Alerts of the US weather service: GeoJSON as api.weather.gov/alerts/active gives it -> Parsed.

Positions are longitude, latitude (RFC 7946). A feature whose time, sender or status is not sound is refused
as a whole; a polygon that is not, alone: the alert's zones stay. Pure.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ipshare.hazards.geometry import BadShape, Polygon, ring
from ipshare.hazards.model import CERTAINTIES, SEVERITIES, URGENCIES, Alert, Area, Info, Key, Parsed, Unsound
from ipshare.hazards.reading import (
    MOST_CODES,
    MOST_REFERENCES,
    MOST_VERTICES,
    code,
    dictionary,
    json_object,
    name,
    optional_text,
    optional_time,
    text,
    time,
    word,
)


def parse(document: bytes) -> Parsed:
    """Raises Unsound if the document as a whole is none."""
    value = json_object(document)
    found = Parsed()
    try:
        found.written = optional_time(value.get("updated"), "time")
    except Unsound:
        found.refused["time of the document"] += 1
    shapes = Shapes(found.refused)
    for feature in value["features"]:
        try:
            found.alerts.append(_alert(dictionary(feature, "feature"), shapes))
        except Unsound as error:
            found.refused[str(error)] += 1
    return found


def _alert(feature: dict[str, Any], shapes: Shapes) -> Alert:
    about = dictionary(feature.get("properties"), "properties")
    key = (name(about.get("sender"), "sender"), name(about.get("id"), "identifier"))
    sent = time(about.get("sent"), "time sent")
    onset = optional_time(about.get("onset"), "onset")
    effective = optional_time(about.get("effective"), "effective")
    ends = optional_time(about.get("ends"), "end")
    expires = optional_time(about.get("expires"), "end")
    starts = next((at for at in (onset, effective) if at is not None), sent)
    area = Area(shapes.polygons(feature.get("geometry")), codes=_codes(about))
    info = Info(
        text(about.get("event"), "event"),
        word(about.get("severity"), SEVERITIES),
        word(about.get("certainty"), CERTAINTIES),
        word(about.get("urgency"), URGENCIES),
        starts,
        expires if ends is None else ends,
        area,
        optional_text(about.get("headline")),
        about.get("response") == "AllClear",
    )
    status, kind = text(about.get("status"), "status"), text(about.get("messageType"), "message type")
    return Alert(key, sent, status, kind, _references(about.get("references")), (info,))


def _codes(about: dict[str, Any]) -> frozenset[str]:
    geocode = about.get("geocode")
    geocode = geocode if isinstance(geocode, dict) else {}
    zones = about.get("affectedZones")
    lists = [geocode.get("UGC"), geocode.get("SAME"), zones]
    values = [value for some in lists if isinstance(some, list) for value in some[:MOST_CODES]]
    texts = [value.rpartition("/")[2] for value in values if isinstance(value, str)]
    return frozenset(filter(None, map(code, texts)))


def _references(value: object) -> tuple[Key, ...]:
    found = []
    for one in value[:MOST_REFERENCES] if isinstance(value, list) else []:
        if isinstance(one, dict):
            try:
                found.append((name(one.get("sender"), "sender"), name(one.get("identifier"), "identifier")))
            except Unsound:
                continue
    return tuple(found)


class Shapes:
    """Polygons of one document: counts vertices over all of it, and why polygons were refused."""

    def __init__(self, refused: Counter[str]) -> None:
        self.refused = refused
        self.vertices = 0

    def polygons(self, geometry: object) -> tuple[Polygon, ...]:
        """Those of a GeoJSON Polygon, MultiPolygon or GeometryCollection of such that are sound."""
        if not isinstance(geometry, dict):
            return ()
        kind, positions = geometry.get("type"), geometry.get("coordinates")
        if kind == "GeometryCollection" and isinstance(geometry.get("geometries"), list):
            parts = [part for part in geometry["geometries"] if isinstance(part, dict)]
            flat = [part for part in parts if part.get("type") != "GeometryCollection"]
            return tuple(polygon for part in flat for polygon in self.polygons(part))
        if kind not in ("Polygon", "MultiPolygon") or not isinstance(positions, list):
            self.refused["polygon: none"] += 1
            return ()
        every = [positions] if kind == "Polygon" else positions
        return tuple(polygon for rings in every if (polygon := self._polygon(rings)) is not None)

    def _polygon(self, rings: object) -> Polygon | None:
        try:
            if not isinstance(rings, list) or not rings:
                raise BadShape("no rings")
            outer, *holes = [self.ring(one) for one in rings]
            return Polygon(outer, tuple(holes))
        except BadShape as error:
            self.refused[f"polygon: {error}"] += 1
        except (TypeError, IndexError, KeyError, OverflowError):
            self.refused["polygon: not positions"] += 1
        return None

    def ring(self, positions: Any) -> Any:
        self.vertices += len(positions)
        if self.vertices > MOST_VERTICES:
            raise BadShape("too many vertices")
        return ring(positions)
