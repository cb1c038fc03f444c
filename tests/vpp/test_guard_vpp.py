"""What the box's guard sees of a real VPP: all of its threads go on, and none does when it is stopped."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.appliance.guard import Guard
from ipshare.appliance.guard_signs import HEARTBEAT, PAIR, TURNS, Sign, Signs
from ipshare.lab import userns
from tests.vpp.vpp_process import Running, vpp

pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")
QUICK = "statseg { update-interval 0.1 }"
"""Ten looks of the collector in a second; by itself VPP's looks every 10 s."""


@pytest.fixture
def node() -> Iterator[Running]:
    with vpp(workers=1, startup=QUICK) as running:
        running.engine.configure()
        yield running


def moved(signs: Signs, before: dict[Sign, str]) -> dict[Sign, str]:
    """The signs as soon as the heartbeat is another one, five times over: the others had their time, too."""
    for _ in range(5):
        beat = main(before)
        while main(now := signs.found()) == beat:
            select.select([], [], [], 0.02)  # no event tells of a counter
        before = now
    return before


def main(signs: dict[Sign, str]) -> int:
    return next(sign.shows for sign in signs if sign.of.startswith("the main thread"))


def test_every_thread_that_goes_on_is_a_new_sign_and_a_stopped_vpp_is_the_same_one(node: Running) -> None:
    assert {HEARTBEAT, TURNS, PAIR} <= set(node.stats.names())
    signs = Signs(Path("/nowhere"), node.settings.stats)
    first = moved(signs, signs.found())
    assert {sign.of for sign in first} == {"the main thread of VPP", "thread 0 of VPP", "thread 1 of VPP"}
    assert not set(moved(signs, first)) & set(first), "all have moved"
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, node.process.pid, os.WSTOPPED | os.WNOWAIT)
        watch = Guard(patience_s=30)
        assert watch.judged(signs.found(), 0) == ""
        assert "VPP does not advance since 30 s" in watch.judged(signs.found(), 30)
    finally:
        os.kill(node.process.pid, signal.SIGCONT)


def test_a_vpp_that_has_ended_shows_nothing(node: Running) -> None:
    signs = Signs(Path("/nowhere"), node.settings.stats)
    assert signs.found()
    node.kill()
    assert signs.found() == {}
