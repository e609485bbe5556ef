"""NotaryService: what stands on chain about a plan, from the notary's own signed words."""

from __future__ import annotations

from typing import Any

import grpc

from lockstep.notary.v1 import notary_service_pb2, notary_service_pb2_grpc
from lockstep_kit import ids
from lockstep_kit.db import Database
from lockstep_kit.errors import not_found
from notary import store


class NotaryServicer(notary_service_pb2_grpc.NotaryServiceServicer):
    """Read-only."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def GetNotarisation(  # noqa: N802 - the protocol's name
        self, request: notary_service_pb2.GetNotarisationRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> notary_service_pb2.GetNotarisationResponse:
        """The registration and finalisation of one plan."""
        del context
        plan_id = ids.plan_id(request.plan_id)
        async with self._db.connection() as connection:
            found = await store.notarisation(connection, plan_id)
        if found is None:
            raise not_found("plan", plan_id)
        plan_digest, vote, outcome = found
        response = notary_service_pb2.GetNotarisationResponse(plan_digest=plan_digest)
        if vote is not None and vote.promise.evidence.HasField("chain"):
            response.registration.CopyFrom(vote.promise.evidence.chain)
        if outcome is not None and outcome.evidence.HasField("chain"):
            response.finalisation.CopyFrom(outcome.evidence.chain)
            response.outcome = outcome.evidence.chain.entry_status
        return response
