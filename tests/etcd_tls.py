"""Certificates for an etcd of a test: an authority, the server's (for one address), and a client's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class TlsFiles:
    """``ca``; ``server`` and ``client``: a key and its certificate in one file each."""

    def __init__(self, folder: Path, address: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = folder / "etcd-ca.pem"
        self.ca.write_bytes(_pem(self._certificate("tests", self._key.public_key(), None, None)))
        self.server = self._holder("etcd-server", ExtendedKeyUsageOID.SERVER_AUTH, address)
        self.client = self._holder("etcd-client", ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def options(self) -> list[str]:
        """For etcd: it asks for a client's certificate. (Its gateway is a client of it with the server's.)"""
        return [
            "--cert-file", str(self.server), "--key-file", str(self.server),
            "--trusted-ca-file", str(self.ca), "--client-cert-auth",
        ]  # fmt: skip

    def _holder(self, name: str, usage: x509.ObjectIdentifier, address: str | None) -> Path:
        key, path = ec.generate_private_key(ec.SECP256R1()), self._folder / f"{name}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        usages = [usage, ExtendedKeyUsageOID.CLIENT_AUTH]
        path.write_bytes(private + _pem(self._certificate(name, key.public_key(), usages, address)))
        return path

    def _certificate(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        usages: list[x509.ObjectIdentifier] | None,
        address: str | None,
    ) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder().subject_name(named(name)).issuer_name(named("tests")).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=usages is None, path_length=None), critical=True)
        )  # fmt: skip
        own = x509.SubjectKeyIdentifier.from_public_key(public)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = made.add_extension(own, critical=False).add_extension(issuer, critical=False)
        if usages is None:
            signs = dict.fromkeys(USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
            made = made.add_extension(x509.KeyUsage(**signs), critical=True)
        else:
            made = made.add_extension(x509.ExtendedKeyUsage(list(dict.fromkeys(usages))), critical=False)
        if address:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
            made = made.add_extension(names, critical=False)
        return made.sign(self._key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
