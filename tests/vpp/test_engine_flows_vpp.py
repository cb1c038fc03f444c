"""NAT by ports and tracked connections in VPP: tests/lab/test_engine_flows.py as it is.

Without workers, and with two: one has the LAN, the other the uplink."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.flows_lab import NatNode
from tests.lab.test_engine_flows import (
    as_it_was,
    lab,
    node,
    test_a_closed_port_is_told_to_the_client,
    test_a_full_table_refuses_new_flows_and_counts_them,
    test_a_pool_that_goes_takes_its_sessions_along,
    test_bulk_with_offloads_in_both_directions,
    test_fragments_in_both_directions,
    test_hairpin,
    test_listed_and_closed_by_filter,
    test_overlapping_pools_are_refused_and_change_nothing,
    test_path_mtu_behind_the_nat,
    test_ping,
    test_refused_settings,
    test_replaced_all_the_while_under_load,
    test_strangers_are_filtered_where_that_is_asked,
    test_thousands_are_closed_while_others_ask,
    test_ttl_that_ends_here_is_told,
    test_udp_has_a_public_end_of_the_pool,
    test_why_knows_nat_and_opens_nothing,
)
from tests.vpp.nat_vpp import VppNatNode

__all__ = [
    "as_it_was",
    "lab",
    "node",
    "test_a_closed_port_is_told_to_the_client",
    "test_a_full_table_refuses_new_flows_and_counts_them",
    "test_a_pool_that_goes_takes_its_sessions_along",
    "test_bulk_with_offloads_in_both_directions",
    "test_fragments_in_both_directions",
    "test_hairpin",
    "test_listed_and_closed_by_filter",
    "test_overlapping_pools_are_refused_and_change_nothing",
    "test_path_mtu_behind_the_nat",
    "test_ping",
    "test_refused_settings",
    "test_replaced_all_the_while_under_load",
    "test_strangers_are_filtered_where_that_is_asked",
    "test_thousands_are_closed_while_others_ask",
    "test_ttl_that_ends_here_is_told",
    "test_udp_has_a_public_end_of_the_pool",
    "test_why_knows_nat_and_opens_nothing",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


class WithWorkers(VppNatNode):
    workers = 2


@pytest.fixture(scope="module", params=[VppNatNode, WithWorkers], ids=["main-thread", "workers"])
def kind(request: pytest.FixtureRequest) -> type[NatNode]:
    made: type[NatNode] = request.param
    return made
