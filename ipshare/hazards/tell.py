"""tell: findings as records, for people and programs: of a site, worst first, with times as text.

Whoever shows hazards, the verbs and the director, shows them alike. Pure.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ipshare.hazards.model import Look


def hazards_of(found: Look, site: str) -> list[dict[str, Any]]:
    """Its hazards, worst first."""
    rows = [asdict(f) | {"starts": moment(f.starts), "until": moment(f.until)} for f in found.of(site)]
    for row in rows:
        del row["site"]
    return rows


def moment(seconds: float) -> str:
    """As people and programs read it; a time beyond the calendar is its last moment."""
    last = datetime.max.replace(tzinfo=UTC).timestamp() - 1
    return datetime.fromtimestamp(min(max(seconds, 0.0), last), UTC).isoformat(timespec="seconds")
