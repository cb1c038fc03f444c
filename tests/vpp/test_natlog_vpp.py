"""NAT logs and deterministic ports on VPP, and what nobody should send: the embedded engine's tests."""

from __future__ import annotations

import pytest

from ipshare.lab import userns
from tests.flows_lab import NatNode
from tests.lab.test_engine_hostile import test_it_goes_on
from tests.lab.test_natlog_engine import (
    as_it_was,
    lab,
    node,
    test_both_formats_tell_of_a_real_flow,
    test_deterministic_ports_of_a_real_flow,
    test_exhausted_ports_are_told,
)
from tests.vpp.nat_vpp import VppNatNode

__all__ = [
    "as_it_was",
    "lab",
    "node",
    "test_both_formats_tell_of_a_real_flow",
    "test_deterministic_ports_of_a_real_flow",
    "test_exhausted_ports_are_told",
    "test_it_goes_on",
]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")


@pytest.fixture(scope="module")
def kind() -> type[NatNode]:
    return VppNatNode
