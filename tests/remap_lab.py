"""A network for remaps: client -- distribution point -- end points a, b (and c), serving the same Global IPs.

203.0.113.9 and 2001:db8:9::9 are addresses of the loopback devices of each; their local networks are
198.18.1.0/24, 198.18.2.0/24, 198.18.3.0/24 (2001:db8:1::/64 and so on). Channel addresses are routed into
ips-in; the mirror's are 10.9.2.2 and 10.9.3.2. ``Remaps.flip`` points the distribution point at one of them.
Replies go to the client directly. tests/vpp/remap_vpp.py has the same with VPP at the three nodes.
Every wait is for an event.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from ipshare.core import lib
from ipshare.engine.embedded import Control, EmbeddedEngine, launch
from ipshare.engine.remapping import ChannelKind, RemapChannel, RemapRole, RemapSettings
from ipshare.engine.session_filter import SessionFilter
from ipshare.lab import netns
from ipshare.lab.netns import inside
from ipshare.model import PairPath
from tests.engine_lab import GLOBAL4, GLOBAL6, SYSCTLS, load, run, tables
from tests.flows_lab import flows
from tests.pair_lab import until

LOCALS = {node: (f"198.18.{n}.0", f"2001:db8:{n}::") for n, node in enumerate("abc", 1)}
LINKS = {"client": 1, "a": 2, "b": 3}
NUMBERS = LINKS | {"c": 4}
FAMILIES = {GLOBAL4: socket.AF_INET, GLOBAL6: socket.AF_INET6}
PORT, CHUNK = 7000, 50_000
_serial = itertools.count()


def channel_address(node: str, family: int, mark: int) -> str:
    number = NUMBERS[node] - 1
    return f"198.19.{number}.{8 + mark}" if family == 4 else f"2001:db8:c{number}::{8 + mark}"


def ways(node: str) -> list[tuple[str, str]]:
    """What is routed to an end point, and its address."""
    (local4, local6), at = LOCALS[node], NUMBERS[node]
    return [
        *(
            (prefix, f"10.0.{at}.2")
            for prefix in (f"{local4}/24", f"198.19.{at - 1}.0/24", f"10.9.{at}.2/32")
        ),
        *((prefix, f"fd00:{at}::2") for prefix in (f"{local6}/64", f"2001:db8:c{at - 1}::/64")),
    ]


def channel(kind: ChannelKind, family: int, nodes: str = "ab", mtu: int = 1500) -> RemapChannel:
    """As the first of the two is told it."""
    marks = (0, 0) if kind is ChannelKind.GUE else (0, 1)
    ends = [ip_address(channel_address(node, family, mark)) for node in nodes for mark in marks]
    return RemapChannel(kind, *ends, gue_port=6080 if kind is ChannelKind.GUE else 0, mtu=mtu)


def half(
    number: int,
    address: str,
    kind: ChannelKind,
    family: int,
    *,
    giver: str = "a",
    taker: str = "",
    **other: object,
) -> dict[str, RemapSettings]:
    """Both halves of a remap of one address, as they begin. ``taker``: if it is neither a nor b."""
    taker = taker or ("b" if giver == "a" else "a")
    between = channel(kind, family, giver + taker)
    ends = {giver: between, taker: between.turned()}
    made = {}
    for node, peer, role in ((giver, taker, RemapRole.PREPARING), (taker, giver, RemapRole.READY)):
        path = PairPath(
            ip_address(f"10.9.{NUMBERS[node]}.2"),
            4790 + number,
            ip_address(f"10.9.{NUMBERS[peer]}.2"),
            4790 + number,
        )
        bits = 32 if "." in address else 128
        made[node] = RemapSettings(
            id=number, node=node, peer=peer, prefix=ip_network(f"{address}/{bits}"), role=role,
            channel=ends[node],
            paths=(path,), key=bytes([number]) * 32, **other,
        )  # type: ignore[arg-type]  # fmt: skip
    return made


@dataclass
class Talk:
    """A connection (or UDP flow) of the client: ``at`` is the node that has it; ``server`` its socket
    there."""

    client: socket.socket
    address: str
    tcp: bool
    at: str = ""
    server: socket.socket | None = None


class Remaps:
    """Namespaces, links, routes, engines, listening sockets. ``places``: the end points that there are."""

    places = "ab"

    def __init__(self, directory: Path) -> None:
        tag = f"{os.getpid()}x{next(_serial)}"
        self.names = {node: f"remap-{node}-{tag}" for node in ("client", "dist", *self.places)}
        self.directory, self._end = directory, contextlib.ExitStack()
        self.engines: dict[str, Any] = {}
        self.controls: dict[str, Control] = {}
        self.listeners: dict[tuple[str, str, bool], socket.socket] = {}

    def __enter__(self) -> Remaps:
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
        for node in ("client", *self.places):
            self._link(NUMBERS[node], node)
        for node in self.places:
            for prefix, via in ways(node):
                self._way(prefix, via)
            for address in (f"{GLOBAL4}/32", f"{GLOBAL6}/128", f"10.9.{NUMBERS[node]}.2/32"):
                run(self.names[node], f"ip address add {address} dev lo")
        for node in (*self.places, "dist"):
            self._engine(node)
        self.flip("a")
        for node, address, tcp in itertools.product(self.places, FAMILIES, (True, False)):
            self.listeners[node, address, tcp] = inside(
                self.names[node], lambda a=address, t=tcp: _listen(a, t)
            )

    def _link(self, number: int, node: str) -> None:
        run(self.names["dist"], f"ip link add to{node} type veth peer name uplink netns {self.names[node]}")
        self._end_of(number, "dist", f"to{node}", 1)
        self._end_of(number, node, "uplink", 2)

    def _end_of(self, number: int, node: str, device: str, host: int) -> None:
        name = self.names[node]
        run(name, f"ip address add 10.0.{number}.{host}/24 dev {device}")
        run(name, f"ip address add fd00:{number}::{host}/64 dev {device} nodad")
        run(name, f"ip link set {device} up")
        if device == "uplink":
            run(name, f"ip route add default via 10.0.{number}.1")
            run(name, f"ip -6 route add default via fd00:{number}::1")

    def _way(self, prefix: str, via: str) -> None:
        """Of the distribution point."""
        run(self.names["dist"], f"ip route add {prefix} via {via}")

    def _engine(self, node: str) -> None:
        path, name = self.directory / f"{node}.sock", self.names[node]
        engine = inside(name, lambda: launch.start(path, workers=1))
        self._end.callback(engine.terminate)
        for device in ("ips-out", "ips-in"):
            run(name, f"sysctl -qw net.ipv4.conf.{device}.rp_filter=0")
            run(name, f"sysctl -qw net.ipv4.conf.{device}.accept_local=1")
            run(name, f"ip link set {device} up")
        self.controls[node] = Control(path)
        self._end.callback(self.controls[node].close)
        if node == "dist":
            for prefix in ("203.0.113.0/24", "2001:db8:9::/64"):
                run(name, f"ip route add {prefix} dev ips-out")
            return
        local4, local6 = LOCALS[node]
        number = NUMBERS[node] - 1
        for prefix in (f"{local4}/24", f"{local6}/64", f"198.19.{number}.0/24", f"2001:db8:c{number}::/64"):
            run(name, f"ip route add {prefix} dev ips-in")
        load(self.controls[node], site_tables(node, lib.IPS_ROLE_INNER, lib.IPS_EP_SELF))
        self.controls[node]._call(lib.IPS_CTL_FLOWS_SET, flows_of_site())
        self.engines[node] = EmbeddedEngine(path)

    # ---- what a test does ----

    def flip(self, node: str) -> None:
        """The distribution point sends to this end point."""
        load(self.controls["dist"], site_tables(node, lib.IPS_ROLE_OUTER, 0))

    def role(self, settings: RemapSettings, role: RemapRole) -> None:
        self.engines[settings.node].set_remap(replace(settings, role=role))

    def state(self, node: str, remap: int):  # type: ignore[no-untyped-def]
        found = self.engines[node].remap_state(remap)
        assert found is not None
        return found

    def open(self, address: str, *, tcp: bool = True) -> Talk:
        client = inside(self.names["client"], lambda: _socket(address, tcp))
        client.connect((address, PORT))
        talk = Talk(client, address, tcp)
        if tcp:
            self._accept(talk)
        return talk

    def _accept(self, talk: Talk) -> None:
        both = {self.listeners[node, talk.address, True]: node for node in self.places}
        ready = select.select(list(both), [], [], 60)[0]
        assert len(ready) == 1, "the connection was not opened at one node"
        talk.at = both[ready[0]]
        talk.server, _ = ready[0].accept()
        talk.server.settimeout(60)

    def speak(self, talk: Talk, text: bytes = b"hello") -> str:
        """There and back; the node that answered."""
        if talk.tcp:
            assert talk.server is not None
            for at in range(0, len(text), CHUNK):
                for one, other in ((talk.client, talk.server), (talk.server, talk.client)):
                    one.sendall(text[at : at + CHUNK])
                    assert _received(other, len(text[at : at + CHUNK])) == text[at : at + CHUNK]
            return talk.at
        both = {self.listeners[node, talk.address, False]: node for node in self.places}
        talk.client.send(text)
        ready = select.select(list(both), [], [], 60)[0]
        assert len(ready) == 1, "the datagram did not come to one node"
        data, peer = ready[0].recvfrom(65536)
        assert data == text
        ready[0].sendto(data, peer)
        assert talk.client.recv(65536) == text
        talk.at = both[ready[0]]
        return talk.at

    def end_udp(self, node: str) -> None:
        """Forgets the node's UDP flows, as their time-out would."""
        self.engines[node].close_sessions(SessionFilter(proto=socket.IPPROTO_UDP))

    def close(self, talks: list[Talk]) -> None:
        for talk in talks:
            talk.client.close()
            if talk.server is not None:
                talk.server.close()


