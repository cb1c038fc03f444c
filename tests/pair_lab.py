"""Two halves of a redundant pair for tests of the engine: a, b and a client on one LAN; links from a to b.

The LAN is a bridge in a namespace of its own, 10.0.0.0/24 and fd00::/64: client .9, a .1, b .2; the VIPs are
.100 and ::100. Path 0 of the pair is the direct link; path 1 the LAN or, where an engine takes the LAN from
the kernel (tests/vpp/pair_vpp.py), a second direct link. Every wait is for an event, bounded by PATIENCE_S.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from ipshare.agent.pair_ports import ensure
from ipshare.core import dtype, lib
from ipshare.engine.embedded import Control, ControlError, launch
from ipshare.engine.vpp.pair import PairRefused
from ipshare.errors import EngineError
from ipshare.lab import netns
from ipshare.lab.netns import inside
from ipshare.model import PairPort
from tests.engine_lab import INNER, _packed, load, run

PAIR, STATE = dtype("struct ips_ctl_pair"), dtype("struct ips_ctl_pair_state")
COMMAND = dtype("struct ips_ctl_pair_command")
PATIENCE_S = 60.0
REFUSED: tuple[type[EngineError], ...] = (ControlError, PairRefused)
"""What an engine says no with; ``status`` is one of enum ips_ctl_status."""
WITNESS_KEY = b"w" * 32
LAN = "10.0.0.7"
"""The LAN's own address: no cut between the nodes keeps them from it."""
VIPS = ("10.0.0.100", "fd00::100")
WORKLOAD = "02:00:00:aa:00:01"
T = TypeVar("T")
_serial = itertools.count()


def until(question: Callable[[], T | None]) -> T:
    """The first answer that is true. Questions here are cheap and about what other processes do."""
    end = time.monotonic() + PATIENCE_S
    while not (answer := question()):
        assert time.monotonic() < end, f"still not: {question}"
    return answer


def _name(record: Any, field: str | int, text: str) -> None:
    """A zero-padded string."""
    record[field] = np.frombuffer(text.encode().ljust(len(record[field]), b"\0"), record[field].dtype)


@dataclass(frozen=True)
class Asked:
    """The witness that an engine asks."""

    address: str
    port: int
    ttl_s: float


