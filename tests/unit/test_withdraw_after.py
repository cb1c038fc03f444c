"""Who withdraws without a director, and who stays: never the last one, whatever is lost; and what a node, its
readiness and a roll-out make of it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from ipshare.agent.heard import FILE, Heard
from ipshare.bgp.readiness import UP_S, Facts, State, decide
from ipshare.director import rollout
from ipshare.director.rollout import FINAL, Rollout
from ipshare.director.staying import SLACK_S, Point, gone_s, may_withdraw
from ipshare.errors import IpshareError
from tests.unit.test_director_rollout import NEW, OLD, after

NAMES = "cde"


def test_one_stays_and_the_others_may_go_once_it_said_so() -> None:
    points = {name: Point(announces=True) for name in NAMES}
    assert not any(may_withdraw(name, points) for name in NAMES)
    points["c"] = Point(announces=True, stays=True)
    assert [may_withdraw(name, points) for name in NAMES] == [False, True, True]
    points["c"] = Point(announces=False, stays=True)
    assert not any(may_withdraw(name, points) for name in NAMES), "D was not heard to stay yet"
    points["d"] = Point(announces=True, stays=True)
    assert [may_withdraw(name, points) for name in NAMES] == [True, False, True]


def test_whatever_is_lost_somebody_believes_that_he_stays() -> None:
    """Messages arrive or not, answers arrive or not, points are heard or not, a director starts anew."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    allowed = 0
    for _ in range(300):
        stays, believes = (
            dict.fromkeys(NAMES, False),
            dict.fromkeys(NAMES, False),
        )  # believes: it may withdraw
        for _ in range(60):
            announces = {name: rng.random() < 0.8 for name in NAMES}
            points = {name: Point(announces[name], stays[name]) for name in NAMES}
            name = rng.choice(NAMES)
            told = may_withdraw(name, points)
            stays[name] = stays[name] and not told
            if rng.random() < 0.7:  # it arrives
                believes[name] = told
                if rng.random() < 0.7:  # and so does the answer
                    stays[name] = not told
            if rng.random() < 0.02:
                stays = dict.fromkeys(NAMES, False)
            allowed += any(believes.values())
            assert not all(believes.values())
    assert allowed > 1000


def test_readiness_without_a_director() -> None:
    well = Facts(is_alive=True, is_complete=True, stale_s=0.0)
    up = State("announced", "", 0.0)

    def word(
        unheard_s: float | None, limit_s: float | None = 30.0, state: State = up, now: float = 100.0
    ) -> str:
        facts = replace(well, unheard_s=unheard_s)
        return decide(state, facts, now, max_stale_s=600, drain_s=60, withdraw_after_s=limit_s).word

    assert (word(None), word(29.9), word(30.0), word(99.0, None)) == (
        "announced",
        "announced",
        "held",
        "announced",
    )
    held = decide(
        up, replace(well, unheard_s=31.0), 100.0, max_stale_s=600, drain_s=60, withdraw_after_s=30.0
    )
    assert "was not heard for 31 s" in held.why
    rising = decide(
        held, replace(well, unheard_s=1.0), 100.0, max_stale_s=600, drain_s=60, withdraw_after_s=30.0
    )
    assert rising.word == "rising"
    assert word(2.0, state=rising, now=100.0 + UP_S) == "announced"


class Clock:
    def __init__(self) -> None:
        self.ns, self.boot = 100 * 10**9, "one"

    def boottime_ns(self) -> int:
        return self.ns

    def boot_id(self) -> str:
        return self.boot


class Node:
    """As much of a reconciler as is asked for."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.config = self
        self.node, self.bgp = self, self
        self.runtime_dir, self.withdraw_after_s = folder, 30.0


def test_what_a_node_heard(tmp_path: Path) -> None:
    node = Node(tmp_path)
    heard = Heard(node)  # type: ignore[arg-type]
    assert heard.unheard_s() is None
    told = {"boot": "one", "since_ns": 99 * 10**9, "may_withdraw": True, "current": False}
    heard.take(told)
    assert heard.unheard_s() == 1.0, "from its own reading on"
    assert Heard(node).unheard_s() == 1.0, "another agent goes on from there"  # type: ignore[arg-type]
    node.clock.ns += 40 * 10**9
    heard.take({**told, "since_ns": node.clock.ns})
    heard.take({**told, "since_ns": node.clock.ns, "may_withdraw": False})
    assert heard.unheard_s() == 41.0, "it was cut off, and has not the newest revision yet"
    assert heard.may_withdraw is True, "and says so"
    heard.take({**told, "since_ns": node.clock.ns, "current": True})
    assert heard.unheard_s() == 0.0
    heard.take({**told, "may_withdraw": False})
    assert heard.unheard_s() is None and heard.may_withdraw is False, "it stays"
    assert Heard(node).may_withdraw is False  # type: ignore[arg-type]
    heard.take(told)
    node.clock.boot = "two"
    assert heard.unheard_s() is None and heard.may_withdraw is None
    (tmp_path / FILE).write_text("{")
    assert Heard(node).unheard_s() is None  # type: ignore[arg-type]
    with pytest.raises(IpshareError, match="heard has boot"):
        heard.take({"boot": 1})


def test_a_roll_out_waits_for_a_silent_one_until_it_has_withdrawn() -> None:
    made = Rollout(2, NEW, [OLD])
    done = rollout.Facts((2, FINAL), alive=True)
    facts = after(made, 1, b1=done, c1=replace(done, may=frozenset([2])))
    facts["a1"] = rollout.Facts((2, rollout.MAKE), alive=True)
    facts["d1"] = replace(facts["d1"], alive=False)
    assert made.wanted(facts)["a1"] == (-1, "waits for d1")
    facts["d1"] = replace(facts["d1"], withdrew=True)
    assert made.wanted(facts)["a1"] == (FINAL, "")
    facts["d1"] = replace(facts["d1"], alive=True, announces=True)
    assert made.wanted(facts)["a1"] == (-1, "waits for d1"), "it is back, and says otherwise"


def test_the_director_waits_by_the_worst_clocks() -> None:
    for drift in (0.001, 0.01, 0.1):
        assert gone_s(30.0, drift) / (1 + drift) * (1 - drift) == pytest.approx(30.0 + SLACK_S)
