"""The impairment relay: a process between two ends of a lab link, on AF_PACKET sockets of both.

It reads frames of one device, hands them to a Channel (lab/impair.py) and writes what the Channel lets go to
the other device. Started by the lab in a namespace of its own; a line of JSON on its Unix socket,
{"link": "r1-r2", "set": {"loss": 0.1}}, changes settings; without "set" it asks. Answer: settings and counts.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ipshare.lab.impair import Channel, Impairment

_ETH_P_ALL = 0x0003
_SOL_PACKET, _ADD_MEMBERSHIP, _IGNORE_OUTGOING, _PROMISC = 263, 1, 23, 1
_FRAME_BYTES = 65536 + 32
_BATCH = 64  # frames read from one device before the others get their turn
_BUFFER_BYTES = 16 << 20


class Port:
    """One device of the relay, and the channel that its frames enter."""

    def __init__(self, device: str, channel: Channel) -> None:
        self.channel = channel
        self.peer: Port = self
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        for size in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.socket.setsockopt(socket.SOL_SOCKET, size, _BUFFER_BYTES)
        self.socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self.socket.bind((device, 0))
        index = socket.if_nametoindex(device)
        self.socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("iHH8x", index, _PROMISC, 0))
        self.socket.setblocking(False)

    def receive(self) -> None:
        """Takes what is there, at most a batch."""
        receive, push = self.socket.recv, self.channel.push
        now = time.monotonic()
        try:
            for _ in range(_BATCH):
                push(now, receive(_FRAME_BYTES))
        except BlockingIOError:
            pass

    def release(self, now: float) -> None:
        """Sends what is due by the other device."""
        send = self.peer.socket.send
        for frame in self.channel.pop(now):
            try:
                send(frame)
            except BlockingIOError:
                self.channel.counts["unsent"] += 1


class Relay:
    """All impaired links of a lab. links: name -> (device towards a, device towards b, settings)."""

    def __init__(self, links: dict[str, tuple[str, str, Impairment]], control: Path) -> None:
        self.ports: dict[str, tuple[Port, Port]] = {}
        self.selector = selectors.DefaultSelector()
        for name, (device_a, device_b, settings) in links.items():
            a, b = Port(device_a, Channel(settings, 0)), Port(device_b, Channel(settings, 1))
            a.peer, b.peer = b, a
            self.ports[name] = (a, b)
            for port in (a, b):
                self.selector.register(port.socket, selectors.EVENT_READ, port.receive)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(control))
        self.listener.listen()
        self.selector.register(self.listener, selectors.EVENT_READ, self._answer)
        self._all = [port for pair in self.ports.values() for port in pair]

    def run(self) -> None:
        """For ever; the lab ends the process."""
        while True:
            dues = [due for port in self._all if (due := port.channel.next_due()) is not None]
            timeout = max(0.0, min(dues) - time.monotonic()) if dues else None
            for key, _ in self.selector.select(timeout):
                key.data()
            now = time.monotonic()
            for port in self._all:
                port.release(now)

    def _answer(self) -> None:
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rw") as file:
            connection.settimeout(1.0)
            try:
                reply = self._command(json.loads(file.readline()))
            except (ValueError, KeyError, TypeError, OSError) as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            file.write(json.dumps(reply) + "\n")

    def _command(self, request: dict[str, Any]) -> dict[str, Any]:
        pair = self.ports[request["link"]]
        settings = replace(pair[0].channel.settings, **request.get("set", {}))
        for port in pair:
            port.channel.configure(settings)
        return {"settings": asdict(settings), "counts": [dict(port.channel.counts) for port in pair]}


def main(arguments: list[str]) -> None:
    """CONTROL-SOCKET LINKS-AS-JSON; prints a line when it relays."""
    links = {
        name: (a, b, Impairment(**settings)) for name, (a, b, settings) in json.loads(arguments[1]).items()
    }
    relay = Relay(links, Path(arguments[0]))
    print("relaying", flush=True)
    relay.run()


if __name__ == "__main__":
    main(sys.argv[1:])
