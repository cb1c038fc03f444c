"""A small network for tests of ipshare-engine: client -- distribution point -- end point -- server.

Global Network 203.0.113.0/24 and 2001:db8:9::/64, served by `server` behind `end`, whose local networks
are 198.18.1.0/24 and 2001:db8:1::/64. `dist` runs the outer translation, `end` the inner one, an engine each.
Routes are set with ip(8), not by ipshare.net: these tests are about the engine alone. The link to the server
carries no offloads, so that the server's kernel verifies every checksum that an engine mended.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ipshare.core import lib
from ipshare.engine.embedded import Control, launch
from ipshare.engine.tables import BINDING, ENDPOINT, NETWORK, Tables, pack
from ipshare.lab import netns
from ipshare.lab.netns import inside

NODES = ("client", "dist", "end", "server")
GLOBAL4, GLOBAL6 = "203.0.113.9", "2001:db8:9::9"
PAIRS = ((4, "203.0.113.0", 24, "198.18.1.0"), (6, "2001:db8:9::", 64, "2001:db8:1::"))
"""Family, Global Network, length, local network."""
SYSCTLS = (
    "ipv4.ip_forward=1",
    "ipv6.conf.all.forwarding=1",
    "ipv6.conf.default.accept_dad=0",
    "ipv4.conf.all.rp_filter=0",
    "ipv4.conf.default.rp_filter=0",
)
_serial = itertools.count()


def run(name: str, command: str) -> str:
    """A command in a namespace; its output."""
    done = inside(name, lambda: subprocess.run(command.split(), capture_output=True, text=True, check=False))
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def _packed(address: str) -> np.ndarray:
    return np.frombuffer(ipaddress.ip_address(address).packed.ljust(16, b"\0"), np.uint8)


def tables(
    role: int,
    *,
    self_flag: int,
    copy: bool = False,
    drop_half: bool = False,
    pairs: tuple[tuple[int, str, int, str], ...] = PAIRS,
) -> Tables:
    """Both families, one end point; every address of the Global Networks bound 1:1 to the local ones.

    copy: bindings are marked for copies. drop_half: 203.0.113.128/25 has no binding. pairs: the networks."""
    networks, endpoints, bindings = np.zeros(2, NETWORK), np.zeros(2, ENDPOINT), np.zeros(2, BINDING)
    for i, (family, prefix, length, local) in enumerate(pairs):
        bound = 25 if drop_half and family == 4 else length
        networks[i]["prefix"], networks[i]["family"], networks[i]["prefix_len"] = (
            _packed(prefix),
            family,
            length,
        )
        endpoints[i]["local"], endpoints[i]["family"], endpoints[i]["prefix_len"] = (
            _packed(local),
            family,
            length,
        )
        endpoints[i]["flags"] = self_flag
        bindings[i]["global"], bindings[i]["family"], bindings[i]["prefix_len"] = (
            _packed(prefix),
            family,
            bound,
        )
        bindings[i]["kind"], bindings[i]["target"] = lib.IPS_KIND_ENDPOINT, i
        bindings[i]["flags"] = lib.IPS_BINDING_COPY if copy else 0
    return Tables(
        networks=networks,
        endpoints=endpoints,
        bindings=bindings,
        roles=role,
        icmp_source4=_packed("192.0.2.1").tobytes(),
        icmp_source6=_packed("2001:db8:77::1").tobytes(),
    )


OUTER = tables(lib.IPS_ROLE_OUTER, self_flag=0)
INNER = tables(lib.IPS_ROLE_INNER, self_flag=lib.IPS_EP_SELF)


def load(control: Control, content: Tables) -> int:
    return control.commit(control.prepare(pack(content)))


@dataclass
class Node:
    """An engine in a namespace of the lab."""

    name: str
    socket: Path
    engine: launch.Engine
    control: Control
    plain_io: bool = False

    def start(self, *, workers: int = 2) -> None:
        """(Again), devices up and routed."""
        self.engine = inside(
            self.name, lambda: launch.start(self.socket, workers=workers, plain_io=self.plain_io)
        )
        for device in ("ips-out", "ips-in"):
            run(self.name, f"sysctl -qw net.ipv4.conf.{device}.rp_filter=0")
            run(self.name, f"sysctl -qw net.ipv4.conf.{device}.accept_local=1")
            run(self.name, f"ip link set {device} up")
        is_dist = self.name.startswith("dist")
        into = ("203.0.113.0/24", "2001:db8:9::/64") if is_dist else ("198.18.1.0/24", "2001:db8:1::/64")
        device = "ips-out" if is_dist else "ips-in"
        for prefix in into:
            run(self.name, f"ip route add {prefix} dev {device}")


class Lab:
    """Namespaces, links, routes; engines are started on demand and end with the lab."""

    def __init__(self, directory: Path) -> None:
        tag = f"{os.getpid()}x{next(_serial)}"
        self.names = {node: f"{node}-{tag}" for node in NODES}
        self.directory = directory
        self._end = contextlib.ExitStack()

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self._end.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def _build(self) -> None:
        for name in self.names.values():
            netns.create(name)
            self._end.callback(netns.delete, name)
            for setting in SYSCTLS:
                run(name, f"sysctl -qw net.{setting}")
            run(name, "ip link set lo up")
        self._link(1, "client", "dist")
        self._link(2, "dist", "end")
        self._link(3, "end", "server")
        self._route("client", "default", 1, 2)
        self._route("server", "default", 3, 1)
        self._route("end", "default", 2, 1)
        for prefix in ("198.18.1.0/24", "2001:db8:1::/64"):
            self._route("dist", prefix, 2, 2)
        self._delivery("dist", "ips-out", ("198.18.1.0/24", "2001:db8:1::/64"), 2)
        self._delivery("end", "ips-in", ("203.0.113.0/24", "2001:db8:9::/64"), 3)
        for address in (f"{GLOBAL4}/32", "203.0.113.200/32", f"{GLOBAL6}/128"):
            run(self.names["server"], f"ip address add {address} dev lo")
        run(self.names["end"], "ethtool -K end3 tx off tso off gso off")

    def _link(self, number: int, left: str, right: str) -> None:
        a, b = self.names[left], self.names[right]
        run(a, f"ip link add {left}{number} type veth peer name {right}{number} netns {b}")
        for name, device, host in ((a, f"{left}{number}", 1), (b, f"{right}{number}", 2)):
            run(name, f"ip address add 10.0.{number}.{host}/24 dev {device}")
            run(name, f"ip address add fd00:{number}::{host}/64 dev {device} nodad")
            run(name, f"ip link set {device} up")

    def _route(self, node: str, prefix: str, number: int, host: int) -> None:
        if ":" not in prefix:
            run(self.names[node], f"ip route add {prefix} via 10.0.{number}.{host}")
        if ":" in prefix or prefix == "default":
            run(self.names[node], f"ip -6 route add {prefix} via fd00:{number}::{host}")

    def _delivery(self, node: str, device: str, prefixes: tuple[str, str], number: int) -> None:
        """What comes out of the engine's device is looked up apart from what may enter it."""
        for family, prefix, gateway in (("-4", prefixes[0], f"10.0.{number}.2"),
                                        ("-6", prefixes[1], f"fd00:{number}::2")):  # fmt: skip
            run(self.names[node], f"ip {family} rule add iif {device} lookup 77 pref 100")
            run(self.names[node], f"ip {family} route add {prefix} via {gateway} table 77")

    def engine(
        self, node: str, content: Tables | None = None, *, workers: int = 2, plain_io: bool = False
    ) -> Node:
        socket = self.directory / f"{node}.sock"
        started = Node(self.names[node], socket, None, Control(socket), plain_io)  # type: ignore[arg-type]
        started.start(workers=workers)
        self._end.callback(self._stop, started)
        if content is not None:
            load(started.control, content)
        return started

    @staticmethod
    def _stop(node: Node) -> None:
        node.control.close()
        if node.engine.is_alive():
            assert node.engine.terminate() == 0


@contextlib.contextmanager
def empty_namespace() -> Iterator[str]:
    """The name of a namespace with nothing in it."""
    name = f"engine-{os.getpid()}x{next(_serial)}"
    netns.create(name)
    try:
        yield name
    finally:
        netns.delete(name)
