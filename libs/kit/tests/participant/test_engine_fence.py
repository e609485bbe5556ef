"""The fence through the engine: every phase under every command, from the outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from lockstep.type.v1 import outcome_pb2
from lockstep_kit.certificate import DeadlinePassed, Decision
from lockstep_kit.convert import outcome_from_pb, vote_from_pb
from lockstep_kit.fence import FINDINGS, Command, Epoch, Finding, Phase
from lockstep_kit.participant.records import Answer, Verdict
from lockstep_kit.participant.rules import Standing, standing
from lockstep_kit.statements import OutcomeKind
from lockstep_testkit.databases import Databases, TestDatabase
from lockstep_testkit.factories import PlanCase, delivery_versus_payment

if TYPE_CHECKING:
    Bench = Any

PENDING, DONE, REFUSED, REJECTED = Verdict.PENDING, Verdict.DONE, Verdict.REFUSED, Verdict.REJECTED

#: (phase, command) -> verdict, reason, phase after. Written out by hand, so that a slip in the fence's table is seen.
EXPECTED: dict[tuple[Phase | None, Command], tuple[Verdict, str, Phase | None]] = {
    (None, Command.PREPARE): (PENDING, "", Phase.PREPARING),
    (None, Command.COMMIT): (REJECTED, "LEG_UNKNOWN", None),
    (None, Command.ABORT): (PENDING, "", Phase.ABORTING),
    (None, Command.REVERSE): (REJECTED, "LEG_UNKNOWN", None),
    (Phase.PREPARING, Command.PREPARE): (PENDING, "", Phase.PREPARING),
    (Phase.PREPARING, Command.COMMIT): (REJECTED, "LEG_NOT_PREPARED", Phase.PREPARING),
    (Phase.PREPARING, Command.ABORT): (PENDING, "", Phase.ABORTING),
    (Phase.PREPARING, Command.REVERSE): (REJECTED, "LEG_NOT_EXECUTED", Phase.PREPARING),
    (Phase.PREPARED, Command.PREPARE): (DONE, "", Phase.PREPARED),
    (Phase.PREPARED, Command.COMMIT): (PENDING, "", Phase.COMMITTING),
    (Phase.PREPARED, Command.ABORT): (PENDING, "", Phase.ABORTING),
    (Phase.PREPARED, Command.REVERSE): (REJECTED, "LEG_NOT_EXECUTED", Phase.PREPARED),
    (Phase.REFUSED, Command.PREPARE): (REFUSED, "", Phase.REFUSED),
    (Phase.REFUSED, Command.COMMIT): (REFUSED, "", Phase.REFUSED),
    (Phase.REFUSED, Command.ABORT): (PENDING, "", Phase.ABORTING),
    (Phase.REFUSED, Command.REVERSE): (REJECTED, "LEG_NOT_EXECUTED", Phase.REFUSED),
    (Phase.COMMITTING, Command.PREPARE): (DONE, "", Phase.COMMITTING),
    (Phase.COMMITTING, Command.COMMIT): (PENDING, "", Phase.COMMITTING),
    (Phase.COMMITTING, Command.ABORT): (REJECTED, "LEG_DECIDED", Phase.COMMITTING),
    (Phase.COMMITTING, Command.REVERSE): (REJECTED, "LEG_NOT_EXECUTED", Phase.COMMITTING),
    (Phase.COMMITTED, Command.PREPARE): (DONE, "", Phase.COMMITTED),
    (Phase.COMMITTED, Command.COMMIT): (DONE, "", Phase.COMMITTED),
    (Phase.COMMITTED, Command.ABORT): (REJECTED, "LEG_COMMITTED", Phase.COMMITTED),
    (Phase.COMMITTED, Command.REVERSE): (PENDING, "", Phase.REVERSING),
    (Phase.ABORTING, Command.PREPARE): (REJECTED, "LEG_ABORTING", Phase.ABORTING),
    (Phase.ABORTING, Command.COMMIT): (REJECTED, "LEG_ABORTING", Phase.ABORTING),
    (Phase.ABORTING, Command.ABORT): (PENDING, "", Phase.ABORTING),
    (Phase.ABORTING, Command.REVERSE): (REJECTED, "LEG_NOT_EXECUTED", Phase.ABORTING),
    (Phase.RELEASED, Command.PREPARE): (REJECTED, "LEG_RELEASED", Phase.RELEASED),
    (Phase.RELEASED, Command.COMMIT): (REJECTED, "LEG_RELEASED", Phase.RELEASED),
    (Phase.RELEASED, Command.ABORT): (DONE, "", Phase.RELEASED),
    (Phase.RELEASED, Command.REVERSE): (REJECTED, "LEG_NOT_EXECUTED", Phase.RELEASED),
    (Phase.REVERSING, Command.PREPARE): (REJECTED, "LEG_REVERSING", Phase.REVERSING),
    (Phase.REVERSING, Command.COMMIT): (REJECTED, "LEG_REVERSING", Phase.REVERSING),
    (Phase.REVERSING, Command.ABORT): (REJECTED, "LEG_COMMITTED", Phase.REVERSING),
    (Phase.REVERSING, Command.REVERSE): (PENDING, "", Phase.REVERSING),
    (Phase.REVERSED, Command.PREPARE): (REJECTED, "LEG_REVERSED", Phase.REVERSED),
    (Phase.REVERSED, Command.COMMIT): (REJECTED, "LEG_REVERSED", Phase.REVERSED),
    (Phase.REVERSED, Command.ABORT): (REJECTED, "LEG_COMMITTED", Phase.REVERSED),
    (Phase.REVERSED, Command.REVERSE): (DONE, "", Phase.REVERSED),
}
CASES = [pytest.param(phase, command, id=f"{phase}-{command}") for phase, command in EXPECTED]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database(databases: Databases) -> AsyncIterator[TestDatabase]:
    """One database for all: every test has plans of its own, and none counts."""
    made = await databases.create("kit_participant", Path(__file__).parent / "migrations")
    yield made
    await databases.drop(made)


async def send(bench: Bench, plan: PlanCase, command: Command, **changes: Any) -> Answer:
    match command:
        case Command.PREPARE:
            answer = await bench.prepare(plan, **changes)
        case Command.COMMIT:
            # The vote of another participant: nothing to restore a row from.
            stranger = plan.certificate(plan.vote(bench.LEG, participant="notary"))
            answer = await bench.commit(plan, stranger if await bench.row(plan) is None else None, **changes)
        case Command.ABORT:
            answer = await bench.abort(plan, **changes)
        case Command.REVERSE:
            answer = await bench.reverse(plan, **changes)
    assert isinstance(answer, Answer)
    return answer


def reason(answer: Answer) -> str:
    return "" if answer.rejection is None else answer.rejection.reason


@pytest.mark.parametrize(("phase", "command"), CASES)
async def test_every_phase_under_every_command(bench: Bench, phase: Phase | None, command: Command) -> None:
    """A command begins, replays or is Rejected as the fence says; what does not begin changes nothing of the row."""
    plan = await bench.reach(phase)
    before = await bench.row(plan)
    works = len(bench.operations.begun)
    answer = await send(bench, plan, command)
    verdict, why, after = EXPECTED[phase, command]
    row = await bench.row(plan)
    assert (answer.verdict, reason(answer), row and row["phase"]) == (verdict, why, after)
    begins = after is not phase
    assert len(bench.operations.begun) == works + begins
    if begins:
        assert row is not None
        assert row["revision"] == (before["revision"] if before else 0) + 1
        assert bench.operations.begun[-1].left is phase
    else:
        assert row == before


@pytest.mark.parametrize(("phase", "command"), [case for case in CASES if case.values[0] is not None])
async def test_stale_epoch(bench: Bench, phase: Phase, command: Command) -> None:
    """In no phase does a command of an older owner change anything, once a newer one has spoken (I7)."""
    plan = await bench.reach(phase)
    await bench.engine.get((plan.plan_id, bench.LEG), Epoch(2, 1))
    before = await bench.row(plan)
    answer = await send(bench, plan, command, epoch=Epoch(1, 9))
    assert (answer.verdict, reason(answer)) == (REJECTED, "EPOCH_STALE")
    assert await bench.row(plan) == before


@pytest.mark.parametrize(("phase", "command"), [case for case in CASES if case.values[0] is not None])
async def test_other_digest(bench: Bench, phase: Phase, command: Command) -> None:
    """In no phase does a command for the leg under another lock change anything, and it raises no epoch."""
    plan = await bench.reach(phase)
    before = await bench.row(plan)
    other = plan.with_lock_of(delivery_versus_payment())
    answer = await send(bench, other, command, epoch=Epoch(3, 1))
    assert (answer.verdict, reason(answer)) == (REJECTED, "DIGEST_MISMATCH")
    assert await bench.row(plan) == before


@pytest.mark.parametrize(("phase", "command"), [case for case in CASES if case.values[0] is not None])
async def test_newer_epoch_is_kept(bench: Bench, phase: Phase, command: Command) -> None:
    """A newer owner's epoch is stored whatever else becomes of its command: the older owner is fenced off from then on."""
    plan = await bench.reach(phase)
    await send(bench, plan, command, epoch=Epoch(1, 2))
    row = await bench.row(plan)
    assert row is not None
    assert (row["epoch_generation"], row["epoch_counter"]) == (1, 2)
    stale = await send(bench, plan, Command.ABORT, epoch=Epoch(1, 1))
    assert reason(stale) == "EPOCH_STALE"


