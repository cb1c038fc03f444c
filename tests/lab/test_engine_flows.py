"""NAT by ports and tracked connections in ipshare-engine: real traffic, what refuses it, what replaces it."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP

from ipshare.core import lib
from ipshare.lab.netns import inside
from tests.engine_lab import _packed, run
from tests.flows_lab import (
    INSIDE4,
    OUTSIDE4,
    OUTSIDE6,
    POOL4,
    REFUSED,
    Nat,
    NatNode,
    flows,
    nat_lab,
)
from tests.pair_lab import until

BULK = 16 << 20
FAMILIES = [(socket.AF_INET, OUTSIDE4), (socket.AF_INET6, OUTSIDE6)]
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PMTUDISC_DONT, IP_RECVERR, IP_MTU = 10, 2, 0, 11, 14


@pytest.fixture(scope="module")
def kind() -> type[NatNode]:
    """Which engine."""
    return NatNode


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, kind: type[NatNode]) -> Iterator[Nat]:
    with nat_lab(tmp_path_factory.mktemp("flows"), kind) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def node(lab: Nat) -> NatNode:
    lab.a.start()
    lab.a.serve()
    return lab.a


@pytest.fixture(autouse=True)
def as_it_was(node: NatNode) -> None:
    node.set(lib.IPS_CTL_FLOWS_SET, flows())
    node.close_sessions()


def opened(lab: Nat, where: str, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    made = inside(lab.names[where], lambda: socket.socket(family, kind))
    made.settimeout(30)
    return made


def udp(lab: Nat, family: int, address: str) -> tuple[socket.socket, socket.socket, tuple[str, int]]:
    """(inside, outside, outside's name)."""
    server = opened(lab, "out", family, socket.SOCK_DGRAM)
    server.bind((address, 0))
    return opened(lab, "in", family, socket.SOCK_DGRAM), server, server.getsockname()[:2]


def tcp(lab: Nat, family: int, address: str) -> tuple[socket.socket, socket.socket]:
    with opened(lab, "out", family) as listener:
        listener.bind((address, 0))
        listener.listen()
        client = opened(lab, "in", family)
        client.connect(listener.getsockname()[:2])
        server, _ = listener.accept()
        server.settimeout(30)
        return client, server


@pytest.mark.parametrize(("family", "address"), FAMILIES)
def test_bulk_with_offloads_in_both_directions(lab: Nat, family: int, address: str) -> None:
    client, server = tcp(lab, family, address)
    sent = os.urandom(1 << 16) * (BULK >> 16)
    for one, other in ((client, server), (server, client)):
        writer = threading.Thread(target=one.sendall, args=(sent,))
        writer.start()
        got, digest = 0, hashlib.sha256()
        while got < len(sent):
            some = other.recv(1 << 20)
            got += len(some)
            digest.update(some)
        writer.join(30)
        assert digest.digest() == hashlib.sha256(sent).digest()
    client.close()
    server.close()


@pytest.mark.parametrize(("family", "address"), FAMILIES)
def test_udp_has_a_public_end_of_the_pool(lab: Nat, node: NatNode, family: int, address: str) -> None:
    client, server, at = udp(lab, family, address)
    before = sum(int(a["udp"]) for a in node.addresses())  # other tests' half-open flows
    client.sendto(b"question", at)
    _, public = server.recvfrom(100)
    assert public[0].startswith("203.0.113." if family == socket.AF_INET else "2001:db8:9::")
    server.sendto(b"answer", public)
    assert client.recv(100) == b"answer"
    record = node.sessions(proto=17)[0]
    assert record["mapped_port"] == public[1] and record["flow"]["dst_port"] == at[1]
    assert sum(int(a["udp"]) for a in node.addresses()) == before + 1
    client.close()
    server.close()


def test_a_closed_port_is_told_to_the_client(lab: Nat) -> None:
    client, server, at = udp(lab, socket.AF_INET, OUTSIDE4)
    server.close()
    client.connect(at)
    client.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        client.recv(10)
    client.close()


@pytest.mark.parametrize("address", [OUTSIDE4, OUTSIDE6])
def test_ping(lab: Nat, node: NatNode, address: str) -> None:
    assert "1 received" in run(lab.names["in"], f"ping -c1 -W20 {address}")
    assert len(node.sessions(proto=1 if "." in address else 58)) == 1


def test_ttl_that_ends_here_is_told(lab: Nat, node: NatNode) -> None:
    before = node.verdict("TTL_EXPIRED", 1)
    client, server, at = udp(lab, socket.AF_INET, OUTSIDE4)
    client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, node.last_ttl)
    client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    client.connect(at)
    client.send(b"x")
    with pytest.raises(OSError) as told:
        client.recv(10)
    assert told.value.errno == errno.EHOSTUNREACH
    assert node.verdict("TTL_EXPIRED", 1) == before + 1 and not len(node.sessions())
    client.close()
    server.close()


