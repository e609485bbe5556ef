"""Batches, findings, crashes and waits of the shared engine, on a real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from lockstep.type.v1 import outcome_pb2
from lockstep_kit import failpoints
from lockstep_kit.convert import outcome_from_pb, vote_from_pb
from lockstep_kit.db import Database
from lockstep_kit.failpoints import FailpointRaised
from lockstep_kit.fence import Epoch, Finding, Phase
from lockstep_kit.participant import convert, store
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Completion, PlanOutcome
from lockstep_kit.participant.records import Answer, Verdict
from lockstep_kit.participant.settings import ParticipantSettings
from lockstep_kit.plan import Journal, LegKind
from lockstep_kit.statements import OutcomeKind
from lockstep_testkit import commands, factories
from lockstep_testkit.factories import PlanCase, delivery_versus_payment, key_of, registry_of
from lockstep_testkit.scripted import NO, ScriptedOperations

if TYPE_CHECKING:
    Bench = Any


#: Longer than a wait may be by the settings: an answer that comes sooner was not waited for to the end.
PATIENCE_SECONDS = 120.0


@pytest.fixture
def armed() -> Iterator[Any]:
    yield failpoints.arm
    failpoints.arm("")


async def test_whole_life_in_batches(bench: Bench, operations: ScriptedOperations) -> None:
    """A batch of many plans' legs is prepared, executed and answered in the order asked, in one transaction each."""
    operations.at_once = True
    plans = [delivery_versus_payment() for _ in range(40)]
    voted = await bench.send(*(convert.read_prepare(commands.prepare(plan, bench.LEG)) for plan in plans))
    assert [answer.plan_id for answer in voted] == [plan.plan_id for plan in plans]
    assert {answer.verdict for answer in voted} == {Verdict.DONE}
    assert operations.wakes == 1
    done = await bench.send(*(bench.commit_item(plan) for plan in plans))
    assert {answer.verdict for answer in done} == {Verdict.DONE}
    async with bench.database.as_owner() as owner:
        assert await owner.fetchval("select count(distinct xmin::text) from participant_leg") == 1
    assert [sequence for sequence, _, _ in await bench.log()] == list(range(1, 161))


async def test_replay_returns_stored_bytes(bench: Bench) -> None:
    """What was signed is answered byte for byte for ever, and a replay wakes nothing and numbers nothing."""
    plan = await bench.reach(Phase.COMMITTED)
    row, log, works, wakes = await bench.row(plan), await bench.log(), len(bench.operations.begun), bench.operations.wakes
    for answer in (await bench.prepare(plan), await bench.commit(plan)):
        assert answer.record.vote == row["vote"]
        assert answer.record.outcome == row["outcome"]
    assert (await bench.row(plan), await bench.log()) == (row, log)
    assert (len(bench.operations.begun), bench.operations.wakes) == (works, wakes)


async def test_replay_after_signatures_ran_out(bench: Bench) -> None:
    """A replay needs no authority, since it does nothing: the stored answer outlives the signatures of those who asked."""
    plan = await bench.reach(Phase.PREPARED)
    command = commands.prepare(plan, bench.LEG)
    command.make.signature.signature = bytes(64)
    assert (await bench.send(convert.read_prepare(command)))[0].verdict is Verdict.DONE
    unknown = delivery_versus_payment()
    command = commands.prepare(unknown, bench.LEG)
    command.make.signature.signature = bytes(64)
    answer = (await bench.send(convert.read_prepare(command)))[0]
    assert answer.rejection.reason == "GATE_SIGNATURE"
    assert await bench.row(unknown) is None


async def test_no_vote(bench: Bench) -> None:
    """A NO is a signed vote with its reason, and an answer, not an error; Commit after it executes nothing."""
    plan = await bench.reach(Phase.REFUSED)
    row = await bench.row(plan)
    vote = vote_from_pb(outcome_pb2.SignedVote.FromString(row["vote"]))
    assert vote.vote.answer == NO
    assert registry_of().participant_of(vote.signature, vote.vote.signed_bytes(), vote.vote.voted_at) is not None
    assert (await bench.prepare(plan)).verdict is Verdict.REFUSED
    assert (await bench.commit(plan)).verdict is Verdict.REFUSED


