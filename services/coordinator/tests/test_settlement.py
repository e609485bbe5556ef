"""Whole settlements, over gRPC, with real databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lockstep.type.v1 import certificate_pb2
from lockstep_kit.statements import Gate, Verdict
from lockstep_testkit.factories import delivery_versus_payment, key_of

SETTLING = {"dlt-gateway", "bank-gateway"}


async def phases(world: Any, plan: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for party in world.parties.values():
        found |= await party.phases(plan)
    return found


def refused(world: Any, name: str, leg_id: str) -> None:
    world.parties[name].operations.refused.add(leg_id)


async def test_a_plan_settles(world: Any) -> None:
    """A plan whose participants promise, and whose people sign, is settled, notarised, sealed and closed."""
    async with world.coordinator():
        plan = await world.settled()
        found = await world.get(plan)
    assert found.reason == ""
    assert world.journal.types(plan) == [
        "plan.created",
        "plan.initiated",
        "plan.initiated",
        "plan.ready",
        *["leg.prepared"] * 4,
        "plan.approved",
        "plan.released",
        *["leg.executed"] * 2,
        "evidence.validated",
        "plan.committed",
    ]
    assert set((await phases(world, plan)).values()) == {"COMMITTED"}
    transitions = await world.rows("select * from plan_transition where plan_id = $1 order by transition_no", plan.plan_id)
    told = [each["transition"]["transition_no"] for each in world.journal.payloads(plan) if "transition" in each]
    assert told == [row["transition_no"] for row in transitions][:-1]
    assert {each["plan_digest"] for each in world.journal.payloads(plan)} == {plan.header.digest.hex()}
    assert not await world.rows("select from leg_command where not answered")


async def test_many_plans_at_once(world: Any) -> None:
    """Plans do not hinder one another, and go out together."""
    async with world.coordinator():
        plans = await asyncio.gather(*(world.settled() for _ in range(12)))
    assert len(await world.rows("select from plan where state = 'CLOSED' and decision = 'COMMIT'")) == len(plans)


@pytest.mark.parametrize(("name", "leg_id"), [("bank-gateway", "cash"), ("dlt-gateway", "tokens"), ("event-journal", "journal")])
async def test_a_no_aborts(world: Any, name: str, leg_id: str) -> None:
    """A NO by anyone aborts the plan with its reason; nothing is held any more, and it is closed."""
    refused(world, name, leg_id)
    async with world.coordinator():
        plan = await world.started()
        found = await world.reaches(plan, "CLOSED")
    assert (found.reason, found.reason_leg_id) == ("BANK_PREPARE_FAILED", leg_id)
    assert found.decision == certificate_pb2.DECISION_ABORT
    standing = await phases(world, plan)
    assert set(standing.values()) <= {"RELEASED", "REFUSED"}
    assert standing["notarisation"] == standing["journal"] == "RELEASED"


async def test_cancel_before_release(world: Any) -> None:
    """A cancelled plan releases every hold; a wrong etag cancels nothing."""
    async with world.coordinator():
        plan = await world.started()
        found = await world.reaches(plan, "PREPARED")
        with pytest.raises(Exception, match="the plan has changed since"):
            await world.cancel(plan, etag="0")
        await world.cancel(plan, etag=found.etag)
        found = await world.reaches(plan, "CLOSED")
    assert (found.reason, found.reason_detail) == ("CANCELLED", "cancelled by alice")
    assert set((await phases(world, plan)).values()) == {"RELEASED"}


async def test_a_refused_release_aborts(world: Any) -> None:
    """The releaser's REJECT aborts the plan; the participants see the signature and release."""
    async with world.coordinator():
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        await world.sign(plan, plan.gate(Gate.RELEASE, verdict=Verdict.REJECT))
        found = await world.reaches(plan, "CLOSED")
    assert found.reason == "GATE_REJECTED"
    assert set((await phases(world, plan)).values()) == {"RELEASED"}


async def test_the_deadline_aborts(world: Any, clocks: Any) -> None:
    """A plan that nobody releases is given up at its deadline, by the database's clock."""
    async with world.coordinator():
        plan = await world.started(delivery_versus_payment(deadline=clocks.soon()))
        await world.reaches(plan, "PREPARED")
        await clocks.pass_deadline(plan)
        found = await world.reaches(plan, "CLOSED")
    assert found.reason == "DEADLINE_PASSED"
    assert set((await phases(world, plan)).values()) == {"RELEASED"}


async def test_compliance(world: Any, clocks: Any) -> None:
    """A party that is not allowed ends the plan before anyone is asked for anything."""
    denied = world.settings.compliance.model_copy(update={"denied": ("seller",)})
    async with world.coordinator(compliance=denied):
        plan = delivery_versus_payment(deadline=clocks.soon())
        await world.create(plan)
        await world.execute(plan)
        found = await world.reaches(plan, "ABORTED")
        assert found.reason == "COMPLIANCE_FAILED"
        assert await phases(world, plan) == {}
        await clocks.pass_deadline(plan)
        await world.reaches(plan, "CLOSED")


