"""Several clients of one VPP, and requests that come to nothing between a prepare and its commit.

Whatever was asked in between, a commit that is answered with success leaves the tables live and their packets
with us; and nobody gets another client's answer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipshare.core import lib
from ipshare.engine.plan import diff
from ipshare.engine.tables import Tables, pack
from ipshare.engine.vpp import Client
from ipshare.engine.vpp.client import ApiRefused
from ipshare.engine.vpp.retval import Retval
from ipshare.errors import Refused
from tests.cases.build import build
from tests.cases.judge import OUTER
from tests.table_images import Image, binding
from tests.vpp.pg_node import PgNode, pg_node, verdict_of
from tests.vpp.test_faults_vpp import MILLION, many
from tests.vpp.vpp_process import vpp

PACKET = build(["ip4", "udp", {"data": 20}])
LARGER_THAN_ANY_IMAGE = (4 << 30) + 1


@pytest.fixture
def node() -> Iterator[PgNode]:
    with pg_node() as made:
        yield made


def refused(node: PgNode, name: str, **fields: Any) -> int:
    with pytest.raises(ApiRefused) as caught:
        node.client.call(name, **fields)
    return caught.value.retval


def is_translated(node: PgNode) -> bool:
    return verdict_of(node.generator.pass_([PACKET])[0]) == "OK"


@pytest.mark.parametrize("had_tables", [False, True])
def test_a_prepare_that_fails_takes_nothing_from_the_one_before(node: PgNode, had_tables: bool) -> None:
    """A file that cannot be read: what somebody prepared before can still be committed, prefixes and all."""
    if had_tables:
        node.load(OUTER)
    generation = node.prepare(bytes(pack(OUTER)))
    assert refused(node, "ipshare_prepare", path="/nowhere") == Retval.SYSCALL_ERROR_1
    assert node.info()["prepared"] == generation
    node.commit(generation)
    assert is_translated(node)
    assert "203.0.113.0/24" in node.client.cli("show ipshare prefixes")


def test_a_rollback_that_is_refused_takes_nothing(node: PgNode) -> None:
    generation = node.prepare(bytes(pack(OUTER)))
    assert refused(node, "ipshare_rollback") == Retval.NO_SUCH_ENTRY
    assert node.info()["prepared"] == generation
    node.commit(generation)
    assert is_translated(node)


def test_what_was_prepared_goes_with_a_refused_image(node: PgNode) -> None:
    """Read, but wrong: the one before is gone, and so is its number."""
    node.load(OUTER)
    generation = node.prepare(bytes(pack(OUTER)))
    with pytest.raises(ApiRefused):
        node.prepare(b"nonsense")
    assert node.info()["prepared"] == 0
    assert refused(node, "ipshare_commit", generation=generation) == Retval.NO_SUCH_ENTRY
    assert is_translated(node)


def test_two_drivers_at_once_are_told_so() -> None:
    with vpp() as running:
        one, other = running.engine, running.new_engine()
        one.configure()
        commit = one.control.commit

        def after_the_other(generation: int) -> tuple[int, int]:
            other.apply(diff(other.read(), OUTER))
            return commit(generation)

        one.control.commit = after_the_other  # type: ignore[method-assign]
        with pytest.raises(Refused, match="somebody else loaded tables"):
            one.apply(diff(Tables(), OUTER))
        assert one.read() == OUTER and one.info().generation == other.info().generation


def test_who_is_interrupted_within_a_message_may_go_on() -> None:
    """^C when half of it was sent: the other half never comes, so the next one needs a new connection."""
    with vpp() as running:
        client = running.client
        client.call("control_ping")
        transport = client._papi.transport

        def half(message: bytes) -> None:
            transport.socket.sendall(transport.header.pack(0, len(message), 0) + message[: len(message) // 2])
            raise KeyboardInterrupt

        transport.write = half
        with pytest.raises(KeyboardInterrupt):
            client.call("show_version")
        del transport.write
        assert client.call("show_version", timeout_s=20).version.startswith("26.")


def test_an_answer_is_nobody_elses(node: PgNode) -> None:
    """Who leaves while its tables load: VPP gives its number to the next client, but not its answer."""
    file = node.directory / "many"
    file.write_bytes(many(MILLION))
    with contextlib.ExitStack() as stack:
        leaving, *others = [stack.enter_context(Client(node.running.settings.api)) for _ in range(5)]
        for client in (*others, leaving):
            client.call("control_ping")
        for client in others:
            client.close()
        papi = leaving._papi
        index = papi.transport.socket_index
        message = papi.messages["ipshare_prepare"]
        number = papi.transport.get_msg_index(f"ipshare_prepare_{message.crc[2:]}")
        fields = {"_vl_msg_id": number, "client_index": index, "context": 9999, "path": str(file)}
        papi.transport.write(message.pack(fields))
        leaving.close()
        following = next(client for client in itertools.cycle(others) if has_index(client, index))
        while not following.call("ipshare_info").prepared:
            pass
        assert following._papi.message_queue.empty()
    node.client.call("ipshare_abort")


def has_index(client: Client, index: int) -> bool:
    """Whether VPP gave it this number, when it connected just now."""
    client.close()
    client.call("control_ping")
    return bool(client._papi.transport.socket_index == index)


def test_a_file_larger_than_any_image(node: PgNode, tmp_path: Path) -> None:
    """Sparse, as a mistaken name of a disk's image is: VPP does not take the memory to look at it."""
    with (tmp_path / "large").open("wb") as file:
        os.truncate(file.fileno(), LARGER_THAN_ANY_IMAGE)
    with pytest.raises(ApiRefused) as caught:
        node.client.call("ipshare_prepare", path=str(tmp_path / "large"), timeout_s=120)
    assert (caught.value.retval, caught.value.reply.error) == (Retval.SYSCALL_ERROR_1, 27)


