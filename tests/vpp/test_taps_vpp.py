"""Captures and copies (S1.16) on VPP: what a tap was told to see, it sees; forwarding never waits for it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.utils import PcapNgReader

from ipshare.core import lib
from ipshare.engine.capture import TapRule, TapState, ToCollector, ToFile, ToInterface
from ipshare.engine.plan import diff
from ipshare.engine.tables import Tables
from ipshare.errors import EngineError
from tests.engine_lab import tables
from tests.vpp.pg_node import PgNode
from tests.vpp.vpp_process import vpp

MARKED = tables(lib.IPS_ROLE_OUTER, self_flag=0, copy=True)
PACKETS = [
    bytes(IP(src="198.51.100.1", dst=f"203.0.113.{host}", ttl=64, id=host) / UDP(sport=9, dport=7) / b"hello")
    for host in range(1, 41)
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgNode]:
    with vpp() as running:
        yield PgNode(running, tmp_path_factory.mktemp("pg"))


def load(node: PgNode, wanted: Tables) -> None:
    engine = node.running.engine
    engine.apply(diff(engine.read(), wanted))


def captured(node: PgNode, file: Path, **rule: object) -> tuple[TapState, list[bytes]]:
    """The packets sent through it, and what a tap to a file has of them."""
    engine = node.running.engine
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        tap = engine.start_tap(TapRule(ToFile(fd), **rule))  # type: ignore[arg-type]
        assert [state.id for state in engine.taps()] == [tap.id]
        node.generator.pass_(PACKETS)
        state = engine.stop_tap(tap.id)
    finally:
        os.close(fd)
    assert engine.taps() == []
    return state, [bytes(packet) for packet in PcapNgReader(str(file))]


def test_packets_as_they_came_and_as_they_went(node: PgNode, tmp_path: Path) -> None:
    load(node, tables(lib.IPS_ROLE_OUTER, self_flag=0))
    state, seen = captured(node, tmp_path / "both.pcapng", what="both")
    assert state.packets == len(seen) == 2 * len(PACKETS)
    assert state.lost == 0
    assert seen[0::2] == PACKETS
    assert [IP(packet).dst for packet in seen[1::2]] == [f"198.18.1.{host}" for host in range(1, 41)]


def test_only_marked_bindings_are_copied_as_they_came(node: PgNode, tmp_path: Path) -> None:
    load(node, tables(lib.IPS_ROLE_OUTER, self_flag=0))
    assert captured(node, tmp_path / "none.pcapng", what="marked")[1] == []
    load(node, MARKED)
    assert captured(node, tmp_path / "all.pcapng", what="marked")[1] == PACKETS


def test_filters_and_ends(node: PgNode, tmp_path: Path) -> None:
    load(node, MARKED)
    bindings = MARKED.bindings
    first, _ = node.running.engine.counter_cells(bindings[bindings["family"] == 4])
    state, seen = captured(node, tmp_path / "cell.pcapng", what="before", cells=(int(first[0]) + 7, 1))
    assert [IP(packet).dst for packet in seen] == ["203.0.113.7"]
    state, seen = captured(node, tmp_path / "short.pcapng", what="before", snaplen=20, max_packets=3)
    assert state.packets == 3
    assert [len(packet) for packet in seen] == [20, 20, 20]
    assert captured(node, tmp_path / "drop.pcapng", verdicts=frozenset(["TTL_EXPIRED"]))[1] == []


def test_forwarding_is_the_same_while_captured(node: PgNode, tmp_path: Path) -> None:
    load(node, tables(lib.IPS_ROLE_OUTER, self_flag=0))
    alone = [passed.sent for passed in node.generator.pass_(PACKETS)]
    fd = os.open(tmp_path / "x.pcapng", os.O_WRONLY | os.O_CREAT, 0o600)
    tap = node.running.engine.start_tap(TapRule(ToFile(fd), what="both"))
    os.close(fd)
    assert [passed.sent for passed in node.generator.pass_(PACKETS)] == alone
    assert all(len(sent) == 1 for sent in alone)
    node.running.engine.stop_tap(tap.id)


def test_a_copy_leaves_by_an_interface_of_the_namespace(node: PgNode) -> None:
    load(node, MARKED)
    pid = str(node.running.process.pid)
    enter = ["nsenter", "-t", pid, "-n"]
    subprocess.run([*enter, "ip", "link", "add", "ids0", "type", "veth", "peer", "ids1"], check=True)
    for name in ("ids0", "ids1"):
        subprocess.run([*enter, "ip", "link", "set", name, "up"], check=True)
    tap = node.running.engine.start_tap(TapRule(ToInterface("ids0"), what="marked", owned=False))
    node.generator.pass_(PACKETS)
    state = node.running.engine.stop_tap(tap.id)
    assert (state.packets, state.lost) == (len(PACKETS), 0)
    assert state.bytes == sum(map(len, PACKETS))
    shown = subprocess.check_output([*enter, "ip", "-j", "-s", "link", "show", "ids1"])
    assert json.loads(shown)[0]["stats64"]["rx"]["packets"] >= len(PACKETS)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (TapRule(ToInterface("nosuch"), what="marked"), "no such network interface"),
        (TapRule(ToInterface("lo"), sample=0), "at least 1"),
        (TapRule(ToCollector(IPv4Address("192.0.2.9"), vni=1 << 24)), "24 bits"),
        (TapRule(ToFile(1023)), "cannot open the file"),
    ],
)
def test_what_cannot_be_captured_is_said(node: PgNode, rule: TapRule, words: str) -> None:
    load(node, MARKED)
    with pytest.raises(EngineError, match=words):
        node.running.engine.start_tap(rule)
    assert node.running.engine.taps() == []


def test_nine_are_too_many_and_none_of_another_number(node: PgNode, tmp_path: Path) -> None:
    engine = node.running.engine
    with open(tmp_path / "many.pcapng", "wb") as file:
        taps = [engine.start_tap(TapRule(ToFile(file.fileno()))) for _ in range(8)]
        with pytest.raises(EngineError, match="all taps are in use"):
            engine.start_tap(TapRule(ToFile(file.fileno())))
    assert np.unique([engine.stop_tap(tap.id).id for tap in taps]).size == 8
    with pytest.raises(EngineError, match="no capture"):
        engine.stop_tap(12345)


def test_a_wait_without_end(node: PgNode, tmp_path: Path) -> None:
    """One that has ended is waited for as well, however long the wait may be."""
    engine = node.running.engine
    with open(tmp_path / "ended.pcapng", "wb") as file:
        tap = engine.start_tap(TapRule(ToFile(file.fileno())))
    engine.stop_tap(tap.id)
    assert not engine.wait_tap(tap.id).is_active


def test_a_capture_ends_with_its_client(node: PgNode, tmp_path: Path) -> None:
    other = node.running.new_engine()
    with open(tmp_path / "owned.pcapng", "wb") as file:
        tap = other.start_tap(TapRule(ToFile(file.fileno())))
    other.close()
    assert not node.running.engine.wait_tap(tap.id, 10).is_active
