"""who: whom a request is of: a certificate of the authority, a token, or a session that a token began.

Certificates: a director may everything, an operator what an operator may, a node nothing. A credential that
is good is never held up by others' failures from the same address; bad ones are counted by address (a /64 in
IPv6) and answered with 429 beyond a bound. Sessions are in memory: a restart ends them, so does the end of
their token. What a browser sends along by itself (cookie, certificate) changes things only with a
word that no other site knows (``csrf``).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address, ip_network
from typing import Any

from ipshare.certs.identity import Role as Holder
from ipshare.web.problems import Failure
from ipshare.web.server_peer import Peer
from ipshare.web.tokens import Role, TokenFile, digest

COOKIE = "ipshare_session"
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 1000
MOST_FAILURES, PER_S = 20, 60.0
MOST_ADDRESSES = 4096
CERTIFICATES = {Holder.DIRECTOR: Role.admin, Holder.OPERATOR: Role.operator}


@dataclass(frozen=True, slots=True)
class Caller:
    """``by``: certificate, token, session. ``csrf``: the word for changes; "": none is needed, for nothing
    is sent by a browser on its own. ``token``: the hash of the one that this hangs on. ``ends_s``:
    when the certificate does, wall clock."""

    name: str
    role: Role
    by: str
    csrf: str = ""
    token: str = ""
    session: str = ""
    ends_s: float = math.inf

    def __str__(self) -> str:
        return f"{self.by} {self.name}"


@dataclass(slots=True)
class _Session:
    token: str
    ends_s: float


class Limiter:
    """Failures by address, within the last PER_S seconds."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def failed(self, address: str, now_s: float) -> float:
        """Counts one; how many seconds to wait now, 0: none."""
        key = _network(address)
        began, count = self._failures.pop(key, (now_s, 0))
        if now_s - began >= PER_S:
            began, count = now_s, 0
        self._failures[key] = (began, count + 1)
        while len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)
        return began + PER_S - now_s if count + 1 > MOST_FAILURES else 0.0


class Doorkeeper:
    """Of the tokens in ``tokens``. Times: seconds of time.monotonic."""

    def __init__(self, tokens: TokenFile) -> None:
        self.tokens = tokens
        self.refused: dict[str, int] = {}
        self._secret = secrets.token_bytes(32)
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._limiter = Limiter()

    def caller(self, headers: Mapping[str, str], peer: Peer, address: str) -> Caller:
        """Raises Failure 401, 403, 429."""
        authorization = headers.get("authorization")
        if authorization is not None:
            kind, _, token = authorization.partition(" ")
            if kind.lower() != "bearer":
                raise self._no("scheme", address, "only Bearer tokens are known here")
            return self._by_token(token.strip(), address)
        cookie = _cookie(headers.get("cookie", ""))
        if cookie and (found := self._by_session(cookie)) is not None:
            return found
        if peer.trouble:
            raise Failure(403, peer.trouble, "show a certificate of a director or an operator, or none")
        if peer.identity is not None:
            role = CERTIFICATES.get(peer.identity.role)
            if role is None:
                self._count("certificate")
                hint = "show a certificate of a director or an operator"
                raise Failure(403, f"a certificate of a {peer.identity.role} does not get in here", hint)
            if peer.is_over(time.time()):
                self._count("certificate")
                raise Failure(403, "the certificate has expired", "ipshare cert rotate, then connect again")
            name = str(peer.identity)
            word = self._word(f"certificate {name}")
            return Caller(name, role, "certificate", word, ends_s=peer.ends_s)
        self._count("nobody")
        raise Failure(
            401, "nobody knows who asks", "send `Authorization: Bearer ips_...`, or a client certificate",
            headers={"WWW-Authenticate": 'Bearer realm="ipshare"'},
        )  # fmt: skip

    def still(self, caller: Caller) -> bool:
        """Whether that caller would get in again: for long answers."""
        if time.time() >= caller.ends_s:
            return False
        if caller.session and self._by_session_key(caller.session) is None:
            return False
        return not caller.token or self.tokens.of_digest(caller.token) is not None

    def login(self, token: str, address: str) -> tuple[str, Caller]:
        """A new session's cookie, and whose token it was. Raises Failure."""
        caller = self._by_token(token, address)
        cookie = secrets.token_urlsafe(32)
        self._sessions[digest(cookie)] = _Session(caller.token, time.monotonic() + SESSION_S)
        while len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return cookie, caller

    def logout(self, caller: Caller) -> None:
        self._sessions.pop(caller.session, None)

    def is_own_word(self, caller: Caller, word: str) -> bool:
        return not caller.csrf or hmac.compare_digest(caller.csrf.encode(), word.encode())

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    # ---- inside ---------------------------------------------------------------

    def _by_token(self, token: str, address: str) -> Caller:
        found = self.tokens.holder(token)
        if found is None:
            raise self._no("token", address, "the token is unknown, revoked or expired")
        return Caller(found.name, Role[found.role], "token", token=found.sha256)

    def _by_session(self, cookie: str) -> Caller | None:
        return self._by_session_key(digest(cookie))

    def _by_session_key(self, key: str) -> Caller | None:
        session = self._sessions.get(key)
        if session is None:
            return None
        token = self.tokens.of_digest(session.token)
        if token is None or time.monotonic() >= session.ends_s:
            del self._sessions[key]
            return None
        word = self._word(f"session {key}")
        return Caller(token.name, Role[token.role], "session", word, token.sha256, key)

    def _word(self, of: str) -> str:
        return hmac.new(self._secret, of.encode(), hashlib.sha256).hexdigest()

    def _count(self, why: str) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1

    def _no(self, why: str, address: str, detail: str) -> Failure:
        self._count(why)
        wait_s = self._limiter.failed(address, time.monotonic())
        if wait_s > 0:
            self._count("too_many")
            hint = "wait, then send a token that counts"
            after = {"Retry-After": str(int(wait_s) + 1)}
            return Failure(429, "too many failures from this address", hint, headers=after)
        hint = "ipshare token list shows which count; ipshare token add makes one"
        return Failure(401, detail, hint, headers={"WWW-Authenticate": 'Bearer realm="ipshare"'})


def may(caller: Caller, role: Role) -> None:
    """Raises Failure where ``caller`` may less."""
    if caller.role < role:
        hint = f"ask somebody who is {role.name}, or for a token of that role"
        raise Failure(403, f"{caller.name} is {caller.role.name}: this is for {role.name}s", hint)


def _network(address: str) -> str:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


def _cookie(header: str) -> str:
    try:
        found: Any = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
