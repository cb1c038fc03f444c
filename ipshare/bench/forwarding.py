"""forwarding: the embedded engine beside the kernel's own nftables, on the same kind of path, alternating.

A round measures every variant once, one after the other; a figure is the median of the rounds, so that
what else happens on the machine meets all of them. "udp64" and "tcp" rates are what arrived; "cpu" is the
processor time of everything that moved it (ipshare.bench.flow), for packets at a pace that all keep up with,
so that no time goes into packets that are lost. "generator" is what flood can make: its frames are
ignored by the first router.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import median

from ipshare.bench import flow
from ipshare.bench.paths import VARIANTS, paths
from ipshare.bench.result import Progress, Result

FLOODS = ("plain", "nft", "raw", "ips")
STREAMS = ("plain", "nft", "raw", "ips", "plain2", "nft2", "ips2", "gue2")
PEERS = {"plain": "", "nft": "plain", "raw": "plain", "ips": "nft", "plain2": "", "nft2": "plain2"}
PEERS |= {"ips2": "nft2", "gue2": "plain2"}
ROUNDS = 9
PACE = 100_000  # packets per second that every variant forwards without loss

Measured = dict[tuple[str, str], list[flow.Flow]]


def figures(progress: Progress, *, rounds: int = ROUNDS, seconds: float = 0.5) -> Iterator[Result]:
    """Rates, throughputs and processor time of all variants. Needs root, nft and a C compiler: raises
    IpshareError with the remedy."""
    done: Measured = defaultdict(list)
    with flow.tool() as binary, paths() as prefix:
        generated = flow.generator(prefix, binary, seconds)
        for number in range(rounds):
            progress(f"forwarding: round {number + 1} of {rounds}")
            for name in FLOODS:
                done["udp64", name].append(flow.flood(prefix, binary, VARIANTS[name], seconds))
                done["paced", name].append(flow.flood(prefix, binary, VARIANTS[name], seconds, PACE))
            for name in STREAMS:
                done["tcp", name].append(flow.stream(prefix, binary, VARIANTS[name], seconds))
    yield Result("forwarding.udp64.generator.rate", generated, "pps")
    yield from _compared(done, "udp64", FLOODS, "rate", "pps", lambda f: f.rate)
    yield from _compared(done, "paced", FLOODS, "cpu", "ns/packet", lambda f: f.cost)
    yield from _compared(done, "tcp", STREAMS, "rate", "bit/s", lambda f: f.rate * 8)
    yield from _compared(done, "tcp", STREAMS, "cpu", "ns/byte", lambda f: f.cost)


def _compared(
    done: Measured, kind: str, names: tuple[str, ...], what: str, unit: str, of: Callable[[flow.Flow], float]
) -> Iterator[Result]:
    """Each variant beside its peer: the median of the rounds' ratios, each of neighbours in time."""
    for name in names:
        values, peer = [of(f) for f in done[kind, name]], PEERS[name]
        if not peer:
            yield Result(f"forwarding.{kind}.{name}.{what}", median(values), unit)
            continue
        ratio = median(v / of(f) for v, f in zip(values, done[kind, peer], strict=True))
        yield Result(
            f"forwarding.{kind}.{name}.{what}",
            median(values),
            unit,
            f"forwarding.{kind}.{peer}.{what}",
            ratio,
        )
