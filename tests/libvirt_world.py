"""Two real libvirt daemons on one machine: each in the namespaces of a host of its own (network of a lab's
node, mounts, host name, processes), with its own UUID, and a small guest of QEMU in emulation or KVM.

A daemon ends with all that it began: it is in a namespace of processes whose first one is killed.
"""

from __future__ import annotations

import importlib.util
import shutil
import socket
import time
import uuid
from pathlib import Path
from typing import Any

from ipshare.lab import Lab
from tests import guest_vm

LIBVIRTD = shutil.which("libvirtd", path="/usr/sbin:/usr/local/sbin")
DRIVER = "connection-driver/libvirt_driver_qemu.so"
DRIVERS = [*Path("/usr/lib").glob(f"*/libvirt/{DRIVER}"), *Path("/usr/lib64").glob(f"libvirt/{DRIVER}")]
IS_ROOT = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
HAS_MODULE = importlib.util.find_spec("libvirt") is not None
WAIT_S = 90.0
DAEMON = """
host_uuid = "{uuid}"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "2:file:{folder}/daemon.log"
"""
QEMU = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
migration_host = "{host}"
"""
START = """set -e
hostname {name}
for of in run/libvirt var/lib/libvirt var/cache/libvirt var/log/libvirt etc/libvirt; do
    mkdir -p /$of {folder}/$of
    mount --bind {folder}/$of /$of
done
(cat /etc/passwd; echo 'libvirt-qemu:x:64055:64055::/nonexistent:/bin/false') > {folder}/passwd
(cat /etc/group; echo 'libvirt-qemu:x:64055:'; echo 'kvm:x:64056:') > {folder}/group
echo '127.0.0.1 localhost host-a host-b' > {folder}/hosts
for file in passwd group hosts; do mount --bind {folder}/$file /etc/$file; done
{program} -f {folder}/libvirtd.conf -p {folder}/pid &
wait  # as its first process it reaps the others: libvirtd waits 40 s for each QEMU that nobody does
"""
"""The driver looks up the user of Debian's libvirt-daemon-system, whoever qemu.conf names: here it has one.
Each lookup of a host name that nobody knows would take seconds."""
DOMAIN = """
<domain type="{kind}">
  <name>{name}</name>
  <memory unit="MiB">128</memory>
  <os>
    <type arch="x86_64" machine="pc">hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>quiet console=ttyS0 address={address} gateway={gateway}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <interface type="ethernet">
      <mac address="{mac}"/>
      <target dev="{device}" managed="no"/>
      <model type="virtio"/>
      <rom enabled="no"/>
    </interface>
    <serial type="file"><source path="{console}"/></serial>
    <controller type="usb" model="none"/>
    <memballoon model="none"/>
  </devices>
</domain>
"""


def why_not() -> str:
    """ "": two daemons and a guest can run here."""
    if LIBVIRTD is None or not DRIVERS:
        return "no libvirtd with its QEMU driver (libvirt-daemon, libvirt-daemon-driver-qemu)"
    if not HAS_MODULE:
        return "libvirt-python is not installed (pip install 'ipshare[libvirt]')"
    return guest_vm.why_not() if IS_ROOT else "libvirtd needs root, not in a user namespace"


class Daemon:
    """libvirtd as the host ``node``; migrations to it come by that node's address in the lab."""

    def __init__(self, lab: Lab, node: str, folder: Path) -> None:
        self.folder, self.node = folder, node
        folder.mkdir()
        configured = folder / "etc/libvirt"
        configured.mkdir(parents=True)
        (folder / "libvirtd.conf").write_text(DAEMON.format(uuid=uuid.uuid4(), folder=folder))
        (configured / "qemu.conf").write_text(QEMU.format(host=lab.address(node, 4)))
        script = START.format(name=f"host-{node.lower()}", folder=folder, program=LIBVIRTD)
        words = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.errors = (folder / "errors.log").open("wb")
        self.process = lab.popen(node, [*words, "sh", "-c", script], stdout=self.errors, stderr=self.errors)

    @property
    def socket(self) -> Path:
        return self.folder / "run/libvirt/libvirt-sock"

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.socket}"

    def open(self) -> Any:
        """A connection, as soon as it answers."""
        import libvirt

        end = time.monotonic() + WAIT_S
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as tried:
                    tried.connect(str(self.socket))
                return libvirt.open(self.uri)
            except (OSError, libvirt.libvirtError) as error:
                assert self.process.poll() is None and time.monotonic() < end, (error, self.said())
                time.sleep(0.1)  # another process's socket

    def said(self) -> str:
        files = (self.folder / "errors.log", self.folder / "daemon.log")
        return "\n".join(file.read_text() for file in files if file.exists())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


def domain_xml(name: str, address: str, image: tuple[Path, Path], console: Path) -> str:
    emulator = shutil.which(guest_vm.QEMU)
    kind = "kvm" if guest_vm.accelerator() == "kvm" else "qemu"
    return DOMAIN.format(
        kind=kind, name=name, kernel=image[0], initrd=image[1], address=address, gateway=guest_vm.GATEWAY,
        emulator=emulator, mac=guest_vm.MAC, device=guest_vm.DEVICE, console=console,
    )  # fmt: skip


def wait_said(file: Path, text: str) -> None:
    """Until a guest's console has it."""
    end = time.monotonic() + WAIT_S
    while not file.exists() or text not in file.read_text(errors="replace"):
        assert time.monotonic() < end, f"the guest did not say {text!r}"
        time.sleep(0.1)  # another process's file
