"""A SYN flood against a tracked binding on a pair of VPPs: tests/lab/test_track_flood.py as it is (S3.6)."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_track_flood import net, test_a_flood_of_syns_at_a_tracked_binding
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = ["net", "test_a_flood_of_syns_at_a_tracked_binding"]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
