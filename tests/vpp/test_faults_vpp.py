"""What the plugin takes without harm: messages of any length and content, files that are none, objects that
vanish.

Beside tests/vpp/test_driver_refusals.py and _restart.py, which ask the driver's way; here bytes go to VPP's
API socket as a broken or hostile client would send them. VPP has to live, and what was live has to stay
live and forward.
"""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipshare.core import lib
from ipshare.engine.failures import EngineSilent
from ipshare.engine.tables import BINDING, pack
from ipshare.engine.vpp import Client
from ipshare.engine.vpp.client import ApiRefused
from ipshare.engine.vpp.retval import Retval
from tests.cases.build import build
from tests.cases.judge import INNER, OUTER
from tests.table_images import Image, binding, endpoint, network
from tests.vpp.pg_node import PgNode, pg_node, verdict_of
from tests.vpp.vpp_process import vpp

SEED, MESSAGES = 26, 2000
FEW_BUFFERS = 800
PACKET = build(["ip4", "udp", {"data": 20}])
MILLION = 1_000_000


@pytest.fixture(scope="module")
def shared() -> Iterator[PgNode]:
    with pg_node() as made:
        made.load(OUTER)
        yield made


def content(node: PgNode) -> dict[str, int]:
    """What the plugin says it does; how much memory that takes may change."""
    return {name: value for name, value in node.info().items() if name not in ("bytes", "counter_cells_used")}


@pytest.fixture
def node(shared: PgNode) -> Iterator[PgNode]:
    """Before and after the test it forwards what it was loaded with."""
    before = content(shared)
    yield shared
    assert content(shared) == before
    (result,) = shared.through([PACKET], "outer")
    assert result.onward is not None and not result.problem


@pytest.fixture
def fresh() -> Iterator[PgNode]:
    """One that a test may ruin."""
    with pg_node() as made:
        made.load(OUTER)
        yield made


def refused(node: PgNode, name: str, **fields: Any) -> ApiRefused:
    with pytest.raises(ApiRefused) as caught:
        node.client.call(name, **fields)
    return caught.value


# ---- messages -------------------------------------------------------------


class Raw:
    """A connection of our own, for bytes that no library would send."""

    def __init__(self, socket: Path) -> None:
        self.client = Client(socket)
        self.client.call("control_ping")
        papi = self.client._papi
        self.transport = papi.transport
        self.requests = {
            name: definition
            for name, definition in papi.messages.items()
            if name.startswith("ipshare_") and not name.endswith(("_reply", "_details"))
        }

    def head(self, name: str) -> bytes:
        """Message id, client index, context."""
        number = self.transport.get_msg_index(f"{name}_{self.requests[name].crc[2:]}")
        return struct.pack(">HII", number, self.transport.socket_index, 7)

    def whole(self, name: str) -> bytes:
        """Every field zero."""
        size = self.requests[name].size
        return self.head(name).ljust(size, b"\0")

    def send(self, message: bytes) -> None:
        self.transport.write(message)

    def close(self) -> None:
        self.client.close()


@pytest.fixture
def raw(node: PgNode) -> Iterator[Raw]:
    made = Raw(node.running.settings.api)
    yield made
    made.close()


