"""S1.16: captures and copies of real traffic, their filters, and that a slow target delays nobody."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipshare.core import VERDICTS, lib
from ipshare.engine.embedded import Control, ControlError, TapRule, ToCollector, ToFile, ToInterface
from ipshare.lab.netns import inside
from tests.engine_lab import GLOBAL4, GLOBAL6, INNER, Lab, Node, load, run, tables

MARKED = tables(lib.IPS_ROLE_OUTER, self_flag=0, copy=True, drop_half=True)
UNBOUND = "203.0.113.200"
UDP_SEGMENT = 103


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("capture")) as lab:
        yield lab


@pytest.fixture(scope="module")
def dist(lab: Lab) -> Node:
    return lab.engine("dist", MARKED, workers=1)  # one: packets of all flows stay in order


@pytest.fixture(scope="module", autouse=True)
def end(lab: Lab) -> Node:
    return lab.engine("end", INNER)


@dataclass(frozen=True)
class Captured:
    """One packet of a pcapng file."""

    interface: int
    data: bytes
    length: int
    comment: str
    outbound: bool
    seconds: float


def read_pcapng(raw: bytes) -> list[Captured]:
    """Parses what the engine writes, with its own reading of the format; every length is checked."""
    packets, at, devices = [], 0, 0
    while at < len(raw):
        kind, total = struct.unpack_from("<II", raw, at)
        assert total % 4 == 0 and struct.unpack_from("<I", raw, at + total - 4)[0] == total
        body = raw[at + 8 : at + total - 4]
        if kind == 0x0A0D0D0A:
            assert body[:8] == struct.pack("<IHH", 0x1A2B3C4D, 1, 0)
        elif kind == 1:
            assert struct.unpack_from("<H", body)[0] == 101
            devices += 1
        else:
            assert kind == 6
            interface, high, low, kept, length = struct.unpack_from("<IIIII", body)
            options = dict(read_options(body[20 + (kept + 3) // 4 * 4 :]))
            packets.append(
                Captured(
                    interface,
                    body[20 : 20 + kept],
                    length,
                    options[1].decode(),
                    struct.unpack("<I", options[2])[0] == 2,
                    ((high << 32) + low) / 1e9,
                )
            )
        at += total
    assert devices == 2
    return packets


def read_options(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while True:
        code, size = struct.unpack_from("<HH", raw, at)
        if code == 0:
            assert at + 4 == len(raw)
            return
        yield code, raw[at + 4 : at + 4 + size]
        at += 4 + (size + 3) // 4 * 4


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def assert_whole_udp(packet: bytes) -> None:
    """IPv4 header and UDP sums are right."""
    assert checksum(packet[:20]) == 0xFFFF
    pseudo = packet[12:20] + struct.pack(">HH", 17, len(packet) - 20)
    assert checksum(pseudo + packet[20:]) == 0xFFFF


@pytest.fixture(scope="module")
def talk(lab: Lab) -> Iterator[Exchange]:
    exchange = Exchange(lab)
    yield exchange
    exchange.close()


class Exchange:
    """Datagrams to the Global IP, each seen at the server before the next is sent."""

    def __init__(self, lab: Lab) -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.settimeout(20)
            return made

        self.server, self.client = inside(lab.names["server"], make), inside(lab.names["client"], make)
        self.server.bind((GLOBAL4, 0))
        self.address = (GLOBAL4, self.server.getsockname()[1])

    def close(self) -> None:
        self.server.close()
        self.client.close()

    def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.client.sendto(payload, self.address)
            assert self.server.recv(70000) == payload

    def say_super(self, payload: bytes, segment: int) -> None:
        self.client.setsockopt(socket.SOL_UDP, UDP_SEGMENT, segment)
        self.client.sendto(payload, self.address)
        self.client.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 0)
        for at in range(0, len(payload), segment):
            assert self.server.recv(70000) == payload[at : at + segment]

    def say_unbound(self) -> None:
        self.client.sendto(b"nobody", (UNBOUND, 9))
        self.say(b"behind it")


def captured(node: Node, path: Path, rule: TapRule, act: object) -> list[Captured]:
    with open(path, "wb") as file:
        tap = node.control.start_tap(TapRule(**{**_fields(rule), "target": ToFile(file.fileno())}))
    act()  # type: ignore[operator]
    state = node.control.stop_tap(tap.id)
    assert state.lost == 0 and not state.is_active
    packets = read_pcapng(path.read_bytes())
    assert state.packets == len(packets) and state.bytes == sum(len(packet.data) for packet in packets)
    return [
        packet for packet in packets if "_SCOPE" not in packet.comment
    ]  # the kernel's own, into a new device


def _fields(rule: TapRule) -> dict[str, object]:
    return {name: getattr(rule, name) for name in TapRule.__slots__}


ANY = ToFile(-1)


def test_before_and_after(dist: Node, talk: Exchange, tmp_path: Path) -> None:
    generation = dist.control.info()["generation"]
    packets = captured(dist, tmp_path / "x", TapRule(ANY, what="both"), lambda: talk.say(b"one", b"two"))
    assert [packet.outbound for packet in packets] == [False, True] * 2
    for before, after in zip(packets[::2], packets[1::2], strict=True):
        assert before.data[16:20] == ip_address(GLOBAL4).packed
        assert after.data[16:20] == ip_address("198.18.1.9").packed
        for packet in (before, after):
            assert packet.interface == lib.IPS_CTL_OUTER
            assert_whole_udp(packet.data)
            assert f"verdict=OK generation={generation} cell=" in packet.comment
        assert 0 <= after.seconds - before.seconds < 5
    assert packets[0].data.endswith(b"one") and packets[2].data.endswith(b"two")


def test_inner_side(end: Node, talk: Exchange, tmp_path: Path) -> None:
    packets = captured(end, tmp_path / "x", TapRule(ANY, what="both"), lambda: talk.say(b"in"))
    assert [packet.interface for packet in packets] == [lib.IPS_CTL_INNER] * 2
    assert packets[1].data[16:20] == ip_address(GLOBAL4).packed


def test_side_filter(dist: Node, talk: Exchange, tmp_path: Path) -> None:
    rule = TapRule(ANY, sides=frozenset({"inner"}))
    assert captured(dist, tmp_path / "x", rule, lambda: talk.say(b"x")) == []


def test_verdict_filter_and_drops(dist: Node, talk: Exchange, tmp_path: Path) -> None:
    """A dropped packet is there as it came, with the reason; the good ones are not."""
    drops = frozenset(verdict.name for verdict in VERDICTS if verdict.is_drop)
    packets = captured(dist, tmp_path / "x", TapRule(ANY, what="both", verdicts=drops), talk.say_unbound)
    assert [packet.data[16:20] for packet in packets] == [ip_address(UNBOUND).packed]
    assert "verdict=NO_BINDING" in packets[0].comment and not packets[0].outbound


def test_cell_filter(dist: Node, talk: Exchange, tmp_path: Path) -> None:
    first, span = (int(values[0]) for values in dist.control.cells(MARKED.bindings[:1]))
    assert span > 9
    rule = TapRule(ANY, cells=(first + 9, 1))
    assert len(captured(dist, tmp_path / "x", rule, lambda: talk.say(b"x", b"y"))) == 2
    rule = TapRule(ANY, cells=(first, 9))
    assert captured(dist, tmp_path / "x", rule, lambda: talk.say(b"x", b"y")) == []


def test_snaplen(dist: Node, talk: Exchange, tmp_path: Path) -> None:
    packets = captured(dist, tmp_path / "x", TapRule(ANY, snaplen=40), lambda: talk.say(bytes(1000), b""))
    assert [(len(packet.data), packet.length) for packet in packets] == [(40, 1028), (28, 28)]


def test_sampling_keeps_about_the_share(dist: Node, talk: Exchange, tmp_path: Path) -> None:
    packets = captured(dist, tmp_path / "x", TapRule(ANY, sample=4), lambda: talk.say(*[b"x"] * 400))
    assert 50 < len(packets) < 160  # 100 expected; 5 standard deviations are 43


def test_icmp_errors_made_here_are_marked(lab: Lab, dist: Node, tmp_path: Path) -> None:
    run(dist.name, "ip address add 192.0.2.1/32 dev lo")
    packets = captured(
        dist,
        tmp_path / "x",
        TapRule(ANY, what="both"),
        lambda: inside(lab.names["client"], lambda: expire(GLOBAL4)),
    )
    assert ["made-here=icmp-error" in packet.comment for packet in packets] == [False, True]
    assert all("verdict=TTL_EXPIRED" in packet.comment for packet in packets)
    assert packets[1].data[9] == 1 and packets[1].data[20] == 11


def expire(address: str) -> None:
    """A datagram that reaches the distribution point's device with one hop left."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.settimeout(20)
        sender.setsockopt(socket.SOL_IP, socket.IP_TTL, 2)
        sender.setsockopt(socket.SOL_IP, 11, 1)  # IP_RECVERR: the answer is reported here
        sender.connect((address, 9))
        sender.send(b"x")
        with pytest.raises(OSError, match="No route to host"):
            sender.recv(100)


