"""beside_states: what stands beside a director, as states that a Watch makes events of: migrations,
evacuations, failovers, and what is up or down.

Only what is open, or was at the last look, is asked for: what has been over for long changes no more.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ipshare.director.desk import Desk
from ipshare.errors import IpshareError
from ipshare.web.watch import Of, State


class _Inside:
    """Who asks the desk: the gate has looked at the caller before."""

    is_owner = True

    def __str__(self) -> str:
        return "HTTP"


INSIDE = _Inside()
OPEN = ("proposed", "running", "stopped")


async def states(desk: Desk, known: set[Of]) -> list[State]:
    """``known``: those that were not over at the last look."""
    found = [*await _migrations(desk, known)]
    for one in (await _of(desk, "evacuations")).get("evacuations", ()):
        if one["state"] in OPEN or one["moving"] or ("evacuation", one["id"]) in known:
            found.append(_evacuation(one))
    for case in (await _of(desk, "failover")).get("cases", ()):
        said = {key: case[key] for key in ("phase", "source", "target", "why", "note")}
        found.append(State("failover", case["unit"], said))
    for target in (await _of(desk, "health")).get("targets", ()):
        found.append(State("health", target["name"], {"state": target["state"]}))
    return found


async def _migrations(desk: Desk, known: set[Of]) -> list[State]:
    rows = (await _of(desk, "migrations", open=True)).get("migrations", [])
    ended = {name for kind, name in known if kind == "migration"} - {row["id"] for row in rows}
    rows += [row for name in ended if (row := await _of(desk, "migrations", which=name))]
    return [
        State(
            "migration", row["id"], {"step": row["step"], "trouble": row["trouble"]},
            tuple((_time(one["at"]), one["what"]) for one in row["times"]), row["over"],
        )
        for row in rows
    ]  # fmt: skip


def _evacuation(one: dict[str, Any]) -> State:
    said = {key: one[key] for key in ("state", "moved", "moving", "waiting", "failed")}
    return State("evacuation", one["id"], said, over=one["state"] not in OPEN and not one["moving"])


async def _of(desk: Desk, verb: str, **words: Any) -> dict[str, Any]:
    """Of what may stand beside the director."""
    try:
        return await desk.handle(INSIDE, {"verb": verb, **words})
    except IpshareError:
        return {}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
