"""Async clients of the journal's and the notary's read-only services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from lockstep.journal.v1.entry_pb2 import Entry
from lockstep.journal.v1.journal_reader_service_pb2 import (
    ListEntriesRequest,
    VerifyPlanRequest,
    VerifyPlanResponse,
    WatchEntriesRequest,
)
from lockstep.journal.v1.journal_reader_service_pb2_grpc import JournalReaderServiceStub
from lockstep.notary.v1.notary_service_pb2 import GetNotarisationRequest, GetNotarisationResponse
from lockstep.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from lockstep_client.calls import CallSettings, ServiceClient, pages, stream, unary
from lockstep_kit.rpc import TlsSettings


class JournalClient(ServiceClient):
    """The journal's reader."""

    def __init__(self, target: str, tls: TlsSettings, settings: CallSettings | None = None) -> None:
        super().__init__(target, tls, settings)
        self._stub = JournalReaderServiceStub(self._channel)

    async def list_entries(self, plan_id: str, *, page_size: int = 200) -> AsyncIterator[Entry]:
        """A plan's chain in order, fetched page by page."""
        request = ListEntriesRequest(plan_id=plan_id, page_size=page_size)
        async for page in pages(self._stub.ListEntries, request, self._settings):
            for entry in page.entries:
                yield entry

    async def watch_entries(self, *, plan_id: str = "", resume_token: str = "") -> AsyncIterator[Entry]:
        """Stored entries of one plan or of all, then live ones, each once and in order; reconnects by itself.

        Raises:
            LockstepError: the watch was refused, or the journal was not reached for `unreachable_seconds_max`.
        """
        token, position = resume_token, 0

        def begin(seconds: float) -> Any:
            return self._stub.WatchEntries(WatchEntriesRequest(plan_id=plan_id, resume_token=token), timeout=seconds)

        async for message in stream(begin, self._settings):
            token = message.resume_token or token
            for entry in message.entries:
                if entry.position > position:
                    position = entry.position
                    yield entry

    async def verify_plan(self, plan_id: str) -> VerifyPlanResponse:
        """The journal's own verdict about a plan's chain."""
        request = VerifyPlanRequest(plan_id=plan_id)
        return await unary(lambda seconds: self._stub.VerifyPlan(request, timeout=seconds), self._settings)


class NotaryClient(ServiceClient):
    """The notary's reader."""

    def __init__(self, target: str, tls: TlsSettings, settings: CallSettings | None = None) -> None:
        super().__init__(target, tls, settings)
        self._stub = NotaryServiceStub(self._channel)

    async def get_notarisation(self, plan_id: str) -> GetNotarisationResponse:
        """What is on chain about the plan.

        Raises:
            LockstepError: nothing is known of the plan.
        """
        request = GetNotarisationRequest(plan_id=plan_id)
        return await unary(lambda seconds: self._stub.GetNotarisation(request, timeout=seconds), self._settings)
