"""Frames as somebody on a link can forge them: any source, any octets, as fast as a socket takes them.

An AF_PACKET socket in a namespace, past the kernel's own checks; ``Ear`` records what really came by. For
tests of what an engine does with datagrams and SYNs that no good peer sends. IPSHARE_FLOOD=10: floods are ten
times as long.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
from collections.abc import Iterable

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ipshare.lab.netns import inside
from tests.engine_lab import run

ETH_P_IP, ETH_P_ALL, SO_RCVBUFFORCE = 0x0800, 3, 33
FLOOD = int(os.environ.get("IPSHARE_FLOOD", "1"))


def mac(name: str, device: str) -> str:
    words = run(name, f"ip -o link show {device}").split()
    return words[words.index("link/ether") + 1]


class Forger:
    """At ``device`` of namespace ``name``; frames go to the interface with ``target`` as its MAC address."""

    def __init__(self, name: str, device: str, target: str) -> None:
        def made() -> socket.socket:
            one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            one.bind((device, ETH_P_IP))
            return one

        self.ether = Ether(dst=target, src=mac(name, device))
        self.socket = inside(name, made)

    def close(self) -> None:
        self.socket.close()

    def datagrams(self, source: str, destination: str, port: int, payloads: Iterable[bytes]) -> int:
        """UDP from and to ``port``, without checksums. How many went."""
        n = 0
        link = bytes(self.ether / IP())[:14]
        head = bytes(self.ether / IP(src=source, dst=destination) / UDP(sport=port, dport=port))[14:]
        ip = IP(head)
        for payload in payloads:
            ip.len, ip.chksum = 28 + len(payload), None
            top = link + bytes(ip)[:20]
            udp = struct.pack(">HHHH", port, port, 8 + len(payload), 0)
            self.socket.send(top + udp + payload)
            n += 1
        return n

    def flood(self, source: str, destination: str, port: int, payload: bytes, n: int) -> None:
        """The same one, again and again."""
        body = IP(src=source, dst=destination) / UDP(sport=port, dport=port, chksum=0) / Raw(payload)
        frame = bytes(self.ether / body)
        for _ in range(n):
            self.socket.send(frame)

    def syns(self, sources: list[str], destination: str, n: int, seed: int = 1) -> None:
        """One SYN from each of them in turn, every one from another port."""
        draw = random.Random(seed)
        network = IPv6 if ":" in destination else IP
        frames = [
            bytearray(
                bytes(self.ether / network(src=one, dst=destination) / TCP(sport=0, dport=80, flags="S"))
            )
            for one in sources
        ]
        at = 14 + (40 if ":" in destination else 20)
        sums = [struct.unpack_from(">H", frame, at + 16)[0] for frame in frames]
        ports = draw.sample(range(1024, 65536), min(64000, n // len(sources) + 1))
        for i in range(n):
            k, port = i % len(frames), ports[i // len(frames) % len(ports)]
            total = (~sums[k] & 0xFFFF) + port
            struct.pack_into(">H", frames[k], at, port)
            struct.pack_into(">H", frames[k], at + 16, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
            self.socket.send(frames[k])


class Ear:
    """Everything that comes in at ``device`` from now on."""

    def __init__(self, name: str, device: str) -> None:
        def made() -> socket.socket:
            one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
            one.bind((device, ETH_P_ALL))
            one.setblocking(False)
            return one

        self.socket = inside(name, made)

    def frames(self) -> list[bytes]:
        """Since the last time, in order."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (_, _, kind, *_) = self.socket.recvfrom(1 << 16)
                if kind != socket.PACKET_OUTGOING:
                    found.append(frame)
        return found

    def heard(self, port: int) -> list[bytes]:
        """UDP payloads of IPv4 to that port, in order; the ear is closed."""
        with self.socket:
            frames = [one for one in self.frames() if one[12:14] == b"\x08\0" and one[23] == 17]
        mine = [one for one in frames if struct.unpack_from(">H", one, 36)[0] == port]
        return [one[42 : 34 + struct.unpack_from(">H", one, 38)[0]] for one in mine]
