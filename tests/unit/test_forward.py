"""The whole packet path in memory: configuration -> tables -> outer at C -> inner at A (S1.2 - S1.8)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, ICMPerror, IPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Packet, Raw

from tests.sites import (
    CLIENT4,
    CLIENT6,
    GLOBAL4,
    GLOBAL6,
    ICMP_SOURCE4,
    ICMP_SOURCE6,
    LOCAL_A4,
    LOCAL_A6,
    SHARED,
    site,
)

PATHS = ["rewrite", "ipip", "gue"]
REPORTER = IP(src="192.0.2.77", dst="192.0.2.10")  # a router within the tunnel
DATA = Raw(bytes(range(200)))


def v4(payload: Packet, **fields: object) -> bytes:
    return bytes(IP(src=CLIENT4, dst=GLOBAL4, id=77, **fields) / payload)


def v6(payload: Packet, **fields: object) -> bytes:
    return bytes(IPv6(src=CLIENT6, dst=GLOBAL6, **fields) / payload)


PACKETS = {
    "tcp4": v4(TCP(sport=4000, dport=80) / DATA),
    "udp4": v4(UDP(sport=4000, dport=53) / DATA),
    "udp4 without a checksum": v4(UDP(sport=4000, dport=53, chksum=0) / DATA),
    "echo4": v4(ICMP() / DATA),
    "sctp4": v4(Raw(bytes(range(60))), proto=132),
    "esp4": v4(Raw(bytes(range(60))), proto=50),
    "first fragment": v4(UDP(sport=4000, dport=53, len=4000) / DATA, flags="MF"),
    "later fragment": v4(Raw(bytes(200)), frag=100, proto=17),
    "tcp6": v6(TCP(sport=4000, dport=80) / DATA),
    "udp6": v6(UDP(sport=4000, dport=53) / DATA),
    "echo6": v6(ICMPv6EchoRequest(data=bytes(100))),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", PACKETS)
def test_the_device_gets_what_the_client_sent(name: str, path: str) -> None:
    """S1.3: byte for byte; S1.7: encapsulated as well."""
    packet = PACKETS[name]
    with site(path=path) as nodes:
        first = nodes.outer(packet)
        assert first.verdict.name == ("OK" if path == "rewrite" else "ENCAPSULATED")
        (delivered,) = nodes.through(packet)
        assert delivered == packet


def test_between_the_places_the_packet_bears_the_local_address() -> None:
    with site() as nodes:
        assert IP(nodes.outer(PACKETS["tcp4"]).packets[0]).dst == LOCAL_A4
        assert IPv6(nodes.outer(PACKETS["tcp6"]).packets[0]).dst == LOCAL_A6


@pytest.mark.parametrize("path", ["rewrite", "gue"])
def test_time_exceeded_quotes_the_packet_that_the_client_sent(path: str) -> None:
    with site(path=path) as nodes:
        made = nodes.outer(v4(UDP(sport=4000, dport=33434) / DATA, ttl=1))
        assert made.verdict.name == "TTL_EXPIRED"
        assert not made.packets
        error = IP(made.errors[0])
        assert (error.src, error.dst, error[ICMP].type) == (ICMP_SOURCE4, CLIENT4, 11)
        assert error[IPerror].dst == GLOBAL4
        made6 = nodes.outer(v6(UDP(sport=4000, dport=33434) / DATA, hlim=1))
        error6 = IPv6(made6.errors[0])
        assert (error6.src, error6.dst) == (ICMP_SOURCE6, CLIENT6)
        assert IPv6(bytes(error6[ICMPv6TimeExceeded].payload)).dst == GLOBAL6


def test_time_exceeded_at_the_end_point_quotes_the_global_address() -> None:
    with site() as nodes:
        (between,) = nodes.outer(v4(UDP(sport=4000, dport=33434) / DATA, ttl=40)).packets
        late = IP(between)
        late.ttl = 1
        del late.chksum
        made = nodes.A.process("inner", bytes(late))
        assert made.verdict.name == "TTL_EXPIRED"
        assert IP(made.errors[0])[IPerror].dst == GLOBAL4


@pytest.mark.parametrize(("path", "overhead4"), [("rewrite", 0), ("ipip", 20), ("gue", 32)])
def test_too_big_says_what_fits(path: str, overhead4: int) -> None:
    with site(path=path, mtu=1400) as nodes:
        made = nodes.outer(v4(UDP(sport=1, dport=2) / Raw(bytes(1400 - overhead4 - 27)), flags="DF"))
        assert made.verdict.name == "TOO_BIG"
        assert IP(made.errors[0])[ICMP].nexthopmtu == 1400 - overhead4
        fits = nodes.outer(v4(UDP(sport=1, dport=2) / Raw(bytes(1400 - overhead4 - 28)), flags="DF"))
        assert fits.verdict.disposition == "send"
        assert len(fits.packets[0]) == 1400
        made6 = nodes.outer(v6(UDP(sport=1, dport=2) / Raw(bytes(1400))))
        overhead6 = {"rewrite": 0, "ipip": 40, "gue": 52}[path]
        assert IPv6(made6.errors[0])[ICMPv6PacketTooBig].mtu == 1400 - overhead6


def test_a_long_packet_without_df_is_fragmented_before_it_is_encapsulated() -> None:
    packet = v4(UDP(sport=1, dport=2) / Raw(bytes(range(256)) * 5))
    with site(path="ipip", mtu="{v4 = 1000, v6 = 1280}") as nodes:
        made = nodes.outer(packet)
        assert made.verdict.name == "SPLIT"
        assert all(len(piece) <= 1000 for piece in made.packets)
        pieces = [IP(piece) for piece in nodes.through(packet)]
        assert b"".join(bytes(piece.payload) for piece in pieces) == bytes(IP(packet).payload)


@pytest.mark.parametrize("path", ["ipip", "gue"])
def test_an_error_on_the_tunnel_is_relayed_and_teaches_the_mtu(path: str) -> None:
    packet = v4(TCP(sport=4000, dport=80) / Raw(bytes(1300)), flags="DF")
    with site(path=path) as nodes:
        (tunnel,) = nodes.outer(packet).packets
        report = bytes(REPORTER / ICMP(type=3, code=4, nexthopmtu=1200) / tunnel)
        made = nodes.outer(report)
        assert made.verdict.name == "TUNNEL_ERROR_RELAYED"
        error = IP(made.errors[0])
        assert error.dst == CLIENT4
        assert error[ICMP].nexthopmtu == 1200 - (20 if path == "ipip" else 32)
        assert error[IPerror].dst == GLOBAL4
        assert nodes.outer(packet).verdict.name == "TOO_BIG"


def test_an_error_about_a_tunnel_packet_that_is_not_ours_teaches_nothing() -> None:
    packet = v4(TCP(sport=4000, dport=80) / Raw(bytes(1300)), flags="DF")
    with site(path="ipip") as nodes:
        foreign = IP(src="192.0.2.10", dst="10.9.9.9") / IP(packet)
        report = bytes(REPORTER / ICMP(type=3, code=4, nexthopmtu=1200) / foreign)
        assert nodes.outer(report).verdict.name == "TUNNEL_ERROR_BAD"
        assert nodes.outer(packet).verdict.name == "ENCAPSULATED"


def test_a_traceroute_probe_takes_the_tunnel_and_its_error_comes_back() -> None:
    probe = v4(UDP(sport=4000, dport=33440) / Raw(bytes(32)), ttl=3)
    with site(path="rewrite") as nodes:
        made = nodes.outer(probe)
        assert made.verdict.name == "ENCAPSULATED"
        tunnel = IP(made.packets[0])
        assert (tunnel.src, tunnel.dst, tunnel.ttl) == ("192.0.2.10", "10.1.0.254", 3)
        report = bytes(REPORTER / ICMP(type=11) / bytes(tunnel)[:28])
        assert nodes.outer(report).verdict.name == "TUNNEL_ERROR_BAD"  # 8 bytes cannot name the client
        report = bytes(REPORTER / ICMP(type=11) / tunnel)
        error = IP(nodes.outer(report).errors[0])
        assert (error.src, error.dst, error[IPerror].dst) == ("192.0.2.77", CLIENT4, GLOBAL4)
        assert nodes.through(probe) == [probe]


@pytest.mark.parametrize(
    ("unmatched", "verdict", "errors"), [("drop", "NO_BINDING", 0), ("unreachable", "UNREACHABLE", 1)]
)
def test_a_global_ip_without_a_binding(unmatched: str, verdict: str, errors: int) -> None:
    with site('[[binding]]\nglobal = "203.0.113.0/28"\nto = "A"\n', unmatched=unmatched) as nodes:
        made = nodes.outer(bytes(IP(src=CLIENT4, dst="203.0.113.77") / UDP()))
        assert (made.verdict.name, len(made.errors)) == (verdict, errors)
        made6 = nodes.outer(bytes(IPv6(src=CLIENT6, dst=GLOBAL6) / UDP()))
        assert made6.verdict.name == verdict
        assert [IPv6(error).haslayer(ICMPv6DestUnreach) for error in made6.errors] == [True] * errors


@pytest.mark.parametrize("source", ["127.0.0.1", "224.0.0.5", "169.254.1.1", "0.0.0.0"])
def test_sources_that_no_router_forwards(source: str) -> None:
    with site() as nodes:
        assert nodes.outer(bytes(IP(src=source, dst=GLOBAL4) / UDP())).verdict.name == "SOURCE_SCOPE"


@pytest.mark.parametrize("destination", ["224.0.0.1", "127.0.0.1", "255.255.255.255"])
def test_destinations_that_are_never_translated(destination: str) -> None:
    with site() as nodes:
        assert (
            nodes.outer(bytes(IP(src=CLIENT4, dst=destination) / UDP())).verdict.name == "DESTINATION_SCOPE"
        )


def test_a_tunnel_packet_from_a_stranger_is_refused() -> None:
    with site(path="ipip") as nodes:
        (tunnel,) = nodes.outer(PACKETS["tcp4"]).packets
        forged = IP(tunnel)
        forged.src = "192.0.2.66"
        del forged.chksum
        assert nodes.A.process("inner", bytes(forged)).verdict.name == "TUNNEL_SOURCE"


def test_a_tunnel_carries_only_what_may_come_this_way() -> None:
    with site(path="ipip") as nodes:
        outer = IP(src="192.0.2.10", dst="10.1.0.254")
        other = bytes(outer / IP(src=CLIENT4, dst="8.8.8.8") / UDP())
        assert nodes.A.process("inner", other).verdict.name == "TUNNEL_INNER"
        nested = bytes(outer / IP(src=CLIENT4, dst="10.1.0.254") / IP(src=CLIENT4, dst=GLOBAL4) / UDP())
        assert nodes.A.process("inner", nested).verdict.name == "LOOP"


@pytest.mark.parametrize("reply_path", ["ipip", "gue"])
@pytest.mark.parametrize("family", [4, 6])
def test_replies_through_a_distribution_point_arrive_unchanged(family: int, reply_path: str) -> None:
    """S1.5, tunnelled."""
    reply = (
        bytes(IP(src=GLOBAL4, dst=CLIENT4) / TCP(sport=80, dport=4000) / DATA)
        if family == 4
        else bytes(IPv6(src=GLOBAL6, dst=CLIENT6) / TCP(sport=80, dport=4000) / DATA)
    )
    with site(replies="tunnel", reply_path=reply_path) as nodes:
        made = nodes.A.process("inner", reply)
        assert made.verdict.name == "ENCAPSULATED"
        back = nodes.outer(made.packets[0])
        assert back.verdict.name in ("DECAPSULATED", "COALESCED")
        assert back.packets == (reply,)


@pytest.mark.parametrize("family", [4, 6])
def test_replies_by_rewriting_the_source(family: int) -> None:
    """S1.5, where the distribution point is the default gateway: local on the way only."""
    source, local, client = (GLOBAL4, LOCAL_A4, CLIENT4) if family == 4 else (GLOBAL6, LOCAL_A6, CLIENT6)
    ip = IP if family == 4 else IPv6
    reply = bytes(ip(src=source, dst=client) / UDP(sport=53, dport=4000) / DATA)
    with site(replies="rewrite") as nodes:
        (between,) = nodes.A.process("inner", reply).packets
        assert ip(between).src == local
        assert nodes.outer(between).packets == (reply,)


def test_the_same_client_reaches_the_same_end_point_whatever_it_sends() -> None:
    """S1.8: never ports, protocol or anything a fragment lacks; ICMP errors follow the flow they quote."""
    with site(SHARED) as nodes:
        seen = set()
        for number in range(40):
            client = f"198.51.100.{number}"
            ip = IP(src=client, dst=GLOBAL4)
            flow = [
                ip / TCP(sport=number, dport=80),
                ip / UDP(sport=9, dport=number),
                ip / ICMP(),
                IP(src=client, dst=GLOBAL4, frag=99, proto=17) / Raw(bytes(64)),
                IP(src="192.0.2.99", dst=GLOBAL4) / ICMP(type=3, code=4, nexthopmtu=1300)
                / IP(src=GLOBAL4, dst=client) / TCP(sport=80, dport=number),
            ]  # fmt: skip
            chosen = {nodes.outer(bytes(packet)).endpoint for packet in flow}
            assert len(chosen) == 1
            seen |= chosen
        assert len(seen) == 2


def test_a_policy_of_encapsulated_end_points_needs_no_local_address() -> None:
    """S1.6: packets keep their destination; the end points' own networks may be smaller."""

    def small(text: str) -> str:
        return text.replace("10.1.0.0/24", "10.1.0.240/28").replace("10.2.0.0/24", "10.2.0.240/28")

    with site(SHARED, path="gue", change=small) as nodes:
        for number in range(20):
            packet = bytes(IP(src=f"198.51.100.{number}", dst="203.0.113.77") / UDP(sport=1, dport=2))
            (tunnel,) = nodes.outer(packet).packets
            end = {"10.1.0.254": nodes.A, "10.2.0.254": nodes.B}[IP(tunnel).dst]
            assert end.process("inner", tunnel).packets == (packet,)


