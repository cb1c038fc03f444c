"""Answers for virtual addresses, against frames that scapy builds and dissects (S2.3; RFC 826, 4861,
5227)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from ipshare.core import ffi, lib

MAC, THEIRS = "02:00:00:00:00:01", "02:00:00:00:00:aa"
V4, V6, NEIGHBOUR4, NEIGHBOUR6 = "192.0.2.1", "2001:db8::1", "192.0.2.99", "2001:db8::99"
NODES, SOLICITED = "ff02::1", "ff02::1:ff00:1"


def vips(router: bool = True) -> Any:
    array = ffi.new("struct ips_vip[2]")
    for vip, address in zip(array, (V4, V6), strict=True):
        packed = ip_address(address).packed
        vip.address = packed.ljust(16, b"\0")
        vip.mac = bytes.fromhex(MAC.replace(":", ""))
        vip.family, vip.router = ip_address(address).version, router
    return array


def answer(frame: bytes, router: bool = True) -> tuple[str, bytes]:
    """Each call gets a buffer of exactly the frame's size."""
    room = ffi.new("uint8_t[]", len(frame) or 1)
    ffi.memmove(room, frame, len(frame))
    out, size, which = ffi.new("uint8_t[]", lib.IPS_VIP_ROOM), ffi.new("size_t *"), ffi.new("uint32_t *")
    result = lib.ips_vip_answer(vips(router), 2, room, len(frame), out, size, which)
    return ffi.string(lib.ips_vip_result_name(result)).decode(), bytes(ffi.buffer(out, size[0]))


def request(**arp: Any) -> Packet:
    fields = {"op": 1, "hwsrc": THEIRS, "psrc": NEIGHBOUR4, "pdst": V4} | arp
    return Ether(src=fields["hwsrc"], dst="ff:ff:ff:ff:ff:ff") / ARP(**fields)


def solicitation(
    source: str = NEIGHBOUR6, to: str = SOLICITED, target: str = V6, mac: str | None = THEIRS
) -> Packet:
    frame = Ether(src=THEIRS, dst="33:33:ff:00:00:01") / IPv6(src=source, dst=to, hlim=255)
    frame /= ICMPv6ND_NS(tgt=target)
    return frame / ICMPv6NDOptSrcLLAddr(lladdr=mac) if mac else frame


def test_arp_request_is_answered_by_unicast() -> None:
    result, data = answer(bytes(request()))
    reply = Ether(data)
    assert result == "ANSWERED" and (reply.src, reply.dst) == (MAC, THEIRS)
    arp = reply[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (2, MAC, V4, THEIRS, NEIGHBOUR4)


def test_arp_probe_of_our_address_is_answered() -> None:
    """RFC 5227 1.1: sender 0.0.0.0; who probes must learn that the address is taken."""
    result, data = answer(bytes(request(psrc="0.0.0.0")))
    assert result == "ANSWERED" and Ether(data)[ARP].pdst == "0.0.0.0"


@pytest.mark.parametrize("op", (1, 2))
def test_another_station_that_claims_the_address_is_a_conflict(op: int) -> None:
    """RFC 5227 2.4; LESSONS 22 and 29: whoever keeps the address announces again."""
    assert answer(bytes(request(op=op, psrc=V4, pdst=V4))) == ("CONFLICT", b"")


def test_our_own_announcement_that_comes_back_is_not_a_conflict() -> None:
    out = ffi.new("uint8_t[]", lib.IPS_VIP_ROOM)
    both = vips()  # owns what its elements point into
    for vip in both:
        size = lib.ips_vip_announce(ffi.addressof(vip), out)
        assert answer(bytes(ffi.buffer(out, size))) == ("NOT_OURS", b"")


@pytest.mark.parametrize(
    ("frame", "result"),
    (
        (request(pdst="192.0.2.2"), "NOT_OURS"),
        (request(op=2), "NOT_OURS"),
        (request(op=3), "BAD_ARP"),
        (request(hwtype=6), "BAD_ARP"),
        (request(ptype=0x86DD), "BAD_ARP"),
        (Ether(src="02:00:00:00:00:bb") / ARP(op=1, hwsrc=THEIRS, psrc=NEIGHBOUR4, pdst=V4), "BAD_SOURCE"),
        (request(hwsrc="03:00:00:00:00:aa"), "BAD_SOURCE"),
        (Ether(type=0x0800) / Raw(bytes(60)), "NOT_OURS"),
    ),
)
def test_arp_that_gets_no_answer(frame: Packet, result: str) -> None:
    assert answer(bytes(frame)) == (result, b"")


@pytest.mark.parametrize("router", (False, True))
@pytest.mark.parametrize("mac", (THEIRS, None))
@pytest.mark.parametrize("to", (SOLICITED, V6))
def test_solicitation_is_answered(router: bool, mac: str | None, to: str) -> None:
    """RFC 4861 7.2.4; without the option the frame's source has to do."""
    result, data = answer(bytes(solicitation(mac=mac, to=to)), router)
    reply = Ether(data)
    assert result == "ANSWERED" and (reply.src, reply.dst) == (MAC, THEIRS)
    assert (reply[IPv6].src, reply[IPv6].dst, reply[IPv6].hlim) == (V6, NEIGHBOUR6, 255)
    na = reply[ICMPv6ND_NA]
    assert (na.R, na.S, na.O, na.tgt, na[ICMPv6NDOptDstLLAddr].lladdr) == (router, 1, 1, V6, MAC)
    check_checksum(data)


def check_checksum(data: bytes) -> None:
    again = Ether(data)
    del again[ICMPv6ND_NA].cksum
    assert bytes(again) == data


def test_duplicate_address_detection_of_our_address_is_answered_to_all() -> None:
    """RFC 4862 5.4.3."""
    result, data = answer(bytes(solicitation(source="::", mac=None)))
    reply = Ether(data)
    assert result == "ANSWERED" and reply.dst == "33:33:00:00:00:01" and reply[IPv6].dst == NODES
    assert reply[ICMPv6ND_NA].S == 0
    check_checksum(data)


def advertisement(mac: str) -> Packet:
    frame = Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src=V6, dst=NODES, hlim=255)
    return frame / ICMPv6ND_NA(tgt=V6, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)


