"""Members of an etcd that answer badly, on loopback: not, byte by byte, half, too much, nonsense."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

from tests.etcd_tls import TlsFiles

DRIP_S, DRIPS = 0.02, 1000
"""An answer that drips is whole after 20 s."""
PATIENCE_S = 20.0
"""A member waits so long for the client to send, or to leave."""
WAIT_S = 60.0
Manner = Callable[["Member", socket.socket], None]


class Member:
    """Listens at ``url``. ``manners``: of its connections, in turn; the last one of all that follow."""

    def __init__(self, *manners: Manner, scheme: str = "http") -> None:
        self._manners = manners
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        self.ended = threading.Event()
        self._left = threading.Semaphore(0)
        self.connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.hang_up()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def hang_up(self) -> None:
        """Ends what connections there are."""
        for one in self.connections:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def threads(self) -> set[threading.Thread]:
        return set(self._threads)

    def is_left(self) -> bool:
        """The client has closed one more connection, or does it now, before the member's patience ended."""
        self.ended.set()
        return self._left.acquire(timeout=WAIT_S)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                manner = self._manners[min(self.accepted, len(self._manners) - 1)]
                self.accepted += 1
                self.connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection, manner)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket, manner: Manner) -> None:
        connection.settimeout(PATIENCE_S)
        with connection:
            try:
                manner(self, connection)
                while connection.recv(65536):
                    pass
            except TimeoutError:
                return
            except OSError:
                pass
        self._left.release()


def silent(member: Member, connection: socket.socket) -> None:
    """It takes what is sent, and says nothing."""


def deaf(member: Member, connection: socket.socket) -> None:
    """It takes nothing."""
    if not member.ended.wait(PATIENCE_S):
        raise TimeoutError


def says(status: str, text: str) -> Manner:
    """To everything that it is asked."""

    def answer(member: Member, connection: socket.socket) -> None:
        while _asked(connection):
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n"
            connection.sendall((head + text).encode())

    return answer


good = says("200 OK", "{}")


def over_tls(files: TlsFiles, manner: Manner) -> Manner:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.server)

    def inside(member: Member, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            member.connections.append(tls)
            manner(member, tls)

    return inside


def closes(member: Member, connection: socket.socket) -> None:
    """When it was asked."""
    _asked(connection)
    connection.shutdown(socket.SHUT_RDWR)


def half(member: Member, connection: socket.socket) -> None:
    _asked(connection)
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"succ')


def drips_its_head(member: Member, connection: socket.socket) -> None:
    while _asked(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: ")
        _drip(member, connection)
        connection.sendall(b"\r\n\r\n{}")


def drips_its_body(member: Member, connection: socket.socket) -> None:
    while _asked(connection):
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {DRIPS + 2}\r\n\r\n".encode())
        _drip(member, connection)
        connection.sendall(b"{}")


def long(member: Member, connection: socket.socket) -> None:
    """An answer of a megabyte, of which nobody knows the length before its end."""
    _asked(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * 2**20 + b"{}")
    connection.shutdown(socket.SHUT_WR)


def _asked(connection: socket.socket) -> bool:
    """Reads a request; whether there was one."""
    text = b""
    while b"\r\n\r\n" not in text:
        if not (some := connection.recv(65536)):
            return False
        text += some
    head, _, body = text.partition(b"\r\n\r\n")
    [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int(length.partition(b":")[2]):
        body += connection.recv(65536)
    return True


def _drip(member: Member, connection: socket.socket) -> None:
    for _ in range(DRIPS):
        if member.ended.wait(DRIP_S):
            break
        connection.sendall(b" ")
