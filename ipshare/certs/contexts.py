"""contexts: TLS 1.3 with certificates at both ends, out of files that are read again when they change.

A rotated certificate and a new list of revocations count from the next connection on. Files that cannot be
used leave what was used before, and ``trouble`` says why; without a list of revocations that was configured
nobody gets in: it fails closed. Reading costs about a millisecond, and happens at a change only.
"""

from __future__ import annotations

import ssl
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from ipshare import durable
from ipshare.errors import IpshareError, NoPrivilege, Refused

AGAIN_S = 1.0
"""What could not be read is read again so long after, whether it changed or not."""


@dataclass(frozen=True, slots=True)
class Files:
    """``certificate``: private key and certificate, mode 0600; ``revoked``: a revocation list, or None."""

    ca: Path
    certificate: Path
    revoked: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.ca, self.certificate, self.revoked) if path is not None)


class Contexts:
    """``server``: of those that are connected to, else of those that connect. ``optional``: who connects may
    show no certificate."""

    def __init__(self, files: Files, *, server: bool, optional: bool = False) -> None:
        self.files, self.server, self.optional = files, server, optional
        self.trouble = ""
        self._stamp: tuple[durable.Stamp, ...] = ()
        self._again_s = 0.0
        self._context: ssl.SSLContext | None = None

    def current(self) -> ssl.SSLContext:
        """Raises IpshareError where there is none, nor was one before."""
        stamp = tuple(durable.stamp(path) for path in self.files.all)
        is_again = bool(self.trouble) and time.monotonic() >= self._again_s  # it may have been for a moment
        if self._context is None or stamp != self._stamp or is_again:
            try:
                self._context, self.trouble = self._made(), ""
            except IpshareError as error:
                self.trouble, self._again_s = error.message, time.monotonic() + AGAIN_S
                if self._context is None:
                    raise
            self._stamp = stamp
        return self._context

    def _made(self) -> ssl.SSLContext:
        context = _context(self.files, server=self.server)
        if self.optional:
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


def _context(files: Files, *, server: bool) -> ssl.SSLContext:
    _private(files.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # names are in the URI: ipshare.certs.identity
    context.verify_mode = ssl.CERT_REQUIRED
    if server:
        context.num_tickets = 0  # a resumed session would not look at the list of revocations
    at = files.ca
    try:
        context.load_verify_locations(files.ca)
        if files.revoked is not None:
            at = files.revoked
            context.load_verify_locations(files.revoked)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        at = files.certificate
        context.load_cert_chain(files.certificate)
    except (ssl.SSLError, OSError) as error:
        why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise IpshareError(
            f"cannot use {at} for TLS: {why or error}", hint="ipshare cert show says what a file is"
        ) from None
    return context


def _private(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except PermissionError:
        raise NoPrivilege(f"may not read {path}", hint="run as root") from None
    except OSError as error:
        raise IpshareError(
            f"cannot read {path}: {error.strerror}", hint="ipshare cert issue makes it"
        ) from None
    if mode & 0o077:
        raise Refused(f"others than its owner may read {path} (mode {mode:04o})", hint=f"chmod 0600 {path}")


def why_refused(error: Exception) -> str:
    """What a handshake that failed was about, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return _ALERTS.get(error.reason or "", (error.reason or str(error)).lower().replace("_", " "))
    if isinstance(error, TimeoutError):
        return "the handshake took too long"
    return "the connection was closed during the handshake"


_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the other end wants a certificate",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the other end showed no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "the other end does not know the authority of our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the other end says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the other end says that our certificate was revoked",
}