class Half:
    """An engine that is (to be) one half: here an embedded one."""

    owns_lan = False
    """Whether it takes the device on the LAN from the kernel."""
    interface = "lan0"
    port = "web1"
    """Its sub-interface with WORKLOAD as MAC address, where make_port has made one."""
    worker = "ips-worker-0"
    """The name of a thread that moves packets."""
    plain_io = False
    before: tuple[str, ...] = ()
    """A command that runs another one, this engine."""

    def __init__(self, lab: PairLab, name: str, number: int) -> None:
        self.name, self.number = lab.names[name], number
        self.socket = lab.directory / f"{name}.sock"
        self.epoch_file = lab.directory / f"{name}.epoch"
        self.engine: launch.Engine | None = None
        self.control = Control(self.socket)

    def start(self) -> None:
        with self._program():
            self.engine = inside(
                self.name, lambda: launch.start(self.socket, workers=1, plain_io=self.plain_io)
            )
        for device in ("ips-out", "ips-in"):
            run(self.name, f"ip link set {device} up")

    @contextlib.contextmanager
    def _program(self) -> Iterator[None]:
        """What is started as the engine."""
        if not self.before:
            yield
            return
        script = self.socket.with_suffix(".sh")
        script.write_text(f'#!/bin/sh\nexec {shlex.join(self.before)} {launch.binary()} "$@"\n')
        script.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("IPSHARE_ENGINE", str(script))
            yield

    def attach(self, runtime: Path) -> None:
        """The engine that an agent has started there is looked at from now on."""
        self.control = Control(runtime / "engine.sock")

    def deliver(self) -> None:
        """Global addresses lie behind the LAN's own address: without an agent."""
        for setting in ("ip_forward", "conf.all.rp_filter", "conf.lan0.rp_filter", "conf.ips-in.rp_filter"):
            run(self.name, f"sysctl -qw net.ipv4.{setting}={int(setting == 'ip_forward')}")
        run(self.name, "ip route replace 198.18.1.0/24 dev ips-in")
        if "77" not in run(self.name, "ip rule show"):
            run(self.name, "ip rule add iif ips-in lookup 77 pref 100")
        run(self.name, f"ip route replace 203.0.113.0/24 via {LAN} table 77")

    def record(
        self,
        *,
        key: bytes = b"k" * 32,
        digest: int = 1,
        witness: Asked | None = None,
        gateways: tuple[str, ...] = (),
        publics: tuple[str, ...] = (),
        port: str = "",
        items: dict[str, int] | None = None,
        **values: int,
    ) -> Any:
        peer = 3 - self.number
        pair = np.zeros(1, PAIR)
        p = pair[0]
        p["key"] = np.frombuffer(key, np.uint8)
        p["interval_ns"], p["misses"], p["config_digest"] = 50_000_000, 4, digest
        p["node_id"], p["peer_id"], p["n_paths"], p["n_vips"] = self.number, peer, 2, 2
        p["flags"] = lib.IPS_CTL_PAIR_PREFERRED if self.number == 1 else 0
        for name, text in (
            ("node", f"n{self.number}"),
            ("peer", f"n{peer}"),
            ("epoch_file", str(self.epoch_file)),
        ):
            p[name] = np.frombuffer(text.encode().ljust(len(p[name]), b"\0"), p[name].dtype)
        second = "10.8.0" if self.owns_lan else "10.0.0"
        for path, subnet in zip(p["paths"], ("10.9.0", second), strict=False):
            path["local"], path["remote"] = _packed(f"{subnet}.{self.number}"), _packed(f"{subnet}.{peer}")
            path["local_port"] = path["remote_port"] = 6081
            path["family"] = 4
        for vip, address in zip(p["vips"], VIPS, strict=False):
            vip["address"], vip["family"] = _packed(address), 6 if ":" in address else 4
            _name(vip, "interface", self.interface)
        p["n_criteria"] = p["criteria_needed"] = len(gateways)
        for row, gateway in zip(p["criteria"], gateways, strict=False):
            kind, _, address = gateway.partition(" ")
            row["kind"] = getattr(lib, f"IPS_CTL_PAIR_{kind}")
            row["interval_ns"], row["misses"] = 20_000_000, 5
            _name(row, "interface", self.interface)
            if address:
                row["address"], row["family"] = _packed(address), 6 if ":" in address else 4
        p["n_publics"] = len(publics)
        for row, text in zip(p["publics"], publics, strict=False):
            prefix = ip_network(text)
            row["address"], row["prefix_len"] = _packed(str(prefix.network_address)), prefix.prefixlen
            row["family"] = prefix.version
            _name(row, "interface", port or self.interface)
        if port:
            p["n_ports"] = 1
            _name(p["ports"], 0, port)
        p["n_items"] = len(items or {})
        for row, (name, part) in zip(p["items"], (items or {}).items(), strict=False):
            _name(row, "name", name)
            row["digest"] = part
        if witness is not None:
            row = p["witness"]
            row["key"], row["address"] = np.frombuffer(WITNESS_KEY, np.uint8), _packed(witness.address)
            row["port"], row["ttl_ns"], row["family"] = witness.port, round(witness.ttl_s * 1e9), 4
        for name, value in values.items():
            p[name] = value
        return pair

    def join(self, **values: Any) -> None:
        self.set(self.record(**values))
        self.load()

    def is_in(self, *states: int) -> bool:
        return int(self.state()["state"]) in states

    # ---- what every engine does in its own way -------------------------------

    def set(self, record: Any) -> None:
        self.control._call(lib.IPS_CTL_PAIR_SET, record.tobytes())

    def load(self) -> None:
        load(self.control, INNER)

    def clear(self) -> None:
        self.control._call(lib.IPS_CTL_PAIR_CLEAR)

    def state(self) -> Any:
        return self.control._call(lib.IPS_CTL_PAIR_STATE).one(STATE)

    def verdict(self, words: bytes) -> str:
        """On an inner packet."""
        return self.control.why(words, "inner").verdict.name

    def wait(self, seen: int) -> str:
        """On a connection of its own: the name of the state after the next change."""
        with self.control.watch_pair() as waiting:
            return waiting.wait(seen, PATIENCE_S).state

    @property
    def pid(self) -> int:
        assert self.engine is not None
        return self.engine.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def link(self, up: bool) -> None:
        """Its interface on the LAN."""
        run(self.name, f"ip link set lan0 {'up' if up else 'down'}")

    def make_port(self, lab: PairLab) -> str:
        """Before the engine is there; returns the port of the switch that it is behind."""
        inside(self.name, lambda: ensure([PairPort(self.port, "lan0", WORKLOAD)], lab.directory))
        return f"to-{'a' if self is lab.a else 'b'}"

    def port_is_up(self) -> bool:
        flags = run(self.name, f"ip link show {self.port}").split("<")[1].split(">")[0].split(",")
        assert ("UP" in flags) != ("NOARP" in flags) or "UP" not in flags
        return "UP" in flags

    def meddle(self, up: bool) -> None:
        """Somebody else sets it so."""
        run(self.name, f"ip link set {self.port} {'up' if up else 'down'}")

    def order(self, order: int, argument: int = 0) -> None:
        record = np.zeros(1, COMMAND)
        record[0]["order"], record[0]["argument"] = order, argument
        self.control._call(lib.IPS_CTL_PAIR_COMMAND, record.tobytes())

    def kill(self) -> None:
        assert self.engine is not None
        self.engine.process.kill()
        self.engine.process.wait()

    def again(self) -> None:
        """After its death: another one."""
        self.control.close()
        self.control = Control(self.socket)
        self.start()

    def stop(self) -> None:
        self.control.close()
        if self.engine is not None and self.engine.is_alive():
            assert self.engine.terminate() == 0


