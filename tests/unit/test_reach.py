"""Questions to gateways and the judgement of answers (S2.6): native/ips_reach.c, which both hosts call.

Frames are compared with scapy's; the judgement with a list of what came when.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether

from ipshare.core import ffi, lib
from ipshare.model import packed

MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:09"
SOURCE, GATEWAY = {4: "10.0.0.1", 6: "fd00::1"}, {4: "10.0.0.7", 6: "fd00::7"}
INTERVAL_NS, MISSES = 100, 3


def question(family: int, is_echo: bool, sequence: int = 5) -> Any:
    made = ffi.new("struct ips_reach_question *")
    made.family, made.is_echo, made.sequence = family, is_echo, sequence
    ffi.memmove(made.mac, bytes.fromhex(MAC.replace(":", "")), 6)
    for field, text in ((made.address, GATEWAY[family]), (made.source, SOURCE[family])):
        raw = packed(ip_address(text))
        ffi.memmove(field, raw, len(raw))
    return made


def frame(asked: Any) -> bytes:
    out = ffi.new("uint8_t[]", lib.IPS_REACH_ROOM)
    return bytes(ffi.buffer(out, lib.ips_reach_frame(asked, out)))


def expected(family: int, is_echo: bool) -> bytes:
    if is_echo and family == 4:
        body = ICMP(type=8, id=0x6970, seq=5) / bytes(8)
        return bytes(14) + bytes(IP(src=SOURCE[4], dst=GATEWAY[4], id=0, flags="DF") / body)
    if is_echo:
        return bytes(14) + bytes(
            IPv6(src=SOURCE[6], dst=GATEWAY[6]) / ICMPv6EchoRequest(id=0x6970, seq=5, data=bytes(8))
        )
    if family == 4:
        return bytes(
            Ether(src=MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=MAC, psrc=SOURCE[4], pdst=GATEWAY[4])
        )
    return bytes(
        Ether(src=MAC, dst="33:33:ff:00:00:07")
        / IPv6(src=SOURCE[6], dst="ff02::1:ff00:7", hlim=255)
        / ICMPv6ND_NS(tgt=GATEWAY[6])
        / ICMPv6NDOptSrcLLAddr(lladdr=MAC)
    )


@pytest.mark.parametrize("is_echo", [False, True], ids=["neighbour", "echo"])
@pytest.mark.parametrize("family", [4, 6])
def test_questions(family: int, is_echo: bool) -> None:
    assert frame(question(family, is_echo)) == expected(family, is_echo)


def hears_arp(data: bytes, to: str = MAC) -> bool:
    return bool(lib.ips_reach_is_arp(question(4, False), bytes.fromhex(to.replace(":", "")), data, len(data)))


def test_an_arp_answer_is_the_gateways_own_and_to_us() -> None:
    good = bytes(ARP(op=2, hwsrc=OTHER, psrc=GATEWAY[4], hwdst=MAC, pdst=SOURCE[4]))
    assert hears_arp(good)
    assert not any(hears_arp(good[:n]) for n in range(len(good)))
    assert not hears_arp(good, OTHER), "somebody else asked"
    assert not hears_arp(bytes(ARP(op=1, psrc=GATEWAY[4])))
    assert not hears_arp(bytes(ARP(op=2, psrc="10.0.0.8")))


def hears_icmp(asked: Any, data: bytes, source: str) -> bool:
    return bool(lib.ips_reach_is_icmp(asked, packed(ip_address(source)), data, len(data)))


@pytest.mark.parametrize("family", [4, 6])
def test_an_echos_answer_has_its_number_and_comes_from_whom_was_asked(family: int) -> None:
    def reply(sequence: int = 5, number: int = 0x6970) -> bytes:
        if family == 4:
            return bytes(ICMP(type=0, id=number, seq=sequence))
        return bytes(ICMPv6EchoReply(id=number, seq=sequence))

    asked, good = question(family, True), reply()
    assert hears_icmp(asked, good, GATEWAY[family])
    assert not any(hears_icmp(asked, good[:n], GATEWAY[family]) for n in range(8))
    assert not hears_icmp(asked, good, SOURCE[family])
    assert not hears_icmp(asked, reply(sequence=4), GATEWAY[family]), "late"
    assert not hears_icmp(asked, reply(number=7), GATEWAY[family]), "another's"
    assert not hears_icmp(asked, frame(asked)[-16:], GATEWAY[family]), "the question"


def test_an_advertisement_is_about_whom_was_asked() -> None:
    good = bytes(ICMPv6ND_NA(tgt=GATEWAY[6]))
    assert hears_icmp(question(6, False), good, "fe80::9"), "from whatever address of its"
    assert not any(hears_icmp(question(6, False), good[:n], GATEWAY[6]) for n in range(24))
    assert not hears_icmp(question(6, False), bytes(ICMPv6ND_NA(tgt="fd00::8")), GATEWAY[6])
    assert not hears_icmp(question(6, True), good, GATEWAY[6])


def test_not_met_before_the_first_answer_and_after_misses_in_a_row() -> None:
    """a: an answer to the question before; -: none."""
    met = {"": False, "a": True, "a--": True, "a---": False, "a--a--": True, "---": False, "a---a": True}
    for story, verdict in met.items():
        one = ffi.new("struct ips_reach *")
        for number, answer in enumerate(story):
            assert lib.ips_reach_due(one, number * INTERVAL_NS, INTERVAL_NS, MISSES)
            assert not lib.ips_reach_due(one, number * INTERVAL_NS, INTERVAL_NS, MISSES), "not yet again"
            assert one.sequence == number + 1
            if answer == "a":
                lib.ips_reach_answered(one)
                lib.ips_reach_answered(one)
        lib.ips_reach_due(one, len(story) * INTERVAL_NS, INTERVAL_NS, MISSES)
        assert bool(one.met) is verdict, story


def test_an_answer_to_no_question_is_none() -> None:
    one = ffi.new("struct ips_reach *")
    lib.ips_reach_answered(one)
    assert not one.met


def test_a_link_is_as_it_was_seen_last() -> None:
    one = ffi.new("struct ips_reach *")
    for is_up in (True, False, True):
        lib.ips_reach_looked(one, 7, INTERVAL_NS, is_up)
        assert bool(one.met) is is_up and one.next_ns == 7 + INTERVAL_NS
