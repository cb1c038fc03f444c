"""DHCPv4 messages (RFC 2131, RFC 2132) as values: encode, decode. Pure.

``decode`` takes what came from the network: everything is checked, and what is no DHCP message raises
``Malformed`` with the reason. Options that occur more than once are joined (RFC 3396); options in `file` and
`sname` (overload) are read too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address

_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE = b"\x63\x82\x53\x63"
BOOTREQUEST, BOOTREPLY = 1, 2
_ETHERNET, _MAC_BYTES = 1, 6
_PAD, _END, _OVERLOAD = 0, 255, 52
_LEAST = 300
"""RFC 1542 2.1: a shorter message may be thrown away by an old relay."""
NOWHERE = IPv4Address(0)


class Option(IntEnum):
    """Those that a client here reads or writes."""

    MASK = 1
    ROUTER = 3
    REQUESTED = 50
    LEASE_TIME = 51
    TYPE = 53
    SERVER = 54
    PARAMETERS = 55
    MESSAGE = 56
    RENEWAL = 58
    REBINDING = 59
    CLIENT_ID = 61


class Type(IntEnum):
    """DHCP message types."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7


class Malformed(Exception):
    """No DHCP message; the text says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``mac``: six bytes, of the workload. ``options``: TYPE is in ``type``."""

    type: Type
    xid: int
    mac: bytes
    is_reply: bool = False
    secs: int = 0
    ciaddr: IPv4Address = NOWHERE
    yiaddr: IPv4Address = NOWHERE
    giaddr: IPv4Address = NOWHERE
    options: Mapping[int, bytes] = field(default_factory=dict)

    def address(self, option: Option) -> IPv4Address | None:
        value = self.options.get(option, b"")
        return IPv4Address(value) if len(value) == 4 else None

    def seconds(self, option: Option) -> int | None:
        value = self.options.get(option, b"")
        return int.from_bytes(value, "big") if len(value) == 4 else None

    @property
    def text(self) -> str:
        """What the server wrote for people, made printable."""
        raw = self.options.get(Option.MESSAGE, b"").decode("utf-8", "replace")
        return "".join(c if c.isprintable() else "?" for c in raw)[:200]


def encode(message: Message) -> bytes:
    """Bytes of a UDP payload, at least 300."""
    header = _HEADER.pack(
        BOOTREPLY if message.is_reply else BOOTREQUEST,
        _ETHERNET,
        _MAC_BYTES,
        0,
        message.xid,
        min(message.secs, 0xFFFF),
        0,
        message.ciaddr.packed,
        message.yiaddr.packed,
        NOWHERE.packed,
        message.giaddr.packed,
        message.mac,
        b"",
        b"",
        _COOKIE,
    )
    options = bytes((Option.TYPE, 1, message.type))
    for number, value in message.options.items():
        for at in range(0, len(value), 255) or (0,):
            part = value[at : at + 255]
            options += bytes((number, len(part))) + part
    return (header + options + bytes((_END,))).ljust(_LEAST, b"\0")


def decode(data: bytes) -> Message:
    """Raises Malformed."""
    if len(data) < _HEADER.size:
        raise Malformed(f"{len(data)} bytes: a DHCP message has {_HEADER.size} at least")
    (op, hardware, length, _, xid, secs, _, ci, yi, _, gi, mac, sname, file, cookie) = _HEADER.unpack_from(
        data
    )
    if op not in (BOOTREQUEST, BOOTREPLY) or cookie != _COOKIE:
        raise Malformed("no DHCP message")
    if (hardware, length) != (_ETHERNET, _MAC_BYTES):
        raise Malformed("not of an Ethernet client")
    options = _options(data[_HEADER.size :], {})
    overload = options.get(_OVERLOAD, b"\0")[-1:]
    for bit, area in ((1, file), (2, sname)):
        if overload and overload[0] & bit:
            options = _options(area, options)
    try:
        (number,) = options.pop(Option.TYPE)
        kind = Type(number)
    except (KeyError, ValueError):
        raise Malformed("no type that a client or server sends") from None
    addresses = (IPv4Address(ci), IPv4Address(yi), IPv4Address(gi))
    return Message(kind, xid, mac[:_MAC_BYTES], op == BOOTREPLY, secs, *addresses, options)


def _options(area: bytes, found: dict[int, bytes]) -> dict[int, bytes]:
    found, at = dict(found), 0
    while at < len(area) and area[at] != _END:
        if area[at] == _PAD:
            at += 1
            continue
        if at + 1 >= len(area) or at + 2 + area[at + 1] > len(area):
            raise Malformed("an option is cut off")
        number, size = area[at], area[at + 1]
        found[number] = found.get(number, b"") + area[at + 2 : at + 2 + size]
        at += 2 + size
    return found
