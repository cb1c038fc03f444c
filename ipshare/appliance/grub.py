"""grub: what the boot loader reads, and the 1,024 octets in which it and Linux agree on which slot boots.

grubenv has three variables: `good` (the slot that boots), `trial` (the slot that an update was written to, or
nothing) and `tries` (how often it may still be tried). GRUB takes one from `tries` before each try; Linux
makes `trial` the good one when it is healthy (health). So whatever happens during a try (a panic, a hang and
a reset, no power), the next start is counted, and the last is the old slot. A slot whose kernel or initrd
cannot be read is left for the other one, which is told so. The variables are in the first sector of the file:
a write of it is whole or not at all.
"""

from __future__ import annotations

import re
import struct

from ipshare.appliance import layout
from ipshare.errors import IpshareError

TRIES = 2
"""So that one power cut during a trial does not end it."""
HEAD = "# GRUB Environment Block\n"
SIZE = 1024
INSTEAD = "ipshare.instead"
"""A word of the kernel's: this slot runs because the one that should could not be read."""
ARGUMENTS = re.compile(r"[A-Za-z0-9 _.,:=/@+%~!*^-]*")
"""Of a kernel, as grub.cfg takes them: a quote, a ; or a line's end would be GRUB's, and the image would not
start."""
KERNEL = "panic=10 console=tty0 console=ttyS0,115200n8"

MODULES = [
    "part_gpt",
    "fat",
    "squash4",
    "normal",
    "linux",
    "echo",
    "test",
    "loadenv",
    "search",
    "search_fs_uuid",
    "configfile",
    "regexp",
    "serial",
    "terminal",
    "sleep",
    "reboot",
    "halt",
    "minicmd",
    "boot",
]
BIOS_MODULES = [*MODULES, "biosdisk"]
LIVE_MODULES = ["part_msdos", "iso9660", "loopback"]
EFI_MODULES = [*MODULES, "all_video", "gfxterm", "efi_gop"]


def early() -> str:
    """Embedded in GRUB: finds the ESP, and goes on with what is there."""
    serial = layout.FAT_SERIAL.upper()
    return (
        f"search --no-floppy --fs-uuid --set=root {serial[:4]}-{serial[4:]}\n"
        "set prefix=($root)/grub\nconfigfile ($root)/grub/grub.cfg\n"
    )


def config(arguments: str = "") -> str:
    """grub.cfg. `arguments`: more words for the kernel's command line."""
    counted = "\n".join(
        f'  {"if" if n == TRIES else "elif"} [ "$tries" = "{n}" ]; then '
        f'set tries={n - 1}; set slot="$trial"; save_env tries'
        for n in range(TRIES, 0, -1)
    )
    line = f"boot=ipshare ipshare.slot=$slot $instead {KERNEL} {arguments}".rstrip()
    return f"""serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
regexp --set=1:disk '^(.*),' "$root"
load_env good trial tries
set slot="$good"
if [ -n "$trial" ]; then
{counted}
  fi
fi
function start {{
  if [ "$slot" = "b" ]; then set part="$disk,gpt4"; else set slot=a; set part="$disk,gpt3"; fi
  echo "ipshare: slot $slot"
  if linux ($part)/vmlinuz {line}; then
    if initrd ($part)/initrd.img; then boot; fi
  fi
}}
start
echo "ipshare: slot $slot cannot be read; the other one"
set instead={INSTEAD}
if [ "$slot" = "b" ]; then set slot=a; else set slot=b; fi
start
echo "ipshare: neither slot can be read"
sleep 10
reboot
"""


def live_early(uuid: str) -> str:
    """Embedded in the GRUB of the ISO with that UUID."""
    return (
        f"search --no-floppy --fs-uuid --set=root {uuid}\n"
        "set prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n"
    )


def live(uuid: str, arguments: str = "") -> str:
    """grub.cfg of the ISO: the live system is the slot that it has."""
    line = f"boot=ipshare ipshare.live={uuid} {KERNEL} {arguments}".rstrip()
    return f"""serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
echo "ipshare: live system"
loopback slot ($root)/ipshare/ipshare.slot
if linux (slot)/vmlinuz {line}; then
  if initrd (slot)/initrd.img; then boot; fi
fi
echo "ipshare: this medium cannot be read"
sleep 10
reboot
"""


def encode(variables: dict[str, str]) -> bytes:
    """The environment block; Refuses what does not fit into its first sector."""
    text = HEAD + "".join(f"{key}={value}\n" for key, value in variables.items())
    if len(text) > layout.SECTOR:
        raise IpshareError("too much for the boot loader's variables")
    return text.encode().ljust(SIZE, b"#")


def decode(block: bytes) -> dict[str, str]:
    """The variables of a block; of one that is damaged, those that can be read."""
    found = {}
    for line in block[:SIZE].decode("ascii", "replace").splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.startswith("#"):
            found[key] = value
    return found


def boot_sector(image: bytes, core_at: int) -> bytes:
    """The 440 octets of boot.img that go before the partition table, for a core image at octet `core_at` of
    the disk."""
    patched = bytearray(image)
    struct.pack_into("<Q", patched, 0x5C, core_at // layout.SECTOR)
    patched[0x66:0x68] = (
        b"\x90\x90"  # as grub-bios-setup does for hard disks: the BIOS's drive number is believed
    )
    return bytes(patched[:440])


def core_image(image: bytes, core_at: int) -> bytes:
    """core.img, told where on the disk its own second sector is: the last block list of its first sector."""
    patched = bytearray(image)
    struct.pack_into("<Q", patched, 0x1F4, core_at // layout.SECTOR + 1)
    return bytes(patched)
