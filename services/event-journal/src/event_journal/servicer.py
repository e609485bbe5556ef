"""JournalService and JournalReaderService: check, convert, call, convert."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from event_journal import store
from event_journal.appender import Appender
from event_journal.appending import against_head
from event_journal.chain import verify
from event_journal.convert import answer_to_pb, entry_to_pb, submission_from_pb, verification_to_pb
from lockstep.journal.v1 import (
    journal_reader_service_pb2,
    journal_reader_service_pb2_grpc,
    journal_service_pb2,
    journal_service_pb2_grpc,
)
from lockstep_kit import ids
from lockstep_kit.convert import epoch_from_pb
from lockstep_kit.db import Database
from lockstep_kit.errors import not_found, resume_token_expired, unavailable
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.ids import PlanId
from lockstep_kit.registry import Registry

EVENTS_MAX = 512
PAGE_MAX = 500
PAGE_DEFAULT = 100
WATCH_BATCH = 256


class JournalServicer(journal_service_pb2_grpc.JournalServiceServicer):
    """The writer's side."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender

    async def Append(  # noqa: N802 - the protocol's name
        self, request: journal_service_pb2.AppendRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_service_pb2.AppendResponse:
        """Append events; each is answered by itself."""
        del context
        require(1 <= len(request.events) <= EVENTS_MAX, "events", f"must be 1 to {EVENTS_MAX}")
        events = [submission_from_pb(event, f"events[{index}]") for index, event in enumerate(request.events)]
        answers = await self._appender.append(events)
        return journal_service_pb2.AppendResponse(answers=[answer_to_pb(answer) for answer in answers])

    async def RaiseFence(  # noqa: N802 - the protocol's name
        self, request: journal_service_pb2.RaiseFenceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_service_pb2.RaiseFenceResponse:
        """Hold off what was sent under an older epoch."""
        del context
        plan_id = ids.plan_id(request.plan_id)
        await self._appender.raise_fence(plan_id, epoch_from_pb(request.epoch))
        return journal_service_pb2.RaiseFenceResponse()


class JournalReaderServicer(journal_reader_service_pb2_grpc.JournalReaderServiceServicer):
    """The readers' side."""

    def __init__(self, db: Database, registry: Registry, news: asyncio.Condition, heartbeat_seconds: float) -> None:
        self._db = db
        self._registry = registry
        self._news = news
        self._heartbeat_seconds = heartbeat_seconds
        self._draining = False

    async def drain(self) -> None:
        """End every open stream; its reader resumes at another replica."""
        self._draining = True
        async with self._news:
            self._news.notify_all()

    async def ListEntries(  # noqa: N802 - the protocol's name
        self, request: journal_reader_service_pb2.ListEntriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_reader_service_pb2.ListEntriesResponse:
        """A page of a plan's chain."""
        del context
        plan_id = ids.plan_id(request.plan_id)
        require(0 <= request.page_size <= PAGE_MAX, "page_size", f"must be at most {PAGE_MAX}")
        size = request.page_size or PAGE_DEFAULT
        after = 0
        if request.page_token:
            asked, after = _place(request.page_token, "page_token")
            require(asked == plan_id, "page_token", "must be a token of this plan")
        async with self._db.connection() as connection:
            rows = await store.plan_entries(connection, plan_id, after=after, limit=size + 1)
        more = _token(plan_id, rows[size - 1]["sequence"]) if len(rows) > size else ""
        return journal_reader_service_pb2.ListEntriesResponse(
            entries=[entry_to_pb(row) for row in rows[:size]], next_page_token=more
        )

    async def VerifyPlan(  # noqa: N802 - the protocol's name
        self, request: journal_reader_service_pb2.VerifyPlanRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_reader_service_pb2.VerifyPlanResponse:
        """Recompute a plan's chain."""
        del context
        plan_id = ids.plan_id(request.plan_id)
        async with self._db.connection() as connection:
            head, chain = await store.whole_chain(connection, plan_id)
        if not chain and (head is None or head.entry_count == 0):
            raise not_found("plan", plan_id)
        return verification_to_pb(against_head(verify(chain, self._registry), head))

    async def WatchEntries(  # noqa: N802 - the protocol's name
        self, request: journal_reader_service_pb2.WatchEntriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[journal_reader_service_pb2.WatchEntriesResponse]:
        """Entries from a place on, then live. A place is taken and committed in one order, so none is passed over."""
        del context
        plan_id = ids.plan_id(request.plan_id) if request.plan_id else None
        async with self._db.connection() as connection:
            incarnation, last = await store.log_end(connection)
        position = 0
        if request.resume_token:
            log, position = _place(request.resume_token, "resume_token")
            if log != incarnation or position > last:
                # It was drawn from a log that a restore has ended: what stands at such places now is something else.
                raise resume_token_expired()
        while not self._draining:
            rows = await self._after(position, plan_id)
            if rows:
                position = rows[-1]["position"]
            yield journal_reader_service_pb2.WatchEntriesResponse(
                entries=[entry_to_pb(row) for row in rows], resume_token=_token(incarnation, position)
            )
            if len(rows) < WATCH_BATCH and not self._draining:
                await self._wait(position, plan_id)
        raise unavailable("DRAINING", "the server is stopping; resume at another one")

    async def _after(self, position: int, plan_id: PlanId | None) -> list[Any]:
        async with self._db.connection() as connection:
            return await store.entries_after(connection, position, plan_id=plan_id, limit=WATCH_BATCH)

    async def _wait(self, position: int, plan_id: PlanId | None) -> None:
        """Until there is something new, or a heartbeat is due."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._heartbeat_seconds
        while loop.time() < until and not self._draining:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until), self._news:
                    await self._news.wait()
            if plan_id is None or await self._after(position, plan_id):
                return


def _token(scope: str, number: int) -> str:
    return base64.urlsafe_b64encode(f"journal:{scope}:{number}".encode()).decode()


def _place(token: str, field: str) -> tuple[str, int]:
    """What a token is about, and the place in it.

    Raises:
        FieldInvalid: no token of this service.
    """
    try:
        name, scope, number = base64.b64decode(token, b"-_", validate=True).decode("ascii").split(":")
    except ValueError:
        name, scope, number = "", "", ""
    if name != "journal" or not number.isdigit() or len(number) > 18:
        raise FieldInvalid(field, "must be a token that this service gave")
    return scope, int(number)
