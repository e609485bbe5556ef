"""The HTTP rail: mutual TLS, idempotency keys, a mailbox with acknowledgement.

Nothing is tried again here, and no redirect is followed: a key goes where it was meant to go. Only an answer in the rail's own form is the bank's: what a
proxy says on the way, be it 404 or 413, is no answer. An answer is read up to a limit.

When the certificate's files have changed, requests that begin later go over new connections; those under way end on the old ones.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import itertools
import json
import ssl
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import structlog
from opentelemetry.trace import SpanKind

from bank_gateway.rail import Accepted, Delivery, Handover, MailboxUnavailable, Message, NoAnswer, Request, TurnedDown
from lockstep_kit.foreign_json import read_json
from lockstep_kit.rpc import TlsSettings
from lockstep_kit.rpc.rotation import LOOK_SECONDS
from lockstep_kit.rpc.tls import Identity, read_again
from lockstep_kit.spans import detail

_log = structlog.get_logger()

REQUEST_SECONDS_MAX: Final = 10.0
#: More than are used at the same time, so that a message never waits for a connection, nor for the mailbox.
CONNECTIONS_MAX: Final = 24
#: Sent at the same time to a bank that takes one at a time.
ALONE_MAX: Final = 16
DELIVERIES_MAX: Final = 128
#: So many are never more than is read of an answer, however large they are.
DELIVERIES_SURE: Final = 20
#: Those as large as messages may be, in base64.
MAILBOX_BYTES_MAX: Final = DELIVERIES_SURE * 3 * 512 * 1024
ANSWER_BYTES_MAX: Final = 128 * 1024
#: Longest that a request over an old certificate may still take: a read of an empty mailbox.
OLD_REQUESTS_SECONDS_MAX: Final = 60.0
_REQUESTS: Final = "/rail/v1/requests"
_MESSAGES: Final = "/rail/v1/messages"
_RELEASE: Final = "/rail/v1/holds/{uetr}/release"
_FORMLESS: Final = "the answer is not in the rail's form"
#: Statuses that say, in the rail's own form, that the same request would be turned down again.
_FINAL: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)


class HttpRail:
    """One bank's HTTPS interface."""

    def __init__(self, url: str, tls: TlsSettings, *, together: bool = True, look_seconds: float = LOOK_SECONDS) -> None:
        """`together`: the bank takes many requests in one."""
        self._url = url.rstrip("/")
        self._tls = tls
        self._together = together
        self._look_seconds = look_seconds
        self._identity = Identity.read(tls)
        self._newest = self._connections()
        self._looked_at = time.monotonic()
        #: Deliveries that are asked for next.
        self._deliveries = DELIVERIES_MAX
        self._closing: dict[asyncio.Task[None], aiohttp.ClientSession] = {}

    @property
    def _session(self) -> aiohttp.ClientSession:
        """Connections for requests that begin now, over the newest certificate."""
        now = time.monotonic()
        if now - self._looked_at >= self._look_seconds:
            self._looked_at = now
            self._renew()
        return self._newest

    def _renew(self) -> None:
        found = read_again(self._tls, self._identity)
        if found is None:
            return
        try:
            newest = self._connections()
        except OSError as error:
            # The files changed once more meanwhile: they are looked at again.
            _log.warning("certificate_unreadable", file=str(self._tls.certificate_file), error=str(error))
            return
        old, self._newest, self._identity = self._newest, newest, found
        task = asyncio.create_task(_close_later(old), name="rail.close")
        self._closing[task] = old
        task.add_done_callback(lambda done: self._closing.pop(done, None))

    def _connections(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=str(self._tls.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._tls.certificate_file, self._tls.key_file)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX),
            raise_for_status=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def hand_over(self, requests: Sequence[Request]) -> Sequence[Handover]:
        """POST /rail/v1/requests; or, to a bank that takes one at a time, /rail/v1/messages and /rail/v1/holds/{uetr}/release, side by side."""
        if not self._together:
            turns = asyncio.Semaphore(ALONE_MAX)
            return await asyncio.gather(*(self._alone(each, turns) for each in requests))
        status, told = await self._post(_REQUESTS, _REQUESTS, json={"requests": [_listed(each) for each in requests]})
        answers = told.get("answers")
        if status == str(HTTPStatus.OK.value) and isinstance(answers, list) and len(answers) == len(requests):
            return [_handover(each.get("status"), each) if isinstance(each, dict) else NoAnswer(_FORMLESS) for each in answers]
        return [NoAnswer(f"HTTP {status}" if status.isdecimal() else status)] * len(requests)

    async def _alone(self, request: Request, turns: asyncio.Semaphore) -> Handover:
        headers = {"Idempotency-Key": request.idempotency_key}
        async with turns:
            if isinstance(request, Message):
                headers["Content-Type"] = "application/xml"
                status, told = await self._post(_MESSAGES, _MESSAGES, headers=headers, data=request.octets)
            else:
                path = _RELEASE.format(uetr=request.uetr)
                status, told = await self._post(_RELEASE, path, headers=headers, json={"key": request.key.hex().upper()})
        return _handover(int(status), told) if status.isdecimal() else NoAnswer(status)

    async def _post(self, route: str, path: str, **content: Any) -> tuple[str, dict[str, Any]]:
        """The status and the JSON object of an answer; why there is none, and an empty one."""
        parts = urlsplit(self._url)
        about: dict[str, str | int] = {
            "http.request.method": "POST",
            "http.route": route,
            "server.address": parts.hostname or "",
            "server.port": parts.port or 443,
        }
        with detail(f"POST {route}", SpanKind.CLIENT, about) as current:
            try:
                async with self._session.post(self._url + path, allow_redirects=False, **content) as response:
                    if current is not None:
                        current.set_attribute("http.response.status_code", response.status)
                    return str(response.status), await _json(response, ANSWER_BYTES_MAX)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                return f"{type(error).__name__}: {error}", {}

    async def receive(self, after: int, wait_seconds: float) -> Sequence[Delivery]:
        """GET /rail/v1/mailbox."""
        query = {"after": str(after), "wait": str(int(wait_seconds)), "limit": str(self._deliveries)}
        limit = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX + wait_seconds)
        try:
            url = f"{self._url}/rail/v1/mailbox"
            async with self._session.get(url, params=query, timeout=limit, allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    raise MailboxUnavailable(f"HTTP {response.status}")
                told = await _json(response, MAILBOX_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise MailboxUnavailable(f"{type(error).__name__}: {error}") from error
        messages = told.get("messages")
        # An answer that is too large is none: the next question is for less.
        self._deliveries = DELIVERIES_MAX if told else DELIVERIES_SURE
        if not isinstance(messages, list) or len(messages) > DELIVERIES_MAX:
            raise MailboxUnavailable("the answer is not in the rail's form")
        deliveries = [_delivery(each) for each in messages]
        places = [after, *(each.cursor for each in deliveries)]
        if any(later <= earlier for earlier, later in itertools.pairwise(places)):
            raise MailboxUnavailable("the deliveries are not in the order of their places")
        return deliveries

    async def acknowledge(self, upto: int) -> None:
        """POST /rail/v1/mailbox/ack."""
        try:
            url = f"{self._url}/rail/v1/mailbox/ack"
            async with self._session.post(url, json={"upto": upto}, allow_redirects=False) as response:
                if response.status != HTTPStatus.OK:
                    raise MailboxUnavailable(f"HTTP {response.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise MailboxUnavailable(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close connections, and let TLS say goodbye."""
        waiting = dict(self._closing)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for session in (self._newest, *waiting.values()):
            await session.close()
        await asyncio.sleep(0)


async def _close_later(session: aiohttp.ClientSession) -> None:
    await asyncio.sleep(OLD_REQUESTS_SECONDS_MAX)
    await session.close()


async def _json(response: aiohttp.ClientResponse, bytes_max: int) -> dict[str, Any]:
    """The answer's JSON object; empty where it is none, or too large."""
    octets = bytearray()
    async for chunk in response.content.iter_any():
        octets += chunk
        if len(octets) > bytes_max:
            response.close()
            return {}
    try:
        found = read_json(octets)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _listed(request: Request) -> dict[str, str]:
    """A request in the rail's form."""
    if isinstance(request, Message):
        return {"idempotency_key": request.idempotency_key, "body_base64": base64.b64encode(request.octets).decode()}
    return {"idempotency_key": request.idempotency_key, "uetr": request.uetr, "key": request.key.hex().upper()}


def _handover(status: Any, told: dict[str, Any]) -> Handover:
    """What the bank says of one request; what is not in the rail's form is no answer."""
    field, rule = told.get("field"), told.get("rule")
    if status == HTTPStatus.ACCEPTED and told.get("accepted") is True:
        return Accepted()
    if status in _FINAL and isinstance(field, str) and isinstance(rule, str):
        return TurnedDown(str(status), field, rule, differs=status == HTTPStatus.CONFLICT)
    return NoAnswer(f"HTTP {status}")


def _delivery(told: Any) -> Delivery:
    """A delivery with its place. Without a place the whole answer is none; what else is wrong with it is its own damage."""
    try:
        cursor = int(told["cursor"])
    except (KeyError, TypeError, ValueError) as error:
        raise MailboxUnavailable("a delivery is not in the rail's form") from error
    body, digest = told.get("body_base64"), told.get("sha256")
    if not isinstance(body, str) or not isinstance(digest, str):
        return Delivery(cursor, json.dumps(told).encode(), "is not in the rail's form")
    try:
        octets = base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        return Delivery(cursor, body.encode(), "is no base64")
    damage = "" if hashlib.sha256(octets).hexdigest() == digest.lower() else "has another hash"
    return Delivery(cursor, octets, damage)
