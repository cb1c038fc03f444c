"""A guest of QEMU for tests: Debian's kernel, and tests/guest/init.c as all of its user space.

``why_not()`` says what is missing; ``initrd(folder)`` makes the image, ``Guest`` is one QEMU in a namespace of a
lab, by KVM where /dev/kvm works, else by emulation. Boots in seconds, and has 128 MiB.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from ipshare.lab import Lab
from tests.guest.vm import Qmp

HERE = Path(__file__).parent
UNPACKED = HERE.parent / "build" / "guest"
QEMU = "qemu-system-x86_64"
DEVICE, GATEWAY = "vm0", "169.254.1.1"
MAC, GATEWAY_MAC = "02:00:00:00:07:01", "02:00:00:00:07:fe"


def kernel() -> Path | None:
    """Debian's, as tests/guest/kernel.sh unpacked it."""
    return next(iter(sorted(UNPACKED.glob("boot/vmlinuz-*"))), None)


def why_not() -> str:
    """ "": a guest can run here."""
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed (qemu-system-x86)"
    return "" if kernel() is not None else f"no kernel in {UNPACKED} (sh tests/guest/kernel.sh build/guest)"


@functools.cache
def accelerator() -> str:
    """KVM where it really works: the device may be there and refuse."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    words = [QEMU, "-machine", "none,accel=kvm", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    done = subprocess.run(
        words,
        input='{"execute":"qmp_capabilities"}{"execute":"quit"}',
        text=True,
        capture_output=True,
        check=False,
    )
    return "tcg" if done.returncode else "kvm"


def initrd(folder: Path) -> Path:
    """The guest's only file system, as a cpio archive (format "newc")."""
    program = folder / "init"
    subprocess.run(
        [
            "cc",
            "-O2",
            "-static",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
            str(program),
            str(HERE / "guest/init.c"),
        ],
        check=True,
    )
    parts = [_entry("init", 0o100755, program.read_bytes()), _entry("dev", 0o040755)]
    parts += [_entry("dev/console", 0o020600, device=(5, 1)), _entry("m", 0o040755)]
    modules = dict.fromkeys([*_with_needed("virtio_pci"), *_with_needed("virtio_net")])
    parts += [_entry(f"m/{n}", 0o100644, file.read_bytes()) for n, file in enumerate(modules)]
    made = folder / "initrd"
    made.write_bytes(b"".join([*parts, _entry("TRAILER!!!", 0)]))
    return made


def _with_needed(name: str) -> list[Path]:
    """The module, after those that it needs."""
    file = next(UNPACKED.glob(f"lib/modules/*/kernel/**/{name}.ko"))
    found = re.search(rb"\0depends=([^\0]*)\0", file.read_bytes())
    needed = found.group(1).decode().split(",") if found is not None else []
    return [*(path for other in needed if other for path in _with_needed(other)), file]


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    said = name.encode() + b"\0"
    numbers = (1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(said), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + said
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class Guest:
    """A QEMU at ``node`` of ``lab``; ``incoming``: it waits for another one's guest at that TCP port."""

    def __init__(self, lab: Lab, node: str, address: str, image: Path, *, incoming: int = 0) -> None:
        self.lab, self.node = lab, node
        self.socket = image.parent / f"{node}.qmp"
        self.socket.unlink(missing_ok=True)
        program = kernel()
        assert program is not None, "why_not() was asked"
        words = [
            QEMU, "-machine", f"pc,accel={accelerator()}", "-m", "128", "-nodefaults", "-no-user-config",
            "-display", "none", "-serial", "stdio", "-kernel", str(program), "-initrd", str(image),
            "-append", f"quiet console=ttyS0 address={address} gateway={GATEWAY}",
            "-netdev", f"tap,id=n,ifname={DEVICE},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=n,mac={MAC},romfile=",
            "-qmp", f"unix:{self.socket},server=on,wait=off",
            *(["-incoming", f"tcp:0:{incoming}"] if incoming else []),
        ]  # fmt: skip
        self.process = lab.popen(node, words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait_ready(self) -> None:
        """Until it answers on its port."""
        assert self.process.stdout is not None
        said = b""
        for line in self.process.stdout:
            said += line
            if b"guest: ready" in line:
                return
        raise AssertionError(f"the guest ended: {said.decode(errors='replace')}")

    def qmp(self) -> Qmp:
        return Qmp(str(self.socket))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def plug(lab: Lab, node: str, address: str) -> None:
    """The device for a guest of that Global IP: the same gateway, by address and MAC, at every node."""
    for words in (
        ["tuntap", "add", DEVICE, "mode", "tap"],
        ["link", "set", DEVICE, "address", GATEWAY_MAC, "up"],
        ["address", "add", f"{GATEWAY}/32", "dev", DEVICE],
        ["route", "add", f"{address}/32", "dev", DEVICE],
    ):
        lab.run(node, ["ip", *words])
