"""ParticipantService, the same for every participant: checks what concerns the whole request, reads, calls the engine, writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration

from lockstep.participant.v1 import leg_pb2, participant_service_pb2, participant_service_pb2_grpc
from lockstep.type.v1 import certificate_pb2
from lockstep_kit import ids
from lockstep_kit.certificate import Certificate
from lockstep_kit.convert import count_from_pb, epoch_from_pb
from lockstep_kit.errors import LockstepError, unavailable
from lockstep_kit.fence import Command
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.opaque_tokens import number_in, place_in, token_of
from lockstep_kit.participant import convert
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.records import Answer, Item, ItemReason, Rejection, Verdict
from lockstep_kit.participant.watching import Cursor
from lockstep_kit.rpc import remaining_seconds

_Context = grpc.aio.ServicerContext[Any, Any]
_Command = TypeVar("_Command", leg_pb2.PrepareCommand, leg_pb2.CommitCommand, leg_pb2.AbortCommand, leg_pb2.ReverseCommand)

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 500
#: Kept of the caller's deadline for reading the answers and sending them.
ANSWER_MARGIN_SECONDS: Final = 0.25
_LEGS: Final = "legs/1/"


class ParticipantServicer(participant_service_pb2_grpc.ParticipantServiceServicer):
    """The protocol over the engine."""

    def __init__(self, engine: ParticipantEngine) -> None:
        self._engine = engine
        self._watchers = 0

    async def Describe(  # noqa: N802 - named by gRPC
        self, request: participant_service_pb2.DescribeRequest, context: _Context
    ) -> participant_service_pb2.DescribeResponse:
        """What this participant is and can do."""
        head, now = await self._engine.log_head()
        engine = self._engine
        return convert.description(engine.name, engine.key_id, engine.capabilities(), head.incarnation, now)

    async def Prepare(  # noqa: N802
        self, request: participant_service_pb2.PrepareRequest, context: _Context
    ) -> participant_service_pb2.PrepareResponse:
        """Asks for promises."""
        _check_size(request.commands)
        entries = [self._read(command, convert.read_prepare) for command in request.commands]
        answers = await self._engine.execute(Command.PREPARE, entries, _wait(request.wait))
        return participant_service_pb2.PrepareResponse(answers=[convert.answer_to_pb(each) for each in answers])

    async def Commit(  # noqa: N802
        self, request: participant_service_pb2.CommitRequest, context: _Context
    ) -> participant_service_pb2.CommitResponse:
        """Orders execution."""
        _check_size(request.commands)
        messages = _by_plan(request.certificates)
        certificates = convert.read_certificates(messages)

        def read(command: leg_pb2.CommitCommand) -> Item | Rejection:
            plan_id = command.binding.plan.plan_id
            certificate = certificates.get(plan_id)
            match certificate:
                case Certificate():
                    return convert.read_commit(command, certificate, messages[plan_id][1])
                case Rejection():
                    return certificate
                case None:
                    return Rejection(
                        ItemReason.CERTIFICATE_MISSING, "the request holds no certificate of the leg's plan", "certificates"
                    )

        entries = [self._read(command, read) for command in request.commands]
        answers = await self._engine.execute(Command.COMMIT, entries, _wait(request.wait))
        return participant_service_pb2.CommitResponse(answers=[convert.answer_to_pb(each) for each in answers])

    async def Abort(  # noqa: N802
        self, request: participant_service_pb2.AbortRequest, context: _Context
    ) -> participant_service_pb2.AbortResponse:
        """Orders release."""
        _check_size(request.commands)
        entries = [self._read(command, convert.read_abort) for command in request.commands]
        answers = await self._engine.execute(Command.ABORT, entries, _wait(request.wait))
        return participant_service_pb2.AbortResponse(answers=[convert.answer_to_pb(each) for each in answers])

    async def Reverse(  # noqa: N802
        self, request: participant_service_pb2.ReverseRequest, context: _Context
    ) -> participant_service_pb2.ReverseResponse:
        """Orders that what was executed be undone."""
        _check_size(request.commands)
        entries = [self._read(command, convert.read_reverse) for command in request.commands]
        answers = await self._engine.execute(Command.REVERSE, entries, _wait(request.wait))
        return participant_service_pb2.ReverseResponse(answers=[convert.answer_to_pb(each) for each in answers])

    def _read(self, command: _Command, read: Callable[[_Command], Item | Rejection]) -> Item | Answer:
        """The item, or its answer when it cannot be one: a bad item never fails the batch."""
        plan_id, leg_id = command.binding.plan.plan_id, command.binding.leg.leg_id
        try:
            entry = read(command)
        except FieldInvalid as finding:
            entry = Rejection(ItemReason.FIELD_INVALID, str(finding), finding.field)
        if isinstance(entry, Item):
            kinds = self._engine.capabilities().leg_kinds
            if entry.binding.leg.kind in kinds:
                return entry
            message = f"this participant serves {', '.join(kinds)}, not {entry.binding.leg.kind}"
            entry = Rejection(ItemReason.LEG_KIND_NOT_SERVED, message, "binding.leg.terms")
        return Answer(plan_id, leg_id, Verdict.REJECTED, rejection=entry)

    async def GetLeg(  # noqa: N802
        self, request: participant_service_pb2.GetLegRequest, context: _Context
    ) -> participant_service_pb2.GetLegResponse:
        """What is known of one leg; can raise its fence first."""
        leg = ids.plan_id(request.plan_id), ids.leg_id(request.leg_id)
        raise_to = epoch_from_pb(request.raise_to) if request.HasField("raise_to") else None
        record = await self._engine.get(leg, raise_to, count_from_pb(request.known_revision, "known_revision"))
        return convert.everything_of(record) if record is not None else participant_service_pb2.GetLegResponse()

    async def ListLegs(  # noqa: N802
        self, request: participant_service_pb2.ListLegsRequest, context: _Context
    ) -> participant_service_pb2.ListLegsResponse:
        """All legs known here, in order of first record."""
        require(0 <= request.page_size <= PAGE_SIZE_MAX, "page_size", f"must be 1 to {PAGE_SIZE_MAX}, or absent")
        size = request.page_size or PAGE_SIZE_DEFAULT
        # One more than asked shows whether there is a next page.
        after = number_in(place_in(request.page_token, _LEGS)) if request.page_token else 0
        page = await self._engine.page(after, size + 1)
        response = participant_service_pb2.ListLegsResponse(reports=[convert.report_of(record) for _, record in page[:size]])
        if len(page) > size:
            response.next_page_token = token_of(_LEGS, str(page[size - 1][0]))
        return response

    async def WatchOutcomes(  # noqa: N802
        self, request: participant_service_pb2.WatchOutcomesRequest, context: _Context
    ) -> AsyncIterator[participant_service_pb2.WatchOutcomesResponse]:
        """Every change of every leg after a cursor, then live, with heartbeats."""
        after = Cursor(request.after.incarnation, request.after.sequence) if request.HasField("after") else None
        most = self._engine.settings.watchers_max
        if self._watchers >= most:
            message = f"at most {most} streams are open at one time"
            raise LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHERS_TOO_MANY", message)
        self._watchers += 1
        try:
            async for changes in self._engine.watch(after):
                yield participant_service_pb2.WatchOutcomesResponse(
                    reports=[convert.report_of(record) for record in changes.records],
                    cursor=participant_service_pb2.OutcomeCursor(
                        incarnation=changes.cursor.incarnation, sequence=changes.cursor.sequence
                    ),
                )
        finally:
            self._watchers -= 1
        raise unavailable("DRAINING", "the participant is stopping; resume after the last cursor")


def _check_size(commands: Sequence[object]) -> None:
    most = convert.BATCH_ITEMS_MAX
    require(1 <= len(commands) <= most, "commands", f"must be 1 to {most} items")


def _by_plan(
    certificates: Sequence[certificate_pb2.DecisionCertificate],
) -> Mapping[str, tuple[int, certificate_pb2.DecisionCertificate]]:
    most = convert.BATCH_ITEMS_MAX
    require(len(certificates) <= most, "certificates", f"must be at most {most}, one of each plan")
    found: dict[str, tuple[int, certificate_pb2.DecisionCertificate]] = {}
    for index, message in enumerate(certificates):
        require(message.plan.plan_id not in found, f"certificates[{index}]", "must be the only one of its plan")
        found[message.plan.plan_id] = index, message
    return found


def _wait(message: Duration) -> float:
    asked, left = convert.wait_seconds(message), remaining_seconds()
    return asked if left is None else min(asked, left - ANSWER_MARGIN_SECONDS)
