"""The core under pytest-benchmark: its statistics, comparisons (--benchmark-compare) and JSON."""

from __future__ import annotations

import pytest

from ipshare.bench import core, packets, sites


@pytest.mark.parametrize("kind", packets.KINDS)
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("side", ["outer", "inner"])
def test_packets(benchmark, side: str, family: int, kind: packets.Kind) -> None:
    """256 flows to 250 addresses: one call is 100 passes over them, copies included."""
    with core.Loaded(family, core.SMALL, inner=side == "inner") as worker:
        targets = sites.addresses(family, core.destinations("few", core.SMALL), local=side == "inner")
        frames = packets.frames(kind, family, targets)
        benchmark.extra_info["packets"] = 100 * len(frames)
        benchmark.pedantic(worker.passes, (frames, 100), rounds=20, warmup_rounds=2)
        verdicts = worker.verdict_counts().sum(axis=0)
    assert verdicts[1:].sum() == 0, "every packet was translated"
