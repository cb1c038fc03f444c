"""Packets of remapped addresses through the core, without an engine: rows of the table, channels,
fragments, errors.

The worker is an end point whose local network is 198.18.1.0/24 (2001:db8:1::/64) and which serves 203.0.113.9
and 2001:db8:9::9. Packets are made by Scapy, an implementation of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from ipshare.core import lib
from ipshare.core.remap import RemapWorker
from ipshare.engine.flows import SESSION
from ipshare.engine.tables import pack
from tests.engine_lab import INNER

CLIENT4, CLIENT6 = "198.51.100.7", "2001:db8:c::7"
GLOBAL = {4: "203.0.113.9", 6: "2001:db8:9::9"}
LOCAL = {4: "198.18.1.9", 6: "2001:db8:1::9"}
OURS, PEERS = ("10.0.1.8", "10.0.1.9"), ("10.0.2.8", "10.0.2.9")
OURS6, PEERS6 = ("2001:db8:c1::8", "2001:db8:c1::9"), ("2001:db8:c2::8", "2001:db8:c2::9")
TAKING, LEAVING, PREPARING, READY = (
    getattr(lib, f"IPS_REMAP_{name}") for name in ("TAKING", "LEAVING", "PREPARING", "READY")
)
FINAL, ASK = 0, 1


def raw(address: str) -> bytes:
    return ip_address(address).packed.ljust(16, b"\0")


def remap(
    role: int, kind: str = "ipip", family: int = 4, *, outside: int = 4, number: int = 1, flags: int = 0,
    mtu: int = 1500, peer: int = 1,
) -> dict[str, Any]:  # fmt: skip
    ours, peers = (OURS, PEERS) if outside == 4 else (OURS6, PEERS6)
    if kind == "gue":
        ours, peers = (ours[0], ours[0]), (peers[0], peers[0])
    encap = {"ipip": lib.IPS_ENCAP_IPIP, "gue": lib.IPS_ENCAP_GUE, "rewrite": lib.IPS_ENCAP_NONE}[kind]
    channel = {
        "encap": encap, "family": outside, "gue_port": 6080 if kind == "gue" else 0, "mtu": mtu,
        "local": [raw(a) for a in ours], "remote": [raw(a) for a in peers],
    }  # fmt: skip
    return {
        "id": number, "prefix": raw(GLOBAL[family]), "family": family,
        "prefix_len": 32 if family == 4 else 128,
        "role": role, "peer": peer, "flags": flags, "channel": channel,
    }  # fmt: skip


@pytest.fixture
def worker() -> Iterator[RemapWorker]:
    with RemapWorker(sessions=64) as made:
        made.load(pack(INNER))
        yield made


def ip(family: int, source: str = "", to: str = "", **other: Any) -> Any:
    source = source or (CLIENT4 if family == 4 else CLIENT6)
    return (IP if family == 4 else IPv6)(src=source, dst=to or LOCAL[family], **other)


def flow(family: int = 4, proto: int = 17, state: int = lib.IPS_STATE_OPEN, sport: int = 1000) -> np.ndarray:
    made = np.zeros(1, SESSION)
    row = made[0]
    row["flow"]["src"] = np.frombuffer(raw(CLIENT4 if family == 4 else CLIENT6), np.uint8)
    row["flow"]["dst"] = np.frombuffer(raw(GLOBAL[family]), np.uint8)
    row["flow"]["src_port"], row["flow"]["dst_port"] = sport, 53
    row["flow"]["family"], row["flow"]["proto"] = family, proto
    row["kind"], row["state"], row["version"] = lib.IPS_SESSION_TRACK, state, 1
    return made


def udp(family: int = 4, sport: int = 1000, data: bytes = b"question", **other: Any) -> bytes:
    return bytes(ip(family, **other) / UDP(sport=sport, dport=53) / Raw(data))


def tcp(flags: str, family: int = 4, sport: int = 1000, **other: Any) -> bytes:
    return bytes(ip(family, **other) / TCP(sport=sport, dport=53, flags=flags))


def run(worker: RemapWorker, packet: bytes) -> tuple[str, list[bytes], list[bytes]]:
    out = worker.process("inner", packet)
    return out.verdict.name, list(out.packets), list(out.errors)


def inside(packet: bytes) -> tuple[Any, int]:
    """What a channel packet holds, and its mark."""
    outer = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
    proto = outer.proto if packet[0] >> 4 == 4 else outer.nh
    header = 20 if packet[0] >> 4 == 4 else 40
    if proto == 17:
        assert packet[header + 2 : header + 4] == (6080).to_bytes(2, "big")
        gue = packet[header + 8 :]
        assert gue[0] == 1 and gue[2:4] == b"\0\0" and gue[5:8] == b"\0\0\0"
        mark, body = gue[4] - 1, gue[8:]
    else:
        assert proto in (4, 41)
        ends = PEERS if packet[0] >> 4 == 4 else PEERS6
        mark, body = ends.index(outer.dst), packet[header:]
    return (IP if body[0] >> 4 == 4 else IPv6)(body), mark


CHANNELS = [("ipip", 4, 4), ("ipip", 6, 4), ("ipip", 4, 6), ("gue", 4, 4), ("gue", 6, 6), ("gue", 4, 6)]


@pytest.mark.parametrize(("kind", "family", "outside"), CHANNELS)
def test_the_givers_flow_goes_unmodified_and_what_is_new_stays(
    worker: RemapWorker, kind: str, family: int, outside: int
) -> None:
    worker.set_remaps([remap(TAKING, kind, family, outside=outside)])
    worker.follow(1, flow(family))
    verdict, packets, _ = run(worker, udp(family))
    assert verdict == "FOLLOWED"
    inner, mark = inside(packets[0])
    assert mark == FINAL and bytes(inner) == udp(family, to=GLOBAL[family])
    verdict, packets, _ = run(worker, udp(family, sport=2000))
    assert verdict == "OPENED_HERE" and packets == [udp(family, sport=2000, to=GLOBAL[family])]
    assert run(worker, udp(family, sport=2000))[0] == "OK"
    assert worker.remap_counters(1) == {"here": 1, "opened": 1, "followed": 1}


@pytest.mark.parametrize(("kind", "family", "outside"), CHANNELS)
def test_what_comes_out_of_the_channel(worker: RemapWorker, kind: str, family: int, outside: int) -> None:
    """The giver's engine makes it, the taker's takes it, and the other way round."""
    turned = remap(LEAVING, kind, family, outside=outside)
    for side in ("local", "remote"):
        other = remap(TAKING, kind, family, outside=outside)["channel"]
        turned["channel"][side] = other["remote" if side == "local" else "local"]
    with RemapWorker() as giver:
        giver.load(pack(INNER))
        giver.set_remaps([turned])
        worker.set_remaps([remap(TAKING, kind, family, outside=outside)])
        verdict, asked, _ = run(giver, udp(family))
        assert verdict == "ASKED"
        verdict, packets, _ = run(worker, asked[0])
        assert verdict == "OPENED_HERE" and packets[0][-8:] == b"question"
        verdict, final, _ = run(worker, tcp("A", family))
        assert verdict == "FOLLOWED"
        verdict, packets, _ = run(giver, final[0])
        assert verdict in ("FINAL_HERE", "COALESCED") and giver.count() == 1
        assert giver.remap_counters(1) == {"asked": 1, "final_in": 1}
        assert worker.remap_counters(1) == {"opened_asked": 1, "followed_unknown": 1}


def test_re_addressed_there_and_back(worker: RemapWorker) -> None:
    worker.set_remaps([remap(TAKING, "rewrite")])
    worker.follow(1, flow())
    assert run(worker, udp())[1] == [udp(to=PEERS[FINAL])]
    assert run(worker, udp(to=OURS[ASK]))[0] == "OPENED_HERE"  # the giver says that it has it not
    worker.set_remaps([remap(LEAVING, "rewrite", number=2)])
    assert run(worker, udp(sport=3000))[1] == [udp(sport=3000, to=PEERS[ASK])]
    verdict, packets, _ = run(worker, udp(sport=3000, to=OURS[FINAL]))
    assert verdict == "FINAL_HERE" and packets == [udp(sport=3000, to=GLOBAL[4])]


def test_tcp_opens_by_a_syn_alone(worker: RemapWorker) -> None:
    worker.set_remaps([remap(TAKING)])
    worker.follow(1, flow(proto=6))
    worker.follow(1, flow(proto=6, state=lib.IPS_STATE_CLOSED, sport=1001))
    worker.follow(1, flow(proto=6, state=lib.IPS_STATE_CLIENT_CLOSED, sport=1002))
    for flags, sport, verdict in (
        ("S", 1000, "FOLLOWED"), ("A", 1000, "FOLLOWED"), ("SA", 4000, "FOLLOWED"), ("R", 4000, "FOLLOWED"),
        ("A", 1001, "FOLLOWED"), ("S", 1001, "OPENED_HERE"), ("A", 1001, "OK"),
        ("A", 1002, "FOLLOWED"), ("S", 1002, "OPENED_HERE"), ("S", 4001, "OPENED_HERE"), ("A", 4001, "OK"),
    ):  # fmt: skip
        assert run(worker, tcp(flags, sport=sport))[0] == verdict, (flags, sport)


def test_quic(worker: RemapWorker) -> None:
    worker.set_remaps([remap(TAKING, flags=lib.IPS_REMAP_QUIC)])
    assert run(worker, udp(data=b"\x40short header"))[0] == "FOLLOWED"
    assert run(worker, udp(data=b"\xc0\0\0\0\x01long header"))[0] == "OPENED_HERE"
    assert run(worker, udp(data=b"\x40short header"))[0] == "OK"


@pytest.mark.parametrize("family", [4, 6])
def test_errors_go_with_the_flow_that_they_quote(worker: RemapWorker, family: int) -> None:
    worker.set_remaps([remap(TAKING, family=family)])
    worker.follow(1, flow(family))
    worker.own(flow(family, sport=2000))
    for sport, verdict in ((1000, "FOLLOWED"), (2000, "OK"), (3000, "FOLLOWED")):
        quoted = ip(family, LOCAL[family], CLIENT4 if family == 4 else CLIENT6) / UDP(sport=53, dport=sport)
        about = ICMP(type=3, code=4) if family == 4 else ICMPv6PacketTooBig(mtu=1400)
        router = "192.0.2.77" if family == 4 else "2001:db8:77::77"
        assert run(worker, bytes(ip(family, router) / about / quoted))[0] == verdict, sport
    worker.set_remaps([remap(LEAVING, family=family, number=2)])
    quoted = ip(family, GLOBAL[family], CLIENT4 if family == 4 else CLIENT6) / UDP(sport=53, dport=3000)
    error = ip(family, router, GLOBAL[family]) / about / quoted
    final = IP(src=PEERS[0], dst=OURS[0], proto=4 if family == 4 else 41) / error
    assert run(worker, bytes(final))[0] == "FINAL_HERE"
    assert worker.count() == 1, "an error opened a flow"


@pytest.mark.parametrize("family", [4, 6])
def test_echo_is_a_flow_by_its_identifier(worker: RemapWorker, family: int) -> None:
    worker.set_remaps([remap(TAKING, family=family)])
    known = flow(family, proto=1 if family == 4 else 58, sport=77)
    known["flow"]["dst_port"] = 0
    worker.follow(1, known)
    for number, verdict in ((77, "FOLLOWED"), (78, "OPENED_HERE"), (78, "OK")):
        echo = ICMP(id=number) if family == 4 else ICMPv6EchoRequest(id=number)
        assert run(worker, bytes(ip(family) / echo))[0] == verdict


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_fragments_go_with_their_first_one(worker: RemapWorker, order: tuple[int, ...]) -> None:
    worker.set_remaps([remap(TAKING)])
    worker.follow(1, flow())
    for sport, here in ((1000, False), (2000, True)):
        whole = IP(udp(sport=sport, data=bytes(1200), id=sport))
        pieces = [bytes(piece) for piece in fragment(whole, fragsize=480)]
        assert len(pieces) == 3
        sent: list[bytes] = []
        for number in order:
            verdict, packets, _ = run(worker, pieces[number])
            assert verdict in ("HELD", "FOLLOWED", "OPENED_HERE", "OK")
            sent += packets
        assert len(sent) == 3
        inner = [packet if here else bytes(inside(packet)[0]) for packet in sent]
        assert {IP(packet).dst for packet in inner} == {GLOBAL[4]}
        assert sorted(IP(packet).frag for packet in inner) == [0, 60, 120]


def test_what_cannot_be_remembered_is_not_opened(worker: RemapWorker) -> None:
    worker.set_remaps([remap(TAKING)])
    verdicts = [run(worker, tcp("S", sport=5000 + i))[0] for i in range(200)]
    assert set(verdicts) == {"OPENED_HERE", "HALF_OPEN_FULL"} or "SOURCE_LIMIT" in verdicts
    assert worker.remap_counters(1)["drop_no_room"] == 200 - verdicts.count("OPENED_HERE") > 0
    worker.set_remaps([remap(PREPARING, number=2)])
    assert run(worker, tcp("S", sport=9000))[0] == "OPENED_HERE"  # the giver still delivers it
    assert worker.remap_counters(2) == {"untracked": 1}


def test_a_giver_that_prepares_has_no_half_open_flows(worker: RemapWorker) -> None:
    worker.set_remaps([remap(PREPARING)])
    assert run(worker, udp())[0] == "OPENED_HERE"
    records = np.zeros(4, SESSION)
    from ipshare.core import ffi

    cursor = ffi.new("uint64_t *")
    rows = ffi.from_buffer("struct ips_session_rec *", records)
    assert lib.ips_sessions_scan(worker.sessions, cursor, worker.now_ns, rows, 4) == 1
    assert int(records[0]["flow"]["src_port"]) == 1000


def test_too_long_for_the_channel_and_too_old(worker: RemapWorker) -> None:
    worker.set_remaps([remap(TAKING, mtu=1400)])
    worker.follow(1, flow())
    verdict, packets, errors = run(worker, udp(data=bytes(1372), flags="DF"))
    assert verdict == "TOO_BIG" and not packets
    told = IP(errors[0])
    assert (
        told[ICMP].nexthopmtu == 1380
        and told.dst == CLIENT4
        and IP(bytes(told[ICMP].payload)).dst == GLOBAL[4]
    )
    verdict, packets, _ = run(worker, udp(data=bytes(1372)))
    assert verdict == "SPLIT" and len(packets) == 2
    assert run(worker, udp(ttl=1))[0] == "TTL_EXPIRED"
    assert worker.remap_counters(1) == {"followed": 1, "drop_too_long": 1}


def test_only_the_peer_and_only_its_addresses(worker: RemapWorker) -> None:
    worker.set_remaps([remap(LEAVING)])
    inner = IP(udp(to=GLOBAL[4]))
    assert run(worker, bytes(IP(src="10.0.2.77", dst=OURS[0], proto=4) / inner))[0] == "TUNNEL_SOURCE"
    assert run(worker, bytes(IP(src=PEERS[1], dst=OURS[0], proto=4) / inner))[0] == "TUNNEL_SOURCE"
    other = IP(udp(to="203.0.113.10"))
    assert run(worker, bytes(IP(src=PEERS[0], dst=OURS[0], proto=4) / other))[0] == "NOT_OF_REMAP"
    loop = IP(udp(to=OURS[1]))
    assert run(worker, bytes(IP(src=PEERS[0], dst=OURS[0], proto=4) / loop))[0] == "LOOP"
    assert run(worker, bytes(IP(src=PEERS[0], dst=OURS[0], proto=4) / inner))[0] == "FINAL_HERE"
    assert worker.remap_counters(1) == {"final_in": 1, "drop_channel": 1}


def test_errors_about_channel_packets_teach_and_are_relayed(worker: RemapWorker) -> None:
    worker.set_remaps([remap(TAKING, "gue")])
    worker.follow(1, flow())
    sent = run(worker, udp(data=bytes(1200), flags="DF"))[1][0]
    about = IP(src="10.0.9.9", dst=OURS[0]) / ICMP(type=3, code=4, nexthopmtu=1000) / Raw(sent[:120])
    verdict, _, errors = run(worker, bytes(about))
    assert verdict == "TUNNEL_ERROR_RELAYED"
    assert IP(errors[0])[ICMP].nexthopmtu == 1000 - 20 - 8 - 4 - 4 and IP(errors[0]).dst == CLIENT4
    assert run(worker, udp(data=bytes(1200), flags="DF"))[0] == "TOO_BIG"


def test_replies_go_back_through_the_channel_and_on(worker: RemapWorker) -> None:
    reply = bytes(IP(src=GLOBAL[4], dst=CLIENT4) / UDP(sport=53, dport=1000) / Raw(b"answer"))
    worker.set_remaps([remap(LEAVING, flags=lib.IPS_REMAP_REPLIES)])
    verdict, packets, _ = run(worker, reply)
    inner, mark = inside(packets[0])
    assert verdict == "REPLY_BACK" and mark == ASK and bytes(inner) == reply
    worker.set_remaps([remap(TAKING, number=2, flags=lib.IPS_REMAP_REPLIES)])
    verdict, packets, _ = run(worker, bytes(IP(src=PEERS[ASK], dst=OURS[ASK], proto=4) / IP(reply)))
    assert verdict == "REPLY_BACK" and packets == [reply]
    worker.set_remaps([remap(TAKING, number=2)])
    assert run(worker, bytes(IP(src=PEERS[ASK], dst=OURS[ASK], proto=4) / IP(reply)))[0] == "NOT_OF_REMAP"


def test_what_a_device_opens_is_this_nodes(worker: RemapWorker) -> None:
    worker.set_remaps([remap(TAKING)])
    out = bytes(IP(src=GLOBAL[4], dst=CLIENT4) / TCP(sport=53, dport=1000, flags="S"))
    worker.process("inner", out)
    assert run(worker, tcp("SA"))[0] == "OK"
    assert run(worker, tcp("SA", sport=1001))[0] == "FOLLOWED"


def test_other_addresses_go_as_ever(worker: RemapWorker) -> None:
    packet = udp(to="198.18.1.10")
    before = run(worker, packet)
    worker.set_remaps([remap(TAKING)])
    assert run(worker, packet) == before
    worker.set_remaps([])
    assert run(worker, packet) == before


def test_sets_that_cannot_be(worker: RemapWorker) -> None:
    fine = remap(TAKING)
    odd: list[list[dict[str, Any]]] = [
        [fine, remap(TAKING, number=1)],
        [remap(TAKING, number=2), fine],
        [{**fine, "prefix_len": 24}],
        [{**fine, "role": 5}],
        [remap(TAKING, "rewrite", 4, outside=6)],
        [remap(TAKING, "rewrite", flags=lib.IPS_REMAP_REPLIES)],
        [{**fine, "channel": {**fine["channel"], "local": [raw(OURS[0])] * 2}}],
        [{**fine, "channel": {**fine["channel"], "remote": [bytes(16), raw(PEERS[0])]}}],
        [{**fine, "channel": {**fine["channel"], "mtu": 100}}],
        [remap(TAKING, number=i + 1) for i in range(9)],
    ]
    for remaps in odd:
        with pytest.raises(ValueError, match="no such remaps"):
            worker.set_remaps(remaps)
    worker.set_remaps([remap(TAKING, number=i + 1) for i in range(8)])
