"""One site file for both nodes of a pair: each sees its own half, and both agree on what has to be equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipshare.agent.codec import decode, encode
from ipshare.config import check_text, load_text
from ipshare.model import Pair
from ipshare.model_pair import FLOOR_S, JITTER_S, lease_of
from ipshare.pair.timing import Timing, problems
from tests.cases.config_mistakes import GOOD_PAIR
from tests.cases.pair_mistakes import GOOD_PAIR_ON_VPP


def half(name: str, *change: tuple[str, str]) -> Pair:
    text = GOOD_PAIR.replace('[node]\nname = "n2"', f'[node]\nname = "{name}"')
    for old, new in change:
        assert old in text
        text = text.replace(old, new)
    pair = load_text(text, Path("/etc/ipshare/site.toml")).pair
    assert pair is not None
    return pair


def test_each_node_sees_its_own_half() -> None:
    one, two = half("n1"), half("n2")
    assert (one.node, one.peer, one.node_id, one.peer_id, one.is_preferred) == ("n1", "n2", 1, 2, True)
    assert (two.node, two.peer, two.node_id, two.peer_id, two.is_preferred) == ("n2", "n1", 2, 1, False)
    assert [(p.local, p.remote) for p in one.paths] == [(p.remote, p.local) for p in two.paths]
    assert str(two.paths[1]) == "[fd00:9::2]:6081 - [fd00:9::1]:6081"
    assert one.key_file == Path("/etc/ipshare/pair.key")
    assert (one.interval_s, one.misses, one.mode.value, one.preempt) == (0.02, 3, "heartbeat", False)


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_a_half_survives_json(name: str) -> None:
    assert decode(Pair, encode(half(name))) == half(name)


def test_both_nodes_agree_on_the_digest() -> None:
    assert half("n1").digest == half("n2").digest
    assert half("n1").digest < 1 << 64


@pytest.mark.parametrize(
    "change",
    [
        ('"20ms"', '"30ms"'),
        ('"20ms"', '"20ms"\nmisses = 4'),
        ('"20ms"', '"20ms"\nmode = "query"'),
        ('"20ms"', '"20ms"\npreempt = true'),
        ('"10.9.0.1:6081"', '"10.9.0.1:6082"'),
        ('"192.168.5.1"', '"192.168.5.9"'),
    ],
    ids=str,
)
def test_what_has_to_be_equal_is_in_the_digest(change: tuple[str, str]) -> None:
    assert half("n1", change).digest != half("n1").digest


@pytest.mark.parametrize("change", [('"eth1"', '"eth7"'), ('"pair.key"', '"other.key"')], ids=str)
def test_what_may_differ_is_not(change: tuple[str, str]) -> None:
    assert half("n1", change).digest == half("n2").digest


@pytest.mark.parametrize("misses", [2, 3, 4, 10, 100])
@pytest.mark.parametrize("interval_us", [100, 500, 1000, 5000, 7000, 10000, 13000, 14000, 50000, 2000000])
def test_times_are_refused_where_the_core_refuses_them(interval_us: int, misses: int) -> None:
    """The engine makes these durations of interval and misses (native/rt/rt_times.c), the core judges."""
    text = GOOD_PAIR.replace('"20ms"', f'"{interval_us}us"\nmisses = {misses}')
    report, interval_s = check_text(text), interval_us / 1e6
    dead_s = max(misses * interval_s, FLOOR_S)
    lease_s = lease_of(dead_s)
    made = Timing(
        interval_s=interval_s, dead_s=dead_s, lease_s=lease_s,
        tick_s=min(interval_s / 2, max(1e-3, min(interval_s / 100, 1e-2))),
        jitter_s=JITTER_S, floor_s=FLOOR_S, late_s=lease_s / 2, stall_s=lease_s, hold_s=max(3 * dead_s, 1.0),
        preempt_hold_s=10.0, losses=misses, clock_ppm=500,
    )  # fmt: skip
    assert (not report.problems) == (not problems(made)), problems(made)
    if report.config is not None and report.config.pair is not None:
        assert (report.config.pair.dead_s, report.config.pair.lease_s) == pytest.approx((dead_s, lease_s))


def test_without_the_table_there_is_no_pair() -> None:
    text = GOOD_PAIR.split("[pair]")[0]
    assert load_text(text).pair is None


def test_public_addresses_may_lie_in_the_subnet_of_their_interface_on_vpp() -> None:
    """And only those: another Global Network there would be shadowed by VPP's own routes."""
    near = GOOD_PAIR_ON_VPP.replace("203.0.113.0/24", "198.51.100.0/28").replace(
        'name = "eth2"\n[[pair.interface]]',
        'name = "eth2"\naddresses = ["198.51.100.20/24"]\n[[pair.interface]]',
    )
    near = near.replace('endpoint = "A"\nicmp', 'distribution = "C"\nicmp') + '[[distribution]]\nname = "C"\n'
    assert "198.51.100.20/24" in near
    assert not check_text(near).problems
    wider = near.replace('prefix = "198.51.100.0/28"\ninterface', 'prefix = "198.51.100.8/29"\ninterface')
    assert wider != near
    (found,) = check_text(wider).problems
    assert "overlaps Global Network 198.51.100.0/28" in found.message
