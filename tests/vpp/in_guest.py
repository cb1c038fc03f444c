"""Runs a command in a guest of QEMU that has the files of this machine and a kernel of its own.

    .venv/bin/python -m tests.vpp.in_guest .venv/bin/python -m pytest --timeout 7200 tests/vpp/test_bgp_vpp.py

For what this machine's kernel has not: linux-cp needs /dev/vhost-net. The guest's root is this machine's by
virtiofs, read-only below a file system in memory: what is written there is gone with the guest. Its kernel
is Debian's (tests/guest/kernel.sh), its process 1 tests/guest/host_root.c. By KVM or emulation, in which all
takes some ten times as long. The working directory and the variables IPSHARE_* are as here. Ends with the
command's exit status. Needs root, qemu-system-x86 (which brings virtiofsd in Debian 12) and cc.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import guest_vm
from tests.guest_vm import QEMU, accelerator

MODULES = ("virtio_pci", "virtiofs", "overlay", "tun", "veth", "vhost_net")
DAEMONS = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
MEMORY = "3G"
CPU = "max,-erms,-fsrm,-la57"
"""In emulation: string instructions for bytes and page tables of five levels are slow there."""
KERNEL = (
    "quiet console=ttyS0 panic=-1 no_timer_check mitigations=off clearcpuid=rep_good tsc=reliable "
    "clocksource=tsc"
)
"""No guards against other guests, no string instructions, no clock that is a device or is compared to one."""
ENDED = re.compile(rb"guest: ended (\d+)")
FAILED = 125


def why_not() -> str:
    """ "": a guest can run here."""
    if os.geteuid() != 0:
        return "not root: virtiofsd reads the whole machine"
    return guest_vm.why_not() or ("" if virtiofsd() else "virtiofsd is not installed")


def virtiofsd() -> str | None:
    """Debian 12 has it with QEMU, later ones in a package of its own."""
    return next((path for path in DAEMONS if Path(path).exists()), shutil.which("virtiofsd"))


def script(command: list[str]) -> str:
    """What the guest's shell does."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("IPSHARE_")}
    kept["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in kept.items()]
    lines += ["hostname guest", "ip link set lo up", "mkdir -p /run/netns", "mount --make-rshared /"]
    lines += [f"cd {shlex.quote(str(Path.cwd()))}", f"exec {shlex.join(command)}"]
    return "\n".join(lines) + "\n"


def run(command: list[str]) -> int:
    """Its exit status. What it prints is printed here."""
    with tempfile.TemporaryDirectory(prefix="ipshare-guest-") as name:
        folder = Path(name)
        socket = folder / "fs.sock"
        daemon = subprocess.Popen(
            [str(virtiofsd()), f"--socket-path={socket}", "-o", "source=/,cache=always,sandbox=chroot"],
            stdout=(folder / "fs.log").open("wb"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            end = time.monotonic() + 30
            while not socket.exists():
                if daemon.poll() is not None or time.monotonic() > end:
                    print(f"virtiofsd did not start: {(folder / 'fs.log').read_text()}", file=sys.stderr)
                    return FAILED
                time.sleep(0.05)
            return _boot(folder, socket, command)
        finally:
            daemon.kill()
            daemon.wait()


def _boot(folder: Path, socket: Path, command: list[str]) -> int:
    image = guest_vm.initrd(folder, "host_root.c", MODULES, {"script": script(command).encode()})
    words = [
        QEMU, "-machine", f"pc,accel={accelerator()},memory-backend=m",
        "-cpu", CPU if accelerator() == "tcg" else "host", "-smp", str(min(4, os.cpu_count() or 1)),
        "-m", MEMORY, "-object", f"memory-backend-memfd,id=m,size={MEMORY},share=on",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(guest_vm.unpacked(folder)), "-initrd", str(image),
        "-append", KERNEL,
        "-chardev", f"socket,id=fs,path={socket}", "-device", "vhost-user-fs-pci,chardev=fs,tag=host",
    ]  # fmt: skip
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    last = b""
    try:
        while data := process.stdout.read1(65536):
            sys.stdout.buffer.write(data.replace(b"\r\n", b"\n"))
            sys.stdout.flush()
            last = (last + data)[-4096:]
    finally:
        process.kill()
        process.wait()
    found = ENDED.findall(last)
    return int(found[-1]) if found else FAILED


def main(command: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))
    if reason := why_not():
        print(f"no guest: {reason}", file=sys.stderr)
        return FAILED
    return run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
