"""A box in QEMU: an image, a seed, a console that is read, SSH through user-mode networking; its power can
be cut.

With KVM; IPSHARE_EMULATE=1: without, for machines whose /dev/kvm is missing or runs no boot loader. Waits are
for lines on the console, with a bound that only a box that hangs reaches.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

BOUND_S = 1800 if os.environ.get("IPSHARE_EMULATE") else 300


class Box:
    """One machine with a disk of its own on top of the image."""

    def __init__(self, place: Path, image: Path, seed: Path, key: Path) -> None:
        self.place, self.seed, self.key = place, seed, key
        self.disk, self.console = place / "disk.qcow2", place / "console.log"
        base = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image.resolve())]
        subprocess.run([*base, str(self.disk)], check=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.seen = 0

    def power_on(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        emulated = bool(os.environ.get("IPSHARE_EMULATE"))
        how = ["-accel", "tcg,thread=multi", "-cpu", "max"] if emulated else ["-accel", "kvm", "-cpu", "host"]
        command = ["qemu-system-x86_64", *how, "-smp", "2", "-m", "1024", "-display", "none", "-vga", "none"]
        command += ["-serial", f"file:{self.console}", "-monitor", "none"]
        command += [
            "-drive",
            f"file={self.disk},if=virtio",
            "-drive",
            f"file={self.seed},format=raw,if=virtio",
        ]
        command += ["-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        self.seen = 0
        self.console.unlink(missing_ok=True)
        self.process = subprocess.Popen(command)

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

    def ssh(self, command: str, given: Path | None = None) -> str:
        """Runs a command in the box; `given`: a file for its input."""
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
        with open(given or os.devnull, "rb") as stdin:
            done = subprocess.run(
                [ssh, *options, "root@127.0.0.1", command],
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=BOUND_S,
            )
        assert done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout
