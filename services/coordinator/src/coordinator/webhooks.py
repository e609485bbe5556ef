"""Brings notices to one webhook: signed, again and again until it takes them, and never at the cost of anything else.

A notice is a CloudEvent in structured mode, signed as the Standard Webhooks specification says: HMAC-SHA256 over `id.timestamp.body`, once for each
secret, so that a secret can be replaced without a notice being lost. Each webhook has a loop and connections of its own; no database connection is held
while it answers. Whatever it answers but 2xx, a redirect too, means that it has not taken the notice.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import random
import ssl
import time
from collections.abc import Sequence
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from coordinator.store import notices
from coordinator.tables import NOTICE_OUTBOX
from lockstep_kit import failpoints
from lockstep_kit.failpoints import failpoint
from lockstep_kit.loops import Loop, back_off_seconds
from lockstep_kit.outbox import Message
from lockstep_kit.spans import span
from lockstep_kit.values import dataclass

if TYPE_CHECKING:
    from lockstep_kit.db import Database

_log = structlog.get_logger()

CONTENT_TYPE: Final = "application/cloudevents+json"
#: Notices that are sent to one webhook at once.
CONNECTIONS_MAX: Final = 4
BATCH_MAX: Final = 32
POLL_SECONDS: Final = 5.0
BACK_OFF_SECONDS_MIN: Final = 1.0
#: Notices that were taken are forgotten after this.
KEPT: Final = timedelta(days=7)

failpoints.declare("coordinator.notice.before_send", "coordinator.notice.after_send", "coordinator.notice.after_done")


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of notices."""

    #: Its name, for people and in rows.
    name: str
    #: Where it listens.
    url: str
    #: Every signature is made with each of these; the receiver needs one.
    secrets: tuple[bytes, ...] = field(repr=False)
    #: Authorities that its certificate may be of, PEM; None: the system's.
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long webhooks are waited for."""

    #: For one answer.
    answer: timedelta
    #: Between two tries at the most.
    pause_max: timedelta
    #: In all, before a notice becomes a dead letter.
    give_up: timedelta


def signature(secrets: Sequence[bytes], notice_id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature: one `v1,` signature of each secret, parted by spaces."""
    signed = f"{notice_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(secret, signed, hashlib.sha256) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(each).decode('ascii')}" for each in digests)


class Sender:
    """Sends the outbox's messages to one webhook."""

    def __init__(self, db: Database, webhook: Webhook, patience: Patience, *, allow_loopback: bool) -> None:
        self._db = db
        self._webhook = webhook
        self._patience = patience
        self._allow_loopback = allow_loopback
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._ssl = ssl.create_default_context(cafile=webhook.ca_file)

    def loop(self) -> Loop:
        """The loop that sends."""
        loop = Loop(f"webhook.{self._webhook.name}", self.run, poll_seconds=POLL_SECONDS)
        self._db.listen(NOTICE_OUTBOX.channel, loop.wake)
        return loop

    async def run(self) -> None:
        """Send what is due, until nothing is."""
        lease = self._patience.answer * (2 + BATCH_MAX // CONNECTIONS_MAX)
        while True:
            async with self._db.connection() as connection:
                claimed = await NOTICE_OUTBOX.claim(
                    connection, lease, limit=BATCH_MAX, destinations=[self._webhook.name], run_max=1
                )
            if not claimed:
                return
            async with aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS_MAX, ssl=self._ssl, resolver=_Resolver(allow_loopback=self._allow_loopback)
                ),
                timeout=aiohttp.ClientTimeout(total=self._patience.answer.total_seconds()),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session:
                gate = asyncio.Semaphore(CONNECTIONS_MAX)
                await asyncio.gather(*(self._deliver(session, gate, each) for each in claimed))

    async def _deliver(self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, message: Message) -> None:
        async with gate:
            with span("coordinator.notice", traceparent=message.traceparent, attributes={"webhook": self._webhook.name}):
                await failpoint("coordinator.notice.before_send")
                trouble = await self._send(session, message)
                await failpoint("coordinator.notice.after_send")
        if not trouble:
            async with self._db.connection() as connection:
                await NOTICE_OUTBOX.done(connection, [message])
            await failpoint("coordinator.notice.after_done")
            return
        told = {"webhook": self._webhook.name, "notice_id": message.ordering_key, "attempts": message.attempts, "trouble": trouble}
        if time.time() - message.created_at.timestamp() > self._patience.give_up.total_seconds():
            _log.error("notice_given_up", **told)
            async with self._db.transaction() as tx:
                await notices.bury(tx, message, trouble)
            return
        _log.warning("notice_not_taken", **told)
        pause = back_off_seconds(
            message.attempts, self._rng, first=BACK_OFF_SECONDS_MIN, most=self._patience.pause_max.total_seconds()
        )
        async with self._db.connection() as connection:
            await NOTICE_OUTBOX.reschedule(connection, {message: timedelta(seconds=pause)})

    async def _send(self, session: aiohttp.ClientSession, message: Message) -> str:
        """Send once; why it was not taken, or ""."""
        notice_id, now = message.ordering_key, int(time.time())
        headers = {
            "content-type": CONTENT_TYPE,
            "webhook-id": notice_id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._webhook.secrets, notice_id, now, message.payload),
        }
        try:
            # The body of the answer is not read: it would say nothing, and could have any length.
            async with session.post(self._webhook.url, data=message.payload, headers=headers, allow_redirects=False) as response:
                return "" if 200 <= response.status < 300 else f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__


class Sweeper:
    """Forgets what was taken long ago, and gives up what nobody is configured to get any more."""

    def __init__(self, db: Database, webhooks: Sequence[str], give_up: timedelta, *, poll_seconds: float) -> None:
        self._db = db
        self._webhooks = tuple(webhooks)
        self._give_up = give_up
        self._poll_seconds = poll_seconds

    def loop(self) -> Loop:
        """The loop that sweeps."""
        return Loop("notices_sweeper", self.run, poll_seconds=self._poll_seconds)

    async def run(self) -> None:
        """One sweep."""
        async with self._db.transaction() as tx:
            if given_up := await notices.bury_stray(tx, self._webhooks, self._give_up):
                _log.error("notices_given_up", count=given_up)
        async with self._db.connection() as connection:
            await NOTICE_OUTBOX.purge(connection, KEPT)


def forbidden(address: str) -> bool:
    """Whether an address is this machine's own, or of a network that is no receiver's: metadata services live there."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    return mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified or mapped.is_multicast


class _Resolver(AbstractResolver):
    """Names that resolve to a forbidden address do not resolve."""

    def __init__(self, *, allow_loopback: bool) -> None:
        self._resolver = ThreadedResolver()
        self._allow_loopback = allow_loopback

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not self._allow_loopback and any(forbidden(each["host"]) for each in found):
            raise OSError(f"{host} is at an address that no webhook may have")
        return found

    async def close(self) -> None:
        await self._resolver.close()
