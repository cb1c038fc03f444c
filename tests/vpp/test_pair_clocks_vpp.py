"""A pair of VPPs whose clocks are days apart (tests/lab/test_pair_clocks.py), and one with a witness: at
most one forwards while every path is cut, counted where packets arrive.

The LAN is VPP's: the nodes hear the witness by links of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.lab import userns
from ipshare.pair.witness_node import NodeJudge
from tests.engine_lab import run
from tests.lab.test_pair_clocks import UNSHARE, test_a_pair_whose_clocks_are_days_apart
from tests.lab.test_witness_lab import PORT, one_forwards_while_all_is_cut, served
from tests.pair_lab import Asked, PairLab, pair_lab
from tests.vpp.pair_vpp import VppHalf

__all__ = ["test_a_pair_whose_clocks_are_days_apart"]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")
WITNESS = "10.6.0.7"


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PairLab]:
    with pair_lab(tmp_path, VppHalf) as made:
        if "clocks" in request.node.name:
            made.b.before = UNSHARE
        yield made


def test_both_paths_cut_one_forwards(lab: PairLab) -> None:
    lan = lab.names["lan"]
    run(lan, "ip link add br6 type bridge mcast_snooping 0")
    run(lan, f"ip address add {WITNESS}/24 dev br6")
    run(lan, "ip link set br6 up")
    for node, host in (("a", 1), ("b", 2)):
        name = lab.names[node]
        run(name, f"ip link add wit0 type veth peer name wit-{node} netns {lan}")
        run(lan, f"ip link set wit-{node} master br6 up")
        run(name, f"ip address add 10.6.0.{host}/24 dev wit0")
        run(name, "ip link set wit0 up")
    with served(lan, WITNESS, NodeJudge(lab.directory / "promise", longest_s=1)):
        one_forwards_while_all_is_cut(lab, Asked(WITNESS, PORT, 0.5))