def test_path_mtu_behind_the_nat(lab: Nat, node: NatNode) -> None:
    """The router's error about the translated packet comes back as one about the client's."""
    with node.narrow_uplink(1300):
        client, server, at = udp(lab, socket.AF_INET, OUTSIDE4)
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        client.connect(at)
        client.send(bytes(1372))

        def learned() -> bool:
            return client.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1300

        until(learned)
        client.close()
        server.close()


@pytest.mark.parametrize(("family", "address"), FAMILIES)
def test_fragments_in_both_directions(lab: Nat, family: int, address: str) -> None:
    client, server, at = udp(lab, family, address)
    if family == socket.AF_INET:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    question = os.urandom(6000)
    client.sendto(question, at)
    got, public = server.recvfrom(9000)
    assert got == question
    server.sendto(question[::-1], public)
    assert client.recv(9000) == question[::-1]
    client.close()
    server.close()


def test_hairpin(lab: Nat, node: NatNode) -> None:
    """Two inside ends by their public addresses; each sees the other's."""
    one, server, at = udp(lab, socket.AF_INET, OUTSIDE4)
    other = opened(lab, "in", socket.AF_INET, socket.SOCK_DGRAM)
    one.sendto(b"x", at)
    _, public = server.recvfrom(10)
    before = node.verdict("HAIRPINNED", 1)
    other.sendto(b"neighbour", public)
    got, seen = one.recvfrom(100)
    assert got == b"neighbour" and seen[0].startswith("203.0.113.") and seen[0] != INSIDE4
    assert node.verdict("HAIRPINNED", 1) > before
    for end in (one, other, server):
        end.close()


def test_strangers_are_filtered_where_that_is_asked(lab: Nat, node: NatNode) -> None:
    node.set(lib.IPS_CTL_FLOWS_SET, flows(filtering=lib.IPS_FILTER_ADDRESS_AND_PORT))
    client, server, at = udp(lab, socket.AF_INET, OUTSIDE4)
    stranger = opened(lab, "out", socket.AF_INET, socket.SOCK_DGRAM)
    client.sendto(b"x", at)
    _, public = server.recvfrom(10)
    before = node.verdict("FILTERED", 0)
    stranger.sendto(b"stranger", public)
    until(lambda: node.verdict("FILTERED", 0) == before + 1)
    server.sendto(b"friend", public)
    assert client.recv(100) == b"friend"
    for end in (client, server, stranger):
        end.close()


def test_a_pool_that_goes_takes_its_sessions_along(lab: Nat, node: NatNode) -> None:
    ends = [tcp(lab, family, address) for family, address in FAMILIES]
    assert {int(r["flow"]["family"]) for r in node.sessions()} == {4, 6}
    changed = flows()
    changed[0]["pools"][0]["first"] = _packed("203.0.113.64")
    node.set(lib.IPS_CTL_FLOWS_SET, changed)
    until(lambda: {int(r["flow"]["family"]) for r in node.sessions()} == {6})
    assert {bytes(a["address"])[3] for a in node.addresses() if a["family"] == 4} == {64, 65, 66, 67}
    client, server = ends[1]
    client.sendall(b"still")
    assert server.recv(10) == b"still"
    node.set(lib.IPS_CTL_FLOWS_SET, flows())
    client, server, at = udp(lab, socket.AF_INET, OUTSIDE4)
    client.sendto(b"x", at)
    assert server.recvfrom(10)[1][0].startswith("203.0.113.")
    for pair in (*ends, (client, server)):
        for end in pair:
            end.close()


def test_replaced_all_the_while_under_load(lab: Nat, node: NatNode) -> None:
    client, server = tcp(lab, socket.AF_INET, OUTSIDE4)
    sent = bytes(BULK)
    writer = threading.Thread(target=client.sendall, args=(sent,))
    writer.start()
    got, turns = 0, 0
    while got < len(sent):
        got += len(server.recv(1 << 16))
        turns += 1
        if turns % 16 == 0:
            node.set(lib.IPS_CTL_FLOWS_SET, flows(filtering=turns // 16 % 2))
    writer.join(30)
    client.close()
    server.close()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"sessions": 20_000}, "restart the engine"),
        ({"filtering": 2}, "filtering"),
        ({"n_pools": 65}, "64 pools"),
        ({"n_insides": 257}, "256 inside"),
        ({"n_pools": 1}, "needs a pool of its realm"),
    ],
)
def test_refused_settings(node: NatNode, values: dict[str, int], sentence: str) -> None:
    with pytest.raises(REFUSED, match=sentence):
        node.set(lib.IPS_CTL_FLOWS_SET, flows(**values))


def test_overlapping_pools_are_refused_and_change_nothing(lab: Nat, node: NatNode) -> None:
    changed = flows(n_pools=3)
    changed[0]["pools"][2] = changed[0]["pools"][0]
    with pytest.raises(REFUSED, match="overlap"):
        node.set(lib.IPS_CTL_FLOWS_SET, changed)
    client, server = tcp(lab, socket.AF_INET, OUTSIDE4)
    client.sendall(b"x")
    assert server.recv(10) == b"x"
    client.close()
    server.close()


