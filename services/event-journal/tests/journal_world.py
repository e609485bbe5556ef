"""The journal's writer, its readers, its coordinator, and its database as the owner sees it: the tests' own module."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from event_journal.chain import EVENT_TYPES
from lockstep.journal.v1 import (
    entry_pb2,
    journal_reader_service_pb2,
    journal_reader_service_pb2_grpc,
    journal_service_pb2,
    journal_service_pb2_grpc,
)
from lockstep.participant.v1 import participant_service_pb2_grpc
from lockstep.type.v1.outcome_pb2 import Epoch
from lockstep_kit.convert import time_to_pb
from lockstep_kit.ids import PlanId, journal_event_id
from lockstep_kit.participant.ports import Closing, PlanOutcome
from lockstep_sandbox.runtime import write_secret
from lockstep_testkit.factories import PlanCase, delivery_versus_payment
from lockstep_testkit.journal_events import payload_of
from lockstep_testkit.participant_conformance import ParticipantHarness
from lockstep_testkit.participants import CLIENT, ParticipantProcess

CALL_SECONDS = 60.0
APPENDED = journal_service_pb2.APPEND_VERDICT_APPENDED
GAP = journal_service_pb2.APPEND_VERDICT_GAP
CONFLICT = journal_service_pb2.APPEND_VERDICT_CONFLICT
SEALED = journal_service_pb2.APPEND_VERDICT_SEALED
STALE = journal_service_pb2.APPEND_VERDICT_STALE
INVALID = journal_service_pb2.APPEND_VERDICT_INVALID


def event_of(plan: PlanCase, sequence: int, *, digest: str | None = None, **changes: Any) -> journal_service_pb2.Event:
    """The nth event of a plan."""
    kind = changes.pop("type", "plan.created" if sequence == 1 else "leg.prepared")
    told = bytes.fromhex(digest) if digest else plan.header.digest
    message = journal_service_pb2.Event(
        plan_id=plan.plan_id,
        sequence=sequence,
        event_id=journal_event_id(plan.plan_id, sequence),
        type=kind,
        actor="alice",
        actor_role="maker",
        event_time=time_to_pb(datetime(2026, 11, 21, 12, 0, sequence % 60, 123456, UTC)),
        payload=payload_of(kind, told, number=sequence) if kind in EVENT_TYPES else b"{}",
    )
    epoch = changes.pop("epoch", Epoch(generation=1, counter=1))
    message.epoch.CopyFrom(epoch)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@dataclass
class JournalWorld:
    """Everybody around a journal."""

    service: ParticipantProcess
    writer: journal_service_pb2_grpc.JournalServiceStub
    reader: journal_reader_service_pb2_grpc.JournalReaderServiceStub
    harness: ParticipantHarness

    @classmethod
    async def around(cls, service: ParticipantProcess) -> JournalWorld:
        coordinator, client = await service.channel(), await service.channel(CLIENT)
        writer = journal_service_pb2_grpc.JournalServiceStub(coordinator)

        async def plan() -> PlanCase:
            case = delivery_versus_payment()
            await append(writer, *(event_of(case, sequence) for sequence in (1, 2, 3)))
            return case

        async def closing(case: PlanCase, outcome: PlanOutcome) -> Closing:
            return closing_at(case, 4, outcome)

        stub = participant_service_pb2_grpc.ParticipantServiceStub(coordinator)
        harness = ParticipantHarness("event-journal", stub, "journal", plan, closing=closing)
        return cls(service, writer, journal_reader_service_pb2_grpc.JournalReaderServiceStub(client), harness)

    async def append(self, *events: journal_service_pb2.Event) -> list[journal_service_pb2.AppendAnswer]:
        return await append(self.writer, *events)

    async def entries(self, plan_id: str, page_size: int = 0) -> list[entry_pb2.Entry]:
        """The whole chain, page by page."""
        return await self._pages(page_size, plan_id=plan_id)

    async def chains(self, plan_ids: Sequence[str], page_size: int = 0) -> list[entry_pb2.Entry]:
        """The whole chains of plans, page by page."""
        return await self._pages(page_size, plan_ids=plan_ids)

    async def _pages(self, page_size: int, **asked: Any) -> list[entry_pb2.Entry]:
        found: list[entry_pb2.Entry] = []
        token = ""
        while True:
            request = journal_reader_service_pb2.ListEntriesRequest(page_size=page_size, page_token=token, **asked)
            page = await self.reader.ListEntries(request, timeout=CALL_SECONDS)
            found += page.entries
            token = page.next_page_token
            if not token:
                return found

    async def verify(self, plan_id: str) -> journal_reader_service_pb2.VerifyPlanResponse:
        return await self.reader.VerifyPlan(journal_reader_service_pb2.VerifyPlanRequest(plan_id=plan_id), timeout=CALL_SECONDS)

    def watch(self, plan_id: str = "", token: str = "") -> Any:
        request = journal_reader_service_pb2.WatchEntriesRequest(plan_id=plan_id, resume_token=token)
        return self.reader.WatchEntries(request, timeout=CALL_SECONDS)

    @asynccontextmanager
    async def as_owner(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        async with self.service.database.as_owner() as connection:
            yield connection

    async def rows(self, statement: str, *arguments: object) -> Sequence[Any]:
        async with self.as_owner() as connection:
            return await connection.fetch(statement, *arguments)

    async def head(self, plan_id: PlanId) -> Any:
        """Where the database says that a chain stands."""
        return (await self.rows("select * from journal_chain where plan_id = $1", plan_id))[0]

    async def tamper(self, *statements: str, plan_id: PlanId) -> None:
        """Change stored rows as somebody does who owns the database; $1 is the plan."""
        async with self.as_owner() as connection, connection.transaction():
            for table in ("journal_entry", "journal_chain"):
                await connection.execute(f"alter table {table} disable trigger all")
            for statement in statements:
                await connection.execute(statement, plan_id)
            for table in ("journal_entry", "journal_chain"):
                await connection.execute(f"alter table {table} enable trigger all")


async def append(
    writer: journal_service_pb2_grpc.JournalServiceStub, *events: journal_service_pb2.Event
) -> list[journal_service_pb2.AppendAnswer]:
    response = await writer.Append(journal_service_pb2.AppendRequest(events=events), timeout=CALL_SECONDS)
    return list(response.answers)


def write_payload_key(path: Path) -> Path:
    """A wrapping key, drawn into a file."""
    return write_secret(path, base64.b64encode(secrets.token_bytes(32)) + b"\n")


def closing_at(plan: PlanCase, sequence: int, outcome: PlanOutcome = PlanOutcome.COMMITTED) -> Closing:
    """The order to close a plan's chain at a place."""
    told = plan.closing(outcome)
    return Closing(told.outcome, told.evidence_digest, sequence, told.transition_no, told.from_state)
