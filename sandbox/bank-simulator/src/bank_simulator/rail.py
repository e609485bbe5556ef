"""The rail: HTTPS with client certificates. Converts between requests and the desk; holds no rules of the business.

    POST /rail/v1/requests                 {"requests": [REQUEST]} -> {"answers": [ANSWER]}, in their order, each judged by itself
    GET  /rail/v1/mailbox                  ?after=CURSOR&wait=SECONDS&limit=N -> {"messages": [{"cursor", "sha256", "body_base64"}]}
    POST /rail/v1/mailbox/ack              {"upto": CURSOR}

    REQUEST    {"idempotency_key", "body_base64"}: a message
               {"idempotency_key", "uetr", "key"}: the key of a hold, 64 upper-case hex digits
    ANSWER     {"status": 202, "accepted": true, "name"}, or a refusal with its status: 400 not valid, 404 no such hold, 409 idempotency key reused,
               422 wrong key, 500 nobody knows

Every refusal is {"error", "field", "rule"}; one of the whole request says so by its own status.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

import structlog
from aiohttp import web

from bank_simulator.checks import CheckError
from bank_simulator.intake import Accepted, Answer, Asked, Conflict, Intake, UnknownHold, WrongKey
from bank_simulator.mailbox import Mailboxes, UnknownCursor
from bank_simulator.settings import BankSeed, Counterparty, RailSettings

WAIT_SECONDS_MAX: Final = 20.0
ITEMS_MAX: Final = 500
ITEMS_DEFAULT: Final = 100
CURSOR_MAX: Final = 2**63 - 1
#: Requests that come in one.
REQUESTS_MAX: Final = 128
REQUEST_BYTES_MAX: Final = 8 * 1024 * 1024
#: How often it is looked for a renewed certificate.
RENEW_SECONDS: Final = 5.0

_KEY = re.compile(r"[0-9A-F]{64}")
_UETR = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,128}")

log = structlog.get_logger()


class _Refused(Exception):
    def __init__(self, status: int, field: str, rule: str, error: str) -> None:
        super().__init__(error)
        self.status, self.field, self.rule = status, field, rule


def tls_context(settings: RailSettings) -> ssl.SSLContext:
    """A server that asks every client for a certificate of the given authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(settings.ca_file)
    context.load_cert_chain(settings.certificate_file, settings.key_file)
    return context


async def renew(context: ssl.SSLContext, settings: RailSettings) -> None:
    """Show a renewed certificate at the next handshakes, and trust an authority that was added; never ends."""
    files = (settings.certificate_file, settings.key_file, settings.ca_file)
    shown = [each.read_bytes() for each in files]
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        with contextlib.suppress(OSError, ssl.SSLError):
            # A pair that does not match, as between the writing of its two files, is looked at again.
            found = [each.read_bytes() for each in files]
            if found != shown:
                context.load_verify_locations(settings.ca_file)
                context.load_cert_chain(settings.certificate_file, settings.key_file)
                shown = found


class Rail:
    """The rail's handlers."""

    def __init__(self, intake: Intake, mailboxes: Mailboxes, bank: BankSeed) -> None:
        self._intake = intake
        self._mailboxes = mailboxes
        self._identities = {identity: counterparty for counterparty in bank.counterparties for identity in counterparty.identities}

    def application(self) -> web.Application:
        """The rail as an application."""
        application = web.Application(client_max_size=REQUEST_BYTES_MAX, middlewares=[_refusals])
        application.router.add_post("/rail/v1/requests", self._requests)
        application.router.add_get("/rail/v1/mailbox", self._mailbox)
        application.router.add_post("/rail/v1/mailbox/ack", self._acknowledge)
        return application

    async def _requests(self, request: web.Request) -> web.Response:
        counterparty = self._counterparty(request)
        if request.content_type != "application/json":
            raise _Refused(415, "Content-Type", "JSON", "requests are application/json")
        listed = (await _json(request, {"requests"}))["requests"]
        if not isinstance(listed, list) or not 1 <= len(listed) <= REQUESTS_MAX:
            raise _Refused(400, "requests", "COUNT", f"they are a list of 1 to {REQUESTS_MAX}")
        read = [_asked(each) for each in listed]
        taken = iter(await self._intake.take(counterparty, [each for each in read if isinstance(each, Asked)]))
        return web.json_response({"answers": [_told(next(taken) if isinstance(each, Asked) else each) for each in read]})

    async def _mailbox(self, request: web.Request) -> web.Response:
        counterparty = self._counterparty(request)
        unknown = set(request.query) - {"after", "wait", "limit"}
        if unknown:
            raise _Refused(400, min(unknown), "KNOWN_FIELD", "there is no such parameter")
        after = _number(request, "after", None, 0, CURSOR_MAX)
        limit = _number(request, "limit", ITEMS_DEFAULT, 1, ITEMS_MAX)
        wait = _seconds(request)
        items = await self._mailboxes.read(counterparty.name, after, limit or ITEMS_DEFAULT, wait)
        messages = [
            {"cursor": item.cursor, "sha256": item.sha256.hex(), "body_base64": base64.b64encode(item.body).decode()}
            for item in items
        ]
        return web.json_response({"messages": messages})

    async def _acknowledge(self, request: web.Request) -> web.Response:
        counterparty = self._counterparty(request)
        content = await _json(request, {"upto"})
        upto = content["upto"]
        if not isinstance(upto, int) or isinstance(upto, bool) or not 0 <= upto <= CURSOR_MAX:
            raise _Refused(400, "upto", "CURSOR", "a cursor is a number that the mailbox gave")
        try:
            await self._mailboxes.acknowledge(counterparty.name, upto)
        except UnknownCursor:
            raise _Refused(400, "upto", "CURSOR", "the mailbox has not got so far") from None
        return web.json_response({"acknowledged": upto})

    def _counterparty(self, request: web.Request) -> Counterparty:
        transport = request.transport
        connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object") if transport else None
        certificate: Any = connection.getpeercert() if connection else None
        for identity in identities(certificate or {}):
            if identity in self._identities:
                return self._identities[identity]
        log.warning("unknown identity")
        raise _Refused(403, "certificate", "KNOWN_IDENTITY", "the certificate names no counterparty of this bank")


