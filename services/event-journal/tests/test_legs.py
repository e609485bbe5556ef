"""The journal as a participant: it votes when a plan's chain stands, and seals it when everything before the seal stands."""

from __future__ import annotations

import asyncio

import pytest
from journal_world import APPENDED, SEALED, JournalWorld, closing_at, event_of

from lockstep.participant.v1 import leg_pb2
from lockstep_kit.convert import outcome_from_pb, vote_from_pb
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.statements import JournalEvidence, OutcomeKind, Refusal
from lockstep_testkit import commands
from lockstep_testkit.factories import PlanCase, delivery_versus_payment
from lockstep_testkit.participant_conformance import (
    CALL_SECONDS,
    DONE,
    PENDING,
    REFUSED,
    ParticipantConformance,
    ParticipantHarness,
)
from lockstep_testkit.participants import ParticipantProcess


class TestConformance(ParticipantConformance):
    @pytest.fixture
    def harness(self, world: JournalWorld) -> ParticipantHarness:
        return world.harness


async def refusal(world: JournalWorld, plan: PlanCase) -> Refusal:
    """Why the journal votes NO."""
    answer = await world.harness.prepare(plan)
    assert answer.verdict == REFUSED, answer
    signed = vote_from_pb(answer.report.vote)
    voter = world.harness.registry.participant_of(signed.signature, signed.vote.signed_bytes(), signed.vote.voted_at)
    assert voter is not None
    assert isinstance(signed.vote.answer, Refusal)
    return signed.vote.answer


async def test_waits_for_the_plan(world: JournalWorld) -> None:
    """Prepare of a plan whose chain is not there yet waits, and is answered when plan.created arrives."""
    plan = delivery_versus_payment()
    response = await world.harness.stub.Prepare(commands.prepare_request(commands.prepare(plan, "journal")), timeout=CALL_SECONDS)
    assert response.answers[0].verdict == PENDING
    assert (await world.append(event_of(plan, 1)))[0].verdict == APPENDED
    answer = await world.harness.prepare(plan)
    promise = vote_from_pb(answer.report.vote).vote.promise
    assert promise is not None
    assert promise.evidence == JournalEvidence(1, (await world.head(plan.plan_id))["head_hash"], sealed=False)


async def test_prepare_and_append_at_once(world: JournalWorld) -> None:
    """However Prepare and plan.created overtake one another, the vote comes at once."""
    plans = [delivery_versus_payment() for _ in range(30)]

    async def both(plan: PlanCase, delay: float) -> None:
        command = commands.prepare(plan, "journal")
        sent = asyncio.ensure_future(world.harness.stub.Prepare(commands.prepare_request(command, wait=10), timeout=CALL_SECONDS))
        await asyncio.sleep(delay)
        await world.append(event_of(plan, 1))
        answer = (await sent).answers[0]
        # On a machine that takes longer for all of them than a Prepare may wait, it is asked again.
        assert (answer if answer.verdict != PENDING else await world.harness.prepare(plan)).verdict == DONE

    await asyncio.gather(*(both(plan, number / 1000) for number, plan in enumerate(plans)))


async def test_another_plan_with_its_id(world: JournalWorld) -> None:
    """A chain that was opened for another plan is a NO."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1, digest="00" * 32))
    assert (await refusal(world, plan)).reason == "JOURNAL_PLAN_DIFFERS"


@pytest.mark.parametrize(
    "statement",
    [
        "update journal_entry set payload = '{\"n\":7}' where plan_id = $1 and sequence = 2",
        "update journal_entry set actor = 'mallory' where plan_id = $1 and sequence = 3",
        "delete from journal_entry where plan_id = $1 and sequence = 3",
        "delete from journal_entry where plan_id = $1",
    ],
)
async def test_a_tampered_chain(world: JournalWorld, statement: str) -> None:
    """A chain that somebody changed behind the journal's back is a NO."""
    plan = await world.harness.plan()
    await world.tamper(statement, plan_id=plan.plan_id)
    assert (await refusal(world, plan)).reason == "JOURNAL_CHAIN_INVALID"


async def test_a_frozen_chain(world: JournalWorld) -> None:
    """A chain that a conflict has frozen is a NO."""
    plan = await world.harness.plan()
    await world.append(event_of(plan, 3, type="leg.refused"))
    assert (await refusal(world, plan)).reason == "JOURNAL_CHAIN_FROZEN"


