"""packet_words: one packet written as words, for ``why``: words -> bytes. Pure.

    tcp 198.51.100.7:1234 > 203.0.113.5:80 syn ttl 64 len 1400 df frag 1480+ id 7 tos 0x10
    udp [2001:db8::1]:5353 > [2001:db8:5::80]:53
    icmp 198.51.100.7 > 203.0.113.5        an echo request, if no type is given
    icmp 192.0.2.1 > 203.0.113.5 type 3 code 4 mtu 1400 quoting tcp 203.0.113.5:80 > 198.51.100.7:1234
    47 198.51.100.7 > 203.0.113.5          any protocol by its number
    hex:45000014...                        the bytes themselves

Header sums are right; a transport checksum is right in a packet that is no fragment. The payload is zeros.
`len` is the length of the whole IP packet. `frag N` is a fragment at byte N, `N+` has more behind it.
RFC 791, 792, 768, 9293, 8200, 4443; 9260 (SCTP) for the header's form alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from ipshare.errors import IpshareError
from ipshare.model import Address

PROTOCOLS = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmp6": 58,
    "sctp": 132,
}
WITH_PORTS = {"tcp", "udp", "dccp", "sctp"}
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}
L4_BYTES = {1: 8, 58: 8, 6: 20, 17: 8, 33: 16, 132: 12}
CHECKSUM_AT = {1: 2, 58: 2, 6: 16, 17: 6, 33: 6}
EXAMPLE = "write for example: tcp 198.51.100.7:1234 > 203.0.113.5:80 syn ttl 64"


class DescriptionError(IpshareError):
    """A packet description that is not understood."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Words:
    """What a description says; None where it leaves the choice to us. Numbers are as in the headers."""

    proto: int
    source: Address
    destination: Address
    source_port: int = 0
    destination_port: int = 0
    ttl: int = 64
    length: int | None = None
    flags: int = 0
    dont_fragment: bool = False
    fragment_at: int | None = None
    more_fragments: bool = False
    ident: int = 1
    tos: int = 0
    icmp_type: int | None = None
    icmp_code: int = 0
    mtu: int = 0
    payload: bytes = b""


def packet(description: str) -> bytes:
    """The packet's bytes, IP header first. Raises DescriptionError (exit code 2), naming the word."""
    text = description.strip()
    if text.lower().startswith("hex:"):
        try:
            data = bytes.fromhex(re.sub(r"[\s:]", "", text[4:]))
        except ValueError:
            raise DescriptionError(
                "hex: is followed by something that is not hexadecimal", hint=EXAMPLE
            ) from None
        if not data:
            raise DescriptionError("hex: without a byte", hint=EXAMPLE)
        return data
    head, quoting, quoted = text.partition(" quoting ")
    words = parse(head)
    if quoting and words.proto not in (1, 58):
        raise DescriptionError("only an ICMP error quotes a packet", hint=EXAMPLE)
    return build(replace(words, payload=packet(quoted.strip().strip("()"))) if quoting else words)


def parse(text: str) -> Words:
    """Words of a description, checked one by one. Raises DescriptionError."""
    words = iter(text.replace(">", " > ").split())
    proto = _protocol(next(words, ""))
    named = next((name for name, number in PROTOCOLS.items() if number == proto), "")
    source, source_port = _endpoint(next(words, ""), named)
    if (arrow := next(words, "")) != ">":
        raise DescriptionError(f"expected '>' after the source, not {arrow!r}", hint=EXAMPLE)
    destination, destination_port = _endpoint(next(words, ""), named)
    if source.version != destination.version:
        raise DescriptionError(
            f"{source} and {destination} are of different families", hint="use v4 or v6 for both"
        )
    if proto == 1 and source.version == 6:
        proto = 58
    options = dict(_options(words))
    flags = sum(FLAGS[name] for name in FLAGS if options.pop(name, False))
    return Words(proto, source, destination, source_port, destination_port, flags=flags, **options)  # type: ignore[arg-type]


def _protocol(word: str) -> int:
    if word.lower() in PROTOCOLS:
        return PROTOCOLS[word.lower()]
    if re.fullmatch("[0-9]{1,3}", word) and int(word) < 256:
        return int(word)
    message = f"{word!r} is no protocol" if word else "an empty description"
    raise DescriptionError(
        message, hint=f"{EXAMPLE}; protocols: {', '.join(PROTOCOLS)}, or a number below 256"
    )


def _endpoint(word: str, proto: str) -> tuple[Address, int]:
    match = re.fullmatch(
        r"\[([^\]]*)\](?::([0-9]{1,9}))?|([0-9.]+)(?::([0-9]{1,9}))?|([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)", word
    )
    if match is None:
        raise DescriptionError(f"{word!r} is no address", hint="v4: 192.0.2.1:80, v6: [2001:db8::1]:80")
    address_text, port = match[1] or match[3] or match[5] or "", match[2] or match[4]
    try:
        address = ip_address(address_text)
    except ValueError:
        raise DescriptionError(f"{address_text!r} is no address", hint=EXAMPLE) from None
    if port is not None and (proto not in WITH_PORTS or int(port) > 65535):
        reason = (
            "is above 65535" if proto in WITH_PORTS else f"given, but {proto or 'this protocol'} has no ports"
        )
        raise DescriptionError(f"port {port} {reason}", hint=EXAMPLE)
    return address, int(port or 0)


