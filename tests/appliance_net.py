"""The networks around two boxes, in network namespaces of one prefix, gone at the end.

``world``: a bridge that both stand at, with a client and an end point of this machine; a network of devices
behind each end point.

    client 192.0.2.7 ─┐
    c1     192.0.2.1 ─┤ core
    a1    192.0.2.11 ─┤        a1 ── 198.51.100.5, a service that says A
    b1    192.0.2.12 ─┘        b1 ── 198.51.100.5, a service that says B

``between``: two boxes that are a pair of NAT gateways, with VIPs .254 on both sides, and a link of their own.

    host 10.20.0.9 ── inside ── gw1, gw2 (.1, .2) ── outside ── 192.0.2.9, a service that says S
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

    def __init__(self, space: str, bound_s: float, to: str = GLOBAL) -> None:
        words = ["ip", "netns", "exec", space, sys.executable, "-c", CLIENT, to, str(bound_s)]
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
            serve(after, space, who, GLOBAL)
        yield made


def serve(after: ExitStack, space: str, who: str, address: str) -> None:
    """A service that says who it is, listening."""
    words = [sys.executable, "-c", SERVICE, who, address]
    service = subprocess.Popen(["ip", "netns", "exec", space, *words], stdout=subprocess.PIPE, text=True)
    after.callback(service.wait)
    after.callback(service.kill)
    assert service.stdout is not None and service.stdout.readline() == "listening\n"


GATEWAYS = ("gw1", "gw2")
SERVER = "192.0.2.9"


@dataclass
class Between:
    prefix: str
    taps: dict[str, tuple[int, ...]]
    """Of each gateway: inside, outside, the link between them."""

    @property
    def host(self) -> str:
        return f"{self.prefix}-host"


@contextmanager
def between() -> Iterator[Between]:
    prefix = f"ipg{os.getpid()}"
    with ExitStack() as after:
        for name in ("host", "wire", "server"):
            run("ip", "netns", "add", f"{prefix}-{name}")
            after.callback(subprocess.run, ["ip", "netns", "delete", f"{prefix}-{name}"], check=False)
            run("ip", "-n", f"{prefix}-{name}", "link", "set", "lo", "up")
        made, wire = Between(prefix, dict.fromkeys(GATEWAYS, ())), f"{prefix}-wire"
        for number, bridge in enumerate(("inside", "outside", "direct")):
            run("ip", "-n", wire, "link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
            run("ip", "-n", wire, "link", "set", bridge, "up")
            for gateway in GATEWAYS:
                name = f"{prefix}{number}{gateway[-1]}"
                made.taps[gateway] += (tap(name, wire),)
                after.callback(os.close, made.taps[gateway][-1])
                run("ip", "-n", wire, "link", "set", name, "master", bridge)
        for space, bridge, address, to, vip in (
            (made.host, "inside", "10.20.0.9/24", "default", "10.20.0.254"),
            (f"{prefix}-server", "outside", f"{SERVER}/24", "198.51.100.8/29", "192.0.2.254"),
        ):
            end = ["peer", "name", "eth0", "netns", space]
            run("ip", "-n", wire, "link", "add", f"to-{bridge}", "type", "veth", *end)
            run("ip", "-n", wire, "link", "set", f"to-{bridge}", "master", bridge, "up")
            run("ip", "-n", space, "address", "add", address, "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run("ip", "-n", space, "route", "add", to, "via", vip)
        serve(after, f"{prefix}-server", "S", SERVER)
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


GATEWAY = """
[node]
name = "gw{n}"
icmp_source = ["192.0.2.{n}"]
outside = ["ens18"]
[engine]
nat_table = 4902
[pair]
key_file = "pair.key"
interval = "1s"
misses = 10
[[pair.node]]
name = "gw1"
paths = ["10.9.0.1:6081", "10.20.0.1:6081"]
[[pair.node]]
name = "gw2"
paths = ["10.9.0.2:6081", "10.20.0.2:6081"]
[[pair.vip]]
address = "10.20.0.254"
interface = "ens17"
[[pair.vip]]
address = "192.0.2.254"
interface = "ens18"
[sessions]
capacity = 4096
[[nat]]
name = "office"
inside = ["10.20.0.0/24"]
addresses = ["198.51.100.8/30"]
interfaces = ["ens17"]
[mirror]
commit_timeout = "1s"
"""
"""Site file of gateway n. A machine that is emulated may stand still for seconds: its peer waits longer."""
GATEWAY_NETWORK = """version: 2
ethernets:
  ens16: {{dhcp4: true}}
  ens17: {{addresses: [10.20.0.{n}/24]}}
  ens18: {{addresses: [192.0.2.{n}/24]}}
  ens19: {{addresses: [10.9.0.{n}/24]}}
"""
