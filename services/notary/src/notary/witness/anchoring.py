"""Checkpoints' roots in the queue of anchors."""

from __future__ import annotations

from typing import Final

from lockstep.notary.v1 import anchor_pb2
from lockstep_contracts.notary import AnchorKind
from lockstep_kit.db import Connection
from lockstep_kit.ids import Digest
from notary.anchors import queue
from notary.anchors.convert import anchor_to_pb
from notary.anchors.queue import AnchorRequest


class QueuedAnchors:
    """`CheckpointAnchors` of the registry of one chain (CAIP-2, EIP-55)."""

    def __init__(self, chain: str, registry: str) -> None:
        self._chain: Final = chain
        self._registry: Final = registry

    async def request(self, tx: Connection, root: Digest, size: int) -> None:
        """Have a root over so many leaves anchored once the transaction has committed; one that is known already is left as it is."""
        await queue.request(tx, [AnchorRequest(AnchorKind.CHECKPOINT, root, size)])

    async def find(self, connection: Connection, root: Digest) -> anchor_pb2.Anchor | None:
        """What shows that a root is anchored; None until it stands in a final block."""
        found = (await queue.anchored(connection, [root])).get(root)
        return None if found is None else anchor_to_pb(found, self._chain, self._registry)
