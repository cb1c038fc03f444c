"""What each translator adds to a packet's way through VPP, few destinations, 250 bindings."""

from __future__ import annotations

import pytest

from vpp import beside, ours
from vpp.cases import ALONE, CASES
from vpp.limits import ADDED, Limit

NOISE = 2.0  # between two runs on a machine that does other things as well
CACHES = ("1m.few", "64k.all", "1m.all")  # depend on what else is in the last-level cache
NAMES = [
    *(f"v{c.family}.{c.name}.{k}".replace(" ", "-") for c in (*CASES, *ALONE) for k in (c.kind, *c.kinds)),
    *(f"v{v.family}.ipshare.{v.name}.{k}" for v in ours.VARIANTS for k in beside.OUR_KINDS),
]


class Passes:
    """A clock for pytest-benchmark: it shows passes of ip-lookup + ip-rewrite, and moves when told."""

    now = 0.0

    @classmethod
    def read(cls) -> float:
        return cls.now

    @classmethod
    def spend(cls, passes: float) -> None:
        cls.now += passes


@pytest.mark.benchmark(group="added cost, in passes of ip-lookup + ip-rewrite", timer=Passes.read)
@pytest.mark.parametrize("name", [n for n in NAMES if ".plain." not in n])
def test_added(vpp_figures, benchmark, name: str) -> None:
    """Every packet of every burst went through the translator and came out: series.checked sees to that."""
    vpp_figures.part("added")
    series = vpp_figures.series.get(f"added.{name}")
    if series is None:
        pytest.skip(vpp_figures.crashed[f"added.{name.rsplit('.', 1)[0]}"])
    bursts = iter(series.samples)
    benchmark.extra_info["clocks"] = series.clocks()
    benchmark.pedantic(lambda: Passes.spend(next(bursts).ratio), rounds=len(series.samples))
    assert series.added > 0


@pytest.mark.parametrize("limit", ADDED, ids=str)
def test_limit(vpp_figures, limit: Limit) -> None:
    ratio = vpp_figures.part("added")[limit.of].ratio
    assert ratio <= limit.limit, f"{ratio:.3g}, target {limit.target}"


@pytest.mark.parametrize("family", [4, 6])
def test_a_stacked_next_hop_saves_the_second_lookup(vpp_figures, family: int) -> None:
    found = vpp_figures.part("added")
    stacked, looked_up = (found[f"added.v{family}.ipshare.{n}.mixed"].ratio for n in ("stacked", "looked-up"))
    assert stacked < looked_up


@pytest.mark.parametrize("part", ["added", "growth"])
def test_baseline(vpp_figures, vpp_baseline: dict[str, float], part: str) -> None:
    found = vpp_figures.part(part)
    if not vpp_baseline:
        pytest.skip("no baseline for this class of machine: make one with --update-baselines")
    moved = {
        name: (vpp_baseline[name], round(r.ratio, 3))
        for name, r in found.items()
        if r.ratio
        and name in vpp_baseline
        and not name.endswith(CACHES)
        and not 1 / NOISE < r.ratio / vpp_baseline[name] < NOISE
    }
    assert not moved, "figure: (before, now)"
