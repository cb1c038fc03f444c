"""Every ratio within its limit, and near what this class of machine had before."""

from __future__ import annotations

import pytest
from limits import Limit, limits

from ipshare.bench import SELECTIONS

QUICK, THOROUGH = "100k", "1m"
NOISE = 2.0  # between two runs on a machine that does other things as well
CACHES = ("uniform", "zipf")  # depend on what else is in the last-level cache, which may be another machine's


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "limit" in metafunc.fixturenames:
        size = THOROUGH if metafunc.config.getoption("--thorough") else QUICK
        metafunc.parametrize("limit", limits(size), ids=str)


def test_limit(figures, limit: Limit) -> None:
    value = limit.measured(figures.part(limit.part))
    assert limit.holds(value), f"{value:.3g}, target {limit.target}"


@pytest.mark.parametrize("part", SELECTIONS)
def test_baseline(figures, baseline: dict[str, float], part: str) -> None:
    found = figures.part(part)
    if not baseline:
        pytest.skip("no baseline for this class of machine: make one with --update-baselines")
    moved = {
        name: (baseline[name], round(r.ratio, 3))
        for name, r in found.items()
        if r.ratio
        and name in baseline
        and not name.removesuffix(".prefetched").endswith(CACHES)
        and not 1 / NOISE < r.ratio / baseline[name] < NOISE
    }
    assert not moved, "figure: (before, now)"


def test_the_generator_is_faster_than_what_it_measures(figures) -> None:
    found = figures.part("forwarding")
    rates = [found[f"forwarding.udp64.{name}.rate"].value for name in ("nft", "ips")]
    assert found["forwarding.udp64.generator.rate"].value > max(rates)
