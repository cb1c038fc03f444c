"""A leased address on a pair of VPPs: tests/lab/test_leases_pair.py as it is (S3.5, S3.9).

And what VPP knows of neighbours in a public prefix within its own subnet: nothing, or its host route would
go before the plugin's entry (decision 0070).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ipshare.lab import userns
from tests.lab.test_leases_pair import test_the_address_of_a_lease_outlives_the_node_that_asked_for_it
from tests.pair_lab import Half, pair_lab, until
from tests.vpp.pair_vpp import VppHalf

__all__ = ["test_the_address_of_a_lease_outlives_the_node_that_asked_for_it"]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")
PUBLICS = ("10.0.0.128/28", "fd00::80/124")
LEARNED = ("10.0.0.130", "fd00::82")
WRITTEN, OUTSIDE = "10.0.0.131", "10.0.0.66"
SOMEBODY = "02:00:00:00:00:99"


@pytest.fixture
def kind() -> type[Half]:
    return VppHalf


def learn(half: VppHalf, address: str, flags: int = 0) -> None:
    """flags: 1: static."""
    neighbor = {"sw_if_index": half.lan, "flags": flags, "mac_address": SOMEBODY, "ip_address": address}
    half.vppd.client.call("ip_neighbor_add_del", is_add=True, neighbor=neighbor)


def known(half: VppHalf) -> set[str]:
    rows = [
        row
        for family in (0, 1)
        for row in half.vppd.client.dump("ip_neighbor_dump", sw_if_index=half.lan, af=family)
    ]
    return {str(row.neighbor.ip_address) for row in rows if str(row.neighbor.mac_address) == SOMEBODY}


def test_neighbours_of_public_addresses_are_forgotten(tmp_path: Path) -> None:
    """Those of before the pair was set; an operator's and others' stay."""
    with pair_lab(tmp_path, VppHalf) as lab:
        half = lab.a
        half.start()
        assert isinstance(half, VppHalf)
        for address in (*LEARNED, OUTSIDE):
            learn(half, address)
        learn(half, WRITTEN, flags=1)
        assert known(half) == {*LEARNED, OUTSIDE, WRITTEN}
        half.join(publics=PUBLICS)
        until(lambda: known(half) == {OUTSIDE, WRITTEN})
