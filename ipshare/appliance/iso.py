"""iso: the installation medium: one file that boots by BIOS and UEFI, from a CD and from a USB stick.

    El Torito, BIOS     GRUB, boot/bios.img; the same for a stick, through the MBR (boot_hybrid.img)
    El Torito, UEFI     a FAT volume with GRUB, appended as a partition, so that a stick has it, too
    ipshare/            what a disk is made of (medium); the live system is the slot there

The same identities for the same SOURCE_DATE_EPOCH: xorriso takes its times, UUID and GUIDs from it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ipshare.appliance import grub, layout, medium, tools

LABEL = "IPSHARE_LIVE"
NEEDED = ("xorriso", "grub-mkimage", "mformat", "mcopy", "mmd")
LIBRARY = Path("/usr/lib/grub/i386-pc")
EFI_SIZE = 4 << 20
EFI_SERIAL = "1b5a1e01"


def identity(epoch: int) -> str:
    """The UUID of an ISO 9660 volume: its time, as GRUB and Linux print it."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d-%H-%M-%S-00")


@dataclass(frozen=True, slots=True)
class About:
    """Of the image. `epoch`: seconds since 1970; `arguments`: more words for the kernel."""

    version: str
    epoch: int
    slot_mib: int
    data_mib: int
    arguments: str = ""


def write(slot: Path, raw: Path, target: Path, work: Path, about: About) -> None:
    """Makes the ISO of a raw image and its slot; `work` is emptied first."""
    epoch = about.epoch
    shutil.rmtree(work, ignore_errors=True)
    tree, uuid = work / "tree", identity(epoch)
    (tree / "boot/grub").mkdir(parents=True)
    (tree / "ipshare").mkdir()
    shutil.copy(slot, tree / "ipshare" / medium.SLOT)
    medium.make(raw, slot, about.version, about.slot_mib, about.data_mib, tree / "ipshare")
    (tree / "ipshare" / uuid).touch()
    (tree / "boot/grub/grub.cfg").write_text(grub.live(uuid, about.arguments))
    (work / "early.cfg").write_text(grub.live_early(uuid))
    make = ["grub-mkimage", "-c", str(work / "early.cfg"), "-p", "/boot/grub"]
    bios = tree / "boot/bios.img"
    tools.run([*make, "-O", "i386-pc-eltorito", "-o", str(bios), *grub.BIOS_MODULES, *grub.LIVE_MODULES])
    program = work / "BOOTX64.EFI"
    tools.run([*make, "-O", "x86_64-efi", "-o", str(program), *grub.EFI_MODULES, *grub.LIVE_MODULES])
    os.utime(program, (epoch, epoch))
    env = {"SOURCE_DATE_EPOCH": str(epoch)}
    efi = work / "efi.img"
    with efi.open("wb") as file:
        file.truncate(EFI_SIZE)
    at = ["-i", str(efi)]
    sectors = str(EFI_SIZE // layout.SECTOR)
    tools.run(
        ["mformat", *at, "-v", "IPSHARE-EFI", "-N", EFI_SERIAL, "-T", sectors, "-h", "64", "-s", "32", "::"],
        env=env,
    )
    tools.run(["mmd", *at, "::/EFI", "::/EFI/BOOT"], env=env)
    tools.run(["mcopy", "-m", *at, str(program), "::/EFI/BOOT/"], env=env)
    target.unlink(missing_ok=True)
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-o", str(target), "-V", LABEL, "-r", "-iso-level", "3"]
    command += [f"--modification-date={datetime.fromtimestamp(epoch, UTC):%Y%m%d%H%M%S}00"]
    command += ["--set_all_file_dates", f"={epoch}"]
    command += ["-b", "boot/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
    command += ["--grub2-boot-info", "--grub2-mbr", str(LIBRARY / "boot_hybrid.img")]
    command += ["-append_partition", "2", layout.ESP, str(efi), "-appended_part_as_gpt"]
    command += ["-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"]
    tools.run([*command, str(tree)], env=env)
