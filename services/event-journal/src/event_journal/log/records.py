"""What of the log is stored beside its tiles. Pure."""

from __future__ import annotations

from datetime import datetime

from lockstep_kit.ids import Digest
from lockstep_kit.notes import SignedCheckpoint, parse
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint as its row has it."""

    #: Leaves that it covers.
    tree_size: int
    #: Root over them.
    root_hash: Digest
    #: The note.
    signed_note: bytes
    #: When it was made, by the database's clock.
    made_at: datetime

    @property
    def signed(self) -> SignedCheckpoint:
        """What its note says.

        Raises:
            NoteInvalid: somebody has changed it.
        """
        return parse(self.signed_note)


@dataclass(frozen=True, slots=True)
class StoredLeaf:
    """An entry, as far as it is a leaf."""

    #: Place in its plan's chain.
    sequence: int
    #: Place in the journal's one order.
    position: int
    #: Data of the leaf.
    canonical_bytes: bytes

    @property
    def index(self) -> int:
        """Place in the tree."""
        return self.position - 1
