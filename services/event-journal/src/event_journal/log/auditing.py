"""Whether entries, tree and checkpoints belong together, computed anew from the entries by code that shares nothing with what made the tree grow. Pure.

Whoever owns the database can change rows. An entry that was changed, swapped, removed or put in is not the leaf that the tree has; a tree that was made to fit
has not the roots that were signed; and a checkpoint that was made to fit is not signed. Only who has the journal's key too gets past this, and is found by the
witness, which has seen the log as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from event_journal.chain import JOURNAL_ACTOR, Finding
from event_journal.log.records import StoredCheckpoint, StoredLeaf
from event_journal.log.tiles import HEIGHT, TileId, TileMissing, stored, tree_root
from lockstep_kit import merkle
from lockstep_kit.ids import Digest
from lockstep_kit.notes import NoteInvalid
from lockstep_kit.registry import Registry
from lockstep_kit.values import dataclass

_NO_HASH = Digest(bytes(32))


@dataclass(frozen=True, slots=True)
class LogFinding:
    """One thing that does not hold."""

    #: Place in the journal's one order that it is about; of a checkpoint its size.
    position: int
    #: UPPER_SNAKE name of the rule.
    rule: str
    #: One sentence.
    message: str


@dataclass(frozen=True, slots=True)
class LogEnd:
    """How far everything reaches."""

    #: Entries, by the journal's counter.
    entry_count: int
    #: Leaves of the tree.
    tree_size: int


class _Frontier:
    """A tree of which only the roots of its complete subtrees are kept: enough to go on, and for the root at each size."""

    def __init__(self) -> None:
        self.size = 0
        #: Height and root, from the left.
        self._nodes: list[tuple[int, Digest]] = []

    def push(self, leaf: Digest) -> Iterator[tuple[int, int, Digest]]:
        """Add a leaf; each subtree that it completes, as height, place from the left, and root."""
        height, node = 0, leaf
        while self._nodes and self._nodes[-1][0] == height:
            node = merkle.node_hash(self._nodes.pop()[1], node)
            height += 1
            yield height, self.size >> height, node
        self._nodes.append((height, node))
        self.size += 1

    def root(self) -> Digest:
        """Root over all leaves so far."""
        if not self._nodes:
            return merkle.root([])
        found = self._nodes[-1][1]
        for _, left in reversed(self._nodes[:-1]):
            found = merkle.node_hash(left, found)
        return found


class LogAudit:
    """Reads the whole log, a stretch at a time."""

    def __init__(self, end: LogEnd, registry: Registry) -> None:
        self._end = end
        self._registry = registry
        self._frontier = _Frontier()
        #: Last position behind the tree that was read.
        self._rest = end.tree_size

    @property
    def position(self) -> int:
        """The last that was read."""
        return self._frontier.size

    def begin(self) -> list[LogFinding]:
        """Whether the tree reaches no further than the entries."""
        if self._end.tree_size > self._end.entry_count:
            sentence = f"the tree has {self._end.tree_size} leaves, the journal {self._end.entry_count} entries"
            return [LogFinding(self._end.entry_count, "TREE_DIFFERS", sentence)]
        return []

    def read(
        self, until: int, entries: Sequence[StoredLeaf], tiles: Mapping[TileId, bytes], checkpoints: Sequence[StoredCheckpoint]
    ) -> list[LogFinding]:
        """What is wrong up to a position.

        Args:
            until: the last position of the stretch, at most the tree's size.
            entries: those in it, in order.
            tiles: of level 0 those that hold its leaves, and all above.
            checkpoints: whose sizes are in it, in order.
        """
        found: list[LogFinding] = []
        standing = {each.position: each for each in entries}
        published = {each.tree_size: each for each in checkpoints}
        for position in range(self.position + 1, until + 1):
            leaf, findings = _leaf(position, standing.get(position), stored(tiles, 0, position - 1))
            found += findings
            for height, place, node in self._frontier.push(leaf):
                level, between = divmod(height, HEIGHT)
                if not between and stored(tiles, level, place) != node:
                    found.append(LogFinding(position, "TILE_DIFFERS", f"hash {place} of level {level} is not over its leaves"))
            if position in published:
                found += self.checkpoint(published[position], self._frontier.root())
        return found

    def rest(self, entries: Sequence[StoredLeaf], *, last: bool) -> list[LogFinding]:
        """What is wrong with the next entries behind the tree's end, in order; `last`: there are no more. A hole is one finding, however wide it is."""
        found: list[LogFinding] = []
        end = self._end.entry_count
        for each in entries:
            found += self._hole(min(each.position - 1, end))
            if each.position > end:
                found.append(LogFinding(each.position, "ENTRY_BEYOND_END", f"the journal says that it ends before {each.position}"))
            self._rest = each.position
        return found + (self._hole(end) if last else [])

    def _hole(self, until: int) -> list[LogFinding]:
        """Positions behind the tree up to this one that were given and have no entry."""
        first = self._rest + 1
        if until < first:
            return []
        where = f"at {first}" if first == until else f"from {first} to {until}"
        return [LogFinding(first, "ENTRY_MISSING", f"there is no entry {where}")]

    def checkpoint(self, checkpoint: StoredCheckpoint, root: Digest | None) -> list[LogFinding]:
        """What is wrong with a checkpoint; the root is what the tree has at its size, None if it does not reach so far."""
        return [LogFinding(checkpoint.tree_size, *each) for each in _checkpoint(checkpoint, root, self._registry)]


