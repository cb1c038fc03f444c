"""link: one node's agent, over TLS: a question, an answer, one at a time on one connection.

An answer that did not come says nothing about what was done: ``Silent``. The connection is then given up; the
next question makes another. Who answers has to be the node that was meant, by its certificate: while that is
good, and while our files (the list of revocations, too) are those that it was judged by.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from typing import Any

from ipshare.agent.client import error_of
from ipshare.certs.contexts import Contexts, why_refused
from ipshare.certs.identity import Identity, Role, of_peer
from ipshare.errors import IpshareError

MEET_S = 5.0
MOST_ANSWER = 1 << 20
"""Bytes."""


class Silent(IpshareError):
    """No answer: what was asked may have been done."""


class Link:
    """To node ``name`` at ``address`` ("10.0.0.1:7443", "[2001:db8::1]:7443")."""

    def __init__(self, name: str, address: str, contexts: Contexts) -> None:
        self.name, self.address, self._contexts = name, address, contexts
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._judged: ssl.SSLContext | None = None  # by which who answers was let in
        self._ends_s = 0.0  # of its certificate, wall clock

    async def ask(
        self, verb: str, timeout_s: float, bar: Callable[[], str] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """The result. Raises Silent, or what the agent answered. ``bar`` is asked right before it is sent:
        why it may not be."""
        try:
            async with asyncio.timeout(timeout_s):
                self._end_if_over()
                reader, writer = self._streams or await self._meet()
                if bar is not None and (why := bar()):
                    raise Silent(f"nothing was sent: {why}")
                writer.write(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
                await writer.drain()
                line = await reader.readline()
                reply = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ssl.SSLError, TimeoutError, ValueError) as error:
            self.close()
            raise Silent(_why(error)) from None
        except BaseException:
            self.close()
            raise
        if not isinstance(reply, dict):
            self.close()
            raise Silent("it ended the connection")
        try:
            if not reply["ok"]:
                raise error_of(reply["error"])
            result: dict[str, Any] = reply["result"]
        except (KeyError, TypeError):
            self.close()
            raise Silent(_why(ValueError())) from None
        return result

    def _end_if_over(self) -> None:
        """A connection from before its certificate ended, or the list of revocations changed."""
        if self._streams and (self._contexts.current() is not self._judged or time.time() >= self._ends_s):
            self.close()

    def close(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.transport.abort()

    async def _meet(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.address.rpartition(":")
        self._judged = self._contexts.current()
        reader, writer = await asyncio.open_connection(
            host.strip("[]"),
            int(port),
            ssl=self._judged,
            server_hostname="",
            ssl_handshake_timeout=MEET_S,
            limit=MOST_ANSWER,
        )
        self._streams = reader, writer
        certificate = writer.get_extra_info("peercert")
        who, self._ends_s = of_peer(certificate), ssl.cert_time_to_seconds(certificate["notAfter"])
        if who != Identity(Role.NODE, self.name):
            self.close()
            raise Silent(f"at {self.address} answers {who}, not node {self.name}")
        return self._streams


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return why_refused(error)
    if isinstance(error, OSError):
        return (error.strerror or str(error) or "the connection broke").lower()
    return "it answers something that is no answer"
