"""Async client of the coordinator's operators' service: escalations, resolutions, money at risk, dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.coordinator.v1.operator_service_pb2_grpc import OperatorServiceStub
from lockstep_client.calls import CallSettings, ServiceClient, pages, unary
from lockstep_client.client import draw_request_id
from lockstep_kit.convert import resolution_to_pb
from lockstep_kit.resolutions import ResolutionSignature
from lockstep_kit.rpc import TlsSettings


class OperatorClient(ServiceClient):
    """The coordinator's operators' service."""

    def __init__(self, target: str, tls: TlsSettings, settings: CallSettings | None = None) -> None:
        super().__init__(target, tls, settings)
        self._stub = OperatorServiceStub(self._channel)

    async def list_escalations(
        self,
        which: messages.EscalationFilter.ValueType = messages.ESCALATION_FILTER_OPEN,
        *,
        plan_id: str = "",
        reason: str = "",
        page_size: int = 50,
    ) -> AsyncIterator[messages.EscalationFile]:
        """Escalations, newest first, fetched page by page as they are asked for."""
        request = messages.ListEscalationsRequest(page_size=page_size, filter=which, plan_id=plan_id, reason=reason)
        async for page in pages(self._stub.ListEscalations, request, self._settings):
            for each in page.escalations:
                yield each

    async def get_escalation(self, escalation_id: str) -> messages.GetEscalationResponse:
        """An escalation, with its plan and what is at risk.

        Raises:
            LockstepError: there is no such escalation.
        """
        request = messages.GetEscalationRequest(escalation_id=escalation_id)
        return await unary(lambda seconds: self._stub.GetEscalation(request, timeout=seconds), self._settings)

    async def sign_resolution(
        self, signature: ResolutionSignature, *, request_id: str | None = None
    ) -> messages.SignResolutionResponse:
        """The escalation after one operator's signature.

        Raises:
            LockstepError: it cannot be done as the plan stands, or the signer may not.
        """
        request = messages.SignResolutionRequest(request_id=request_id or draw_request_id(), signature=resolution_to_pb(signature))
        return await unary(lambda seconds: self._stub.SignResolution(request, timeout=seconds), self._settings)

    async def list_in_doubt(
        self, *, older_than: timedelta | None = None, page_size: int = 200
    ) -> tuple[list[messages.AssetAtRisk], list[messages.InDoubtLeg]]:
        """What is at risk: sums by asset, as of the last page, and every leg."""
        age = Duration()
        age.FromTimedelta(older_than or timedelta(0))
        totals: list[messages.AssetAtRisk] = []
        legs: list[messages.InDoubtLeg] = []
        request = messages.ListInDoubtRequest(page_size=page_size, age_min=age)
        async for page in pages(self._stub.ListInDoubt, request, self._settings):
            totals = list(page.totals)
            legs.extend(page.legs)
        return totals, legs

    async def list_dead_letters(self, *, replayed: bool = False, page_size: int = 50) -> AsyncIterator[messages.DeadLetter]:
        """Dead letters, newest first, fetched page by page; those that were sent again only where asked."""
        request = messages.ListDeadLettersRequest(page_size=page_size, include_replayed=replayed)
        async for page in pages(self._stub.ListDeadLetters, request, self._settings):
            for each in page.dead_letters:
                yield each

    async def replay_dead_letter(self, dead_letter_id: str, *, request_id: str | None = None) -> messages.DeadLetter:
        """The letter, whose command is sent again.

        Raises:
            LockstepError: there is no such letter.
        """
        request = messages.ReplayDeadLetterRequest(request_id=request_id or draw_request_id(), dead_letter_id=dead_letter_id)
        answer = await unary(lambda seconds: self._stub.ReplayDeadLetter(request, timeout=seconds), self._settings)
        return answer.dead_letter
