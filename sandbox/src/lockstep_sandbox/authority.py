"""A small certificate authority: one short-lived certificate for each service and client, named by a SPIFFE id."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lockstep_sandbox.runtime import write_secret

TRUST_DOMAIN: Final = "lockstep.local"
#: Tolerance for clocks that are behind.
BACKDATED: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Identity:
    """Files with which a process shows who it is."""

    #: URI name in the certificate.
    spiffe_id: str
    #: PEM.
    certificate_file: Path
    #: PEM, mode 0600.
    key_file: Path
    #: PEM of the authority.
    ca_file: Path

    def settings(self) -> dict[str, str]:
        """The `tls` block of a service's or client's settings."""
        return {
            "certificate_file": str(self.certificate_file),
            "key_file": str(self.key_file),
            "ca_file": str(self.ca_file),
        }


class Authority:
    """An authority whose key never leaves this process."""

    def __init__(self, folder: Path, *, lifetime: timedelta = timedelta(days=1)) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._lifetime = lifetime
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{TRUST_DOMAIN} authority")])
        self.ca_file = folder / "ca.pem"
        self._certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        write_secret(self.ca_file, self._certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str) -> Identity:
        """A certificate for spiffe://lockstep.local/<name>, for localhost only."""
        spiffe_id = f"spiffe://{TRUST_DOMAIN}/{name}"
        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.UniformResourceIdentifier(spiffe_id),
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        file = name.replace("/", "-")
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Identity(
            spiffe_id,
            write_secret(self._folder / f"{file}.pem", certificate.public_bytes(Encoding.PEM)),
            write_secret(self._folder / f"{file}-key.pem", private),
            self.ca_file,
        )

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + self._lifetime)
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
