"""beside: ipshare and VPP's other translators in one VPP, few destinations, every kind of packet.

Each has 250 bindings and its own input interface. Names of streams: v4.nat44-ed.tcp, v4.ipshare.stacked.udp.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipshare.bench.packets import Kind
from vpp import flows, ours
from vpp.cases import BESIDE, CASES, SIZE, Case, interfaces
from vpp.process import Vpp, VppFailed
from vpp.runtime import Streams
from vpp.series import BURST, ROUNDS, Measured, Series, alternate

OUR_KINDS: tuple[Kind, ...] = ("mixed", "tcp", "udp", "fragment")


def together(*, rounds: int = ROUNDS, burst: int = BURST) -> dict[str, Series]:
    """All cases that can share a VPP process, ipshare among them."""
    with Vpp((*BESIDE, ours.PLUGIN), statseg=ours.STATSEG) as vpp:
        streams = Streams(vpp)
        wanted = _lay(vpp, streams, CASES, burst)
        loader = ours.Loader(vpp)
        for variant in ours.VARIANTS:
            for kind in OUR_KINDS:
                name = f"v{variant.family}.ipshare.{variant.name}.{kind}"
                numbers = flows.numbers("few", SIZE)
                streams.define(name, variant.family, "pg1", ours.packets_of(variant, kind, numbers), burst)
                wanted.append(Measured(name, variant.node, loader.of(variant, SIZE)))
        return alternate(streams, wanted, rounds)


def alone(case: Case, *, rounds: int = ROUNDS, burst: int = BURST) -> dict[str, Series] | str:
    """A case in a process of its own; a line of text where VPP dies of it."""
    try:
        with Vpp(("nat", "nat44_ei")) as vpp:
            streams = Streams(vpp)
            return alternate(streams, _lay(vpp, streams, [case], burst), rounds)
    except VppFailed as error:
        if "SIGSEGV" not in str(error):
            raise
        return "VPP crashes"


def _lay(vpp: Vpp, streams: Streams, cases: Sequence[Case], burst: int) -> list[Measured]:
    """Interfaces, routes, the cases' own set-up, their streams, their connections."""
    vpp.run(interfaces(len(cases)))
    wanted = []
    for i, case in enumerate(cases, start=1):
        interface = f"pg{i}"
        vpp.run(case.setup(interface, SIZE))
        for kind in (case.kind, *case.kinds):
            targets = flows.addresses(case.base, flows.numbers("few", SIZE))
            if case.opened:
                opening = flows.syns(kind, case.family, targets)
                streams.define(f"opening {case.name} {kind}", case.family, interface, opening, len(opening))
                streams.burst(f"opening {case.name} {kind}")
            name = f"v{case.family}.{case.name}.{kind}".replace(" ", "-")
            streams.define(name, case.family, interface, flows.of(kind, case.family, targets), burst)
            wanted.append(Measured(name, case.through))
    return wanted
