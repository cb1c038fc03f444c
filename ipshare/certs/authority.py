"""authority: a small certificate authority in a directory, by the library `cryptography`.

    ca.pem        its certificate: every node, director and operator needs it
    ca.key        its private key, mode 0600: whoever has it is everybody
    revoked.pem   the revocation list, signed; copied to wherever it shall count
    issued/       each certificate that was given out, by serial number

What is given out is one file with private key and certificate, mode 0600, so that a rotation is one rename.
Nothing is overwritten but by ``rotate``. P-256 keys; RFC 5280. The list of revocations is valid as long as
the authority: a node that got no newer one goes on with the one it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ipshare import durable
from ipshare.certs.identity import Identity, Role, parse
from ipshare.errors import IpshareError, NoPrivilege, Refused

CA_DAYS, DAYS = 3650, 397
EARLIER = timedelta(hours=1)
"""Certificates begin so long before now: clocks differ."""
USES = {
    Role.NODE: (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    Role.DIRECTOR: (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    Role.OPERATOR: (ExtendedKeyUsageOID.CLIENT_AUTH,),
}


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate. ``state``: valid, expired, early (not valid yet) or revoked."""

    identity: Identity | None  # None: of an authority, or not ours
    subject: str
    serial: str  # hexadecimal
    begins: datetime
    ends: datetime
    state: str


