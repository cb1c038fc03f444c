"""etcd_wire: HTTP to members of etcd: a request, and its answer as a whole, by one deadline.

The time that a client of HTTP is given is that of one step: one read, one write, one address of a name. Who
answers byte by byte would get it each time anew. Here the pool of connections is httpcore's, on sockets of
which each step takes what is left until the deadline, by a clock that nobody sets. A request that failed ends
its connection: none is used again in the middle of an answer. What looks names up cannot be stopped: it goes
on in a thread, one for each name, and is waited for at the end. Blocking; one thread asks.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpcore2

MOST_BYTES = 2**24
"""Of an answer; a value is shorter than a request, of which etcd takes 1.5 MiB."""
Addresses = list[tuple[Any, ...]]


class Wire:
    """``tls``: for https."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._sockets = _Sockets()
        self._pool = httpcore2.ConnectionPool(ssl_context=tls, network_backend=self._sockets)

    def close(self) -> None:
        """Waits for a look-up that was given up, as long as the system's resolver tries."""
        self._pool.close()
        self._sockets.names.shutdown()

    def post(self, url: str, content: bytes, share_s: float) -> tuple[int, bytes]:
        """Status and body. Raises TimeoutError, with the step at which it was, and OSError."""
        self._sockets.end = time.monotonic() + share_s
        headers: dict[bytes | str, bytes | str] = {
            "Host": urlsplit(url).netloc,
            "Content-Type": "application/json",
        }
        try:
            with self._pool.stream("POST", url, headers=headers, content=content) as reply:
                self._sockets.step = "in its answer"
                body = bytearray()
                for some in reply.iter_stream():
                    body += some
                    if len(body) > MOST_BYTES:
                        raise OSError(f"its answer is longer than {MOST_BYTES} bytes")
                return reply.status, bytes(body)
        except (TimeoutError, httpcore2.TimeoutException):
            raise TimeoutError(self._sockets.step) from None
        except (OSError, UnicodeError, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise OSError(str(error) or type(error).__name__) from None


class _Sockets(httpcore2.NetworkBackend):
    """``end``: of the request, as time.monotonic() says it. ``step``: what it does."""

    def __init__(self) -> None:
        self.end, self.step = 0.0, ""
        self.names = ThreadPoolExecutor(thread_name_prefix="names")
        self._asked: dict[str, Future[Addresses]] = {}
        self._plain = httpcore2.SyncBackend()

    def left_s(self) -> float:
        left_s = self.end - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        self.step = "looking up its name"
        found = self._look_up(host)
        self.step = "connecting"
        for index, (*_, address) in enumerate(found):
            share_s = self.left_s() / (len(found) - index)
            try:
                return _Line(self._plain.connect_tcp(address[0], port, share_s, None, socket_options), self)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if index == len(found) - 1:
                    raise
        raise OSError(f"{host} has no address")

    def _look_up(self, host: str) -> Addresses:
        words: dict[str, Any] = {"host": host, "port": None, "type": socket.SOCK_STREAM}
        try:
            return socket.getaddrinfo(**words, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:  # a name
            look_up = self._asked.pop(host, None) or self.names.submit(socket.getaddrinfo, **words)
        try:
            return look_up.result(self.left_s())
        except TimeoutError:
            self._asked[host] = look_up  # the next request goes on with it
            raise


class _Line(httpcore2.NetworkStream):
    """A connection."""

    def __init__(self, inner: httpcore2.NetworkStream, sockets: _Sockets) -> None:
        self._inner, self._sockets = inner, sockets

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._sockets.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._sockets.step = "sending"
        line, rest = self._inner.get_extra_info("socket"), memoryview(buffer)
        while rest:
            line.settimeout(self._sockets.left_s())
            try:
                rest = rest[line.send(rest) :]
            except TimeoutError:
                raise
            except OSError as error:
                raise httpcore2.WriteError(error) from error  # it may have said why
        self._sockets.step = "waiting for its answer"

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        self._sockets.step = "beginning TLS"
        try:
            inner = self._inner.start_tls(ssl_context, server_hostname, self._sockets.left_s())
        except BaseException:
            self.close()
            raise
        return _Line(inner, self._sockets)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