def test_an_icmp_error_reaches_the_device_quoting_its_own_address() -> None:
    quoted = IP(src=GLOBAL4, dst=CLIENT4) / TCP(sport=80, dport=4000) / DATA
    error = bytes(IP(src="192.0.2.99", dst=GLOBAL4, id=5) / ICMP(type=3, code=4, nexthopmtu=1300) / quoted)
    with site() as nodes:
        between = IP(nodes.outer(error).packets[0])
        assert between[IPerror].src == LOCAL_A4
        assert between[ICMPerror] if between.haslayer(ICMPerror) else True
        assert nodes.through(error) == [error]


def test_mss_is_clamped_to_what_the_path_carries() -> None:
    syn = v4(TCP(sport=1, dport=2, flags="S", options=[("MSS", 1460)]))
    with site(path="gue", mtu=1400, clamp=True) as nodes:
        (delivered,) = nodes.through(syn)
        assert dict(IP(delivered)[TCP].options)["MSS"] == 1400 - 32 - 40


@pytest.mark.parametrize("path", ["ipip", "gue"])
def test_a_super_packet_is_segmented_encapsulated_and_joined_again(path: str) -> None:
    payload = bytes(range(256)) * 100
    packet = v4(TCP(sport=4000, dport=80, seq=1000, flags="PA") / Raw(payload), flags="DF")
    with site(path=path) as nodes:
        made = nodes.outer(packet, gso_type=1, gso_size=1400)
        assert made.verdict.name == "SPLIT"
        assert max(map(len, made.packets)) <= 1500
        nodes.A.begin()
        made_at_a = [nodes.A.process("inner", piece, frame=False) for piece in made.packets]
        assert {outcome.verdict.name for outcome in made_at_a} == {"COALESCED"}
        (joined,) = [packet for outcome in made_at_a for packet in outcome.packets] + list(nodes.A.end())
        assert IP(joined)[TCP].payload.load == payload


