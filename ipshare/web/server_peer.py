"""server_peer: who is at the other end of a connection, by certificate; taken from the TLS transport."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ipshare.certs.identity import Identity, of_peer
from ipshare.errors import IpshareError


@dataclass(frozen=True, slots=True)
class Peer:
    """``identity``: None: no certificate was shown, or ``trouble`` says what is wrong with it. ``ends_s``: of
    the certificate, seconds since 1970."""

    identity: Identity | None = None
    trouble: str = ""
    ends_s: float = 0.0

    def is_over(self, now_s: float) -> bool:
        return now_s >= self.ends_s


NOBODY = Peer()


def peer_of(certificate: Mapping[str, Any] | None) -> Peer:
    """Of ``getpeercert()``: {} or None where none was shown."""
    if not certificate:
        return NOBODY
    try:
        return Peer(of_peer(certificate), ends_s=ssl.cert_time_to_seconds(certificate["notAfter"]))
    except IpshareError as error:
        return Peer(trouble=error.message)
