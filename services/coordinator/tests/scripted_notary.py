"""What the coordinator tells of escalations, taken as the notary takes it: the first of each kind stays, another one is refused."""

from __future__ import annotations

from typing import Any

import grpc

from lockstep.notary.v1 import escalation_record_pb2 as records
from lockstep.notary.v1 import notary_service_pb2 as messages
from lockstep.notary.v1 import notary_service_pb2_grpc


class Notary(notary_service_pb2_grpc.NotaryServiceServicer):
    """Only what the coordinator calls."""

    def __init__(self) -> None:
        #: Escalation and kind -> what was said first.
        self.kept: dict[tuple[str, int], records.EscalationStatement] = {}
        #: Everything that was said, in order.
        self.told: list[records.EscalationStatement] = []
        #: Whether it answers nothing now.
        self.deaf = False
        #: Whether it takes what it is told, and its answer is lost.
        self.mute = False

    async def RecordEscalations(  # noqa: N802
        self, request: messages.RecordEscalationsRequest, context: Any
    ) -> messages.RecordEscalationsResponse:
        """One answer of each."""
        if self.deaf:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        answers = [self._take(each) for each in request.statements]
        if self.mute:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        return messages.RecordEscalationsResponse(answers=answers)

    def _take(self, statement: records.EscalationStatement) -> records.RecordAnswer:
        self.told.append(statement)
        first = self.kept.setdefault((statement.escalation_id, statement.kind), statement)
        if first == statement:
            return records.RecordAnswer(verdict=records.RECORD_VERDICT_KEPT)
        return records.RecordAnswer(verdict=records.RECORD_VERDICT_CONFLICT, message="something else is known")
