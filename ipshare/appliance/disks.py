"""disks: at the box: which disks there are, and what speaks against writing the appliance to one. Read from
/sys and /proc, relative to `root`, so that tests have machines of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ipshare.appliance import layout

NO_DISKS = ("loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd")


@dataclass(frozen=True, slots=True)
class Disk:
    """`size`: octets. `against`: why it cannot be installed to; empty if nothing speaks against it."""

    name: str
    size: int
    model: str
    parts: tuple[str, ...]
    against: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        return f"/dev/{self.name}"


def look(needed: int, root: Path = Path("/")) -> list[Disk]:
    """The disks of this machine, each with what speaks against it. `needed`: octets that the image wants."""
    names = sorted(p.name for p in (root / "sys/block").iterdir() if not p.name.startswith(NO_DISKS))
    found = [_one(name, root) for name in names]
    taken = {disk.name for disk in found if _has_ours(disk, root)}
    return [
        Disk(disk.name, disk.size, disk.model, disk.parts, tuple(_against(disk, needed, taken, root)))
        for disk in found
    ]


def _one(name: str, root: Path) -> Disk:
    block = root / "sys/block" / name
    parts = tuple(sorted(part.parent.name for part in block.glob("*/partition")))
    model = _text(block / "device/model") or _text(block / "device/vendor")
    return Disk(name, int(_text(block / "size") or 0) * layout.SECTOR, model, parts)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _against(disk: Disk, needed: int, taken: set[str], root: Path) -> list[str]:
    why = []
    block, nodes = root / "sys/block" / disk.name, (disk.name, *disk.parts)
    mounted = _mounted(root)
    for node in nodes:
        number = _text(block / "dev" if node == disk.name else block / node / "dev")
        for place in mounted.get(number, ()):
            if place.startswith(("/run/ipshare-medium", "/run/ipshare-slot")):
                why.append("this system runs from it")
            else:
                why.append(f"{node} is mounted at {place}")
        holders = (block if node == disk.name else block / node) / "holders"
        if holders.is_dir() and any(holders.iterdir()):
            why.append(f"{node} is in use by {', '.join(sorted(h.name for h in holders.iterdir()))}")
        if any(line.split()[0] == f"/dev/{node}" for line in _text(root / "proc/swaps").splitlines()[1:]):
            why.append(f"{node} is swapped to")
    if disk.size < needed:
        why.append(f"it has {disk.size >> 20:,} MiB, the image needs {needed >> 20:,}")
    if _text(block / "ro") == "1":
        why.append("it is read-only")
    if others := sorted(taken - {disk.name}):
        why.append(
            f"{', '.join(others)} has an appliance already, and two in one machine are taken for one another"
        )
    return list(dict.fromkeys(why))


def _mounted(root: Path) -> dict[str, list[str]]:
    """major:minor -> where it is mounted."""
    found: dict[str, list[str]] = {}
    for line in _text(root / "proc/self/mountinfo").splitlines():
        words = line.split()
        found.setdefault(words[2], []).append(words[4])
    return found


def _has_ours(disk: Disk, root: Path) -> bool:
    place = root / "dev/disk/by-partlabel"
    links = place.glob("ipshare-*") if place.is_dir() else ()
    return any(link.readlink().name in disk.parts for link in links)