def test_listed_and_closed_by_filter(lab: Nat, node: NatNode) -> None:
    ends = [udp(lab, socket.AF_INET, OUTSIDE4) for _ in range(5)]
    for client, server, at in ends:
        for _ in range(2):
            client.sendto(b"x", at)
            server.recv(10)
    ports = [at[1] for _, _, at in ends]
    assert sorted(int(r["flow"]["dst_port"]) for r in node.sessions(proto=17)) == sorted(ports)
    assert len(node.sessions(dst_port=ports[0])) == 1 and len(node.sessions(limit=2)) == 2
    assert len(node.sessions(family=4, mapped=_packed(POOL4), mapped_len=30)) == 5
    assert (
        not len(node.sessions(family=6))
        and not len(node.sessions(realm=3))
        and len(node.sessions(realm=4)) == 5
    )
    assert node.close_sessions(dst_port=ports[0]) == 1 and node.close_sessions(proto=17) == 4
    assert not len(node.sessions())
    for fault in (
        {"family": 5},
        {"src_len": 8},
        {"family": 4, "src_len": 33},
        {"family": 4, "src": _packed("1.2.3.4")},
    ):
        with pytest.raises(REFUSED, match="filter"):
            node.sessions(**fault)
    for client, server, _ in ends:
        client.close()
        server.close()


def test_a_full_table_refuses_new_flows_and_counts_them(tmp_path: Path, kind: type[NatNode]) -> None:
    with nat_lab(tmp_path, kind) as lab:
        lab.a.start()
        with pytest.raises(REFUSED, match="no connections are tracked"):
            lab.a.sessions()
        lab.a.serve(sessions=3, half_open=2)
        ends = [udp(lab, socket.AF_INET, OUTSIDE4) for _ in range(3)]
        for client, server, at in ends:
            for _ in range(2):
                client.sendto(b"x", at)
                server.recv(10)
        client, server, at = udp(lab, socket.AF_INET, OUTSIDE4)
        client.sendto(b"x", at)
        until(lambda: lab.a.verdict("SESSIONS_FULL", 1) == 1)
        assert lab.a.stat("full") == 1 and lab.a.stat("sessions") == 3
        ends[0][0].sendto(b"goes on", ends[0][2])
        assert ends[0][1].recv(10) == b"goes on"
        assert np.all(lab.a.sessions()["kind"] == lib.IPS_SESSION_NAPT)


def asked(node: NatNode, side: Any, **fields: Any) -> tuple[str, list[bytes], int]:
    """(verdict, packets that would be sent, how many more)."""
    return node.why(bytes(IP(**{name: fields[name] for name in ("src", "dst")}) / UDP(**fields["udp"])), side)


def test_why_knows_nat_and_opens_nothing(lab: Nat, node: NatNode) -> None:
    client, server, at = udp(lab, socket.AF_INET, OUTSIDE4)
    client.bind((INSIDE4, 0))
    ports = {"sport": client.getsockname()[1], "dport": at[1]}
    opened = node.stat("opened")
    assert asked(node, "inner", src=INSIDE4, dst=OUTSIDE4, udp=ports) == ("OK", [], 1)
    assert asked(node, "outer", src=OUTSIDE4, dst=POOL4, udp=ports) == ("NO_SESSION", [], 0)
    assert node.stat("opened") == opened
    client.sendto(b"x", at)
    _, public = server.recvfrom(10)
    assert node.stat("opened") == opened + 1
    verdict, made, _ = asked(node, "inner", src=INSIDE4, dst=OUTSIDE4, udp=ports)
    assert verdict == "OK" and (IP(made[0]).src, IP(made[0]).sport) == public
    back = {"sport": at[1], "dport": public[1]}
    verdict, made, _ = asked(node, "outer", src=OUTSIDE4, dst=public[0], udp=back)
    assert verdict == "OK" and (IP(made[0]).dst, IP(made[0]).dport) == (INSIDE4, ports["sport"])
    assert node.stat("opened") == opened + 1
    client.close()
    server.close()


def test_thousands_are_closed_while_others_ask(lab: Nat, node: NatNode) -> None:
    """More than go in one turn: the answer counts all of them."""
    client, server, _ = udp(lab, socket.AF_INET, OUTSIDE4)
    client.bind((INSIDE4, 0))
    until(lambda: len(opened_by(client, node)) >= 8500)
    with node.another() as ask:
        closer: list[int] = []
        thread = threading.Thread(target=lambda: closer.append(node.close_sessions(proto=17)))
        thread.start()
        while thread.is_alive():
            ask()
        thread.join()
    assert closer[0] >= 8500 > len(node.sessions())  # packets that were under way may have opened some
    client.close()
    server.close()


def opened_by(client: socket.socket, node: NatNode) -> Any:
    for port in range(10_000, 18_900):
        for _ in range(2):
            client.sendto(b"x", (OUTSIDE4, port))
    return node.sessions()
