"""Who calls: nobody, a stranger, every service, every client, and those who only look like one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from lockstep_sandbox.authority import Authority, Identity
from lockstep_sandbox.stack import BANK, CLIENT, SERVICES

#: Larger than any server takes, so that it is the server that refuses.
SENT_BYTES_MAX: Final = 16 << 20
OPTIONS: Final = (
    ("grpc.max_send_message_length", SENT_BYTES_MAX),
    ("grpc.max_receive_message_length", SENT_BYTES_MAX),
    ("grpc.enable_retries", 0),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # Each caller has connections of its own.
    ("grpc.use_local_subchannel_pool", 1),
)
#: Names in the trust domain that nobody has given rights by name: a client that no table knows, and names that look like known ones.
STRANGERS: Final = ("client/stranger", "client/CLI", "client/cli/other", "coordinator/other", "Coordinator", "clients", "client")
OTHER_DOMAIN: Final = "lockstep.local.example"


@dataclass(frozen=True, slots=True)
class Caller:
    """One kind of caller."""

    #: What reports call it.
    label: str
    #: Its name in the trust domain, or "" where it has none.
    name: str
    #: What it shows; None shows no certificate.
    identity: Identity | None = None
    #: Whether it speaks TLS at all.
    tls: bool = True
    #: Whether a server lets it connect.
    connects: bool = True

    def channel(self, target: str, authority_file: Path) -> grpc.aio.Channel:
        """Its channel to a server."""
        if not self.tls:
            return grpc.aio.insecure_channel(target, options=OPTIONS)
        trusted = authority_file.read_bytes()
        if self.identity is None:
            return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(trusted), options=OPTIONS)
        key, certificate = self.identity.key_file.read_bytes(), self.identity.certificate_file.read_bytes()
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(trusted, key, certificate), options=OPTIONS)


def callers(authority: Authority, foreign: Path) -> list[Caller]:
    """Every kind of caller; certificates of an authority that nobody trusts are made in the folder `foreign`."""
    inside = [Caller(name, name, authority.issue(name)) for name in (*SERVICES, BANK, CLIENT, *STRANGERS)]
    elsewhere = [
        Caller(f"{OTHER_DOMAIN}/{name}", "", authority.issue(f"{OTHER_DOMAIN}/{name}", ids=[f"spiffe://{OTHER_DOMAIN}/{name}"]))
        for name in ("coordinator", CLIENT)
    ]
    unknown = Authority(foreign)
    return [
        Caller("plaintext", "", tls=False, connects=False),
        Caller("no certificate", "", connects=False),
        *(Caller(f"foreign {name}", "", unknown.issue(name), connects=False) for name in ("coordinator", CLIENT)),
        *elsewhere,
        *inside,
    ]


@asynccontextmanager
async def channels_to(
    who: list[Caller], targets: Mapping[str, str], authority_file: Path
) -> AsyncIterator[dict[tuple[str, str], grpc.aio.Channel]]:
    """A channel of each caller to each server, by the caller's label and the server's name."""
    opened = {
        (caller.label, server): caller.channel(target, authority_file) for caller in who for server, target in targets.items()
    }
    try:
        yield opened
    finally:
        for each in opened.values():
            await each.close()
