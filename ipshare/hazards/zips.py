"""Where a US ZIP code is: its centre, from the table that the package zipcodes carries. No network."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ipshare.errors import IpshareError


class NoSuchZip(IpshareError):
    """Nobody knows where that is."""


def locate(zip_code: str) -> tuple[float, float]:
    """Longitude and latitude. Raises NoSuchZip."""
    if not re.fullmatch("[0-9]{5}", zip_code):
        raise NoSuchZip(f"not a ZIP code: {zip_code!r}", hint='five digits in quotes: zip = "77002"')
    try:
        import zipcodes
    except ImportError:
        hint = "pip install 'ipshare[hazards]', or write latitude and longitude"
        raise NoSuchZip("the table of ZIP codes is not installed", hint=hint) from None
    matching: Callable[[str], list[dict[str, Any]]] = zipcodes.matching
    for found in matching(zip_code):
        try:
            y, x = float(found["lat"]), float(found["long"])
        except (KeyError, TypeError, ValueError):
            continue
        if -180 <= x <= 180 and -90 <= y <= 90 and (x, y) != (0.0, 0.0):
            return x, y
    raise NoSuchZip(f"no place is known for ZIP code {zip_code}", hint="write latitude and longitude instead")
