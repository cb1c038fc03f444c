"""A box in QEMU: an image, a seed, a console that is read, SSH through user-mode networking; its power can
be cut.

With KVM; IPSHARE_EMULATE=1: without, for machines whose /dev/kvm is missing or runs no boot loader. Waits are
for lines on the console, with a bound that only a box that hangs reaches. Cards are in fixed slots: ens16 is
the one for SSH, ens17, ens18 ... are taps of the caller.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

BOUND_S = 5400 if os.environ.get("IPSHARE_EMULATE") else 900
# Emulated, the fastest processor is one that has what numpy wants, nothing wider, and needs no page table
# isolation: that would cost a flush at each system call.
EMULATED_CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm,+aes,+pclmulqdq"
KVM, EMULATED = (["-accel", "kvm", "-cpu", "host"], ["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU])
SMALL = ("-smp", "1", "-m", "1024")
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")


class Box:
    """One machine with a disk of its own on top of the image, or an empty one of `size`. `taps`: descriptors;
    `sticks`: more volumes, vdb or vdc ..., that are only read; `usb`: the same as USB sticks, sda ..., whose
    changes are forgotten; `iso`: a CD, started from if the disk does not start, as USB sticks are; `clock`:
    the date that its clock has at each power-on; `machine`: processors, memory and what else QEMU shall have;
    `card`: what the taps' cards are."""

    def __init__(
        self,
        place: Path,
        image: Path | None,
        seed: Path | None,
        key: Path,
        *,
        name: str = "disk",
        taps: Sequence[int] = (),
        size: str = "",
        uefi: bool = False,
        sticks: Sequence[Path] = (),
        iso: Path | None = None,
        usb: Sequence[Path] = (),
        clock: str = "",
        machine: Sequence[str] = SMALL,
        card: str = "virtio-net-pci",
    ) -> None:
        self.place, self.seed, self.key, self.taps, self.uefi = place, seed, key, tuple(taps), uefi
        self.sticks, self.iso, self.usb, self.clock = tuple(sticks), iso, tuple(usb), clock
        self.machine, self.card = machine, card
        self.name, self.disk, self.console = name, place / f"{name}.qcow2", place / f"{name}.console"
        base = ["-F", "qcow2", "-b", str(image.resolve())] if image is not None else []
        create = ["qemu-img", "create", "-q", "-f", "qcow2", *base, str(self.disk)]
        subprocess.run([*create, *([size] if size else [])], check=True)
        if uefi:
            shutil.copy(FIRMWARE.with_name("OVMF_VARS_4M.fd"), place / f"{name}.vars")
        self.process: subprocess.Popen[bytes] | None = None
        self.seen, self.began = 0, 0.0

    def power_on(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        how = EMULATED if os.environ.get("IPSHARE_EMULATE") else KVM
        command = ["qemu-system-x86_64", *how, *self.machine, "-display", "none", "-vga", "none"]
        self.line = self.place / f"{self.name}.line"
        line = f"socket,id=line,path={self.line},server=on,wait=off,logfile={self.console}"
        command += ["-chardev", line, "-serial", "chardev:line", "-monitor", "none"]
        command += ["-drive", f"file={self.disk},if=virtio,format=qcow2"]
        if self.seed is not None:
            command += ["-drive", f"file={self.seed},format=raw,if=virtio"]
        if self.iso is not None:
            command += ["-drive", f"file={self.iso},media=cdrom,readonly=on"]
        for stick in self.sticks:
            command += ["-drive", f"file={stick},format=raw,if=virtio,readonly=on"]
        # In a slot of its own: a disk elsewhere than at the start before is the last one that UEFI tries.
        command += ["-device", "qemu-xhci,addr=0xf"] if self.usb else []
        for number, stick in enumerate(self.usb):
            command += ["-drive", f"if=none,id=u{number},file={stick},format=raw,snapshot=on"]
            first = "" if self.uefi else f",bootindex={number}"  # a BIOS tries one disk alone
            command += ["-device", f"usb-storage,drive=u{number}{first}"]
        command += ["-rtc", f"base={self.clock}"] if self.clock else []
        if self.uefi:
            command += ["-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}"]
            command += ["-drive", f"if=pflash,format=raw,file={self.place / f'{self.name}.vars'}"]
        command += ["-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        command += ["-device", "virtio-net-pci,netdev=n0,addr=0x10,romfile="]
        for number, tap in enumerate(self.taps, 1):
            mac = f"52:54:00:{sum(self.name.encode()) & 255:02x}:{os.getpid() & 255:02x}:{number:02x}"
            command += ["-netdev", f"tap,id=n{number},fd={tap}"]
            command += [
                "-device",
                f"{self.card},netdev=n{number},mac={mac},addr={0x10 + number:#x},romfile=",
            ]
        self.seen = 0
        self.console.unlink(missing_ok=True)
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, pass_fds=self.taps, start_new_session=True)

    def cut_power(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def says(self, text: str) -> str:
        """The console from where the last wait ended to `text`, waited for."""
        end = time.monotonic() + BOUND_S
        while time.monotonic() < end:
            assert self.process is not None and self.process.poll() is None, "QEMU ended"
            console = self.console.read_text(errors="replace")[self.seen :] if self.console.exists() else ""
            if text in console:
                at = console.index(text) + len(text)
                self.seen += at
                return console[:at]
            time.sleep(0.2)
        raise AssertionError(
            f"the console never said {text!r}; its end:\n{self.console.read_text(errors='replace')[-3000:]}"
        )

    def types(self, text: str) -> None:
        """A line at its console."""
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.line))
            line.sendall(text.encode() + b"\n")
            line.shutdown(socket.SHUT_WR)
            while line.recv(4096):  # QEMU closes when it has taken all
                pass

    def healthy(self) -> str:
        """The console up to the line that ends a start; its time is printed."""
        said = self.says(": healthy")
        print(f"{self.name}: healthy {time.monotonic() - self.began:.0f} s after power-on")
        return said

    def command(self) -> list[str]:
        """ssh to it."""
        options = ["-i", str(self.key), "-p", str(self.port)]
        for option in (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "BatchMode=yes",
            "LogLevel=ERROR",
        ):
            options += ["-o", option]
        ssh = shutil.which("ssh")
        assert ssh is not None, "openssh-client is not installed"
        return [ssh, *options, "root@127.0.0.1"]

    def ssh(self, command: str, given: Path | None = None, ends: bool = False) -> str:
        """Runs a command in the box; `given`: a file for its input; `ends`: the box may be gone before the
        command's end is told."""
        with open(given or os.devnull, "rb") as stdin:
            done = subprocess.run(
                [*self.command(), command], stdin=stdin, capture_output=True, text=True, timeout=BOUND_S
            )
        said = f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        assert done.returncode in ((0, 255) if ends else (0,)), said
        return done.stdout


def ssh_key(place: Path) -> Path:
    key = place / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(key)], check=True)
    return key
