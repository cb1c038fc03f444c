"""What the engine says of itself: the ``Engine`` protocol, counters that agree with the traffic, why."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import numpy as np
import pytest

from ipshare.core import VERDICTS, lib
from ipshare.engine.embedded import AsyncControl, Control, ControlError, EmbeddedEngine
from ipshare.engine.plan import diff
from ipshare.engine.protocol import Engine
from ipshare.engine.tables import BINDING, Tables, pack
from ipshare.errors import Refused
from ipshare.lab.netns import inside
from tests.engine_lab import GLOBAL4, INNER, OUTER, Lab, Node, load

HALF = replace(OUTER, bindings=OUTER.bindings[:1])
SIZE = 100


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("answers")) as lab:
        lab.engine("end", INNER)
        yield lab


@pytest.fixture(scope="module")
def dist(lab: Lab) -> Node:
    return lab.engine("dist")


@pytest.fixture
def engine(dist: Node) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(dist.socket)
    yield engine
    engine.close()


def datagram(
    destination: str = GLOBAL4, ttl: int = 64, payload: bytes = b"", dont_fragment: bool = False
) -> bytes:
    """UDP without a checksum; a right IPv4 header."""
    head = bytearray(bytes.fromhex("4500000000000000001100000a000101"))
    head[2:4] = (28 + len(payload)).to_bytes(2, "big")
    head[6], head[8] = 0x40 if dont_fragment else 0, ttl
    head += ip_address(destination).packed
    total = sum(int.from_bytes(head[i : i + 2], "big") for i in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    head[10:12] = (~((total & 0xFFFF) + (total >> 16)) & 0xFFFF).to_bytes(2, "big")
    return (
        bytes(head) + bytes.fromhex("00010009") + (8 + len(payload)).to_bytes(2, "big") + bytes(2) + payload
    )


def test_before_the_first_load(engine: EmbeddedEngine) -> None:
    assert isinstance(engine, Engine)
    assert engine.info().generation == 0
    assert engine.read() == Tables()
    with pytest.raises(Refused):
        engine.rollback()
    assert VERDICTS[engine.why(datagram(), "outer").verdict].name == "NO_TABLES"


def test_apply_read_rollback(engine: EmbeddedEngine) -> None:
    first = engine.apply(diff(engine.read(), OUTER))
    assert engine.read() == OUTER and engine.info().generation == first
    assert engine.apply(diff(OUTER, OUTER)) == first, "nothing to do"
    second = engine.apply(diff(OUTER, HALF))
    assert second > first and engine.read() == HALF
    third = engine.rollback()
    assert third > second and engine.read() == OUTER
    assert engine.info().bindings == 2


def test_stale_commit_is_refused_and_abort_forgets(dist: Node) -> None:
    with Control(dist.socket) as one, Control(dist.socket) as two:
        generation = one.prepare(pack(OUTER))
        assert two.prepare(pack(HALF)) != generation
        with pytest.raises(ControlError, match="not prepared"):
            one.commit(generation)
        two.abort()
        assert two.info()["prepared"] == 0


def test_counters_agree_with_the_traffic(lab: Lab, dist: Node, engine: EmbeddedEngine) -> None:
    load(dist.control, OUTER)
    server = inside(lab.names["server"], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client = inside(lab.names["client"], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.settimeout(20)
    server.bind((GLOBAL4, 0))
    host = np.zeros(1, BINDING)
    host[0] = OUTER.bindings[0]
    host[0]["global"][3], host[0]["prefix_len"] = 9, 32
    cells, spans = engine.counter_cells(host)
    assert spans.tolist() == [1]
    before = engine.counters()
    for _ in range(50):
        client.sendto(bytes(SIZE), server.getsockname())
        server.recv(200)
    after = engine.counters()
    server.close()
    client.close()
    assert after.packets[cells[0]] - before.packets[cells[0]] == 50
    assert after.bytes[cells[0]] - before.bytes[cells[0]] == 50 * (28 + SIZE)
    assert after.verdicts[0, 0] - before.verdicts[0, 0] == 50
    region = engine.region()
    assert region.totals().packets == region.verdicts().sum()
    assert all(int(worker["asleep"]) <= 1 and int(worker["tid"]) > 0 for worker in region.workers)


def test_a_client_cannot_write_the_counters(dist: Node) -> None:
    reply = dist.control._call(lib.IPS_CTL_COUNTERS)
    with open(reply.fd, "rb") as file:
        size = file.seek(0, 2)
        with pytest.raises(PermissionError):
            mmap.mmap(reply.fd, size, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        with pytest.raises(OSError, match="Invalid argument"):
            os.ftruncate(reply.fd, 0)


def test_why_says_what_the_data_path_does_and_counts_nothing(dist: Node, engine: EmbeddedEngine) -> None:
    generation = load(dist.control, OUTER)
    before = engine.region().totals().packets
    good = engine.why(datagram(payload=b"hello"), "outer")
    assert (VERDICTS[good.verdict].name, good.generation, good.endpoint) == ("OK", generation, 0)
    assert good.counter is not None and good.errors == ()
    assert good.packets[0][16:20] == ip_address("198.18.1.9").packed and good.packets[0].endswith(b"hello")
    expired = engine.why(datagram(ttl=1), "outer")
    assert VERDICTS[expired.verdict].name == "TTL_EXPIRED" and expired.packets == ()
    assert expired.errors[0][9] == 1 and expired.errors[0][20] == 11
    assert VERDICTS[engine.why(b"", "outer").verdict].name == "SHORT"
    assert VERDICTS[engine.why(datagram("8.8.8.8"), "outer").verdict].name == "NO_BINDING"
    assert engine.region().totals().packets == before


def test_probed_path_mtu_holds_until_forgotten(dist: Node) -> None:
    load(dist.control, OUTER)
    big = datagram(payload=bytes(1300), dont_fragment=True)
    assert dist.control.why(big, "outer").verdict.name == "OK"
    dist.control.set_path_mtu(0, 1200, 60)
    refused = dist.control.why(big, "outer")
    assert refused.verdict.name == "TOO_BIG"
    assert int.from_bytes(refused.packets[0].data[26:28], "big") == 1200
    dist.control.set_path_mtu(0, 0, 0)
    assert dist.control.why(big, "outer").verdict.name == "OK"
    for endpoint, mtu in ((2, 1400), (0, 67), (1, 1279)):
        with pytest.raises(ControlError):
            dist.control.set_path_mtu(endpoint, mtu, 60)


def test_the_least_path_mtu_is_that_of_what_carries_the_packets(dist: Node) -> None:
    """IPv4 packets in an IPv6 tunnel: 1,280 bytes, or what is left for them would be less than a header."""
    tunnelled = replace(OUTER, endpoints=OUTER.endpoints.copy())
    for field, address in (("tunnel_remote", "2001:db8:e::1"), ("tunnel_local", "2001:db8:f::1")):
        tunnelled.endpoints[field][0] = np.frombuffer(ip_address(address).packed, np.uint8)
    tunnelled.endpoints["tunnel_family"][0], tunnelled.endpoints["encap"][0] = 6, lib.IPS_ENCAP_IPIP
    load(dist.control, tunnelled)
    for mtu in (68, 1279):
        with pytest.raises(ControlError, match="below 1280"):
            dist.control.set_path_mtu(0, mtu, 60)
    dist.control.set_path_mtu(0, 1280, 60)
    big = datagram(payload=bytes(1280 - 40 - 27), dont_fragment=True)
    assert dist.control.why(big, "outer").verdict.name == "TOO_BIG"
    dist.control.set_path_mtu(0, 0, 0)
    load(dist.control, OUTER)


def test_asyncio_client(dist: Node) -> None:
    async def talk() -> None:
        async with AsyncControl(dist.socket) as control:
            hello, info, why = await asyncio.gather(
                control.hello(), control.info(), control.why(datagram(), "outer")
            )
            assert hello.boot_id == (await control.counters()).boot_id
            assert (
                why.generation
                == info["generation"]
                == await control.commit(await control.prepare(pack(OUTER))) - 1
            )
            assert await control.taps() == []

    asyncio.run(talk())


def test_idle_workers_sleep(dist: Node) -> None:
    """No busy loop: an idle engine's turns stand still, and it says that it sleeps."""
    region = dist.control.counters()
    seen = [int(worker["sleeps"]) for worker in region.workers]
    for _ in range(20):
        dist.control.info()
    assert sum(int(worker["sleeps"]) for worker in region.workers) - sum(seen) < 10
    assert dist.control.info()["workers_hung"] == 0