def flows_of_site() -> bytes:
    """What an end point is told of connections."""
    made = flows(n_pools=0, n_insides=0)
    made[0]["timeouts"]["tcp_closing"] = 1  # of a server, whose end is not seen
    return bytes(made.tobytes())


def site_tables(node: str, role: int, flag: int):  # type: ignore[no-untyped-def]
    """All at end point ``node``."""
    local4, local6 = LOCALS[node]
    return tables(
        role, self_flag=flag, pairs=((4, "203.0.113.0", 24, local4), (6, "2001:db8:9::", 64, local6))
    )


def _socket(address: str, tcp: bool) -> socket.socket:
    made = socket.socket(FAMILIES[address], socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    made.settimeout(60)
    return made


def _received(end: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        data += end.recv(n - len(data))
    return data


def _listen(address: str, tcp: bool) -> socket.socket:
    made = _socket(address, tcp)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, PORT))
    if tcp:
        made.listen(128)
    return made


@contextlib.contextmanager
def remap_lab(directory: Path, kind: type[Remaps] = Remaps) -> Iterator[Remaps]:
    with kind(directory) as made:
        yield made


def begin(lab: Remaps, halves: list[dict[str, RemapSettings]]) -> None:
    """B is ready, A prepares; until B knows what A has."""
    for both in halves:
        for node in sorted(both, key=lambda n: both[n].role.gives):
            lab.engines[node].set_remap(both[node])
    for both in halves:
        for node in both:
            until(lambda node=node, both=both: lab.state(node, both[node].id).is_ready)


def giver(both: dict[str, RemapSettings]) -> RemapSettings:
    return next(settings for settings in both.values() if settings.role.gives)


def taker(both: dict[str, RemapSettings]) -> RemapSettings:
    return next(settings for settings in both.values() if not settings.role.gives)


def leave(lab: Remaps, halves: list[dict[str, RemapSettings]]) -> None:
    """A opens no flow any more, and B has what there was."""
    for both in halves:
        lab.role(giver(both), RemapRole.LEAVING)
    for both in halves:
        until(lambda both=both: lab.state(giver(both).node, giver(both).id).fence_applied)
