"""When a node announces, and BIRD's replies as values: what they are made of, event by event."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipshare.bgp.control import Line, parse_bfd, parse_sessions
from ipshare.bgp.readiness import UP_S, Facts, State, decide, wake_s

GOOD = Facts(is_alive=True, is_complete=True, stale_s=0.0)


def after(state: State, facts: Facts, now: float) -> State:
    return decide(state, facts, now, max_stale_s=600.0, drain_s=60.0)


def words(*steps: tuple[float, Facts], begin: State | None = None) -> list[str]:
    state, found = begin or State(), []
    for now, facts in steps:
        state = after(state, facts, now)
        found.append(state.word)
    return found


def test_up_after_three_seconds_of_good() -> None:
    assert words((10, GOOD), (12.9, GOOD), (13, GOOD), (14, GOOD)) == [
        "rising",
        "rising",
        "announced",
        "announced",
    ]


@pytest.mark.parametrize(
    "bad", [replace(GOOD, is_alive=False), replace(GOOD, is_complete=False), replace(GOOD, stale_s=601.0)]
)
def test_down_at_once_and_up_from_anew(bad: Facts) -> None:
    steps = ((0, GOOD), (3, GOOD), (4, bad), (5, GOOD), (7.9, GOOD), (8, GOOD))
    assert words(*steps) == ["rising", "announced", "held", "rising", "rising", "announced"]
    assert after(State("announced"), bad, 4).why


def test_what_a_node_announces_when_its_agent_comes_it_goes_on_announcing() -> None:
    assert words((0, GOOD), begin=State("announced", "as before", 0.0)) == ["announced"]


def test_a_drain_asks_first_and_withdraws_then_and_its_end_rises() -> None:
    def drained(since: float) -> Facts:
        return replace(GOOD, drained_s=since)

    steps = (
        (0, GOOD),
        (3, GOOD),
        (10, drained(0)),
        (69, drained(59)),
        (70, drained(60)),
        (80, GOOD),
        (83, GOOD),
    )
    expected = ["rising", "announced", "draining", "draining", "drained", "rising", "announced"]
    assert words(*steps) == expected
    assert words((0, GOOD), (3, GOOD), (10, drained(0)), (20, GOOD)) == [*expected[:3], "announced"]


def test_who_does_not_announce_does_not_begin_to_because_of_a_drain() -> None:
    assert words((0, replace(GOOD, drained_s=1.0)), (9, replace(GOOD, drained_s=10.0))) == [
        "drained",
        "drained",
    ]


def test_it_says_when_to_look_again() -> None:
    rising = after(State(), GOOD, 5.0)
    assert wake_s(rising, GOOD, 6.0, 60.0) == pytest.approx(UP_S - 1)
    draining = replace(GOOD, drained_s=50.0)
    assert wake_s(after(State("announced"), draining, 5.0), draining, 5.0, 60.0) == pytest.approx(10)
    assert wake_s(State("announced"), GOOD, 5.0, 60.0) is None


def test_replies_of_bird() -> None:
    lines = [
        Line(2002, "Name       Proto      Table      State  Since         Info"),
        Line(1002, "device1    Device     ---        up     1795876584    "),
        Line(1006, ""),
        Line(1002, "to_192_0_2_2 BGP   ---     start  1795876584    Active        Socket: No route to host"),
        Line(1006, "  BGP state:          Active"),
        Line(1006, "    Neighbor address: 192.0.2.2"),
        Line(1006, "    Last error:       Socket: No route to host"),
        Line(1002, "to_2001_db8__1 BGP        ---        up     1795876590    Established   "),
        Line(1006, "  BGP state:          Established"),
        Line(1006, "  Channel ipv4"),
        Line(1006, "    Routes:         0 imported, 2 exported, 0 preferred"),
        Line(1006, "  Channel ipv6"),
        Line(1006, "    Routes:         0 imported, 1 exported, 0 preferred"),
    ]  # fmt: skip
    first, second = parse_sessions(lines).values()
    assert (first.state, first.since, first.error, first.announced) == (
        "active", 1795876584, "Socket: No route to host", 0,
    )  # fmt: skip
    assert (second.name, second.state, second.error, second.announced) == (
        "to_2001_db8__1",
        "established",
        "",
        3,
    )
    bfd = [
        Line(1020, "bfd1:"),
        Line(1020, "IP address                Interface  State      Since         Interval  Timeout"),
        Line(1020, "192.0.2.2                 d0         Down       1795876584      1.000    0.000"),
    ]
    assert parse_bfd(bfd) == {"192.0.2.2": "down"}
