"""The participants and the journal, as the coordinator reaches them: a channel each, a deadline for every call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import grpc

from coordinator.convert.escalations import record_answers, record_request
from coordinator.convert.journal import AppendAnswer, append_answers, append_request
from coordinator.convert.participant import (
    Answered,
    CallName,
    Outgoing,
    abort_request,
    answers_from_pb,
    capabilities_from_pb,
    commit_request,
    prepare_request,
    reverse_request,
)
from coordinator.convert.restores import Everything, everything_from_pb, written_from_pb
from coordinator.restoring import Written
from coordinator.store.outboxes import PendingEvent
from lockstep.journal.v1 import journal_reader_service_pb2, journal_service_pb2
from lockstep.journal.v1.journal_reader_service_pb2_grpc import JournalReaderServiceStub
from lockstep.journal.v1.journal_service_pb2_grpc import JournalServiceStub
from lockstep.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from lockstep.participant.v1 import leg_pb2
from lockstep.participant.v1 import participant_service_pb2 as messages
from lockstep.participant.v1.participant_service_pb2_grpc import ParticipantServiceStub
from lockstep_kit.certificate import AbortAuthority, Binding
from lockstep_kit.convert import authority_to_pb, binding_to_pb, epoch_to_pb, time_from_pb
from lockstep_kit.escalations import Said
from lockstep_kit.fence import Epoch
from lockstep_kit.fields import require
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.participant.convert import closing_to_pb
from lockstep_kit.participant.ports import Capabilities, Closing
from lockstep_kit.values import dataclass

#: Longest that a stream may be silent: twice the participants' heartbeat and a little more.
SILENCE_SECONDS_MAX: Final = 15.0
#: A stream is opened anew after this, so that every call has a deadline.
STREAM_SECONDS_MAX: Final = 3_600.0
#: Legs in one page of a participant's list.
PAGE_LEGS: Final = 500
#: Entries in one page of a chain.
PAGE_ENTRIES: Final = 500

OutcomeStream: TypeAlias = "grpc.aio.UnaryStreamCall[messages.WatchOutcomesRequest, messages.WatchOutcomesResponse]"


@dataclass(frozen=True, slots=True)
class Peer:
    """One participant. Every gRPC error of its calls says nothing about any leg."""

    #: Name that its votes carry.
    name: str
    #: Its channel.
    channel: grpc.aio.Channel
    #: Longest that a call may take.
    call_seconds: float

    @property
    def _stub(self) -> ParticipantServiceStub:
        return ParticipantServiceStub(self.channel)

    async def describe(self) -> tuple[Capabilities, datetime]:
        """What it can do, and what its database's clock says.

        Raises:
            grpc.aio.AioRpcError: it did not answer.
            FieldInvalid: it answered with something else, or as somebody else.
        """
        found = await self._stub.Describe(messages.DescribeRequest(), timeout=self.call_seconds)
        require(found.participant == self.name, "participant", f"must be {self.name}")
        return capabilities_from_pb(found), time_from_pb(found.clock_time, "clock_time")

    async def command(self, call: CallName, batch: Sequence[Outgoing], margin: timedelta) -> list[Answered]:
        """The answers to a batch of one kind of command.

        Raises:
            grpc.aio.AioRpcError: nothing is known of any of them.
            FieldInvalid: the answers are not answers to this batch.
        """
        match call:
            case CallName.PREPARE:
                prepared = await self._stub.Prepare(prepare_request(batch, margin), timeout=self.call_seconds)
                return answers_from_pb(prepared.answers, batch)
            case CallName.COMMIT:
                committed = await self._stub.Commit(commit_request(batch), timeout=self.call_seconds)
                return answers_from_pb(committed.answers, batch)
            case CallName.ABORT:
                released = await self._stub.Abort(abort_request(batch), timeout=self.call_seconds)
                return answers_from_pb(released.answers, batch)
            case CallName.REVERSE:
                reversed_ = await self._stub.Reverse(reverse_request(batch), timeout=self.call_seconds)
                return answers_from_pb(reversed_.answers, batch)

    async def leg(self, plan_id: PlanId, leg_id: LegId, raise_to: Epoch) -> leg_pb2.LegReport | None:
        """What it knows of a leg, after its fence was raised.

        Raises:
            grpc.aio.AioRpcError: it did not answer.
        """
        request = messages.GetLegRequest(plan_id=plan_id, leg_id=leg_id, raise_to=epoch_to_pb(raise_to))
        response = await self._stub.GetLeg(request, timeout=self.call_seconds)
        return response.report if response.HasField("report") else None

    async def everything(self, plan_id: PlanId, leg_id: LegId, raise_to: Epoch, known_revision: int) -> Everything | None:
        """All that it knows of a leg, after its fence was raised, and its revision to the highest that was seen; None: it does not know the leg.

        Raises:
            grpc.aio.AioRpcError: it did not answer.
            FieldInvalid: what it answered is malformed.
        """
        request = messages.GetLegRequest(
            plan_id=plan_id, leg_id=leg_id, raise_to=epoch_to_pb(raise_to), known_revision=known_revision
        )
        return everything_from_pb(await self._stub.GetLeg(request, timeout=self.call_seconds))

    async def legs(self, page_token: str) -> tuple[Sequence[leg_pb2.LegReport], str]:
        """A page of all legs that it knows, and the token of the next one, "" at the end.

        Raises:
            grpc.aio.AioRpcError: it did not answer, or does not know the token.
        """
        request = messages.ListLegsRequest(page_size=PAGE_LEGS, page_token=page_token)
        page = await self._stub.ListLegs(request, timeout=self.call_seconds)
        return page.reports, page.next_page_token

    async def release(self, binding: Binding, epoch: Epoch, authority: AbortAuthority, closing: Closing | None = None) -> None:
        """Tell it to release a leg about which no command is kept: it is told again as long as it is found not to have obeyed.

        Raises:
            grpc.aio.AioRpcError: it did not answer.
        """
        command = leg_pb2.AbortCommand(
            epoch=epoch_to_pb(epoch), binding=binding_to_pb(binding), authority=authority_to_pb(authority)
        )
        if closing is not None:
            command.closing.CopyFrom(closing_to_pb(closing))
        await self._stub.Abort(messages.AbortRequest(commands=[command]), timeout=self.call_seconds)

    def outcomes(self, after: tuple[str, int] | None) -> OutcomeStream:
        """Its changes after a cursor, then live. The caller cancels it."""
        request = messages.WatchOutcomesRequest()
        if after is not None:
            request.after.CopyFrom(messages.OutcomeCursor(incarnation=after[0], sequence=after[1]))
        return self._stub.WatchOutcomes(request, timeout=STREAM_SECONDS_MAX)


@dataclass(frozen=True, slots=True)
class JournalPeer:
    """The journal's writer service."""

    #: Its channel.
    channel: grpc.aio.Channel
    #: Longest that a call may take.
    call_seconds: float

    async def append(self, events: Sequence[PendingEvent]) -> list[AppendAnswer]:
        """What became of events.

        Raises:
            grpc.aio.AioRpcError: nothing is known of any of them.
            FieldInvalid: the answers are not answers to these events.
        """
        response = await JournalServiceStub(self.channel).Append(append_request(events), timeout=self.call_seconds)
        return append_answers(response, events)

    async def chain(self, plan_id: PlanId, raise_to: Epoch) -> list[Written]:
        """A plan's whole chain, after its fence was raised, so that nothing is appended to it that is on its way; empty where there is none.

        Raises:
            grpc.aio.AioRpcError: it did not answer.
            FieldInvalid: what it answered is no chain of this protocol.
            PayloadsErased: there is a chain, whose payloads were erased.
        """
        fence = journal_service_pb2.RaiseFenceRequest(plan_id=plan_id, epoch=epoch_to_pb(raise_to))
        await JournalServiceStub(self.channel).RaiseFence(fence, timeout=self.call_seconds)
        found: list[Written] = []
        token = ""
        while True:
            request = journal_reader_service_pb2.ListEntriesRequest(plan_id=plan_id, page_size=PAGE_ENTRIES, page_token=token)
            page = await JournalReaderServiceStub(self.channel).ListEntries(request, timeout=self.call_seconds)
            found.extend(written_from_pb(entry) for entry in page.entries)
            token = page.next_page_token
            if not token:
                break
        require([each.sequence for each in found] == list(range(1, len(found) + 1)), "entries", "must be a chain without gaps")
        return found


@dataclass(frozen=True, slots=True)
class NotaryPeer:
    """The notary, where it is told of escalations."""

    #: Its channel.
    channel: grpc.aio.Channel
    #: Longest that a call may take.
    call_seconds: float

    async def record(self, said: Sequence[Said]) -> list[str]:
        """Of each why the notary refused it, or "" where it is kept for ever.

        Raises:
            grpc.aio.AioRpcError: nothing is known of any of them.
            FieldInvalid: the answers are not answers to these.
        """
        response = await NotaryServiceStub(self.channel).RecordEscalations(record_request(said), timeout=self.call_seconds)
        return record_answers(response, said)


Peers = Mapping[str, Peer]
