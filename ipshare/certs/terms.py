"""terms: a director's signature under the term that it began, for whoever has to believe that it was.

A node keeps the signature with what it was assigned, and shows it to a director that has an earlier term: one
that was replaced believes that, and stops; a node alone cannot make it up. What is signed is the number and
nothing else. The certificate goes along; whether it has ended meanwhile does not matter (the term began all
the same), whether it was revoked does. The keys that `ipshare cert issue` makes (P-256) sign; one of another
kind does not, and nobody is told of its terms by its nodes.
"""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from ipshare import durable
from ipshare.certs.contexts import Files
from ipshare.certs.identity import Role, parse
from ipshare.errors import IpshareError

MOST = 8192
"""Characters of a proof: base64 of the certificate (DER), a dot, base64 of the signature."""


class Signer:
    """Of the director whose ``files`` these are. Read again when they change, as for TLS."""

    def __init__(self, files: Files) -> None:
        self._path = files.certificate
        self._made: tuple[durable.Stamp, int, str] | None = None

    def proof(self, term: int) -> str:
        """That ``term`` was begun by a director; "": this key signs nothing. With files that cannot
        be read, what was signed before."""
        stamp = durable.stamp(self._path)
        if self._made is None or self._made[:2] != (stamp, term):
            before = self._made[2] if self._made is not None and self._made[1] == term else ""
            self._made = (stamp, term, _signed(self._path, term) or before)
        return self._made[2]


def is_proven(term: int, proof: str, files: Files) -> bool:
    """Whether ``proof`` shows that a director of our authority, which is not revoked, began ``term``. Any
    text may be asked about. Raises IpshareError where our own files cannot be read."""
    if len(proof) > MOST:
        return False
    try:
        raw, signature = (base64.b64decode(part, validate=True) for part in proof.split("."))
        certificate = x509.load_der_x509_certificate(raw)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = [one.value for one in names if isinstance(one, x509.UniformResourceIdentifier)]
        who, key = parse(uris[0]) if len(uris) == len(names) == 1 else None, certificate.public_key()
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False
    if who is None or who.role is not Role.DIRECTOR or not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    if not _is_ours(certificate, files) or _is_revoked(certificate, files):
        return False
    try:
        key.verify(signature, _words(term), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _words(term: int) -> bytes:
    return f"ipshare: a director began term {term}".encode()


def _signed(path: Path, term: int) -> str:
    try:
        raw = path.read_bytes()
        key, certificate = load_pem_private_key(raw, None), x509.load_pem_x509_certificate(raw)
    except (OSError, ValueError, TypeError):
        return ""
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return ""
    parts = certificate.public_bytes(Encoding.DER), key.sign(_words(term), ec.ECDSA(hashes.SHA256()))
    return ".".join(base64.b64encode(part).decode() for part in parts)


def _is_ours(certificate: x509.Certificate, files: Files) -> bool:
    try:
        authorities = x509.load_pem_x509_certificates(_read(files.ca))
    except ValueError:
        raise IpshareError(f"there is no certificate in {files.ca}", hint="put back ca.pem") from None
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def _is_revoked(certificate: x509.Certificate, files: Files) -> bool:
    if files.revoked is None:
        return False
    try:
        revoked = x509.load_pem_x509_crl(_read(files.revoked))
    except ValueError:
        raise IpshareError(f"{files.revoked} is no revocation list", hint="put back a copy of it") from None
    return revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IpshareError(f"cannot read {path}: {error.strerror}", hint="run as root") from None