def hops() -> Packet:
    frame = solicitation()
    frame[IPv6].hlim = 64
    return frame


def code() -> Packet:
    frame = solicitation()
    frame[ICMPv6ND_NS].code = 1
    return frame


def checksum() -> Packet:
    frame = solicitation()
    frame[ICMPv6ND_NS].cksum = 1
    return frame


def option(data: bytes) -> Packet:
    return solicitation(mac=None) / Raw(data)


def longer() -> Packet:
    frame = solicitation()
    frame[IPv6].plen = 200
    return frame


@pytest.mark.parametrize(
    ("frame", "result"),
    (
        (solicitation(target="2001:db8::2"), "NOT_OURS"),
        (solicitation(target="ff02::1"), "BAD_TARGET"),
        (solicitation(source="::"), "BAD_PROBE"),
        (solicitation(source="::", mac=None, to=V6), "BAD_PROBE"),
        (solicitation(source="ff02::5"), "BAD_SOURCE"),
        (solicitation(mac="03:00:00:00:00:aa"), "BAD_SOURCE"),
        (hops(), "BAD_HOPS"),
        (code(), "BAD_CODE"),
        (checksum(), "BAD_CHECKSUM"),
        (longer(), "BAD_LENGTH"),
        (option(b"\x01\x00" + bytes(6)), "BAD_OPTION"),
        (option(b"\x01\x02" + bytes(14)), "BAD_OPTION"),
        (option(b"\x0e\x03" + bytes(6)), "BAD_OPTION"),
        (option(b"\x0e"), "BAD_OPTION"),
        (advertisement(THEIRS), "CONFLICT"),
        (advertisement(MAC), "NOT_OURS"),
    ),
)
def test_neighbour_discovery_that_gets_no_answer(frame: Packet, result: str) -> None:
    assert answer(bytes(frame)) == (result, b"")


def test_unknown_options_are_passed_over() -> None:
    """A nonce (RFC 7527) before the address."""
    frame = solicitation(mac=None) / Raw(
        b"\x0e\x01" + bytes(6) + b"\x01\x01" + bytes.fromhex(THEIRS.replace(":", ""))
    )
    assert answer(bytes(frame))[0] == "ANSWERED"


@pytest.mark.parametrize("frame", (request(), solicitation()), ids=("arp", "nd"))
def test_a_frame_that_is_cut_anywhere_is_refused(frame: Packet) -> None:
    whole = bytes(frame)
    assert answer(whole)[0] == "ANSWERED" and answer(whole + bytes(18))[0] == "ANSWERED", "padding is cut off"
    for length in range(len(whole)):
        result, data = answer(whole[:length])
        assert data == b"" and result in ("SHORT", "BAD_LENGTH", "NOT_OURS"), length


def test_announcements() -> None:
    """RFC 5227 3 and RFC 4861 7.2.6."""
    out = ffi.new("uint8_t[]", lib.IPS_VIP_ROOM)
    both = vips()  # owns what its elements point into
    four, six = both
    arp = Ether(bytes(ffi.buffer(out, lib.ips_vip_announce(ffi.addressof(four), out))))
    assert (arp.dst, arp.src) == ("ff:ff:ff:ff:ff:ff", MAC)
    assert (arp[ARP].op, arp[ARP].psrc, arp[ARP].pdst, arp[ARP].hwsrc) == (1, V4, V4, MAC)
    data = bytes(ffi.buffer(out, lib.ips_vip_announce(ffi.addressof(six), out)))
    na = Ether(data)
    assert (na.dst, na[IPv6].dst) == ("33:33:00:00:00:01", NODES)
    assert (na[ICMPv6ND_NA].R, na[ICMPv6ND_NA].S, na[ICMPv6ND_NA].O, na[ICMPv6ND_NA].tgt) == (1, 0, 1, V6)
    check_checksum(data)


def test_every_result_has_a_name_and_a_text() -> None:
    for number in range(lib.ips_vip_results()):
        assert lib.ips_vip_result_name(number) != ffi.NULL and lib.ips_vip_result(number) != ffi.NULL
    assert lib.ips_vip_result(lib.ips_vip_results()) == ffi.NULL == lib.ips_vip_result_name(-1)
