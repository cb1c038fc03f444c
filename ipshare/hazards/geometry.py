"""Places on the Earth: is a point in a polygon, or within a distance?

Longitude and latitude in degrees (WGS 84), distances in km on a sphere. An edge is a straight line in
longitude and latitude (RFC 7946, 3.1.1). A ring that is wider than half of the world as it is written
crosses the antimeridian. What a ring goes round is inside, however it crosses itself (winding number);
the edge itself is inside, of a hole it is not. Absurd rings are refused with a reason (BadShape). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EARTH_KM = 6371.0088
"""Mean radius (IUGG). The ellipsoid differs from the sphere by 0.6 % at most."""
MOST_VERTICES = 20_000
"""Of one ring. The weather service's have some dozens, its zones some thousands."""
MOST_RADIUS_KM = 2_000.0
"""Of a circle: the largest hurricanes are smaller."""

Point = tuple[float, float]
"""Longitude, latitude."""


class BadShape(ValueError):
    """A ring or circle that says nothing about any place; the text is the reason, one of a few."""


@dataclass(frozen=True, slots=True)
class Ring:
    """A closed line, its last vertex not repeated, its longitudes continuous. Made by ``ring``."""

    points: tuple[Point, ...]
    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True, slots=True)
class Polygon:
    outer: Ring
    holes: tuple[Ring, ...] = ()


@dataclass(frozen=True, slots=True)
class Circle:
    longitude: float
    latitude: float
    radius_km: float


def point(longitude: float, latitude: float) -> Point:
    """Raises BadShape where there is no such place."""
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        raise BadShape("not a number")
    if abs(longitude) > 180 or abs(latitude) > 90:
        raise BadShape("off the Earth")
    return float(longitude), float(latitude)


def ring(points: Iterable[Sequence[float]]) -> Ring:
    """From its vertices, the last of which repeats the first. Raises BadShape."""
    vertices = [point(one[0], one[1]) for one in points]
    if len(vertices) > MOST_VERTICES:
        raise BadShape("too many vertices")
    if len(vertices) < 4:
        raise BadShape("less than a triangle")
    if vertices[0] != vertices[-1]:
        raise BadShape("not closed")
    vertices.pop()
    if _width(vertices) > 180:  # it crosses the antimeridian
        vertices = [(x + 360 if x < 0 else x, y) for x, y in vertices]
        if _width(vertices) > 180:
            raise BadShape("wider than half of the world")
    xs, ys = [x for x, _ in vertices], [y for _, y in vertices]
    west, east, south, north = min(xs), max(xs), min(ys), max(ys)
    if west == east or south == north:
        raise BadShape("no area")
    return Ring(tuple(vertices), west, south, east, north)


def _width(vertices: Sequence[Point]) -> float:
    return max(x for x, _ in vertices) - min(x for x, _ in vertices)


def circle(longitude: float, latitude: float, radius_km: float) -> Circle:
    """Raises BadShape. A radius of 0 is a point, as CAP allows, and meets next to nothing."""
    x, y = point(longitude, latitude)
    if not math.isfinite(radius_km) or radius_km < 0:
        raise BadShape("not a radius")
    if radius_km > MOST_RADIUS_KM:
        raise BadShape("larger than any hazard")
    return Circle(x, y, float(radius_km))


def in_polygon(longitude: float, latitude: float, polygon: Polygon) -> bool:
    if _side(longitude, latitude, polygon.outer) is False:
        return False
    return not any(_side(longitude, latitude, hole) for hole in polygon.holes)


def in_circle(longitude: float, latitude: float, circle: Circle) -> bool:
    return distance_km(longitude, latitude, circle.longitude, circle.latitude) <= circle.radius_km


def distance_km(longitude: float, latitude: float, to_longitude: float, to_latitude: float) -> float:
    """Along the great circle (haversine: exact also for places close to each other)."""
    y, to_y = math.radians(latitude), math.radians(to_latitude)
    x = math.radians(to_longitude - longitude)
    chord = math.sin((to_y - y) / 2) ** 2 + math.cos(y) * math.cos(to_y) * math.sin(x / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(chord)))


def _side(longitude: float, latitude: float, ring: Ring) -> bool | None:
    """True: inside. None: on the edge. The point is looked for on each turn of the world that the ring
    reaches."""
    found: bool | None = False
    for x in (longitude, longitude + 360, longitude - 360):
        if ring.west <= x <= ring.east and ring.south <= latitude <= ring.north:
            side = _winds(x, latitude, ring.points)
            if side:
                return True
            found = None if side is None else found
    return found


def _winds(x: float, y: float, points: Sequence[Point]) -> bool | None:
    """Whether the ring goes round the point (winding number not 0); None on the edge."""
    number = 0
    x1, y1 = points[-1]
    for x2, y2 in points:
        cross = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)
        if cross == 0 and min(x1, x2) <= x <= max(x1, x2) and min(y1, y2) <= y <= max(y1, y2):
            return None
        if y1 <= y < y2 and cross > 0:
            number += 1
        elif y2 <= y < y1 and cross < 0:
            number -= 1
        x1, y1 = x2, y2
    return number != 0
