"""A leased address on a pair of VPPs: tests/lab/test_leases_pair.py as it is (S3.5, S3.9)."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_leases_pair import test_the_address_of_a_lease_outlives_the_node_that_asked_for_it
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = ["test_the_address_of_a_lease_outlives_the_node_that_asked_for_it"]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
