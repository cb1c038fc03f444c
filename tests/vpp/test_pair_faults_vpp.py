"""The fault matrix of a redundant pair on VPP: tests/lab/test_pair_faults.py as it is.

A VPP without workers: the thread that moves packets is its main thread, and is the one that hangs.
"""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.lab.test_pair_faults import test_fault, world
from tests.pair_lab import Half
from tests.vpp.pair_vpp import VppHalf

__all__ = ["test_fault", "world"]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture(scope="module")
def kind() -> type[Half]:
    return VppHalf
