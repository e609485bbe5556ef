"""Certificates from files, read anew at each handshake, so that a rotated certificate needs no restart."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import grpc
from pydantic import BaseModel, ConfigDict, Field

TRUST_DOMAIN: Final = "lockstep.local"


class TlsSettings(BaseModel):
    """Who this process is, and whom it trusts."""

    model_config = ConfigDict(extra="forbid")

    certificate_file: Path = Field(description="own certificate with its chain, PEM; its URI name is the SPIFFE id")
    key_file: Path = Field(description="own private key, PEM, mode 0600")
    ca_file: Path = Field(description="authority that the others' certificates come from, PEM")


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials:
    """Mutual TLS for a server; a client without a certificate of the authority gets no connection."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        pair = (settings.key_file.read_bytes(), settings.certificate_file.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=settings.ca_file.read_bytes())

    return grpc.dynamic_ssl_server_credentials(configuration(), configuration, require_client_authentication=True)


def channel_credentials(settings: TlsSettings) -> grpc.ChannelCredentials:
    """Mutual TLS for a client."""
    return grpc.ssl_channel_credentials(
        root_certificates=settings.ca_file.read_bytes(),
        private_key=settings.key_file.read_bytes(),
        certificate_chain=settings.certificate_file.read_bytes(),
    )
