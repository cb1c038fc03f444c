"""What the recipes and the preflight need to know of this machine: read, never changed.

Everything here concerns the network namespace of the calling thread.
"""

from __future__ import annotations

import os
from ipaddress import ip_interface
from pathlib import Path

from ipshare.net.kernel import PROC_SYS, Kernel

_CAP_NET_ADMIN = 12
_RTPROT_RA = 9
_MAIN = 254


def conntrack_in_use() -> bool:
    """Whether this kernel has conntrack at hand; then translated packets must be kept out of it."""
    return (PROC_SYS / "net/netfilter/nf_conntrack_max").exists()


def ra_devices(kernel: Kernel) -> tuple[str, ...]:
    """Devices over which an IPv6 default route was learned by router advertisement."""
    names = {link["index"]: name for name, link in kernel.links().items()}
    learned = {
        names[route["oif"]]
        for route in kernel.routes(6, _MAIN)
        if route["prefix"] == "::/0" and route["protocol"] == _RTPROT_RA and route["oif"] in names
    }
    return tuple(sorted(learned))


def reached_by(kernel: Kernel) -> dict[str, str]:
    """Devices by which this machine is reached, each with what it has: an address, or the default route.
    Link-local addresses and those of loopback do not count."""
    names = {link["index"]: name for name, link in kernel.links().items()}
    found = {
        names[index]: f"has {address}"
        for index, address in kernel.addresses()
        if index in names and not (ip := ip_interface(address).ip).is_link_local and not ip.is_loopback
    }
    for family in (4, 6):
        for route in kernel.routes(family, _MAIN):
            if route["prefix"] in ("0.0.0.0/0", "::/0") and route["oif"] in names:
                found[names[route["oif"]]] = "has the default route"
    return found


def has_net_admin() -> bool:
    """Whether this process may change the network (CAP_NET_ADMIN, in its user namespace)."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)


def sysctls_writable() -> bool:
    """False where /proc/sys is mounted read-only, as in most containers."""
    return not os.statvfs(PROC_SYS / "net").f_flag & os.ST_RDONLY


def tun_error() -> str:
    """Why /dev/net/tun cannot be opened, or an empty string."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror or str(error)
    return ""
