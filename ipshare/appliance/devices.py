"""devices: gives the cards that DPDK shall drive to vfio-pci, and says why where it does not.

A card is given away by its driver_override, unbound and probed anew; doing it again does nothing. Never one
by which this machine is reached: with an address, or the default route, at the card or at what is above it
(VLAN, bond, bridge). Nothing is given back: a start of the machine does that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from ipshare import durable
from ipshare.appliance.machine import Finding, Machine
from ipshare.engine.vpp.cards import BESIDE_THE_KERNEL, RECORD, VFIO, address_of, driver, recorded
from ipshare.model import Card

HARMLESS = frozenset({None, VFIO, "pcieport", "pci-stub", "shpchp"})
"""Drivers that may have the other devices of a card's IOMMU group."""


def give(machine: Machine, cards: tuple[Card, ...], used: Mapping[str, str]) -> Iterator[Finding]:
    """``used``: by name of a device of the kernel: how this machine is reached by it."""
    for finding, address in _looked_at(machine, cards, used):
        yield _given(machine, finding.name, address) if address is not None else finding


def ask(machine: Machine, cards: tuple[Card, ...], used: Mapping[str, str]) -> Iterator[Finding]:
    """What `give` would meet. Changes nothing."""
    for finding, _ in _looked_at(machine, cards, used):
        yield finding


def _looked_at(
    machine: Machine, cards: tuple[Card, ...], used: Mapping[str, str]
) -> Iterator[tuple[Finding, str | None]]:
    """For each card what there is, and its address where it can, and has to, be given away."""
    seen: dict[str, str] = {}
    for card in cards:
        address = address_of(card, machine.sys, _record(machine))
        at = machine.sys / "bus/pci/devices" / (address or "")
        name = f"card {card.device}"
        if address is None or not at.exists():
            yield Finding(name, "there is no such card on PCI", False), None
            continue
        if address in seen:
            yield Finding(name, f"{address} is {seen[address]} too: leave one of them out", False), None
            continue
        seen[address] = card.device
        reached = [f"{device} {used[device]}" for device in _above(machine, address) if device in used]
        if reached:
            text = f"{address} stays with the kernel: this machine is reached by it ({', '.join(reached)})"
            yield Finding(name, text, False), None
            continue
        has = driver(address, machine.sys)
        if has == VFIO or has in BESIDE_THE_KERNEL:
            yield Finding(name, f"{address} is driven by {has}", True), None
        elif why := _unfit(machine, address):
            yield Finding(name, f"{address}, driven by {has or 'nothing'}: {why}", False), None
        else:
            yield (
                Finding(name, f"{address}, driven by {has or 'nothing'}: can be given to {VFIO}", True),
                address,
            )


def _unfit(machine: Machine, address: str) -> str:
    """Why vfio-pci could not have it, or an empty string."""
    group = machine.sys / "bus/pci/devices" / address / "iommu_group"
    if not group.exists():
        unsafe = machine.sys / "module/vfio/parameters/enable_unsafe_noiommu_mode"
        if machine.read(unsafe) != "Y":
            return f"no IOMMU (switch it on in the firmware), which {VFIO} needs"
        return ""
    others = [one.name for one in sorted((group / "devices").glob("*")) if one.name != address]
    for other in others:
        if (has := driver(other, machine.sys)) not in HARMLESS:
            return f"{other} is in the same IOMMU group and driven by {has}"
    return ""


def _above(machine: Machine, address: str) -> list[str]:
    """The kernel's devices of a card, and those above them."""
    at = machine.sys / "bus/pci/devices" / address
    left = [path.name for pattern in ("net/*", "virtio*/net/*") for path in sorted(at.glob(pattern))]
    found: list[str] = []
    while left:
        device = left.pop(0)
        if device not in found:
            found.append(device)
            here = machine.sys / "class/net" / device
            left += [path.name.removeprefix("upper_") for path in sorted(here.glob("upper_*"))]
    return found


def _given(machine: Machine, name: str, address: str) -> Finding:
    at, drivers = machine.sys / "bus/pci/devices" / address, machine.sys / "bus/pci/drivers"
    if not (drivers / VFIO).exists() and (why := machine.run(["modprobe", VFIO])):
        return Finding(name, f"{address} stays: {why}", False)
    had = driver(address, machine.sys)
    names = [path.name for pattern in ("net/*", "virtio*/net/*") for path in at.glob(pattern)]
    if names:
        _remember(machine, dict.fromkeys(names, address))
    why = machine.write(at / "driver_override", VFIO)
    if not why and had is not None:
        why = machine.write(at / "driver" / "unbind", address)
    if not why:
        why = machine.write(machine.sys / "bus/pci/drivers_probe", address)
    if driver(address, machine.sys) == VFIO:
        return Finding(name, f"{address} was driven by {had or 'nothing'}, now by {VFIO}", True)
    machine.write(at / "driver_override", "\n")
    machine.write(machine.sys / "bus/pci/drivers_probe", address)
    now = driver(address, machine.sys) or "nothing"
    return Finding(
        name, f"{address}: {VFIO} did not take it ({why or 'no reason given'}); driven by {now}", False
    )


def _record(machine: Machine) -> Path:
    return machine.root / RECORD.relative_to("/")


def _remember(machine: Machine, names: Mapping[str, str]) -> None:
    """Names that are about to go."""
    kept = {**recorded(_record(machine)), **names}
    durable.write(_record(machine), json.dumps(kept).encode(), 0o644)
