"""cores: keeps everything but VPP off VPP's cores, by cpusets (control groups, version 2).

    set-property --runtime OTHERS AllowedCPUs=the rest           plain separation, of systemd's units
    set-property --runtime ipshare.slice AllowedCPUs=VPP's       where VPP is started (engine.vpp.slice)
    cpuset.cpus.partition = isolated                             and the kernel spreads nothing there

systemd keeps the first two as drop-ins below /run, so they are gone with the next start, whatever happens.
The third is the kernel's, from Linux 6.1 or so; where it refuses, the first two go on. What a processor does
for the kernel itself (interrupts bound to it, its timer) is not moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ipshare.appliance.machine import Finding, Machine
from ipshare.engine.vpp.slice import SLICE, own_cores
from ipshare.model import Metal

OTHERS = ("init.scope", "system.slice", "user.slice", "machine.slice")
"""Whose units run everything else."""
NAME = "cores"


def listed(cores: Iterable[int]) -> str:
    """The kernel's form of a set: "0,2-5"."""
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def _groups(machine: Machine) -> Path:
    return machine.sys / "fs/cgroup"


def there(machine: Machine, metal: Metal) -> Iterator[Finding]:
    """Whether the machine has the cores that VPP's threads shall have, and another one for all else."""
    if not metal.cores:
        return
    online = machine.online()
    if gone := set(metal.cores) - online:
        yield Finding(NAME, f"{listed(gone)} asked, and there are {listed(online) or 'none'}", False)
    elif metal.is_isolated and not online - set(metal.cores):
        yield Finding(NAME, f"{listed(metal.cores)} asked, and none is left for everything else", False)
    else:
        yield Finding(NAME, f"{listed(metal.cores)} asked, of {listed(online)}", True)


def separate(machine: Machine, metal: Metal) -> Iterator[Finding]:
    """Brings it about, or undoes it where it is asked no more."""
    for finding in there(machine, metal):
        if finding.is_good is False:
            yield finding
            if metal.is_isolated:
                yield from undo(machine)
                return
    if not metal.is_isolated:
        yield from undo(machine)
        return
    if "cpuset" not in machine.read(_groups(machine) / "cgroup.controllers").split():
        yield Finding(NAME, "not isolated: no cpusets of version 2 at /sys/fs/cgroup", False)
        return
    rest = listed(machine.online() - set(metal.cores))
    commands = [["systemctl", "start", SLICE]]
    commands += [_allow(unit, rest) for unit in OTHERS]
    commands += [_allow(SLICE, listed(metal.cores))]
    for words in commands:
        if why := machine.run(words):
            yield Finding(NAME, f"not isolated: {' '.join(words)}: {why}", False)
            _everybody(machine)
            return
    yield Finding(
        NAME, f"{listed(metal.cores)} are VPP's, {rest} everything else's: {_partition(machine)}", True
    )


def undo(machine: Machine) -> Iterator[Finding]:
    """Every core is everybody's again; nothing where it was so. A VPP that runs goes on where it is."""
    if not own_cores(_groups(machine)):
        return
    why = _everybody(machine)
    text = f"not given back: {why}" if why else "isolated no more: every core is everybody's"
    yield Finding(NAME, text, False if why else None)


def _everybody(machine: Machine) -> str:
    """Takes all limits away; returns why that failed, or an empty string."""
    machine.write(_groups(machine) / SLICE / "cpuset.cpus.partition", "member")
    said = [machine.run(_allow(unit, "")) for unit in (*OTHERS, SLICE)]
    return next((why for why in said if why), "")


def _allow(unit: str, cores: str) -> list[str]:
    return ["systemctl", "set-property", "--runtime", unit, f"AllowedCPUs={cores}"]


def _partition(machine: Machine) -> str:
    """Asks the kernel to isolate the slice's cores; says what came of it."""
    file = _groups(machine) / SLICE / "cpuset.cpus.partition"
    if not file.exists():
        return "separated, not isolated: this kernel has no partitions"
    why = machine.write(file, "isolated")
    now = machine.read(file)
    if not why and now == "isolated":
        return "isolated"
    machine.write(file, "member")
    return f"separated, not isolated: the kernel says {why or now or 'nothing'}"
