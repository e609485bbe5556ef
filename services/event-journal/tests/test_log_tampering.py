"""Whatever somebody with every right over the database does to entries, tree or checkpoints, the audit of the log names it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from log_world import KEY, LENGTH, ORIGIN, PLANS, Log, event

from event_journal.chain import GENESIS, link
from event_journal.log.sequencer import LogBroken
from lockstep_kit import merkle
from lockstep_kit.db import Database
from lockstep_kit.notes import Checkpoint, sign
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import key_of
from lockstep_testkit.participants import ParticipantProcess


@pytest_asyncio.fixture(loop_scope="session")
async def log(database_for: Callable[..., Awaitable[TestDatabase]]) -> AsyncIterator[Log]:
    database = await database_for("event_journal")
    db = await Database.connect(database.settings, application_name="test")
    try:
        made = Log(db, database)
        for plan_id in PLANS:
            await made.append(plan_id, LENGTH)
            await made.sequencer.run()
        assert await made.audited() == set()
        yield made
    finally:
        await db.close()


def place(plan: int, sequence: int) -> int:
    return plan * LENGTH + sequence


async def test_what_is_whole(log: Log) -> None:
    """Nothing is found in a log that nobody touched, in none of its plans, nor when entries wait to be taken up."""
    await log.append(PLANS[0], 2, after=LENGTH)
    assert await log.audited() == set()
    assert [await log.verified(plan_id) for plan_id in PLANS] == [set(), set(), set()]


async def test_an_entry_removed_at_the_end(log: Log) -> None:
    """A chain's last entry is cut off and its head moved back, so that the chain is whole: the log has the entry's leaf."""
    await log.tamper(
        f"delete from journal_entry where plan_id = '{PLANS[1]}' and sequence = {LENGTH}",
        f"update journal_chain set entry_count = {LENGTH - 1}, head_hash = (select entry_hash from journal_entry"
        f" where plan_id = '{PLANS[1]}' and sequence = {LENGTH - 1}) where plan_id = '{PLANS[1]}'",
    )
    assert await log.audited() == {(place(1, LENGTH), "ENTRY_MISSING")}


async def test_a_whole_plan_removed(log: Log) -> None:
    """A plan that was removed with its chain has left its leaves."""
    await log.tamper(
        f"delete from journal_entry where plan_id = '{PLANS[1]}'", f"delete from journal_chain where plan_id = '{PLANS[1]}'"
    )
    assert await log.audited() == {(place(1, number), "ENTRY_MISSING") for number in range(1, LENGTH + 1)}


async def test_entries_swapped(log: Log) -> None:
    """Two entries that changed their places are not the leaves at those places; each plan's verification names them too."""
    first, second = place(0, 7), place(2, 3)
    await log.tamper(
        f"update journal_entry set position = 100000 where position = {first}",
        f"update journal_entry set position = {first} where position = {second}",
        f"update journal_entry set position = {second} where position = 100000",
    )
    assert await log.audited() == {(first, "LEAF_DIFFERS"), (second, "LEAF_DIFFERS")}
    assert await log.verified(PLANS[0]) == {(7, "LEAF_DIFFERS")}
    assert await log.verified(PLANS[2]) == {(3, "LEAF_DIFFERS")}


async def test_an_entry_signed_anew(log: Log) -> None:
    """Also who has the journal's key cannot change an entry that is in the tree."""
    other = link(event(PLANS[0], 1), GENESIS, KEY)
    changed = other.canonical_bytes.replace(b'"alice"', b'"mallory"').hex()
    await log.tamper(
        f"update journal_entry set canonical_bytes = '\\x{changed}', entry_hash = sha256('\\x{changed}'),"
        f" signature = '\\x{KEY.sign(bytes.fromhex(changed)).octets.hex()}' where position = 1"
    )
    assert await log.audited() == {(1, "LEAF_DIFFERS")}
    assert await log.verified(PLANS[0]) == {(1, "LEAF_DIFFERS")}


async def test_the_tree_rewritten(log: Log) -> None:
    """An entry is removed, those behind it move up, and the tree is made anew to fit: it has not the roots that were signed."""
    await log.tamper(
        f"delete from journal_entry where position = {place(1, LENGTH)}",
        f"update journal_entry set position = position + 100000 where position > {place(1, LENGTH)}",
        "update journal_entry set position = position - 100001 where position > 100000",
        "update journal_counter set next_position = next_position - 1",
    )
    await log.remake_tree()
    assert await log.audited() == {(2 * LENGTH, "CHECKPOINT_DIFFERS"), (3 * LENGTH, "CHECKPOINT_DIFFERS")}
    assert await log.verified(PLANS[0]) == {(0, "CHECKPOINT_DIFFERS")}
    with pytest.raises(LogBroken):
        await log.sequencer.run()


