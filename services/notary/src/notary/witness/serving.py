"""The witness's part of NotaryService: checkpoints that were cosigned, and what is refused. Served from what is stored, and from nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import grpc

from lockstep.notary.v1 import anchor_pb2, notary_service_pb2
from lockstep_kit.db import Connection, Database
from lockstep_kit.errors import LockstepError, precondition
from lockstep_kit.fields import require
from notary.witness import store
from notary.witness.ports import CheckpointAnchors
from notary.witness.store import RaisedAlarm, Standing, Witnessed

RETRY_AFTER: Final = timedelta(seconds=1)


class WitnessReading:
    """Read-only; a part of the notary's servicer, over its database."""

    _db: Database
    #: None: nothing is anchored.
    _anchors: CheckpointAnchors | None

    async def GetWitnessedCheckpoint(  # noqa: N802 - the protocol's name
        self, request: notary_service_pb2.GetWitnessedCheckpointRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> notary_service_pb2.GetWitnessedCheckpointResponse:
        """A checkpoint of the journal that the notary has witnessed."""
        del context
        require(request.tree_size_min >= 0, "tree_size_min", "must not be negative")
        async with self._db.connection() as connection:
            found = None
            if self._anchors is not None or not request.anchored:
                found = await store.at_least(connection, request.tree_size_min, anchored=request.anchored)
            if found is None:
                raise _none_yet(await store.standing(connection), request.tree_size_min)
            shown = await self._shown(connection, found)
        return notary_service_pb2.GetWitnessedCheckpointResponse(checkpoint=shown)

    async def GetWitnessStatus(  # noqa: N802 - the protocol's name
        self, request: notary_service_pb2.GetWitnessStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> notary_service_pb2.GetWitnessStatusResponse:
        """How the notary stands to the journal's log."""
        del request, context
        async with self._db.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            standing = await store.standing(connection)
            acknowledged = await store.acknowledged(connection)
            last = None if standing.last is None else await self._shown(connection, standing.last)
        response = notary_service_pb2.GetWitnessStatusResponse(acknowledged=[alarm_to_pb(each) for each in acknowledged])
        if last is not None:
            response.last.CopyFrom(last)
        if standing.alarm is not None:
            response.alarm.CopyFrom(alarm_to_pb(standing.alarm))
        if standing.looked_at is not None:
            response.looked_at.FromDatetime(standing.looked_at)
        return response

    async def _shown(self, connection: Connection, witnessed: Witnessed) -> anchor_pb2.WitnessedCheckpoint:
        message = checkpoint_to_pb(witnessed)
        anchor = None if self._anchors is None else await self._anchors.find(connection, witnessed.seen.root)
        if anchor is not None:
            message.anchor.CopyFrom(anchor)
        return message


def _none_yet(standing: Standing, size_min: int) -> LockstepError:
    if standing.alarm is not None:
        return precondition(
            "WITNESS_ALARM", "the notary refuses what the journal shows, and cosigns nothing", rule=standing.alarm.alarm.rule.value
        )
    if standing.last is None and size_min == 0:
        return LockstepError(grpc.StatusCode.NOT_FOUND, "CHECKPOINT_NOT_FOUND", "the notary has witnessed no checkpoint")
    # Not UNAVAILABLE, which callers repeat by themselves: it may be that it never comes.
    message = "the notary has not yet witnessed, or anchored, a checkpoint with so many leaves"
    told = {"tree_size": str(size_min)}
    return LockstepError(grpc.StatusCode.FAILED_PRECONDITION, "CHECKPOINT_PENDING", message, told, retry_after=RETRY_AFTER)


def checkpoint_to_pb(witnessed: Witnessed) -> anchor_pb2.WitnessedCheckpoint:
    """A checkpoint as it is served."""
    message = anchor_pb2.WitnessedCheckpoint(
        signed_note=witnessed.note, tree_size=witnessed.seen.size, root_hash=witnessed.seen.root
    )
    message.witnessed_at.FromDatetime(witnessed.at)
    return message


def alarm_to_pb(raised: RaisedAlarm) -> notary_service_pb2.WitnessAlarm:
    """An alarm as it is served."""
    message = notary_service_pb2.WitnessAlarm(
        rule=raised.alarm.rule.value,
        message=raised.alarm.message,
        refused_note=raised.refused_note or b"",
        cosigned_note=raised.cosigned_note or b"",
        path=raised.proof,
        finding=raised.finding or "",
        followed=raised.follows is not None,
    )
    message.raised_at.FromDatetime(raised.at)
    if raised.acknowledged_at is not None:
        message.acknowledged_at.FromDatetime(raised.acknowledged_at)
    return message
