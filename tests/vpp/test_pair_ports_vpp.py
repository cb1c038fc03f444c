"""Interfaces of VPP with a workload's MAC address: tests/lab/test_pair_ports.py as it is."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_pair_ports import (
    lab,
    test_somebody_who_sets_it_up_does_not_prevail,
    test_up_on_the_active_and_not_a_frame_from_the_standby,
)
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "lab",
    "test_somebody_who_sets_it_up_does_not_prevail",
    "test_up_on_the_active_and_not_a_frame_from_the_standby",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