async def test_the_soft_leg_decides(world: Any) -> None:
    """Where one promise can lapse the decision is delegated to its leg, and the others see its signed Done."""
    bank = world.parties["bank-gateway"].operations
    bank.promise_max = timedelta(hours=2)
    bank.at_once = False
    async with world.coordinator():
        plan = await world.started()
        await world.until(plan, lambda _: len(bank.begun) == 1)
        await world.parties["bank-gateway"].find(bank.begun[0])
        await world.reaches(plan, "PREPARED")
        await world.release(plan)
        await world.until(plan, lambda _: len(bank.begun) == 2)
        found = await world.get(plan)
        assert (found.delegated_leg_id, found.decision) == ("cash", 3)
        assert (await phases(world, plan))["tokens"] == "PREPARED"
        await world.parties["bank-gateway"].find(bank.begun[1])
        found = await world.reaches(plan, "VALIDATING")
    assert found.decision == 1


async def test_evidence_is_refused(world: Any) -> None:
    """A validator's REJECT leaves the plan PARTIALLY_EXECUTED, with an escalation, and operators are awaited."""
    async with world.coordinator():
        plan = await world.executing()
        await world.reaches(plan, "VALIDATING")
        await world.validate(plan, Verdict.REJECT)
        found = await world.reaches(plan, "PARTIALLY_EXECUTED")
    assert [each.reason for each in found.escalations] == ["EVIDENCE_REJECTED"]
    (waits,) = found.waiting
    assert set(waits.who) == {"erin", "frank"}


async def test_a_participant_that_is_down(world: Any) -> None:
    """A participant that is down when it is commanded gets the command once it is up; nothing is concluded meanwhile."""
    bank = world.parties["bank-gateway"]
    async with world.coordinator():
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        await bank.down()
        await world.release(plan)
        await asyncio.sleep(0.5)
        assert (await world.get(plan)).state == 6
        await bank.up()
        await world.reaches(plan, "VALIDATING")


async def test_a_participant_that_is_down_before_the_checks(world: Any, clocks: Any) -> None:
    """Without knowing what a participant can do a plan waits; at its deadline it is given up."""
    await world.parties["notary"].down()
    async with world.coordinator():
        plan = await world.started(delivery_versus_payment(deadline=clocks.soon()))
        await world.reaches(plan, "PRECONDITIONS_PENDING")
        await clocks.pass_deadline(plan)
        await world.reaches(plan, "ABORTED")
        await world.parties["notary"].up()
        assert (await world.reaches(plan, "CLOSED")).reason == "DEADLINE_PASSED"


async def test_the_journal_is_behind(world: Any) -> None:
    """With the journal down nothing new is PREPARED; decided plans settle, wait in COMMITTED, and close when it is back."""
    journal = world.parties["event-journal"]
    async with world.coordinator():
        decided = await world.executing()
        await world.reaches(decided, "VALIDATING")
        waiting = await world.started(delivery_versus_payment())
        await world.reaches(waiting, "PREPARED")
        await journal.down()
        await world.validate(decided)
        fresh = await world.started(delivery_versus_payment())
        await world.reaches(decided, "COMMITTED")
        await world.reaches(fresh, "PRECONDITIONS_PENDING", "READY_FOR_PREPARE")
        await asyncio.sleep(0.5)
        assert (await world.get(decided)).state == 8
        assert (await world.get(fresh)).state in (3, 4)
        await journal.up()
        await world.reaches(decided, "CLOSED")
        await world.reaches(fresh, "PREPARED")


async def test_the_journal_lost_events(world: Any) -> None:
    """A gap is filled from where the journal stands."""
    async with world.coordinator():
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        await world.journalled(plan)
        del world.journal.chains[plan.plan_id][3:]
        await world.release(plan)
        found = await world.reaches(plan, "VALIDATING")
        await world.journalled(plan)
    assert [each.sequence for each in world.journal.chains[plan.plan_id]] == list(range(1, found.journal_sequence + 1))


async def test_the_journal_has_another_event(world: Any) -> None:
    """A conflict freezes the plan's events, calls a person, and keeps the plan from being released."""
    async with world.coordinator():
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        await world.journalled(plan)
        world.journal.conflicts.add(plan.plan_id)
        # Any event that the journal has not seen yet brings the conflict to light.
        async with world.database.as_owner() as owner:
            await owner.execute("alter table journal_progress disable trigger journal_progress_grows")
            await owner.execute("update journal_progress set appended = appended - 1 where plan_id = $1", plan.plan_id)
        found = await world.until(plan, lambda found: len(found.escalations) > 0)
        assert found.escalations[0].reason == "JOURNAL_CONFLICT"
        with pytest.raises(Exception, match="frozen"):
            await world.release(plan)


async def test_an_answer_that_is_not_signed(world: Any) -> None:
    """A participant's answer with a foreign signature is no news: the plan stays where it is, and a person is called."""
    bank = world.parties["bank-gateway"]
    bank.engine._signer = replace(bank.engine._signer, key=key_of("mallory"))
    async with world.coordinator():
        plan = await world.started()
        found = await world.until(plan, lambda found: len(found.escalations) > 0)
        assert found.escalations[0].reason == "PARTICIPANT_SIGNATURE"
        assert found.state == 4
