"""The lab's server process: TCP and UDP, on every address of its namespace, telling what it saw.

TCP: the client sends a line of JSON ({"bytes": n, "echo": bool}) and n bytes; back come the same bytes, if
wanted, and a line with their SHA-256, the destination address that arrived and the client's address. UDP: a
datagram is answered with its own content behind the same facts. One process, one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import socket
import struct
import sys

from ipshare.lab.traffic import CHUNK, UDP_MAX, Datagram, open_datagram, sealed

_PKTINFO4 = 8  # IP_PKTINFO
_IN6_PKTINFO = struct.Struct("@16sI")


async def _serve_tcp(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        request = json.loads(await reader.readline())
        digest, left = hashlib.sha256(), request["bytes"]
        while left:
            data = await reader.read(min(left, CHUNK))
            if not data:
                return
            digest.update(data)
            left -= len(data)
            if request["echo"]:
                writer.write(data)
                await writer.drain()
        seen = {
            "server": name,
            "sha256": digest.hexdigest(),
            "destination": writer.get_extra_info("sockname")[0],
            "client": writer.get_extra_info("peername")[0],
        }
        writer.write(json.dumps(seen).encode() + b"\n")
        await writer.drain()
    except (ConnectionError, TimeoutError, ValueError, OSError):
        pass  # the client counts what it did not get
    finally:
        writer.close()


def _answer_udp(name: str, family: int, server: socket.socket) -> None:
    while True:
        try:
            data, control, _, sender = server.recvmsg(UDP_MAX, socket.CMSG_SPACE(64))
        except BlockingIOError:
            return
        (level, kind, info), *_ = control
        destination = (
            socket.inet_ntop(socket.AF_INET, info[8:12])
            if family == 4
            else socket.inet_ntop(socket.AF_INET6, info[:16])
        )
        request = open_datagram(data)
        facts = {
            "server": name,
            "destination": destination,
            "client": sender[0],
            "whole": request is not None,
        }
        if request is None:
            request = Datagram(0xFFFFFFFF, {}, b"")
        answer = sealed(Datagram(request.number, facts, request.payload))
        # From the address that it came to: with several addresses the kernel would choose another one.
        source = struct.pack("=i4s4x", 0, info[8:12]) if family == 4 else _IN6_PKTINFO.pack(info[:16], 0)
        try:
            server.sendmsg([answer], [(level, kind, source)], 0, sender)
        except OSError:
            return  # no route, queue full: lost, and the client counts it


def _udp_socket(family: int, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    if family == 4:
        server.setsockopt(socket.IPPROTO_IP, _PKTINFO4, 1)
    else:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    server.bind(("" if family == 4 else "::", port))
    server.setblocking(False)
    return server


async def _main(name: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    for family in (4, 6):
        server = _udp_socket(family, port)
        loop.add_reader(server, _answer_udp, name, family, server)
    tcp = await asyncio.start_server(
        lambda reader, writer: _serve_tcp(name, reader, writer),
        host=["0.0.0.0", "::"],
        port=port,
        backlog=4096,
    )
    print("serving", flush=True)
    async with tcp:
        await tcp.serve_forever()


def main(arguments: list[str]) -> None:
    """--name NAME --port PORT; prints a line when it serves."""
    parser = argparse.ArgumentParser(prog="ipshare.lab.serve")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    asyncio.run(_main(options.name, options.port))


if __name__ == "__main__":
    main(sys.argv[1:])
