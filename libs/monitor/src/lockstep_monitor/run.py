"""The monitor's loop: watch the journal, keep how far it got, look at checkpoints and at the witness, and raise what the rules find. Holds no rules.

What it finds is a line of JSON on standard output, once for each finding; a journal that does not answer is asked again for ever.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Self, TextIO

import grpc
import structlog

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as stubs
from lockstep.notary.v1 import notary_service_pb2, notary_service_pb2_grpc
from lockstep_kit.canonical import time_text
from lockstep_kit.errors import from_rpc
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.loops import back_off_seconds
from lockstep_kit.registry import Registry
from lockstep_kit.registry_file import load_registry
from lockstep_kit.rpc import answers, channel
from lockstep_kit.values import dataclass
from lockstep_monitor.convert import delivered_from_pb
from lockstep_monitor.entries import Delivered
from lockstep_monitor.findings import Finding, Rule
from lockstep_monitor.log import Names
from lockstep_monitor.plans import Patience
from lockstep_monitor.settings import MonitorSettings
from lockstep_monitor.state import State, read_state, write_state
from lockstep_monitor.watch import JournalWatch

_log = structlog.get_logger()

#: The journal's reason where it was put back since the token was given.
EXPIRED: Final = "RESUME_TOKEN_EXPIRED"
#: The journal's reasons for having no checkpoint, or the witness's.
_NONE_YET: Final = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
_PAGE: Final = 500
#: Checkpoints that wait until the entries under them have been read.
_WAITING_MAX: Final = 64
#: A journal that has nothing to deliver must by then have delivered what a checkpoint covers.
_WITHHELD: Final = timedelta(seconds=60)
#: How far it has read is kept no oftener while nothing is raised: what was read since is read again by whoever goes on.
_KEEP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A checkpoint whose entries have not all been read."""

    note: bytes
    #: Whether it is the witness's.
    witnessed: bool
    #: When it was shown.
    at: datetime


class Replaced(Exception):
    """The journal's log is no longer the one that was read."""


