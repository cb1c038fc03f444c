"""A minute at the standby's port of the switch: not a frame with a workload's or the VIPs' MAC address
(S3.4).

Workloads: tests/lab/test_pair_ports.py with its whole length, at a sub-interface with a MAC address of its
own. VIPs: they have the MAC address of the interface that they are on, by which the standby speaks for
itself; none of its frames may say that it has a VIP. Announcements are repeated every 30 s, so two rounds of
the active node are within the minute. With IPSHARE_VPP on VPP as well. What was looked at is printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.test_pair_ports import hands_over_and_is_silent
from tests.pair_lab import Half, PairLab, pair_lab
from tests.vpp.pair_vpp import VppHalf

SILENCE_S = 60.0
KINDS = {"embedded": Half} | ({"vpp": VppHalf} if os.environ.get("IPSHARE_VPP") else {})


@pytest.fixture(params=KINDS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PairLab]:
    with pair_lab(tmp_path, KINDS[request.param]) as made:
        yield made


def test_a_minute_without_a_frame_of_the_active_node(lab: PairLab) -> None:
    seen = hands_over_and_is_silent(lab, SILENCE_S)
    print(f"\n{lab.kind.__name__}: {SILENCE_S:.0f} s, {seen} frames of the standby, 0 of a workload or VIP")
