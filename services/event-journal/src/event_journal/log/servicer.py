"""The log's part of JournalReaderService: check, convert, call, convert."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import grpc

from event_journal import store
from event_journal.convert import entry_to_pb
from event_journal.log import reading
from event_journal.log.convert import checkpoint_to_pb, proof_to_pb
from event_journal.log.records import StoredCheckpoint
from event_journal.payload_keys import PayloadVault
from event_journal.payload_store import entries_of
from lockstep.journal.v1 import journal_reader_service_pb2, journal_reader_service_pb2_grpc
from lockstep_kit import ids
from lockstep_kit.db import Connection, Database
from lockstep_kit.errors import LockstepError, not_found
from lockstep_kit.fields import require
from lockstep_kit.participant.readers import PlanReaders

#: Of evidence in one message; callers take 4 MiB.
BUNDLE_ENTRIES_MAX: Final = 500
BUNDLE_BYTES_MAX: Final = 3 << 20
RETRY_AFTER: Final = timedelta(seconds=1)


class LogServicer(journal_reader_service_pb2_grpc.JournalReaderServiceServicer):
    """Checkpoints and proofs."""

    def __init__(self, db: Database, vault: PayloadVault, readers: PlanReaders) -> None:
        self._db = db
        self._vault = vault
        self._readers = readers

    async def GetCheckpoint(  # noqa: N802 - the protocol's name
        self, request: journal_reader_service_pb2.GetCheckpointRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_reader_service_pb2.GetCheckpointResponse:
        """The newest checkpoint, or the smallest of at least a size."""
        del context
        require(request.tree_size_min >= 0, "tree_size_min", "must not be negative")
        async with self._db.connection() as connection:
            found = await _checkpoint(connection, request.tree_size_min)
        if found is None:
            raise _pending(max(request.tree_size_min, 1))
        return journal_reader_service_pb2.GetCheckpointResponse(checkpoint=checkpoint_to_pb(found))

    async def GetInclusionProof(  # noqa: N802 - the protocol's name
        self, request: journal_reader_service_pb2.GetInclusionProofRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_reader_service_pb2.GetInclusionProofResponse:
        """How an entry is shown to be in the tree."""
        plan_id, size = ids.plan_id(request.plan_id), request.tree_size
        require(request.sequence >= 1, "sequence", "must be at least 1")
        require(size >= 1, "tree_size", "must be at least 1")
        await self._readers.admit(context, plan_id)
        async with self._db.connection() as connection:
            reached, index = await reading.place(connection, plan_id, request.sequence)
            if index is None:
                raise not_found("entry", f"{request.sequence} of plan {plan_id}")
            require(index < size, "tree_size", f"must be more than {index}, the entry's leaf")
            if size > reached:
                raise _pending(size)
            (path,) = await reading.inclusion_paths(connection, [index], size)
        proof = proof_to_pb(plan_id, request.sequence, index, size, path)
        return journal_reader_service_pb2.GetInclusionProofResponse(proof=proof)

    async def GetConsistencyProof(  # noqa: N802 - the protocol's name
        self, request: journal_reader_service_pb2.GetConsistencyProofRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_reader_service_pb2.GetConsistencyProofResponse:
        """How the tree is shown to begin with a smaller one."""
        del context
        require(request.from_size >= 0, "from_size", "must not be negative")
        require(request.to_size >= request.from_size, "to_size", "must be at least from_size")
        async with self._db.connection() as connection:
            path = await reading.consistency_path(connection, request.from_size, request.to_size)
        if path is None:
            raise _pending(request.to_size)
        return journal_reader_service_pb2.GetConsistencyProofResponse(path=path)

    async def ExportBundle(  # noqa: N802 - the protocol's name
        self, request: journal_reader_service_pb2.ExportBundleRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> journal_reader_service_pb2.ExportBundleResponse:
        """A plan's whole chain, a checkpoint that covers it, and the proofs for it, as one state."""
        plan_id = ids.plan_id(request.plan_id)
        require(request.tree_size_min >= 0, "tree_size_min", "must not be negative")
        await self._readers.admit(context, plan_id)
        async with self._db.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            rows = await store.plans_entries(connection, [plan_id], limit=BUNDLE_ENTRIES_MAX + 1)
            if not rows:
                raise not_found("plan", plan_id)
            if len(rows) > BUNDLE_ENTRIES_MAX:
                raise _too_large(plan_id)
            indexes = [row["position"] - 1 for row in rows]
            covering = max(indexes) + 1
            wanted = max(request.tree_size_min, covering) if request.tree_size_min else 0
            checkpoint = await _checkpoint(connection, wanted)
            if checkpoint is None or checkpoint.tree_size < covering:
                raise _pending(max(wanted, covering), plan=plan_id)
            paths = await reading.inclusion_paths(connection, indexes, checkpoint.tree_size)
            entries = await entries_of(connection, rows, self._vault)
        bundle = journal_reader_service_pb2.ExportBundleResponse(
            entries=[entry_to_pb(entry, row["position"]) for entry, row in zip(entries, rows, strict=True)],
            proofs=[
                proof_to_pb(plan_id, row["sequence"], index, checkpoint.tree_size, path)
                for row, index, path in zip(rows, indexes, paths, strict=True)
            ],
            checkpoint=checkpoint_to_pb(checkpoint),
        )
        if bundle.ByteSize() > BUNDLE_BYTES_MAX:
            raise _too_large(plan_id)
        return bundle


async def _checkpoint(connection: Connection, tree_size_min: int) -> StoredCheckpoint | None:
    if tree_size_min:
        return await reading.checkpoint_from(connection, tree_size_min)
    return await reading.newest_checkpoint(connection)


def _pending(tree_size: int, **metadata: str) -> LockstepError:
    """The log has not come so far yet. Not UNAVAILABLE, which callers repeat by themselves: it may be that it never comes."""
    message = f"the log has no checkpoint of {tree_size} leaves yet"
    told = {"tree_size": str(tree_size), **metadata}
    return LockstepError(grpc.StatusCode.FAILED_PRECONDITION, "CHECKPOINT_PENDING", message, told, retry_after=RETRY_AFTER)


def _too_large(plan_id: ids.PlanId) -> LockstepError:
    message = "the plan's evidence is too large for one message: read its entries and their proofs one by one"
    return LockstepError(grpc.StatusCode.RESOURCE_EXHAUSTED, "BUNDLE_TOO_LARGE", message, {"plan": plan_id})
