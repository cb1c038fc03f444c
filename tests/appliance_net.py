"""The networks around two boxes: a bridge that both stand at, with a client and an end point of this machine;
a network of devices behind each end point. All of it in network namespaces of one prefix, gone at the end.

    client 192.0.2.7 ─┐
    c1     192.0.2.1 ─┤ core
    a1    192.0.2.11 ─┤        a1 ── 198.51.100.5, a service that says A
    b1    192.0.2.12 ─┘        b1 ── 198.51.100.5, a service that says B
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

GLOBAL = "198.51.100.5"
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000

SERVICE = """
import socketserver, sys
class Talk(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(sys.argv[1].encode() + b" " + line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
with Server((sys.argv[2], 80), Talk) as server:
    print("listening", flush=True)
    server.serve_forever()
"""
CLIENT = """
import socket, sys
talk = socket.create_connection((sys.argv[1], 80), timeout=float(sys.argv[2]))
file = talk.makefile("rwb")
for line in sys.stdin.buffer:
    file.write(line)
    file.flush()
    print(file.readline().decode(), end="", flush=True)
"""


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def tap(name: str, space: str) -> int:
    """The descriptor of a tap in a namespace; closed, it is gone."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    run("ip", "link", "set", name, "netns", space)
    run("ip", "-n", space, "link", "set", name, "up")
    return descriptor


class Talk:
    """A TCP connection of the client's that stays open."""

    def __init__(self, space: str, bound_s: float) -> None:
        words = ["ip", "netns", "exec", space, sys.executable, "-c", CLIENT, GLOBAL, str(bound_s)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.count = 0

    def ask(self) -> str:
        """Who answers the next line; the answer has to be to that line."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.count += 1
        self.process.stdin.write(f"{self.count}\n")
        self.process.stdin.flush()
        who, _, number = self.process.stdout.readline().partition(" ")
        assert number == f"{self.count}\n", f"after {self.count - 1} answers the connection broke"
        return who

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


@dataclass
class World:
    prefix: str
    core: dict[str, int]
    """The taps at the core, of c1 and a1."""
    devices: int
    """That of a1's devices."""

    def space(self, name: str) -> str:
        return f"{self.prefix}-{name}"


@contextmanager
def world() -> Iterator[World]:
    prefix = f"iap{os.getpid()}"
    names = ("core", "client", "b1", "deva", "devb")
    with ExitStack() as after:
        for name in names:
            run("ip", "netns", "add", f"{prefix}-{name}")
            after.callback(subprocess.run, ["ip", "netns", "delete", f"{prefix}-{name}"], check=False)
            run("ip", "-n", f"{prefix}-{name}", "link", "set", "lo", "up")
        made = World(prefix, {}, 0)
        core, client, b1, deva, devb = map(made.space, names)
        run("ip", "-n", core, "link", "add", "core", "type", "bridge")
        run("ip", "-n", core, "link", "set", "core", "up")
        for space, address, one in ((client, "192.0.2.7/24", "to-client"), (b1, "192.0.2.12/24", "to-b1")):
            run("ip", "-n", core, "link", "add", one, "type", "veth", "peer", "name", "core", "netns", space)
            run("ip", "-n", core, "link", "set", one, "master", "core", "up")
            run("ip", "-n", space, "address", "add", address, "dev", "core")
            run("ip", "-n", space, "link", "set", "core", "up")
        run("ip", "-n", client, "route", "add", "198.51.100.0/24", "via", "192.0.2.1")
        run("ip", "-n", b1, "route", "add", "10.1.0.0/24", "via", "192.0.2.11")
        run("ip", "-n", b1, "link", "add", "devices", "type", "veth", "peer", "name", "eth0", "netns", devb)
        run("ip", "-n", b1, "address", "add", "198.51.100.4/31", "dev", "devices")
        run("ip", "-n", b1, "link", "set", "devices", "up")
        for number, name in enumerate(("c1", "a1")):
            made.core[name] = tap(f"{prefix}{number}", core)
            after.callback(os.close, made.core[name])
            run("ip", "-n", core, "link", "set", f"{prefix}{number}", "master", "core")
        made.devices = tap(f"{prefix}d", deva)
        after.callback(os.close, made.devices)
        for space, device, who in ((deva, f"{prefix}d", "A"), (devb, "eth0", "B")):
            run("ip", "-n", space, "address", "add", f"{GLOBAL}/31", "dev", device)
            run("ip", "-n", space, "link", "set", device, "up")
            run("ip", "-n", space, "route", "add", "default", "via", "198.51.100.4")
            words = [sys.executable, "-c", SERVICE, who, GLOBAL]
            service = subprocess.Popen(
                ["ip", "netns", "exec", space, *words], stdout=subprocess.PIPE, text=True
            )
            after.callback(service.wait)
            after.callback(service.kill)
            assert service.stdout is not None and service.stdout.readline() == "listening\n"
        yield made


def sites(place: Path) -> dict[str, Path]:
    """The site files of the three nodes, beside channel.key."""
    shared = """
[[network]]
name = "g"
prefix = "198.51.100.0/24"
[[endpoint]]
name = "A"
local = ["10.1.0.0/25"]
[[endpoint]]
name = "B"
local = ["10.2.0.0/25"]
[[distribution]]
name = "C"
[[binding]]
global = "198.51.100.0/25"
to = "A"
track = "always"
"""
    channel = """
[[channel]]
name = "A-B"
kind = "ipip"
key_file = "channel.key"
[[channel.end]]
endpoint = "A"
addresses = ["10.1.0.121", "10.1.0.122"]
paths = ["192.0.2.11:6090"]
[[channel.end]]
endpoint = "B"
addresses = ["10.2.0.121", "10.2.0.122"]
paths = ["192.0.2.12:6090"]
"""
    heads = {
        "c1": 'distribution = "C"\nicmp_source = ["192.0.2.1"]\n',
        "a1": 'endpoint = "A"\nicmp_source = ["192.0.2.11"]\ninside = ["ens18"]\n',
        "b1": 'endpoint = "B"\nicmp_source = ["192.0.2.12"]\ninside = ["devices"]\n'
        f'runtime_dir = "{place}/b1-run"\nstate_dir = "{place}/b1-state"\n',
    }
    made = {}
    for name, head in heads.items():
        (place / name).mkdir()
        made[name] = place / name / "site.toml"
        body = f'[node]\nname = "{name}"\n{head}{shared}'
        made[name].write_text(body.replace('track = "always"\n', "") if name == "c1" else body + channel)
    return made


NETWORKS = {
    "c1": """version: 2
ethernets:
  ens16: {dhcp4: true}
  ens17:
    addresses: [192.0.2.1/24]
    routes: [{to: 10.1.0.0/24, via: 192.0.2.11}, {to: 10.2.0.0/24, via: 192.0.2.12}]
""",
    "a1": """version: 2
ethernets:
  ens16: {dhcp4: true}
  ens17:
    addresses: [192.0.2.11/24]
    routes: [{to: 10.2.0.0/24, via: 192.0.2.12}]
  ens18: {addresses: [198.51.100.4/31]}
""",
}
