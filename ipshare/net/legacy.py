"""The FORWARD policy of legacy iptables, which nft does not show.

Asked of the kernel directly (getsockopt on a raw socket, linux/netfilter_ipv4/ip_tables.h and its IPv6
twin), since the iptables command of most machines speaks to nftables and tells nothing about this one. Only
asked where the table is in use: the question itself would load it.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SO_GET_INFO, _SO_GET_ENTRIES = 64, 65
_INFO_BYTES = 84  # name[32], valid_hooks, hook_entry[5], underflow[5], num_entries, size
_ENTRIES_AT = 40  # of struct ipt_get_entries: name[32], size, alignment
_FORWARD = 2  # NF_INET_FORWARD
_DROP, _ACCEPT = -1, -2  # standard target: -verdict - 1


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where struct ipt_entry / ip6t_entry has what."""

    level: int
    family: int
    names: str
    interfaces: int
    target_offset: int


_LAYOUTS = {
    4: _Layout(socket.SOL_IP, socket.AF_INET, "/proc/thread-self/net/ip_tables_names", 16, 88),
    6: _Layout(socket.IPPROTO_IPV6, socket.AF_INET6, "/proc/thread-self/net/ip6_tables_names", 64, 140),
}


@dataclass(frozen=True, slots=True)
class _Rule:
    inbound: str
    outbound: str
    verdict: int | None  # of a standard target; positive: a jump


def forward_drops(family: int, devices: tuple[str, ...]) -> bool:
    """Whether FORWARD's policy drops and no rule there accepts what comes from and goes to the devices.

    False too where legacy tables are not in use or may not be read.
    """
    try:
        rules = list(_forward(_LAYOUTS[family]))
    except OSError:
        return False
    if not rules or rules[-1].verdict != _DROP:
        return False
    accepts = [rule for rule in rules[:-1] if rule.verdict == _ACCEPT]
    return not all(
        any(_names(rule.inbound, device) for rule in accepts)
        and any(_names(rule.outbound, device) for rule in accepts)
        for device in devices
    )


def _names(pattern: str, device: str) -> bool:
    return pattern == device or (pattern.endswith("+") and device.startswith(pattern[:-1]))


def _forward(layout: _Layout) -> Iterator[_Rule]:
    """The rules of FORWARD, the last one being its policy."""
    if "filter" not in Path(layout.names).read_text().split():
        return
    info = _ask(layout, _SO_GET_INFO, b"filter".ljust(_INFO_BYTES, b"\0"))
    _, *numbers = struct.unpack_from("=32s13I", info)
    start, policy, size = numbers[1 + _FORWARD], numbers[6 + _FORWARD], numbers[12]
    request = struct.pack("=32sI", b"filter", size).ljust(_ENTRIES_AT, b"\0") + bytes(size)
    entries = _ask(layout, _SO_GET_ENTRIES, request)[_ENTRIES_AT:]
    at = start
    while at <= policy:
        target, step = struct.unpack_from("=HH", entries, at + layout.target_offset)
        yield _rule(entries, at, layout, target)
        at += step


def _rule(entries: bytes, at: int, layout: _Layout, target: int) -> _Rule:
    inbound, outbound = struct.unpack_from("16s16s", entries, at + layout.interfaces)
    (name,) = struct.unpack_from("29s", entries, at + target + 2)
    (verdict,) = struct.unpack_from("=i", entries, at + target + 32)
    return _Rule(_word(inbound), _word(outbound), verdict if not name.rstrip(b"\0") else None)


def _word(text: bytes) -> str:
    """A device pattern; iptables keeps its trailing '+' in the name."""
    return text.split(b"\0")[0].decode(errors="replace")


def _ask(layout: _Layout, option: int, request: bytes) -> bytes:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer, length = ctypes.create_string_buffer(request, len(request)), ctypes.c_uint32(len(request))
    with socket.socket(layout.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        if libc.getsockopt(raw.fileno(), layout.level, option, buffer, ctypes.byref(length)):
            raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw
