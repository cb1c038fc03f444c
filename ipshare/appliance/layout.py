"""layout: the disk of the appliance. Five partitions of a GPT, each with a fixed place, name and identity.

bios     GRUB's second stage for machines that boot by BIOS, written there as it is
esp      FAT: GRUB for UEFI, grub.cfg, grubenv (which slot boots)
a, b     the slots: each a squashfs with kernel, initrd, root.squashfs, release.json, or nothing
data     ext4: what outlives an update; the last, so that it can grow with the disk

Identities are computed from names: two builds of the same are the same, bit by bit.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

SECTOR = 512
MIB = 1 << 20
NUMBER = 1
"""Of this layout. An update that wants another one is refused (bundle)."""
SPACE = uuid.UUID("5f0fd2a6-90f0-4a64-9e2a-1b5a1e001b5a")

BIOS = "21686148-6449-6E6F-744E-656564454649"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
FAT_SERIAL = "1b5a1e00"
SLOTS = ("a", "b")


@dataclass(frozen=True, slots=True)
class Partition:
    number: int
    name: str
    kind: str
    start: int
    """Octets from the beginning of the disk, as is size."""
    size: int

    @property
    def label(self) -> str:
        return f"ipshare-{self.name}"


@dataclass(frozen=True, slots=True)
class Disk:
    partitions: tuple[Partition, ...]
    size: int

    def __getitem__(self, name: str) -> Partition:
        return next(part for part in self.partitions if part.name == name)


def disk(slot_mib: int = 640, data_mib: int = 256) -> Disk:
    """The disk whose slots and data partition have these sizes."""
    at, parts = 1, []
    wanted = (("bios", BIOS, 1), ("esp", ESP, 62), ("a", LINUX, slot_mib), ("b", LINUX, slot_mib))
    for number, (name, kind, mib) in enumerate((*wanted, ("data", LINUX, data_mib)), 1):
        parts.append(Partition(number, name, kind, at * MIB, mib * MIB))
        at += mib
    return Disk(tuple(parts), (at + 1) * MIB)  # the last MiB: the copy of the table


def identity(name: str) -> str:
    """The UUID of a partition, file system or disk of that name."""
    return str(uuid.uuid5(SPACE, name))


def sfdisk(plan: Disk) -> str:
    """What sfdisk reads to make the table."""
    lines = ["label: gpt", f"label-id: {identity('disk')}", "unit: sectors", "first-lba: 34", ""]
    for part in plan.partitions:
        lines.append(
            f"start={part.start // SECTOR}, size={part.size // SECTOR}, type={part.kind}, "
            f'uuid={identity(part.label)}, name="{part.label}"'
        )
    return "\n".join(lines) + "\n"
