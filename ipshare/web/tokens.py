"""tokens: who may do what over HTTP without a certificate: a file of hashed tokens, mode 0600.

A token is 256 random bits; the file has its SHA-256 alone, so that a copy of the file opens nothing, and no
slow hash is needed: nobody guesses 256 bits. Presented tokens are compared with all of the file in constant
time. The file is read again when it changes: what was revoked counts no more with the next request. A file
that cannot be used, or that others may read, lets nobody in.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any

from ipshare import durable
from ipshare.errors import IpshareError, NoPrivilege, Refused

PREFIX = "ips_"
AGAIN_S = 1.0
"""A file that could not be read is read again so long after, whether it changed or not."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Role(IntEnum):
    """viewer looks; operator moves workloads and bindings; admin changes everything. Each may what those
    before may."""

    viewer = 1
    operator = 2
    admin = 3


@dataclass(frozen=True, slots=True)
class Token:
    """``created``, ``expires``: ISO 8601, UTC."""

    name: str
    role: str
    sha256: str
    created: str
    expires: str

    def is_over(self, now: datetime) -> bool:
        return datetime.fromisoformat(self.expires) <= now


def digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def read(path: Path) -> list[Token]:
    """Raises IpshareError for a file that cannot be used; none there: no tokens."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NoPrivilege(f"cannot read {path}: {error.strerror}", hint="run as its owner") from None
    with open(fd, encoding="utf-8") as file:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if mode & 0o077:
            raise Refused(
                f"others than its owner may read {path} (mode {mode:04o})", hint=f"chmod 0600 {path}"
            )
        try:
            return [_token(row) for row in json.load(file)["tokens"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            hint = "ipshare token writes it; put back a copy"
            raise IpshareError(f"{path} is no file of tokens", hint=hint) from None


def add(path: Path, name: str, role: str, days: int) -> tuple[str, Token]:
    """A new token and what is kept of it. Raises Refused for a name that is taken."""
    if not _NAME.fullmatch(name):
        raise Refused(f"{name!r} is no name", hint="1 to 63 letters, digits, '-', '_', '.'")
    if not 0 < days <= 3660:
        raise Refused(f"{days} days is out of range", hint="1 to 3660")
    now = datetime.now(UTC).replace(microsecond=0)
    secret = PREFIX + secrets.token_urlsafe(32)
    made = Token(
        name, Role[role].name, digest(secret), now.isoformat(), (now + timedelta(days=days)).isoformat()
    )
    with _changing(path) as tokens:
        if any(one.name == name for one in tokens):
            raise Refused(f"there is a token {name!r} already", hint="revoke it first, or take another name")
        tokens.append(made)
    return secret, made


def revoke(path: Path, name: str) -> Token:
    """Raises Refused where there is none."""
    with _changing(path) as tokens:
        found = next((one for one in tokens if one.name == name), None)
        if found is None:
            known = ", ".join(one.name for one in tokens) or "none"
            raise Refused(f"there is no token {name!r}", hint=f"known: {known}")
        tokens.remove(found)
    return found


class TokenFile:
    """The tokens of a file, as they are now."""

    def __init__(self, path: Path) -> None:
        self.path, self.trouble = path, ""
        self._stamp: durable.Stamp | None = None
        self._again_s = 0.0
        self._tokens: list[Token] = []

    def current(self) -> list[Token]:
        stamp = durable.stamp(self.path)
        if stamp != self._stamp or (self.trouble and time.monotonic() >= self._again_s):
            try:
                self._tokens, self.trouble = read(self.path), ""
            except IpshareError as error:  # it may have been for a moment
                self._tokens, self.trouble = [], error.message
                self._again_s = time.monotonic() + AGAIN_S
            self._stamp = stamp
        return self._tokens

    def holder(self, token: str) -> Token | None:
        """Whose token that is, if it counts."""
        return self.of_digest(digest(token))

    def of_digest(self, sha256: str) -> Token | None:
        found = None
        for one in self.current():
            if hmac.compare_digest(one.sha256, sha256):
                found = one
        return found if found is not None and not found.is_over(datetime.now(UTC)) else None


def _token(row: Any) -> Token:
    token = Token(**row)
    if not (
        _NAME.fullmatch(token.name) and _DIGEST.fullmatch(token.sha256) and token.role in Role.__members__
    ):
        raise ValueError("no token")
    if datetime.fromisoformat(token.expires).tzinfo is None:
        raise ValueError("a time without a zone")
    return token


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[list[Token]]:
    """The tokens, which are written when the block ends well: aside, then renamed. One writer at a time."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = os.open(
            path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = read(path)
            yield tokens
            content = json.dumps({"tokens": [asdict(one) for one in tokens]}, indent=1) + "\n"
            durable.write(path, content.encode(), 0o600)
        finally:
            os.close(lock)
    except OSError as error:
        raise NoPrivilege(f"cannot write {path}: {error.strerror}", hint="run as its owner") from None
