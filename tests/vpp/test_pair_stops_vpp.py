"""tests/lab/test_pair_stops.py on VPP: stopped, cut off, killed and healed in many ways."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_pair_stops import (
    engines,
    test_a_stopped_engine_forwards_nothing_before_it_has_heard_its_peer,
    test_a_third_hosts_neighbours_point_to_the_survivor_after_any_order_of_faults,
    test_one_that_hears_nobody_when_it_goes_on_waits_for_a_dead_time,
)
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "engines",
    "test_a_stopped_engine_forwards_nothing_before_it_has_heard_its_peer",
    "test_a_third_hosts_neighbours_point_to_the_survivor_after_any_order_of_faults",
    "test_one_that_hears_nobody_when_it_goes_on_waits_for_a_dead_time",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture(scope="module")
def kind() -> type[Half]:
    return VppHalf
