"""A redundant pair of two VPPs: the tests of tests/lab/test_engine_pair.py as they are.

What is there and not here: test_a_record_of_another_length is about the embedded engine's control socket;
tests/vpp/test_pair_vpp.py has its like, and what is VPP's alone.
"""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_engine_pair import (
    lab,
    test_a_damaged_epoch_file,
    test_a_killed_engine_is_replaced,
    test_alone_without_an_epoch_it_waits_for_the_operator,
    test_another_configuration,
    test_another_key,
    test_one_forwards_the_other_says_why_not,
    test_only_the_active_one_answers_for_a_vip,
    test_orders,
    test_paths_that_flap,
    test_rubbish_from_the_peers_address,
    test_two_nodes_of_one_name_say_so,
    test_what_a_firewall_refuses_to_send_is_not_the_peers_death,
    test_what_no_pair_can_be,
    test_who_waits_is_told,
)
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "lab",
    "test_a_damaged_epoch_file",
    "test_a_killed_engine_is_replaced",
    "test_alone_without_an_epoch_it_waits_for_the_operator",
    "test_another_configuration",
    "test_another_key",
    "test_one_forwards_the_other_says_why_not",
    "test_only_the_active_one_answers_for_a_vip",
    "test_orders",
    "test_paths_that_flap",
    "test_rubbish_from_the_peers_address",
    "test_two_nodes_of_one_name_say_so",
    "test_what_a_firewall_refuses_to_send_is_not_the_peers_death",
    "test_what_no_pair_can_be",
    "test_who_waits_is_told",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
