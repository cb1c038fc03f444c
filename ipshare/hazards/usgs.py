"""Earthquakes: the GeoJSON summary feeds of the US Geological Survey -> Parsed.

Times are milliseconds; positions are longitude, latitude, depth. What is no earthquake (a quarry blast) is
left out and counted. Pure.
"""

from __future__ import annotations

from typing import Any

from ipshare.hazards.geometry import BadShape, point
from ipshare.hazards.model import Parsed, Quake, Unsound
from ipshare.hazards.reading import dictionary, json_object, name, number, optional_text

MOST_IDS = 50


def parse(document: bytes) -> Parsed:
    """Raises Unsound if the document as a whole is none."""
    value = json_object(document)
    found = Parsed()
    about = value.get("metadata")
    try:
        found.written = number(dictionary(about, "metadata").get("generated"), "time") / 1000
    except Unsound:
        found.refused["time of the document"] += 1
    for feature in value["features"]:
        try:
            found.quakes.append(_quake(dictionary(feature, "feature")))
        except Unsound as error:
            found.refused[str(error)] += 1
    return found


def _quake(feature: dict[str, Any]) -> Quake:
    about = dictionary(feature.get("properties"), "properties")
    ids = {name(feature.get("id"), "identifier")}
    if isinstance(about.get("ids"), str):
        ids.update(part for part in about["ids"][:1000].split(",")[:MOST_IDS] if part)
    if about.get("type") != "earthquake":
        raise Unsound("no earthquake")
    position = dictionary(feature.get("geometry"), "position").get("coordinates")
    if not isinstance(position, list) or len(position) < 2:
        raise Unsound("no position")
    try:
        x, y = point(number(position[0], "position"), number(position[1], "position"))
    except BadShape:
        raise Unsound("no position") from None
    at = number(about.get("time"), "time") / 1000
    updated = about.get("updated")
    return Quake(
        frozenset(ids),
        at,
        at if updated is None else number(updated, "time") / 1000,
        number(about.get("mag"), "magnitude"),
        x,
        y,
        optional_text(about.get("place")),
        about.get("status") == "deleted",
    )
