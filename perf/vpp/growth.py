"""growth: what ipshare adds with 1 to a million bindings, for few destinations and for all of them.

All sizes in one VPP, their tables loaded in turn, round after round; each load is followed by a burst that
is not counted, the first one by all packets, which touches every counter once. Packets of "all" are as many
as the bindings, in random order, each to another one: with a million, the generator's own packets (64 MB)
go through the caches as well, as a network card's would.
"""

from __future__ import annotations

from collections.abc import Callable

from vpp import flows, ours
from vpp.cases import CASES, Case, interfaces
from vpp.process import Vpp
from vpp.runtime import Streams
from vpp.series import BURST, Measured, Series, alternate

ROUNDS = 7
OTHERS = {4: ("nat44-ed", "pnat"), 6: ()}


def bindings(*, thorough: bool, rounds: int = ROUNDS, burst: int = BURST) -> dict[str, Series]:
    """Names: v4.ipshare.stacked.64k.all. Not ``thorough``: up to 64 k."""
    sizes = {k: n for k, n in ours.SIZES.items() if thorough or n < 1_000_000}
    found: dict[str, Series] = {}
    for variant in ours.VARIANTS:
        if variant.name != "looked-up":
            found |= _grown(variant, sizes, rounds, burst)
    return found


def _grown(variant: ours.Variant, sizes: dict[str, int], rounds: int, burst: int) -> dict[str, Series]:
    with Vpp((ours.PLUGIN,), statseg=ours.STATSEG) as vpp:
        vpp.run(interfaces(1))
        streams, loader, wanted = Streams(vpp), ours.Loader(vpp), []
        for size, n in sizes.items():
            for pattern in ("few", "all"):
                numbers = flows.numbers(pattern, n)
                name = f"v{variant.family}.ipshare.{variant.name}.{size}.{pattern}"
                frames = ours.packets_of(variant, "tcp", numbers)
                streams.define(name, variant.family, "pg1", frames, burst)
                wanted.append(Measured(name, variant.node, _loading(loader, streams, name, variant, n)))
        for m in wanted:
            m.before()
            for _ in range(ours.SIZES[m.stream.split(".")[-2]] // burst + 1):
                streams.burst(m.stream)
        return alternate(streams, wanted, rounds)


def _loading(
    loader: ours.Loader, streams: Streams, name: str, variant: ours.Variant, n: int
) -> Callable[[], None]:
    """Loads the tables; a burst that is not counted follows."""
    load = loader.of(variant, n)

    def ready() -> None:
        load()
        streams.burst(name)

    return ready


def others(*, rounds: int = ROUNDS, burst: int = BURST) -> dict[str, Series]:
    """nat44-ed and pnat with 1 k and 64 k bindings, UDP: few destinations and all."""
    found: dict[str, Series] = {}
    for case in CASES:
        if case.largest > 250:
            found |= _other(case, rounds, burst)
    return found


def _other(case: Case, rounds: int, burst: int) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for size in ("1k", "64k"):
        n = ours.SIZES[size]
        with Vpp(("nat", "pnat")) as vpp:
            vpp.run(interfaces(1))
            vpp.run(case.setup("pg1", n))
            streams, wanted = Streams(vpp), []
            for pattern in ("few", "all"):
                targets = flows.addresses(case.base, flows.numbers(pattern, n))
                name = f"v{case.family}.{case.name}.{size}.{pattern}"
                streams.define(name, case.family, "pg1", flows.of("udp", case.family, targets), burst)
                for _ in range(n // burst + 1):
                    streams.burst(name)  # a session for every flow
                wanted.append(Measured(name, case.through))
            found |= alternate(streams, wanted, rounds)
    return found
