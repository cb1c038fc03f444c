"""core: nanoseconds per packet of the C core in this process, counters on, without any device.

Each packet is made new by a copy before every pass; the copying is timed alone, in the same loop, and
subtracted (it has a figure of its own). The packets of a frame are then in the nearest cache, as they
are where a host has just read them; what differs between the figures is the tables' share.

"few": 256 flows to 250 addresses spread over the table. "uniform": every binding once, in random order.
"zipf": addresses drawn with weight 1 / rank. ".prefetched": as a host that holds a batch does it
(ips_prefetch).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ipshare.bench import packets, sites
from ipshare.bench.result import Progress, Result, beside
from ipshare.core import Worker, ffi, lib
from ipshare.engine.tables import pack

Side = Literal["outer", "inner"]
Numbers = npt.NDArray[np.uint32]
FLOWS, ACTIVE = 256, 250
AHEAD = 8
SMALL, MILLION = 1000, 1_000_000
REPEATS = 45
ENOUGH_NS = 1e6
ADDITIONS = 500_000
_SEED = 8


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds per packet: of the core alone, and of the copy that was subtracted. ``clock``: of one
    addition that waits for the one before it, in the same run: ``core / clock`` are processor clocks."""

    core: float
    copy: float
    clock: float


class Loaded(Worker):
    """A worker with a site of ``n`` bindings and counters for every binding."""

    def __init__(self, family: int, n: int, *, inner: bool = False) -> None:
        super().__init__(cells=1 << 22 if family == 4 else max(n, 1))
        self.load(pack(sites.site(family, n, inner=inner)))
        self.side: Side = "inner" if inner else "outer"

    def cost(self, frames: packets.Frames, *, ahead: int = 0, repeats: int = REPEATS) -> Cost:
        """The least of ``repeats`` passes with the core, less the least without, alternating: whatever else
        runs on the machine only ever adds."""
        rounds = max(1, round(ENOUGH_NS / max(self.passes(frames, 1, ahead=ahead), 1)))
        taken = [
            (
                self.passes(frames, rounds, ahead=ahead),
                self.passes(frames, rounds, core=False),
                lib.ips_bench_clock(ADDITIONS),
            )
            for _ in range(repeats)
        ]
        whole, copy, clock = (min(column) for column in zip(*taken, strict=True))
        each = rounds * len(frames)
        return Cost((whole - copy) / each, copy / each, clock / ADDITIONS)

    def passes(self, frames: packets.Frames, rounds: int, *, core: bool = True, ahead: int = 0) -> int:
        """Nanoseconds of ``rounds`` passes over all packets; ``core=False``: of the copying alone."""
        return int(
            lib.ips_bench_packets(
                self._worker if core else ffi.NULL,
                0 if self.side == "outer" else 1,
                ffi.from_buffer("uint8_t *", frames.data),
                packets.STRIDE,
                ffi.from_buffer("uint16_t *", frames.lengths),
                len(frames),
                rounds,
                ahead,
            )
        )


def destinations(pattern: str, n: int) -> Numbers:
    """Numbers of bound addresses, one for each packet."""
    random = np.random.default_rng(_SEED)
    if pattern == "few":
        active = random.choice(n, min(n, ACTIVE), replace=False).astype(np.uint32)
        return active[np.arange(FLOWS) % len(active)]
    if pattern == "uniform":
        return random.permutation(n).astype(np.uint32)
    ranks = np.cumsum(1 / np.arange(1, n + 1))
    drawn = np.searchsorted(ranks, random.random(min(n, 1 << 18)) * ranks[-1])
    chosen: Numbers = random.permutation(n).astype(np.uint32)[np.minimum(drawn, n - 1)]
    return chosen


def measure(
    worker: Loaded,
    family: int,
    n: int,
    pattern: str,
    kind: packets.Kind = "mixed",
    *,
    ahead: int = 0,
    repeats: int = REPEATS,
) -> Cost:
    """One figure: `kind` of packets to a `pattern` of destinations."""
    targets = sites.addresses(family, destinations(pattern, n), local=worker.side == "inner")
    return worker.cost(packets.frames(kind, family, targets), ahead=ahead, repeats=repeats)


def figures(progress: Progress, *, million: int = MILLION, repeats: int = REPEATS) -> Iterator[Result]:
    """All figures of the core: kinds of packets, both sides, then the growth of the table."""
    yield Result(
        "core.clock", min(lib.ips_bench_clock(ADDITIONS) for _ in range(repeats)) / ADDITIONS, "ns/clock"
    )
    for family in (4, 6):
        for side in ("outer", "inner"):
            yield from _kinds(progress, family, inner=side == "inner", repeats=repeats)
        yield from _growth(progress, family, million, repeats)


def _kinds(progress: Progress, family: int, *, inner: bool, repeats: int) -> Iterator[Result]:
    with Loaded(family, SMALL, inner=inner) as worker:
        hot = 0.0
        for kind in packets.KINDS:
            name = f"core.v{family}.{worker.side}.{kind}"
            progress(name)
            cost = measure(worker, family, SMALL, "few", kind, repeats=repeats)
            hot = hot or cost.core
            if kind == "mixed":
                yield Result(name, cost.core, "ns/packet")
                yield Result(f"{name}.copy", cost.copy, "ns/packet")
                yield Result(f"{name}.clocks", cost.core / cost.clock, "clocks/packet")
            else:
                yield beside(name, cost.core, "ns/packet", f"core.v{family}.{worker.side}.mixed", hot)


def _growth(progress: Progress, family: int, million: int, repeats: int) -> Iterator[Result]:
    """The same packets to 250 addresses of a small and of a large table, alternating; then all addresses."""
    at, size = f"core.v{family}.outer", f"{million // 1000}k" if million < MILLION else "1m"
    peer = f"{at}.1k.few"
    with Loaded(family, 1) as one, Loaded(family, SMALL) as small, Loaded(family, million) as large:
        yield Result(f"{at}.1.few", measure(one, family, 1, "few", repeats=repeats).core, "ns/packet")
        progress(f"{at}.{size}")
        pairs = [
            (
                measure(small, family, SMALL, "few", repeats=3).core,
                measure(large, family, million, "few", repeats=3).core,
            )
            for _ in range(repeats)
        ]
        hot, grown = (min(column) for column in zip(*pairs, strict=True))
        yield Result(peer, hot, "ns/packet")
        yield beside(f"{at}.{size}.few", grown, "ns/packet", peer, hot)
        for pattern, ahead in (("zipf", 0), ("zipf", AHEAD), ("uniform", 0), ("uniform", AHEAD)):
            name = f"{at}.{size}.{pattern}" + (".prefetched" if ahead else "")
            progress(name)
            cost = measure(large, family, million, pattern, ahead=ahead, repeats=max(3, repeats // 3))
            yield beside(name, cost.core, "ns/packet", peer, hot)
