"""Networks for tests of tracked connections in the engine: clients with private addresses behind NAT nodes.

    inside 10.0.1.9, fd00:1::9 -- LAN -- a (.1), b (.2) -- uplink -- outside 192.0.2.9, 2001:db8:2::9

Pools are 203.0.113.0/30 and 2001:db8:9::/126. Routers of the lab follow who is active: ``Nat.follow`` points
both sides' routes at a node. a and b have links of their own, for pair and mirror. ``NatNode`` is what the
tests ask of an engine; tests/vpp/nat_vpp.py has one that is a VPP. Every wait is for an event, bounded by
PATIENCE_S.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ipshare.core import VERDICTS, dtype, lib
from ipshare.engine.embedded import Control, ControlError, launch
from ipshare.engine.tables import Tables
from ipshare.engine.vpp.flows import FlowsRefused
from ipshare.engine.vpp.pair import PairRefused
from ipshare.errors import EngineError
from ipshare.lab import netns
from ipshare.lab.netns import inside
from tests.engine_lab import SYSCTLS, _packed, load, run

FLOWS, FLOWS_STATE, MIRROR = (dtype(f"struct ips_ctl_{name}") for name in ("flows", "flows_state", "mirror"))
PAIR, PAIR_STATE = dtype("struct ips_ctl_pair"), dtype("struct ips_ctl_pair_state")
FILTER, SESSION, FOUND, CLOSED = (
    dtype(f"struct {name}")
    for name in ("ips_ctl_session_filter", "ips_session_rec", "ips_ctl_sessions", "ips_ctl_closed")
)
ADDRESS = dtype("struct ips_napt_address")
INSIDE4, INSIDE6, OUTSIDE4, OUTSIDE6 = "10.0.1.9", "fd00:1::9", "192.0.2.9", "2001:db8:2::9"
POOL4, POOL6 = "203.0.113.0", "2001:db8:9::"
SOL_PACKET, PACKET_VNET_HDR, ETH_P_ALL = 263, 15, 3
_serial = itertools.count()


def flows(**values: Any) -> Any:
    """A FLOWS_SET for this network."""
    made = np.zeros(1, FLOWS)
    f = made[0]
    f["sessions"], f["half_open"], f["half_open_per_source"], f["addresses"] = 10_000, 1_000, 900, 64
    for i, (first, n, family, prefix, bits) in enumerate(
        ((POOL4, 4, 4, "10.0.1.0", 24), (POOL6, 4, 6, "fd00:1::", 64))
    ):
        pool, side = f["pools"][i], f["insides"][i]
        pool["first"], pool["n"], pool["family"], pool["realm"] = _packed(first), n, family, 3
        side["prefix"], side["prefix_len"], side["family"], side["realm"] = _packed(prefix), bits, family, 3
    f["n_pools"] = f["n_insides"] = 2
    for name, value in values.items():
        f[name] = value
    return made


@contextlib.contextmanager
def door(name: str, device: str, head: bytes = b"") -> Iterator[Callable[[bytes, bytes], int]]:
    """An AF_PACKET socket on a device of a namespace. ``head``: before the packet, without its protocol."""
    with inside(name, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as raw:
        raw.bind((device, ETH_P_ALL))
        raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)

        def send(offload: bytes, packet: bytes) -> int:
            if not head:
                return raw.send(offload + packet)
            flags, kind, header, segment, start, field = struct.unpack("=BBHHHH", offload)
            moved = len(head) + 2 if flags or kind else 0
            offload = struct.pack("=BBHHHH", flags, kind, header + moved, segment, start + moved, field)
            return raw.send(offload + head + (b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\0") + packet)

        yield send


REFUSED: tuple[type[EngineError], ...] = (ControlError, FlowsRefused, PairRefused)
"""What an engine says no with."""


class NatNode:
    """An engine with NAT; half of a pair where ``join`` was called. Here an embedded one."""

    owns_devices = False
    """Whether it takes the devices on LAN and uplink from the kernel."""
    lan = "lan0"
    collectors = (("out", OUTSIDE4), ("out", OUTSIDE6))
    """Where two collectors of NAT logs may be."""
    last_ttl = 2
    """Of a packet from inside that gets no further: the kernel is a hop before an embedded engine."""

    def __init__(self, lab: Nat, node: str, number: int) -> None:
        self.name, self.number, self.lab = lab.names[node], number, lab
        self.socket = lab.directory / f"{node}.sock"
        self.engine: launch.Engine | None = None
        self.control = Control(self.socket)

    def start(self, *, workers: int = 2) -> None:
        self.control.close()
        self.control = Control(self.socket)
        self.engine = inside(self.name, lambda: launch.start(self.socket, workers=workers))
        for device, prefixes in (("ips-out", (f"{POOL4}/30", f"{POOL6}/126")), ("ips-in", ())):
            run(self.name, f"sysctl -qw net.ipv4.conf.{device}.rp_filter=0")
            run(self.name, f"sysctl -qw net.ipv4.conf.{device}.accept_local=1")
            run(self.name, f"ip link set {device} up")
            for prefix in prefixes:
                run(self.name, f"ip route replace {prefix} dev {device}")
        for family in ("-4", "-6"):
            run(self.name, f"ip {family} route replace default dev ips-in table 80")

    def load(self, content: Tables) -> None:
        load(self.control, content)

    def set(self, op: int, record: Any) -> None:
        self.control._call(op, record.tobytes())

    def serve(self, **values: Any) -> None:
        self.load(Tables(roles=lib.IPS_ROLE_OUTER, icmp_source4=_packed("10.0.1.77").tobytes(),
                         icmp_source6=_packed("fd00:1::77").tobytes()))  # fmt: skip
        self.set(lib.IPS_CTL_FLOWS_SET, flows(**values))

    def serve_ports(self, first: int, last: int, addresses: int) -> None:
        """So few of them, of every pool."""
        record = flows()
        for pool in record[0]["pools"][:2]:
            pool["first_port"], pool["last_port"], pool["n"] = first, last, addresses
        self.set(lib.IPS_CTL_FLOWS_SET, record)

    def join(
        self,
        key: bytes = b"k" * 32,
        vips: dict[str, tuple[str, ...]] | None = None,
        mirrored: bool = False,
        **values: Any,
    ) -> None:
        """vips: addresses by interface."""
        pair, peer = np.zeros(1, PAIR), 3 - self.number
        p = pair[0]
        p["key"] = np.frombuffer(key, np.uint8)
        p["interval_ns"], p["misses"], p["config_digest"] = 50_000_000, 4, 1
        p["node_id"], p["peer_id"], p["n_paths"] = self.number, peer, 2
        p["flags"] = lib.IPS_CTL_PAIR_PREFERRED if self.number == 1 else 0
        p["flags"] |= lib.IPS_CTL_PAIR_MIRRORED if mirrored else 0
        for name, text in (("node", f"n{self.number}"), ("peer", f"n{peer}"),
                           ("epoch_file", str(self.lab.directory / f"{self.number}.epoch"))):  # fmt: skip
            p[name] = np.frombuffer(text.encode().ljust(len(p[name]), b"\0"), p[name].dtype)
        self._path(p["paths"][0], peer, 6081)
        self._path(p["paths"][1], peer, 6081, "10.8.0" if self.owns_devices else "10.0.1")
        held = [(device, address) for device, some in (vips or {}).items() for address in some]
        p["n_vips"] = len(held)
        for vip, (device, address) in zip(p["vips"], held, strict=False):
            vip["address"], vip["family"] = _packed(address), 6 if ":" in address else 4
            vip["interface"] = np.frombuffer(
                device.encode().ljust(vip["interface"].nbytes, b"\0"), vip["interface"].dtype
            )
        for name, value in values.items():
            p[name] = value
        self.set(lib.IPS_CTL_PAIR_SET, pair)

    def _path(self, path: Any, peer: int, port: int, net: str = "10.9.0") -> None:
        path["local"], path["remote"] = _packed(f"{net}.{self.number}"), _packed(f"{net}.{peer}")
        path["local_port"] = path["remote_port"] = port
        path["family"] = 4

    def mirror(self, key: bytes = b"k" * 32, **values: Any) -> None:
        mirror, peer = np.zeros(1, MIRROR), 3 - self.number
        m = mirror[0]
        m["key"], m["id"], m["n_peers"] = np.frombuffer(key, np.uint8), self.number, 1
        m["node"] = np.frombuffer(f"n{self.number}".encode().ljust(64, b"\0"), m["node"].dtype)
        m["config_digest"], m["digest_ns"] = 7, 200_000_000
        p = m["peers"][0]
        p["id"], p["n_paths"] = peer, 1
        p["name"] = np.frombuffer(f"n{peer}".encode().ljust(64, b"\0"), p["name"].dtype)
        self._path(p["paths"][0], peer, 6082)
        for name, value in values.items():
            m[name] = value
        self.set(lib.IPS_CTL_MIRROR_SET, mirror)

    def clear_mirror(self) -> None:
        self.control._call(lib.IPS_CTL_MIRROR_CLEAR)

    def ask(self, op: int, layout: np.dtype[Any]) -> Any:
        return self.control._call(op).one(layout)

    def state(self) -> Any:
        return self.ask(lib.IPS_CTL_FLOWS_STATE, FLOWS_STATE)

    def stat(self, name: str) -> int:
        return int(self.state()["sessions"][name])

    def pair_record(self) -> Any:
        """ips_ctl_pair_state."""
        return self.control._call(lib.IPS_CTL_PAIR_STATE).one(PAIR_STATE)

    def pair_state(self) -> int:
        return int(self.pair_record()["state"])

    def sessions(self, **values: Any) -> Any:
        """Records that match."""
        reply = self.control._call(lib.IPS_CTL_SESSIONS_DUMP, self._filter(values).tobytes())
        try:
            size = os.fstat(reply.fd).st_size
            if not size:
                return np.zeros(0, SESSION)
            with mmap.mmap(reply.fd, size, prot=mmap.PROT_READ) as map_:
                return np.frombuffer(bytes(map_), SESSION)
        finally:
            os.close(reply.fd)

    def close_sessions(self, **values: Any) -> int:
        reply = self.control._call(lib.IPS_CTL_SESSIONS_CLOSE, self._filter(values).tobytes())
        return int(reply.one(CLOSED)["closed"])

    @staticmethod
    def _filter(values: dict[str, Any]) -> Any:
        wanted = np.zeros(1, FILTER)
        for name, value in values.items():
            wanted[0][name] = value
        return wanted

    def addresses(self) -> Any:
        reply = self.control._call(lib.IPS_CTL_NAT_ADDRESSES)
        try:
            return np.frombuffer(os.pread(reply.fd, 1 << 20, 0), ADDRESS)
        finally:
            os.close(reply.fd)

    def verdict(self, name: str, side: int) -> int:
        return int(self.verdicts()[side, [v.name for v in VERDICTS].index(name)])

    def verdicts(self) -> Any:
        return self.control.counters().verdicts()

    def why(self, packet: bytes, side: Any) -> tuple[str, list[bytes], int]:
        """(verdict, packets that would be sent, how many more)."""
        answer = self.control.why(packet, side)
        return answer.verdict.name, [made.data for made in answer.packets], answer.omitted

    @contextlib.contextmanager
    def another(self) -> Iterator[Callable[[], object]]:
        """A connection of its own, and how to ask by it for the state."""
        with Control(self.socket) as other:
            yield lambda: other._call(lib.IPS_CTL_FLOWS_STATE)

    @contextlib.contextmanager
    def doors(self) -> Iterator[list[Callable[[bytes, bytes], int]]]:
        """How to put an offload header (virtio's) and a packet onto each side, past the kernel's checks."""
        with contextlib.ExitStack() as end:
            yield [end.enter_context(door(self.name, device)) for device in ("ips-in", "ips-out")]

    @contextlib.contextmanager
    def narrow_uplink(self, mtu: int) -> Iterator[None]:
        """What goes to OUTSIDE4 has to be that short."""
        run(self.name, f"ip route replace {OUTSIDE4}/32 dev up0 mtu {mtu}")
        try:
            yield
        finally:
            run(self.name, f"ip route del {OUTSIDE4}/32 dev up0")

    def kill(self) -> None:
        assert self.engine is not None
        self.engine.process.kill()
        self.engine.process.wait()

    def stop(self) -> None:
        self.control.close()
        if self.engine is not None and self.engine.is_alive():
            assert self.engine.terminate() == 0


class Nat:
    """Namespaces and links; engines are started on demand and end with the lab."""

    def __init__(self, directory: Path, kind: type[NatNode] = NatNode) -> None:
        tag = f"{os.getpid()}x{next(_serial)}"
        self.kind = kind
        self.names = {node: f"nat-{node}-{tag}" for node in ("in", "lan", "a", "b", "up", "out")}
        self.directory = directory
        self._end = contextlib.ExitStack()

    def __enter__(self) -> Nat:
        try:
            self._build()
        except BaseException:
            self._end.close()
            raise
        self.a, self.b = self.kind(self, "a", 1), self.kind(self, "b", 2)
        for node in (self.a, self.b):
            self._end.callback(node.stop)
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
        self._lan("lan", "lan0", "10.0.1", "fd00:1:", (("in", 9), ("a", 1), ("b", 2)))
        self._lan("up", "up0", "192.0.2", "2001:db8:2:", (("out", 9), ("a", 1), ("b", 2)))
        for link, net in (("direct", "10.9.0"), ("second", "10.8.0")):
            run(self.names["a"], f"ip link add {link} type veth peer name {link} netns {self.names['b']}")
            for node, host in (("a", 1), ("b", 2)):
                run(self.names[node], f"ip address add {net}.{host}/24 dev {link}")
                run(self.names[node], f"ip link set {link} up")
        for node, family in itertools.product(() if self.kind.owns_devices else ("a", "b"), ("-4", "-6")):
            run(self.names[node], f"ip {family} rule add iif lan0 lookup 80 pref 90")
        self.follow("a")

    def _lan(self, lan: str, device: str, net4: str, net6: str, hosts: tuple[tuple[str, int], ...]) -> None:
        run(self.names[lan], "ip link add br0 type bridge mcast_snooping 0")
        run(self.names[lan], "ip link set br0 up")
        for node, host in hosts:
            name = self.names[node]
            run(name, f"ip link add {device} type veth peer name to-{node} netns {self.names[lan]}")
            run(self.names[lan], f"ip link set to-{node} master br0 up")
            if self.kind.owns_devices and node in ("a", "b"):
                run(name, f"sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1")
            else:
                run(name, f"ip address add {net4}.{host}/24 dev {device}")
                run(name, f"ip address add {net6}:{host}/64 dev {device} nodad")
            run(name, f"ip link set {device} up")
            if self.kind.owns_devices:  # VPP's af_packet takes UDP super-packets for TCP's
                run(name, f"ethtool -K {device} tx-udp-segmentation off")

    def follow(self, node: str) -> None:
        """Routes of both sides go to this node."""
        host = 1 if node == "a" else 2
        run(self.names["in"], f"ip route replace default via 10.0.1.{host}")
        run(self.names["in"], f"ip -6 route replace default via fd00:1::{host}")
        run(self.names["out"], f"ip route replace {POOL4}/30 via 192.0.2.{host}")
        run(self.names["out"], f"ip -6 route replace {POOL6}/126 via 2001:db8:2::{host}")


@contextlib.contextmanager
def nat_lab(directory: Path, kind: type[NatNode] = NatNode) -> Iterator[Nat]:
    with Nat(directory, kind) as lab:
        yield lab
