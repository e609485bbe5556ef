"""Who calls, as the certificate of the connection says, and whether it still counts.

TLS looks at a certificate once, when the connection begins; a connection may outlive it. So every call looks again, and a stream ends with its caller's
certificate. Nobody asks for revoked ones: a certificate is revoked by not being renewed, so one that lives for long is refused.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
from cryptography import x509

from lockstep_kit.errors import LockstepError
from lockstep_kit.values import dataclass

#: Certificates that are remembered; another is read again.
REMEMBERED_MAX: Final = 1_024
#: gRPC negotiates the version itself; what is older than this is refused at the first call.
TLS_VERSION: Final = "TLSv1.3"


@dataclass(frozen=True, slots=True)
class Peer:
    """Whoever is at the other end of a connection."""

    #: SPIFFE id; None when the certificate names none, or several.
    caller: str | None
    #: Seconds since 1970.
    not_before: float
    #: Seconds since 1970; the certificate does not count any more from then on.
    not_after: float
    #: Whether the connection is of TLS_VERSION.
    new_enough: bool


_NOBODY: Final = Peer(None, 0.0, 0.0, new_enough=False)


def peer_id(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """SPIFFE id of the caller, as its certificate says; None when it names none, or several."""
    return _caller(context.auth_context())


def _caller(told: Mapping[str, Iterable[bytes]]) -> str | None:
    found = tuple(told.get("peer_spiffe_id", ()))
    return found[0].decode() if len(found) == 1 else None


class Certificates:
    """Reads callers' certificates, each once."""

    def __init__(self, life_seconds_max: float) -> None:
        self._life_seconds_max = life_seconds_max
        self._read: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def peer(self, context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
        """Who is at the other end."""
        told = context.auth_context()
        caller = _caller(told)
        pem = tuple(told.get("x509_pem_cert", ()))
        if caller is None or len(pem) != 1:
            return _NOBODY
        new_enough = tuple(told.get("ssl_tls_version", ())) == (TLS_VERSION.encode(),)
        return Peer(caller, *self._life(pem[0]), new_enough=new_enough)

    def check(self, peer: Peer, now: float) -> None:
        """The certificate counts now, and was not made to count for long.

        Raises:
            LockstepError: CERTIFICATE_EXPIRED or CERTIFICATE_LIVES_TOO_LONG.
        """
        if now >= peer.not_after:
            raise expired()
        if peer.not_after - peer.not_before > self._life_seconds_max:
            message = f"certificates may live for {self._life_seconds_max:.0f} seconds here"
            raise LockstepError(grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_LIVES_TOO_LONG", message)

    def _life(self, pem: bytes) -> tuple[float, float]:
        name = hashlib.sha256(pem).digest()
        found = self._read.get(name)
        if found is None:
            certificate = x509.load_pem_x509_certificate(pem)
            found = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
            self._read[name] = found
            if len(self._read) > REMEMBERED_MAX:
                self._read.popitem(last=False)
        else:
            self._read.move_to_end(name)
        return found


def expired() -> LockstepError:
    """The caller's certificate ran out while the connection was open."""
    message = "the certificate of this connection has expired: connect with a renewed one"
    return LockstepError(grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED", message)