async def test_prepare_comes_late(bench: Bench, operations: Any) -> None:
    """Prepare after prepare_by, on the database's clock, is Rejected and leaves nothing."""
    plan = delivery_versus_payment()
    answer = await bench.prepare(plan, prepare_by=plan.header.deadline - timedelta(hours=2))
    assert (answer.verdict, reason(answer)) == (REJECTED, "PREPARE_LATE")
    assert await bench.row(plan) is None


async def test_delegated_commit_comes_late(bench: Bench) -> None:
    """A delegated Commit after not_after is Rejected and begins nothing; the leg can still be released."""
    plan = await bench.reach(Phase.PREPARED)
    delegated = plan.certificate(decision=Decision.DELEGATED, delegated=bench.LEG)
    answer = await bench.commit(plan, delegated, not_after=plan.header.deadline - timedelta(hours=2))
    assert (answer.verdict, reason(answer)) == (REJECTED, "COMMIT_LATE")
    row = await bench.row(plan)
    assert row is not None
    assert row["phase"] == "PREPARED"
    assert (await bench.abort(plan)).verdict is PENDING


@pytest.mark.parametrize(("finding", "kind"), [(Finding.RELEASED, OutcomeKind.RELEASED), (Finding.EXECUTED, OutcomeKind.DONE)])
async def test_delegated_leg_is_told_to_abort(bench: Bench, finding: Finding, kind: OutcomeKind) -> None:
    """A delegated leg may be told to abort while it commits; the outside world says which of the two happened."""
    plan = await bench.reach(Phase.COMMITTING, delegated=True)
    assert (await bench.abort(plan)).verdict is PENDING
    await bench.find(plan, finding)
    answer = await bench.abort(plan)
    assert answer.record is not None
    assert answer.record.outcome is not None
    assert outcome_from_pb(outcome_pb2.SignedOutcome.FromString(answer.record.outcome)).outcome.kind is kind
    assert (answer.verdict, reason(answer)) == ((DONE, "") if finding is Finding.RELEASED else (REJECTED, "LEG_COMMITTED"))


