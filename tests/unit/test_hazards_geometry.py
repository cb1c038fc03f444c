"""Points in polygons and distances, against slow and exact ways to the same answer."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ipshare.hazards.geometry import (
    MOST_VERTICES,
    BadShape,
    Polygon,
    Ring,
    circle,
    distance_km,
    in_circle,
    in_polygon,
    ring,
)
from tests.examples import examples

eighths = st.integers(-160, 160).map(lambda n: n / 8)  # exact in binary: the oracle may be exact too
points = st.tuples(eighths, eighths)
rings = st.lists(points, min_size=3, max_size=9)
degrees = st.tuples(st.floats(-180, 180), st.floats(-90, 90))


def closed(vertices: list[tuple[float, float]]) -> Ring:
    try:
        return ring([*vertices, vertices[0]])
    except BadShape:
        assume(False)
        raise


def oracle(x: float, y: float, vertices: list[tuple[float, float]]) -> bool | None:
    """Winding number by a ray straight up, in fractions; None on an edge."""
    px, py = Fraction(x), Fraction(y)
    number = 0
    for (ax, ay), (bx, by) in zip(vertices, [*vertices[1:], vertices[0]], strict=True):
        a, b = (Fraction(ax), Fraction(ay)), (Fraction(bx), Fraction(by))
        if _on(px, py, a, b):
            return None
        if (a[0] <= px) != (b[0] <= px):
            height = a[1] + (b[1] - a[1]) * (px - a[0]) / (b[0] - a[0])
            if height > py:
                number += 1 if b[0] > a[0] else -1
    return number != 0


def _on(px: Fraction, py: Fraction, a: tuple[Fraction, Fraction], b: tuple[Fraction, Fraction]) -> bool:
    if (b[0] - a[0]) * (py - a[1]) != (b[1] - a[1]) * (px - a[0]):
        return False
    return min(a[0], b[0]) <= px <= max(a[0], b[0]) and min(a[1], b[1]) <= py <= max(a[1], b[1])


@given(rings, points)
@examples(300)
def test_a_point_is_in_a_ring_as_the_oracle_says(
    vertices: list[tuple[float, float]], at: tuple[float, float]
) -> None:
    found = in_polygon(*at, Polygon(closed(vertices)))
    assert found is (oracle(*at, vertices) is not False)


@given(rings, st.lists(rings, max_size=2), points)
@examples(300)
def test_holes(
    vertices: list[tuple[float, float]], holes: list[list[tuple[float, float]]], at: tuple[float, float]
) -> None:
    polygon = Polygon(closed(vertices), tuple(closed(hole) for hole in holes))
    outside = oracle(*at, vertices) is False or any(oracle(*at, hole) is True for hole in holes)
    assert in_polygon(*at, polygon) is not outside


@given(rings, points, st.integers(-1440, 1440))
@examples(200)
def test_turning_the_world_changes_nothing(
    vertices: list[tuple[float, float]], at: tuple[float, float], turn: int
) -> None:
    """The antimeridian is no place of its own: the same ring anywhere gives the same answers."""
    before = in_polygon(*at, Polygon(closed(vertices)))

    def turned(one: tuple[float, float]) -> tuple[float, float]:
        return (one[0] + turn / 8 + 180) % 360 - 180, one[1]

    assert in_polygon(*turned(at), Polygon(closed([turned(v) for v in vertices]))) is before


def test_an_island_at_the_antimeridian() -> None:
    polygon = Polygon(closed([(179.0, 51.0), (-179.0, 51.0), (-179.0, 53.0), (179.0, 53.0)]))
    assert in_polygon(180.0, 52.0, polygon) and in_polygon(-180.0, 52.0, polygon)
    assert in_polygon(179.5, 52.0, polygon) and in_polygon(-179.5, 52.0, polygon)
    assert not in_polygon(178.0, 52.0, polygon) and not in_polygon(0.0, 52.0, polygon)


def test_what_crosses_itself_is_all_that_it_goes_round() -> None:
    bow = Polygon(closed([(0, 0), (2, 2), (2, 0), (0, 2)]))
    assert in_polygon(0.25, 1, bow) and in_polygon(1.75, 1, bow)
    twice = Polygon(closed([(0, 0), (3, 0), (3, 3), (0, 3), (0, 0), (3, 0), (3, 3), (0, 3)]))
    assert in_polygon(1, 1, twice)


@pytest.mark.parametrize(
    ("vertices", "reason"),
    [
        ([(0, 0), (1, 0), (1, 1), (0, 1)], "not closed"),
        ([(0, 0), (1, 0), (0, 0)], "less than a triangle"),
        ([(0, 0), (1, 0), (2, 0), (0, 0)], "no area"),
        ([(0, 0), (0, 95), (1, 1), (0, 0)], "off the Earth"),
        ([(0, 0), (181, 0), (1, 1), (0, 0)], "off the Earth"),
        ([(0, 0), (math.nan, 0), (1, 1), (0, 0)], "not a number"),
        ([(0, 0), (math.inf, 0), (1, 1), (0, 0)], "not a number"),
        ([(-170, 0), (-10, 10), (10, 10), (170, 0), (0, 80), (-170, 0)], "wider than half of the world"),
        ([(-180, -90), (180, -90), (180, 90), (-180, 90), (-180, -90)], "no area"),
        ([(0, 0), (1, 1), (1, 0)] * MOST_VERTICES, "too many vertices"),
    ],
)
def test_absurd_rings(vertices: list[tuple[float, float]], reason: str) -> None:
    with pytest.raises(BadShape, match=reason):
        ring(vertices)


def test_absurd_circles() -> None:
    for radius in (-1.0, math.nan, math.inf, 1e5):
        with pytest.raises(BadShape):
            circle(0, 0, radius)
    assert in_circle(0, 0.5, circle(0, 0, 56)) and not in_circle(0, 0.5, circle(0, 0, 55))


def vector(x: float, y: float) -> tuple[float, float, float]:
    a, b = math.radians(x), math.radians(y)
    return math.cos(b) * math.cos(a), math.cos(b) * math.sin(a), math.sin(b)


@given(degrees, degrees)
@examples(300)
def test_distance_is_the_angle_between_vectors(a: tuple[float, float], b: tuple[float, float]) -> None:
    p, q = vector(*a), vector(*b)
    across = math.hypot(p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0])
    angle = math.atan2(across, sum(i * j for i, j in zip(p, q, strict=True)))
    assert distance_km(*a, *b) == pytest.approx(6371.0088 * angle, abs=0.2)
    assert distance_km(*a, *b) == pytest.approx(distance_km(*b, *a), abs=1e-6)


def test_a_known_distance() -> None:
    assert distance_km(-73.7789, 40.6397, -0.4614, 51.4775) == pytest.approx(5540, rel=0.005)  # JFK, LHR
