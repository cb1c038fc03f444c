"""egress: does the provider let packets out whose source is a Global IP (BCP 38, RFC 2827)? SYSTEMS.md S1.4.

Needs two ends. ``listen`` runs on a host elsewhere and answers UDP probes; ``probe`` runs at the end point
and sends two kinds: from the host's own address (control: is there a listener?) and from the Global IP. The
listener tells, to the control's address only, which nonces it has heard from whom; an answer is never
longer than its question.

    request "ipshare-egress 1 NONCE SEEN?" padded to 256 bytes      reply "ipshare-egress 1 NONCE ADDRESS"
"""

from __future__ import annotations

import secrets
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from ipshare.errors import IpshareError, NoPrivilege
from ipshare.model import Address

PORT = 4790
BYTES = 256
WORD = "ipshare-egress"
REMEMBERED = 1024
# linux/in.h, in6.h: send from an address that is configured nowhere.
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78


@dataclass(frozen=True, slots=True)
class Answer:
    """``passes``: None where the listener did not answer at all, so that nothing can be said."""

    source: Address
    listener: str
    passes: bool | None
    seen_as: str | None

    @property
    def sentence(self) -> str:
        if self.passes is None:
            return f"the listener {self.listener} does not answer: nothing can be said about {self.source}"
        if self.passes:
            return f"packets from {self.source} arrive: replies may leave directly"
        if self.seen_as:
            return (
                f"packets from {self.source} arrive from {self.seen_as}: something translates them on the way"
            )
        return f"packets from {self.source} do not arrive: the provider filters them (BCP 38)"


def _message(nonce: str, word: str) -> bytes:
    return f"{WORD} 1 {nonce} {word}".encode()


def _parse(data: bytes) -> tuple[str, str] | None:
    parts = data.rstrip(b"\0").decode("ascii", "replace").split(" ")
    if len(parts) != 4 or parts[:2] != [WORD, "1"] or not 8 <= len(parts[2]) <= 32:
        return None
    return parts[2], parts[3]


def listen(
    server: socket.socket,
    *,
    heard: Callable[[str, str], None] = lambda _nonce, _address: None,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Answers probes at ``server`` (see ``open_listener``) while ``goes_on``; ``heard(nonce, address)`` for
    each first one. A request that says "seen" gets the address from which its nonce came with "mark", or
    "-"."""
    seen: OrderedDict[str, str] = OrderedDict()
    server.settimeout(0.2)
    with server:
        while goes_on():
            try:
                data, sender = server.recvfrom(2048)
            except TimeoutError:
                continue
            request = _parse(data)
            if request is None or len(data) < BYTES:
                continue
            nonce, word = request
            if word == "mark":
                if nonce not in seen:
                    heard(nonce, sender[0])
                seen[nonce] = sender[0]
                if len(seen) > REMEMBERED:
                    seen.popitem(last=False)
            elif word == "seen":
                server.sendto(_message(nonce, seen.get(nonce, "-")), sender)


def probe(
    source: Address, host: str, port: int = PORT, *, timeout_s: float = 1.0, attempts: int = 5
) -> Answer:
    """Sends from ``source`` to the listener and asks it what it saw. Raises IpshareError."""
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    try:
        target = socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM)[0][4]
    except OSError as error:
        raise IpshareError(f"no IPv{source.version} address of {host}: {error.strerror}") from error
    nonce, answered, seen_as = secrets.token_hex(8), False, None
    with _from(source) as marked, socket.socket(family, socket.SOCK_DGRAM) as control:
        control.settimeout(timeout_s)
        for _ in range(attempts):
            _send(marked, _message(nonce, "mark"), target)
            _send(control, _message(nonce, "seen"), target)
            word = _hear(control, nonce)
            answered |= word is not None
            if word not in (None, "-"):
                seen_as = word
                break
    passes = None if not answered else seen_as is not None and ip_address(seen_as) == source
    return Answer(source, f"{host} port {port}", passes, seen_as if not passes else str(source))


def _hear(control: socket.socket, nonce: str) -> str | None:
    try:
        reply = _parse(control.recv(2048))
    except OSError:
        return None
    return reply[1] if reply is not None and reply[0] == nonce else None


def _send(out: socket.socket, message: bytes, target: tuple[object, ...]) -> None:
    try:
        out.sendto(message.ljust(BYTES, b"\0"), target)
    except OSError as error:
        raise IpshareError(
            f"cannot send to {target[0]}: {error.strerror}", hint="is there a route?"
        ) from error


def _from(source: Address) -> socket.socket:
    v4 = source.version == 4
    out = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        if v4:
            out.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        else:
            out.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        out.bind((str(source), 0))
    except PermissionError:
        out.close()
        raise NoPrivilege(f"may not send from {source}", hint="run as root") from None
    except OSError as error:
        out.close()
        raise IpshareError(f"cannot send from {source}: {error.strerror}") from error
    return out


def open_listener(address: str, port: int) -> socket.socket:
    """A bound UDP socket. Raises IpshareError."""
    v6 = ":" in address
    server = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if v6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((address, port))
    except OSError as error:
        server.close()
        raise IpshareError(f"cannot listen at {address} port {port}: {error.strerror}") from error
    return server
