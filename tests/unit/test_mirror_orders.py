"""A few datagrams in every order: what arrives, what is lost, what comes twice, tried exhaustively.

The network is a set; at each step the test picks which datagram arrives next, or that none ever does.
"""

from __future__ import annotations

import itertools

import pytest

from ipshare.core import lib
from tests.mirror_world import DELETE, MS, UPSERT, Node, Settings, World, pair, ready, record, same

SMALL = Settings(workers=2, ring=16, window=4)


def started() -> tuple[World, Node, Node]:
    w, a, b = pair(settings=SMALL)
    a.open(50)
    ready(w, a)
    w.run(5)
    w.by_hand = True
    return w, a, b


def make_events(w: World, a: Node, events: tuple[str, ...]) -> list[bytes]:
    """One datagram for each event, as it leaves `a`; nothing arrives yet."""
    made = []
    for i, event in enumerate(events):
        before = len(w.log)
        worker = i % 2
        (a.close if event == "-" else a.open)(1, worker)
        a.tick()
        made += [d for source, _, d in w.log[before:] if source == "a" and len(d) > 60]
    w.way.clear()
    return made


EVENTS = [e for n in (1, 2, 3, 4) for e in itertools.product("+-", repeat=n)]


@pytest.mark.parametrize("events", EVENTS, ids="".join)
def test_every_order_of_arrival(events: tuple[str, ...]) -> None:
    """Each permutation, and each of them with one lost: then the rest of the run resends it."""
    n = len(events)
    for order in itertools.permutations(range(n)):
        for lost in (None, *range(n)):
            w, a, b = started()
            made = make_events(w, a, events)
            assert len(made) == n
            for i in order:
                if i != lost:
                    b.input("a", made[i])
            if lost is None:
                assert same(a, b), (order, lost)
            else:
                known = set(b.store.applied[1:])
                assert len(known) <= n
            w.by_hand = False
            w.until(lambda a=a: a.peer("b").lag_events == 0, 200)
            assert same(a, b), (order, lost)
            assert a.count("STREAMS") == 1


def test_every_order_with_every_one_twice() -> None:
    for order in set(itertools.permutations((0, 0, 1, 1, 2, 2))):
        w, a, b = started()
        made = make_events(w, a, ("+", "-", "+"))
        results = [b.input("a", made[i]) for i in order]
        assert results.count("REPLAYED") == 3 and same(a, b), order


def test_duplicates_made_by_resending_are_applied_once() -> None:
    w, a, b = started()
    make_events(w, a, ("+", "-", "+", "-"))
    applied = len(b.store.applied)
    for _ in range(200):
        w.now += MS
        a.tick()
    later = [data for *_, data in sorted(w.way)]
    for data in later + later[::-1]:
        b.input("a", data)
    assert a.count("DATAGRAMS_RESENT") > 4 and b.count("DUPLICATE") >= 4
    assert len(b.store.applied) - applied == 4 and same(a, b)


@pytest.mark.parametrize("order", sorted(set(itertools.permutations("UUDD"))), ids="".join)
def test_every_split_of_versions_between_two_rings(order: tuple[str, ...]) -> None:
    """Versions 10 .. 13 of one session in two rings in every way: the highest decides, always."""
    for rings in itertools.product((0, 1), repeat=4):
        w, a, b = pair(settings=SMALL)
        ready(w, a)
        for i, (op, ring) in enumerate(zip(order, rings, strict=True)):
            rec = record(1, 10 + i)
            a.push(ring, UPSERT if op == "U" else DELETE, rec)
        w.run(6)
        there = bool(b.store.sessions)
        assert there == (order[-1] == "U"), rings
        if there:
            assert next(iter(b.store.sessions.values())) == record(1, 13)


STEPS = ("open", "close", "tick a", "tick b", "deliver", "drop", "restart b")


@pytest.mark.parametrize("first", STEPS)
def test_every_interleaving_to_a_depth(first: str) -> None:
    """All sequences of four steps on a stream that just begins; then the network is good: ready, equal."""
    for steps in itertools.product(STEPS, repeat=3):
        w, a, b = pair(settings=SMALL)
        a.open(50)
        w.run(3)
        w.by_hand = True
        for step in (first, *steps):
            if step == "open":
                a.open(1, 0)
            elif step == "close":
                a.close(1, 1)
            elif step == "tick a":
                w.now += MS
                a.tick()
            elif step == "tick b":
                w.now += MS
                w.nodes["b"].tick()
            elif step == "restart b":
                w.add("b", ["a"], SMALL)
            elif w.way:
                _, _, source, to, data = w.way.pop(0)
                if step == "deliver":
                    w.nodes[to].input(source, data)
        w.by_hand = False
        w.until(lambda a=a: a.peer("b").is_ready, 500)
        w.run(5)
        assert same(a, w.nodes["b"]), (first, *steps)
        assert a.peer("b").phase == lib.IPS_MIRROR_LIVE
