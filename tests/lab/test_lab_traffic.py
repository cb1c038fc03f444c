"""The checked traffic: clean where the network is plain, and each fault named where there is one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ipshare.errors import IpshareError
from ipshare.lab import Lab, LabSpec
from ipshare.lab.internet import global_ip, global_network, host_of
from ipshare.lab.traffic import PORT, Datagram, Ping, Tcp, Udp, open_datagram, sealed, serve, start


def route_to(lab: Lab, site: str) -> None:
    """Global Networks straight to an end point's node, as if it announced them itself: no engine involved."""
    node = host_of(lab.spec, site)
    near, far = ("r2", "r1") if node == "A" else ("r1", "r2")
    for family in lab.spec.families:
        for router, towards in ((near, node), (far, near)):
            address = lab.run(towards, ["ip", "-j", f"-{family}", "address", "show", "dev", router])
            via = next(a["local"] for a in json.loads(address)[0]["addr_info"] if a["scope"] == "global")
            lab.run(router, ["ip", f"-{family}", "route", "replace", str(global_network(family)), "via", via])


def run(lab: Lab, node: str, request: Tcp | Udp | Ping) -> Any:
    return start(lab, node, request).result()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabSpec()) as lab, serve(lab, "a1", "a2", "b1"):
        yield lab


@pytest.fixture(autouse=True)
def _at_a(lab: Lab) -> None:
    route_to(lab, "A")


@pytest.mark.parametrize("family", [4, 6])
def test_hundreds_of_connections_from_all_clients_at_once(lab: Lab, family: int):
    request = Tcp(str(global_ip("a1", family)), connections=150, bytes=20_000, expect=("a1",))
    reports = [each.result() for each in [start(lab, client, request) for client in ("c1", "c2", "c3")]]
    for report in reports:
        assert report.is_clean, report.errors
        assert report.bytes == 150 * 20_000 * 2 and len(report.records) == 150
        assert report.servers == {"a1": 150}


@pytest.mark.parametrize("family", [4, 6])
def test_udp_of_mixed_sizes_fragments_too(lab: Lab, family: int):
    request = Udp(
        str(global_ip("a2", family)), flows=5, datagrams=20, sizes=(1, 1000, 4000, 20_000), expect=("a2",)
    )
    report = run(lab, "c3", request)
    assert report.is_clean and report.sent == 100, report


@pytest.mark.parametrize("family", [4, 6])
def test_ping(lab: Lab, family: int):
    assert run(lab, "c2", Ping(str(global_ip("a1", family)), count=4, bytes=333)).is_clean


def test_wrong_server_is_misdelivered(lab: Lab):
    route_to(lab, "B")
    target = str(global_ip("a1", 4))
    tcp = run(lab, "c1", Tcp(target, connections=5, expect=("a1",)))
    assert tcp.misdelivered == 5 and tcp.completed == 0 and tcp.servers == {"b1": 5}
    udp = run(lab, "c1", Udp(target, datagrams=5, expect=("a1",)))
    assert udp.misdelivered == 5 and udp.received == 0


def test_connections_that_live_through_a_change_of_place_break_and_are_counted(lab: Lab):
    """Slow connections to A; the network moves to B below them; B has never heard of them."""
    slow = Tcp(str(global_ip("a1", 4)), connections=10, bytes=5_000, chunks=50, pause_s=0.1, timeout_s=20)
    running = start(lab, "c1", slow)
    with lab.capture("A", "lan") as capture:
        while sum(1 for p in capture.packets(4) if p[9] == 6) < 100:
            threading.Event().wait(0.01)
    route_to(lab, "B")
    report = running.result()
    assert report.failed == 10 and report.errors, report
    assert run(lab, "c1", Tcp(str(global_ip("a1", 4)), connections=10, expect=("b1",))).is_clean


def test_lost_pings_and_datagrams_are_counted(lab: Lab):
    nobody = str(global_network(4)[99])
    assert run(lab, "c1", Ping(nobody, count=2, timeout_s=0.2)).lost == 2
    assert run(lab, "c1", Udp(nobody, datagrams=3, timeout_s=0.2)).lost == 3


def test_corrupted_payload_is_counted(lab: Lab):
    """A server that changes a byte."""
    server = lab.inside("a2", lambda: socket.create_server(("0.0.0.0", PORT + 1)))

    def wicked() -> None:
        connection, peer = server.accept()
        with connection, connection.makefile("rwb") as file:
            size = json.loads(file.readline())["bytes"]
            data = bytearray(file.read(size))
            data[0] ^= 1
            seen = {"server": "a2", "sha256": "0", "destination": str(global_ip("a2", 4)), "client": peer[0]}
            file.write(bytes(data) + json.dumps(seen).encode() + b"\n")

    thread = threading.Thread(target=wicked)
    thread.start()
    report = run(lab, "c1", Tcp(str(global_ip("a2", 4)), port=PORT + 1, expect=("a2",)))
    thread.join()
    server.close()
    assert report.corrupted == 1 and report.completed == 0


def test_refused_connections_are_failures_with_their_kind(lab: Lab):
    report = run(lab, "c1", Tcp(str(global_ip("a1", 4)), connections=3, port=9))
    assert report.failed == 3 and report.errors == {"ConnectionRefusedError": 3}


def test_a_client_that_cannot_work_says_why(lab: Lab):
    with pytest.raises(IpshareError, match="failed"):
        run(lab, "c1", Ping("not an address"))


def test_datagram_round_trip_and_every_flipped_bit():
    data = sealed(Datagram(7, {"server": "x"}, b"payload"))
    assert open_datagram(data) == Datagram(7, {"server": "x"}, b"payload")
    for bit in range(len(data) * 8):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        assert open_datagram(bytes(broken)) is None
    for cut in range(len(data)):
        assert open_datagram(data[:cut]) is None
