"""What nobody should send, put onto both devices of an engine with NAT: it goes on, and so do its sessions.

Packets go in where the kernel would hand them over, past its checks: an AF_PACKET socket on the device, with
the offload header (PACKET_VNET_HDR). They are good ones of all kinds (TCP, UDP, ICMP, errors, fragments,
extension headers, super-packets; public and private addresses as source and destination) with some of their
bytes, their lengths or their offload fields spoiled. Deterministic: the seed is in the name of the test.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Packet, Raw

from tests.flows_lab import INSIDE4, INSIDE6, OUTSIDE4, OUTSIDE6, NatNode, nat_lab
from tests.lab.test_engine_flows import tcp, udp

PACKETS = 2500
ENDS = {
    4: (
        INSIDE4,
        OUTSIDE4,
        "203.0.113.0",
        "203.0.113.3",
        "10.0.1.1",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
    ),
    6: (INSIDE6, OUTSIDE6, "2001:db8:9::", "2001:db8:9::3", "fd00:1::1", "::1", "::", "ff02::1"),
}


def transport(draw: random.Random) -> Packet:
    ports = {"sport": draw.choice((0, 1, 53, 1024, 40000, 65535)), "dport": draw.choice((0, 53, 1024, 65535))}
    body = Raw(bytes(draw.choice((0, 1, 7, 8, 100, 1400))))
    if draw.random() < 0.4:
        return TCP(**ports, flags=draw.choice(("S", "SA", "R", "F", "A", "", "SF", "SR", "FSRPAUEC"))) / body
    return UDP(**ports, **({"chksum": 0} if draw.random() < 0.3 else {})) / body


def addressed(draw: random.Random, family: int) -> Packet:
    source, destination = draw.choice(ENDS[family]), draw.choice(ENDS[family])
    hops = draw.choice((0, 1, 2, 64, 255))
    if family == 4:
        fragment = draw.choice((0, 0, 0, 1, 8, 100, 8191))
        flags = draw.choice((0, 0, 1, 2, 3, 4))
        return IP(src=source, dst=destination, ttl=hops, frag=fragment, flags=flags, id=draw.randrange(8))
    made = IPv6(src=source, dst=destination, hlim=hops)
    for _ in range(draw.choice((0, 0, 0, 1, 2, 9))):
        offset, more = draw.choice((0, 1, 8, 8191)), draw.randrange(2)
        made = made / draw.choice(
            (
                IPv6ExtHdrDestOpt(),
                IPv6ExtHdrHopByHop(),
                IPv6ExtHdrFragment(offset=offset, m=more, id=draw.randrange(8)),
                IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=draw.randrange(2)),
            )
        )
    return made


def error(draw: random.Random, family: int) -> Packet:
    quoted = bytes(addressed(draw, family) / transport(draw))
    head = (
        ICMP(type=draw.choice((3, 4, 5, 11, 12)), code=draw.randrange(6))
        if family == 4
        else draw.choice((ICMPv6DestUnreach(), ICMPv6PacketTooBig(mtu=1280)))
    )
    return head / Raw(quoted[: draw.choice((0, 1, 8, 19, 20, 27, 28, 40, 47, 48, 600))])


def packet(draw: random.Random) -> bytes:
    family = draw.choice((4, 6))
    kind = draw.random()
    if kind < 0.2:
        inner = error(draw, family)
    elif kind < 0.3:
        inner = (
            ICMP(type=draw.choice((0, 8, 13, 255)))
            if family == 4
            else ICMPv6EchoRequest(id=draw.randrange(9))
        )
    else:
        inner = transport(draw)
    made = bytearray(bytes(addressed(draw, family) / inner))
    if draw.random() < 0.3:
        del made[draw.randrange(len(made)) :]
    for _ in range(draw.choice((0, 0, 1, 1, 3))):
        if made:
            made[draw.randrange(len(made))] = draw.randrange(256)
    return bytes(made) or b"\x45"


def offload(draw: random.Random, size: int) -> bytes:
    """Mostly none; else fields of which some contradict the packet. The kernel refuses some itself."""
    if draw.random() < 0.7:
        return bytes(10)
    flags, kind = draw.randrange(2), draw.choice((0, 1, 4, 5))
    header, segment = draw.choice((20, 40, 48, 60, size)), draw.choice((1, 8, 100, 1400))
    return struct.pack(
        "=BBHHHH", flags, kind, header, segment, draw.choice((20, 40)), draw.choice((6, 16, 2))
    )


@pytest.fixture
def kind() -> type[NatNode]:
    """Which engine."""
    return NatNode


@pytest.mark.parametrize("seed", [1, 2])
def test_it_goes_on(seed: int, tmp_path: Path, kind: type[NatNode]) -> None:
    with nat_lab(tmp_path, kind) as lab:
        node = lab.a
        node.start()
        node.serve()
        draw = random.Random(seed)
        ends = [tcp(lab, socket.AF_INET, OUTSIDE4), tcp(lab, socket.AF_INET6, OUTSIDE6)]
        with node.doors() as doors:
            went = 0
            for _ in range(PACKETS):
                made = packet(draw)
                with contextlib.suppress(OSError):  # which the kernel does not take
                    went += draw.choice(doors)(offload(draw, len(made)), made) > 0
        assert went > PACKETS // 2
        for client, server in ends:  # the old ones go on
            client.sendall(b"question")
            assert server.recv(8) == b"question"
            server.sendall(b"answer")
            assert client.recv(6) == b"answer"
        assert np.count_nonzero(node.verdicts()) > 15, "few kinds of fate"
        node.close_sessions()
        for family, address in ((socket.AF_INET, OUTSIDE4), (socket.AF_INET6, OUTSIDE6)):
            client, server, at = udp(lab, family, address)  # and new ones come
            ends.append((client, server))
            client.sendto(b"new", at)
            assert server.recv(10) == b"new"
        for pair in ends:
            for end in pair:
                end.close()