def identities(certificate: dict[str, Any]) -> list[str]:
    """The names in a client's certificate: alternative names first, the common name last."""
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind in {"URI", "DNS"}]
    return names + [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]


@web.middleware
async def _refusals(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Every error as JSON with field and rule; the text of an unexpected one goes to the log alone."""
    try:
        return await handler(request)
    except _Refused as refused:
        return _refusal(refused.status, refused.field, refused.rule, str(refused))
    except web.HTTPRequestEntityTooLarge:
        return _refusal(413, "body", "SIZE", f"a request has {REQUEST_BYTES_MAX} bytes at most")
    except web.HTTPException as error:
        return _refusal(error.status, "request", "HTTP", error.reason)
    except ConnectionResetError:
        raise
    except Exception:
        log.exception("rail", path=request.path)
        return _refusal(500, "request", "INTERNAL", "the bank failed; nothing was done")


def _refusal(status: int, field: str, rule: str, error: str) -> web.Response:
    return web.json_response({"error": error, "field": field, "rule": rule}, status=status)


def _asked(listed: Any) -> Asked | _Refused:
    """One of the requests, or what is wrong with its form."""
    try:
        return _read(listed)
    except _Refused as refused:
        return refused


def _read(listed: Any) -> Asked:
    fields = set(listed) if isinstance(listed, dict) else set()
    if fields not in ({"idempotency_key", "body_base64"}, {"idempotency_key", "uetr", "key"}):
        raise _Refused(400, "requests", "FIELDS", "each has a message, or a hold's UETR and key, and an idempotency key")
    if not all(isinstance(value, str) for value in listed.values()):
        raise _Refused(400, "requests", "TEXT", "all fields are text")
    name = listed["idempotency_key"]
    if not _IDEMPOTENCY_KEY.fullmatch(name):
        raise _Refused(400, "idempotency_key", "REQUIRED", "every request has a key of 1 to 128 visible characters")
    if "body_base64" in fields:
        try:
            return Asked(name, base64.b64decode(listed["body_base64"], validate=True))
        except ValueError:
            raise _Refused(400, "body_base64", "BASE64", "the body is no base64") from None
    if not _UETR.fullmatch(listed["uetr"]):
        raise _Refused(400, "uetr", "UETR", "a UETR is a version 4 UUID in lower case")
    if not _KEY.fullmatch(listed["key"]):
        raise _Refused(400, "key", "KEY", "a key is 64 upper-case hexadecimal digits")
    return Asked(name, json.dumps({"key": listed["key"]}).encode(), (UUID(listed["uetr"]), bytes.fromhex(listed["key"])))


def _told(answer: Answer | _Refused) -> dict[str, Any]:
    """What a counterparty is told of one request."""
    match answer:
        case Accepted(name=name):
            return {"status": 202, "accepted": True, "name": name}
        case _Refused():
            return _error(answer.status, answer.field, answer.rule, str(answer))
        case CheckError():
            return _error(400, answer.field, answer.rule, str(answer))
        case Conflict():
            return _error(409, "idempotency_key", "SAME_CONTENT", "the key was used for other content")
        case UnknownHold():
            return _error(404, "uetr", "KNOWN_HOLD", "there is no conditional payment with this UETR")
        case WrongKey():
            return _error(422, "key", "LOCK", "the key does not open the payment's lock")
        case _:
            return _error(500, "request", "INTERNAL", "the bank failed; nothing was done")


def _error(status: int, field: str, rule: str, error: str) -> dict[str, Any]:
    return {"status": status, "error": error, "field": field, "rule": rule}


async def _json(request: web.Request, fields: set[str]) -> dict[str, Any]:
    try:
        content = json.loads((await request.read()).decode("utf-8"))
    except (ValueError, RecursionError):
        raise _Refused(400, "body", "JSON", "the body is no JSON") from None
    if not isinstance(content, dict) or set(content) != fields:
        raise _Refused(400, "body", "FIELDS", f"the body has exactly these fields: {', '.join(sorted(fields))}")
    return content


def _number(request: web.Request, name: str, default: int | None, least: int, most: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise _Refused(400, name, "RANGE", f"it is a number from {least} to {most}")
    return int(text)


def _seconds(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3})?", text) or float(text) > WAIT_SECONDS_MAX:
        raise _Refused(400, "wait", "RANGE", f"it is a number of seconds up to {WAIT_SECONDS_MAX:.0f}")
    return float(text)
