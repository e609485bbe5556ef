"""NotaryService: what stands on chain about a plan, from the notary's own signed words, and what the coordinator has recorded."""

from __future__ import annotations

from typing import Any

import grpc

from lockstep.notary.v1 import notary_service_pb2, notary_service_pb2_grpc
from lockstep_contracts.notary import AnchorKind
from lockstep_kit import ids
from lockstep_kit.db import Database
from lockstep_kit.errors import not_found
from lockstep_kit.participant.readers import PlanReaders
from notary import store
from notary.anchors import plan_store, queue
from notary.anchors.convert import proof_to_pb
from notary.escalations import store as escalation_store
from notary.escalations.serving import EscalationRecording
from notary.witness.ports import CheckpointAnchors
from notary.witness.serving import WitnessReading


class NotaryServicer(EscalationRecording, WitnessReading, notary_service_pb2_grpc.NotaryServiceServicer):
    """Read-only, but for what is said of escalations."""

    def __init__(
        self, db: Database, chain: str, registry: str, readers: PlanReaders, *, anchors: CheckpointAnchors | None = None
    ) -> None:
        """Over the notary's database; `chain` (CAIP-2) and `registry` (EIP-55) are where anchors stand."""
        self._db = db
        self._chain = chain
        self._registry = registry
        self._readers = readers
        self._anchors = anchors

    async def GetNotarisation(  # noqa: N802 - the protocol's name
        self, request: notary_service_pb2.GetNotarisationRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> notary_service_pb2.GetNotarisationResponse:
        """The registration and finalisation of one plan."""
        plan_id = ids.plan_id(request.plan_id)
        await self._readers.admit(context, plan_id)
        async with self._db.connection() as connection:
            found = await store.notarisation(connection, plan_id)
            leaves = await plan_store.placed(connection, plan_id)
            ended = await plan_store.outcome(connection, plan_id)
            escalations = await escalation_store.of_plan(connection, plan_id)
            anchored = await queue.anchored(connection, [leaf.root for leaf in leaves])
        if found is None:
            raise not_found("plan", plan_id)
        plan_digest, vote, outcome = found
        response = notary_service_pb2.GetNotarisationResponse(plan_digest=plan_digest, escalations=self.records_to_pb(escalations))
        if vote is not None and vote.promise.evidence.HasField("chain"):
            response.registration.CopyFrom(vote.promise.evidence.chain)
        if outcome is not None and outcome.evidence.HasField("chain"):
            response.finalisation.CopyFrom(outcome.evidence.chain)
            response.outcome = outcome.evidence.chain.entry_status
        elif ended:
            response.outcome = ended
        for leaf in leaves:
            proof = proof_to_pb(leaf, anchored.get(leaf.root), self._chain, self._registry)
            (response.registration_proof if leaf.kind is AnchorKind.REGISTRATIONS else response.outcome_proof).CopyFrom(proof)
        return response
