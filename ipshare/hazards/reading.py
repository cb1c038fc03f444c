"""What all parsers share: limits, times, words, numbers; each gives a value or raises Unsound with a reason.

A document comes from outside and may be hostile. Sizes, depths and counts are bounded before anything is
built from it; wrong types are refused, never converted by luck; texts are cut. Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from ipshare.hazards.model import Unsound

MOST_BYTES = 32 << 20
"""Of a document. All active alerts of the United States take some MB."""
MOST_ALERTS = 20_000
MOST_CODES = 5_000
"""Zones and counties of one alert."""
MOST_VERTICES = 500_000
"""Of one document: beyond that, its further polygons are refused."""
MOST_VALUES = 3_000_000
"""Of a JSON document, by its commas and opening brackets (those in texts, too): 500,000 vertices are half of
it. Built, each takes up to 90 bytes."""
MOST_TEXT = 300
MOST_REFERENCES = 1_000


def json_object(text: bytes) -> dict[str, Any]:
    """The document, which is a GeoJSON FeatureCollection. NaN and Infinity are no JSON."""
    if len(text) > MOST_BYTES:
        raise Unsound("too long")
    if sum(map(text.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise Unsound("too many values")
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Unsound("not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("features"), list):
        raise Unsound("no list of features")
    if len(value["features"]) > MOST_ALERTS:
        raise Unsound("too many features")
    return value


def _no_number(_: str) -> NoReturn:
    raise ValueError


def dictionary(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unsound(f"no {what}")
    return value


def text(value: object, what: str) -> str:
    """A string, cut; what does not print is left out, since it will be shown on terminals."""
    if not isinstance(value, str) or not value.strip():
        raise Unsound(f"no {what}")
    return "".join(c for c in value[: 4 * MOST_TEXT] if c.isprintable()).strip()[:MOST_TEXT]


def optional_text(value: object) -> str:
    return text(value, "") if isinstance(value, str) and value.strip() else ""


def name(value: object, what: str) -> str:
    """An identifier: as `text`, but one that is too long is none, since cut ones could be equal."""
    if (
        not isinstance(value, str)
        or not 0 < len(value.strip()) <= MOST_TEXT
        or not value.strip().isprintable()
    ):
        raise Unsound(f"no {what}")
    return value.strip()


def number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unsound(f"no {what}")
    try:
        found = float(value)
    except OverflowError:
        raise Unsound(f"no {what}") from None
    if not math.isfinite(found):
        raise Unsound(f"no {what}")
    return found


def time(value: object, what: str) -> float:
    """Seconds since 1970 from a date and time with its offset (RFC 3339); without one it is no time."""
    try:
        if isinstance(value, str) and 19 < len(value) < 40:
            found = datetime.fromisoformat(value)
            if found.tzinfo is not None:
                return found.timestamp()
    except (ValueError, OverflowError):
        pass
    raise Unsound(f"no {what}")


def optional_time(value: object, what: str) -> float | None:
    return None if value is None or value == "" else time(value, what)


def word(value: object, known: Sequence[str]) -> str:
    """One of CAP's words, or Unknown, which is the last of each list."""
    return value if isinstance(value, str) and value in known else known[-1]


def code(value: object) -> str:
    """A UGC ("TXZ213", "TXC201"), or the number of a county from a SAME code ("048201") or FIPS ("48201"):
    the part of the county that a SAME code begins with is left out. Empty: neither."""
    if not isinstance(value, str):
        return ""
    found = value.strip().upper()
    if not found.isascii():
        return ""
    if len(found) == 6 and found[:2].isalpha() and found[2] in "CZ":
        end = found[3:].replace("ALL", "000")
        return found[:3] + end if end.isdigit() else ""
    if found.isdigit() and len(found) in (5, 6):
        return found[-5:]
    return ""
