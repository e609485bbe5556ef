"""`python -m event_journal --config FILE`: the composition root; nothing else constructs."""

from __future__ import annotations

import asyncio

from event_journal import store
from event_journal.appender import Appender, JournalOperations
from event_journal.servicer import JournalReaderServicer, JournalServicer
from event_journal.settings import JournalSettings
from lockstep.journal.v1 import (
    journal_reader_service_pb2,
    journal_reader_service_pb2_grpc,
    journal_service_pb2,
    journal_service_pb2_grpc,
)
from lockstep_kit.loops import Loop
from lockstep_kit.participant.engine import declare_failpoints
from lockstep_kit.participant.process import ParticipantProcess, Service
from lockstep_kit.settings import load

NAME = "event-journal"

declare_failpoints(NAME)


async def run(settings: JournalSettings) -> None:
    """Serve until told to stop."""
    async with ParticipantProcess.opened(NAME, settings, settings.participant) as process:
        operations = JournalOperations(process.signing_key, process.registry)
        engine = process.engine(operations)
        appender = Appender(process.db, engine, operations, process.signing_key)
        news = asyncio.Condition()
        reader = JournalReaderServicer(process.db, process.registry, news, settings.heartbeat_seconds)

        async def tell() -> None:
            async with news:
                news.notify_all()

        told = Loop("journal.news", tell, poll_seconds=settings.poll_seconds)
        process.db.listen(store.CHANNEL, told.wake)
        await process.serve(
            engine,
            loops=[
                told,
                Loop("journal.advance", appender.advance, poll_seconds=settings.poll_seconds, wake=operations.waiting),
            ],
            services=[
                Service(
                    journal_service_pb2_grpc.add_JournalServiceServicer_to_server,
                    JournalServicer(appender),
                    journal_service_pb2.DESCRIPTOR.services_by_name["JournalService"],
                ),
                Service(
                    journal_reader_service_pb2_grpc.add_JournalReaderServiceServicer_to_server,
                    reader,
                    journal_reader_service_pb2.DESCRIPTOR.services_by_name["JournalReaderService"],
                    reader.drain,
                ),
            ],
            access={
                **dict.fromkeys(settings.readers, ("/lockstep.journal.v1.JournalReaderService/*",)),
                # After a restore the coordinator reads what it had written.
                settings.participant.coordinator_id: (
                    "/lockstep.journal.v1.JournalService/*",
                    "/lockstep.journal.v1.JournalReaderService/ListEntries",
                ),
            },
        )


def main() -> None:
    """Run with the settings of the command line."""
    asyncio.run(run(load(JournalSettings)))
