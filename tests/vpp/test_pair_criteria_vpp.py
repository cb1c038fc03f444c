"""Gateways that an active node should reach, on VPP: tests/lab/test_pair_criteria.py as it is."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_pair_criteria import (
    lab,
    test_a_link_that_goes_down_is_no_link_that_is_met,
    test_it_comes_back_when_its_gateways_do,
    test_who_reaches_less_hands_over_and_of_two_that_do_one_stays,
)
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "lab",
    "test_a_link_that_goes_down_is_no_link_that_is_met",
    "test_it_comes_back_when_its_gateways_do",
    "test_who_reaches_less_hands_over_and_of_two_that_do_one_stays",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