@pytest.mark.parametrize(
    ("phase", "finding", "kind"),
    [
        (Phase.PREPARED, Finding.LAPSED, OutcomeKind.REFUSED),
        (Phase.COMMITTING, Finding.REFUSED, OutcomeKind.REFUSED),
        (Phase.COMMITTING, Finding.EXECUTED, OutcomeKind.DONE),
        (Phase.ABORTING, Finding.RELEASED, OutcomeKind.RELEASED),
        (Phase.RELEASED, Finding.EXECUTED, OutcomeKind.DONE),
        (Phase.REFUSED, Finding.EXECUTED, OutcomeKind.DONE),
    ],
)
async def test_outcomes_are_signed(bench: Bench, phase: Phase, finding: Finding, kind: OutcomeKind) -> None:
    """Every finding that ends a leg leaves a signed outcome with the revision of the row."""
    plan = await bench.reach(phase)
    await bench.find(plan, finding)
    row = await bench.row(plan)
    outcome = outcome_from_pb(outcome_pb2.SignedOutcome.FromString(row["outcome"]))
    assert (outcome.outcome.kind, outcome.outcome.revision) == (kind, row["revision"])
    assert outcome.outcome.plan_digest == plan.header.digest
    signer = registry_of().participant_of(outcome.signature, outcome.outcome.signed_bytes(), outcome.outcome.settled_at)
    assert signer is not None
    assert signer.name == "bank-gateway"


async def test_finding_must_be_shown(bench: Bench, engine: ParticipantEngine, db: Database) -> None:
    """A finding without what shows it, or about an unknown leg, is the caller's mistake and rolls its transaction back."""
    plan = await bench.reach(Phase.COMMITTING)
    unknown = delivery_versus_payment()
    for completion in (
        Completion(plan.plan_id, bench.LEG, Finding.EXECUTED),
        Completion(unknown.plan_id, bench.LEG, Finding.RELEASED),
    ):
        with pytest.raises(ValueError, match="finding"):
            async with db.transaction() as tx:
                await engine.complete(tx, [bench.completion(plan, Finding.EXECUTED), completion])
    assert (await bench.row(plan))["phase"] == "COMMITTING"


async def test_trouble_is_told_and_cleared(bench: Bench, engine: ParticipantEngine, db: Database) -> None:
    """Trouble is a change that watchers see; said again it is none; the next finding clears it."""
    plan = await bench.reach(Phase.COMMITTING)
    numbered = len(await bench.log())
    for _ in range(2):
        async with db.transaction() as tx:
            await engine.trouble(tx, plan.plan_id, bench.LEG, "The bank has not answered for an hour.")
    assert len(await bench.log()) == numbered + 1
    assert (await bench.commit(plan)).record.trouble == "The bank has not answered for an hour."
    await bench.find(plan, Finding.EXECUTED)
    assert (await bench.row(plan))["trouble"] == ""


@pytest.mark.parametrize("where", ["before_tx", "in_tx", "after_commit"])
@pytest.mark.parametrize("operation", ["prepare", "commit", "abort"])
async def test_crash_in_the_middle(bench: Bench, armed: Any, operation: str, where: str) -> None:
    """A crash before the commit leaves nothing at all, one after it everything; the command repeated ends the same way."""
    plan = await bench.reach(Phase.PREPARED if operation == "commit" else None)
    before, log = await bench.row(plan), await bench.log()
    armed(f"bank-gateway.{operation}.{where}=raise")
    with pytest.raises(FailpointRaised):
        await getattr(bench, operation)(plan)
    after = await bench.row(plan)
    if where == "after_commit":
        assert after["phase"] in {"PREPARING", "COMMITTING", "ABORTING"}
    else:
        assert (after, await bench.log()) == (before, log)
    assert (await getattr(bench, operation)(plan)).verdict is Verdict.PENDING
    assert len(await bench.log()) == len(log) + 1


async def test_crash_while_completing(bench: Bench, armed: Any) -> None:
    """A finding whose transaction dies was never found; found again, it is numbered once."""
    plan = await bench.reach(Phase.COMMITTING)
    before, log = await bench.row(plan), await bench.log()
    armed("bank-gateway.complete.in_tx=raise")
    with pytest.raises(FailpointRaised):
        await bench.find(plan, Finding.EXECUTED)
    assert (await bench.row(plan), await bench.log()) == (before, log)
    await bench.find(plan, Finding.EXECUTED)
    assert [entry[0] for entry in await bench.log()] == list(range(1, len(log) + 2))


async def test_own_record_fails(bench: Bench, operations: ScriptedOperations) -> None:
    """If the participant cannot record what it is about to do, no leg of the batch has begun."""
    plan = delivery_versus_payment()
    operations.failure = RuntimeError("the participant's own table is full")
    with pytest.raises(RuntimeError):
        await bench.prepare(plan)
    assert await bench.row(plan) is None
    assert await bench.log() == []
    assert operations.wakes == 0


async def test_same_unknown_leg_at_once(bench: Bench, operations: ScriptedOperations) -> None:
    """Many Prepares and Aborts of one unknown leg at the same moment: one begins each phase, the others are answered by the row."""
    for _ in range(5):
        plan = delivery_versus_payment()
        works = len(operations.begun)
        answers = await asyncio.gather(*(bench.prepare(plan) for _ in range(8)), *(bench.abort(plan) for _ in range(2)))
        phases = [work.phase for work in operations.begun[works:]]
        assert phases in ([Phase.PREPARING, Phase.ABORTING], [Phase.ABORTING])
        assert all(answer.verdict is not Verdict.DONE for answer in answers)
        row = await bench.row(plan)
        assert (row["phase"], row["revision"]) == ("ABORTING", len(phases))


