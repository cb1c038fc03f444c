"""cluster_probes: does a server answer, and how fast: a TCP connection, an HTTP request, an ICMP echo.

Each is a coroutine that ends within its time-out, with the seconds that the answer took, or None. What
comes back is not believed further than that: a status line for HTTP, our own random bytes for an echo.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time

from ipshare.engine.packet_words import checksum
from ipshare.model import Address, ClusterProbe

LONGEST_LINE = 4096


async def probe(wanted: ClusterProbe, address: Address) -> float | None:
    """Seconds until ``address`` answered; None: it did not, or not well, in ``timeout_s``."""
    began = time.monotonic()
    with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        async with asyncio.timeout(wanted.timeout_s):
            if await _KINDS[wanted.kind](wanted, address):
                return time.monotonic() - began
    return None


async def _tcp(wanted: ClusterProbe, address: Address) -> bool:
    _, writer = await asyncio.open_connection(str(address), wanted.port)
    _reset(writer)
    return True


async def _http(wanted: ClusterProbe, address: Address) -> bool:
    reader, writer = await asyncio.open_connection(str(address), wanted.port, limit=LONGEST_LINE)
    try:
        host = f"[{address}]" if address.version == 6 else str(address)
        head = (
            f"GET {wanted.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ipshare\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        await writer.drain()
        words = (await reader.readline()).split()
        return len(words) >= 2 and words[0].startswith(b"HTTP/1.") and 100 <= int(words[1]) < 400
    finally:
        _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Gone at once, without lingering in TIME_WAIT at either end."""
    with contextlib.suppress(OSError):
        plug = writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _icmp(wanted: ClusterProbe, address: Address) -> bool:
    v4, loop = address.version == 4, asyncio.get_running_loop()
    family, proto = (socket.AF_INET, socket.IPPROTO_ICMP) if v4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    with socket.socket(family, socket.SOCK_RAW, proto) as plug:
        plug.setblocking(False)
        plug.connect((str(address), 0))
        nonce = os.urandom(16)
        head = struct.pack("!BBHHH", 8 if v4 else 128, 0, 0, int.from_bytes(nonce[:2]), 1)
        if v4:  # the kernel fills in ICMPv6's
            head = head[:2] + checksum(head + nonce).to_bytes(2) + head[4:]
        await loop.sock_sendall(plug, head + nonce)
        while True:
            data = await loop.sock_recv(plug, 2048)
            icmp = data[(data[0] & 15) * 4 :] if v4 and data else data
            if len(icmp) >= 8 and icmp[0] == (0 if v4 else 129) and icmp[8:] == nonce:
                return True


_KINDS = {"tcp": _tcp, "http": _http, "icmp": _icmp}
