"""Promises kept on real packets, with VPP at C, D, A and B: the tests of tests/lab/test_paths.py as they are.

What is there and not here, since it is about the kernel as a router, which VPP replaces:
- test_hosts_with_connection_tracking_and_docker_like_rules: VPP's packets never meet the kernel's netfilter.
- test_a_forward_policy_that_drops_is_named: nor its FORWARD chain; that check is the embedded engine's.
"""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from ipshare.lab.internet import Engine
from tests.lab.test_paths import (
    combined,
    served,
    shared,
    test_a_client_on_a_node_of_the_path,
    test_a_client_stays_at_one_end_point_whatever_it_sends,
    test_both_roles_on_one_node_make_no_loop,
    test_fragments_of_every_kind_arrive_together,
    test_icmp_errors_reach_the_right_server_behind_a_shared_address,
    test_path_mtu_discovery_with_a_small_link,
    test_traceroute_shows_every_hop,
    test_traffic_of_all_kinds_with_both_roles_on_one_node,
)

__all__ = [
    "combined",
    "served",
    "shared",
    "test_a_client_on_a_node_of_the_path",
    "test_a_client_stays_at_one_end_point_whatever_it_sends",
    "test_both_roles_on_one_node_make_no_loop",
    "test_fragments_of_every_kind_arrive_together",
    "test_icmp_errors_reach_the_right_server_behind_a_shared_address",
    "test_path_mtu_discovery_with_a_small_link",
    "test_traceroute_shows_every_hop",
    "test_traffic_of_all_kinds_with_both_roles_on_one_node",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return "vpp"