class Monitor:
    """Reads the journal, and raises. An async context manager."""

    def __init__(
        self, settings: MonitorSettings, *, out: TextIO | None = None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Prepare it with its registry and its state.

        Raises:
            FieldInvalid: one of the files cannot be read.
        """
        self._settings = settings
        self._registry: Registry = load_registry(settings.registry_file)
        self._out = sys.stdout if out is None else out
        self._clock = clock
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._stack = AsyncExitStack()
        self._state = read_state(settings.state_file)
        self._watch = self._watching(self._state)
        self._waiting: list[_Waiting] = []
        self._failures = 0
        #: When the state was kept last, by the loop's clock, and whether something was raised since.
        self._kept_at = 0.0
        self._raised = False
        #: Alarms that were raised since it was started; warnings are none.
        self.alarms = 0

    async def __aenter__(self) -> Self:
        journal = await self._stack.enter_async_context(channel(self._settings.journal, self._settings.tls))
        self._journal = stubs.JournalReaderServiceStub(journal)
        self._notary: notary_service_pb2_grpc.NotaryServiceStub | None = None
        if self._settings.notary:
            notary = await self._stack.enter_async_context(channel(self._settings.notary, self._settings.tls))
            self._notary = notary_service_pb2_grpc.NotaryServiceStub(notary)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    @property
    def position(self) -> int:
        """Place of the last entry that was read."""
        return self._watch.position

    async def run(self) -> None:
        """Watch until cancelled; whatever does not answer is asked again."""
        rounds = asyncio.create_task(self._rounds())
        try:
            while True:
                try:
                    await self._session()
                except (grpc.aio.AioRpcError, ConnectionError, FieldInvalid, TimeoutError) as error:
                    await self._pause(error)
                except Replaced:
                    self._begin_anew()
        finally:
            rounds.cancel()
            await asyncio.gather(rounds, return_exceptions=True)
            self._keep()

    async def once(self) -> None:
        """Read up to the journal's newest checkpoint, hold it and the witness's against that, and return.

        Raises:
            grpc.aio.AioRpcError, FieldInvalid: the journal cannot be read.
        """
        size = await self._look()
        await self._readopt()
        while self.position < size:
            try:
                await self._session(until=size)
                break
            except Replaced:
                self._begin_anew()
        self._settle()
        self._judge_withheld(self._clock())

    # -- the stream --------------------------------------------------------------------------------------------------

    async def _session(self, *, until: int | None = None) -> None:
        await self._readopt()
        request = messages.WatchEntriesRequest(resume_token=self._state.resume_token)
        call = self._journal.WatchEntries(request, timeout=self._settings.watch_seconds)
        try:
            async with aclosing(answers(call)) as given:
                async for message in given:
                    await self._take(message)
                    self._failures = 0
                    if not message.entries:
                        self._judge_withheld(self._clock() - _WITHHELD)
                    if until is not None and (self.position >= until or not message.entries):
                        return
        except grpc.aio.AioRpcError as error:
            if from_rpc(error).reason == EXPIRED:
                raise Replaced from error
            raise
        finally:
            call.cancel()

    async def _readopt(self) -> None:
        """Read what was open when the state was kept: its plans' chains are needed to judge what follows."""
        for plan_id in self._state.open_plans:
            if not self._watch.knows(plan_id, 2):
                await self._adopt(plan_id)

    async def _adopt(self, plan_id: str) -> None:
        token = ""
        while True:
            request = messages.ListEntriesRequest(plan_id=plan_id, page_size=_PAGE, page_token=token)
            answer = await self._journal.ListEntries(request, timeout=self._settings.call_seconds)
            self._raise(self._watch.adopt([delivered_from_pb(each) for each in answer.entries]))
            token = answer.next_page_token
            if not token:
                return

    async def _take(self, message: messages.WatchEntriesResponse) -> None:
        if self._state.log_id not in ("", message.log_id):
            raise Replaced
        self._state.log_id = message.log_id
        for each in message.entries:
            given: Delivered = delivered_from_pb(each)
            if not self._watch.knows(given.plan_id, given.sequence):
                await self._adopt(given.plan_id)
            self._raise(self._watch.read(given, self._clock()))
        self._state.resume_token = message.resume_token
        if message.entries:
            self._judge_waiting()
            if self._raised or asyncio.get_running_loop().time() - self._kept_at >= _KEEP_SECONDS:
                self._keep()

    def _begin_anew(self) -> None:
        """Another log stands where the one that was read stood: it is told, and read from its first entry on."""
        message = (
            f"log {self._state.log_id} of which {self.position} entries were read is gone: the journal was put back, or replaced"
        )
        self._raise([Finding(Rule.LOG_REPLACED, message, position=self.position)])
        self._state = State(raised=self._state.raised)
        self._watch = self._watching(self._state)
        self._waiting = []
        self._keep()

    def _watching(self, state: State) -> JournalWatch:
        told = self._settings
        patience = Patience(
            timedelta(seconds=told.skew_seconds), timedelta(seconds=told.silent_seconds), timedelta(seconds=told.late_seconds)
        )
        watch = JournalWatch(self._registry, Names(told.origin, told.witness), patience, state.tree)
        watch.log.shown = state.shown
        return watch

    # -- rounds ------------------------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(self._settings.round_seconds)
            try:
                await self._look()
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                _log.warning("round_unanswered", error=str(error)[:200])
            self._settle()

    async def _look(self) -> int:
        """Ask witness and journal for their newest checkpoints; the size of the journal's. What the witness has cosigned the journal must have by then."""
        if self._notary is not None:
            await self._ask_witness(self._notary)
        newest = await self._newest()
        if newest is None:
            return 0
        self._waiting.append(_Waiting(newest.checkpoint.signed_note, witnessed=False, at=self._clock()))
        return newest.checkpoint.tree_size

    def _settle(self) -> None:
        self._judge_waiting()
        self._raise(self._watch.overdue(self._clock()))
        self._watch.forget_sealed()
        self._keep()

    async def _newest(self) -> messages.GetCheckpointResponse | None:
        """The journal's newest checkpoint; None while it has none."""
        try:
            return await self._journal.GetCheckpoint(messages.GetCheckpointRequest(), timeout=self._settings.call_seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() in _NONE_YET:
                return None
            raise

    async def _ask_witness(self, notary: notary_service_pb2_grpc.NotaryServiceStub) -> None:
        try:
            request = notary_service_pb2.GetWitnessStatusRequest()
            status = await notary.GetWitnessStatus(request, timeout=self._settings.call_seconds)
        except grpc.aio.AioRpcError as error:
            _log.warning("witness_unanswered", code=error.code().name)
            return
        if status.HasField("alarm"):
            raised = f"the witness refuses what the journal shows: {status.alarm.rule}: {status.alarm.message}"
            self._raise([Finding(Rule.WITNESS_ALARM, raised)])
        if status.HasField("last"):
            self._waiting.append(_Waiting(status.last.signed_note, witnessed=True, at=self._clock()))
        if status.HasField("looked_at"):
            looked = status.looked_at.ToDatetime(UTC)
            if self._clock() - looked > timedelta(seconds=self._settings.witness_silent_seconds):
                self._raise([Finding(Rule.WITNESS_SILENT, f"the witness has not looked at the journal since {looked.isoformat()}")])

    def _judge_waiting(self) -> None:
        """Judge the checkpoints whose entries have been read by now."""
        now = self._clock()
        for each in [each for each in self._waiting if self._watch.log.judgeable(each.note)]:
            self._waiting.remove(each)
            self._raise(self._watch.witnessed(each.note, now) if each.witnessed else self._watch.checkpoint(each.note, now))
        self._waiting = self._waiting[-_WAITING_MAX:]

    def _judge_withheld(self, before: datetime) -> None:
        """The journal has nothing to deliver: checkpoints of before a time must be over entries that were read."""
        for each in [each for each in self._waiting if each.at <= before]:
            self._waiting.remove(each)
            who = "the witness has cosigned" if each.witnessed else "the journal shows"
            message = f"{who} a checkpoint over more entries than the {self.position} that the journal delivers here"
            self._raise([Finding(Rule.ENTRIES_WITHHELD, message, position=self.position)])

    # -- what comes of it --------------------------------------------------------------------------------------------

    def _raise(self, findings: Iterable[Finding]) -> None:
        for each in findings:
            if each.finding_id in self._state.raised:
                continue
            self._state.raised.add(each.finding_id)
            self._raised = True
            if not each.rule.warns:
                self.alarms += 1
            line = {
                "event": "warning" if each.rule.warns else "alarm",
                "finding_id": each.finding_id,
                "rule": each.rule.value,
                "message": each.message,
                "plan_id": each.plan_id,
                "sequence": each.sequence,
                "position": each.position,
                "leg_id": each.leg_id,
                "raised_at": time_text(self._clock()),
            }
            print(json.dumps(line), file=self._out, flush=True)

    def _keep(self) -> None:
        self._state.tree, self._state.shown = self._watch.log.tree, self._watch.log.shown
        self._state.open_plans = self._watch.open_plans()
        write_state(self._settings.state_file, self._state)
        self._kept_at, self._raised = asyncio.get_running_loop().time(), False

    async def _pause(self, error: Exception) -> None:
        self._failures += 1
        _log.warning("journal_unanswered", failures=self._failures, error=f"{type(error).__name__}: {error}"[:300])
        await asyncio.sleep(back_off_seconds(self._failures, self._rng))
