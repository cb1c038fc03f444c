"""slice: the slice of systemd whose cores belong to VPP alone, and how a VPP gets into it.

Whatever an agent starts is in the agent's control group, which may not use those cores: VPP is started as a
scope of the slice instead. Who makes the slice: ipshare.appliance.cores.
"""

from __future__ import annotations

from pathlib import Path

from ipshare.model import Metal

SLICE = "ipshare.slice"
"""No dash in its name: it is a child of the root, which a cpuset partition wants to be."""
CGROUPS = Path("/sys/fs/cgroup")
SCOPE = ("systemd-run", "--scope", "--quiet", "--collect", f"--slice={SLICE}", "--")


def cpus(text: str) -> frozenset[int]:
    """Numbers of the kernel's list "0,2-5"; of a text that is none: none."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            found |= set(range(int(first), int(last if last.isdigit() else first) + 1))
    return frozenset(found)


def own_cores(cgroups: Path = CGROUPS) -> frozenset[int]:
    """Cores that the slice has; none where it is not there."""
    try:
        return cpus((cgroups / SLICE / "cpuset.cpus").read_text())
    except OSError:
        return frozenset()


def way_in(metal: Metal, cgroups: Path = CGROUPS) -> tuple[str, ...]:
    """The command that starts a VPP on its own cores; nothing where the slice has not got all of them."""
    return SCOPE if metal.is_isolated and own_cores(cgroups) >= set(metal.cores) else ()
