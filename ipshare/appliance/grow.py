"""grow: at the box, at each start: the data partition, the last of the disk, takes what the disk has more.

An image's /data is small, the disk that it was written to is not. Three steps, each of which may be the last
before the power goes: the table (its second copy goes to the disk's new end first), the kernel's idea of the
partition, the file system, mounted as it is. The next start does what is left.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ipshare.appliance import layout, slots, tools

WORTH = 16 * layout.MIB
"""Less is left alone."""
SYS = Path("/sys/class/block")


def room(disk: int, start: int, size: int) -> int:
    """Octets between a partition and the disk's last MiB, the place of the table's second copy."""
    return max(disk - layout.MIB - start - size, 0)


def table(disk: str, number: int) -> None:
    """Makes partition `number`, the last one, as long as the disk has room."""
    still = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--force"]
    tools.run([*still, "--relocate", "gpt-bak-std", disk])
    tools.run([*still, "-N", str(number), disk], text=", +\n")


def grow(say: Callable[[str], None]) -> int:
    """Octets that the data partition has afterwards."""
    device = slots.device("data").resolve()
    part = (SYS / device.name).resolve()
    disk, number = part.parent.name, int((part / "partition").read_text())
    start, size = (int((part / name).read_text()) * layout.SECTOR for name in ("start", "size"))
    if room(int((SYS / disk / "size").read_text()) * layout.SECTOR, start, size) >= WORTH:
        table(f"/dev/{disk}", number)
        tools.run(["partx", "--update", "--nr", str(number), f"/dev/{disk}"])
    before = os.statvfs("/data")
    tools.run(["resize2fs", str(device)])
    after = os.statvfs("/data")
    if after.f_blocks > before.f_blocks:
        say(f"/data has {after.f_blocks * after.f_frsize >> 20:,} MiB now")
    return int((part / "size").read_text()) * layout.SECTOR
