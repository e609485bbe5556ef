"""Tells the notary what is to stand on chain of escalations: many in one call, again and again until it has taken it or refused it.

No plan waits for this: the rows are written with the escalations, and a notary that is away for hours is told afterwards.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

import grpc
import structlog

from coordinator.engine import Engine
from coordinator.peers import NotaryPeer
from coordinator.store import escalation_documents
from lockstep_kit import failpoints
from lockstep_kit.escalations import Said
from lockstep_kit.failpoints import failpoint
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.loops import Loop, back_off_seconds

_log = structlog.get_logger()

BATCH_MAX: Final = 128
POLL_SECONDS: Final = 5.0
BACK_OFF_SECONDS_MAX: Final = 60.0

failpoints.declare(*(f"coordinator.escalation.{where}" for where in ("before_send", "after_send", "after_told")))


class EscalationRelay:
    """What the notary was not told yet. Replicas may tell it the same: that changes nothing."""

    def __init__(self, engine: Engine, peer: NotaryPeer) -> None:
        self._engine = engine
        self._peer = peer
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._failures = 0

    def loop(self) -> Loop:
        """The loop that tells."""
        return Loop("escalation_relay", self.run, poll_seconds=POLL_SECONDS, wake=self._engine.wakes.escalations)

    async def run(self) -> None:
        """Tell until there is nothing untold."""
        while True:
            async with self._engine.db.connection() as connection:
                said = await escalation_documents.untold(connection, BATCH_MAX)
            if not said:
                return
            await self._tell(said)
            if self._failures:
                await asyncio.sleep(back_off_seconds(self._failures, self._rng, most=BACK_OFF_SECONDS_MAX))

    async def _tell(self, said: Sequence[Said]) -> None:
        async with self._engine.traces.span("coordinator.escalations", sorted({each.plan_id for each in said})):
            await failpoint("coordinator.escalation.before_send")
            try:
                refusals = await self._peer.record(said)
            except grpc.aio.AioRpcError as error:
                self._failures += 1
                _log.warning("escalations_unanswered", code=error.code().name)
                return
            except FieldInvalid as finding:
                self._failures += 1
                _log.error("escalations_malformed", field=finding.field)
                return
            self._failures = 0
            await failpoint("coordinator.escalation.after_send")
        for each, refusal in zip(said, refusals, strict=True):
            if refusal:
                told = {"plan_id": each.plan_id, "escalation_id": each.escalation_id, "kind": each.kind.value}
                _log.error("escalation_record_refused", why=refusal, **told)
        async with self._engine.db.connection() as connection:
            await escalation_documents.told(connection, list(zip(said, refusals, strict=True)))
        await failpoint("coordinator.escalation.after_told")
