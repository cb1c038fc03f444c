"""mirror: changes a second that one core streams to a standby, sealed; with loss; a snapshot of a million.

The loop is C (native/ips_bench_mirror.c): an active node and its standby in one thread, their processor time
taken apart, and a simulated network between them. No table is part of the figure; that the standby was told
each change exactly once is part of the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ipshare.bench.result import Progress, Result
from ipshare.core import ffi, lib
from ipshare.errors import IpshareError

MILLION = 1_000_000
REPEATS = 5
AS_FAST_AS_IT_GOES, A_MILLION = 4000, 1000  # changes a millisecond
LOSS_PPM, ROUND_TRIP_NS = 10_000, 10_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """One run: seconds of either node's processor and of the network's clock; octets of one node's mirror."""

    sender_s: float
    receiver_s: float
    network_s: float
    resent: int
    memory: int

    @property
    def slowest_s(self) -> float:
        """Of two nodes and a network that work side by side."""
        return max(self.sender_s, self.receiver_s, self.network_s)


def once(events: int, sessions: int, *, rate: int, loss_ppm: int = 0, round_trip_ns: int = 1_000_000) -> Run:
    """Raises IpshareError where memory is short or the standby was told something else."""
    out = ffi.new("struct ips_mirror_bench *")
    if lib.ips_bench_mirror(out, events, sessions, rate, loss_ppm, round_trip_ns) != 0:
        raise IpshareError("the mirror's benchmark did not arrive", hint="is memory short?")
    return Run(out.sender_ns / 1e9, out.receiver_ns / 1e9, out.network_ns / 1e9, out.resent, out.memory)


def figures(progress: Progress, *, million: int = MILLION, repeats: int = REPEATS) -> Iterator[Result]:
    """The best of ``repeats`` runs each: whatever else runs on the machine only ever takes away."""
    progress("mirror.events")
    clean = [once(million, 0, rate=AS_FAST_AS_IT_GOES) for _ in range(repeats)]
    yield Result("mirror.events.sender", million / min(r.sender_s for r in clean), "events/s/core")
    yield Result("mirror.events.receiver", million / min(r.receiver_s for r in clean), "events/s/core")
    progress("mirror.loss")
    lossy = [
        once(million, 0, rate=A_MILLION, loss_ppm=LOSS_PPM, round_trip_ns=ROUND_TRIP_NS)
        for _ in range(repeats)
    ]
    yield Result("mirror.loss1.rtt10", million / min(r.slowest_s for r in lossy), "events/s")
    yield Result("mirror.loss1.rtt10.resent", float(min(r.resent for r in lossy)), "datagrams")
    yield Result("mirror.memory", lossy[0].memory / 2**20, "MiB")
    progress("mirror.resync")
    snapshots = [once(0, million, rate=1) for _ in range(repeats)]
    yield Result("mirror.resync", min(r.slowest_s for r in snapshots), "s")
