"""bgp_drain: who wants this node drained: its operator, its director, or both; in state_dir/drain.json.

A drain is in force while anybody wants it, over restarts and reboots, and counts from when the first one
came. A director ends what it began itself; an operator at the machine ends all of it, and a director that
still wants it begins it again. A director of an earlier term than one that the node has heard is refused.
"""

from __future__ import annotations

from typing import Any

from ipshare.agent.confirm import Clock
from ipshare.agent.server import Asker
from ipshare.agent.store import Store
from ipshare.errors import IpshareError, Refused

FILE = "drain.json"
OPERATOR, DIRECTOR = "operator", "director"


def holders(store: Store) -> list[str]:
    """Who wants it; empty: it is not drained."""
    kept = store.kept(FILE)
    return sorted(kept.get("by", [OPERATOR])) if kept is not None else []


def since_s(store: Store, clock: Clock) -> float | None:
    """Seconds since the drain began; None: none is. After a reboot they mean nothing, and nothing needs them:
    who does not announce does not begin to because of a drain."""
    kept = store.kept(FILE)
    return None if kept is None else float(clock.boottime_ns() - kept["began_ns"]) / 1e9


def keep(store: Store, clock: Clock, on: bool, by: str) -> None:
    """On the disk when this returns."""
    kept, wanting = store.kept(FILE), set(holders(store))
    wanting = wanting | {by} if on else wanting - {by} if by == DIRECTOR else set()
    if not wanting:
        store.keep(FILE, None)
    elif wanting != set(holders(store)):
        began_ns = kept["began_ns"] if kept is not None else clock.boottime_ns()
        store.keep(FILE, {"began_ns": began_ns, "by": sorted(wanting)})


def asking(caller: Asker, request: dict[str, Any], heard: int) -> str:
    """Which of the two asks. ``heard``: the latest term of a director that was heard of. Raises Refused
    for a director of an earlier one."""
    if not getattr(caller, "may_assign", False):
        return OPERATOR
    term = request.get("term")
    if type(term) is not int:
        raise IpshareError("term is the number of the director's term")
    if term < heard:
        raise Refused(f"a director of term {heard} was heard, this one has {term}")
    return DIRECTOR


def ends_it(wanting: list[str]) -> str:
    """For people: what ends it."""
    if DIRECTOR in wanting:
        return "`ipshare director undrain` ends it"
    return "`ipshare bgp drain off` ends it"
