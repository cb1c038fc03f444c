"""hardware: what this machine has that a node wants: `ipshare hw-check`. Reads sysfs and procfs below `root`,
changes nothing."""

from __future__ import annotations

from pathlib import Path

from ipshare.appliance.machine import Finding

DPDK = frozenset(
    [
        "ixgbe",
        "ixgbevf",
        "i40e",
        "iavf",
        "ice",
        "igb",
        "igbvf",
        "igc",
        "e1000",
        "e1000e",
        "mlx4_core",
        "mlx5_core",
        "bnxt_en",
        "ena",
        "qede",
        "virtio-pci",
        "vmxnet3",
        "vfio-pci",
        "uio_pci_generic",
        "igb_uio",
        "hv_netvsc",
    ]
)
"""Kernel drivers of devices for which DPDK, as VPP builds it, has a driver of its own, and those that hand
devices to it."""


def look(root: Path = Path("/")) -> list[Finding]:
    """What there is, in the order of importance."""
    return [*_needed(root), *_cards(root), *_for_vpp(root)]


def _needed(root: Path) -> list[Finding]:
    flags = _text(root / "proc/cpuinfo").split("\nflags", 1)[-1].split("\n", 1)[0].split()
    has_v2 = {"sse4_2", "popcnt", "ssse3"} <= set(flags)
    memory = _number(_text(root / "proc/meminfo"), "MemTotal:") >> 10
    return [
        Finding("processor", "has SSE4.2" if has_v2 else "has no SSE4.2, which numpy wants", has_v2),
        Finding("memory", f"{memory:,} MiB", memory >= 900),
        Finding(
            "tun",
            "there" if (root / "dev/net/tun").exists() else "/dev/net/tun is missing",
            (root / "dev/net/tun").exists(),
        ),
        Finding("watchdog", *_watchdog(root)),
    ]


def _watchdog(root: Path) -> tuple[str, bool | None]:
    is_there = (root / "dev/watchdog").exists()
    return (
        ("there: a machine that hangs is reset", True)
        if is_there
        else ("none: a machine that hangs stays so", None)
    )


def _cards(root: Path) -> list[Finding]:
    found = []
    for card in sorted((root / "sys/class/net").glob("*")):
        driver = card / "device" / "driver"
        if not driver.exists():
            continue  # lo, bridges, TUN
        name = driver.resolve().name
        name = "virtio-pci" if name == "virtio_net" else name
        numa = _text(card / "device/numa_node").strip()
        where = f", NUMA node {numa}" if numa not in ("", "-1") else ""
        fit = "DPDK drives it" if name in DPDK else "not for DPDK: af_packet, or the embedded engine"
        found.append(Finding(card.name, f"{name}{where}: {fit}", True if name in DPDK else None))
    return found or [Finding("network cards", "none", False)]


def _for_vpp(root: Path) -> list[Finding]:
    text = _text(root / "proc/meminfo")
    pages, size = _number(text, "HugePages_Total:"), _number(text, "Hugepagesize:")
    groups = len(list((root / "sys/kernel/iommu_groups").glob("*")))
    cores = _text(root / "proc/cpuinfo").count("processor\t")
    nodes = len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or 1
    return [
        Finding("hugepages", f"{pages} of {size >> 10} MiB", True if pages else None),
        Finding(
            "IOMMU",
            f"{groups} groups" if groups else "off: vfio-pci only in its unsafe mode",
            True if groups else None,
        ),
        Finding("cores", f"{cores}, on {nodes} NUMA node{'s' if nodes != 1 else ''}", cores >= 2 or None),
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(text: str, key: str) -> int:
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == key and words[1].isdigit():
            return int(words[1])
    return 0