def test_tables_refused_for_want_of_room_leave_nothing_open() -> None:
    """An agent asks again every second until somebody enlarges the segment."""
    with vpp(counter_cells=3_000_000, statseg_bytes=40 << 20) as running:
        fields = {"service_table": 0, "delivery_table": 0, "counter_cells": 3_000_000}
        counts = []
        for _ in range(3):
            with pytest.raises(ApiRefused):
                running.client.call("ipshare_configure", **fields)
            counts.append(len(list(Path(f"/proc/{running.process.pid}/fd").iterdir())))
        assert counts[0] == counts[-1]


def test_the_reply_feature_switched_on_by_hand(node: PgNode) -> None:
    """On an interface that nobody told the plugin about, and before tables: packets go on."""
    node.run("set interface feature pg0 ipshare-reply-ip4 arc ip4-unicast")
    (found,) = node.generator.pass_([build([{"ip4": {"dst": "198.18.0.1"}}, "udp"])])
    assert found.sent and not found.error
    node.load(OUTER)
    assert is_translated(node)


def test_the_reply_feature_before_the_plugin_is_configured() -> None:
    with vpp() as running:
        for line in (
            "create packet-generator interface pg0 mode ip4", "set interface state pg0 up",
            "set interface ip address pg0 198.51.100.17/24",
            "set interface feature pg0 ipshare-reply-ip4 arc ip4-unicast",
            "ip route add 198.18.0.0/16 via 198.51.100.1 pg0",
            "packet-generator new { name x limit 5 source pg0 node ip4-input size 64-64"
            " data { UDP: 198.51.100.1 -> 198.18.0.1 UDP: 1 -> 2 incrementing 30 } }",
            "packet-generator enable-stream x",
        ):  # fmt: skip
            running.cli(line)
        while "Yes" in running.cli("show packet-generator"):
            pass
        assert running.stats.combined("/if/tx")[0].sum() == 5


def test_made_packets_for_vpp_itself() -> None:
    """An ICMP error towards an address of VPP's own in the delivery table, which is not VPP's first."""
    own = "192.0.2.99"
    header = {"roles": lib.IPS_ROLE_OUTER, "icmp_rate": 1000, "icmp_source4": [198, 51, 100, 17, *bytes(12)]}
    image = Image(bindings=[binding("203.0.113.0/24")], header=header).pack()
    with pg_node(tables=(7, 8)) as node:
        node.generator.interface(9, table=8)
        node.run(f"set interface ip address pg9 {own}/32")
        node.commit(node.prepare(image))
        (found,) = node.generator.pass_([build([{"ip4": {"src": own, "ttl": 1}}, {"udp": {}}])])
        assert verdict_of(found) == "TTL_EXPIRED"
        assert "source lookup miss" not in node.client.cli("show errors")


INTERRUPTED = """
import sys
from ipshare.engine.vpp import Client
client = Client(sys.argv[1])
client.call("show_version")
transport = client._papi.transport
whole = transport.read
def once(**_: object) -> None:
    transport.read = whole
    while transport.q.qsize() < int(sys.argv[2]):
        pass
    raise KeyboardInterrupt
transport.read = once
try:
    client.dump("sw_interface_dump")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_client_that_is_interrupted_in_a_long_answer_ends(node: PgNode) -> None:
    """What it did not read is more than a pipe holds: nobody waits for somebody to read it."""
    details = 600
    node.client.cli("show version")
    for _ in range(details):
        node.client.call("create_loopback")
    command = [sys.executable, "-c", INTERRUPTED, str(node.client.path), str(details)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "interrupted\n" and done.returncode == 0, done.stderr
