"""Between protobuf and domain for the log."""

from __future__ import annotations

from collections.abc import Sequence

from event_journal.log.records import StoredCheckpoint
from lockstep.journal.v1 import log_pb2
from lockstep_kit.ids import Digest, PlanId


def checkpoint_to_pb(stored: StoredCheckpoint) -> log_pb2.Checkpoint:
    """A checkpoint as a message."""
    checkpoint = stored.signed.checkpoint
    return log_pb2.Checkpoint(
        origin=checkpoint.origin, tree_size=checkpoint.size, root_hash=checkpoint.root, signed_note=stored.signed_note
    )


def proof_to_pb(plan_id: PlanId, sequence: int, index: int, size: int, path: Sequence[Digest]) -> log_pb2.InclusionProof:
    """An entry's proof as a message."""
    return log_pb2.InclusionProof(plan_id=plan_id, sequence=sequence, leaf_index=index, tree_size=size, path=path)