@pytest.mark.parametrize("outcome", [PlanOutcome.COMMITTED, PlanOutcome.ABORTED])
@pytest.mark.parametrize("restarted", [False, True])
async def test_seals_when_all_is_there(
    world: JournalWorld, service: ParticipantProcess, outcome: PlanOutcome, *, restarted: bool
) -> None:
    """The order to close waits for the entries before the seal, over a restart, and seals with exactly the place that was reserved."""
    plan = await world.harness.plan()
    vote = await world.harness.prepare(plan)
    closing = closing_at(plan, 6, outcome)
    if outcome is PlanOutcome.COMMITTED:
        certificate = plan.certificate(vote_from_pb(vote.report.vote))
        command = commands.commit(plan, "journal", certificate, closing=closing)
        pending = await world.harness.send_commit(command, certificate)
    else:
        pending = await world.harness.send_abort(commands.abort(plan, "journal", closing=closing))
    assert pending.verdict == PENDING
    await world.append(event_of(plan, 4))
    if restarted:
        await service.kill()
        await service.restart()
    await world.append(event_of(plan, 5))
    report = await settled(world, plan)
    signed = outcome_from_pb(report.outcome).outcome
    assert signed.kind is (OutcomeKind.DONE if outcome is PlanOutcome.COMMITTED else OutcomeKind.RELEASED)
    entries = await world.entries(plan.plan_id)
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert (entries[-1].type, entries[-1].actor) == ("plan.closed", "event-journal")
    assert outcome.value.encode() in entries[-1].payload
    assert signed.evidence == JournalEvidence(6, entries[-1].entry_hash, sealed=True)
    found = await world.verify(plan.plan_id)
    assert (found.valid, found.sealed, found.entry_count) == (True, True, 6)
    assert (await world.append(event_of(plan, 7)))[0].verdict == SEALED


async def settled(world: JournalWorld, plan: PlanCase) -> leg_pb2.LegReport:
    """The leg, once it is answered."""
    for _ in range(1200):
        report = await world.harness.get(plan)
        assert report is not None
        if report.phase in (leg_pb2.LEG_PHASE_COMMITTED, leg_pb2.LEG_PHASE_RELEASED):
            return report
        await asyncio.sleep(0.05)
    raise AssertionError("the leg is not answered")


async def test_a_place_that_is_taken_calls_a_person(world: JournalWorld) -> None:
    """An order to seal where an entry stands already is never carried out; it says so, and the chain stays open."""
    plan = await world.harness.plan()
    await world.harness.prepare(plan)
    answer = await world.harness.send_abort(commands.abort(plan, "journal", closing=closing_at(plan, 2, PlanOutcome.ABORTED)))
    assert answer.verdict == PENDING
    for _ in range(1200):
        report = await world.harness.get(plan)
        assert report is not None
        if report.trouble:
            break
        await asyncio.sleep(0.05)
    assert report is not None
    assert "ordered at 2" in report.trouble
    assert not (await world.head(plan.plan_id))["sealed"]


async def test_killed_while_it_seals(world: JournalWorld, service: ParticipantProcess) -> None:
    """Killed in the transaction that seals: the chain is sealed once, after the restart."""
    plan = await world.harness.plan()
    await world.harness.prepare(plan)
    command = commands.abort(plan, "journal", closing=closing_at(plan, 4, PlanOutcome.ABORTED))
    await service.dies_at("event-journal.complete.in_tx", lambda: world.harness.send_abort(command))
    answer = await world.harness.settled(lambda: world.harness.send_abort(command))
    assert answer.verdict == DONE
    assert [entry.type for entry in await world.entries(plan.plan_id)].count("plan.closed") == 1
    assert (await world.verify(plan.plan_id)).valid


async def test_more_than_a_page_waits(world: JournalWorld, service: ParticipantProcess) -> None:
    """Legs that nothing can be done for keep no other from being answered at a restart, however many there are."""
    waiting = [delivery_versus_payment() for _ in range(260)]
    for start in range(0, len(waiting), 130):
        batch = [commands.prepare(plan, "journal") for plan in waiting[start : start + 130]]
        await world.harness.stub.Prepare(commands.prepare_request(*batch), timeout=CALL_SECONDS)
    last = delivery_versus_payment(plan_id="ffffffff-ffff-4fff-bfff-ffffffffffff")
    await world.append(event_of(last, 1))
    assert (await world.harness.prepare(last)).verdict == DONE
    await service.kill()
    # As if the entry had come to a replica that died before it looked at the leg.
    async with service.database.as_owner() as connection:
        await connection.execute("alter table participant_leg disable trigger all")
        await connection.execute("update participant_leg set phase = 'PREPARING', vote = null where plan_id = $1", last.plan_id)
        await connection.execute("alter table participant_leg enable trigger all")
    await service.restart()
    for _ in range(1200):
        report = await world.harness.get(last)
        assert report is not None
        if report.phase == leg_pb2.LEG_PHASE_PREPARED:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the leg is not answered")