async def test_revision_raised_while_a_leg_begins(bench: Bench, engine: ParticipantEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leg that begins at the moment at which its revision is raised begins above it, and its coordinator hears of no error."""
    plan, reached = delivery_versus_payment(), store.lock
    raised = False

    async def lock(*arguments: Any) -> Any:
        nonlocal raised
        found = await reached(*arguments)
        if not raised:
            raised = True
            await engine.get((plan.plan_id, bench.LEG), Epoch(1, 1), known_revision=3)
        return found

    monkeypatch.setattr(store, "lock", lock)
    assert (await bench.prepare(plan)).verdict is Verdict.PENDING
    row = await bench.row(plan)
    assert (row["phase"], row["revision"]) == ("PREPARING", 4)


async def test_batches_in_opposite_orders(bench: Bench) -> None:
    """Batches that name the same legs in opposite orders do not wait for each other in a circle."""
    plans = [await bench.reach(Phase.PREPARED) for _ in range(12)]
    items = [bench.commit_item(plan) for plan in plans]
    results = await asyncio.gather(*(bench.send(*(items if turn % 2 else reversed(items))) for turn in range(8)))
    assert all(answer.verdict is Verdict.PENDING for answers in results for answer in answers)
    assert {(await bench.row(plan))["phase"] for plan in plans} == {"COMMITTING"}


async def waits(bench: Bench, plan: PlanCase) -> asyncio.Task[Answer]:
    """A Prepare that waits for its finding for longer than any machine takes: the row shows that the command has been recorded."""
    bench.engine.settings = bench.engine.settings.model_copy(update={"wait_seconds_max": PATIENCE_SECONDS})
    waiting = asyncio.create_task(bench.prepare(plan, wait=PATIENCE_SECONDS))
    while await bench.row(plan) is None:  # noqa: ASYNC110 - the row shows it, and tells nobody
        await asyncio.sleep(0.01)
    return waiting


async def test_wait_ends_with_the_finding(bench: Bench) -> None:
    """An answer that may wait comes as soon as the leg leaves PENDING, and not before."""
    plan = delivery_versus_payment()
    started = time.monotonic()
    waiting = await waits(bench, plan)
    assert not waiting.done()
    await bench.find(plan, Finding.VOTED_YES)
    assert (await waiting).verdict is Verdict.DONE
    assert time.monotonic() - started < PATIENCE_SECONDS / 2


async def test_wait_is_bounded(bench: Bench) -> None:
    """When the time is over, what stands is answered."""
    started = time.monotonic()
    assert (await bench.prepare(delivery_versus_payment(), wait=0.3)).verdict is Verdict.PENDING
    assert 0.25 < time.monotonic() - started < 60


async def test_drain_ends_waits(bench: Bench, engine: ParticipantEngine) -> None:
    """A process that stops does not hold answers back."""
    waiting = await waits(bench, delivery_versus_payment())
    await engine.drain()
    assert (await asyncio.wait_for(waiting, PATIENCE_SECONDS / 2)).verdict is Verdict.PENDING


async def test_work_survives(bench: Bench, engine: ParticipantEngine, db: Database) -> None:
    """What is under way can be loaded again, whole, page by page: nothing lives only in memory."""
    plans = sorted([await bench.reach(Phase.COMMITTING, delegated=True) for _ in range(3)], key=lambda plan: plan.plan_id)
    await bench.reach(Phase.COMMITTED)
    begun = {work.plan_id: work for work in bench.operations.begun if work.phase is Phase.COMMITTING}
    found = []
    after = None
    async with db.transaction() as tx:
        while page := await engine.working(tx, [Phase.COMMITTING], after=after, limit=2):
            found += page
            after = page[-1].plan_id, page[-1].leg_id
        loaded = await engine.load(tx, [(plan.plan_id, bench.LEG) for plan in plans], lock=True)
    assert found == loaded == [begun[plan.plan_id] for plan in plans]
    assert found[0].key == plans[0].key(bench.LEG)
    assert found[0].not_after == plans[0].header.deadline
    with pytest.raises(ValueError, match="still owed"):
        async with db.connection() as connection:
            await engine.working(connection, [Phase.COMMITTED])


async def test_work_that_has_gone_on_is_left_out(bench: Bench, engine: ParticipantEngine, db: Database) -> None:
    """What was found owing, and was seen to by another replica before it is loaded, is loaded by nobody who asks for what owes."""
    answered, owing = await bench.reach(Phase.PREPARED), await bench.reach(Phase.COMMITTING, delegated=True)
    legs = [(plan.plan_id, bench.LEG) for plan in (answered, owing)]
    async with db.connection() as connection:
        assert len(await engine.load(connection, legs)) == 2
        found = await engine.load(connection, legs, phases=(Phase.PREPARING, Phase.COMMITTING))
        assert await engine.load(connection, [], phases=(Phase.PREPARING,)) == []
    assert [each.plan_id for each in found] == [owing.plan_id]


async def test_raised_fence_of_unknown_leg(bench: Bench, engine: ParticipantEngine) -> None:
    """A fence that was raised before any command bars older owners, lets newer ones pass, and is no leg."""
    plan = delivery_versus_payment()
    leg = plan.plan_id, bench.LEG
    assert await engine.get(leg, Epoch(3, 1)) is None
    assert await engine.get(leg, Epoch(2, 9)) is None
    assert await engine.page(0, 10) == []
    assert await bench.log() == []
    assert (await bench.prepare(plan, epoch=Epoch(2, 9))).rejection.reason == "EPOCH_STALE"
    assert (await bench.prepare(plan, epoch=Epoch(3, 1))).verdict is Verdict.PENDING
    row = await bench.row(plan)
    assert (row["epoch_generation"], row["epoch_counter"], row["revision"]) == (3, 1, 1)


async def test_a_revision_that_was_seen_before_a_restore(bench: Bench, engine: ParticipantEngine) -> None:
    """What a leg reports after its fence was raised stands above every revision that was seen of it, whether it is still known or not."""
    lost, kept = delivery_versus_payment(), await bench.reach(Phase.PREPARED)
    assert await engine.get((lost.plan_id, bench.LEG), Epoch(2, 1), 7) is None
    assert await engine.page(0, 10) != []
    assert (await bench.prepare(lost, epoch=Epoch(2, 1))).verdict is Verdict.PENDING
    row = await bench.row(lost)
    assert (row["phase"], row["revision"]) == ("PREPARING", 8)
    found = await engine.get((kept.plan_id, bench.LEG), Epoch(2, 1), 9)
    assert found is not None
    assert (found.fence.phase, found.fence.revision) == (Phase.PREPARED, 9)
    stale = await engine.get((kept.plan_id, bench.LEG), Epoch(1, 9), 20)
    assert stale is not None
    assert stale.fence == found.fence


async def test_certificate_with_a_forged_part(bench: Bench, operations: ScriptedOperations) -> None:
    """A prepared leg is not executed on a certificate that another key signed, and nothing of its row changes."""
    plan = await bench.reach(Phase.PREPARED)
    before = await bench.row(plan)
    forged = plan.certificate(plan.vote("tokens", signed_by="alice"))
    answer = await bench.commit(plan, forged, epoch=Epoch(9, 9))
    assert answer.rejection.reason == "VOTE_SIGNATURE"
    assert await bench.row(plan) == before


async def test_evidence_leg_is_told_how_to_close(db: Database, settings: ParticipantSettings) -> None:
    """An evidence leg gets its closing with Commit and Abort, and again when it is loaded."""
    operations = ScriptedOperations(kinds=(LegKind.JOURNAL,), at_once=False)
    engine = ParticipantEngine(
        db=db,
        name="event-journal",
        signing_key=key_of("event-journal"),
        registry=registry_of(),
        operations=operations,
        settings=settings,
    )
    plan = factories.plan_of([factories.leg_of("journal", Journal())])
    item = convert.read_abort(commands.abort(plan, "journal"))
    await engine.execute(item.command, [item], 0)
    closing = operations.begun[0].closing
    assert closing is not None
    assert closing.outcome is PlanOutcome.ABORTED
    async with db.connection() as connection:
        assert (await engine.load(connection, [(plan.plan_id, plan.legs[0].leg_id)]))[0].closing == closing


async def test_key_that_nobody_could_verify(db: Database, settings: ParticipantSettings) -> None:
    """A participant whose key its registry does not list refuses to start."""
    with pytest.raises(ValueError, match="does not list"):
        ParticipantEngine(
            db=db,
            name="notary",
            signing_key=key_of("bank-gateway"),
            registry=registry_of(),
            operations=ScriptedOperations(),
            settings=settings,
        )


def test_every_failpoint_is_declared(engine: ParticipantEngine) -> None:
    """A campaign finds every failpoint of a participant by name."""
    names = {name for name in failpoints.failpoint_names() if name.startswith("bank-gateway.")}
    wheres = {
        f"bank-gateway.{each}.{where}"
        for each in ("prepare", "commit", "abort")
        for where in ("before_tx", "in_tx", "after_commit")
    }
    assert names >= wheres | {"bank-gateway.complete.in_tx"}
