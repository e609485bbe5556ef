"""What every service says and shows of itself: health, its certificate, how it is installed. Whatever goes wrong is an observation, never an error."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lockstep.installation.v1.installation_service_pb2 import GetInstallationRequest
from lockstep.installation.v1.installation_service_pb2_grpc import InstallationServiceStub
from lockstep.notary.v1.anchor_pb2 import WitnessedCheckpoint
from lockstep_client.calls import CallSettings, ServiceClient, unary
from lockstep_client.diagnosis import CertificateSeen, ServiceSeen, WitnessSeen
from lockstep_client.readers import NotaryClient
from lockstep_kit.errors import LockstepError
from lockstep_kit.rpc import TlsSettings

#: Longest that one service may take for one thing.
SECONDS_MAX: Final = 6.0
_SOON: Final = CallSettings(deadline_seconds=SECONDS_MAX, attempts_max=2)


class InstallationClient(ServiceClient):
    """One service, as it tells of itself."""

    def __init__(self, target: str, tls: TlsSettings) -> None:
        super().__init__(target, tls, _SOON)
        self._stub = InstallationServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def serving(self) -> bool:
        """Whether the server says that it takes calls.

        Raises:
            LockstepError: it does not answer.
        """
        check = cast("Any", self._health.Check)
        answer = await unary(lambda seconds: check(health_pb2.HealthCheckRequest(), timeout=seconds), self._settings)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def observe(self, name: str, address: str, certificate: CertificateSeen | str) -> ServiceSeen:
        """Everything that the service says, and when it was asked by our clock."""
        serving = False
        try:
            serving = await self.serving()
            # The connection is there now: what lies between asking and answering is the way and the work, and no handshake.
            asked_at = datetime.now(UTC)
            told = await unary(
                lambda seconds: self._stub.GetInstallation(GetInstallationRequest(), timeout=seconds), self._settings
            )
        except LockstepError as error:
            return ServiceSeen(name, address, certificate, serving=serving, failure=error)
        return ServiceSeen(name, address, certificate, serving=serving, told=told, asked_at=asked_at, answered_at=datetime.now(UTC))


async def observe(name: str, address: str, tls: TlsSettings) -> ServiceSeen:
    """One service, as it is seen from here."""
    certificate = await shown_certificate(address, tls)
    async with InstallationClient(address, tls) as client:
        return await client.observe(name, address, certificate)


async def shown_certificate(address: str, tls: TlsSettings) -> CertificateSeen | str:
    """The certificate that a server shows in a handshake in which both are checked, or why there was none."""
    host, _, port = address.rpartition(":")
    try:
        context = ssl.create_default_context(cafile=str(tls.ca_file))
        context.load_cert_chain(tls.certificate_file, tls.key_file)
        context.set_alpn_protocols(["h2"])
        async with asyncio.timeout(SECONDS_MAX):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    except ssl.SSLCertVerificationError as error:
        return f"it is not trusted here: {error.verify_message}"
    except TimeoutError:
        return "there was no handshake in time"
    except (OSError, ValueError) as error:
        return f"there was no handshake: {getattr(error, 'strerror', None) or error}"
    try:
        octets = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return seen(x509.load_der_x509_certificate(octets))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def own_certificate(path: Path) -> CertificateSeen | str:
    """The client's own certificate, or why it cannot be read."""
    try:
        return seen(x509.load_pem_x509_certificate(path.read_bytes()))
    except (OSError, ValueError) as error:
        return f"it cannot be read: {getattr(error, 'strerror', None) or error}"


def seen(certificate: x509.Certificate) -> CertificateSeen:
    """What counts of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        uris = ()
    return CertificateSeen(uris, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


async def observe_witness(target: str, tls: TlsSettings) -> WitnessSeen:
    """How the notary stands to the journal's log, and the last checkpoint that it anchored."""
    async with NotaryClient(target, tls, _SOON) as notary:
        try:
            status = await notary.get_witness_status()
        except LockstepError as error:
            return WitnessSeen(failure=error)
        anchored = await _checkpoint(notary, 0, anchored=True)
        unanchored = await _checkpoint(notary, anchored.tree_size + 1 if anchored is not None else 1, anchored=False)
    return WitnessSeen(status=status, anchored=anchored, unanchored=unanchored)


async def _checkpoint(notary: NotaryClient, size_min: int, *, anchored: bool) -> WitnessedCheckpoint | None:
    """A checkpoint, or that there is none, as on an installation without plans."""
    try:
        return await notary.witnessed_checkpoint(size_min, anchored=anchored)
    except LockstepError:
        return None