class Authority:
    """The one in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def init(self, name: str, days: int = CA_DAYS) -> Issued:
        """Makes it. Raises Refused where there is one already."""
        there = [path for path in (self._ca, self._key_file, self._list) if path.exists()]
        if there:
            raise Refused(f"{there[0]} is there already", hint="one authority per directory; name another")
        subject = _name(name)
        key, now = ec.generate_private_key(ec.SECP256R1()), _now()
        public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        usage = _usage(signs_certificates=True)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(_later(now, days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(public, critical=False)
            .sign(key, hashes.SHA256())
        )
        _make(self.folder / "issued")
        _write(self._key_file, _private(key), 0o600)
        _write(self._ca, certificate.public_bytes(Encoding.PEM), 0o644)
        self._publish(certificate, key, [])
        return _issued(certificate, frozenset())

    def issue(self, who: Identity, target: Path, days: int = DAYS, *, replace: bool = False) -> Issued:
        """A new key and certificate of ``who`` in the file ``target``. Raises Refused where it is there and
        is not to be replaced."""
        _no_link(target)
        if target.exists() and not replace:
            raise Refused(f"{target} is there already", hint="`ipshare cert rotate` replaces it")
        ca, key = self._load()
        now, own = _now(), ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(who.name, who.role))
            .issuer_name(ca.subject)
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(min(_later(now, days), ca.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(USES[who.role]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(who.uri)]), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
            .add_extension(_authority_key(ca), critical=False)
            .sign(key, hashes.SHA256())
        )
        public = certificate.public_bytes(Encoding.PEM)
        _write(self.folder / "issued" / f"{certificate.serial_number:x}.pem", public, 0o644)
        _write(target, _private(own) + public, 0o600)
        return _issued(certificate, frozenset())

    def rotate(self, target: Path, days: int = DAYS) -> tuple[Issued, Issued]:
        """The file ``target`` has a new key and certificate of the same holder: (the old, the new). The old
        one stays valid until it ends or is revoked."""
        _no_link(target)
        old = _issued(_certificate(target), self._revoked())
        if old.identity is None or not self._of(old.serial).exists():
            raise Refused(f"{target} was not issued by the authority in {self.folder}")
        if old.state == "revoked":
            raise Refused(f"{target} was revoked", hint="issue a new one into another file")
        return old, self.issue(old.identity, target, days, replace=True)

    def revoke(self, *, who: Identity | None = None, serial: str = "") -> list[Issued]:
        """What is valid of ``who``, or the one of that serial number, counts no more wherever the new list
        is. Returns what was revoked; none: it was so before."""
        ca, key = self._load()
        found = [one for one in self.issued() if one.identity == who or (serial and one.serial == serial)]
        if not found:
            raise Refused(
                f"nothing was issued to {who or 'serial number ' + serial}", hint="ipshare cert show"
            )
        fresh = [one for one in found if one.state != "revoked"]
        if fresh:
            self._publish(
                ca, key, [*self._revocations(), *(_revocation(int(one.serial, 16)) for one in fresh)]
            )
        return fresh

    def issued(self) -> list[Issued]:
        """Every certificate that was given out, by name and time."""
        self._load()
        revoked = self._revoked()
        found = [_issued(_certificate(path), revoked) for path in (self.folder / "issued").glob("*.pem")]
        return sorted(found, key=lambda one: (str(one.identity), one.begins))

    # ---- inside ---------------------------------------------------------------

    @property
    def _ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def _key_file(self) -> Path:
        return self.folder / "ca.key"

    @property
    def _list(self) -> Path:
        return self.folder / "revoked.pem"

    def _of(self, serial: str) -> Path:
        return self.folder / "issued" / f"{serial}.pem"

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if not self._ca.exists():
            raise Refused(f"there is no authority in {self.folder}", hint="make it: ipshare cert init")
        certificate, raw = _certificate(self._ca), _read(self._key_file)
        try:
            key = load_pem_private_key(raw, None)
        except (ValueError, TypeError):
            raise IpshareError(f"{self._key_file} is no private key") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise IpshareError(f"{self._key_file} is not the key of {self._ca}")
        return certificate, key

    def _revocations(self) -> list[x509.RevokedCertificate]:
        try:
            return list(x509.load_pem_x509_crl(_read(self._list)))
        except ValueError:
            raise IpshareError(f"{self._list} is no revocation list", hint="put back a copy of it") from None

    def _revoked(self) -> frozenset[int]:
        return frozenset(one.serial_number for one in self._revocations())

    def _publish(
        self, ca: x509.Certificate, key: ec.EllipticCurvePrivateKey, revoked: list[x509.RevokedCertificate]
    ) -> None:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(ca.subject)
            .last_update(_now() - EARLIER)
            .next_update(ca.not_valid_after_utc)
            .add_extension(_authority_key(ca), critical=False)
        )
        for one in revoked:
            builder = builder.add_revoked_certificate(one)
        _write(self._list, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), 0o644)


def looked_at(path: Path) -> Issued:
    """The certificate in a file, as far as it tells by itself."""
    return _issued(_certificate(path), frozenset())


def _issued(certificate: x509.Certificate, revoked: frozenset[int]) -> Issued:
    begins, ends, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, _now()
    state = "expired" if ends < now else "early" if begins > now else "valid"
    if certificate.serial_number in revoked:
        state = "revoked"
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    who = parse(uris[0]) if len(uris) == 1 else None
    subject = certificate.subject.rfc4514_string()
    return Issued(who, subject, f"{certificate.serial_number:x}", begins, ends, state)


def _certificate(path: Path) -> x509.Certificate:
    raw = _read(path)
    try:
        return x509.load_pem_x509_certificate(raw)
    except ValueError:
        raise IpshareError(f"there is no certificate in {path}") from None


def _revocation(serial: int) -> x509.RevokedCertificate:
    return x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_now()).build()


def _authority_key(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    ca = signs_certificates
    return x509.KeyUsage(
        digital_signature=not ca, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(common: str, unit: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ipshare")]
    if unit:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    try:
        return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])
    except ValueError:
        raise IpshareError(f"{common!r} is no name of an authority", hint="1 to 64 characters") from None


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _no_link(target: Path) -> None:
    """A rename would put the key where the link is, and leave the old one in the file that is used."""
    if target.is_symlink():
        raise Refused(
            f"{target} is a symbolic link to {target.readlink()}", hint="name the file that is to be written"
        )


def _later(now: datetime, days: int) -> datetime:
    if not 0 < days <= 36500:
        raise Refused(f"{days} days is out of range", hint="1 to 36500")
    return now + timedelta(days=days)


def _make(folder: Path) -> None:
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, error) from None


def _write(path: Path, content: bytes, mode: int) -> None:
    """Nobody else ever reads a key."""
    try:
        durable.write(path, content, mode)
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> IpshareError:
    if isinstance(error, PermissionError):
        return NoPrivilege(f"may not use {path}", hint="run as whoever owns it")
    return IpshareError(f"cannot use {path}: {error.strerror}")
