"""One site file for both nodes of a pair: each sees its own half, and both agree on what has to be equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipshare.agent.codec import decode, encode
from ipshare.config import load_text
from ipshare.model import Pair
from tests.cases.config_mistakes import GOOD_PAIR


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


def test_without_the_table_there_is_no_pair() -> None:
    text = GOOD_PAIR.split("[pair]")[0]
    assert load_text(text).pair is None
