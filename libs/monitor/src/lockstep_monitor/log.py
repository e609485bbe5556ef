"""The log as a whole: the tree over the entries as they were delivered, and checkpoints held against it. Pure.

The monitor hashes every entry that it is delivered, so that it knows the root at every size. What the journal shows to others under its signature, and what
the witness cosigned, must be that very root: a log that is shown differently to two readers is found as soon as one of them is the witness.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from lockstep_kit import merkle
from lockstep_kit.ids import Digest
from lockstep_kit.notes import Checkpoint, NoteInvalid, SignedCheckpoint, parse
from lockstep_kit.registry import Registry
from lockstep_kit.signing import PublicKey
from lockstep_kit.values import dataclass
from lockstep_monitor.entries import JOURNAL
from lockstep_monitor.findings import Finding, Rule

NOTARY: Final = "notary"
#: Sizes of which the tree is kept; a checkpoint is seldom older than a second.
SIZES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Peaks:
    """Roots of a tree's full subtrees: the smallest, and those before it, which trees of other sizes have in common with it."""

    #: Of the smallest, the rightmost.
    root: Digest
    #: The others.
    before: Peaks | None

    def listed(self) -> list[Digest]:
        """All of them, largest first."""
        found: list[Digest] = []
        each: Peaks | None = self
        while each is not None:
            found.append(each.root)
            each = each.before
        return found[::-1]

    def whole(self) -> Digest:
        """Root over all leaves."""
        node, each = self.root, self.before
        while each is not None:
            node, each = merkle.node_hash(each.root, node), each.before
        return node


@dataclass(frozen=True, slots=True)
class Tree:
    """An RFC 6962 tree at one size."""

    #: Leaves.
    size: int = 0
    #: Roots of its full subtrees; None of an empty one.
    peaks: Peaks | None = None

    @classmethod
    def of(cls, size: int, peaks: Sequence[Digest]) -> Tree:
        """The tree of a size, given the roots of its full subtrees, largest first."""
        found: Peaks | None = None
        for each in peaks:
            found = Peaks(each, found)
        return cls(size, found)

    def with_leaf(self, leaf: Digest) -> Tree:
        """The tree with one leaf more."""
        node, size, peaks = leaf, self.size, self.peaks
        while size & 1 and peaks is not None:
            node, peaks = merkle.node_hash(peaks.root, node), peaks.before
            size >>= 1
        return Tree(self.size + 1, Peaks(node, peaks))

    def root(self) -> Digest:
        """Root over all leaves."""
        return merkle.root([]) if self.peaks is None else self.peaks.whole()


@dataclass(frozen=True, slots=True)
class Names:
    """Under which names log and witness sign."""

    #: Origin of the log's checkpoints.
    origin: str
    #: Name of the witness's key.
    witness: str


class LogWatch:
    """The tree over what was delivered, and what checkpoints say of it."""

    def __init__(self, names: Names, registry: Registry, tree: Tree | None = None) -> None:
        self._names = names
        self._registry = registry
        self.tree = Tree() if tree is None else tree
        #: By size; the root over one is worked out when a checkpoint asks for it.
        self._trees: dict[int, Tree] = {self.tree.size: self.tree}
        #: Largest checkpoint that was shown and held.
        self.shown = 0

    def add(self, canonical_bytes: bytes) -> None:
        """The next entry's signed bytes."""
        self.tree = self.tree.with_leaf(merkle.leaf_hash(canonical_bytes))
        self._trees[self.tree.size] = self.tree
        if len(self._trees) > SIZES_MAX:
            del self._trees[next(iter(self._trees))]

    def _differs(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint has another root than the tree here had at its size; what is too old to be known differs in nothing."""
        tree = self._trees.get(checkpoint.size)
        return tree is not None and tree.root() != checkpoint.root

    def judgeable(self, note: bytes) -> bool:
        """Whether the root at the note's size is known here by now; what cannot be read can be judged at once."""
        try:
            return parse(note).checkpoint.size <= self.tree.size
        except NoteInvalid:
            return True

    def checkpoint(self, note: bytes, moment: datetime) -> Iterator[Finding]:
        """A checkpoint as the journal shows it, held against what it has delivered."""
        signed = self._read(note)
        if signed is None or not self._signed_by_journal(signed, moment):
            yield Finding(
                Rule.CHECKPOINT_INVALID, "the journal shows a checkpoint that is malformed or not its own", position=self.tree.size
            )
            return
        size = signed.checkpoint.size
        if size < self.shown:
            yield Finding(Rule.LOG_SHRUNKEN, f"the journal shows {size} entries, and has shown {self.shown}", position=size)
        self.shown = max(self.shown, size)
        if self._differs(signed.checkpoint):
            message = f"the journal shows another root over {size} entries than that of those it delivered"
            yield Finding(Rule.CHECKPOINT_DIFFERS, message, position=size)

    def witnessed(self, note: bytes, moment: datetime) -> Iterator[Finding]:
        """A checkpoint as the witness cosigned it, held against what the journal has delivered here."""
        signed = self._read(note)
        keys = self._keys(NOTARY, None)
        cosigned = signed is not None and any(signed.cosigned_at(self._names.witness, key) is not None for key in keys)
        if signed is None or not cosigned or not self._signed_by_journal(signed, None):
            yield Finding(Rule.WITNESS_INVALID, "the notary shows a checkpoint that journal and witness have not both signed")
            return
        size = signed.checkpoint.size
        if self._differs(signed.checkpoint):
            message = f"the witness cosigned another root over {size} entries than that of those delivered here: the log is split"
            yield Finding(Rule.WITNESS_DIFFERS, message, position=size)

    def witnessed_at(self, note: bytes) -> tuple[int, datetime] | None:
        """Size and time of a checkpoint that the witness has cosigned."""
        signed = self._read(note)
        if signed is None:
            return None
        times = [signed.cosigned_at(self._names.witness, key) for key in self._keys(NOTARY, None)]
        return next(((signed.checkpoint.size, each) for each in times if each is not None), None)

    def _read(self, note: bytes) -> SignedCheckpoint | None:
        try:
            signed = parse(note)
        except NoteInvalid:
            return None
        return signed if signed.checkpoint.origin == self._names.origin else None

    def _signed_by_journal(self, signed: SignedCheckpoint, moment: datetime | None) -> bool:
        return any(signed.signed_by(self._names.origin, key) for key in self._keys(JOURNAL, moment))

    def _keys(self, name: str, moment: datetime | None) -> Sequence[PublicKey]:
        """A participant's keys that count at a moment; all of them where there is none."""
        registered = [key for each in self._registry.participants if each.name == name for key in each.keys]
        return [key.public for key in registered if moment is None or key.valid_at(moment)]
