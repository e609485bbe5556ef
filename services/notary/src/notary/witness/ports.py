"""What the witness needs of others."""

from __future__ import annotations

from typing import Protocol

from lockstep.notary.v1 import anchor_pb2
from lockstep_kit.db import Connection
from lockstep_kit.ids import Digest


class CheckpointAnchors(Protocol):
    """Roots of checkpoints on chain."""

    async def request(self, tx: Connection, root: Digest, size: int) -> None:
        """Have a root over so many leaves anchored once the transaction has committed; one that is known already is left as it is."""

    async def find(self, connection: Connection, root: Digest) -> anchor_pb2.Anchor | None:
        """What shows that a root is anchored; None until it stands in a final block."""
