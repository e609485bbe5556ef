"""Async clients of the journal's, the notary's and the bank-gateway's read-only services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Any, Final

from lockstep.bank.v1 import reconciliation_service_pb2 as reconciliation
from lockstep.bank.v1.reconciliation_service_pb2_grpc import ReconciliationServiceStub
from lockstep.journal.v1.entry_pb2 import Entry
from lockstep.journal.v1.journal_reader_service_pb2 import (
    ExportBundleRequest,
    ExportBundleResponse,
    GetConsistencyProofRequest,
    ListEntriesRequest,
    VerifyPlanRequest,
    VerifyPlanResponse,
    WatchEntriesRequest,
)
from lockstep.journal.v1.journal_reader_service_pb2_grpc import JournalReaderServiceStub
from lockstep.journal.v1.key_history_pb2 import GetKeyHistoryRequest, SignedKey
from lockstep.notary.v1.anchor_pb2 import WitnessedCheckpoint
from lockstep.notary.v1.escalation_record_pb2 import EscalationRecord
from lockstep.notary.v1.notary_service_pb2 import (
    GetEscalationRecordsRequest,
    GetNotarisationRequest,
    GetNotarisationResponse,
    GetWitnessedCheckpointRequest,
    GetWitnessStatusRequest,
    GetWitnessStatusResponse,
)
from lockstep.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from lockstep_client.calls import CallSettings, ServiceClient, pages, stream, unary
from lockstep_kit.rpc import TlsSettings

#: Plans whose chains are asked for together, and entries of a page of them: as many as the journal takes and gives.
_CHAINS_MAX: Final = 64
_CHAINS_PAGE: Final = 500


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

    async def list_chains(self, plan_ids: Sequence[str]) -> AsyncIterator[Entry]:
        """Plans' chains, each in order, fetched page by page; of those that one may not see there is nothing."""
        for at in range(0, len(plan_ids), _CHAINS_MAX):
            request = ListEntriesRequest(plan_ids=plan_ids[at : at + _CHAINS_MAX], page_size=_CHAINS_PAGE)
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

    async def export_bundle(self, plan_id: str) -> ExportBundleResponse:
        """A plan's whole chain, and its proofs for the smallest checkpoint that holds it.

        Raises:
            LockstepError: nothing is known of the plan, or no checkpoint holds its last entries yet (CHECKPOINT_PENDING).
        """
        request = ExportBundleRequest(plan_id=plan_id, tree_size_min=1)
        return await unary(lambda seconds: self._stub.ExportBundle(request, timeout=seconds), self._settings)

    async def consistency_path(self, from_size: int, to_size: int) -> Sequence[bytes]:
        """How the log at one size is shown to begin with the log at a smaller one."""
        request = GetConsistencyProofRequest(from_size=from_size, to_size=to_size)
        answer = await unary(lambda seconds: self._stub.GetConsistencyProof(request, timeout=seconds), self._settings)
        return answer.path

    async def key_history(self) -> Sequence[SignedKey]:
        """The journal's keys, each introduced by the one before; none where no history is kept."""
        request = GetKeyHistoryRequest()
        return (await unary(lambda seconds: self._stub.GetKeyHistory(request, timeout=seconds), self._settings)).keys


class ReconciliationClient(ServiceClient):
    """The bank-gateway's reader."""

    def __init__(self, target: str, tls: TlsSettings, settings: CallSettings | None = None) -> None:
        super().__init__(target, tls, settings)
        self._stub = ReconciliationServiceStub(self._channel)

    async def get_reconciliation(self, day: date) -> reconciliation.GetReconciliationResponse:
        """What was reconciled of a booking day, and every break that is open."""
        request = reconciliation.GetReconciliationRequest(booking_date=day.isoformat())
        return await unary(lambda seconds: self._stub.GetReconciliation(request, timeout=seconds), self._settings)

    async def list_bookings(
        self, *, day: date | None = None, plan_ids: Sequence[str] = ()
    ) -> AsyncIterator[reconciliation.Booking]:
        """The bookings that the bank told of a day, or of at most 200 plans, fetched page by page as they are asked for."""
        request = reconciliation.ListBookingsRequest(booking_date="" if day is None else day.isoformat(), plan_ids=plan_ids)
        async for page in pages(self._stub.ListBookings, request, self._settings):
            for booking in page.bookings:
                yield booking


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

    async def get_escalation_records(self, plan_id: str) -> Sequence[EscalationRecord]:
        """What is said of the plan's escalations, and where it stands."""
        request = GetEscalationRecordsRequest(plan_id=plan_id)
        answer = await unary(lambda seconds: self._stub.GetEscalationRecords(request, timeout=seconds), self._settings)
        return answer.records

    async def witnessed_checkpoint(self, tree_size_min: int, *, anchored: bool) -> WitnessedCheckpoint:
        """The smallest checkpoint that the notary has witnessed and that has at least so many leaves; on request, one whose root is anchored.

        Raises:
            LockstepError: there is none (yet).
        """
        request = GetWitnessedCheckpointRequest(tree_size_min=tree_size_min, anchored=anchored)
        answer = await unary(lambda seconds: self._stub.GetWitnessedCheckpoint(request, timeout=seconds), self._settings)
        return answer.checkpoint

    async def get_witness_status(self) -> GetWitnessStatusResponse:
        """How the notary, as the journal's witness, stands to its log."""
        return await unary(lambda seconds: self._stub.GetWitnessStatus(GetWitnessStatusRequest(), timeout=seconds), self._settings)
