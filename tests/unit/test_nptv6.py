"""NPTv6 (RFC 6296) as bindings of IPv6 prefixes do it: a distribution point before devices that know only
their local addresses, ``replies = "rewrite"``. Names of tests are what the RFC asks for, with its section.

One thing differs by decision (docs/decisions/0034): checksums are mended where they are, so that host bits
need no change; the RFC leaves checksums alone and changes an address word instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPerror6,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from tests.oracle import encap as oracle
from tests.sites import CLIENT6, GLOBAL6, LOCAL_A6, Site, site

DATA = Raw(bytes(range(100)))
TRANSPORTS = {
    "tcp": TCP(sport=4000, dport=443, flags="S"),
    "udp": UDP(sport=4000, dport=53),
    "echo": ICMPv6EchoRequest(id=7, seq=1),
}


@pytest.fixture
def box() -> Iterator[Site]:
    with site(replies="rewrite") as nodes:
        yield nodes


def out(box: Site, packet: Packet) -> IPv6:
    """Internal to external."""
    (sent,) = box.C.process("outer", bytes(packet)).packets
    return IPv6(sent)


def back(box: Site, packet: Packet) -> IPv6:
    """External to internal."""
    (sent,) = box.C.process("outer", bytes(packet)).packets
    return IPv6(sent)


def sum_is_right(packet: bytes) -> bool:
    return oracle.ones_sum(oracle.pseudo(packet, packet[6], len(packet) - 40) + packet[40:]) == 0xFFFF


@pytest.mark.parametrize("name", TRANSPORTS)
def test_sources_are_mapped_outwards_and_destinations_inwards(box: Site, name: str) -> None:
    """RFC 6296 3.2, 3.3; no state: inwards first is as good."""
    inwards = back(box, IPv6(src=CLIENT6, dst=GLOBAL6) / TRANSPORTS[name] / DATA)
    assert (inwards.src, inwards.dst) == (CLIENT6, LOCAL_A6)
    outwards = out(box, IPv6(src=LOCAL_A6, dst=CLIENT6) / TRANSPORTS[name] / DATA)
    assert (outwards.src, outwards.dst) == (GLOBAL6, CLIENT6)
    assert sum_is_right(bytes(inwards)) and sum_is_right(bytes(outwards))


@pytest.mark.parametrize("host", ["::", "::1", "::ffff:ffff:ffff:ffff", "::1234:0:0:1", "::ffff"])
def test_mapping_is_one_to_one_and_two_way(box: Site, host: str) -> None:
    """RFC 6296 2.1, 3.1: for every host part; here the host part stays as it is, 0xFFFF words too."""
    local = str(IPv6Address(int(IPv6Address("2001:db8:a::")) | int(IPv6Address(host))))
    public = str(IPv6Address(int(IPv6Address("2001:db8:100::")) | int(IPv6Address(host))))
    assert out(box, IPv6(src=local, dst=CLIENT6) / UDP(dport=9) / DATA).src == public
    assert back(box, IPv6(src=CLIENT6, dst=public) / UDP(dport=9) / DATA).dst == local


def test_ports_and_payload_are_untouched(box: Site) -> None:
    """RFC 6296 1.2, 4: no port mapping, transport headers but for the checksum as they were."""
    sent = IPv6(src=LOCAL_A6, dst=CLIENT6, hlim=40) / TCP(sport=1, dport=2, seq=3, ack=4) / DATA
    got = out(box, sent)
    assert (got[TCP].sport, got[TCP].dport, got[TCP].seq, bytes(got[TCP].payload)) == (1, 2, 3, bytes(DATA))


def test_fragments_need_no_state(box: Site) -> None:
    """RFC 6296 1.2: every packet is mapped by itself, later fragments before the first."""
    later = IPv6(src=LOCAL_A6, dst=CLIENT6) / IPv6ExtHdrFragment(nh=17, offset=100, id=5) / DATA
    begins = UDP(len=900) / Raw(bytes(96))
    first = IPv6(src=LOCAL_A6, dst=CLIENT6) / IPv6ExtHdrFragment(nh=17, m=1, id=5) / begins
    assert {out(box, later).src, out(box, first).src} == {GLOBAL6}


def test_errors_quote_what_their_receiver_sent(box: Site) -> None:
    """RFC 6296 4 with RFC 4443: an external router's error about a packet from inside."""
    sent = out(box, IPv6(src=LOCAL_A6, dst=CLIENT6) / UDP(sport=4000, dport=53) / DATA)
    error = IPv6(src="2001:db8:e::1", dst=GLOBAL6) / ICMPv6DestUnreach() / Raw(bytes(sent))
    got = back(box, error)
    assert got.dst == LOCAL_A6 and got[IPerror6].src == LOCAL_A6 and sum_is_right(bytes(got))


def test_what_is_of_no_mapped_prefix_is_not_mapped(box: Site) -> None:
    """RFC 6296 3.2: the source is within the internal prefix, or it is not NPTv6's."""
    packet = IPv6(src="2001:db8:77::1", dst=CLIENT6) / ICMPv6EchoReply()
    made = box.C.process("outer", bytes(packet))
    assert (made.verdict.name, made.packets) == ("NO_BINDING", ())