def test_limits_end_it_and_tell_who_waits(dist: Node, talk: Exchange, tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as file:
        tap = dist.control.start_tap(TapRule(ToFile(file.fileno()), max_packets=3))
    talk.say(*[b"x"] * 10)
    state = dist.control.wait_tap(tap.id, 20)
    assert state.packets == 3 and len(read_pcapng((tmp_path / "x").read_bytes())) == 3
    assert dist.control.wait_tap(tap.id, 20) == state, "asked late"
    with open(tmp_path / "y", "wb") as file:
        timed = dist.control.start_tap(TapRule(ToFile(file.fileno()), max_s=0.05))
    assert not dist.control.wait_tap(timed.id, 20).is_active


def test_owned_ends_with_its_client_and_other_stays(dist: Node, tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as file, Control(dist.socket) as other:
        owned = other.start_tap(TapRule(ToFile(file.fileno())))
        lasting = other.start_tap(TapRule(ToFile(file.fileno()), owned=False))
        assert {tap.id for tap in dist.control.taps()} == {owned.id, lasting.id}
    assert dist.control.wait_tap(owned.id, 20).is_active is False
    assert [tap.id for tap in dist.control.taps()] == [lasting.id]
    dist.control.stop_tap(lasting.id)


def test_all_slots_then_refusal(dist: Node, tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as file, Control(dist.socket) as other:
        for _ in range(lib.IPS_CTL_MAX_TAPS):
            other.start_tap(TapRule(ToFile(file.fileno())))
        with pytest.raises(ControlError, match="all taps are in use"):
            other.start_tap(TapRule(ToFile(file.fileno())))
        for tap in other.taps():
            other.stop_tap(tap.id)
        other.stop_tap(other.start_tap(TapRule(ToFile(file.fileno()))).id)


def test_a_pipe_without_a_reader_loses_and_delays_nobody(dist: Node, talk: Exchange) -> None:
    reader, writer = os.pipe()
    tap = dist.control.start_tap(TapRule(ToFile(writer)))
    os.close(writer)
    talk.say(*[bytes(60000)] * 60)  # more than pipe and buffer hold
    talk.say(b"still forwarding")
    collected: list[bytes] = []
    thread = threading.Thread(target=lambda: collected.extend(iter(lambda: os.read(reader, 1 << 20), b"")))
    thread.start()
    state = dist.control.stop_tap(tap.id)
    thread.join(20)
    os.close(reader)
    packets = read_pcapng(b"".join(collected))
    assert state.lost_target > 0
    assert len(packets) == state.packets


def test_a_closed_pipe_ends_the_capture(dist: Node, talk: Exchange) -> None:
    reader, writer = os.pipe()
    tap = dist.control.start_tap(TapRule(ToFile(writer)))
    os.close(writer)
    os.close(reader)
    talk.say(b"x")
    assert dist.control.wait_tap(tap.id, 20).target_errno == 32


def vxlan(data: bytes) -> tuple[int, bytes]:
    """(VNI, IP packet) of a VXLAN datagram."""
    assert data[0] == 8
    assert data[20:22] in (b"\x08\x00", b"\x86\xdd")
    return int.from_bytes(data[4:7], "big"), data[22:]


def test_copy_to_a_collector(lab: Lab, dist: Node, talk: Exchange) -> None:
    """Marked bindings only, from before translation, with complete checksums, super-packets in segments."""
    collector = inside(lab.names["client"], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    collector.settimeout(20)
    collector.bind(("10.0.1.1", 0))
    target = ToCollector(ip_address("10.0.1.1"), collector.getsockname()[1], vni=0x123456)
    tap = dist.control.start_tap(TapRule(target, what="marked", owned=False))
    talk.say_unbound()
    talk.say(b"seen")
    talk.say_super(bytes(2000) + b"tail", 1000)
    copies = [collector.recv(70000) for _ in range(5)]
    collector.close()
    state = dist.control.stop_tap(tap.id)
    assert state.packets == 5 and state.lost == 0
    assert {vxlan(copy)[0] for copy in copies} == {0x123456}
    packets = [vxlan(copy)[1] for copy in copies]
    for packet in packets:
        assert packet[16:20] == ip_address(GLOBAL4).packed
        assert_whole_udp(packet)
    assert sorted(packet[28:] for packet in packets) == sorted(
        [b"behind it", b"seen", bytes(1000), bytes(1000), b"tail"]
    )


def test_copy_to_an_interface_truncated(lab: Lab, dist: Node, talk: Exchange) -> None:
    run(dist.name, "ip link add ids0 type veth peer name ids1")
    run(dist.name, "ip link set ids0 up")
    run(dist.name, "ip link set ids1 up")
    sniffer = inside(
        dist.name, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    )
    sniffer.settimeout(20)
    sniffer.bind(("ids1", 0))
    mac = bytes.fromhex("020000000042")
    rule = TapRule(ToInterface("ids0", mac), what="marked", snaplen=30)
    tap = dist.control.start_tap(rule)
    talk.say(b"seen by the system")
    frame = sniffer.recv(2000)
    sniffer.close()
    assert frame[:6] == mac and frame[12:14] == b"\x08\x00"
    assert frame[30:34] == ip_address(GLOBAL4).packed and len(frame) == 14 + 30
    assert dist.control.stop_tap(tap.id).packets == 1


def test_bulk_while_capturing_loses_only_copies(lab: Lab, dist: Node, tmp_path: Path) -> None:
    """Whatever a capture of everything costs, the transfer arrives; what the file lacks is counted."""
    server = inside(lab.names["server"], lambda: socket.create_server((GLOBAL6, 0), family=socket.AF_INET6))
    got = []

    def receive() -> None:
        peer, _ = server.accept()
        with peer:
            got.append(sum(map(len, iter(lambda: peer.recv(1 << 20), b""))))

    thread = threading.Thread(target=receive)
    thread.start()
    with open(tmp_path / "x", "wb") as file:
        tap = dist.control.start_tap(TapRule(ToFile(file.fileno()), what="both"))
    port = server.getsockname()[1]
    client = inside(lab.names["client"], lambda: socket.create_connection((GLOBAL6, port), 20))
    client.sendall(bytes(32 << 20))
    client.close()
    thread.join(60)
    server.close()
    state = dist.control.stop_tap(tap.id)
    assert got == [32 << 20]
    packets = read_pcapng((tmp_path / "x").read_bytes())
    assert len(packets) == state.packets > 0
    before = [packet for packet in packets if not packet.outbound]
    if state.lost == 0:
        assert sum(len(packet.data) for packet in before) > 32 << 20


def test_load_while_capturing_names_the_generation(dist: Node, talk: Exchange, tmp_path: Path) -> None:
    generations: list[int] = []

    def act() -> None:
        talk.say(b"x")
        generations.append(dist.control.info()["generation"])
        generations.append(load(dist.control, MARKED))
        talk.say(b"y")

    packets = captured(dist, tmp_path / "x", TapRule(ANY), act)
    assert [
        f"generation={generation} " in packet.comment
        for generation, packet in zip(generations, packets, strict=True)
    ]
    assert [packet.comment.split()[1] for packet in packets] == [f"generation={g}" for g in generations]
