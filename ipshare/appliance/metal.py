"""metal: the machine under a node's VPP: what its site file asks, one after the other, and what came of each.

Hugepages first, while memory is in one piece; then cards, then cores. Nothing of it stops at a refusal: the
node starts with what there is (`ipshare vpp prepare`, and its unit at boot).
"""

from __future__ import annotations

from collections.abc import Mapping

from ipshare.appliance import cores, devices, hugepages
from ipshare.appliance.machine import Finding, Machine
from ipshare.model import Metal


def prepare(
    metal: Metal, machine: Machine | None = None, used: Mapping[str, str] | None = None
) -> list[Finding]:
    """Brings it about. ``used``: how this machine is reached, by device; None: asks the kernel."""
    machine = machine or Machine()
    return [
        *hugepages.allocate(machine, metal.hugepages),
        *devices.give(machine, metal.cards, _used(metal, used)),
        *cores.separate(machine, metal),
    ]


def ask(metal: Metal, machine: Machine | None = None, used: Mapping[str, str] | None = None) -> list[Finding]:
    """Whether the machine has it. Changes nothing."""
    machine = machine or Machine()
    return [
        *hugepages.ask(machine, metal.hugepages),
        *devices.ask(machine, metal.cards, _used(metal, used)),
        *cores.there(machine, metal),
    ]


def _used(metal: Metal, used: Mapping[str, str] | None) -> Mapping[str, str]:
    if used is not None or not metal.cards:
        return used or {}
    from ipshare.net.facts import reached_by
    from ipshare.net.kernel import Kernel

    with Kernel() as kernel:
        return reached_by(kernel)