def test_messages_cut_anywhere(node: PgNode, raw: Raw) -> None:
    """Shorter than the message is, down to its number; and none that is complete is taken for one."""
    assert len(raw.requests) >= 16
    for name in raw.requests:
        whole = raw.whole(name)
        for size in {2, 6, 9, 10, 11, len(whole) // 2, len(whole) - 1} & set(range(2, len(whole))):
            raw.send(whole[:size])
    node.client.call("control_ping")


@pytest.mark.parametrize("claimed", [1, 100, 65535, 65576, 1 << 31, 0xFFFFFFFF])
def test_a_packet_shorter_than_it_claims(node: PgNode, raw: Raw, claimed: int) -> None:
    raw.send(raw.head("ipshare_why") + struct.pack(">BBHI", 0, 0, 0, claimed))
    node.client.call("control_ping")


@pytest.mark.parametrize("size", [0, 1, 19, 20, 65535, 65575])
@pytest.mark.parametrize("gso", [(0, 0), (1, 1448), (2, 1), (1, 0)])
def test_why_about_any_bytes(node: PgNode, size: int, gso: tuple[int, int]) -> None:
    for first in (b"\x45", b"\x60", b"\x00"):
        packet = (first + bytes(65575))[:size]
        for side in (0, 1):
            fields = {"side": side, "gso_type": gso[0], "gso_size": gso[1], "bytes": size, "packet": packet}
            reply = node.client.call("ipshare_why", **fields)
            assert lib.ips_verdict_disposition(reply.verdict) == lib.IPS_DROP


def test_why_refuses_what_cannot_be(node: PgNode) -> None:
    for fields in ({"side": 2}, {"gso_type": 9}):
        given = {"side": 0, "gso_type": 0, "gso_size": 0, "bytes": 1, "packet": b"E"} | fields
        assert refused(node, "ipshare_why", **given).retval == Retval.INVALID_VALUE


def test_random_messages(fresh: PgNode) -> None:
    """Of the right length, with random content, and with the small numbers that mean something."""
    rng, raw = random.Random(SEED), Raw(fresh.running.settings.api)
    for turn in range(MESSAGES):
        name = rng.choice(sorted(raw.requests))
        whole = raw.whole(name)
        content = (
            rng.randbytes(len(whole)) if turn % 2 else bytes(rng.choice((0, 0, 0, 1, 2, 255)) for _ in whole)
        )
        raw.send(whole[:10] + content[10:])
        if turn % 100 == 0:
            fresh.client.call("control_ping")
    fresh.client.call("control_ping")
    raw.close()
    fresh.load(INNER)
    assert fresh.info()["roles"] == lib.IPS_ROLE_INNER


def test_before_it_is_configured() -> None:
    """Everything is refused, and nothing breaks what comes later."""
    with vpp() as running:
        raw = Raw(running.settings.api)
        for name in raw.requests:
            if name != "ipshare_configure":
                raw.send(raw.whole(name))
        raw.close()
        for name, fields in {
            "ipshare_prepare": {"path": "/nowhere"}, "ipshare_commit": {"generation": 1}, "ipshare_abort": {},
            "ipshare_rollback": {}, "ipshare_why": {"bytes": 1, "packet": b"E"},
        }.items():  # fmt: skip
            with pytest.raises(ApiRefused):
                running.client.call(name, **fields)
        assert running.client.call("ipshare_hello").configured is False
        running.client.call("ipshare_configure", service_table=0, delivery_table=0, counter_cells=8)


def test_configured_twice(node: PgNode) -> None:
    same = {"service_table": 0, "delivery_table": 0, "counter_cells": 1 << 12}
    node.client.call("ipshare_configure", **same)
    for change in ({"service_table": 7}, {"delivery_table": 7}, {"counter_cells": 1}):
        assert refused(node, "ipshare_configure", **(same | change)).retval == Retval.INVALID_VALUE_2


def test_nothing_to_commit_or_return_to(fresh: PgNode) -> None:
    for generation in (0, 77, 1 << 63):
        assert refused(fresh, "ipshare_commit", generation=generation).retval == Retval.NO_SUCH_ENTRY
    assert refused(fresh, "ipshare_rollback").retval == Retval.NO_SUCH_ENTRY
    prepared = fresh.prepare(bytes(pack(INNER)))
    fresh.client.call("ipshare_abort")
    assert refused(fresh, "ipshare_commit", generation=prepared).retval == Retval.NO_SUCH_ENTRY
    assert fresh.info()["roles"] == lib.IPS_ROLE_OUTER


# ---- files ----------------------------------------------------------------


def test_files_that_are_none(node: PgNode, tmp_path: Path) -> None:
    fifo, link, empty, secret = (tmp_path / name for name in ("fifo", "link", "empty", "secret"))
    long = str(tmp_path).ljust(255, "x")
    os.mkfifo(fifo)
    empty.touch()
    secret.write_bytes(bytes(pack(OUTER)))
    link.symlink_to(secret)
    for path in (tmp_path, fifo, link, Path("/dev/zero"), Path(), long, ""):
        assert refused(node, "ipshare_prepare", path=str(path)).retval == Retval.SYSCALL_ERROR_1, path
    assert refused(node, "ipshare_prepare", path=str(empty)).reply.error == lib.IPS_LOAD_TRUNCATED


def test_a_dump_overwrites_nothing(node: PgNode, tmp_path: Path) -> None:
    there, link, target = (tmp_path / name for name in ("there", "link", "target"))
    there.write_text("precious")
    link.symlink_to(target)
    for path in (there, link, tmp_path, tmp_path / "no" / "where"):
        assert refused(node, "ipshare_read", path=str(path)).retval == Retval.SYSCALL_ERROR_1
    assert there.read_text() == "precious" and not target.exists()
    good = tmp_path / "good"
    node.client.call("ipshare_read", path=str(good))
    assert good.read_bytes() == bytes(pack(OUTER)) and good.stat().st_mode & 0o077 == 0


def test_records_that_are_none(node: PgNode, tmp_path: Path) -> None:
    records, out = tmp_path / "records", tmp_path / "out"
    records.write_bytes(bytes(BINDING.itemsize + 1))
    for path in (records, tmp_path, tmp_path / "absent"):
        answer = refused(node, "ipshare_counter_index", records=str(path), out=str(out))
        assert answer.retval == Retval.SYSCALL_ERROR_1 and not out.exists()


def test_header_and_records_damaged_anywhere(node: PgNode) -> None:
    """Any one byte of an image changed: it is refused, or as good as it was."""
    image, rng = bytes(pack(OUTER)), random.Random(SEED)
    for at in rng.sample(range(len(image)), 150):
        changed = bytearray(image)
        changed[at] ^= 1 << rng.randrange(8)
        try:
            node.prepare(bytes(changed))
        except ApiRefused as error:
            assert error.retval == Retval.INVALID_VALUE
    node.client.call("ipshare_abort")


# ---- many, and at once ----------------------------------------------------


def many(n: int) -> bytes:
    """n host bindings of one IPv6 network."""
    rows = np.zeros(n, BINDING)
    rows["global"][:, :2], rows["global"][:, 12:] = (
        (0x20, 1),
        np.arange(n, dtype=">u4").view("u1").reshape(-1, 4),
    )
    rows["local"][:, 12:] = rows["global"][:, 12:]
    rows["family"], rows["prefix_len"], rows["kind"] = 6, 128, lib.IPS_KIND_ENDPOINT
    net, end = network("2001::/64"), endpoint("2001:db8:a::/64")
    return Image(networks=[net], endpoints=[end], bindings=rows, header={"roles": lib.IPS_ROLE_OUTER}).pack()


def test_busy(node: PgNode) -> None:
    """While one client's tables are prepared, others are told so, and nothing is mixed up."""
    file = node.directory / "million"
    file.write_bytes(many(MILLION))
    answers: list[int] = []
    with Client(node.running.settings.api, timeout_s=60) as other:
        other.call("control_ping")
        first = threading.Thread(
            target=lambda: answers.append(
                other.call("ipshare_prepare", path=str(file), timeout_s=60).generation
            )
        )
        first.start()
        told = set()
        while first.is_alive():
            try:
                node.client.call("ipshare_commit", generation=12345)
            except ApiRefused as error:
                told.add(error.retval)
        first.join()
        assert told <= {Retval.BUSY, Retval.NO_SUCH_ENTRY} and Retval.BUSY in told
        assert answers and answers[0] > node.info()["generation"]
        assert node.info()["prepared"] == answers[0]
        node.client.call("ipshare_abort")
    file.unlink()


def test_a_client_that_leaves_while_its_tables_load(node: PgNode) -> None:
    """Nobody is told; what it prepared can be replaced."""
    file = node.directory / "million"
    file.write_bytes(many(MILLION))
    for _ in range(3):
        leaving = Client(node.running.settings.api, timeout_s=0.05)
        with pytest.raises((EngineSilent, ApiRefused)):  # the latter: busy with the one before
            leaving.call("ipshare_prepare", path=str(file))
        leaving.close()
    file.unlink()
    while True:
        try:
            node.prepare(bytes(pack(INNER)))
        except ApiRefused as error:
            assert error.retval == Retval.BUSY
            continue
        break
    node.client.call("ipshare_abort")


@pytest.mark.parametrize("n", [3_000, 40_000])
def test_more_networks_than_anybody_has(fresh: PgNode, n: int) -> None:
    """Taken, or refused with nothing changed; VPP lives, and forwards by what is live then."""
    networks = [network(f"20.{i >> 8}.{i & 255}.0/24") for i in range(n)]
    image = Image(
        networks=networks, endpoints=[endpoint("10.0.0.0/24")], header={"roles": lib.IPS_ROLE_OUTER}
    )
    before = content(fresh)
    try:
        fresh.commit(fresh.prepare(image.pack()))
    except ApiRefused:
        assert content(fresh) == before
    else:
        assert fresh.info()["n_networks"] == n
        fresh.load(OUTER)
    assert fresh.through([PACKET], "outer")[0].onward is not None


@pytest.mark.parametrize("cells", [0, 1, 11])
def test_fewer_cells_than_bindings(cells: int) -> None:
    """Counting is what is left undone, not forwarding; nothing is written behind the cells."""
    with pg_node(cells=cells) as node:
        node.load(OUTER)
        packets = [build([{"ip4": {"dst": f"203.0.113.{host}"}}, "udp"]) for host in (0, 10, 11, 255)]
        assert [one.onward is not None for one in node.through(packets, "outer")] == [True] * 4
        counted = node.running.stats.combined("/ipshare/cells")[0].tolist() if cells else []
        assert {at for at, n in enumerate(counted) if n} == {0, 10} & set(range(cells))


# ---- what the tables lean on vanishes -------------------------------------


def test_tables_of_the_fib_that_are_deleted() -> None:
    with pg_node(tables=(7, 8)) as node:
        node.load(OUTER)
        assert node.through([PACKET], "outer")[0].onward is not None
        for table in (7, 8):
            node.client.cli(f"ip table del {table}")
            node.client.cli(f"ip6 table del {table}")
        node.load(INNER)
        node.load(OUTER)
        node.generator.pass_([PACKET])
        node.client.call("control_ping")


def test_next_hops(fresh: PgNode) -> None:
    """As many as there are ids, unknown ones, and deleted ones."""
    address = {"af": 0, "un": {"ip4": b"\x0a\x01\x00\x00"}}
    assert refused(fresh, "ipshare_next_hop_add", address=address, table_id=99).retval == Retval.NO_SUCH_FIB
    for unknown in (0, 1, 1023, 1024, 65536, 0xFFFFFFFF):
        assert refused(fresh, "ipshare_next_hop_del", id=unknown).retval == Retval.NO_SUCH_ENTRY
    ids = []
    for i in range(2000):
        hop_address = {"af": 0, "un": {"ip4": bytes((10, 1, i >> 8, i & 255))}}
        try:
            ids.append(fresh.client.call("ipshare_next_hop_add", address=hop_address, table_id=0).id)
        except ApiRefused as error:
            assert error.retval == Retval.LIMIT_EXCEEDED
            break
    assert len(set(ids)) == len(ids) >= 1000
    for number in ids:
        fresh.client.call("ipshare_next_hop_del", id=number)
    assert refused(fresh, "ipshare_next_hop_del", id=ids[0]).retval == Retval.NO_SUCH_ENTRY


def test_reply_interfaces(fresh: PgNode) -> None:
    """Unknown ones; and one that vanishes takes its setting along, whoever gets its index."""
    call = fresh.client.call
    assert refused(fresh, "ipshare_reply_interface", sw_if_index=4242, side=1, enable=True).retval == (
        Retval.INVALID_SW_IF_INDEX
    )
    assert refused(fresh, "ipshare_reply_interface", sw_if_index=1, side=9, enable=True).retval == (
        Retval.INVALID_VALUE
    )
    fresh.generator.interface(6)
    (row,) = (r for r in fresh.client.dump("sw_interface_dump") if r.interface_name == "pg6")
    call("ipshare_reply_interface", sw_if_index=row.sw_if_index, side=1, enable=True)
    fresh.run("delete packet-generator interface pg6")
    assert fresh.client.dump("ipshare_reply_interface_dump") == []
    fresh.generator.interface(6)
    call("ipshare_reply_interface", sw_if_index=row.sw_if_index, side=1, enable=True)
    assert "ipshare-reply-ip4" in fresh.client.cli("show interface features pg6")


@pytest.mark.parametrize("family", [4, 6])
def test_the_longest_packets(fresh: PgNode, family: int) -> None:
    """65,535 bytes and, IPv6, 65,575: in one piece for the core, chained for VPP, too long for its
    interface."""
    size = 65535 if family == 4 else 65575
    headers = (20 if family == 4 else 40) + 8
    packet = build([f"ip{family}", {"udp": {"csum": 0}}, {"data": size - headers}])
    assert len(packet) == size
    (found,) = fresh.generator.pass_([packet])
    assert verdict_of(found) == "OK"


def test_no_buffers_left() -> None:
    """A frame takes more buffers than there are: what finds none is counted, and none is lost for good."""
    end = endpoint("10.0.0.0/24", tunnel=("10.9.9.9", "10.9.9.8"), encap=lib.IPS_ENCAP_IPIP, path_mtu=600)
    roles = {"roles": lib.IPS_ROLE_OUTER}
    image = Image(endpoints=[end], bindings=[binding("203.0.113.0/24")], header=roles).pack()
    packet, n = build(["ip4", "udp", {"data": 1500}]), 1000
    with pg_node(buffers=FEW_BUFFERS) as node:
        node.commit(node.prepare(image))
        pieces = [one[20:] for one in node.generator.burst([packet])]
        assert len(pieces) == 3
        sent = node.generator.burst([packet] * n)
        missing = node.client.call("ipshare_counters").no_buffers
        assert missing > 0
        assert len(sent) + missing == n * len(pieces)
        assert {one[20:] for one in sent} == set(pieces)


def test_no_buffers_left_for_what_needs_several() -> None:
    """What is sent on as a new packet of two buffers: all of it is made, or nothing is kept of it."""
    end = endpoint("10.0.0.0/24", tunnel=("10.9.9.9", "10.9.9.8"), encap=lib.IPS_ENCAP_IPIP, path_mtu=9200)
    roles = {"roles": lib.IPS_ROLE_OUTER}
    image = Image(endpoints=[end], bindings=[binding("203.0.113.0/24")], header=roles).pack()
    packet, n = build(["ip4", "udp", {"data": 2100}]), 1000
    with pg_node(buffers=FEW_BUFFERS) as node:
        node.commit(node.prepare(image))
        assert len(node.generator.burst([packet])) == 1
        sent = node.generator.burst([packet] * n)
        missing = node.client.call("ipshare_counters").no_buffers
        assert missing > 0 and len(sent) + missing == n
