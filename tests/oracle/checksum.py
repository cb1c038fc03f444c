"""The Internet checksum by plain integer arithmetic (RFC 1071, RFC 1624).

Ones' complement addition of 16-bit words is addition modulo 65,535 in which zero can
be written 0x0000 or 0xffff. Words are big-endian.
"""

import struct
from typing import Final

ZERO_MEANS_NONE: Final = {17, 136}  # UDP (RFC 768), UDP-Lite (RFC 3828): 0 = no checksum


def words(data: bytes) -> int:
    """Sum of the 16-bit words of ``data``; an odd last byte is followed by a zero."""
    if len(data) % 2:
        data += b"\0"
    return sum(struct.unpack(f">{len(data) // 2}H", data))


def folded(total: int) -> int:
    """``total`` as 16 bits: 0 only for 0, otherwise 1 .. 0xffff."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes, start: int = 0) -> int:
    """What a sender writes into a field that was zero in ``data``."""
    return 0xFFFF - folded(words(data) + start)


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """Sum of the pseudo header (RFC 793, RFC 8200 8.1)."""
    return words(source + destination + struct.pack(">II", length, protocol))


def mended(field: int, before: bytes, after: bytes, zero_means_none: bool = False) -> int:
    """The field after bytes it covers changed from ``before`` to ``after`` (same length).

    A wrong sum stays wrong by the same amount. Where both spellings of zero are
    possible, a sender's is chosen: 0x0000, or 0xffff where 0 means none. A change that
    adds nothing leaves the field as it is.
    """
    if zero_means_none and field == 0:
        return 0
    change = (words(after) - words(before)) % 65535
    if change == 0:
        return field
    claimed = (0xFFFF - field + change) % 65535
    if claimed == 0:
        return 0xFFFF if zero_means_none else 0
    return 0xFFFF - claimed


def mended_partial(field: int, before: bytes, after: bytes) -> int:
    """The same for a field that holds the uncomplemented sum of the pseudo header."""
    change = (words(after) - words(before)) % 65535
    if change == 0:
        return field
    return (field + change) % 65535 or 0xFFFF