def _leaf(position: int, entry: StoredLeaf | None, leaf: Digest | None) -> tuple[Digest, list[LogFinding]]:
    """The leaf to go on with, which is the tree's own where there is one, and what is wrong with it."""
    found = []
    if entry is None:
        found.append(LogFinding(position, "ENTRY_MISSING", f"there is no entry at {position}, of which the tree has a leaf"))
    made = merkle.leaf_hash(entry.canonical_bytes) if entry is not None else None
    if leaf is None:
        found.append(LogFinding(position, "LEAF_MISSING", f"the tree has no leaf for position {position}"))
    elif made is not None and made != leaf:
        found.append(LogFinding(position, "LEAF_DIFFERS", f"the entry at {position} is not the one that the tree is over"))
    return leaf or made or _NO_HASH, found


def _checkpoint(checkpoint: StoredCheckpoint, root: Digest | None, registry: Registry) -> Iterator[tuple[str, str]]:
    """Rules that a checkpoint breaks, each with a sentence."""
    try:
        signed = checkpoint.signed
    except NoteInvalid as error:
        yield "CHECKPOINT_DIFFERS", f"the checkpoint's note cannot be read: {error}"
        return
    said, size = signed.checkpoint, checkpoint.tree_size
    if (said.size, said.root) != (size, checkpoint.root_hash):
        yield "CHECKPOINT_DIFFERS", f"the checkpoint of {size} leaves does not say what its note says"
    elif root is None:
        yield "CHECKPOINT_DIFFERS", f"a checkpoint of {size} leaves is signed, and the tree does not reach so far"
    elif root != said.root:
        yield "CHECKPOINT_DIFFERS", f"the tree's first {size} leaves have not the root that was signed"
    keys = [key for each in registry.participants if each.name == JOURNAL_ACTOR for key in each.keys]
    if not any(signed.signed_by(said.origin, key.public) for key in keys if key.valid_at(checkpoint.made_at)):
        yield "CHECKPOINT_SIGNATURE", f"the checkpoint of {size} leaves is not signed by a key that was the journal's then"


def plan_findings(
    leaves: Sequence[StoredLeaf], tree_size: int, tiles: Mapping[TileId, bytes], newest: StoredCheckpoint | None, registry: Registry
) -> list[Finding]:
    """What is wrong with the place that a plan's entries have in the log, and with its newest checkpoint.

    Args:
        leaves: of the plan's entries; those that the tree has not taken up yet are left alone.
        tree_size: leaves of the tree.
        tiles: those that hold the leaves, and those that the newest checkpoint's root is computed from.
        newest: the newest checkpoint.
        registry: whose key is the journal's.
    """
    found = []
    for each in leaves:
        if each.position > tree_size:
            continue
        leaf = stored(tiles, 0, each.index)
        if leaf is None:
            found.append(Finding(each.sequence, "LEAF_MISSING", f"the tree has no leaf for the entry, at position {each.position}"))
        elif leaf != merkle.leaf_hash(each.canonical_bytes):
            found.append(Finding(each.sequence, "LEAF_DIFFERS", f"the tree has another entry at position {each.position}"))
    if newest is None:
        return found
    try:
        root = tree_root(newest.tree_size, tiles) if newest.tree_size <= tree_size else None
    except TileMissing:
        root = None
    return found + [Finding(0, rule, sentence) for rule, sentence in _checkpoint(newest, root, registry)]
