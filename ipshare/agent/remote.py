"""remote: the agent's door to the network: the messages of the control socket, over TLS 1.3.

Both ends show certificates of one authority; the caller's says its role (ipshare.certs.identity), and the
role says which verbs it may use: a director changes what a director decides, an operator looks. Who has no
good certificate, or a role that does not get in, is counted, logged (a line a second at most), and gone.
Bounded: connections, time of a handshake, size of a message, time of silence. Certificates and the list of
revocations are read again when they change; connections from before end with the next answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ipshare.agent.server import Asker, Handler, converse, refusal
from ipshare.certs.contexts import Contexts, Files, why_refused
from ipshare.certs.identity import Identity, Role, of_peer
from ipshare.errors import IpshareError, NoPrivilege
from ipshare.model import Remote

log = logging.getLogger(__name__)
MAX_LINE = 16 << 20
"""Bytes of a message: an assignment with some hundred thousand bindings."""
MAX_CLIENTS = 64
HANDSHAKE_S = 5.0
IDLE_S = 60.0
LOOKS = frozenset(
    {"assigned", "status", "seen", "bgp", "remap_look", "remap_list", "remap_state", "remap_flows"}
)
MIGRATES = frozenset(f"migrate_{step}" for step in ("check", "expect", "start", "state", "cancel", "clear"))
VERBS: dict[str, frozenset[str]] = {
    Role.DIRECTOR: LOOKS
    | MIGRATES
    | {"assign", "watch", "news", "fence", "drain", "remap_set", "remap_bind", "remap_clear"},
    Role.OPERATOR: LOOKS,
}
"""What each role may say."""


@dataclass(frozen=True, slots=True)
class RemoteCaller:
    """Who is at the other end, by certificate."""

    who: Identity
    address: str

    @property
    def is_owner(self) -> bool:
        return False

    @property
    def may_assign(self) -> bool:
        return self.who.role is Role.DIRECTOR

    def __str__(self) -> str:
        return f"{self.who} at {self.address}"


class RemoteServer:
    """Serves ``handle`` where [remote] says. ``note`` (topic, text): what is wrong; "": nothing."""

    def __init__(self, handle: Handler, note: Callable[[str, str], None]) -> None:
        self._handle, self._note = handle, note
        self.counters: Counter[str] = Counter()
        self._remote: Remote | None = None
        self._contexts: Contexts | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._said_s = 0.0

    async def follow(self, remote: Remote | None) -> None:
        """Listens as ``remote`` says from now on. What keeps it from that is noted."""
        async with self._changing:
            if remote != self._remote or (remote is not None and self._server is None):
                await self._close()
                try:
                    await self._open(remote)
                    self._note("remote", "")
                except (IpshareError, OSError) as error:
                    self._note("remote", f"nobody can reach this node over the network: {error}")

    async def close(self) -> None:
        async with self._changing:
            await self._close()

    @property
    def port(self) -> int:
        """Where it listens; 0: nowhere."""
        port: int = self._server.sockets[0].getsockname()[1] if self._server is not None else 0
        return port

    def report(self) -> dict[str, Any] | None:
        """None: there is no such door."""
        if self._remote is None:
            return None
        host, port = self._remote.listen
        trouble = self._contexts.trouble if self._contexts is not None else ""
        return {"listen": f"{host} port {port}", "trouble": trouble, "counters": dict(self.counters)}

    async def _open(self, remote: Remote | None) -> None:
        self._remote = remote
        if remote is None:
            return
        contexts = Contexts(Files(remote.ca, remote.certificate, remote.revoked), server=True)
        contexts.current()
        host, port = remote.listen
        self._contexts = contexts
        self._server = await asyncio.start_server(self._serve, str(host), port, limit=MAX_LINE)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection is served by a task"
        self._clients.add(task)
        address = str((writer.get_extra_info("peername") or ("?",))[0])
        try:
            if len(self._clients) > MAX_CLIENTS:
                return self._refused("too_many", address, "too many callers")
            await self._meet(reader, writer, address)
        except (OSError, asyncio.CancelledError, TimeoutError):
            pass
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(HANDSHAKE_S):
                    await writer.wait_closed()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        remote, contexts = self._remote, self._contexts
        if remote is None or contexts is None:
            return None
        context = contexts.current()
        try:
            await writer.start_tls(context, ssl_handshake_timeout=HANDSHAKE_S)
        except (ssl.SSLError, OSError, TimeoutError) as error:
            return self._refused("tls", address, why_refused(error))
        certificate = writer.get_extra_info("peercert")
        try:
            caller = RemoteCaller(of_peer(certificate), address)
            if caller.who.role not in remote.roles:
                raise NoPrivilege(f"{caller.who} does not get in here", hint="see roles in [remote]")
        except IpshareError as error:
            self._refused("role", address, error.message)
            writer.write(refusal(error))
            return await writer.drain()
        self.counters["connections"] += 1
        ends_s = ssl.cert_time_to_seconds(certificate["notAfter"])

        def goes_on() -> bool:
            return contexts.current() is context and time.time() < ends_s

        await converse(
            reader, writer, caller, self._judged, max_line=MAX_LINE, idle_s=IDLE_S, goes_on=goes_on
        )
        return None

    async def _judged(self, caller: Asker, request: dict[str, Any]) -> dict[str, Any]:
        assert isinstance(caller, RemoteCaller), "a connection over the network has one"
        if request["verb"] not in VERBS[caller.who.role]:
            self._refused("verb", caller.address, f"{caller.who} may not say {request['verb']!r}"[:200])
            may = ", ".join(sorted(VERBS[caller.who.role]))
            raise NoPrivilege(
                f"a certificate of role {caller.who.role} does not allow that", hint=f"it allows {may}"
            )
        self.counters["requests"] += 1
        return await self._handle(caller, request)

    def _refused(self, kind: str, address: str, why: str) -> None:
        self.counters[f"refused_{kind}"] += 1
        if time.monotonic() - self._said_s >= 1:
            self._said_s = time.monotonic()
            log.warning("refused %s: %s", address, why)
