"""What somebody does to the journal who has every right on its database: found and named, by VerifyPlan and by the audit of the whole."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from journal_world import CALL_SECONDS, JournalWorld, event_of

from event_journal.chain import GENESIS, link
from event_journal.payload_keys import PayloadVault, read_vault
from event_journal.payload_store import entries_of
from lockstep.journal.v1 import journal_service_pb2
from lockstep.type.v1.outcome_pb2 import Epoch
from lockstep_kit.convert import vote_from_pb
from lockstep_kit.ids import PlanId
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import Refusal
from lockstep_testkit.factories import PlanCase, delivery_versus_payment
from lockstep_testkit.participants import ParticipantProcess

LAST = 4


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(participant_for: Callable[..., Awaitable[ParticipantProcess]], payload_key_file: Path) -> ParticipantProcess:
    """A journal of its own: what is done to it spoils nobody else's."""
    return await participant_for("event-journal", payload_key_files=[str(payload_key_file)])


@pytest_asyncio.fixture(loop_scope="session")
async def intruder(service: ParticipantProcess, superuser_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A superuser, who has taken away every trigger and constraint that stands in the way."""
    connection = await asyncpg.connect(urlsplit(superuser_url)._replace(path=f"/{service.database.name}").geturl())
    for table in ("journal_entry", "journal_chain"):
        await connection.execute(f"alter table {table} disable trigger all")
    try:
        yield connection
    finally:
        await connection.close()


async def plan_of(world: JournalWorld) -> PlanCase:
    plan = delivery_versus_payment()
    await world.append(*(event_of(plan, sequence) for sequence in range(1, LAST + 1)))
    return plan


async def audited(service: ParticipantProcess) -> tuple[int, dict[str, int], set[tuple[str, int, str]]]:
    """The command's exit status, what it read, and what it found: plan, sequence, rule; of the log the position in the sequence's place."""
    command = (sys.executable, "-m", "event_journal.audit", "--config", service.supervisor.program(service.name).command[-1])
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    read, *wrong = (json.loads(line) for line in output.splitlines())
    assert read["wrong"] == len(wrong)
    return process.returncode or 0, read, {(each["plan_id"], each["sequence"] or each["position"], each["rule"]) for each in wrong}


async def position_of(intruder: asyncpg.Connection[asyncpg.Record], plan_id: str, sequence: int) -> int:
    """Where an entry stands in the log over all chains."""
    statement = "select position from journal_entry where plan_id = $1 and sequence = $2"
    found: int = await intruder.fetchval(statement, plan_id, sequence)
    return found


async def found_by_both(world: JournalWorld, service: ParticipantProcess, plan_id: str, *rules: tuple[int, str]) -> None:
    """VerifyPlan and the audit name these, and nothing else of this plan."""
    verified = await world.verify(plan_id)
    assert not verified.valid
    # What the tree says of it besides, once it has the entries, is another matter: test_log_tampering.
    of_the_tree = ("LEAF_", "CHECKPOINT_")
    assert {(each.sequence, each.rule) for each in verified.findings if not each.rule.startswith(of_the_tree)} == set(rules)
    status, _, wrong = await audited(service)
    assert status == 1
    assert {(sequence, rule) for plan, sequence, rule in wrong if plan == plan_id} == set(rules)


async def test_an_untouched_journal_is_right(world: JournalWorld, service: ParticipantProcess) -> None:
    """The audit finds nothing wrong with what was only ever appended: open chains, a sealed one, a fence without entries."""
    await plan_of(world)
    sealed, fenced = delivery_versus_payment(), delivery_versus_payment()
    await world.append(*(event_of(sealed, sequence) for sequence in (1, 2, 3)))
    await world.harness.commit(sealed, (await world.harness.prepare(sealed)).report)
    assert (await world.verify(sealed.plan_id)).sealed
    await world.writer.RaiseFence(
        journal_service_pb2.RaiseFenceRequest(plan_id=fenced.plan_id, epoch=Epoch(generation=2, counter=1)), timeout=CALL_SECONDS
    )
    status, read, wrong = await audited(service)
    assert (status, wrong) == (0, set())
    assert 0 <= read.pop("newest_checkpoint") <= LAST + 4
    assert read == {"plans": 3, "entries": LAST + 4, "wrong": 0}


CHANGES = [
    ("update journal_entry set payload = '{\"version\":1}' where plan_id = $1 and sequence = 2", {(2, "ENTRY_CHANGED")}),
    (
        "update journal_entry set signature = decode(repeat('01', 64), 'hex') where plan_id = $1 and sequence = 2",
        {(2, "SIGNATURE_INVALID")},
    ),
    (
        "update journal_entry set previous_hash = decode(repeat('01', 32), 'hex') where plan_id = $1 and sequence = 2",
        {(2, "LINK_BROKEN"), (2, "ENTRY_CHANGED")},
    ),
    ("update journal_entry set sequence = 9 where plan_id = $1 and sequence = 4", {(9, "SEQUENCE_GAP"), (9, "ENTRY_CHANGED")}),
    ("update journal_entry set actor = 'mallory' where plan_id = $1 and sequence = 2", {(2, "ENTRY_CHANGED")}),
    ("update journal_entry set actor_role = 'auditor' where plan_id = $1 and sequence = 2", {(2, "ENTRY_CHANGED")}),
    ("update journal_entry set event_id = 'x' where plan_id = $1 and sequence = 2", {(2, "ENTRY_CHANGED")}),
    ("update journal_entry set type = 'leg.refused' where plan_id = $1 and sequence = 2", {(2, "ENTRY_CHANGED")}),
    ("update journal_entry set event_time = event_time + interval '1 s' where plan_id = $1 and sequence = 3", {(3, "ENTRY_CHANGED")}),
    ("update journal_entry set key_id = '0011223344556677' where plan_id = $1 and sequence = 2", {(2, "ENTRY_CHANGED"), (2, "SIGNATURE_INVALID")}),
    ("delete from journal_entry where plan_id = $1 and sequence = 4", {(3, "HEAD_DIFFERS")}),
    ("update journal_chain set sealed = true where plan_id = $1", {(4, "HEAD_DIFFERS")}),
    ("delete from journal_chain where plan_id = $1", {(4, "HEAD_DIFFERS")}),
    ("delete from journal_entry where plan_id = $1", {(0, "CHAIN_EMPTY"), (0, "HEAD_DIFFERS")}),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "rules"), CHANGES)
async def test_a_change_is_named(
    world: JournalWorld,
    service: ParticipantProcess,
    intruder: asyncpg.Connection[asyncpg.Record],
    statement: str,
    rules: set[tuple[int, str]],
) -> None:
    """Whatever is changed of an entry or its head is found where it was done, by the rule that it breaks."""
    plan = await plan_of(world)
    assert (await world.verify(plan.plan_id)).valid
    await intruder.execute(statement, plan.plan_id)
    await found_by_both(world, service, plan.plan_id, *rules)


async def test_an_entry_taken_out_of_the_middle(
    world: JournalWorld, service: ParticipantProcess, intruder: asyncpg.Connection[asyncpg.Record]
) -> None:
    """An entry that is gone leaves a gap and a broken link behind it, and a hole in the log."""
    plan = await plan_of(world)
    gone = await position_of(intruder, plan.plan_id, 2)
    await intruder.execute("delete from journal_entry where plan_id = $1 and sequence = 2", plan.plan_id)
    await found_by_both(
        world, service, plan.plan_id, (3, "SEQUENCE_GAP"), (3, "LINK_BROKEN"), (4, "SEQUENCE_GAP"), (3, "HEAD_DIFFERS")
    )  # fmt: skip
    assert ("", gone, "ENTRY_MISSING") in (await audited(service))[2]


async def test_two_entries_swapped(
    world: JournalWorld, service: ParticipantProcess, intruder: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Two entries that changed places say what was not signed, and break the links around them."""
    plan = await plan_of(world)
    for change in ("sequence + 100 where sequence in (2, 3)", "105 - sequence where sequence > 100"):
        value, where = change.split(" where ")
        await intruder.execute(f"update journal_entry set sequence = {value} where plan_id = $1 and {where}", plan.plan_id)
    changed = ((place, rule) for place in (2, 3) for rule in ("ENTRY_CHANGED", "LINK_BROKEN"))
    await found_by_both(world, service, plan.plan_id, *changed, (4, "LINK_BROKEN"))


async def test_a_whole_plan_removed(
    world: JournalWorld, service: ParticipantProcess, intruder: asyncpg.Connection[asyncpg.Record]
) -> None:
    """A plan of which nothing is left is missed by the log, which has a hole, and by the vote that the journal gave on it."""
    plan, other = await plan_of(world), await plan_of(world)
    await world.harness.prepare(plan)
    first = await position_of(intruder, plan.plan_id, 1)
    for table in ("journal_entry", "journal_chain"):
        await intruder.execute(f"delete from {table} where plan_id = $1", plan.plan_id)
    _, _, wrong = await audited(service)
    assert {("", first, "ENTRY_MISSING"), (plan.plan_id, 0, "PLAN_MISSING")} <= wrong
    assert not any(each[0] == other.plan_id for each in wrong)


async def test_a_chain_signed_anew(
    world: JournalWorld, service: ParticipantProcess, intruder: asyncpg.Connection[asyncpg.Record], payload_key_file: Path
) -> None:
    """A chain that is rewritten as a whole, with its head, consistent in itself, is signed by a key that nobody trusts: every entry of it is named."""
    plan = await plan_of(world)
    await rewrite(intruder, plan.plan_id, SigningKey(bytes(range(32))), read_vault([payload_key_file]))
    await found_by_both(world, service, plan.plan_id, *((place, "SIGNATURE_INVALID") for place in range(1, LAST + 1)))


async def rewrite(intruder: asyncpg.Connection[asyncpg.Record], plan_id: PlanId, key: SigningKey, vault: PayloadVault) -> None:
    """Sign a chain anew, from its first entry to its head."""
    previous = GENESIS
    rows = await intruder.fetch("select * from journal_entry where plan_id = $1 order by sequence", plan_id)
    for row, stood in zip(rows, await entries_of(intruder, rows, vault), strict=True):
        entry = link(stood.event, previous, key)
        previous = entry.entry_hash
        await intruder.execute(
            """
            update journal_entry set previous_hash = $3, canonical_bytes = $4, entry_hash = $5, key_id = $6, signature = $7
            where plan_id = $1 and sequence = $2
            """,
            plan_id, row["sequence"], entry.previous_hash, entry.canonical_bytes, entry.entry_hash, entry.signature.key_id,
            entry.signature.octets,
        )  # fmt: skip
    await intruder.execute("update journal_chain set head_hash = $2 where plan_id = $1", plan_id, previous)


async def test_a_chain_that_does_not_verify_gets_no_vote(world: JournalWorld, intruder: asyncpg.Connection[asyncpg.Record]) -> None:
    """The journal votes NO on a plan whose chain was tampered with."""
    plan = await plan_of(world)
    await intruder.execute("update journal_entry set actor = 'mallory' where plan_id = $1 and sequence = 2", plan.plan_id)
    vote = vote_from_pb((await world.harness.prepare(plan)).report.vote).vote
    assert isinstance(vote.answer, Refusal)
    assert vote.answer.reason == "JOURNAL_CHAIN_INVALID"