class PairLab:
    """Namespaces and links; engines are started on demand and end with the lab."""

    def __init__(self, directory: Path, kind: type[Half] = Half) -> None:
        self.kind = kind
        tag = f"{os.getpid()}x{next(_serial)}"
        self.names = {node: f"pair-{node}-{tag}" for node in ("lan", "client", "a", "b")}
        self.directory = directory
        self._end = contextlib.ExitStack()

    def __enter__(self) -> PairLab:
        try:
            self._build()
        except BaseException:
            self._end.close()
            raise
        self.a, self.b = self.kind(self, "a", 1), self.kind(self, "b", 2)
        for half in (self.a, self.b):
            self._end.callback(half.stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def _build(self) -> None:
        for name in self.names.values():
            netns.create(name)
            self._end.callback(netns.delete, name)
            run(name, "ip link set lo up")
            run(name, "sysctl -qw net.ipv6.conf.default.accept_dad=0")
        run(self.names["lan"], "ip link add br0 type bridge mcast_snooping 0")
        run(self.names["lan"], "ip link set br0 up")
        run(self.names["lan"], f"ip address add {LAN}/24 dev br0")
        for node, host in (("client", 9), ("a", 1), ("b", 2)):
            name = self.names[node]
            run(name, f"ip link add lan0 type veth peer name to-{node} netns {self.names['lan']}")
            run(self.names["lan"], f"ip link set to-{node} master br0 up")
            if self.kind.owns_lan and node != "client":
                run(name, "sysctl -qw net.ipv6.conf.lan0.disable_ipv6=1")
                run(name, "ip link set lan0 arp off up")
                continue
            run(name, f"ip address add 10.0.0.{host}/24 dev lan0")
            run(name, f"ip address add fd00::{host}/64 dev lan0 nodad")
            run(name, "ip link set lan0 up")
        self._direct("direct", "10.9.0")
        if self.kind.owns_lan:
            self._direct("second", "10.8.0")

    def _direct(self, device: str, subnet: str) -> None:
        run(self.names["a"], f"ip link add {device} type veth peer name {device} netns {self.names['b']}")
        for node, host in (("a", 1), ("b", 2)):
            run(self.names[node], f"ip address add {subnet}.{host}/24 dev {device}")
            run(self.names[node], f"ip link set {device} up")

    def mac(self, node: str, device: str = "lan0") -> str:
        words = run(self.names[node], f"ip -o link show {device}").split()
        return words[words.index("link/ether") + 1]

    def start(self, **values: Any) -> tuple[Half, Half]:
        """Both engines, one active: (it, the other)."""
        for half in (self.a, self.b):
            half.start()
            half.join(**values)
        return self.one_active()

    def cut(self, on: bool = True) -> None:
        """Every way between the nodes; both go on to reach the LAN itself and the client."""
        for node in ("a", "b"):
            run(
                self.names["lan"], f"ip link set to-{node} type bridge_slave isolated {'on' if on else 'off'}"
            )
        for device in ("direct", "second") if self.kind.owns_lan else ("direct",):
            run(self.names["a"], f"ip link set {device} {'down' if on else 'up'}")

    def one_active(self) -> tuple[Half, Half]:
        def found() -> tuple[Half, Half] | None:
            states = [int(half.state()["state"]) for half in (self.a, self.b)]
            if states == [lib.IPS_PAIR_ACTIVE, lib.IPS_PAIR_STANDBY]:
                return self.a, self.b
            if states == [lib.IPS_PAIR_STANDBY, lib.IPS_PAIR_ACTIVE]:
                return self.b, self.a
            return None

        return until(found)


@contextlib.contextmanager
def pair_lab(directory: Path, kind: type[Half] = Half) -> Iterator[PairLab]:
    with PairLab(directory, kind) as lab:
        yield lab
