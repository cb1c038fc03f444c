"""A model of the mirror's order: fence, scan, sets, tombstones; every interleaving is visited.

Two workers change one session under its lock and push into a ring each. The thread reads one ring's head at a
time, so a change may slip in between two readings; it drains ring 0 before ring 1. The stream itself is in
order (that is the window's work, tested elsewhere), so what is appended is applied. ``Rules`` weakens one
rule at a time: then the exploration has to find a ghost or a loss, or it would prove nothing.

A state: what the active node would leave behind if it died now. Followed to the letter:
native/ips_mirror_fill.c, native/ips_mirror_recv.c (apply_record, apply_mark).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

Pair = tuple[int, int]
Event = tuple[bool, int]  # opens (or changes), version


@dataclass(frozen=True, slots=True)
class Rules:
    """As built. Each field can be set wrong."""

    remembered_in_the_next_set: bool = True
    first_set_without_upserts: bool = True
    fence_before_scan: bool = True
    sweep: bool = True
    last_set_before_ready: bool = True


@dataclass(frozen=True, slots=True)
class State:
    # the active node's table and rings
    budget: int
    version: int
    is_open: bool
    rings: tuple[tuple[Event, ...], tuple[Event, ...]]
    # the thread: what it does next, and what it has read
    step: str = "cursor 0"
    cursor: Pair = (0, 0)
    target: Pair = (0, 0)
    first_set: bool = True
    marks_due: int = 0
    scanned: bool = False
    fence_set: bool = False
    scan_end: Pair = (0, 0)
    # the standby: version 0 is none, `held` is what it has
    held: int = 0
    confirmed: bool = True
    young: int = 0
    old: int = 0
    ready: bool = False


class Broken(AssertionError):
    """An invariant does not hold; the text has the way there."""


def at(pair: Pair, worker: int, value: int) -> Pair:
    return (value, pair[1]) if worker == 0 else (pair[0], value)


def changes(s: State) -> Iterator[tuple[str, State]]:
    """What either worker may do: table first, then its ring, in one step (the session's lock)."""
    if not s.budget:
        return
    for worker in (0, 1):
        for opens in (True, False) if s.is_open else (True,):
            version = s.version + 1
            rings = list(s.rings)
            rings[worker] = (*rings[worker], (opens, version))
            made = replace(s, budget=s.budget - 1, version=version, is_open=opens, rings=(rings[0], rings[1]))
            yield f"worker {worker} {'opens' if opens else 'closes'} {version}", made


def applied(s: State, event: Event) -> State:
    opens, version = event
    if opens and max(s.young, s.old) > version:
        return s  # obsolete
    if not opens:
        s = replace(s, young=max(s.young, version))
    s = replace(s, confirmed=True)
    if s.held >= version:
        return s
    return replace(s, held=version if opens else 0)


def turned(s: State, rules: Rules) -> State:
    """The end of a set."""
    return replace(s, old=s.young if rules.remembered_in_the_next_set else 0, young=0)


def thread(s: State, rules: Rules) -> tuple[str, State]:
    """The thread's next step; there is always exactly one."""
    name, worker = s.step.split()[0], int(s.step.split()[-1]) if s.step[-1].isdigit() else 0
    head = len(s.rings[worker])
    if name == "cursor":
        following = "cursor 1" if worker == 0 else "target 0"
        return s.step, replace(s, cursor=at(s.cursor, worker, head), step=following)
    if name == "target":
        s = replace(s, target=at(s.target, worker, head), step="target 1" if worker == 0 else "drain")
        return f"target {worker}", replace(s, fence_set=s.scanned) if worker == 1 else s
    if name == "drain":
        return drained(s, rules)
    return scanned(s, rules)


def drained(s: State, rules: Rules) -> tuple[str, State]:
    for worker in (0, 1):
        if s.cursor[worker] == s.target[worker]:
            continue
        event = s.rings[worker][s.cursor[worker]]
        s = replace(s, cursor=at(s.cursor, worker, s.cursor[worker] + 1))
        if not event[0]:
            s = replace(s, marks_due=2)
        if s.first_set and event[0] and rules.first_set_without_upserts:
            return f"skips {event[1]}", s
        return f"sends {event[1]}", applied(s, event)
    if s.marks_due:
        s = turned(replace(s, marks_due=s.marks_due - 1), rules)
    s = replace(s, first_set=False, step="target 0" if s.scanned else "scan")
    return "end of set", ended(s) if s.fence_set else s


def scanned(s: State, rules: Rules) -> tuple[str, State]:
    s = replace(s, scanned=True, scan_end=(len(s.rings[0]), len(s.rings[1])), step="target 0")
    if s.is_open:
        s = applied(s, (True, s.version))
    return "scan", s if rules.last_set_before_ready else ended(s)


def ended(s: State) -> State:
    """The mark at the end of the snapshot: what nothing has confirmed goes."""
    if s.ready:
        return s
    return replace(s, ready=True, held=s.held if s.confirmed else 0)


def begun(s: State, rules: Rules) -> State:
    s = replace(s, confirmed=not rules.sweep)
    return s if rules.fence_before_scan else replace(s, step="early")


def check(s: State) -> None:
    """What holds in every state in which the standby is ready: it may have to take over now."""
    if not s.ready:
        return
    if any(s.cursor[w] < s.scan_end[w] for w in (0, 1)):
        raise Broken("ready, but the rings are not past the fence")
    read = [e for w in (0, 1) for e in s.rings[w][: s.cursor[w]]]
    opens, version = max(read, key=lambda e: e[1], default=(False, 0))
    if opens and s.held < version:
        raise Broken(f"lost: version {version} was committed, the standby has {s.held}")
    if not opens and version and 0 < s.held < version:
        raise Broken(f"ghost: closed by {version}, the standby has {s.held}")
    all_read = all(s.cursor[w] == len(s.rings[w]) for w in (0, 1)) and s.step.startswith("target 0")
    if all_read and s.held != (s.version if s.is_open else 0):
        raise Broken(f"at rest the standby has {s.held}, the table {s.version if s.is_open else 'nothing'}")


def early(s: State) -> tuple[str, State]:
    """The wrong order: the scan, and only then the heads."""
    s = replace(s, scanned=True, step="cursor 0")
    return "scan", applied(s, (True, s.version)) if s.is_open else s


def explore(budget: int, rules: Rules | None = None) -> int:
    """Visits every state. Returns how many. Raises Broken with the shortest way to what is wrong."""
    rules = rules or Rules()
    starts = []
    for before in changed_before(State(2, 0, False, ((), ()))):
        for held in {0, max(0, before.version - 1)}:  # what an earlier stream had left there
            starts.append(begun(replace(before, budget=budget, held=held), rules))
    queue, came = deque(starts), dict.fromkeys(starts, (None, "start"))
    while queue:
        s = queue.popleft()
        try:
            check(s)
        except Broken as why:
            raise Broken(f"{why}; by: {' | '.join(way(came, s))}") from None
        own = early(s) if s.step == "early" else thread(s, rules)
        for word, following in (own, *changes(s)):
            if following not in came:
                came[following] = (s, word)
                queue.append(following)
    return len(came)


def changed_before(s: State) -> Iterator[State]:
    """The rings' past: up to two changes before the stream begins."""
    seen, todo = {s}, [s]
    while todo:
        now = todo.pop()
        yield now
        for _, following in changes(now):
            if following not in seen:
                seen.add(following)
                todo.append(following)


def way(came: dict[State, tuple[State | None, str]], s: State | None) -> list[str]:
    words: list[str] = []
    while s is not None:
        s, word = came[s]
        words.append(word)
    return words[::-1]
