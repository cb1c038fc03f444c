"""report: what BIRD says, in our words: rows of neighbours, and what is wrong with a session. Pure.

A wrong TCP MD5 password looks like a neighbour that does not answer: the kernel drops what is signed
otherwise and tells nobody but its counters. So a session with a password that does not come up says so.
"""

from __future__ import annotations

from typing import Any

from ipshare.bgp.control import Session
from ipshare.bgp.render import protocol_name
from ipshare.bgp.speaker import Report
from ipshare.model import Bgp, BgpNeighbor

PATIENCE_S = 10.0
"""A session that is not up for so long is a trouble."""


def neighbor_rows(bgp: Bgp, report: Report | None, now: float) -> list[dict[str, Any]]:
    """A row for each neighbour. ``now``: Unix time, as BIRD's."""
    return [_row(neighbor, report, now) for neighbor in bgp.neighbors]


def trouble_of(bgp: Bgp, report: Report | None, now: float) -> str:
    """What is wrong with sessions that should be up; "": nothing."""
    rows = neighbor_rows(bgp, report, now) if report is not None else []
    return "; ".join(
        f"BGP neighbour {row['address']}: {row['trouble']}"
        for row in rows
        if row["trouble"] and (row["since_s"] is None or row["since_s"] > PATIENCE_S)
    )


def _row(neighbor: BgpNeighbor, report: Report | None, now: float) -> dict[str, Any]:
    session = report.sessions.get(protocol_name(neighbor.address)) if report is not None else None
    bfd = report.bfd.get(str(neighbor.address)) if report is not None and neighbor.bfd else None
    return {
        "address": str(neighbor.address),
        "asn": neighbor.asn,
        "state": session.state if session is not None else "down",
        "since_s": max(0, round(now) - session.since) if session is not None else None,
        "announced": session.announced if session is not None else 0,
        "bfd": bfd,
        "trouble": _trouble(neighbor, session),
    }


def _trouble(neighbor: BgpNeighbor, session: Session | None) -> str:
    if session is None:
        return "BIRD does not run"
    if session.state == "established":
        return ""
    text = session.error or "no session yet"
    if neighbor.password_file is not None:
        return f"{text}: does it have the same password?"
    return text
