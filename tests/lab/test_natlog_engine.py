"""NAT logs and deterministic ports with a real engine, real packets, and collectors outside."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import numpy as np
import pytest

from ipshare.core import ffi, lib
from ipshare.engine.natlog import NAT_LOG_STATE, NatLogState, decode_nat_log_state, encode_nat_log
from ipshare.lab.netns import inside
from ipshare.model import NatCollector, NatLog
from tests.engine_lab import _packed
from tests.flows_lab import INSIDE4, INSIDE6, OUTSIDE4, OUTSIDE6, Nat, NatNode, flows, nat_lab
from tests.ipfix import Collector, plain

FAMILIES = [(4, INSIDE4, OUTSIDE4), (6, INSIDE6, OUTSIDE6)]


@pytest.fixture(scope="module")
def kind() -> type[NatNode]:
    """Which engine."""
    return NatNode


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, kind: type[NatNode]) -> Iterator[Nat]:
    with nat_lab(tmp_path_factory.mktemp("natlog"), kind) as made:
        yield made


@pytest.fixture(scope="module")
def node(lab: Nat) -> NatNode:
    lab.a.start()
    lab.a.serve()
    return lab.a


@pytest.fixture(autouse=True)
def as_it_was(node: NatNode) -> Iterator[None]:
    yield
    node.set(lib.IPS_CTL_NATLOG_SET, np.frombuffer(encode_nat_log(None, "gw"), np.uint8))
    node.set(lib.IPS_CTL_FLOWS_SET, flows())
    node.close_sessions()


def udp(lab: Nat, where: str, address: str) -> socket.socket:
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    made: socket.socket = inside(lab.names[where], lambda: socket.socket(family, socket.SOCK_DGRAM))
    made.bind((address, 0))
    made.settimeout(30)
    return made


def log_to(node: NatNode, *collectors: tuple[socket.socket, str], events: tuple[str, ...]) -> None:
    targets = tuple(
        NatCollector(ip_address(s.getsockname()[0]), s.getsockname()[1], form, 16) for s, form in collectors
    )
    record = encode_nat_log(NatLog(events, 9, 600, targets), "gw")
    node.set(lib.IPS_CTL_NATLOG_SET, np.frombuffer(record, np.uint8))


def state(node: NatNode) -> NatLogState:
    return decode_nat_log_state(node.ask(lib.IPS_CTL_NATLOG_STATE, NAT_LOG_STATE))


def until_events(collector: socket.socket, reader: Collector, count: int) -> list[dict[int, int | str]]:
    """So many NAT events, however many messages they come in."""
    found: list[dict[int, int | str]] = []
    while len(found) < count:
        found += [r for r in map(plain, reader.read(collector.recv(2048))) if 230 in r]
    return found


@pytest.mark.parametrize(("family", "client_at", "server_at"), FAMILIES)
def test_both_formats_tell_of_a_real_flow(
    lab: Nat, node: NatNode, family: int, client_at: str, server_at: str
) -> None:
    ipfix, syslog = (udp(lab, *where) for where in node.collectors)
    log_to(node, (ipfix, "ipfix"), (syslog, "syslog"), events=("sessions", "mappings", "limits"))
    client, server = udp(lab, "in", client_at), udp(lab, "out", server_at)
    reader = Collector()
    client.sendto(b"question", server.getsockname()[:2])
    _, public = server.recvfrom(100)
    begun = until_events(ipfix, reader, 2)
    source, mapped = {4: (8, 225), 6: (27, 281)}[family]
    assert [e[230] for e in begun] == [4, 8]
    for event in begun:
        assert (event[source], event[7]) == client.getsockname()[:2]
        assert (event[mapped], event[227]) == public[:2] and event[463] == 3
    server.sendto(b"answer", public)
    assert client.recv(100) == b"answer"  # it is no half-open flow any more: those end by time alone
    node.close_sessions()
    assert [e[230] for e in until_events(ipfix, reader, 2)] == [5, 9]
    assert reader.missed == reader.unknown == 0 and reader.domain == 9
    lines = [syslog.recv(1000).decode() for _ in range(4)]
    at = f"[{client_at}]" if family == 6 else client_at
    assert all(f" inside={at}:{client.getsockname()[1]} " in f"{line} " for line in lines)
    assert all(line.startswith("<134>1 2") and " gw ipshare " in line for line in lines)
    said = state(node)
    assert (said.lost, [c.unsent for c in said.collectors]) == (0, [0, 0])
    for s in (client, server, ipfix, syslog):
        s.close()


def test_exhausted_ports_are_told(lab: Nat, node: NatNode) -> None:
    wanted = flows()
    pool = wanted[0]["pools"][0]
    pool["n"], pool["first_port"], pool["last_port"] = 1, 5000, 5000
    node.set(lib.IPS_CTL_FLOWS_SET, wanted)
    collector = udp(lab, *node.collectors[0])
    log_to(node, (collector, "ipfix"), events=("limits",))
    server = udp(lab, "out", OUTSIDE4)
    clients = [udp(lab, "in", INSIDE4) for _ in range(2)]
    for client in clients:
        client.sendto(b"x", server.getsockname())
    (event,) = until_events(collector, Collector(), 1)
    assert (event[230], event[8], event[4]) == (12, INSIDE4, 17)
    for s in (*clients, server, collector):
        s.close()


def test_deterministic_ports_of_a_real_flow(lab: Nat, node: NatNode) -> None:
    """Whoever knows the configuration knows whose port it is."""
    wanted = flows()
    pool = wanted[0]["pools"][0]
    pool["inside"], pool["inside_len"], pool["unit_len"], pool["block"] = _packed("10.0.1.0"), 24, 32, 1000
    node.set(lib.IPS_CTL_FLOWS_SET, wanted)
    server, block = udp(lab, "out", OUTSIDE4), ffi.new("struct ips_block *")
    record = ffi.from_buffer("struct ips_napt_pool_rec *", wanted["pools"][:, :1].copy())
    for _ in range(20):
        client = udp(lab, "in", INSIDE4)
        client.sendto(b"x", server.getsockname())
        _, (address, port) = server.recvfrom(100)
        assert lib.ips_block_at(record, _packed(address).tobytes(), port, block)
        assert bytes(block.subscriber)[:4] == ip_address(INSIDE4).packed and block.last - block.first == 999
        client.close()
    server.close()
