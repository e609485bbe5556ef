"""`python -m event_journal --config FILE`: the composition root; nothing else constructs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from event_journal import store
from event_journal.appender import Appender, JournalOperations
from event_journal.installed import read_state
from event_journal.log.publishing import Rhythm
from event_journal.log.sequencer import Sequencer
from event_journal.metrics import METRICS
from event_journal.payload_keys import read_vault
from event_journal.payload_store import check_wrapping_keys
from event_journal.servicer import JournalReaderServicer, JournalServicer
from event_journal.settings import METHODS, SERVICE, JournalSettings
from event_journal.signing_keys import SigningKeys
from event_journal.streams import EntryStreams
from lockstep.journal.v1 import (
    journal_reader_service_pb2,
    journal_reader_service_pb2_grpc,
    journal_service_pb2,
    journal_service_pb2_grpc,
)
from lockstep_kit.loops import Loop
from lockstep_kit.participant.engine import declare_failpoints
from lockstep_kit.participant.process import ParticipantProcess, Service
from lockstep_kit.participant.readers import PlanReaders
from lockstep_kit.rpc.standings import check_readers, granted, standings_of
from lockstep_kit.settings import load

NAME: Final = "event-journal"
#: Services of which each answer leads to a signature.
WRITERS: Final = ("lockstep.journal.v1.JournalService", "lockstep.participant.v1.ParticipantService")
#: What is appended so soon behind what was read or counted last is read and counted together.
REST_SECONDS: Final = 0.02

declare_failpoints(NAME)


async def run(settings: JournalSettings) -> None:
    """Serve until told to stop."""
    check_readers(settings.readers, "readers", METHODS)
    async with ParticipantProcess.opened(NAME, settings, settings.participant) as process:
        keys = SigningKeys(process.signing_key, process.registry)
        vault = read_vault(settings.payload_key_files)
        async with process.db.connection() as connection:
            # Nobody could follow to what such a key signs.
            if (refused := await keys.refused(connection)) is not None:
                raise refused
            await check_wrapping_keys(connection, vault)
        operations = JournalOperations(keys, process.registry, vault)
        engine = process.engine(operations)
        streams = EntryStreams(process.db, vault, heartbeat_seconds=settings.heartbeat_seconds)
        appender = Appender(process.db, engine, operations, keys, vault, streams)
        reader = JournalReaderServicer(
            process.db,
            process.registry,
            vault,
            streams,
            PlanReaders(process.db, standings_of(settings.readers)),
            slow_reader_seconds=settings.slow_reader_seconds,
        )
        told = Loop(
            "journal.news", streams.follow, poll_seconds=settings.poll_seconds, wake=streams.wake, rest_seconds=REST_SECONDS
        )
        process.db.listen(store.CHANNEL, streams.wake, streams.heeds)
        rhythm = Rhythm(timedelta(seconds=settings.checkpoint_seconds), settings.checkpoint_entries)
        sequencer = Sequencer(process.db, keys, settings.origin, rhythm)
        process.db.listen(store.CHANNEL, sequencer.wake, sequencer.heeds)

        async def standing() -> dict[str, bool]:
            """Without a key that counts nothing is written; readers are served."""
            return dict.fromkeys(WRITERS, await keys.counts(process.db))

        await process.serve(
            engine,
            loops=[
                told,
                Loop("journal.advance", appender.advance, poll_seconds=settings.poll_seconds, wake=operations.waiting),
                Loop(
                    "journal.log", sequencer.run, poll_seconds=settings.poll_seconds, wake=sequencer.wake, rest_seconds=REST_SECONDS
                ),
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
            clients=granted(settings.readers, SERVICE),
            standing=standing,
            metrics=METRICS,
            parts={"journal": lambda: read_state(process.db, keys)},
        )


def main() -> None:
    """Run with the settings of the command line."""
    asyncio.run(run(load(JournalSettings)))
