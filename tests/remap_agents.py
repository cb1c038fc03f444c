"""Remaps in the standard lab with its agents: how they are asked for, connections that speak all the while.

``Talkers`` are connections (and UDP flows) of clients, each with a thread that says something, waits until
it has come back, and begins anew: nothing here goes by time. The servers are those of ipshare/lab/serve.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ipshare.api import Node
from ipshare.lab.agents import start_agent
from ipshare.lab.internet import global_ip
from ipshare.lab.lab import Lab
from ipshare.lab.traffic import PORT, Datagram, open_datagram, sealed
from ipshare.remap import remap
from ipshare.remap.machine import Progress
from tests.pair_lab import until

PREFIXES = tuple(f"{global_ip('a1', family)}/{32 if family == 4 else 128}" for family in (4, 6))
ESTABLISHED = "01"  # net/tcp_states.h
SILENT_S = 60.0
SAID = bytes(range(256)) * 2


def sockets(lab: Lab) -> dict[str, Any]:
    return {name: lab.directory / name / "run" for name in "ABCD"}


def move(lab: Lab, prefix: str, origin: str, to: str, **options: Any) -> Progress:
    said = {"nodes": sockets(lab), "silence_s": 0.0, "journal": lab.directory / "remaps"}
    return remap(prefix, origin=origin, to=to, **{**said, **options})


def halves(lab: Lab) -> list[dict[str, Any]]:
    """Of both end points."""
    found = []
    for name in "AB":
        with Node(lab.site_file(name)) as node:
            found += node.remaps()["halves"]
    return found


def established(lab: Lab, server: str) -> int:
    """Connections that the lab's server on this node has, by its kernel."""

    def count() -> int:
        lines = [
            line.split()
            for file in ("tcp", "tcp6")
            for line in Path(f"/proc/thread-self/net/{file}").read_text().splitlines()[1:]
        ]
        return sum(words[1].endswith(f":{PORT:04X}") and words[3] == ESTABLISHED for words in lines)

    return lab.inside(server, count)


# ---- processes of the lab's nodes ---------------------------------------------------------


def _pids(*words: str) -> list[int]:
    """Of processes whose command line has all of these, each as one of its words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if set(words) <= set(path.read_bytes().decode(errors="replace").split("\0")):
                found.append(int(path.parent.name))
    return found


def kill_engine(lab: Lab, node: str) -> None:
    """SIGKILL; its agent starts another."""
    (pid,) = _pids("--socket", str(lab.directory / node / "run" / "engine.sock"))
    os.kill(pid, signal.SIGKILL)


def kill_agent(lab: Lab, node: str) -> threading.Thread:
    """SIGKILL; the thread has started another one when it ends."""
    file = lab.site_file(node)
    for pid in _pids("agent", str(file)):
        os.kill(pid, signal.SIGKILL)

    def start() -> None:
        lab._processes.append(start_agent(lab, node, file))  # ended with the lab

    thread = threading.Thread(target=start)
    thread.start()
    return thread


# ---- connections that speak ---------------------------------------------------------------


@dataclass
class Talker:
    """``servers``: who has answered; ``fault``: what broke it; ``rounds``: how often it has spoken."""

    client: socket.socket
    is_tcp: bool
    servers: set[str] = field(default_factory=set)
    rounds: int = 0
    fault: str = ""

    def run(self, stop: threading.Event) -> None:
        try:
            if self.is_tcp:
                self.client.sendall(b'{"bytes": 1000000000, "echo": true}\n')
            while not stop.is_set():
                self._speak()
                self.rounds += 1
                stop.wait(0.02)  # not as fast as the machine can
        except (OSError, AssertionError) as error:
            self.fault = f"{type(error).__name__}: {error} after {self.rounds} rounds"
        finally:
            self.client.close()

    def _speak(self) -> None:
        if not self.is_tcp:
            return self._datagram()
        self.client.sendall(SAID)
        back = b""
        while len(back) < len(SAID):
            more = self.client.recv(len(SAID) - len(back))
            assert more, "closed by the server"
            back += more
        assert back == SAID, "corrupted"
        return None

    def _datagram(self) -> None:
        """Until it is answered: one may be lost."""
        number = self.rounds & 0xFFFFFFFF
        for _ in range(int(SILENT_S)):
            self.client.send(sealed(Datagram(number, {}, SAID)))
            with contextlib.suppress(TimeoutError):
                while True:
                    answer = open_datagram(self.client.recv(65536))
                    assert answer is not None, "corrupted"
                    self.servers.add(answer.facts["server"])
                    if answer.number == number:
                        return
        raise TimeoutError("nobody answers")


@dataclass
class Talkers:
    """All of one test."""

    each: list[Talker] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def faults(self) -> list[str]:
        return [talker.fault for talker in self.each if talker.fault]

    @property
    def servers(self) -> set[str]:
        """Who has answered flows of UDP."""
        return {server for talker in self.each for server in talker.servers}

    def hush(self) -> None:
        """Each speaks once more; then they are closed by their clients."""
        if self.stop.is_set():
            return
        now = [talker.rounds for talker in self.each]
        until(lambda: all(t.rounds > n + 1 or t.fault for t, n in zip(self.each, now, strict=True)))
        self.stop.set()


@contextlib.contextmanager
def talkers(
    lab: Lab, clients: tuple[str, ...], families: tuple[int, ...] = (4, 6), *, tcp: int = 2, udp: int = 1
) -> Iterator[Talkers]:
    """So many of each client and family; the block begins when all have spoken."""
    made = Talkers()
    for client in clients:
        for family in families:
            for number in range(tcp + udp):
                made.each.append(Talker(_connected(lab, client, family, number < tcp), number < tcp))
    threads = [threading.Thread(target=talker.run, args=(made.stop,)) for talker in made.each]
    for thread in threads:
        thread.start()
    try:
        until(lambda: all(talker.rounds or talker.fault for talker in made.each))
        yield made
    finally:
        made.stop.set()
        for thread in threads:
            thread.join()


def _connected(lab: Lab, client: str, family: int, is_tcp: bool) -> socket.socket:
    address = str(global_ip("a1", family))
    kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
    net = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    made = lab.inside(client, lambda: socket.socket(net, kind))
    made.settimeout(SILENT_S if is_tcp else 1.0)
    made.connect((address, PORT))
    return made


def server_of(lab: Lab, client: str, address: str) -> str:
    """Who answers a new connection."""
    made = _connected(lab, client, ip_address(address).version, True)
    with made, made.makefile("rwb") as file:
        file.write(b'{"bytes": 5, "echo": true}\nhello')
        file.flush()
        assert file.read(5) == b"hello"
        return str(json.loads(file.readline())["server"])
