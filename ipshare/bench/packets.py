"""packets: what the core is timed on, as arrays: TCP, UDP, ICMP errors and fragments to many addresses.

All packets of an array have one length, so a million of them are a handful of NumPy operations. IPv4
header sums are right (the core checks them); transport sums are arbitrary, since they are only updated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Kind = Literal["tcp", "udp", "icmp-error", "fragment", "mixed"]
KINDS: tuple[Kind, ...] = ("mixed", "tcp", "udp", "icmp-error", "fragment")
CLIENT = {4: bytes([198, 51, 100, 7]), 6: bytes.fromhex("20010db8000c00000000000000000007")}
STRIDE = 128
PAYLOAD = 20
_UDP, _TCP, _ICMP, _ICMP6, _FRAGMENT = 17, 6, 1, 58, 44


@dataclass(frozen=True, eq=False, slots=True)
class Frames:
    """``data``: (n, STRIDE), a packet in the first bytes of each row; ``lengths``: (n,)."""

    data: Bytes
    lengths: npt.NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.lengths)


def _sum16(words: Bytes) -> npt.NDArray[np.uint16]:
    """Internet checksum of each row (an even number of bytes)."""
    total = words.reshape(len(words), -1, 2).view(">u2").sum(axis=(1, 2), dtype=np.uint32)
    for _ in range(2):
        total = (total >> 16) + (total & 0xFFFF)
    folded: npt.NDArray[np.uint16] = (~total & 0xFFFF).astype(np.uint16)
    return folded


def _headers(family: int, proto: int, payload: int, source: Bytes, target: Bytes) -> Bytes:
    """IP headers (n, 20 or 40) for `payload` bytes; addresses are (n, 16) or (1, 16)."""
    n = max(len(source), len(target))
    out = np.zeros((n, 20 if family == 4 else 40), np.uint8)
    if family == 4:
        out[:, :4] = np.frombuffer(bytes([0x45, 0]) + (20 + payload).to_bytes(2, "big"), np.uint8)
        out[:, 4:6] = np.arange(n, dtype=np.uint16).astype(">u2").view(np.uint8).reshape(-1, 2)
        out[:, 6], out[:, 8], out[:, 9] = 0x40, 60, proto
        out[:, 12:16], out[:, 16:20] = source[:, :4], target[:, :4]
        out[:, 10:12] = _sum16(out).astype(">u2").view(np.uint8).reshape(-1, 2)
        return out
    out[:, 0], out[:, 4:6] = 0x60, np.frombuffer(payload.to_bytes(2, "big"), np.uint8)
    out[:, 6], out[:, 7] = proto, 60
    out[:, 8:24], out[:, 24:40] = source, target
    return out


def _clients(family: int, n: int) -> Bytes:
    out = np.zeros((n, 16), np.uint8)
    out[:, : len(CLIENT[family])] = np.frombuffer(CLIENT[family], np.uint8)
    return out


def _l4(proto: int, n: int) -> Bytes:
    """Transport headers and payload with different ports."""
    out = np.zeros((n, (20 if proto == _TCP else 8) + PAYLOAD), np.uint8)
    out[:, :2] = (np.arange(n, dtype=np.uint32) % 50000 + 1024).astype(">u2").view(np.uint8).reshape(-1, 2)
    out[:, 2:4] = np.frombuffer((443).to_bytes(2, "big"), np.uint8)
    if proto == _TCP:
        out[:, 12], out[:, 13], out[:, 16:18] = 0x50, 0x10, (0x12, 0x34)
    else:
        out[:, 4:6], out[:, 6:8] = np.frombuffer((8 + PAYLOAD).to_bytes(2, "big"), np.uint8), (0x12, 0x34)
    return out


def _plain(family: int, proto: int, targets: Bytes) -> Bytes:
    l4 = _l4(proto, len(targets))
    return np.hstack([_headers(family, proto, l4.shape[1], _clients(family, 1), targets), l4])


def _error(family: int, targets: Bytes) -> Bytes:
    """A router on the way to the client reports about what the device sent: quoted source = target."""
    quoted = _l4(_UDP, len(targets))
    quote = np.hstack([_headers(family, _UDP, quoted.shape[1], targets, _clients(family, 1)), quoted])
    icmp = np.zeros((len(targets), 8), np.uint8)
    icmp[:, 0], icmp[:, 2:4] = 11 if family == 4 else 3, (0x43, 0x21)
    body = np.hstack([icmp, quote])
    proto = _ICMP if family == 4 else _ICMP6
    return np.hstack([_headers(family, proto, body.shape[1], _clients(family, 1), targets), body])


def _fragment(family: int, targets: Bytes) -> Bytes:
    """A later fragment of a UDP datagram, at byte 1,480."""
    n, payload = len(targets), 32
    if family == 4:
        ip = _headers(4, _UDP, payload, _clients(4, 1), targets)
        ip[:, 6:8], ip[:, 10:12] = (0x00, 185), 0
        ip[:, 10:12] = _sum16(ip).astype(">u2").view(np.uint8).reshape(-1, 2)
        return np.hstack([ip, np.ones((n, payload), np.uint8)])
    header = np.tile(np.frombuffer(bytes([_UDP, 0, 1480 >> 8, 1480 & 0xF8, 0, 0, 0, 9]), np.uint8), (n, 1))
    ip = _headers(6, _FRAGMENT, 8 + payload, _clients(6, 1), targets)
    return np.hstack([ip, header, np.ones((n, payload), np.uint8)])


def frames(kind: Kind, family: int, targets: Bytes) -> Frames:
    """One packet for each of the ``targets`` (n, 16). "mixed": every other one TCP, the rest UDP."""
    if kind == "icmp-error":
        parts = [_error(family, targets)]
    elif kind == "fragment":
        parts = [_fragment(family, targets)]
    elif kind == "mixed":
        parts = [_plain(family, _TCP, targets[0::2]), _plain(family, _UDP, targets[1::2])]
    else:
        parts = [_plain(family, _TCP if kind == "tcp" else _UDP, targets)]
    data, lengths = np.zeros((len(targets), STRIDE), np.uint8), np.zeros(len(targets), np.uint16)
    for i, part in enumerate(parts):
        data[i :: len(parts), : part.shape[1]] = part
        lengths[i :: len(parts)] = part.shape[1]
    return Frames(data, lengths)
