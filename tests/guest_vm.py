"""A guest of QEMU for tests: Debian's kernel, and tests/guest/init.c as all of its user space.

``why_not()`` says what is missing; ``initrd(folder)`` makes the image, ``unpacked(folder)`` the kernel,
``Guest`` is one QEMU in a namespace of a lab, by KVM or emulation. Boots in seconds, and has 128 MiB.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ipshare.lab import Lab
from tests.guest.vm import Qmp

HERE = Path(__file__).parent
UNPACKED = HERE.parent / "build" / "guest"
QEMU = "qemu-system-x86_64"
LZ4 = bytes.fromhex("02214c18")
"""Of the old frame format."""
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
    """KVM where the processor does the work; there is KVM in software, slower than emulation."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK) and flags & {"vmx", "svm"}
    return "kvm" if usable else "tcg"


def unpacked(folder: Path) -> Path:
    """The kernel as an ELF file (PVH), which needs neither BIOS nor its own unpacking: both are slow in
    emulation. Packed in another way than LZ4, as of today's Debian, it is taken as it is."""
    packed = kernel()
    assert packed is not None, "why_not() was asked"
    data, made = packed.read_bytes(), folder / "vmlinux"
    at = data.find(LZ4)
    if at < 0 or shutil.which("lz4") is None:
        return packed
    done = subprocess.run(
        ["lz4", "-dc"], input=data[at:], capture_output=True, check=False
    )  # more follows it
    made.write_bytes(done.stdout)
    return made if done.stdout[:4] == b"\x7fELF" else packed


def initrd(
    folder: Path,
    source: str = "init.c",
    wanted: Sequence[str] = ("virtio_pci", "virtio_net"),
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """The guest's first file system, as a cpio archive (format "newc"): ``source`` of tests/guest as its
    process 1, modules with what they need, and ``files`` by name."""
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
            str(HERE / "guest" / source),
        ],
        check=True,
    )
    parts = [_entry("init", 0o100755, program.read_bytes()), _entry("dev", 0o040755)]
    parts += [_entry("dev/console", 0o020600, device=(5, 1)), _entry("m", 0o040755)]
    modules = dict.fromkeys(path for name in wanted for path in _with_needed(name))
    parts += [_entry(f"m/{n}", 0o100644, _module(file)) for n, file in enumerate(modules)]
    parts += [_entry(name, 0o100644, data) for name, data in (files or {}).items()]
    made = folder / "initrd"
    made.write_bytes(b"".join([*parts, _entry("TRAILER!!!", 0)]))
    return made


def _with_needed(name: str) -> list[Path]:
    """The module, after those that it needs; nothing where the kernel has it within."""
    within = "".join(path.read_text() for path in UNPACKED.glob("**/modules.builtin"))
    if f"/{name}.ko\n" in within:
        return []
    file = next(UNPACKED.glob(f"**/modules/*/kernel/**/{name}.ko*"))
    found = re.search(rb"\0depends=([^\0]*)\0", _module(file))
    needed = found.group(1).decode().split(",") if found is not None else []
    return [*(path for other in needed if other for path in _with_needed(other)), file]


def _module(file: Path) -> bytes:
    return lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()


def _entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    said = name.encode() + b"\0"
    numbers = (1, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(said), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + said
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class Guest:
    """A QEMU at ``node`` of ``lab``; ``incoming``: it waits for another one's guest at that TCP port."""

    def __init__(
        self, lab: Lab, node: str, address: str, image: tuple[Path, Path], *, incoming: int = 0
    ) -> None:
        self.lab, self.node = lab, node
        program, disk = image
        self.socket = disk.parent / f"{node}.qmp"
        self.socket.unlink(missing_ok=True)
        words = [
            QEMU, "-machine", f"pc,accel={accelerator()}", "-m", "128", "-nodefaults", "-no-user-config",
            "-display", "none", "-serial", "stdio", "-kernel", str(program), "-initrd", str(disk),
            "-append", f"quiet console=ttyS0 address={address} gateway={GATEWAY}",
            "-netdev", f"tap,id=n,ifname={DEVICE},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=n,mac={MAC},romfile=",
            "-qmp", f"unix:{self.socket},server=on,wait=off",
            "-qmp", f"unix:{self.socket}-ask,server=on,wait=off",
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
