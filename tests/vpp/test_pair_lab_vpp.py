"""A redundant pair of two VPPs as its operator has it: tests/lab/test_pair_lab.py as it is."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_pair_lab import (
    nodes,
    test_a_drill,
    test_a_pair_that_leaves_the_configuration_leaves_the_engine,
    test_a_vip_goes_with_the_active_engine_and_back_by_order,
    test_a_wrong_key_is_named_at_both_nodes,
    test_both_nodes_say_which_keys_of_the_pair_differ,
    test_maintenance_hands_over_and_a_successor_of_the_agent_tells_the_hook,
    test_this_machine_is_looked_at_before_anything_is_changed,
)
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "nodes",
    "test_a_drill",
    "test_a_pair_that_leaves_the_configuration_leaves_the_engine",
    "test_a_vip_goes_with_the_active_engine_and_back_by_order",
    "test_a_wrong_key_is_named_at_both_nodes",
    "test_both_nodes_say_which_keys_of_the_pair_differ",
    "test_maintenance_hands_over_and_a_successor_of_the_agent_tells_the_hook",
    "test_this_machine_is_looked_at_before_anything_is_changed",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
