"""server: uvicorn's HTTP protocol in the director's event loop, over TLS of our own.

Client certificates are asked for and may be left out; uvicorn shows none to an application, so a protocol of
our own puts it beside the request. Certificates and the list of revocations are read again when they change
(ipshare.certs.contexts): a connection from before ends at its next request. Who fails in the handshake is
counted and logged. Bounded: connections, time of a handshake, time until a request is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import uvicorn
from h11 import Data, EndOfMessage, LocalProtocolError, Response
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ipshare.certs.contexts import Contexts, Files, why_refused
from ipshare.director.config_http import HttpSettings
from ipshare.director.daemon import Director
from ipshare.director.desk import Desk
from ipshare.errors import IpshareError
from ipshare.web import app
from ipshare.web.audit import Trail
from ipshare.web.beside_states import states
from ipshare.web.hub import Hub
from ipshare.web.problems import MEDIA, Failure
from ipshare.web.server_peer import peer_of
from ipshare.web.tokens import TokenFile
from ipshare.web.watch import Watch
from ipshare.web.who import Doorkeeper

log = logging.getLogger(__name__)
HANDSHAKE_S, HEAD_S, IDLE_S = 5.0, 10.0, 30.0
ENDING_S = 5.0
MOST_CONNECTIONS = 256
MAX_HEAD = 64 << 10


class Protocol(H11Protocol):
    """``is_fresh``: whether the certificates that it was met with are those of now."""

    is_fresh: Callable[[], bool]
    held: asyncio.StreamWriter | None = None
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {"peer": peer_of(transport.get_extra_info("peercert")), "is_fresh": self.is_fresh}
        self._waiting = self.loop.call_later(HEAD_S, self._no_request)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        is_between = self.cycle is None or self.cycle.response_complete
        if is_between and not self.is_fresh():
            self.transport.close()
            return
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        answer = Failure(400, "that is no HTTP request", "see RFC 9112").response()
        headers = [
            ("content-type", MEDIA),
            ("connection", "close"),
            ("content-length", str(len(answer.body))),
        ]
        with contextlib.suppress(LocalProtocolError):  # an answer is under way
            for part in (
                Response(status_code=400, headers=headers),
                Data(bytes(answer.body)),
                EndOfMessage(),
            ):
                self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def _no_request(self) -> None:
        """A connection on which the head of a first request takes too long."""
        if self.cycle is None and not self.transport.is_closing():
            self.transport.abort()


class WebServer:
    """Serves the director over HTTP as ``settings`` say."""

    def __init__(self, director: Director, desk: Desk, settings: HttpSettings) -> None:
        self.settings, files = settings, director.settings.files
        self.tokens = TokenFile(settings.tokens)
        self.hub = Hub(
            director, desk, Watch(director, partial(states, desk)), Doorkeeper(self.tokens),
            Trail(director.settings.state_dir),
        )  # fmt: skip
        self.contexts: Contexts | None = None
        if settings.certificate is not None:
            own = Files(files.ca, settings.certificate, files.revoked)
            self.contexts = Contexts(own, server=True, optional=True)
        self._config = uvicorn.Config(
            app.make(self.hub), http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=int(IDLE_S),
            h11_max_incomplete_event_size=MAX_HEAD,
        )  # fmt: skip
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._arriving = 0
        self._said_s = 0.0

    async def start(self) -> None:
        """Raises IpshareError where it cannot listen, or has no certificate."""
        self._config.load()
        if self.contexts is not None:
            self.contexts.current()
        self.tokens.current()
        if self.tokens.trouble:
            log.error("nobody gets in by a token: %s", self.tokens.trouble)
        host, port = self.settings.host, self.settings.port
        try:
            self._server = await asyncio.start_server(self._arrive, host, port, backlog=256)
        except OSError as error:
            text = f"cannot listen at {host} port {port}: {error.strerror}"
            raise IpshareError(text, hint="see listen in [http]") from None
        self.hub.watch.start()
        log.info("HTTP at %s", self.url)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for one in list(self._state.connections):
            one.transport.abort()
        if tasks := list(self._state.tasks):  # they see that their caller is gone
            await asyncio.wait(tasks, timeout=ENDING_S)
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        await self.hub.watch.stop()

    @property
    def port(self) -> int:
        assert self._server is not None, "it has started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http{'s' if self.contexts is not None else ''}://{host}:{self.port}"

    # ---- inside ---------------------------------------------------------------

    async def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection: its handshake, then it is uvicorn's."""
        self._arriving += 1
        try:
            await self._meet(reader, writer)
        except (OSError, TimeoutError):
            writer.transport.abort()
        finally:
            self._arriving -= 1

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("?",))[0])
        if len(self._state.connections) + self._arriving > MOST_CONNECTIONS:
            return self._refused(writer, "too_many_connections", address, "too many connections")
        contexts, context = self.contexts, None
        if contexts is not None:
            context = contexts.current()
            try:
                await writer.start_tls(context, ssl_handshake_timeout=HANDSHAKE_S)
            except (ssl.SSLError, OSError, TimeoutError) as error:
                return self._refused(writer, "tls", address, why_refused(error))
        loop, transport = asyncio.get_running_loop(), cast(asyncio.Transport, writer.transport)
        protocol = Protocol(self._config, self._state, {}, _loop=loop)
        protocol.held = writer  # it closes its connection when nobody holds it
        protocol.is_fresh = lambda: contexts is None or contexts.current() is context
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        reader.feed_eof()
        if early := await reader.read():  # came with the end of the handshake
            protocol.data_received(early)
        return None

    def _refused(self, writer: asyncio.StreamWriter, kind: str, address: str, why: str) -> None:
        refused = self.hub.door.refused
        refused[kind] = refused.get(kind, 0) + 1
        if time.monotonic() - self._said_s >= 1:
            self._said_s = time.monotonic()
            log.warning("refused %s: %s", address, why)
        writer.transport.abort()
