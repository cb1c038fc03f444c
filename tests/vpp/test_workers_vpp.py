"""Two workers in a pair, and one at its peer: sessions, mirror and takeovers (S2.2, S3).

One worker has the LAN and the other the uplink, so that each session is opened by one and answered by the
other. Where the machine has too few processors they share them (processors.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ipshare.core import lib
from ipshare.lab import userns
from tests.flows_lab import REFUSED, Nat, NatNode, nat_lab
from tests.lab.test_engine_mirror import (
    active_and_standby,
    begin,
    closed,
    connections,
    is_mirrored,
    speak,
    start,
    table,
    test_equal_after_a_third_was_lost,
)
from tests.pair_lab import until
from tests.vpp.nat_vpp import VppNatNode

__all__ = ["test_equal_after_a_third_was_lost"]
pytestmark = pytest.mark.skipif(not userns.is_root(), reason="needs root")
SWITCHOVER = np.zeros(1, np.dtype([("order", np.uint32), ("argument", np.uint32)]))
SWITCHOVER[0]["order"] = lib.IPS_CTL_PAIR_SWITCHOVER
NODES = ("ipshare-nat-ip4", "ipshare-nat-ip6", "ipshare-outer-ip4", "ipshare-outer-ip6")


class Uneven(VppNatNode):
    """a has one worker, b two."""

    def __init__(self, lab: Nat, node: str, number: int) -> None:
        self.workers = number
        super().__init__(lab, node, number)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Nat]:
    with nat_lab(tmp_path, Uneven) as made:
        yield made


def who_translates(node: NatNode) -> dict[str, set[int]]:
    """By node of the graph: the workers that it has run on since VPP began."""
    assert isinstance(node, VppNatNode)
    found: dict[str, set[int]] = {name: set() for name in NODES}
    worker = 0
    for words in map(str.split, node.driver.client.cli("show runtime").splitlines()):
        if words[:1] == ["Thread"]:
            worker = int(words[1])
        elif words and words[0] in found:
            found[words[0]].add(worker)
    return found


def takes_over(lab: Nat, node: NatNode) -> None:
    """By order, as soon as it may."""

    def is_active() -> bool:
        if node.pair_state() != lib.IPS_PAIR_ACTIVE:
            try:
                node.set(lib.IPS_CTL_PAIR_COMMAND, SWITCHOVER)
            except REFUSED:
                return False
        return node.pair_state() == lib.IPS_PAIR_ACTIVE

    until(is_active)
    active_and_standby(lab)


def test_sessions_pass_between_workers_and_nodes(lab: Nat) -> None:
    """From two workers to one when the two are killed, and back to two by order."""
    start(lab, commit_acked=1, commit_us=1_000_000)
    one, two = lab.a, lab.b
    takes_over(lab, two)
    ends = connections(lab, 10)
    speak(ends)
    ran = who_translates(two)
    for family in "46":
        out, back = ran[f"ipshare-nat-ip{family}"], ran[f"ipshare-outer-ip{family}"]
        assert (len(out), len(back)) == (1, 1) and out | back == {1, 2}, ran
    until(lambda: table(one) == table(two) and len(table(one)) == 20)
    two.kill()
    until(lambda: one.pair_state() == lib.IPS_PAIR_ACTIVE)
    lab.follow("a")
    speak(ends)
    more = connections(lab, 10)
    begin(two)
    until(lambda: is_mirrored(one, two))
    until(lambda: table(one) == table(two) and len(table(two)) == 40)
    takes_over(lab, two)
    speak([*ends, *more])
    closed([*ends, *more])
