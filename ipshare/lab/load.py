"""The lab's client process: TCP connections, UDP flows or pings to one address, checked byte by byte.

Reads a request (JSON, the fields of traffic.Tcp, Udp or Ping) from its command line and prints the report as
JSON. What is sent is random from a seed; what comes back must be equal, from the expected server, which
must have seen the destination that was addressed and the client that asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any

from ipshare.lab.traffic import (
    CHUNK,
    UDP_MAX,
    Datagram,
    Ping,
    PingReport,
    Record,
    Tcp,
    TcpReport,
    Udp,
    UdpReport,
    open_datagram,
    sealed,
)


class _Verdicts:
    """Counts of one run; each connection or datagram goes into exactly one of them."""

    def __init__(self, expected: tuple[str, ...], address: str) -> None:
        self.expected, self.address = expected, ip_address(address)
        self.counts: Counter[str] = Counter()
        self.servers: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def judge(self, facts: dict[str, Any], own_address: str, *, intact: bool) -> bool:
        self.servers[facts.get("server", "?")] += 1
        where = not self.expected or facts["server"] in self.expected
        restored = ip_address(facts["destination"]) == self.address
        from_us = ip_address(facts["client"]) == ip_address(own_address)
        verdict = (
            "corrupted" if not intact else "misdelivered" if not (where and restored and from_us) else "good"
        )
        self.counts[verdict] += 1
        return verdict == "good"


async def _tcp_one(request: Tcp, number: int, verdicts: _Verdicts) -> Record:
    await asyncio.sleep(request.spread_s * number / max(request.connections, 1))
    started = time.monotonic()
    server, good = "", False
    try:
        async with asyncio.timeout(request.timeout_s):
            facts, own, intact = await _tcp_exchange(request, number)
        server, good = facts["server"], verdicts.judge(facts, own, intact=intact)
    except (OSError, EOFError, TimeoutError, ValueError) as error:
        verdicts.counts["failed"] += 1
        verdicts.errors[type(error).__name__] += 1
    return Record(started, time.monotonic(), server, good)


async def _tcp_exchange(request: Tcp, number: int) -> tuple[dict[str, Any], str, bool]:
    payload = random.Random(request.seed * 1_000_003 + number).randbytes(request.bytes)
    source = (request.sources[number % len(request.sources)], 0) if request.sources else None
    reader, writer = await asyncio.open_connection(
        request.address, request.port, limit=1 << 20, local_addr=source
    )
    try:
        own = writer.get_extra_info("sockname")[0]
        writer.write(json.dumps({"bytes": len(payload), "echo": request.echo}).encode() + b"\n")
        sending = asyncio.create_task(_send(request, payload, writer))
        try:
            echoed = await reader.readexactly(len(payload)) if request.echo else payload
            line = await reader.readline()
        finally:
            sending.cancel()
        if not line:
            raise EOFError("closed before the answer")
        facts = json.loads(line)
        return facts, own, echoed == payload and facts["sha256"] == hashlib.sha256(payload).hexdigest()
    finally:
        writer.close()


async def _send(request: Tcp, payload: bytes, writer: asyncio.StreamWriter) -> None:
    step = max(1, -(-len(payload) // request.chunks)) if request.chunks > 1 else CHUNK
    for at in range(0, len(payload), step):
        if at and request.pause_s:
            await asyncio.sleep(request.pause_s)
        writer.write(payload[at : at + step])
        await writer.drain()


async def _tcp(request: Tcp) -> TcpReport:
    verdicts = _Verdicts(request.expect, request.address)
    started = time.monotonic()
    records = await asyncio.gather(*(_tcp_one(request, n, verdicts) for n in range(request.connections)))
    counts = verdicts.counts
    return TcpReport(
        connections=request.connections,
        completed=counts["good"],
        failed=counts["failed"],
        corrupted=counts["corrupted"],
        misdelivered=counts["misdelivered"],
        bytes=counts["good"] * request.bytes * (1 + request.echo),
        seconds=time.monotonic() - started,
        servers=dict(verdicts.servers),
        errors=dict(verdicts.errors),
        records=tuple(records),
    )


def _connected(address: str, port: int, kind: int, protocol: int = 0) -> socket.socket:
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    client = socket.socket(family, kind, protocol)
    client.connect((address, port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    client.setblocking(False)
    return client


async def _udp(request: Udp, begun: Callable[[], None]) -> UdpReport:
    """Sockets are flows; each sends its datagrams in turn, sizes going round. ``begun``: each sent one."""
    loop = asyncio.get_running_loop()
    verdicts, seen = _Verdicts(request.expect, request.address), Counter[int]()
    make = random.Random(request.seed)
    sent: dict[int, bytes] = {}
    finished = asyncio.Event()
    clients = [_connected(request.address, request.port, socket.SOCK_DGRAM) for _ in range(request.flows)]
    for client in clients:
        # Fragments are wanted where a datagram is larger than the path: the kernel may send them.
        if client.family == socket.AF_INET:
            client.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER = DONT

        def receive(client: socket.socket = client) -> None:
            _udp_receive(client, verdicts, seen, sent)
            if len(seen) == request.flows * request.datagrams:
                finished.set()

        loop.add_reader(client, receive)
    started = time.monotonic()
    total = request.flows * request.datagrams
    for number in range(total):
        sent[number] = make.randbytes(request.sizes[number % len(request.sizes)])
    resent = 0
    for attempt in range(request.attempts):
        for number in [n for n in sent if n not in seen]:
            resent += attempt > 0
            try:
                clients[number % request.flows].send(sealed(Datagram(number, {}, sent[number])))
            except OSError as error:
                verdicts.errors[type(error).__name__] += 1
            if number == request.flows - 1 and not attempt:
                begun()
            await asyncio.sleep(request.pause_s)
        try:
            async with asyncio.timeout(request.timeout_s):
                await finished.wait()
            break
        except TimeoutError:
            verdicts.errors["TimeoutError"] += 1
    for client in clients:
        loop.remove_reader(client)
        client.close()
    return UdpReport(
        sent=len(sent),
        received=verdicts.counts["good"],
        lost=len(sent) - len(seen),
        corrupted=verdicts.counts["corrupted"],
        misdelivered=verdicts.counts["misdelivered"],
        duplicated=sum(seen.values()) - len(seen),
        resent=resent,
        seconds=time.monotonic() - started,
        servers=dict(verdicts.servers),
        errors=dict(verdicts.errors),
    )


def _udp_receive(
    client: socket.socket, verdicts: _Verdicts, seen: Counter[int], sent: dict[int, bytes]
) -> None:
    while True:
        try:
            data = client.recv(UDP_MAX)
        except BlockingIOError:
            return
        except OSError as error:  # an ICMP error about one of ours
            verdicts.errors[type(error).__name__] += 1
            continue
        answer = open_datagram(data)
        if answer is None or not answer.facts.get("whole") or answer.number not in sent:
            verdicts.counts["corrupted"] += 1
            continue
        seen[answer.number] += 1
        if seen[answer.number] == 1:
            verdicts.judge(
                answer.facts, client.getsockname()[0], intact=answer.payload == sent[answer.number]
            )


async def _ping(request: Ping) -> PingReport:
    """ICMP echo on a raw socket: no ping command needed, and a reply from another address is seen."""
    loop = asyncio.get_running_loop()
    four = ip_address(request.address).version == 4
    protocol = socket.IPPROTO_ICMP if four else socket.IPPROTO_ICMPV6
    client = socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_RAW, protocol)
    client.setblocking(False)
    identifier = os.getpid() & 0xFFFF
    payload = random.Random(request.seed).randbytes(request.bytes)
    times: list[float] = []
    counts: Counter[str] = Counter()
    for number in range(request.count):
        head = struct.pack("!BBHHH", 8 if four else 128, 0, 0, identifier, number & 0xFFFF)
        if four:
            head = struct.pack("!BBHHH", 8, 0, _checksum(head + payload), identifier, number & 0xFFFF)
        started = time.monotonic()
        client.sendto(head + payload, (request.address, 0))
        wanted = struct.pack("!HH", identifier, number & 0xFFFF)
        try:
            async with asyncio.timeout(request.timeout_s):
                sender, body = await _echo_reply(loop, client, four, wanted)
        except TimeoutError:
            counts["lost"] += 1
            continue
        verdict = "good" if ip_address(sender) == ip_address(request.address) else "misdelivered"
        counts[verdict if body == payload else "corrupted"] += 1
        times.append((time.monotonic() - started) * 1000)
    client.close()
    rtt = tuple(round(f(times), 3) for f in (min, max)) if times else (0.0, 0.0)
    return PingReport(
        request.count,
        counts["good"],
        counts["lost"],
        counts["corrupted"],
        counts["misdelivered"],
        rtt[0],
        rtt[1],
    )


async def _echo_reply(
    loop: asyncio.AbstractEventLoop, client: socket.socket, four: bool, wanted: bytes
) -> tuple[str, bytes]:
    while True:
        data, sender = await loop.sock_recvfrom(client, UDP_MAX)
        message = data[(data[0] & 15) * 4 :] if four else data
        if message[:1] == (b"\0" if four else b"\x81") and message[4:8] == wanted:
            return sender[0], message[8:]


def _checksum(data: bytes) -> int:
    words: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (
        data[-1] << 8 if len(data) & 1 else 0
    )
    words = (words & 0xFFFF) + (words >> 16)
    return ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF


def main(arguments: list[str]) -> None:
    """KIND REQUEST-AS-JSON [FD]; closes FD when it has begun; prints the report as JSON."""
    kind, fields = arguments[0], json.loads(arguments[1])
    for name in ("expect", "sizes"):
        if name in fields:
            fields[name] = tuple(fields[name])
    report: TcpReport | UdpReport | PingReport

    def begun() -> None:
        if len(arguments) > 2:
            os.close(int(arguments[2]))  # whoever holds the other end reads its end

    if kind == "Udp":
        report = asyncio.run(_udp(Udp(**fields), begun))
    elif kind == "Tcp":
        begun()
        report = asyncio.run(_tcp(Tcp(**fields)))
    else:
        begun()
        report = asyncio.run(_ping(Ping(**fields)))
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main(sys.argv[1:])
