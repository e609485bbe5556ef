"""The control and inspection interface: loopback, bearer token. Tells the bank to misbehave, and shows what only the bank knows.

    GET    /health                     no token
    GET    /accounts[/{account}]       balances and holds
    POST   /accounts/{account}/status  {"status": "OPEN" | "BLOCKED" | "CLOSED"}
    POST   /accounts/{account}/credit  {"state": "GRANTED" | "DENIED" | "WITHDRAWN"}   what the liquidity provider says
    GET    /payments                   ?uetr=&state=&limit=
    GET    /undertakings               ?uetr=&state=&limit=
    POST   /payments/{uetr}/expire     its hold ends now
    POST   /payments/{uetr}/deliver    ?message=   what is said of it late is said now, a kind of message or all
    POST   /payments/{uetr}/return     {"reason": "AC04", "amount": "40.00"}   the money, or an amount of it, comes back (pacs.004)
    GET    /reservations               ?uetr=&limit=
    GET    /entries                    ?uetr=&uetr=&account=&credit_for=&limit=   payments' own entries; those of the credit that goes with it
    GET    /messages                   ?uetr=&limit=   received and sent, byte for byte
    GET    /quarantine                 ?limit=
    GET    /audit                      conservation, computed from the entries
    GET    /book                       the whole book in one look: audit, accounts, credit lines, open holds, bookings of each payment
    POST   /end-of-day                 ends the booking day that is open and states it: {"day"}
    POST   /statements                 {"day", "account"}   states a day that is over anew, as a correction: {"messages"}
    GET    /misbehaviours              POST adds a script, DELETE forgets them all

Amounts are minor units unless a field is decimal text; every refusal is {"error"}.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog
from aiohttp import web
from pydantic import ValidationError

from bank_simulator import inspection, reservation_store
from bank_simulator.audit import audit, book
from bank_simulator.credit import LineState
from bank_simulator.database import Connection, Database
from bank_simulator.desk import Desk, UnknownLine, UnknownPayment
from bank_simulator.misbehaviour import Script
from bank_simulator.statements import UnknownDay

ROWS_MAX: Final = 10_000
ROWS_DEFAULT: Final = 1000
STATUSES: Final = ("OPEN", "BLOCKED", "CLOSED")
_REASON: Final = re.compile("[A-Z0-9]{4}")

_SET_STATUS = """
-- Opens, blocks or closes an account of a customer or correspondent.
update accounts set status = $2 where account_id = $1 and kind in ('CUSTOMER', 'VOSTRO')
"""

_ADD_SCRIPT = """
-- Tells the bank to misbehave.
insert into misbehaviours (script, remaining) values ($1::jsonb, $2) returning misbehaviour_id
"""

_FORGET_SCRIPTS = """
-- The bank behaves again.
delete from misbehaviours
"""

_DELIVER_NOW = """
-- The time of late messages about a payment has come; $2: the beginning of their kind.
update deferred_messages set due_at = clock_timestamp() from messages_out as made
where made.message_id = deferred_messages.message_id and $1 = any(made.uetrs) and starts_with(made.kind, $2)
"""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()


class Control:
    """The interface's handlers."""

    def __init__(self, database: Database, desk: Desk, token: str) -> None:
        if not token:
            raise ValueError("the token file is empty")
        self._database = database
        self._desk = desk
        self._token = token

    def application(self) -> web.Application:
        """The interface as an application."""
        application = web.Application(middlewares=[self._guard], client_max_size=64 * 1024)
        router = application.router
        router.add_get("/health", self._health)
        router.add_get("/accounts", self._accounts)
        router.add_get("/accounts/{account}", self._account)
        router.add_post("/accounts/{account}/status", self._set_status)
        router.add_post("/accounts/{account}/credit", self._set_credit)
        router.add_get("/payments", self._payments)
        router.add_get("/undertakings", self._undertakings)
        router.add_post("/payments/{uetr}/expire", self._expire)
        router.add_post("/payments/{uetr}/deliver", self._deliver)
        router.add_post("/payments/{uetr}/return", self._return)
        router.add_get("/reservations", self._reservations)
        router.add_get("/entries", self._entries)
        router.add_get("/messages", self._messages)
        router.add_get("/quarantine", self._quarantine)
        router.add_get("/audit", self._audit)
        router.add_get("/book", self._book)
        router.add_post("/end-of-day", self._end_day)
        router.add_post("/statements", self._state)
        router.add_get("/misbehaviours", self._misbehaviours)
        router.add_post("/misbehaviours", self._misbehave)
        router.add_delete("/misbehaviours", self._behave)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        presented = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path != "/health" and not hmac.compare_digest(presented, f"Bearer {self._token}".encode()):
            return _answer({"error": "the bearer token is missing or wrong"}, status=401)
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _answer({"error": error.text or error.reason}, status=error.status)
        except Exception:
            log.exception("control", path=request.path)
            return _answer({"error": "failed: see the log"}, status=500)

    async def _health(self, _request: web.Request) -> web.Response:
        async with self._database.statement() as connection:
            await connection.fetchval("select 1")
        return _answer({"healthy": True})

    async def _accounts(self, _request: web.Request) -> web.Response:
        return _answer({"accounts": await self._read(partial(inspection.accounts, account_id=None))})

    async def _account(self, request: web.Request) -> web.Response:
        found = await self._read(partial(inspection.accounts, account_id=request.match_info["account"]))
        if not found:
            raise web.HTTPNotFound(text="there is no such account")
        return _answer(found[0])

    async def _set_status(self, request: web.Request) -> web.Response:
        status = (await _object(request)).get("status")
        if status not in STATUSES:
            raise web.HTTPBadRequest(text=f"status is one of {', '.join(STATUSES)}")
        async with self._database.transaction() as tx:
            if await tx.execute(_SET_STATUS, request.match_info["account"], status) == "UPDATE 0":
                raise web.HTTPNotFound(text="there is no such account")
        return _answer({"status": status})

    async def _set_credit(self, request: web.Request) -> web.Response:
        try:
            state = LineState(str((await _object(request)).get("state")))
        except ValueError:
            raise web.HTTPBadRequest(text=f"state is one of {', '.join(LineState)}") from None
        try:
            ended = await self._desk.set_line(request.match_info["account"], state)
        except UnknownLine:
            raise web.HTTPNotFound(text="the account has no credit line") from None
        return _answer({"state": state, "holds_ended": ended})

    async def _end_day(self, _request: web.Request) -> web.Response:
        return _answer({"day": (await self._desk.end_day()).isoformat()})

    async def _state(self, request: web.Request) -> web.Response:
        wanted = await _object(request)
        try:
            day = date.fromisoformat(str(wanted.get("day")))
        except ValueError:
            raise web.HTTPBadRequest(text="day is a date") from None
        try:
            messages = await self._desk.state_anew(day, str(wanted.get("account")))
        except UnknownDay:
            raise web.HTTPConflict(text="the day is not over") from None
        return _answer({"messages": messages})

    async def _payments(self, request: web.Request) -> web.Response:
        read = partial(inspection.payments, uetr=_uetr(request), state=request.query.get("state"), limit=_limit(request))
        return _answer({"payments": await self._read(read)})

    async def _undertakings(self, request: web.Request) -> web.Response:
        state, limit = request.query.get("state"), _limit(request)
        read = partial(inspection.undertakings, uetr=_uetr(request), state=state, limit=limit)
        return _answer({"undertakings": await self._read(read)})

    async def _expire(self, request: web.Request) -> web.Response:
        return _answer({"expired": await self._desk.expire(_path_uetr(request))})

    async def _deliver(self, request: web.Request) -> web.Response:
        async with self._database.transaction() as tx:
            done = await tx.execute(_DELIVER_NOW, _path_uetr(request), request.query.get("message", ""))
        await self._desk.deliver_due()
        return _answer({"delivered": int(done.rpartition(" ")[2])})

    async def _return(self, request: web.Request) -> web.Response:
        content = await _object(request)
        amount, reason = content.get("amount"), content.get("reason", "AC04")
        if not isinstance(reason, str) or not _REASON.fullmatch(reason) or not isinstance(amount, str | None):
            raise web.HTTPBadRequest(text="reason is a code of four characters, amount decimal text or absent")
        try:
            await self._desk.return_payment(UUID(request.match_info["uetr"]), amount, reason)
        except UnknownPayment:
            raise web.HTTPNotFound(text="there is no such payment") from None
        except (ValueError, asyncpg.CheckViolationError) as error:
            raise web.HTTPConflict(text=str(error)) from None
        return _answer({"returned": True}, status=201)

    async def _reservations(self, request: web.Request) -> web.Response:
        read = partial(reservation_store.show, uetr=_uetr(request), limit=_limit(request))
        return _answer({"reservations": await self._read(read)})

    async def _entries(self, request: web.Request) -> web.Response:
        account, credit_for = request.query.get("account"), _uetr(request, "credit_for")
        read = partial(
            inspection.entries, uetrs=_uetrs(request), account_id=account, credit_for=credit_for, limit=_limit(request)
        )  # fmt: skip
        return _answer({"entries": await self._read(read)})

    async def _messages(self, request: web.Request) -> web.Response:
        return _answer(await self._whole(partial(inspection.messages, uetr=_uetr(request), limit=_limit(request))))

    async def _quarantine(self, request: web.Request) -> web.Response:
        return _answer({"quarantine": await self._read(partial(inspection.quarantine, limit=_limit(request)))})

    async def _audit(self, _request: web.Request) -> web.Response:
        return _answer(await self._whole(audit))

    async def _book(self, _request: web.Request) -> web.Response:
        return _answer(await self._whole(book))

    async def _misbehaviours(self, _request: web.Request) -> web.Response:
        return _answer({"misbehaviours": await self._read(inspection.misbehaviours)})

    async def _misbehave(self, request: web.Request) -> web.Response:
        try:
            script = Script.model_validate_json(await request.read())
        except ValidationError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        async with self._database.transaction() as tx:
            number = await tx.fetchval(_ADD_SCRIPT, script.model_dump_json(), script.times)
        return _answer({"misbehaviour_id": number}, status=201)

    async def _behave(self, _request: web.Request) -> web.Response:
        async with self._database.transaction() as tx:
            await tx.execute(_FORGET_SCRIPTS)
        return _answer({"misbehaviours": []})

    async def _read(self, read: Callable[[Connection], Awaitable[Any]]) -> Any:
        """What one statement shows."""
        async with self._database.statement() as connection:
            return await read(connection)

    async def _whole(self, read: Callable[[Connection], Awaitable[Any]]) -> Any:
        """What several statements show."""
        # One snapshot, so that what is shown fits together while the bank works.
        async with self._database.transaction(isolation="repeatable_read") as tx:
            return await read(tx)


async def _object(request: web.Request) -> dict[str, Any]:
    try:
        content = json.loads(await request.read())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise web.HTTPBadRequest(text="the body is a JSON object")
    return content


def _uetr(request: web.Request, name: str = "uetr") -> UUID | None:
    return next(iter(_uetrs(request, name)), None)


def _uetrs(request: web.Request, name: str = "uetr") -> list[UUID]:
    try:
        return [UUID(text) for text in request.query.getall(name, []) if text]
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name} is no UUID") from None


def _path_uetr(request: web.Request) -> UUID:
    try:
        return UUID(request.match_info["uetr"])
    except ValueError:
        raise web.HTTPBadRequest(text="the path names no UUID") from None


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(ROWS_DEFAULT))
    if not text.isdecimal() or not 1 <= int(text) <= ROWS_MAX:
        raise web.HTTPBadRequest(text=f"limit is a number from 1 to {ROWS_MAX}")
    return int(text)


def _answer(content: Any, *, status: int = 200) -> web.Response:
    return web.json_response(content, status=status, dumps=partial(json.dumps, default=_plain))


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(type(value).__name__)
