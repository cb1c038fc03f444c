"""On-link public addresses of a pair of VPPs: tests/lab/test_pair_public.py as it is."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_pair_public import (
    lab,
    test_a_takeover_announces_every_one,
    test_the_active_answers_for_each_of_65536,
)
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = [
    "lab",
    "test_a_takeover_announces_every_one",
    "test_the_active_answers_for_each_of_65536",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf
