"""ICMP errors that the core makes: S1.7 (PMTU discovery, traceroute).

RFC 1122 3.2.2, RFC 1812 4.3.2, RFC 4443 2.4.
"""

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)

from tests import core_door
from tests.cases import Case, address, cases
from tests.cases.build import build
from tests.oracle import icmp_error
from tests.oracle.checksum import checksum, folded, pseudo
from tests.oracle.parse import EGRESS, PARTIAL, PLAIN, Offload, Refused, parse

TTL, TOO_BIG, UNREACHABLE, ADMIN = KINDS = [0, 1, 2, 3]
CASES = cases()
LIMIT = {4: 576, 6: 1280}


def expected(data: bytes, kind: int, mtu: int, source: bytes, offload: Offload = PLAIN) -> bytes:
    try:
        return icmp_error.error(data, parse(data, offload), kind, mtu, source, offload)
    except Refused:
        return b""


def about(description: list[Any], kind: int = TTL, mtu: int = 1400) -> bytes:
    data = build(description)
    return core_door.error_about(data, kind, mtu, address("router", 4 if data[0] >> 4 == 4 else 6))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_as_the_oracle_says(case: Case) -> None:
    for kind in KINDS:
        for mtu in (1280, 70000):
            source = address("router", case.family)
            made = core_door.error_about(case.packet, kind, mtu, source, case.offload)
            assert made.hex() == expected(case.packet, kind, mtu, source, case.offload).hex()


def message(made: bytes) -> bytes:
    """The ICMP message of an error, once its sums and length were found right."""
    if made[0] >> 4 == 4:
        assert checksum(made[:20]) == 0
        assert checksum(made[20:]) == 0
        assert int.from_bytes(made[2:4]) == len(made)
        return made[20:]
    assert int.from_bytes(made[4:6]) == len(made) - 40
    assert checksum(made[40:], pseudo(made[8:24], made[24:40], 58, len(made) - 40)) == 0
    return made[40:]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [0, 100, 520, 521, 1200, 5000])
def test_quote_is_the_packet_up_to_the_limit(family: int, size: int) -> None:
    description = [{f"ip{family}": {"ttl": 1, "tos": 0xB8}}, "udp", {"data": size}]
    made = about(description)
    quote = message(made)[8:]
    assert build(description).startswith(quote)
    assert len(made) == min(LIMIT[family], len(build(description)) + (28 if family == 4 else 48))


def test_scapy_reads_ipv4() -> None:
    packet = [{"ip4": {"df": True}}, "tcp", {"data": 30}]
    kinds = {TTL: (11, 0), TOO_BIG: (3, 4), UNREACHABLE: (3, 1), ADMIN: (3, 13)}
    for kind, (number, code) in kinds.items():
        ip = IP(about(packet, kind))
        assert (ip.src, ip.dst, ip.ttl, ip.tos) == ("198.51.100.1", "192.0.2.33", 64, 0xC0)
        assert (ip[ICMP].type, ip[ICMP].code) == (number, code)
    assert IP(about(packet, TOO_BIG, 1380))[ICMP].nexthopmtu == 1380
    assert IP(about(packet, TOO_BIG, 70000))[ICMP].nexthopmtu == 65535


def test_scapy_reads_ipv6() -> None:
    packet = ["ip6", "tcp", {"data": 30}]
    kinds = {TTL: ICMPv6TimeExceeded, TOO_BIG: ICMPv6PacketTooBig, UNREACHABLE: ICMPv6DestUnreach}
    for kind, layer in kinds.items():
        ip = IPv6(about(packet, kind))
        assert (ip.src, ip.dst, ip.hlim) == ("2001:db8:7::1", "2001:db8:c::33", 64)
        assert ip.haslayer(layer)
    assert IPv6(about(packet, TOO_BIG, 1380))[ICMPv6PacketTooBig].mtu == 1380
    assert IPv6(about(packet, UNREACHABLE))[ICMPv6DestUnreach].code == 3
    assert IPv6(about(packet, ADMIN))[ICMPv6DestUnreach].code == 1


NEVER: dict[str, list[Any]] = {
    "about an error": ["ip4", {"icmp": {"type": 3}}, {"data": 28}],
    "about a redirect": ["ip4", {"icmp": {"type": 5}}, {"data": 28}],
    "about a later fragment": [{"ip4": {"fragment": [8, 16]}}, "udp", {"data": 20}],
    "to a multicast group": [{"ip4": {"dst": "224.0.0.5"}}, "udp"],
    "to everyone": [{"ip4": {"dst": "255.255.255.255"}}, "udp"],
    "from nobody": [{"ip4": {"src": "0.0.0.0"}}, "udp"],
    "from loopback": [{"ip4": {"src": "127.0.0.1"}}, "udp"],
    "from multicast": [{"ip4": {"src": "239.1.1.1"}}, "udp"],
    "from class E": [{"ip4": {"src": "240.0.0.1"}}, "udp"],
    "from broadcast": [{"ip4": {"src": "255.255.255.255"}}, "udp"],
    "about an error, v6": ["ip6", {"icmp6": {"type": 1}}, {"data": 48}],
    "about an unknown error, v6": ["ip6", {"icmp6": {"type": 99}}, {"data": 48}],
    "about a redirect, v6": ["ip6", {"icmp6": {"type": 137}}, {"data": 48}],
    "about what may be part of an error, v6": [
        "ip6",
        {"frag": {"fragment": [8, 16]}},
        "icmp6",
        {"data": "90" * 48},
    ],
    "from nobody, v6": [{"ip6": {"src": "::"}}, "udp"],
    "from loopback, v6": [{"ip6": {"src": "::1"}}, "udp"],
    "from multicast, v6": [{"ip6": {"src": "ff05::1"}}, "udp"],
    "to a multicast group, v6": [{"ip6": {"dst": "ff05::1"}}, "udp"],
}


@pytest.mark.parametrize("description", NEVER.values(), ids=NEVER.keys())
def test_none_is_sent(description: list[Any]) -> None:
    for kind in (TTL, UNREACHABLE, ADMIN):
        assert about(description, kind) == b""


def test_about_what_errors_are_sent() -> None:
    """The near misses of the rules above."""
    assert about(["ip4", "icmp", {"data": 8}])
    assert about([{"ip4": {"fragment": [0, 16]}}, "udp", {"data": 20}])
    assert about(["ip6", "icmp6", {"data": 8}])
    assert about(["ip6", {"frag": {"fragment": [8, 16]}}, "udp", {"data": 48}], TOO_BIG)
    assert about([{"ip6": {"dst": "ff05::1"}}, "udp"], TOO_BIG), "RFC 4443 2.4 (e.3)"
    assert about([{"ip6": {"src": "::2"}}, "udp"])


def test_too_big_only_where_df_is_set() -> None:
    assert about([{"ip4": {"df": True}}, "udp"], TOO_BIG)
    assert not about(["ip4", "udp"], TOO_BIG)


def test_without_a_source_none_is_made() -> None:
    assert core_door.error_about(build(["ip4", "udp"]), TTL, 0, bytes(16)) == b""
    assert core_door.error_about(build(["ip6", "udp"]), TTL, 0, bytes(16)) == b""


def test_unknown_kind() -> None:
    assert about(["ip4", "udp"], 4) == about(["ip4", "udp"], -1) == b""


def offloaded(description: list[Any], transport: str, csum: int) -> tuple[bytes, Offload]:
    """The packet as a host with checksum offload has it: partial sum, or nothing useful in the field."""
    data = build(description)
    view = parse(data)
    at = {"tcp": 16, "udp": 6}[transport]
    ends = (data[12:16], data[16:20]) if view.family == 4 else (data[8:24], data[24:40])
    held = folded(pseudo(*ends, view.proto, len(data) - view.l4)) if csum == PARTIAL else 0xBEEF
    data = data[: view.l4 + at] + held.to_bytes(2) + data[view.l4 + at + 2 :]
    return data, Offload(csum=csum, csum_start=view.l4 if csum == PARTIAL else 0, csum_offset=at)


@pytest.mark.parametrize("csum", [PARTIAL, EGRESS])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [0, 1, 33, 600, 2001])
def test_quoted_checksum_is_completed(family: int, transport: str, csum: int, size: int) -> None:
    """The client finds the checksum that it would have sent itself, also where the quote is cut."""
    description = [f"ip{family}", transport, {"data": size}]
    data, offload = offloaded(description, transport, csum)
    made = core_door.error_about(data, TTL, 0, address("router", family), offload)
    quote = message(made)[8:]
    assert quote == build(description)[: len(quote)]


@pytest.mark.parametrize("csum", [PARTIAL, EGRESS])
@pytest.mark.parametrize("family", [4, 6])
def test_quoted_udp_sum_of_zero_is_written_ffff(family: int, csum: int) -> None:
    description = [f"ip{family}", {"udp": {"tune": 0xFFFF}}, {"data": 20}]
    data, offload = offloaded(description, "udp", csum)
    made = core_door.error_about(data, TTL, 0, address("router", family), offload)
    assert message(made)[8:] == build(description)


