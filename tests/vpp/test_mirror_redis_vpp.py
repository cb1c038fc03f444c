"""Two NAT gateways on VPP whose sessions go by way of Redis: tests/lab/test_mirror_redis_lab.py as it is.

test_a_node_that_cannot_use_its_database_says_why is about the agent alone.
"""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_mirror_redis_lab import (
    net,
    server,
    test_connections_outlive_takeovers_by_way_of_redis,
    test_without_the_database_traffic_goes_on_and_it_is_said,
)
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "net",
    "server",
    "test_connections_outlive_takeovers_by_way_of_redis",
    "test_without_the_database_traffic_goes_on_and_it_is_said",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
