"""etcd: the door to etcd (3.4 or newer) through its JSON gateway: look up, transact, lease.

Members are tried in turn, the one that answered last first. A request has one deadline, for all of them and
whatever they do (ipshare.director.etcd_wire); each gets its share of what is left. Blocking. A request that
nobody answered may have been carried out all the same, even later on: ``Unheard``. So every transaction
claims what it was made for (``same``, ``equal``), and one that comes late or twice fails. The client has no
state but its connections: one thread each.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipshare.errors import IpshareError

if TYPE_CHECKING:
    from ipshare.director.etcd_wire import Wire

PASSING = (4, 14)
"""gRPC codes of a member that cannot answer now: deadline exceeded, unavailable (no leader)."""


class Unheard(IpshareError):
    """etcd did not answer: what was asked may have been done."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it is. ``revision``: of etcd, when it was written last; 0: there is no such key."""

    value: bytes = b""
    revision: int = 0


Op = dict[str, Any]


class Etcd:
    """``endpoints``: URLs of one cluster. ``timeout_s``: of one request, for all of them together.
    ``ca``, ``certificate`` (with its key): for https."""

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout_s: float,
        ca: Path | None = None,
        certificate: Path | None = None,
    ) -> None:
        self._endpoints = [endpoint.rstrip("/") for endpoint in endpoints]
        self._timeout_s = timeout_s
        self._wire = _wire(_context(self._endpoints, ca, certificate))

    def close(self) -> None:
        self._wire.close()

    def look(self, *keys: str) -> list[Entry]:
        """Keys at one moment."""
        found = self.transact([], [{"request_range": {"key": _b64(key)}} for key in keys])[1]
        with _understood():
            return [one for one, _ in zip(found, keys, strict=True)]

    def newest(self, folder: str, limit: int) -> list[Entry]:
        """Of the keys that begin with ``folder``, those with the greatest names, the greatest first."""
        words = {"sort_order": "DESCEND", "sort_target": "KEY", "limit": str(limit)}
        body = {"key": _b64(folder), "range_end": _b64(after(folder)), **words}
        answer = self._post("kv/range", body)
        with _understood():
            return [_entry(found) for found in answer.get("kvs", [])]

    def below(self, folder: str) -> list[tuple[str, Entry]]:
        """All keys that begin with ``folder``, in the order of names."""
        body = {"key": _b64(folder), "range_end": _b64(after(folder)), "sort_target": "KEY"}
        answer = self._post("kv/range", body | {"sort_order": "ASCEND"})
        with _understood():
            return [(base64.b64decode(one["key"]).decode(), _entry(one)) for one in answer.get("kvs", [])]

    def transact(self, claims: Sequence[Op], ops: Sequence[Op]) -> tuple[bool, list[Entry]]:
        """``ops`` at once if all ``claims`` hold; what keys that were looked up say then."""
        answer = self._post("kv/txn", {"compare": list(claims), "success": list(ops)})
        with _understood():
            ranges = [one["response_range"] for one in answer.get("responses", []) if "response_range" in one]
            found = [_entry(one["kvs"][0]) if one.get("kvs") else Entry() for one in ranges]
            return answer.get("succeeded", False) is True, found

    def lease(self, seconds: int) -> str:
        """A new lease of at least that long."""
        answer = self._post("lease/grant", {"TTL": str(seconds)})
        with _understood():
            if int(answer["TTL"]) < seconds:
                raise IpshareError(f"etcd grants a lease of {answer['TTL']} s, not of {seconds} s")
            return str(answer["ID"])

    def _post(self, path: str, body: Op) -> Op:
        content, failed = json.dumps(body).encode(), []
        end, members = time.monotonic() + self._timeout_s, list(self._endpoints)
        for index, endpoint in enumerate(members):
            share_s = max(end - time.monotonic(), 0.0) / (len(members) - index)
            answer, why = self._ask(endpoint, path, content, share_s)
            if answer is not None:
                self._endpoints.remove(endpoint)
                self._endpoints.insert(0, endpoint)
                return answer
            failed.append(f"{endpoint}: {why}")
        raise Unheard(
            f"etcd does not answer: {'; '.join(failed)}",
            hint="see that a majority of its members runs: etcdctl endpoint health",
        )

    def _ask(self, endpoint: str, path: str, content: bytes, share_s: float) -> tuple[Op | None, str]:
        """(answer, ""), or (None, why another member is asked)."""
        try:
            status, body = self._wire.post(f"{endpoint}/v3/{path}", content, share_s)
        except TimeoutError as step:
            return None, f"no whole answer in {share_s:.2g} s ({step})"
        except OSError as error:
            return None, str(error)
        return _judged(endpoint, path, status, body)


