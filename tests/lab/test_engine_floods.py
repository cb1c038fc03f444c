"""More than there is room for: SYN floods, exhausted mappings and ports, a full hold queue, sudden ends.

The new flow is refused and counted, the open connections go on, the standby hears of nothing that did not
become a session. Floods are as long as IPSHARE_FLOOD says (tests.forger).
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment

from ipshare.core import lib
from ipshare.engine.embedded import Control, ControlError
from ipshare.engine.flows import decode_state
from ipshare.engine.flows_text import sessions_troubles
from ipshare.lab.netns import inside
from tests.engine_lab import run
from tests.flows_lab import INSIDE4, OUTSIDE4, Nat, NatNode, nat_lab
from tests.forger import FLOOD, Ear, Forger, mac
from tests.lab.test_engine_flows import udp
from tests.lab.test_engine_messages import request
from tests.lab.test_engine_mirror import (
    FAMILIES,
    Ends,
    active_and_standby,
    begin,
    closed,
    connections,
    is_mirrored,
    speak,
    table,
)
from tests.pair_lab import until

SYNS = 10_000
NOWHERE4, NOWHERE6 = "198.18.0.1", "2001:db8:dead::1"
EVENTS_SENT = 1


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nat]:
    with nat_lab(tmp_path_factory.mktemp("floods")) as made:
        for node in (made.a, made.b):
            run(node.name, "ip route add blackhole 198.18.0.0/15")
            run(node.name, "ip -6 route add blackhole 2001:db8:dead::/64")
        yield made


def start(lab: Nat, table: dict[str, int], **values: Any) -> tuple[NatNode, NatNode]:
    for node in (lab.a, lab.b):
        (lab.directory / f"{node.number}.epoch").unlink(missing_ok=True)
        begin(node, table, **values)
    active, standby = active_and_standby(lab)
    until(lambda: is_mirrored(active, standby))
    return active, standby


@contextlib.contextmanager
def spoken(ends: Ends) -> Iterator[None]:
    """All the while."""
    stop, failed = threading.Event(), []

    def go_on() -> None:
        try:
            while not stop.is_set():
                speak(ends)
        except Exception as error:
            failed.append(error)

    speaker = threading.Thread(target=go_on)
    speaker.start()
    yield
    stop.set()
    speaker.join(120)
    assert not failed


def test_a_flood_of_syns_fills_neither_table_nor_mirror(lab: Nat) -> None:
    active, standby = start(lab, {"half_open": 500, "half_open_per_source": 100})
    ends = connections(lab, 2)
    speak(ends)
    until(lambda: is_mirrored(active, standby) and table(active) == table(standby))
    before = table(active)
    told = int(active.state()["mirror"]["counters"][EVENTS_SENT])
    forger = Forger(lab.names["in"], "lan0", mac(active.name, "lan0"))
    many = [f"10.0.1.{n}" for n in range(100, 180)]
    with contextlib.closing(forger), spoken(ends):
        forger.syns(["10.0.1.77"], NOWHERE4, SYNS // 4 * FLOOD)
        until(lambda: active.stat("source_limit") > 0)
        assert active.stat("half_open") <= 101 and active.stat("half_open_full") == 0
        forger.syns([f"fd00:1::{n:x}" for n in range(256, 512)], NOWHERE6, SYNS // 4 * FLOOD)
        assert active.stat("half_open") <= 201, "a /64 is one source"
        forger.syns(many, NOWHERE4, SYNS // 2 * FLOOD)
        until(lambda: active.stat("half_open_full") > 0)
        state = active.state()
        assert int(state["sessions"]["half_open"]) == 500 and int(state["sessions"]["full"]) == 0
        assert int(state["sessions"]["mappings"]) <= 500 + len(before)
    assert any("SYN flood" in text for text in sessions_troubles(decode_state(state)))
    assert table(active) == before == table(standby) and is_mirrored(active, standby)
    assert int(active.state()["mirror"]["counters"][EVENTS_SENT]) - told <= 2 * len(before)
    assert standby.stat("half_open") == 0
    speak(ends)
    closed(ends)
    for node in (active, standby):
        node.stop()


@pytest.mark.parametrize(("sizes", "counter"), [({"mappings": 3}, "full"), ({}, "ports_exhausted")])
def test_nothing_left_to_give_out(lab: Nat, sizes: dict[str, int], counter: str) -> None:
    """Mappings, or ports: three of them."""
    node = lab.a
    node.start(workers=1)
    lab.follow("a")
    node.serve(**sizes)
    if not sizes:
        node.serve_ports(4000, 4002, addresses=1)
    ends = [udp(lab, socket.AF_INET, OUTSIDE4) for _ in range(4)]
    for client, server, at in ends[:3]:
        client.sendto(b"x", at)
        assert server.recv(10) == b"x"
    client, _, at = ends[3]
    client.sendto(b"x", at)
    until(lambda: node.stat(counter) == 1)
    for client, server, at in ends[:3]:
        client.sendto(b"goes on", at)
        assert server.recv(10) == b"goes on"
    for client, server, _ in ends:
        client.close()
        server.close()
    node.stop()


def blast(client: socket.socket, ports: range) -> None:
    """Each becomes a session with its second packet, which waits for the standby."""
    for port in ports:
        for _ in range(2):
            client.sendto(b"x", (OUTSIDE4, port))


def goes_on(node: NatNode) -> bool:
    try:
        return len(node.sessions(proto=17)) >= 1500
    except ControlError as error:
        assert "another dump" in str(error)
        return False


def test_what_waits_for_a_standby_that_is_stopped(lab: Nat) -> None:
    """A full queue is counted and lets packets go; dumps, vanishing clients and an end in the midst of it."""
    active, standby = start(lab, {}, commit_acked=1, commit_us=900_000)
    ends = connections(lab, 1)
    speak(ends)
    client = inside(lab.names["in"], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client.bind((INSIDE4, 0))
    for family, address in FAMILIES:
        with stopped(standby):
            fragments_keep_their_order(lab, family, address)
        until(lambda: is_mirrored(active, standby))
    with stopped(standby):
        blast(client, range(20_000, 21_500))
        until(lambda: int(active.state()["hold_full"]) > 0)
        speak(ends)
    state = active.state()
    assert int(state["held"]) <= 2 * 256 and int(state["uncommitted"]) >= int(state["hold_full"])
    until(lambda: is_mirrored(active, standby) and int(active.state()["held"]) == 0)
    until(lambda: table(active) == table(standby) and len(table(active)) >= 1500)
    two_dumps(active)
    for op in (lib.IPS_CTL_SESSIONS_DUMP, lib.IPS_CTL_SESSIONS_CLOSE):
        wanted = active._filter({"proto": 132})
        with vanishing(active) as door:
            door.send(request(op, wanted.tobytes()))
        until(lambda: goes_on(active))  # the engine sees that nobody wants the dump any more
    with stopped(standby), vanishing(active) as door:
        blast(client, range(22_000, 22_400))
        until(lambda: int(active.state()["held"]) > 0)
        door.send(request(lib.IPS_CTL_SESSIONS_DUMP, active._filter({}).tobytes()))
        active.stop()  # ends with 0
    until(lambda: standby.pair_state() == lib.IPS_PAIR_ACTIVE)
    lab.follow("a" if standby is lab.a else "b")
    speak(ends)
    client.close()
    closed(ends)
    standby.stop()


def fragments_keep_their_order(lab: Nat, family: int, address: str) -> None:
    """The first one is held, for it makes a session; the others, which show no ports, wait behind it."""
    ear = Ear(lab.names["out"], "up0")
    one = inside(lab.names["in"], lambda: socket.socket(family, socket.SOCK_DGRAM))
    with one, ear.socket:
        one.sendto(b"x", (address, 9))
        one.sendto(bytes(4000), (address, 9))
        found: list[int] = []
        until(lambda: found.extend(filter(None, map(offset, ear.frames()))) or len(found) >= 3)
    assert found == sorted(found)


def offset(frame: bytes) -> int:
    """1 + where in its datagram a fragment begins; 0: it is none."""
    packet = (IPv6 if frame[12:14] == b"\x86\xdd" else IP)(frame[14:])
    if isinstance(packet, IP):
        return 1 + packet.frag if packet.frag or packet.flags.MF else 0
    return 1 + packet[IPv6ExtHdrFragment].offset if IPv6ExtHdrFragment in packet else 0


@contextlib.contextmanager
def stopped(node: NatNode) -> Iterator[None]:
    assert node.engine is not None
    node.engine.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.engine.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def vanishing(node: NatNode) -> Iterator[socket.socket]:
    """A client that asks and is gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.connect(str(node.socket))
        door.send(request(lib.IPS_CTL_HELLO))
        door.recv(4096)
        yield door


def two_dumps(node: NatNode) -> None:
    """At once: each gets all, or is told that another one is under way."""
    said: list[int | str] = []

    def ask() -> None:
        door = NatNode.__new__(NatNode)
        with Control(node.socket) as door.control:
            for _ in range(20):
                try:
                    said.append(len(door.sessions(proto=17)))
                except ControlError as error:
                    said.append(error.message)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for one in askers:
        one.start()
    for one in askers:
        one.join(60)
    whole = {one for one in said if isinstance(one, int)}
    assert len(said) == 40 and len(whole) == 1 and int(np.max(list(whole))) >= 1500
    assert all("under way" in one for one in said if isinstance(one, str))
