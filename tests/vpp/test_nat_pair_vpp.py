"""A pair of NAT gateways on VPP as its operator has it: tests/lab/test_nat_pair_lab.py as it is.

What is there and not here is about rules and devices of the kernel.
"""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_nat_pair_lab import (
    net,
    test_connections_outlive_a_switchover_and_the_death_of_the_active_engine,
    test_pools_change_under_traffic_sizes_do_not_and_a_difference_is_named,
    test_public_addresses_on_the_uplinks_own_link_are_vips,
    test_what_is_only_followed_is_counted_honestly_and_mirrored_too,
    test_what_the_operator_sees_and_does,
)
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "net",
    "test_connections_outlive_a_switchover_and_the_death_of_the_active_engine",
    "test_pools_change_under_traffic_sizes_do_not_and_a_difference_is_named",
    "test_public_addresses_on_the_uplinks_own_link_are_vips",
    "test_what_is_only_followed_is_counted_honestly_and_mirrored_too",
    "test_what_the_operator_sees_and_does",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
