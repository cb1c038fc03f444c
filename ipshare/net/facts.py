"""What the recipes and the preflight need to know of this machine: read, never changed.

Everything here concerns the network namespace of the calling thread.
"""

from __future__ import annotations

import os
from pathlib import Path

from ipshare.net.kernel import PROC_SYS, Kernel

_CAP_NET_ADMIN = 12
_RTPROT_RA = 9


def conntrack_in_use() -> bool:
    """Whether this kernel has conntrack at hand; then translated packets must be kept out of it."""
    return (PROC_SYS / "net/netfilter/nf_conntrack_max").exists()


def ra_devices(kernel: Kernel) -> tuple[str, ...]:
    """Devices over which an IPv6 default route was learned by router advertisement."""
    names = {link["index"]: name for name, link in kernel.links().items()}
    learned = {
        names[route["oif"]]
        for route in kernel.routes(6, 254)
        if route["prefix"] == "::/0" and route["protocol"] == _RTPROT_RA and route["oif"] in names
    }
    return tuple(sorted(learned))


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
