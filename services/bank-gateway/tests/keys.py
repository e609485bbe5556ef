"""Keys and certificates for XML signatures, as files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bank_gateway.iso20022.signatures import Signer


@dataclass(frozen=True)
class Identity:
    """Somebody who signs."""

    key_file: Path
    certificate_file: Path

    @property
    def fingerprint(self) -> bytes:
        return x509.load_pem_x509_certificate(self.certificate_file.read_bytes()).fingerprint(SHA256())

    @property
    def signer(self) -> Signer:
        return Signer.read(self.key_file, self.certificate_file)


def identity(folder: Path, name: str, *, rsa_bits: int = 0, begin: datetime | None = None, days: int = 3650) -> Identity:
    """A new key and a certificate that it made for itself."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = (
        rsa.generate_private_key(65537, rsa_bits) if rsa_bits else ec.generate_private_key(ec.SECP256R1())
    )
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = begin or datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin)
    certificate = builder.not_valid_after(begin + timedelta(days=days)).sign(key, SHA256())
    folder.mkdir(parents=True, exist_ok=True)
    made = Identity(folder / f"{name}-key.pem", folder / f"{name}.pem")
    made.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made.key_file.chmod(0o600)
    made.certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    return made
