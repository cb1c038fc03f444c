"""A cluster behind a pair of VPPs as its operator has it: tests/lab/test_clusters_lab.py as it is.

VPP has the nodes' devices on the LAN; the nodes' kernels have others there, by which the agents probe.
"""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_clusters_lab import (
    test_s2_5_a_drained_server_runs_empty_and_a_slow_one_gets_less,
    test_s2_5_connections_outlive_a_dead_server_and_a_dead_node,
)
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "test_s2_5_a_drained_server_runs_empty_and_a_slow_one_gets_less",
    "test_s2_5_connections_outlive_a_dead_server_and_a_dead_node",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