async def test_checkpoints_rewritten(log: Log) -> None:
    """Whoever makes checkpoints fit a tree made anew cannot sign them."""
    await log.tamper(f"update journal_entry set canonical_bytes = 'x', entry_hash = sha256('x') where position = {place(2, 5)}")
    await log.remake_tree()
    async with log.database.as_owner() as connection:
        rows = await connection.fetch("select canonical_bytes from journal_entry order by position")
    leaves = [merkle.leaf_hash(row["canonical_bytes"]) for row in rows]
    note = sign(Checkpoint(ORIGIN, len(leaves), merkle.root(leaves)), key_of("mallory"))
    await log.tamper(
        f"update journal_checkpoint set root_hash = '\\x{merkle.root(leaves).hex()}', signed_note = '\\x{note.note.hex()}'"
        f" where tree_size = {len(leaves)}"
    )
    assert await log.audited() == {(3 * LENGTH, "CHECKPOINT_SIGNATURE")}
    assert await log.verified(PLANS[1]) == {(0, "CHECKPOINT_SIGNATURE")}


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("update journal_checkpoint set root_hash = sha256('x') where tree_size = 200", {(200, "CHECKPOINT_DIFFERS")}),
        ("update journal_checkpoint set signed_note = 'x' where tree_size = 200", {(200, "CHECKPOINT_DIFFERS")}),
        ("update journal_checkpoint set made_at = '1990-01-01' where tree_size = 200", {(200, "CHECKPOINT_SIGNATURE")}),
        (
            "update journal_tile set hashes = sha256('x') || substring(hashes from 33) where level = 0 and tile_index = 1",
            {(257, "LEAF_DIFFERS"), (300, "CHECKPOINT_DIFFERS")},
        ),
        ("update journal_tile set hashes = sha256('x') where level = 1", {(256, "TILE_DIFFERS")}),
        ("delete from journal_tile where level = 1", {(256, "TILE_DIFFERS")}),
        (
            "update journal_tile set hashes = substring(hashes for 32 * 43) where level = 0 and tile_index = 1",
            {(300, "LEAF_MISSING")},
        ),
        ("update journal_tree set tree_size = 250", {(300, "CHECKPOINT_DIFFERS")}),
        ("update journal_counter set next_position = 299", {(298, "TREE_DIFFERS")}),
        ("delete from journal_tree", {(0, "TREE_MISSING")}),
    ],
)
async def test_the_log_itself(log: Log, statement: str, found: set[tuple[int, str]]) -> None:
    """Each way to change a tile, the tree's end or a checkpoint is named by its rule and place."""
    await log.tamper(statement)
    assert await log.audited() == found


async def test_the_end_cut_off(log: Log) -> None:
    """Entries, tree and counter that are all cut back together contradict the checkpoints that were signed."""
    await log.tamper(
        f"delete from journal_entry where plan_id = '{PLANS[2]}'",
        f"delete from journal_chain where plan_id = '{PLANS[2]}'",
        f"update journal_counter set next_position = {2 * LENGTH + 1}",
    )
    await log.remake_tree()
    assert await log.audited() == {(3 * LENGTH, "CHECKPOINT_DIFFERS")}
    with pytest.raises(LogBroken):
        await log.sequencer.run()


async def test_entries_behind_the_end(log: Log) -> None:
    """Entries that wait to be taken up are audited too: a hole, and one behind the end that the counter says."""
    await log.append(PLANS[0], 3, after=LENGTH)
    await log.tamper(
        f"delete from journal_entry where position = {3 * LENGTH + 2}",
        f"update journal_counter set next_position = {3 * LENGTH + 3}",
    )
    assert await log.audited() == {(3 * LENGTH + 2, "ENTRY_MISSING"), (3 * LENGTH + 3, "ENTRY_BEYOND_END")}
    with pytest.raises(LogBroken, match=f"no entry at position {3 * LENGTH + 2}"):
        await log.sequencer.run()


async def test_a_wide_hole_behind_the_end_is_one_finding(log: Log) -> None:
    """However far the counter was moved, what is missing is named at once; what stands beyond the end is named each by itself."""
    await log.append(PLANS[0], 3, after=LENGTH)
    await log.tamper(f"update journal_counter set next_position = {10**15}")
    assert await log.audited() == {(3 * LENGTH + 4, "ENTRY_MISSING")}
    await log.tamper(f"update journal_counter set next_position = {3 * LENGTH + 1}")
    assert await log.audited() == {(3 * LENGTH + each, "ENTRY_BEYOND_END") for each in (1, 2, 3)}


async def test_as_a_command(participant_for: Callable[..., Awaitable[ParticipantProcess]], payload_key_file: Path) -> None:
    """The command prints where the log ends and each finding, and exits with 1 if there is any."""
    service = await participant_for("event-journal", payload_key_files=[str(payload_key_file)])
    config = service.supervisor.program(service.name).command[-1]

    def audit() -> tuple[int, Sequence[dict[str, object]]]:
        run = subprocess.run(
            [sys.executable, "-m", "event_journal.audit", "--config", config], capture_output=True, text=True, check=False
        )
        return run.returncode, [json.loads(line) for line in run.stdout.splitlines()]

    assert audit() == (0, [{"plans": 0, "entries": 0, "newest_checkpoint": 0, "wrong": 0}])
    async with service.database.as_owner() as connection:
        await connection.execute("update journal_counter set next_position = 2")
    code, lines = audit()
    assert (code, [(line.get("rule"), line.get("position")) for line in lines]) == (1, [(None, None), ("ENTRY_MISSING", 1)])
