"""The escalations' part of NotaryService: the coordinator says what is to be recorded, and readers see where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc
import structlog

from lockstep.notary.v1 import escalation_record_pb2, notary_service_pb2
from lockstep_contracts.notary import EscalationKind
from lockstep_kit import failpoints, ids
from lockstep_kit.convert import enum_from_pb, enum_to_pb, time_to_pb
from lockstep_kit.db import Connection, Database
from lockstep_kit.escalations import escalation_hash
from lockstep_kit.failpoints import failpoint
from lockstep_kit.fields import require, within
from lockstep_kit.ids import DIGEST_BYTES, Digest
from lockstep_kit.participant.readers import PlanReaders
from notary.escalations import store
from notary.escalations.rules import Statement, conflict
from notary.escalations.store import Kept

_log = structlog.get_logger()

#: Statements in one request at the most.
STATEMENTS_MAX: Final = 256
#: Ids are UUIDs; nothing else that names an escalation is longer.
ESCALATION_ID_LENGTH_MAX: Final = 64

KINDS: Final = {
    escalation_record_pb2.ESCALATION_RECORD_KIND_OPENED: EscalationKind.OPENED,
    escalation_record_pb2.ESCALATION_RECORD_KIND_RESOLVED: EscalationKind.RESOLVED,
}

FAILPOINTS: Final = (
    "notary.escalation.record.before_tx",
    "notary.escalation.record.in_tx",
    "notary.escalation.record.after_commit",
    "notary.escalation.judge.in_tx",
    "notary.escalation.judge.after_commit",
)


def declare_failpoints() -> None:
    """Make them known; the notary's main does so when it is imported."""
    failpoints.declare(*FAILPOINTS)


class EscalationRecording:
    """A part of the notary's servicer, over its database; entries stand on `_registry` (EIP-55) of `_chain` (CAIP-2)."""

    _db: Database
    _chain: str
    _registry: str
    _readers: PlanReaders

    async def RecordEscalations(  # noqa: N802 - the protocol's name
        self, request: notary_service_pb2.RecordEscalationsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> notary_service_pb2.RecordEscalationsResponse:
        """Keep what is said of escalations; durable when this is answered."""
        del context
        require(1 <= len(request.statements) <= STATEMENTS_MAX, "statements", f"must be 1 to {STATEMENTS_MAX}")
        statements = []
        for index, each in enumerate(request.statements):
            with within(f"statements[{index}]"):
                statements.append(statement_from_pb(each))
        await failpoint("notary.escalation.record.before_tx")
        async with self._db.transaction() as tx:
            refusals = await _keep(tx, statements)
            await failpoint("notary.escalation.record.in_tx")
        await failpoint("notary.escalation.record.after_commit")
        return notary_service_pb2.RecordEscalationsResponse(answers=[_answer(refusal) for refusal in refusals])

    async def GetEscalationRecords(  # noqa: N802 - the protocol's name
        self, request: notary_service_pb2.GetEscalationRecordsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> notary_service_pb2.GetEscalationRecordsResponse:
        """What is said of a plan's escalations, and where it stands."""
        plan_id = ids.plan_id(request.plan_id)
        await self._readers.admit(context, plan_id)
        async with self._db.connection() as connection:
            kept = await store.of_plan(connection, plan_id)
        return notary_service_pb2.GetEscalationRecordsResponse(records=self.records_to_pb(kept))

    def records_to_pb(self, kept: Sequence[Kept]) -> list[escalation_record_pb2.EscalationRecord]:
        """Statements, with their entries where there are any."""
        return [_record_to_pb(each, self._chain, self._registry) for each in kept]


async def _keep(tx: Connection, statements: Sequence[Statement]) -> list[str]:
    """Keep those that can be kept; of each why it was not, or ""."""
    names = sorted({each.escalation_id for each in statements})
    known = await store.known(tx, names)
    fresh: list[Statement] = []
    for each in statements:
        if not conflict(each, [*known, *fresh]):
            fresh.append(each)
    if fresh:
        await store.keep(tx, fresh)
        # Where another replica was faster, what it kept is what counts.
        known = await store.known(tx, names)
    refusals = [conflict(each, known) for each in statements]
    for each, refusal in zip(statements, refusals, strict=True):
        if refusal:
            told = {"escalation_id": each.escalation_id, "plan_id": each.plan_id, "kind": each.kind.name}
            _log.error("escalation_conflict", why=refusal, document_hash=each.document_hash.hex(), **told)
    return refusals


def statement_from_pb(message: escalation_record_pb2.EscalationStatement) -> Statement:
    """A statement in a request.

    Raises:
        FieldInvalid: a form rule is broken.
    """
    plan_id = ids.plan_id(message.plan_id)
    name = message.escalation_id
    known = 1 <= len(name) <= ESCALATION_ID_LENGTH_MAX and name.isascii() and name.isprintable()
    require(known, "escalation_id", f"must have 1 to {ESCALATION_ID_LENGTH_MAX} printable ASCII characters")
    kind = enum_from_pb(KINDS, message.kind, "kind")
    for field, octets in (("plan_digest", message.plan_digest), ("document_hash", message.document_hash)):
        require(len(octets) == DIGEST_BYTES and any(octets), field, f"must have {DIGEST_BYTES} bytes that are not all zero")
    return Statement(plan_id, Digest(message.plan_digest), message.escalation_id, kind, Digest(message.document_hash))


def _answer(refusal: str) -> escalation_record_pb2.RecordAnswer:
    verdict = escalation_record_pb2.RECORD_VERDICT_CONFLICT if refusal else escalation_record_pb2.RECORD_VERDICT_KEPT
    return escalation_record_pb2.RecordAnswer(verdict=verdict, message=refusal)


def _record_to_pb(kept: Kept, chain: str, registry: str) -> escalation_record_pb2.EscalationRecord:
    said = kept.statement
    message = escalation_record_pb2.EscalationRecord(
        statement=escalation_record_pb2.EscalationStatement(
            plan_id=said.plan_id,
            plan_digest=said.plan_digest,
            escalation_id=said.escalation_id,
            kind=enum_to_pb(KINDS, said.kind),
            document_hash=said.document_hash,
        ),
        take_time=time_to_pb(kept.recorded_at),
        trouble=kept.trouble,
    )
    if kept.block is not None:
        number, block_hash = kept.block
        message.entry.CopyFrom(
            escalation_record_pb2.EscalationEntry(
                chain=chain,
                registry=registry,
                escalation_hash=escalation_hash(said.escalation_id),
                raw_transaction=kept.raw_transaction,
                block_number=number,
                block_hash=block_hash,
            )
        )
    return message