async def test_restored_from_own_yes(bench: Bench, operations: Any) -> None:
    """Commit of a leg that a restore has lost is begun on this participant's own signed YES, and goes on from the revision of that vote."""
    lost = await bench.reach(Phase.PREPARED)
    before = await bench.row(lost)
    assert before is not None
    vote = vote_from_pb(outcome_pb2.SignedVote.FromString(before["vote"]))
    async with bench.database.as_owner() as owner:
        await owner.execute("delete from participant_leg where plan_id = $1", lost.plan_id)
    answer = await bench.commit(lost, lost.certificate(vote))
    assert answer.verdict is PENDING
    row = await bench.row(lost)
    assert row is not None
    assert (row["phase"], row["vote"], row["revision"]) == ("COMMITTING", before["vote"], before["revision"] + 1)
    assert operations.begun[-1].left is None
    assert operations.begun[-1].vote == vote
    await bench.find(lost, Finding.EXECUTED)
    assert (await bench.commit(lost, lost.certificate(vote))).verdict is DONE


async def test_not_restored_from_forged_yes(bench: Bench) -> None:
    """A YES in this participant's name that its key did not sign restores nothing."""
    plan = delivery_versus_payment()
    answer = await bench.commit(plan, plan.certificate(plan.vote(bench.LEG, signed_by="dlt-gateway")))
    assert (answer.verdict, reason(answer)) == (REJECTED, "LEG_UNKNOWN")
    assert await bench.row(plan) is None


async def test_tombstone_bars_and_restores_nothing(bench: Bench) -> None:
    """A leg that was barred before it was known is neither prepared nor restored, even by its own YES."""
    plan = await bench.reach(Phase.RELEASED)
    assert reason(await bench.prepare(plan)) == "LEG_RELEASED"
    assert reason(await bench.commit(plan)) == "LEG_RELEASED"


async def test_deadline_is_this_participants(bench: Bench) -> None:
    """A deadline releases a leg once it has passed on this participant's own clock, and not before."""
    plan = await bench.reach(Phase.PREPARED)
    assert reason(await bench.abort(plan, DeadlinePassed())) == "ABORT_DEADLINE"
    row = await bench.row(plan)
    assert row is not None
    assert row["phase"] == "PREPARED"


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("finding", list(Finding))
async def test_findings_without_a_place(bench: Bench, phase: Phase, finding: Finding) -> None:
    """A finding that repeats or was overtaken changes nothing; one that contradicts changes no phase and becomes the leg's trouble."""
    if (phase, finding) in FINDINGS:
        return
    plan = await bench.reach(phase)
    before = await bench.row(plan)
    await bench.find(plan, finding)
    after = await bench.row(plan)
    if standing(phase, finding) is Standing.CONTRADICTS:
        assert finding in after["trouble"]
        assert after["revision"] == before["revision"] + 1
        await bench.find(plan, finding)
        assert await bench.row(plan) == after
        unchanged = {"trouble", "revision"}
    else:
        unchanged = set()
    assert {k: v for k, v in after.items() if k not in unchanged} == {k: v for k, v in before.items() if k not in unchanged}
