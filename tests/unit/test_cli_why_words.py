"""Packets as words: what is written is what is built (Scapy is the judge), and words come back as they
went."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from ipshare.engine.packet_text import describe, read
from ipshare.engine.packet_words import DescriptionError, packet

GOOD = [
    "tcp 198.51.100.7:1234 > 203.0.113.5:80 syn ttl 64 len 1400 df",
    "tcp [2001:db8::1]:1234 > [2001:db8:5::80]:80 syn ack ttl 3 len 60",
    "udp 198.51.100.7:53 > 203.0.113.5:53 ttl 64 len 28",
    "udp [2001:db8::1]:5353 > [2001:db8:5::80]:53 ttl 64 len 1500",
    "icmp 198.51.100.7 > 203.0.113.5 type 8 code 0 ttl 64 len 84",
    "icmp6 2001:db8::1 > 2001:db8::2 type 128 code 0 ttl 64 len 48",
    "sctp 198.51.100.7:5 > 203.0.113.5:6 ttl 64 len 40",
    "gre 198.51.100.7 > 203.0.113.5 ttl 255 len 40 tos 0xb8",
    "253 198.51.100.7 > 203.0.113.5 ttl 64 len 28",
    "udp 198.51.100.7 > 203.0.113.5 ttl 64 len 1500 frag 1480+",
    "udp 198.51.100.7:1 > 203.0.113.5:2 ttl 64 len 1500 frag 0+",
    "icmp 192.0.2.1 > 203.0.113.5 type 3 code 4 mtu 1400 ttl 64 len 68"
    " quoting (tcp 203.0.113.5:80 > 198.51.100.7:1234 rst ttl 64 len 40)",
]


@pytest.mark.parametrize("words", GOOD)
def test_words_come_back(words: str) -> None:
    built = packet(words)
    assert describe(built) == words
    assert packet(describe(built)) == built
    assert packet(f"hex:{built.hex(':')}") == built


@pytest.mark.parametrize("words", [w for w in GOOD if "frag" not in w])
def test_checksums_and_lengths_are_what_scapy_makes_them(words: str) -> None:
    built = packet(words)
    layer = (IP if built[0] >> 4 == 4 else IPv6)(built)
    while layer:
        for name in ("len", "plen", "chksum", "cksum", "ihl"):
            if name in layer.fields and not (name == "chksum" and layer.name in ("SCTP",)):
                delattr(layer, name)
        if layer.name in ("SCTP", "GRE", "Raw") or "in ICMP" in layer.name:
            break
        top, layer = layer, layer.payload or None
    while top.underlayer is not None:
        top = top.underlayer
    assert bytes(top) == built


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "empty"),
        ("tpc 1.2.3.4 > 5.6.7.8", "'tpc'"),
        ("tcp 1.2.3.4:80 5.6.7.8:80", "'>'"),
        ("tcp 1.2.3.400:80 > 5.6.7.8:80", "1.2.3.400"),
        ("tcp 1.2.3.4:99999 > 5.6.7.8:80", "99999"),
        ("icmp 1.2.3.4:80 > 5.6.7.8", "no ports"),
        ("tcp 1.2.3.4:80 > [2001:db8::1]:80", "families"),
        ("tcp 1.2.3.4:80 > 5.6.7.8:80 sny", "'sny'"),
        ("tcp 1.2.3.4:80 > 5.6.7.8:80 ttl", "needs a number"),
        ("tcp 1.2.3.4:80 > 5.6.7.8:80 ttl 256", "256"),
        ("tcp 1.2.3.4:80 > 5.6.7.8:80 len 30", "headers"),
        ("udp 1.2.3.4 > 5.6.7.8 frag 1481", "multiple of 8"),
        ("udp 1.2.3.4:1 > 5.6.7.8:2 quoting udp 1.2.3.4:1 > 5.6.7.8:2", "only an ICMP error"),
        ("hex:", "without a byte"),
        ("hex:4x", "not hexadecimal"),
    ],
)
def test_mistakes_name_the_word_and_say_what_to_write(words: str, says: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        packet(words)
    assert says in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


@given(st.text(max_size=60))
@example("\u00b2 1.2.3.4 > 5.6.7.8")
@example("tcp 1.2.3.4:\u0661 > 5.6.7.8")
@example("9" * 5000 + " 1.2.3.4 > 5.6.7.8")
def test_no_words_crash(words: str) -> None:
    with contextlib.suppress(DescriptionError):
        packet(words)


@given(st.sampled_from(GOOD), st.integers(0, 100), st.integers(0, 7))
def test_no_bytes_crash(words: str, at: int, bit: int) -> None:
    data = bytearray(packet(words))
    assert isinstance(describe(bytes(data[:at])), str)
    data[at % len(data)] ^= 1 << bit
    assert isinstance(describe(bytes(data)), str)
    assert isinstance(read(bytes(data)), dict)
