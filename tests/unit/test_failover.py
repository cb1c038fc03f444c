"""What follows when something is down: cases step by step, from any interrupted step again, and where
workloads can go; and which settings are refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipshare.director.config import load_text
from ipshare.director.elsewhere import targets, units
from ipshare.director.failover import Case, Facts, Rules, approved, is_done, reason, step
from ipshare.director.topology import Topology
from ipshare.errors import ConfigError, Refused
from ipshare.exclusive import grants, holder
from ipshare.exclusive.grants import UNKNOWN, Grant, Seen
from ipshare.exclusive.holder import Held
from ipshare.exclusive.timing import troubles, wait_s

DOWN = Facts(("w",), "a", 11.0, "it is down", target="b")
AUTO, ASK = Rules("automatic", 10.0), Rules("propose", 10.0)
PROPOSED = Case("w", ("w",), "a", "b", "proposed", "it is down", "now", "waits for approval")
MOVING = replace(PROPOSED, phase="moving", note="")


@pytest.mark.parametrize(
    ("case", "facts", "rules", "after"),
    [
        (None, replace(DOWN, down_s=None), AUTO, None),
        (None, replace(DOWN, down_s=9.0), AUTO, None),
        (None, replace(DOWN, is_suppressed=True), AUTO, None),
        (None, DOWN, Rules("off", 10.0), None),
        (None, DOWN, AUTO, MOVING),
        (None, DOWN, ASK, PROPOSED),
        (
            None,
            DOWN,
            Rules("automatic", 10.0, has_room=False),
            replace(PROPOSED, note="too many failovers lately: waits for approval"),
        ),
        (
            None,
            replace(DOWN, target="", nowhere="no room"),
            AUTO,
            replace(PROPOSED, target="", phase="alarm", note="no room"),
        ),
        (PROPOSED, replace(DOWN, down_s=None), ASK, None),
        (PROPOSED, replace(DOWN, target="c"), ASK, PROPOSED),
        (PROPOSED, replace(DOWN, target="c", is_target_able=False), ASK, replace(PROPOSED, target="c")),
        (PROPOSED, DOWN, AUTO, MOVING),
        (MOVING, replace(DOWN, down_s=None), AUTO, MOVING),
        (MOVING, replace(DOWN, at="b"), AUTO, None),
        (MOVING, replace(DOWN, workloads=("w", "x")), AUTO, None),
        (
            MOVING,
            replace(DOWN, target="c", is_target_able=False),
            AUTO,
            replace(MOVING, target="c", note="b failed too"),
        ),
        (
            MOVING,
            replace(DOWN, target="", nowhere="no room", is_target_able=False),
            AUTO,
            replace(MOVING, note="b failed too: no room"),
        ),
    ],
)
def test_steps(case: Case | None, facts: Facts, rules: Rules, after: Case | None) -> None:
    assert step(case, "w", facts, rules, "now") == after


def test_a_case_is_done_when_it_runs_there_and_says_what_was_seen() -> None:
    assert approved(PROPOSED) == MOVING
    assert not is_done(MOVING, DOWN)
    assert is_done(MOVING, replace(DOWN, is_there=True))
    assert not is_done(PROPOSED, replace(DOWN, is_there=True))
    assert reason(MOVING, {"w": "stopped", "other": "expired"}) == "w from a to b: it is down; w stopped"
    assert Case.of_json(json.loads(json.dumps(MOVING.to_json()))) == MOVING


def test_any_step_taken_again_is_the_same_step() -> None:
    rng = random.Random(7)
    for _ in range(3000):
        facts = Facts(
            ("w",), rng.choice("ab"), rng.choice([None, 1.0, 20.0]), "seen", rng.random() < 0.2,
            rng.choice(["", "b", "c"]), "nowhere", rng.random() < 0.7, rng.random() < 0.5,
        )  # fmt: skip
        rules = Rules(rng.choice(["off", "propose", "automatic"]), 10.0, rng.random() < 0.7)
        case = rng.choice([None, PROPOSED, MOVING, replace(PROPOSED, phase="alarm", target="")])
        once = step(case, "w", facts, rules, "now")
        if facts.is_target_able and facts.at == "a":
            assert step(once, "w", facts, rules, "later") == once


def topology(*workloads: dict[str, Any], **nodes: dict[str, Any]) -> Topology:
    rows = [
        {"name": name, "address": "x", "endpoint": name.upper(), "site": "s", "capacity": 9.0} | row
        for name, row in nodes.items()
    ]
    return Topology({"node": rows, "workload": workloads, "site": [{"name": "s"}, {"name": "t"}]})


def test_where_a_unit_can_go() -> None:
    one, two = {"name": "w", "node": "a", "size": 3.0}, {"name": "x", "node": "b", "size": 2.0}
    here = topology(one, two, a={"capacity": 1.0}, b={"capacity": 4.0}, c={"site": "t"})
    assert units(here) == {"w": ("w",), "x": ("x",)}
    plan = targets(here, "a", ["w"], {"b", "c"})
    assert [(move.workloads, move.target) for move in plan.moves] == [(("w",), "c")]
    plan = targets(here, "a", ["w"], {"b"})
    assert not plan.moves
    assert "no room" in plan.stays[0].why
    three = {"name": "y", "node": "a", "size": 3.0}
    plan = targets(topology(one, three, a={}, b={"capacity": 4.0}), "a", ["w"], {"b"})
    assert [(move.workloads, move.target) for move in plan.moves] == [(("w",), "b")], "y stays"
    grouped = topology(
        {**one, "group": "g"}, {**two, "node": "a", "group": "g"}, a={}, b={"capacity": 4.0}, c={}
    )
    assert units(grouped) == {"g": ("w", "x")}
    plan = targets(grouped, "a", ["w", "x"], {"b", "c"})
    assert [(move.workloads, move.target) for move in plan.moves] == [(("w", "x"), "c")]


FILE = """
[director]
name = "d"
ca = "x"
certificate = "x"
interval = "1s"
[[node]]
name = "a"
address = "10.0.0.1:1"
endpoint = "A"
[[endpoint]]
name = "A"
local = ["10.1.0.0/24"]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[failover]\nlease = "12s"\n', "is lost by a look or two that fail"),
        ("[failover]\ndrift = 0.5\n", "0.5 is no bound for clocks"),
        ('[failover]\nafter = "1s"\n', "is less than one probe takes"),
        ('[failover]\nfence = ["fence"]\n', "'fence' is not an absolute path"),
        ('[failover]\n[health]\nstale = "2s"\n', "would be stale before the next one comes"),
        ('[health]\nobservers = ["z"]\n', "there is no node 'z'"),
        ("[[health.probe]]\nport = 80\n", "what does this probe look after?"),
        ('[[health.probe]]\nendpoint = "Z"\nport = 80\n', "there is no endpoint 'Z'"),
        ('[[health.probe]]\nendpoint = "A"\n', "a probe by tcp needs a port"),
        ('[failover]\nmode = "maybe"\n', "'maybe' is not one of off, propose, automatic"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as found:
        load_text(FILE + text, Path("director.toml"))
    assert message in str(found.value)
    assert all(problem.line > FILE.count("\n") for problem in found.value.problems)


def test_the_defaults_go_together() -> None:
    found = load_text(FILE + "[failover]\n", Path("director.toml")).settings.watch
    assert found is not None
    assert found.failover is not None
    assert found.wait_s == pytest.approx(30 * 1.01 / 0.99)
    assert load_text(FILE, Path("director.toml")).settings.watch is None


def test_whatever_clocks_do_the_wait_outlasts_the_lease() -> None:
    rng = random.Random(3)
    for _ in range(1000):
        drift, lease, stop = rng.uniform(0.001, 0.1), rng.uniform(1, 60), rng.uniform(0.1, 30)
        mine, other = (1 + rng.choice([-1, 1]) * drift for _ in range(2))
        assert wait_s(lease, stop, drift) / mine >= (lease + stop) / other - 1e-9
    good: dict[str, Any] = {
        "lease_s": 20, "stop_s": 10, "drift": 0.01, "interval_s": 1, "stale_s": 5, "after_s": 10,
        "probe_interval_s": 1, "probe_timeout_s": 1, "echo_interval_s": 0.1, "echo_timeout_s": 0.25,
        "shared_after_s": 0.45,
    }  # fmt: skip
    assert list(troubles(**good)) == []
    for bad, key in (
        (("shared_after_s", 0.44), "shared_after"),
        (("echo_timeout_s", 0.3), "shared_after"),
        (("echo_timeout_s", 3), "stale"),
        (("echo_interval_s", 0.04), "echo_interval"),
    ):
        assert key in [one for one, _, _ in troubles(**(good | dict([bad])))]


SECOND = 10**9


def test_a_holder_row_by_row() -> None:
    held = Held(word="stopped")
    with pytest.raises(Refused, match="from the future"):
        holder.granted(held, 1, 2, SECOND, 1)
    held = holder.granted(held, 3, 0, 20 * SECOND, 5 * SECOND)
    assert holder.due(held, 5 * SECOND, 10 * SECOND) == "start"
    held = holder.became(held, "running")
    assert holder.due(held, 8 * SECOND, 10 * SECOND) == ""
    assert holder.wake_ns(held, 8 * SECOND, 10 * SECOND) == SECOND  # 20 - 10 - a twentieth of 20
    assert holder.due(held, 9 * SECOND, 10 * SECOND) == "stop"
    with pytest.raises(Refused, match="3 was heard of"):
        holder.granted(held, 2, 0, SECOND, SECOND)
    assert holder.granted(held, 3, 0, 10 * SECOND, SECOND) == held, "a late one takes nothing away"
    off = holder.ordered_off(held, 3)
    assert (off.until_ns, off.released) == (0, 0)
    assert holder.ordered_off(off, 2) == off
    with pytest.raises(Refused, match="3 was given back"):
        holder.granted(off, 3, 0, 20 * SECOND, 1)
    assert holder.became(off, "stopped").released == 3
    assert holder.became(off, "stuck").released == 0


def test_grants_row_by_row() -> None:
    none = Grant()
    assert none.node == UNKNOWN
    assert grants.step(none, "a", None, 5.0, 10.0, 4) == none, "somebody may have it"
    first = grants.step(none, "a", None, 10.0, 10.0, 4)
    assert first == Grant(5, "a", False, "expired")
    assert grants.step(first, "a", None, 99.0, 10.0, 9) == first
    leaving = grants.step(first, "b", None, 99.0, 10.0, 5)
    assert leaving == replace(first, leaving=True)
    assert grants.step(leaving, "b", Seen(5, 0, "running"), 99.0, 10.0, 5) == leaving, "it says so"
    stuck = grants.step(leaving, "b", Seen(5, 0, "stuck"), 99.0, 10.0, 5)
    assert stuck == replace(leaving, stuck=True)
    assert grants.step(stuck, "b", None, 99.0, 10.0, 5) == stuck, "nobody says that it could be stopped since"
    for word in ("stopping", "unknown", "running"):  # it tries again; its keeper is another one
        assert grants.step(stuck, "b", Seen(5, 0, word), 99.0, 10.0, 5) == stuck
    held = grants.step(first, "a", Seen(5, 0, "stuck"), 0.0, 10.0, 5)
    assert held == replace(first, stuck=True), "remembered before it has to leave"
    assert grants.step(replace(held, leaving=True), "b", None, 99.0, 10.0, 5).node == "a"
    assert grants.step(replace(stuck, fenced=5), "b", None, 0.0, 10.0, 5) == Grant(6, "b", False, "fenced")
    assert grants.step(stuck, "b", Seen(5, 5, "stopped"), 0.0, 10.0, 5) == Grant(6, "b", False, "stopped")
    assert grants.step(leaving, "b", Seen(5, 5, "stopped"), 0.0, 10.0, 5) == Grant(6, "b", False, "stopped")
    assert grants.step(leaving, "b", None, 10.0, 10.0, 5) == Grant(6, "b", False, "expired")
    assert grants.step(replace(leaving, fenced=5), "b", None, 0.0, 10.0, 5) == Grant(6, "b", False, "fenced")
    assert grants.step(replace(leaving, fenced=4), "b", None, 0.0, 10.0, 5).leaving
    nobody = grants.step(leaving, "", None, 10.0, 10.0, 5)
    assert (nobody.node, nobody.leaving) == ("", False)
    assert grants.step(nobody, "b", None, 0.0, 10.0, 5) == Grant(6, "b", False, "expired")