# ---- words of a transaction -------------------------------------------------


def same(key: str, seen: Entry) -> Op:
    """Claim: nobody wrote it since."""
    return {"key": _b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(seen.revision)}


def absent(key: str) -> Op:
    return same(key, Entry())


def present(key: str) -> Op:
    return {"key": _b64(key), "target": "VERSION", "result": "GREATER", "version": "0"}


def equal(key: str, value: bytes) -> Op:
    return {"key": _b64(key), "target": "VALUE", "result": "EQUAL", "value": _b64(value)}


def put(key: str, value: bytes, lease: str = "0") -> Op:
    return {"request_put": {"key": _b64(key), "value": _b64(value), "lease": lease}}


def remove(key: str, end: str = "") -> Op:
    """The key; or all from it to before ``end``."""
    return {"request_delete_range": {"key": _b64(key), **({"range_end": _b64(end)} if end else {})}}


def after(folder: str) -> str:
    """The first name after all that begin with ``folder``."""
    return folder[:-1] + chr(ord(folder[-1]) + 1)


# ---- inside -----------------------------------------------------------------


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Reads an answer. Raises IpshareError where it says something else than etcd would."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise IpshareError(
            f"an answer of etcd's cannot be understood: {error!r}",
            hint="do endpoints name etcd's client URLs?",
        ) from error


def _wire(tls: ssl.SSLContext | None) -> Wire:
    try:
        from ipshare.director.etcd_wire import Wire
    except ImportError:
        raise IpshareError("a store in etcd needs httpcore2", hint="pip install 'ipshare[etcd]'") from None
    return Wire(tls)


def _context(endpoints: Sequence[str], ca: Path | None, certificate: Path | None) -> ssl.SSLContext | None:
    if not any(endpoint.startswith("https:") for endpoint in endpoints):
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate)
    except (OSError, ssl.SSLError) as error:
        raise IpshareError(
            f"cannot use {certificate or ca or 'the certificates'} for etcd: {error.strerror or error}",
            hint="see ca and certificate in [store]",
        ) from None
    return context


def _judged(endpoint: str, path: str, status: int, body: bytes) -> tuple[Op | None, str]:
    """As _ask. Raises IpshareError: no other member would say anything else."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if answer is None and status == 404:
        raise IpshareError(
            f"{endpoint} knows no /v3/{path}",
            hint="etcd 3.4 or newer, with its JSON gateway, is needed",
        )
    if not isinstance(answer, dict):
        return None, "it answers something that is no answer"
    if status == 200:
        return answer, ""
    said = str(answer.get("message") or answer.get("error") or status)
    if answer.get("code") in PASSING or status >= 503:
        return None, said
    raise IpshareError(f"etcd refuses: {said}", hint=_hint(said))


def _hint(said: str) -> str:
    if "too large" in said:
        return "etcd's --max-request-bytes is less than its default"
    if "database space exceeded" in said:
        return "compact and defragment etcd, then etcdctl alarm disarm"
    return "see etcd's own log"


def _entry(found: Op) -> Entry:
    return Entry(base64.b64decode(found.get("value", "")), int(found["mod_revision"]))


def _b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()
