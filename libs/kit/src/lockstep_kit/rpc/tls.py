"""Certificates from files. A rotated certificate needs no restart: servers look at each handshake, channels now and then.

A pair that does not match, as between the writing of its two files, is not taken; the one before stays in use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import Final, cast

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pydantic import BaseModel, ConfigDict, Field

from lockstep_kit.values import dataclass

_log = structlog.get_logger()

TRUST_DOMAIN: Final = "lockstep.local"


class TlsSettings(BaseModel):
    """Who this process is, and whom it trusts."""

    model_config = ConfigDict(extra="forbid")

    certificate_file: Path = Field(description="own certificate with its chain, PEM; its URI name is the SPIFFE id")
    key_file: Path = Field(description="own private key, PEM, mode 0600")
    ca_file: Path = Field(description="authority that the others' certificates come from, PEM")


@dataclass(frozen=True, slots=True)
class Identity:
    """What the files held when they were read."""

    #: PEM.
    certificate: bytes
    #: PEM.
    key: bytes = field(repr=False)
    #: PEM.
    authority: bytes

    @classmethod
    def read(cls, settings: TlsSettings) -> Identity:
        """The files' content.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file is no PEM of its kind, or the key is not the certificate's.
        """
        found = cls(settings.certificate_file.read_bytes(), settings.key_file.read_bytes(), settings.ca_file.read_bytes())
        certified = x509.load_pem_x509_certificate(found.certificate).public_key()
        held = load_pem_private_key(found.key, password=None).public_key()
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if certified.public_bytes(*form) != held.public_bytes(*form):
            raise ValueError(f"{settings.key_file} is not the key of {settings.certificate_file}")
        return found

    @property
    def not_after(self) -> datetime:
        """When the certificate runs out."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """As a server shows it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], root_certificates=self.authority)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """As a client shows it."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.authority, private_key=self.key, certificate_chain=self.certificate
        )


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials:
    """Mutual TLS for a server; a client without a certificate of the authority gets no connection.

    Raises:
        OSError, ValueError: the files cannot be used.
    """
    current = Identity.read(settings)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal current
        found = read_again(settings, current)
        if found is None:
            return None
        current = found
        return found.server_configuration()

    # None means "as before" (grpc.dynamic_ssl_server_credentials); its stub leaves that out.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", renewed)
    return grpc.dynamic_ssl_server_credentials(current.server_configuration(), fetch, require_client_authentication=True)


def read_again(settings: TlsSettings, current: Identity) -> Identity | None:
    """What the files hold now, if it is something else and can be used; None keeps what there is."""
    try:
        found = Identity.read(settings)
    except (OSError, ValueError) as error:
        _log.warning("certificate_unreadable", file=str(settings.certificate_file), error=str(error))
        return None
    return None if found == current else found
