"""A pair of two VPPs with a mirror: tests/lab/test_engine_mirror.py as it is."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.flows_lab import NatNode
from tests.lab.test_engine_mirror import (
    lab,
    test_a_mirror_set_anew_at_the_active_node_is_believed,
    test_a_peer_without_a_version_in_common_is_named_and_makes_nothing_ready,
    test_a_silent_standby_costs_the_first_packet_its_patience,
    test_a_switchover_waits_until_the_standby_knows_the_sessions,
    test_another_key_and_another_configuration_are_named,
    test_connections_outlive_the_node_that_was_killed,
    test_equal_after_a_third_was_lost,
    test_refused_mirrors,
)
from tests.vpp.nat_vpp import VppNatNode

__all__ = [
    "lab",
    "test_a_mirror_set_anew_at_the_active_node_is_believed",
    "test_a_peer_without_a_version_in_common_is_named_and_makes_nothing_ready",
    "test_a_silent_standby_costs_the_first_packet_its_patience",
    "test_a_switchover_waits_until_the_standby_knows_the_sessions",
    "test_another_key_and_another_configuration_are_named",
    "test_connections_outlive_the_node_that_was_killed",
    "test_equal_after_a_third_was_lost",
    "test_refused_mirrors",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[NatNode]:
    return VppNatNode
