"""A pair whose nodes' clocks are forty days apart: b runs in a time namespace (DESIGN.md 9: CLOCK_BOOTTIME).

What a clock that stands still does is in tests/unit/test_pair.py, where time is a parameter. Run on VPP by
tests/vpp/test_pair_clocks_vpp.py.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.core import lib
from tests.pair_lab import Half, PairLab, pair_lab, until
from tests.pair_probes import now_ns, probes

ACTIVE, STANDBY = lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY
AHEAD_S = 40 * 86_400
UNSHARE = ("unshare", "--time", "--boottime", str(AHEAD_S))


@pytest.fixture
def kind() -> type[Half]:
    return Half


@pytest.fixture
def lab(tmp_path: Path, kind: type[Half]) -> Iterator[PairLab]:
    with pair_lab(tmp_path, kind) as made:
        made.b.before = UNSHARE
        yield made


def clock_ns(half: Half) -> int:
    return int(half.state()["now_ns"])


def test_a_pair_whose_clocks_are_days_apart(lab: PairLab) -> None:
    """Takeovers both ways, by death and by a stop, and nothing comes from who was stopped."""
    lab.start()
    if clock_ns(lab.b) - clock_ns(lab.a) < AHEAD_S * 10**9 // 2:
        pytest.skip("this kernel has no time namespaces")
    for half in (lab.a, lab.b):
        half.deliver()
    with probes(lab) as seen:
        for _ in range(2):
            active, standby = lab.one_active()
            began = now_ns()
            until(lambda node=active, since=began: seen.served(node.number, since))  # type: ignore[misc]
            active.signal(signal.SIGSTOP)
            try:
                until(lambda node=standby: node.is_in(ACTIVE))  # type: ignore[misc]
                reign = now_ns()
                until(lambda node=standby, since=reign: seen.served(node.number, since))  # type: ignore[misc]
            finally:
                active.signal(signal.SIGCONT)
            assert lab.one_active() == (standby, active)
            assert seen.by(active.number, reign) == 0
            standby.kill()
            until(lambda node=active: node.is_in(ACTIVE))  # type: ignore[misc]
            died = now_ns()
            until(lambda node=active, since=died: seen.served(node.number, since))  # type: ignore[misc]
            standby.again()
            standby.join()
            standby.deliver()
            lab.one_active()
            active.order(lib.IPS_CTL_PAIR_MAINTENANCE, 1)
            until(lambda node=standby: node.is_in(ACTIVE))  # type: ignore[misc]
            active.order(lib.IPS_CTL_PAIR_MAINTENANCE, 0)
