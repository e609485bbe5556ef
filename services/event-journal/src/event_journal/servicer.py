"""JournalService and JournalReaderService: check, convert, call, convert."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from event_journal import key_store, store
from event_journal.appender import Appender
from event_journal.appending import against_head
from event_journal.chain import verify
from event_journal.convert import answer_to_pb, entry_to_pb, signed_key_to_pb, submission_from_pb, verification_to_pb
from event_journal.log.reading import audit_plan
from event_journal.log.servicer import LogServicer
from event_journal.payload_keys import PayloadVault
from event_journal.payload_store import entries_of
from event_journal.streams import MESSAGE_BYTES_MAX, EntryStreams, Place
from lockstep.journal.v1 import (
    entry_pb2,
    journal_reader_service_pb2,
    journal_service_pb2,
    journal_service_pb2_grpc,
    key_history_pb2,
)
from lockstep_kit import ids
from lockstep_kit.convert import epoch_from_pb
from lockstep_kit.db import Database
from lockstep_kit.errors import not_found, unavailable
from lockstep_kit.fields import require
from lockstep_kit.opaque_tokens import number_in, place_in, token_of
from lockstep_kit.participant.readers import PlanReaders
from lockstep_kit.registry import Registry
from lockstep_kit.values import replace

EVENTS_MAX = 512
PAGE_MAX = 500
PAGE_DEFAULT = 100
PLANS_MAX = 64
_JOURNAL = "journal:"


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


class JournalReaderServicer(LogServicer):
    """The readers' side."""

    def __init__(
        self,
        db: Database,
        registry: Registry,
        vault: PayloadVault,
        streams: EntryStreams,
        readers: PlanReaders,
        *,
        slow_reader_seconds: float = 30.0,
    ) -> None:
        super().__init__(db, vault, readers)
        self._registry = registry
        self._vault = vault
        self._streams = streams
        self._slow_reader_seconds = slow_reader_seconds

    async def drain(self) -> None:
        """End every open stream; its reader resumes at another replica."""
        self._streams.drain()

    async def ListEntries(  # noqa: N802 - the protocol's name
        self, request: journal_reader_service_pb2.ListEntriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_reader_service_pb2.ListEntriesResponse:
        """A page of one plan's chain or of many plans'."""
        asked = _plans_of(request)
        require(0 <= request.page_size <= PAGE_MAX, "page_size", f"must be at most {PAGE_MAX}")
        size = request.page_size or PAGE_DEFAULT
        after = _place(request.page_token, "page_token") if request.page_token else ("", 0)
        require(not request.page_token or after[0] in asked, "page_token", "must be a token of one of these plans")
        if request.plan_ids:
            plans = await self._readers.seen(context, asked)
        else:
            await self._readers.admit(context, asked[0])
            plans = asked
        async with self._db.connection() as connection:
            rows = await store.plans_entries(connection, plans, after=after, limit=size + 1)
            entries = await entries_of(connection, rows[:size], self._vault)
        page = list(_fitting(entry_to_pb(entry, row["position"]) for entry, row in zip(entries, rows, strict=False)))
        more = _token(page[-1].plan_id, page[-1].sequence) if len(page) < len(rows) else ""
        return journal_reader_service_pb2.ListEntriesResponse(entries=page, next_page_token=more)

    async def VerifyPlan(  # noqa: N802 - the protocol's name
        self, request: journal_reader_service_pb2.VerifyPlanRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_reader_service_pb2.VerifyPlanResponse:
        """Recompute a plan's chain."""
        plan_id = ids.plan_id(request.plan_id)
        await self._readers.admit(context, plan_id)
        async with self._db.connection() as connection:
            head, chain = (await store.whole_chains(connection, [plan_id], self._vault))[plan_id]
            # Read after the chain: whatever signed it was in the history before.
            keys = await key_store.history(connection)
            if not chain and (head is None or head.entry_count == 0):
                raise not_found("plan", plan_id)
            logged = await audit_plan(connection, plan_id, self._registry)
        found = against_head(verify(chain, self._registry, keys), head)
        return verification_to_pb(replace(found, findings=(*found.findings, *logged)))

    async def GetKeyHistory(  # noqa: N802 - the protocol's name
        self, request: key_history_pb2.GetKeyHistoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> key_history_pb2.GetKeyHistoryResponse:
        """The journal's keys, each introduced by the one before."""
        del request, context
        async with self._db.connection() as connection:
            signed = await key_store.statements(connection)
        return key_history_pb2.GetKeyHistoryResponse(keys=[signed_key_to_pb(each) for each in signed])

    async def WatchEntries(  # type: ignore[override]  # noqa: N802 - the protocol's name; gRPC takes a coroutine that writes
        self, request: journal_reader_service_pb2.WatchEntriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Entries from a place on, then live. A place is taken and committed in one order, so none is passed over.

        The messages are written here, each within a limit of time: a reader that takes none is not waited for.
        """
        plan_id = ids.plan_id(request.plan_id) if request.plan_id else None
        if plan_id is not None:
            await self._readers.admit(context, plan_id)
        else:
            require(self._readers.sees_all(context), "plan_id", "must name a plan: this caller does not read all plans")
        after = Place(*_place(request.resume_token, "resume_token")) if request.resume_token else None
        async with contextlib.aclosing(self._streams.stream(plan_id, after)) as stretches:
            async for stretch in stretches:
                message = journal_reader_service_pb2.WatchEntriesResponse(
                    entries=stretch.entries,
                    resume_token=_token(stretch.place.log_id, stretch.place.position),
                    log_id=stretch.place.log_id,
                )
                try:
                    async with asyncio.timeout(self._slow_reader_seconds):
                        await context.write(message)
                except TimeoutError:
                    raise unavailable("WATCHER_SLOW", "the reader took too long for one message; resume with the token") from None


def _plans_of(request: journal_reader_service_pb2.ListEntriesRequest) -> list[ids.PlanId]:
    """The plans that are asked for.

    Raises:
        FieldInvalid: one in both fields, none, too many, or one twice.
    """
    if not request.plan_ids:
        return [ids.plan_id(request.plan_id)]
    require(not request.plan_id, "plan_id", "must be absent where there are plan_ids")
    require(len(request.plan_ids) <= PLANS_MAX, "plan_ids", f"must be at most {PLANS_MAX}")
    plans = [ids.plan_id(each, f"plan_ids[{index}]") for index, each in enumerate(request.plan_ids)]
    require(len(set(plans)) == len(plans), "plan_ids", "must be different plans")
    return plans


def _fitting(entries: Iterable[entry_pb2.Entry]) -> Iterator[entry_pb2.Entry]:
    """The first entries, as many as a message holds; one at least."""
    octets = 0
    for entry in entries:
        octets += entry.ByteSize()
        if octets > MESSAGE_BYTES_MAX and octets > entry.ByteSize():
            return
        yield entry


def _token(scope: str, number: int) -> str:
    return token_of(_JOURNAL, f"{scope}:{number}")


def _place(token: str, field: str) -> tuple[str, int]:
    """What a token is about, and the place in it.

    Raises:
        FieldInvalid: no token of this service.
    """
    scope, _, number = place_in(token, _JOURNAL, field).partition(":")
    return scope, number_in(number, field)
