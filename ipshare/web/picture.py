"""picture: sites on a map: which part of the Earth, and where in it; plain numbers for an SVG. Pure.

Equirectangular, with the middle's latitude true to scale, twice as wide as high. Positions are percentages,
so that text and marks keep their size on every screen. Land is static/land.svg, in tenths of a degree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

ASPECT = 2.0
LEAST = 24.0
"""Degrees of latitude that are shown at least."""
MARGIN = 1.5
STEPS = (5, 10, 30)
SIDES = ((12, 4, "start"), (-12, 4, "end"), (0, -32, "middle"), (0, 40, "middle"))
"""Where a label may be beside its mark: dx, dy in pixels, and how it is anchored."""


def picture(sites: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``sites``: rows with name, latitude, longitude, prefixes, tone, said. Those without a place are left
    out."""
    there = [one for one in sites if one["latitude"] is not None]
    if not there:
        return {"box": "", "grid": [], "sites": []}
    west, south, width, height = _frame([(one["longitude"], one["latitude"]) for one in there])
    placed: list[tuple[float, float, float, float]] = []
    marks = []
    for one in there:
        x = (one["longitude"] - west) / width * 100
        y = (south + height - one["latitude"]) / height * 100
        dx, dy, anchor = _side(x, y, len(one["name"]), placed)
        count = len(one["prefixes"])
        marks.append(
            {
                "name": one["name"], "x": round(x, 2), "y": round(y, 2), "dx": dx, "dy": dy, "anchor": anchor,
                "tone": one["tone"], "said": one["said"],
                "sub": f"{count} prefix{'es' if count != 1 else ''}",
            }
        )  # fmt: skip
    box = f"{west * 10:.1f} {-(south + height) * 10:.1f} {width * 10:.1f} {height * 10:.1f}"
    return {"box": box, "grid": _grid(west, south, width, height), "sites": marks}


def _frame(points: Sequence[tuple[float, float]]) -> tuple[float, float, float, float]:
    """West, south, width, height in degrees, around all points."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    middle_x, middle_y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    stretch = ASPECT / max(0.3, math.cos(math.radians(middle_y)))
    height = max(LEAST, (max(ys) - min(ys)) * MARGIN, (max(xs) - min(xs)) * MARGIN / stretch)
    height = min(height, 180.0)
    south = min(max(middle_y - height / 2, -90.0), 90.0 - height)
    return middle_x - height * stretch / 2, south, height * stretch, height


def _side(
    x: float, y: float, letters: int, placed: list[tuple[float, float, float, float]]
) -> tuple[int, int, str]:
    """The first side where the label meets no other, on a map of 700 pixels."""
    boxes = []
    for dx, dy, anchor in SIDES:
        size = letters * 8.0
        at = x * 7 + dx
        left = at if anchor == "start" else at - size if anchor == "end" else at - size / 2
        top = y * 3.5 + dy - 14
        boxes.append((left, top, left + size, top + 32))
    for side, box in zip(SIDES, boxes, strict=True):
        if box[0] >= 0 and box[2] <= 700 and not any(_meets(box, other) for other in placed):
            placed.append(box)
            return side
    placed.append(boxes[0] if x < 60 else boxes[1])
    return SIDES[0] if x < 60 else SIDES[1]


def _meets(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _grid(west: float, south: float, width: float, height: float) -> list[str]:
    """Meridians and parallels, as paths in tenths of a degree."""
    step = next((step for step in STEPS if height / step <= 6), STEPS[-1])
    top, bottom = -(south + height) * 10, -south * 10
    found = []
    for x in range(math.ceil(west / step) * step, math.floor(west + width) + 1, step):
        found.append(f"M{x * 10} {top:.0f}V{bottom:.0f}")
    for y in range(math.ceil(south / step) * step, math.floor(south + height) + 1, step):
        found.append(f"M{west * 10:.0f} {-y * 10}H{(west + width) * 10:.0f}")
    return found
