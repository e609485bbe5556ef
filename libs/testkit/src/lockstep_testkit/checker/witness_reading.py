"""Reads what the notary has cosigned as the journal's witness, holds it against the journal's own entries, and says what differs. Judges nothing by itself."""

from __future__ import annotations

from typing import Final

import asyncpg

from lockstep_kit import merkle, notes
from lockstep_kit.ids import Digest
from lockstep_kit.notes import NoteInvalid
from lockstep_kit.registry import Registry
from lockstep_kit.registry_file import load_registry
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.ownership import as_owner

ALARMS: Final = "select rule, message from witness_alarm order by id"
CHECKPOINTS: Final = "select tree_size, root_hash, signed_note from witness_checkpoint order by history, tree_size"
LEAVES: Final = "select canonical_bytes from journal_entry order by position"


async def read_witness(sandbox: Sandbox) -> tuple[str, ...]:
    """What is wrong with what was witnessed. A journal that was never put back gives no alarm."""
    registry = load_registry(sandbox.run.path / "config" / "registry.yaml")
    # The witness first: what it has seen, the journal has.
    async with as_owner(sandbox, "notary") as notary:
        alarms, rows = await notary.fetch(ALARMS), await notary.fetch(CHECKPOINTS)
    async with as_owner(sandbox, "event-journal") as journal:
        leaves = [merkle.leaf_hash(row["canonical_bytes"]) for row in await journal.fetch(LEAVES)]
    found = [f"the witness raised an alarm: {row['rule']}: {row['message']}" for row in alarms]
    for row in rows:
        found.extend(wrong(row, leaves, registry))
    return tuple(found)


def wrong(row: asyncpg.Record, leaves: list[Digest], registry: Registry) -> list[str]:
    """What is wrong with one checkpoint, by all leaves that the journal has."""
    size, root = row["tree_size"], row["root_hash"]
    if size > len(leaves):
        return [f"a checkpoint with {size} leaves was witnessed, and the journal has {len(leaves)} entries"]
    found = (
        [] if merkle.root(leaves[:size]) == root else [f"a checkpoint with {size} leaves was witnessed that is not the journal's"]
    )
    try:
        signed = notes.parse(row["signed_note"])
    except NoteInvalid as error:
        return [*found, f"the checkpoint with {size} leaves is no note: {error}"]
    keys = [key.public for each in registry.participants if each.name == "notary" for key in each.keys]
    cosigned = any(signed.cosigned_at(line.name, key) for line in signed.signatures for key in keys)
    if not cosigned or (signed.checkpoint.size, signed.checkpoint.root) != (size, root):
        found.append(f"the checkpoint with {size} leaves is not cosigned")
    return found
