"""The claims about a pair's times, each broken on its own (DESIGN 9; LESSONS 30, 33)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipshare.core import ffi, lib
from ipshare.pair import Timing, problems, suggest
from ipshare.pair.timing import HINTS
from tests.models.pair import config

BROKEN = {
    "RANGE": {"hold_s": 4000.0},
    "PATHS": {"paths": 0},
    "INTERVAL": {"interval_s": 0.00005, "tick_s": 0.00005},
    "TICK": {"tick_s": 0.0101, "lease_s": 0.0250, "late_s": 0.02, "stall_s": 0.02, "dead_s": 0.04},
    "LOSSES": {"losses": 4},
    "FLOOR": {"floor_s": 0.031},
    "JITTER": {"jitter_times": 16},
    "LEASE": {"lease_s": 0.0261},
    "LEASE_LIVES": {"lease_s": 0.013},
    "LATE": {"late_s": 0.021},
    "STALL": {"stall_s": 0.021},
    "HOLD": {"hold_s": 0.029},
    "WITNESS_ASK": {"witness": True, "witness_ask_s": 0.34},
}


def test_the_defaults_hold() -> None:
    assert problems(Timing()) == () == problems(Timing(witness=True))


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_broken_alone_and_named(rule: str) -> None:
    broken = problems(Timing(**BROKEN[rule]))  # type: ignore[arg-type]
    assert [one.rule for one in broken] == [rule]
    assert HINTS[rule] in str(broken[0]) and broken[0].claim


def test_every_rule_has_a_hint_and_is_known_here() -> None:
    rules = [ffi.string(lib.ips_pair_rule_name(i)).decode() for i in range(lib.ips_pair_rules())]
    assert list(HINTS) == rules
    assert set(rules) - set(BROKEN) == {"NODES", "SWITCHES", "CLOCK"}


@pytest.mark.parametrize(
    ("changes", "rule"),
    (({"peer": 1}, 1), ({"peer": 0}, 1), ({"mode": 2}, 3), ({"witness": 2}, 3), ({"preempt": 2}, 3)),
)
def test_ids_and_switches(changes: dict[str, int], rule: int) -> None:
    assert lib.ips_pair_check(config(1, **changes)) == 1 << rule


def test_a_clock_error_that_eats_the_margin_breaks_the_lease() -> None:
    near = Timing(lease_s=0.0259)
    assert problems(near) == ()
    assert [one.rule for one in problems(Timing(lease_s=0.0259, clock_ppm=5000))] == ["LEASE"]
    assert [one.rule for one in problems(Timing(clock_ppm=100_001))] == ["RANGE"]


@pytest.mark.parametrize("value", (-1.0, float("inf"), float("nan")))
def test_what_is_no_duration_is_out_of_range(value: float) -> None:
    assert [one.rule for one in problems(Timing(dead_s=value))] == ["RANGE"]


def test_a_fast_interval_needs_a_dead_time_above_the_measured_jitter() -> None:
    """LESSONS 30: 100 us heartbeats on a virtual machine that has gaps of 4 ms."""
    hasty = Timing(interval_s=0.0001, tick_s=0.00005, dead_s=0.0003, lease_s=0.00025, jitter_s=0.004,
                   late_s=0.0002, stall_s=0.0002)  # fmt: skip
    assert {"FLOOR", "JITTER", "LEASE"} <= {one.rule for one in problems(hasty)}
    assert suggest(0.0001, 0.004).dead_s >= 0.012


@given(st.floats(0.0001, 2.0), st.floats(0.0, 10.0), st.integers(2, 20))
def test_what_is_suggested_holds(interval: float, jitter: float, losses: int) -> None:
    timing = suggest(interval, jitter, losses=losses)
    assert problems(timing) == ()
    assert timing.lease_s <= timing.dead_s - 2 * jitter
