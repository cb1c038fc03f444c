"""Large tables on VPP: what they cost a packet, and what loading them costs everybody else."""

from __future__ import annotations

import pytest

from vpp.limits import GROWTH, Limit


@pytest.mark.parametrize("limit", GROWTH, ids=str)
def test_growth(vpp_figures, limit: Limit) -> None:
    ratio = vpp_figures.part("growth")[limit.of].ratio
    assert ratio <= limit.limit, f"{ratio:.3g}, target {limit.target}"


def test_a_million_bindings_take_no_barrier_and_lose_no_packet(vpp_figures) -> None:
    vpp_figures.part("programming")
    assert {s.name: s.barriers for s in vpp_figures.states if s.barriers} == {}
    assert {s.name: s.lost for s in vpp_figures.states if s.lost} == {}
    assert all(s.packets > 0 for s in vpp_figures.states if s.is_loaded)


def test_a_commit_is_a_store(vpp_figures) -> None:
    found = vpp_figures.part("programming")
    commits = {n: r.ratio for n, r in found.items() if n.endswith("in-plugin-at-worst")}
    assert commits
    assert all(ratio < 0.05 for ratio in commits.values()), commits