def test_partial_sum_of_a_tunnelled_packet_at_an_odd_offset() -> None:
    """What the sum covers goes on behind the end of the quote, in the middle of a word."""
    data, offload = build(["ip4", "esp", {"data": 801}]), Offload(PARTIAL, 33, 6)
    made = core_door.error_about(data, TTL, 0, address("router", 4), offload)
    field = checksum(data[33:]).to_bytes(2)
    assert message(made)[8:] == (data[:39] + field + data[41:])[:548]


@pytest.mark.parametrize("buffer", [60, 300, 2039])
def test_sum_over_what_is_out_of_reach_is_left_alone(buffer: int) -> None:
    data, offload = offloaded(["ip4", "tcp", {"data": 2000}], "tcp", PARTIAL)
    made = core_door.error_about(data, TTL, 0, address("router", 4), offload, buffer)
    assert message(made)[8:] == data[: min(buffer, 548)]


@pytest.mark.parametrize("name", ["fragment4-first", "fragment4-middle", "routing6-active", "sctp4", "ah6"])
def test_egress_sum_that_cannot_be_known_is_left_alone(name: str) -> None:
    data = next(case.packet for case in CASES if case.name == name)
    source = address("router", 4 if data[0] >> 4 == 4 else 6)
    made = core_door.error_about(data, TTL, 0, source, Offload(EGRESS))
    assert made == b"" if name == "fragment4-middle" else message(made)[8:] == data


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("csum", [PARTIAL, EGRESS])
@pytest.mark.parametrize("size", [399, 400, 401, 5000])
def test_of_a_super_packet_the_first_segment_is_quoted(family: int, csum: int, size: int) -> None:
    ip = {f"ip{family}": {"df": True} if family == 4 else {}}
    data, offload = offloaded([ip, {"tcp": {"flags": 0x19}}, {"data": size}], "tcp", csum)
    offload = Offload(csum, offload.csum_start, offload.csum_offset, gso_type=1, gso_size=400)
    made = core_door.error_about(data, TOO_BIG, 1280, address("router", family), offload)
    first = [ip, {"tcp": {"flags": 0x10 if size > 400 else 0x19}}, {"data": min(size, 400)}]
    assert message(made)[8:] == build(first)


@pytest.mark.parametrize("family", [4, 6])
def test_of_many_datagrams_the_first_is_quoted(family: int) -> None:
    data, offload = offloaded([f"ip{family}", "udp", {"data": 5000}], "udp", PARTIAL)
    offload = Offload(PARTIAL, offload.csum_start, offload.csum_offset, gso_type=2, gso_size=300)
    made = core_door.error_about(data, TTL, 0, address("router", family), offload)
    assert message(made)[8:] == build([f"ip{family}", "udp", {"data": 300}])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [0, 1, 56, 1400])
def test_echo_is_answered(family: int, size: int) -> None:
    ip, icmp = f"ip{family}", "icmp" if family == 4 else "icmp6"
    request = build([{ip: {"src": "client", "dst": "router", "ttl": 3}}, icmp, {"data": size}])
    answer = {icmp: {"type": 0 if family == 4 else 129}}
    assert core_door.answer_echo(request) == build(
        [{ip: {"src": "router", "dst": "client"}}, answer, {"data": size}]
    )


def test_damaged_echo_makes_a_damaged_reply() -> None:
    for ip, icmp, kind in (("ip4", "icmp", IP), ("ip6", "icmp6", IPv6)):
        reply = core_door.answer_echo(build([ip, {icmp: {"csum": "wrong"}}, {"data": 9}]))
        assert reply is not None
        layer = kind(reply)[ICMP if kind is IP else ICMPv6EchoReply]
        held = layer.chksum if kind is IP else layer.cksum
        again = kind(reply)
        if kind is IP:
            again[ICMP].chksum = None
            assert IP(bytes(again))[ICMP].chksum != held
        else:
            again[ICMPv6EchoReply].cksum = None
            assert IPv6(bytes(again))[ICMPv6EchoReply].cksum != held


@pytest.mark.parametrize("size", [0, 1, 40])
def test_reply_of_nothing_but_zeros(size: int) -> None:
    """The sum over it is 0, its complement 0xffff, which no incremental update yields."""
    reply = core_door.answer_echo(build(["ip4", {"icmp": {"rest": "00000000"}}, {"data": "00" * size}]))
    assert reply is not None
    assert reply[20:24] == b"\0\0\xff\xff"
    assert checksum(reply[20:]) == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_only_whole_echo_requests_are_answered(case: Case) -> None:
    answer = core_door.answer_echo(case.packet, case.offload)
    if case.name in ("echo4", "echo6", "routing6-icmp"):
        assert answer == icmp_error.echo_reply(case.packet, parse(case.packet, case.offload), case.offload)
    else:
        assert answer is None
