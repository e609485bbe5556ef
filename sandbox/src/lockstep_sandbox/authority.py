"""A small certificate authority: one short-lived certificate for each service and client, named by a SPIFFE id."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
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
#: Names of clients begin so.
CLIENTS: Final = "client/"


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


@dataclass(frozen=True, slots=True)
class _Issuer:
    """A key that issues, with its own certificate."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


class Authority:
    """An authority whose keys never leave this process.

    Certificates are renewed by issuing them again: whoever uses the files takes the new ones at its next handshake or look. The authority itself is followed
    by another in three steps, with time for everybody to look between them: `announce` (both are trusted), `take_over` (the new one issues), `retire` (the old
    one is trusted no more).
    """

    def __init__(
        self, folder: Path, *, lifetime: timedelta = timedelta(days=1), authority_lifetime: timedelta = timedelta(days=30)
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._lifetime = lifetime
        self._authority_lifetime = authority_lifetime
        self.ca_file = folder / "ca.pem"
        self._issuer = self._drawn()
        self._next: _Issuer | None = None
        self._trust(self._issuer)

    def issue(
        self,
        name: str,
        *,
        ids: Sequence[str] | None = None,
        lifetime: timedelta | None = None,
        serves: bool | None = None,
        hosts: Sequence[str] = (),
    ) -> Identity:
        """A certificate for spiffe://lockstep.local/<name>, for localhost and `hosts` only; a client's is for calling alone.

        With `ids` it has these URI names instead; `serves` says whether it is for serving (TLS server) or calling alone, for others than the name says.
        """
        spiffe_ids = [f"spiffe://{TRUST_DOMAIN}/{name}"] if ids is None else list(ids)
        key = ec.generate_private_key(ec.SECP256R1())
        names = [
            *(x509.UniformResourceIdentifier(each) for each in spiffe_ids),
            *(x509.DNSName(each) for each in ("localhost", *hosts)),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        calls, both = [ExtendedKeyUsageOID.CLIENT_AUTH], [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        usages = both if (not name.startswith(CLIENTS) if serves is None else serves) else calls
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, self._issuer.name, key.public_key(), self._lifetime if lifetime is None else lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._issuer.key, hashes.SHA256())
        )
        file = name.replace("/", "-")
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Identity(
            spiffe_ids[0],
            write_secret(self._folder / f"{file}.pem", certificate.public_bytes(Encoding.PEM)),
            write_secret(self._folder / f"{file}-key.pem", private),
            self.ca_file,
        )

    def announce(self) -> None:
        """Draw the authority that follows; both are trusted from now on."""
        self._next = self._drawn()
        self._trust(self._issuer, self._next)

    def take_over(self) -> None:
        """The authority that was announced issues from now on; the one before is still trusted."""
        if self._next is None:
            raise AssertionError("an authority is announced before it takes over")
        self._issuer, self._next = self._next, self._issuer

    def retire(self) -> None:
        """Trust the present authority alone."""
        self._next = None
        self._trust(self._issuer)

    def _drawn(self) -> _Issuer:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{TRUST_DOMAIN} authority {secrets.token_hex(4)}")])
        certificate = (
            self._builder(name, name, key.public_key(), self._authority_lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return _Issuer(name, key, certificate)

    def _trust(self, *issuers: _Issuer) -> None:
        write_secret(self.ca_file, b"".join(each.certificate.public_bytes(Encoding.PEM) for each in issuers))

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, lifetime: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + lifetime)
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
