"""A VPP between a router and two devices, each in a namespace of its own, with nothing configured in it.

router --up0-- node --lan1-- one
                    --lan2-- two       one, two: 203.0.113.20, .21 /24; router 192.0.2.1/29
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

from ipshare.lab import netns
from tests.vpp.vpp_process import Running, vpp

CABLES = (("up0", "router"), ("lan1", "one"), ("lan2", "two"))


def space(name: str) -> str:
    return f"ipsp-{os.getpid()}-{name}"


def run(where: str, command: str) -> str:
    """What a command prints in a namespace of the lab. Raises CalledProcessError."""
    words = ["nsenter", f"--net=/run/netns/{space(where)}", *command.split()]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def reaches(where: str, address: str) -> bool:
    """Whether one of a few pings from there is answered."""
    words = ["nsenter", f"--net=/run/netns/{space(where)}", "ping", "-c1", "-w5", "-i0.2", address]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def wired() -> Iterator[None]:
    """The namespaces and cables. The node's devices have no address: they are VPP's."""
    names = ["node", *(far for _, far in CABLES)]
    with contextlib.ExitStack() as stack:
        for name in names:
            netns.create(space(name))
            stack.callback(netns.delete, space(name))
        for device, far in CABLES:
            run("node", f"ip link add {device} type veth peer name eth0 netns {space(far)}")
            run("node", f"sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1")
            run("node", f"ip link set {device} up")
            run(far, "sysctl -qw net.ipv6.conf.all.accept_dad=0")
            run(far, "ip link set lo up")
            run(far, "ip link set eth0 up")
        for name, address in (
            ("router", "192.0.2.1/29"),
            ("one", "203.0.113.20/24"),
            ("two", "203.0.113.21/24"),
        ):
            run(name, f"ip address add {address} dev eth0")
        yield


@contextlib.contextmanager
def wired_vpp(**options: object) -> Iterator[Running]:
    """VPP in the node, with its devices unopened."""
    with wired(), vpp(netns=space("node"), **options) as running:  # type: ignore[arg-type]
        yield running
