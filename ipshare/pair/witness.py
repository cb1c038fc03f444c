"""A witness as a process: questions of both nodes over UDP, each in a sealed channel of its own; one thread.

A judge decides: ipshare.pair.witness_node on a third machine, ipshare.pair.witness_etcd beside each node. An
answer names its question, so one that comes late counts for the node from when it asked. Nothing that is not
authentic is answered but by the handshake of the channel.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ipshare.core.seal import WITNESS, Seal
from ipshare.core.witness import ASK, RELEASE, Message, decode
from ipshare.errors import IpshareError
from ipshare.model import Address

log = logging.getLogger(__name__)
HELLO_S, SILENCE_S, TURN_S = 0.1, 3.0, 0.05
ROOM = 2048
NODES = (1, 2)


class Judge(Protocol):
    """Who decides. Both are called in one thread and may take their time; the node asks again."""

    def ask(self, node: int, question: Message) -> Message:
        """The answer; what it promises is kept whatever becomes of this process."""

    def release(self, node: int, question: Message) -> None:
        """The node does not use that grant any more."""


def now_ns() -> int:
    """CLOCK_BOOTTIME: it goes on while the machine sleeps, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Witness:
    """Listens at once; ``run`` answers until ``ended`` says so. Raises IpshareError: cannot listen there."""

    def __init__(self, listen: tuple[Address, int], key: bytes, judge: Judge) -> None:
        address, port = listen
        self._judge = judge
        self._seals = {
            node: Seal("witness", str(node), key, hello_s=HELLO_S, silence_s=SILENCE_S) for node in NODES
        }
        self._has_refused = False
        self._at: dict[int, tuple[object, ...]] = {}
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.bind((str(address), port))
        except OSError as error:
            self._socket.close()
            message = f"cannot listen on {address} port {port}: {error.strerror}"
            raise IpshareError(
                message, hint="is another witness there? is it this machine's address?"
            ) from None
        self._socket.setblocking(False)

    @property
    def port(self) -> int:
        """The one that it listens on: another one than asked for, where that was 0."""
        return int(self._socket.getsockname()[1])

    def run(self, ended: Callable[[], bool]) -> None:
        """Answers; looks at ``ended`` at least 20 times a second."""
        with self._socket:
            while not ended():
                select.select([self._socket], [], [], TURN_S)
                with suppress(BlockingIOError):
                    while True:
                        self._take(*self._socket.recvfrom(ROOM))
                self._tick()

    def _take(self, datagram: bytes, sender: tuple[object, ...]) -> None:
        for node, seal in self._seals.items():
            is_its, kind, content = seal.open(datagram, now_ns())
            if is_its:
                self._at[node] = sender
                question = decode(content) if kind == WITNESS else None
                if question is not None:
                    self._answer(node, question)
                return
        if not self._has_refused:
            log.warning("%s sent what is sealed with another key, or is no node of this pair", sender[0])
        self._has_refused = True

    def _answer(self, node: int, question: Message) -> None:
        if question.kind == RELEASE:
            self._judge.release(node, question)
        elif question.kind == ASK:
            answer = self._judge.ask(node, question)
            self._send(node, self._seals[node].wrap(WITNESS, answer.encode(), now_ns()))

    def _tick(self) -> None:
        for node, seal in self._seals.items():
            if node in self._at:  # before it has spoken there is nobody to greet
                for datagram in seal.due(now_ns()):
                    self._send(node, datagram)

    def _send(self, node: int, datagram: bytes) -> None:
        with suppress(OSError):  # lost, as any datagram may be
            if datagram:
                self._socket.sendto(datagram, self._at[node])
