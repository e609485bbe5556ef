"""The bridge's work: find where the stream ends, watch the journal from there, publish, and begin again whenever anything is not as it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import grpc
import nats
import structlog
from nats.js.errors import Error as JetStreamError

from event_journal.bridge.jetstream import Interrupted, Stream, opened
from event_journal.bridge.rules import Described, Published, follow, left, next_place, restored
from event_journal.bridge.settings import BridgeSettings
from lockstep.journal.v1 import entry_pb2, journal_reader_service_pb2, journal_reader_service_pb2_grpc
from lockstep_kit.errors import from_rpc
from lockstep_kit.loops import back_off_seconds
from lockstep_kit.rpc import answers, channel

_log = structlog.get_logger()

EXPIRED: Final = "RESUME_TOKEN_EXPIRED"
#: What is tried again after a pause; everything else is a defect, or a person's matter.
_TRANSIENT: Final = (Interrupted, OSError, TimeoutError, nats.errors.Error, JetStreamError, grpc.aio.AioRpcError)


class Bridge:
    """Brings every entry of the journal into the stream."""

    def __init__(self, settings: BridgeSettings, *, leave_log: str = "", from_start: bool = False) -> None:
        self._settings = settings
        self._leave_log = leave_log
        self._from_start = from_start
        self._failures = 0
        self._rng = random.Random()  # noqa: S311 - jitter, no secret

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            Halted: a person must look.
        """
        async with channel(self._settings.journal, self._settings.tls) as journal:
            stub = journal_reader_service_pb2_grpc.JournalReaderServiceStub(journal)
            while True:
                try:
                    await self._session(stub)
                except _TRANSIENT as error:
                    self._failures += 1
                    _log.warning("bridge_interrupted", failures=self._failures, error=f"{type(error).__name__}: {error}")
                    await asyncio.sleep(back_off_seconds(self._failures, self._rng))

    async def _session(self, stub: journal_reader_service_pb2_grpc.JournalReaderServiceStub) -> None:
        """Publish until something is not as it was."""
        async with opened(self._settings) as stream:
            last = await stream.last(from_start=self._from_start)
            _log.info("bridge_resumes", stream_sequence=last.sequence, log=last.log_id, position=last.position)
            work = {asyncio.ensure_future(stream.acknowledged()), asyncio.ensure_future(self._publish(stub, stream, last))}
            try:
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
            finally:
                for each in work:
                    each.cancel()
                await asyncio.gather(*work, return_exceptions=True)
                if stream.acknowledged_count:
                    self._failures = 0

    async def _publish(
        self, stub: journal_reader_service_pb2_grpc.JournalReaderServiceStub, stream: Stream, last: Published
    ) -> None:
        token = last.token
        async for message in self._watch(stub, last):
            now = follow(last, message.log_id, self._leave_log)
            if now.log_id != message.log_id:
                now = left(now, message.log_id)
            if now.log_id != last.log_id:
                token = now.token
            last = now
            for entry in message.entries:
                place = next_place(last, entry.position, token)
                if place is not None:
                    await stream.publish(_described(entry), place, entry.SerializeToString())
                    last = place
            token = message.resume_token
            if not message.entries:
                # Nothing is left to be refused.
                self._failures = 0

    async def _watch(
        self, stub: journal_reader_service_pb2_grpc.JournalReaderServiceStub, last: Published
    ) -> AsyncIterator[journal_reader_service_pb2.WatchEntriesResponse]:
        """The journal's messages from the token of the last message on; from the first entry of another log where the last one's is to be left."""
        request = journal_reader_service_pb2.WatchEntriesRequest(resume_token=last.token)
        call = stub.WatchEntries(request, timeout=self._settings.watch_seconds)
        try:
            async with aclosing(answers(call)) as messages:
                while True:
                    async with asyncio.timeout(self._settings.silence_seconds):
                        message = await anext(messages, None)
                    if message is None:
                        raise Interrupted("the journal ended the stream")
                    yield message
        except grpc.aio.AioRpcError as error:
            if from_rpc(error).reason != EXPIRED:
                raise
            if last.log_id != self._leave_log:
                raise restored(last) from error
        finally:
            call.cancel()
        _log.warning("bridge_leaves_log", log=last.log_id, position=last.position)
        async for message in self._watch(stub, Published(last.sequence, "", 0, "")):
            yield message


def _described(entry: entry_pb2.Entry) -> Described:
    return Described(entry.plan_id, entry.sequence, entry.type, entry.event_id)
