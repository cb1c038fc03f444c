"""hugepages: as many as the site file asks, on each NUMA node, from the kernel while it runs.

More than were asked are left: others may have asked for them. What the kernel does not give is said, and the
machine goes on without; VPP then takes small pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ipshare.appliance.machine import Finding, Machine
from ipshare.model import Hugepages

KIB = 1 << 10


def place(machine: Machine, wanted: Hugepages) -> Path:
    """The kernel's directory of these pages, whether it is there or not. A kernel without NUMA has none for
    nodes."""
    name = f"hugepages-{wanted.size // KIB}kB"
    nodes = machine.sys / "devices/system/node"
    if wanted.numa == 0 and not nodes.exists():
        return machine.sys / "kernel/mm/hugepages" / name
    return nodes / f"node{wanted.numa}" / "hugepages" / name


def title(wanted: Hugepages) -> str:
    size = f"{wanted.size >> 30} GiB" if wanted.size >= 1 << 30 else f"{wanted.size >> 10:,} KiB"
    if 1 << 20 <= wanted.size < 1 << 30:
        size = f"{wanted.size >> 20} MiB"
    return f"hugepages of {size}, NUMA node {wanted.numa}"


def allocate(machine: Machine, asked: tuple[Hugepages, ...]) -> Iterator[Finding]:
    """Writes nr_hugepages and reads what came of it; compacts memory once where some are missing."""
    for wanted in asked:
        there = place(machine, wanted)
        file = there / "nr_hugepages"
        if lacking := _lacking(machine, wanted):
            yield Finding(title(wanted), lacking, False)
            continue
        why = ""
        for compacts in (False, True):
            if _number(machine, file) >= wanted.count:
                break
            if compacts:
                machine.write(machine.root / "proc/sys/vm/compact_memory", "1")
            why = machine.write(file, str(wanted.count))
        yield _said(wanted, _number(machine, file), why)


def ask(machine: Machine, asked: tuple[Hugepages, ...]) -> Iterator[Finding]:
    """Whether they are there, or the memory for them. Changes nothing."""
    for wanted in asked:
        if lacking := _lacking(machine, wanted):
            yield Finding(title(wanted), lacking, False)
            continue
        here = _number(machine, place(machine, wanted) / "nr_hugepages")
        missing = wanted.count - here
        free = _free(machine, wanted.numa)
        if missing <= 0 or free is None or missing * wanted.size > free:
            room = "" if missing <= 0 or free is None else f", and memory for {free // wanted.size} is free"
            yield Finding(title(wanted), f"{wanted.count} asked, {here} there{room}", missing <= 0)
        else:
            text = f"{wanted.count} asked, {here} there, memory for the others is free now"
            yield Finding(title(wanted), text, True)


def _lacking(machine: Machine, wanted: Hugepages) -> str:
    there = place(machine, wanted)
    if there.exists():
        return ""
    if not there.parent.exists():
        return f"{wanted.count} asked, and there is no NUMA node {wanted.numa}"
    sizes = sorted(
        int(path.name.split("-")[1].removesuffix("kB")) for path in there.parent.glob("hugepages-*")
    )
    has = ", ".join(f"{size:,} KiB" for size in sizes) or "none"
    return f"{wanted.count} asked, and this machine has no pages of that size (it has: {has})"


def _said(wanted: Hugepages, here: int, why: str) -> Finding:
    missing = wanted.count - here
    if missing <= 0:
        more = ", more than asked: left as they are" if missing < 0 else ""
        return Finding(title(wanted), f"{here} there{more}", True)
    why = why or "memory is short, or in pieces; pages asked for earlier in a start are easier to get"
    return Finding(title(wanted), f"{wanted.count} asked, {here} there: {missing} missing ({why})", False)


def _number(machine: Machine, file: Path) -> int:
    text = machine.read(file)
    return int(text) if text.isdigit() else 0


def _free(machine: Machine, numa: int) -> int | None:
    """Bytes of a NUMA node that nothing uses; None: the kernel does not say."""
    text = machine.read(machine.sys / f"devices/system/node/node{numa}/meminfo")
    text = text or machine.read(machine.root / "proc/meminfo")
    for line in text.splitlines():
        words = line.split()
        if "MemFree:" in words:
            return int(words[words.index("MemFree:") + 1]) * KIB
    return None