_NUMBERS = {  # word -> (field, least, most)
    "ttl": ("ttl", 0, 255),
    "hlim": ("ttl", 0, 255),
    "len": ("length", 20, 65535),
    "id": ("ident", 0, 0xFFFFFFFF),
    "tos": ("tos", 0, 255),
    "type": ("icmp_type", 0, 255),
    "code": ("icmp_code", 0, 255),
    "mtu": ("mtu", 0, 0xFFFFFFFF),
}


def _options(words: Iterator[str]) -> Iterator[tuple[str, int | bool]]:
    for word in words:
        name = word.lower()
        if name in FLAGS:
            yield name, True
        elif name == "df":
            yield "dont_fragment", True
        elif name == "frag":
            value = next(words, "")
            at = _number("frag", value.removesuffix("+"), 0, 65528)
            if at % 8:
                raise DescriptionError(
                    f"a fragment starts at a multiple of 8, not at {at}", hint="write frag 1480+"
                )
            yield "fragment_at", at
            yield "more_fragments", value.endswith("+")
        elif name in _NUMBERS:
            field, least, most = _NUMBERS[name]
            yield field, _number(name, next(words, ""), least, most)
        else:
            known = ", ".join((*FLAGS, "df", "frag", *_NUMBERS))
            raise DescriptionError(f"{word!r} is not understood", hint=f"known words: {known}")


def _number(name: str, text: str, least: int, most: int) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        raise DescriptionError(f"{name} needs a number, not {text!r}", hint=EXAMPLE) from None
    if not least <= value <= most:
        raise DescriptionError(f"{name} {value} is out of range", hint=f"{least} to {most}")
    return value


def build(words: Words) -> bytes:
    """The bytes. Raises DescriptionError where `length` is below what the headers need."""
    is_fragment = words.fragment_at is not None
    l4 = b"" if words.fragment_at else _transport(words) + words.payload
    headers = 20 if words.source.version == 4 else 40 + 8 * is_fragment
    length = words.length if words.length is not None else headers + (len(l4) or 8)
    if length < headers + (0 if is_fragment else len(l4)):
        raise DescriptionError(
            f"len {length} is less than the headers' {headers + len(l4)} bytes", hint=EXAMPLE
        )
    payload = bytearray((l4 + bytes(length))[: length - headers])
    at = CHECKSUM_AT.get(words.proto)
    if words.proto == 17 and len(payload) >= 6:
        payload[4:6] = len(payload).to_bytes(2, "big")
    if at is not None and not is_fragment:
        pseudo = b"" if words.proto == 1 else _pseudo(words, len(payload))
        total = checksum(pseudo + bytes(payload)) or (0xFFFF if words.proto == 17 else 0)
        payload[at : at + 2] = total.to_bytes(2, "big")
    return (_header4 if words.source.version == 4 else _header6)(words, length) + bytes(payload)


def _transport(words: Words) -> bytes:
    ports = words.source_port.to_bytes(2, "big") + words.destination_port.to_bytes(2, "big")
    if words.proto in (1, 58):
        kind = words.icmp_type if words.icmp_type is not None else (8 if words.proto == 1 else 128)
        rest = words.mtu if kind in ((3,) if words.proto == 1 else (2,)) else 0x00010001
        return bytes([kind, words.icmp_code, 0, 0]) + rest.to_bytes(4, "big")
    if words.proto == 6:
        return ports + bytes(8) + bytes([0x50, words.flags or FLAGS["ack"], 0xFF, 0xFF]) + bytes(4)
    return (ports if words.proto in L4_BYTES else b"").ljust(L4_BYTES.get(words.proto, 8), b"\0")


def _pseudo(words: Words, length: int) -> bytes:
    tail = length.to_bytes(2, "big") if words.source.version == 4 else length.to_bytes(4, "big") + bytes(3)
    proto = bytes([words.proto])
    middle = b"\0" + proto + tail if words.source.version == 4 else tail + proto
    return words.source.packed + words.destination.packed + middle


def _header4(words: Words, length: int) -> bytes:
    at, more = words.fragment_at or 0, words.more_fragments
    where = at // 8 | (0x2000 if more else 0) | (0x4000 if words.dont_fragment else 0)
    header = bytearray(
        bytes([0x45, words.tos]) + length.to_bytes(2, "big") + (words.ident & 0xFFFF).to_bytes(2, "big")
    )
    header += where.to_bytes(2, "big") + bytes([words.ttl, words.proto, 0, 0])
    header += words.source.packed + words.destination.packed
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header)


def _header6(words: Words, length: int) -> bytes:
    is_fragment = words.fragment_at is not None
    first = (6 << 28 | words.tos << 20).to_bytes(4, "big")
    header = first + (length - 40).to_bytes(2, "big") + bytes([44 if is_fragment else words.proto, words.ttl])
    header += words.source.packed + words.destination.packed
    if not is_fragment:
        return header
    where = (words.fragment_at or 0) | words.more_fragments
    return header + bytes([words.proto, 0]) + where.to_bytes(2, "big") + words.ident.to_bytes(4, "big")


def checksum(data: bytes) -> int:
    """The Internet checksum of `data` (RFC 1071)."""
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