@pytest.mark.parametrize("family", [4, 6])
def test_gue_packets_of_a_super_packet_travel_as_a_train(family: int) -> None:
    """A host that takes UDP super-packets gets a few of those, and what comes out is the same."""
    payload, gso = bytes(range(256)) * 230, 1300
    tcp = TCP(sport=4000, dport=80, seq=1000, flags="PA") / Raw(payload)
    packet = v4(tcp, flags="DF") if family == 4 else v6(tcp)
    ip, header = (IP, 20) if family == 4 else (IPv6, 40)
    partial = {"csum": 1, "csum_start": header, "csum_offset": 6}
    with site(path="gue", trains=True) as nodes:
        made = nodes.outer(packet, gso_type=1, gso_size=gso)
        assert (made.verdict.name, len(made.packets)) == ("SPLIT", 1)
        (train,) = made.packets
        assert len(train) == (IP(train).len if family == 4 else IPv6(train).plen + 40)
        size = 4 + header + 20 + gso
        assert (len(train) - header - 8 - 1) // size + 1 == -(-len(payload) // gso)
        opened = nodes.A.process("inner", train, gso_type=2, gso_size=size, **partial)
        assert opened.verdict.name == "SPLIT"
        assert b"".join(bytes(ip(p)[TCP].payload) for p in opened.packets) == payload
        assert nodes.A.cell_counts()["bytes"].sum() == len(train)
        cut = nodes.A.process("inner", train[:-700], gso_type=2, gso_size=size, **partial)
        assert cut.verdict.disposition == "drop"


def test_ping_to_a_tunnel_address_is_answered() -> None:
    with site(path="ipip") as nodes:
        made = nodes.A.process("inner", bytes(IP(src="192.0.2.10", dst="10.1.0.254") / ICMP(id=3) / DATA))
        assert made.verdict.name == "ANSWERED"
        answer = IP(made.packets[0])
        assert (answer.src, answer.dst, answer[ICMP].type) == ("10.1.0.254", "192.0.2.10", 0)


def test_icmp_errors_are_limited_in_rate() -> None:
    with site() as nodes:
        expired = v4(UDP(sport=4000, dport=33434), ttl=1)
        sent = sum(len(nodes.outer(expired).errors) for _ in range(5000))
        assert 0 < sent <= 1000
        nodes.C.now_ns += 10**9
        assert nodes.outer(expired).errors


def test_every_packet_is_counted_once() -> None:
    with site() as nodes:
        for packet in PACKETS.values():
            nodes.outer(packet)
        nodes.outer(b"")
        counts = nodes.C.verdict_counts()
        assert counts.sum() == len(PACKETS) + 1
        assert nodes.C.cell_counts()["packets"].sum() == len(PACKETS)
