"""Real traffic through two engines: super-packets, partial checksums, and what must not disturb it."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipshare.core import VERDICTS
from ipshare.engine.embedded import Control, EngineGone, EngineRestarted, TapRule, ToFile
from ipshare.engine.tables import pack
from ipshare.lab.netns import inside
from tests.engine_lab import GLOBAL4, GLOBAL6, INNER, OUTER, Lab, Node, load, run

UDP_SEGMENT = 103
BULK = 24 << 20
FAMILIES = {GLOBAL4: socket.AF_INET, GLOBAL6: socket.AF_INET6}


@pytest.fixture(scope="module", params=[False, True], ids=["batched", "plain"])
def plain_io(request: pytest.FixtureRequest) -> bool:
    """Both ways of moving packets; see native/engine/io.h."""
    return bool(request.param)


@pytest.fixture(scope="module")
def lab(plain_io: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("engine")) as lab:
        yield lab


@pytest.fixture(scope="module")
def dist(lab: Lab, plain_io: bool) -> Node:
    return lab.engine("dist", OUTER, plain_io=plain_io)


@pytest.fixture(scope="module", autouse=True)
def end(lab: Lab, dist: Node, plain_io: bool) -> Node:
    return lab.engine("end", INNER, plain_io=plain_io)


def open_socket(lab: Lab, node: str, family: int, kind: int) -> socket.socket:
    made = inside(lab.names[node], lambda: socket.socket(family, kind))
    made.settimeout(20)
    return made


def verdict(node: Node, name: str, side: int) -> int:
    number = next(v.number for v in VERDICTS if v.name == name)
    return int(node.control.counters().verdicts()[side, number])


def read(node: Node, field: str, side: int) -> int:
    return sum(int(worker[field][side]) for worker in node.control.counters().workers)


def echo_tcp(server: socket.socket) -> threading.Thread:
    """Accepts one connection, answers with what came, and ends."""

    def body() -> None:
        peer, _ = server.accept()
        with peer:
            peer.settimeout(20)
            while data := peer.recv(1 << 20):
                peer.sendall(data)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("address", FAMILIES)
def test_bulk_tcp_arrives_intact_in_super_packets(lab: Lab, dist: Node, end: Node, address: str) -> None:
    """S1.2, S1.3: what the server gets and returns is what was sent, and the segments stay together."""
    server = open_socket(lab, "server", FAMILIES[address], socket.SOCK_STREAM)
    server.bind((address, 0))
    server.listen()
    echo = echo_tcp(server)
    before = read(dist, "rx_packets", 0), read(dist, "rx_bytes", 0)
    client = open_socket(lab, "client", FAMILIES[address], socket.SOCK_STREAM)
    client.connect((address, server.getsockname()[1]))
    payload = os.urandom(1 << 20) * (BULK >> 20)
    sender = threading.Thread(target=lambda: (client.sendall(payload), client.shutdown(socket.SHUT_WR)))
    sender.start()
    received = hashlib.sha256()
    while data := client.recv(1 << 20):
        received.update(data)
    sender.join()
    echo.join()
    client.close()
    server.close()
    assert received.digest() == hashlib.sha256(payload).digest()
    packets, size = read(dist, "rx_packets", 0) - before[0], read(dist, "rx_bytes", 0) - before[1]
    assert size / packets > 8000, "the kernel handed over single segments: offloads are off"
    assert read(dist, "tx_refused", 0) == 0 and read(end, "tx_refused", 1) == 0


@pytest.mark.parametrize("address", FAMILIES)
def test_udp_super_packets_arrive_as_datagrams(lab: Lab, dist: Node, end: Node, address: str) -> None:
    server = open_socket(lab, "server", FAMILIES[address], socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    server.bind((address, 0))
    client = open_socket(lab, "client", FAMILIES[address], socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)
    before = read(dist, "rx_packets", 0)
    chunks = [os.urandom(40 * 1000 + 123) for _ in range(8)]
    for chunk in chunks:
        client.sendto(chunk, (address, server.getsockname()[1]))
    got = [server.recv(2000) for _ in range(8 * 41)]
    client.close()
    server.close()
    assert sorted(len(datagram) for datagram in got) == [123] * 8 + [1000] * 8 * 40
    wanted = {chunk[at : at + 1000] for chunk in chunks for at in range(0, len(chunk), 1000)}
    assert set(got) == wanted
    if "uso" in dist.control.hello().features:
        assert read(dist, "rx_packets", 0) - before < 16, (
            "8 super-packets, and what the kernel says by itself"
        )


@pytest.mark.parametrize("address", FAMILIES)
def test_udp_of_all_sizes_and_fragments(lab: Lab, address: str) -> None:
    """Datagrams up to 64 kB: whole ones, fragmented ones, and the empty one."""
    server = open_socket(lab, "server", FAMILIES[address], socket.SOCK_DGRAM)
    server.bind((address, 0))
    client = open_socket(lab, "client", FAMILIES[address], socket.SOCK_DGRAM)
    client.connect((address, server.getsockname()[1]))
    for size in (0, 1, 2, 3, 7, 1000, 1451, 1452, 1453, 1472, 1473, 3001, 9000, 65000):
        payload = os.urandom(size)
        client.send(payload)
        data, source = server.recvfrom(70000)
        assert data == payload
        server.sendto(data, source)
        assert client.recv(70000) == payload
    client.close()
    server.close()


def test_small_and_large_packets_of_a_flow_keep_their_order(lab: Lab, dist: Node, plain_io: bool) -> None:
    """Batches of small packets, super-packets among them; windows that no queue on the way overflows."""
    assert not plain_io or "uring" not in dist.control.hello().features
    server = open_socket(lab, "server", socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    server.bind((GLOBAL4, 0))
    client = open_socket(lab, "client", socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((GLOBAL4, server.getsockname()[1]))
    number = 0
    for window in range(40):
        sent = []
        for _ in range(10):
            for _ in range(10 + window):
                sent.append(b"%08d" % number)
                client.send(sent[-1])
                number += 1
            segments = [b"%08d" % (number + i) + bytes(992) for i in range(60)]
            number += 60
            client.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)
            client.send(b"".join(segments))
            client.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)
            sent += [*segments, b"%08d" % number]
            client.send(sent[-1])  # a small one, behind which nothing comes that would push it out
            number += 1
        assert [server.recv(2000) for _ in sent] == sent
    client.close()
    server.close()


@pytest.mark.parametrize(("address", "family"), [(GLOBAL4, "-4"), (GLOBAL6, "-6")])
def test_ping(lab: Lab, address: str, family: str) -> None:
    assert " 0% packet loss" in run(lab.names["client"], f"ping {family} -c 3 -i 0.05 -W 3 {address}")


def test_a_killed_client_costs_no_packet(lab: Lab, dist: Node) -> None:
    """S1.15: whoever controls the engine may die at any moment; here in the middle of a prepare."""
    script = (
        "import sys, time\n"
        "from ipshare.engine.embedded import Control\n"
        "control = Control(sys.argv[1])\n"
        "control.prepare(open(sys.argv[2], 'rb').read())\n"
        "print('prepared', flush=True)\n"
        "time.sleep(600)\n"
    )
    image = lab.directory / "image"
    image.write_bytes(pack(OUTER))
    server = open_socket(lab, "server", socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((GLOBAL4, 0))
    client = open_socket(lab, "client", socket.AF_INET, socket.SOCK_DGRAM)
    client.connect((GLOBAL4, server.getsockname()[1]))
    generation = dist.control.info()["generation"]
    for round_ in range(3):
        agent = subprocess.Popen(
            [sys.executable, "-c", script, str(dist.socket), str(image)], stdout=subprocess.PIPE, text=True
        )
        assert agent.stdout is not None and agent.stdout.readline() == "prepared\n"
        assert dist.control.info()["prepared"] > 0
        for number in range(200):  # one at a time: a lost one would time out
            if number == 100:
                agent.send_signal(signal.SIGKILL)
            client.send(b"%d %d" % (round_, number))
            assert server.recv(100) == b"%d %d" % (round_, number)
        agent.wait()
        agent.stdout.close()
    client.close()
    server.close()
    info = dist.control.info()
    assert info["generation"] == generation
    assert info["prepared"] == 0, "what the dead client had prepared is still there"


def test_a_killed_engine_leaves_nothing_and_starts_again(lab: Lab, dist: Node) -> None:
    first = dist.control.hello()
    os.kill(dist.engine.pid, signal.SIGKILL)
    dist.engine.process.wait()
    links = run(dist.name, "ip -o link")
    assert "ips-out" not in links and "ips-in" not in links
    assert dist.socket.exists(), "a killed process cannot remove its socket"
    dist.start()
    with pytest.raises(EngineGone):
        dist.control.info()
    with pytest.raises(EngineRestarted):
        dist.control.info()
    assert dist.control.hello().boot_id != first.boot_id
    assert dist.control.info()["generation"] == 0
    load(dist.control, OUTER)
    assert " 0% packet loss" in run(lab.names["client"], f"ping -4 -c 2 -i 0.05 -W 3 {GLOBAL4}")


def test_without_tables_everything_is_a_counted_drop(lab: Lab, dist: Node) -> None:
    dist.engine.terminate()
    dist.start()
    dist.control = Control(dist.socket)
    with open(lab.directory / "dropped", "wb") as file:
        rule = TapRule(ToFile(file.fileno()), verdicts=frozenset({"NO_TABLES"}), max_packets=5)
        tap = dist.control.start_tap(rule)
    client = open_socket(lab, "client", socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(5):
        client.sendto(b"x", (GLOBAL4, 9))
    client.close()
    assert dist.control.wait_tap(tap.id, 20).packets == 5
    assert verdict(dist, "NO_TABLES", 0) >= 5
    assert read(dist, "tx_packets", 0) == 0
    load(dist.control, OUTER)
    assert " 0% packet loss" in run(lab.names["client"], f"ping -4 -c 1 -W 3 {GLOBAL4}")


def test_a_removed_device_ends_the_engine(tmp_path: Path, lab: Lab) -> None:
    with Lab(tmp_path) as other:
        node = other.engine("dist", OUTER)
        run(node.name, "ip link del ips-in")
        assert node.engine.process.wait(10) == 8
