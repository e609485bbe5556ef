"""What is said on chain of escalations: written with them, told to the notary whatever becomes of it, and never waited for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest
from test_operators import Desk, broken, desk, rejected, resolution

from coordinator import escalation_relay
from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.notary.v1 import escalation_record_pb2 as records
from lockstep_kit.convert import time_from_pb
from lockstep_kit.escalations import EscalationKind, Said, said_in
from lockstep_kit.ids import PlanId, sha256
from lockstep_kit.resolutions import Verb
from lockstep_kit.statements import Verdict
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.snapshots import Snapshots

LOOKS_MAX = 1200
KINDS = {
    records.ESCALATION_RECORD_KIND_OPENED: EscalationKind.OPENED,
    records.ESCALATION_RECORD_KIND_RESOLVED: EscalationKind.RESOLVED,
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notary that is away is asked again soon."""
    monkeypatch.setattr(escalation_relay, "BACK_OFF_SECONDS_MAX", 0.2)
    monkeypatch.setattr(escalation_relay, "POLL_SECONDS", 0.2)


def journaled(world: Any, plan: PlanCase) -> list[Said]:
    """What the journal's chain says of the plan's escalations."""
    found = []
    for entry in world.journal.chains[plan.plan_id]:
        at = time_from_pb(entry.event_time, "event_time")
        said = said_in(entry.type, PlanId(plan.plan_id), at, json.loads(entry.payload))
        if said is not None:
            found.append(said)
    return found


def statement(said: Said) -> records.EscalationStatement:
    return records.EscalationStatement(
        plan_id=said.plan_id,
        plan_digest=said.plan_digest,
        escalation_id=said.escalation_id,
        kind=next(number for number, kind in KINDS.items() if kind is said.kind),
        document_hash=said.digest,
    )


async def kept(world: Any, *keys: tuple[str, int]) -> None:
    """Wait until the notary has these."""
    for _ in range(LOOKS_MAX):
        if all(key in world.notary.kept for key in keys):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"the notary has {list(world.notary.kept)}, not {keys}")


async def untold(world: Any) -> int:
    rows = await world.rows("select from escalation_document where told_at is null")
    return len(rows)


async def told(world: Any) -> None:
    """Wait until nothing is untold."""
    for _ in range(LOOKS_MAX):
        if not await untold(world):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("something stays untold")


async def journaled_wholly(world: Any, plan: PlanCase) -> None:
    """Wait until the journal has everything that is to be said of the plan so far: nobody waits for it."""
    await world.journalled(plan)


async def closed_by_judgement(operators: Desk, plan: PlanCase, ticket: messages.EscalationFile) -> None:
    """The plan goes on as operators want, and the ticket is closed before the end."""
    await operators.both(resolution(plan, ticket, Verb.RETRY))
    await operators.world.reaches(plan, "VALIDATING")
    await operators.both(resolution(plan, ticket, Verb.FORGET))


async def test_what_the_notary_is_told_is_what_the_journal_says(world: Any) -> None:
    """Opening and closing are each told once, with the hash of the document that the journal's entries give, and operators see the document."""
    async with desk(world) as operators:
        plan = await rejected(world)
        ticket = await operators.ticket(plan, "EVIDENCE_REJECTED")
        await closed_by_judgement(operators, plan, ticket)
        key = ticket.escalation.escalation_id
        await kept(world, (key, 1), (key, 2))
        await told(world)
        await journaled_wholly(world, plan)
        opened, resolved = journaled(world, plan)
        assert world.notary.told == [statement(opened), statement(resolved)]
        assert opened.escalation_id == key
        amounts = json.loads(opened.document)["at_risk"]
        assert {(each["asset"], each["minor_units"]) for each in amounts} == {
            (each.asset, each.minor_units) for each in ticket.at_risk
        }
        shown = (await operators.get(ticket)).escalation
        assert [each.document for each in shown.documents] == [opened.document, resolved.document]
        assert all(each.HasField("tell_time") and not each.refusal for each in shown.documents)


@pytest.mark.parametrize("away", ["deaf", "mute"])
async def test_no_plan_waits_for_the_notary_s_word(world: Any, away: str) -> None:
    """While it does not answer, plans are resolved and closed; it is told afterwards, and what it took before counts once."""
    setattr(world.notary, away, True)
    async with desk(world) as operators:
        plan = await broken(world)
        ticket = await operators.ticket(plan, "BANK_EXECUTE_FAILED")
        await operators.both(resolution(plan, ticket, Verb.RESOLVE, detail="paid by hand"))
        await world.reaches(plan, "CLOSED")
        await operators.both(resolution(plan, ticket, Verb.FORGET))
        assert await untold(world) == 2
        (shown,) = await operators.escalations(plan, filter=messages.ESCALATION_FILTER_CLOSED)
        assert [each.HasField("tell_time") for each in shown.documents] == [False, False]
        setattr(world.notary, away, False)
        await told(world)
        assert len(world.notary.kept) == 2
        # After the end the journal takes nothing more: the document says what it does not.
        (opened,) = journaled(world, plan)
        documents = [each.document for each in shown.documents]
        assert documents[0] == opened.document
        assert json.loads(documents[1])["resolution"] == next(
            each.digest.hex() for each in shown.resolutions if each.resolution.verb == 4
        )
        assert {bytes(each.document_hash) for each in world.notary.kept.values()} == {sha256(each) for each in documents}


async def test_a_coordinator_that_died_before_it_told(world: Any) -> None:
    """What was written and not told is told by whoever comes next."""
    world.notary.deaf = True
    async with world.coordinator(crash=True):
        plan = await rejected(world)
    world.notary.deaf = False
    async with world.coordinator():
        await told(world)
        await journaled_wholly(world, plan)
    assert [statement(each) for each in journaled(world, plan)] == list(world.notary.kept.values())


async def test_a_notary_that_holds_something_else(world: Any) -> None:
    """A refusal is kept and shown, is not asked for again, and changes nothing of the plan."""
    world.notary.deaf = True
    async with desk(world) as operators:
        plan = await rejected(world)
        ticket = await operators.ticket(plan, "EVIDENCE_REJECTED")
        key = ticket.escalation.escalation_id
        world.notary.kept[key, 1] = records.EscalationStatement(escalation_id=key, document_hash=sha256(b"another"))
        world.notary.deaf = False
        await told(world)
        shown = (await operators.get(ticket)).escalation
        assert [each.refusal for each in shown.documents] == ["something else is known"]
        await operators.both(resolution(plan, ticket, Verb.RETRY))
        await world.reaches(plan, "VALIDATING")
        assert len(world.notary.told) == 1


async def test_a_notary_that_was_put_back(world: Any) -> None:
    """It is told everything again, though it had taken it."""
    async with world.coordinator() as made:
        await rejected(world)
        await told(world)
        before = dict(world.notary.kept)
        world.notary.kept.clear()
        await made.restores.participant_restored("bank-gateway")
        assert await untold(world) == 0
        await made.restores.participant_restored("notary")
        await kept(world, *before)
        await told(world)
        assert world.notary.kept == before


async def test_a_coordinator_that_was_put_back(world: Any, snapshots: Snapshots) -> None:
    """An escalation that its database forgot is found in the journal with its id, and is said of it again word by word: nothing contradicts."""
    async with world.coordinator(crash=True):
        plan: PlanCase = await world.executing()
        await world.reaches(plan, "VALIDATING")
        snapshot = await snapshots.take(world.database.name, world.database.role)
        await world.validate(plan, Verdict.REJECT)
        await world.reaches(plan, "PARTIALLY_EXECUTED")
        await told(world)
        await journaled_wholly(world, plan)
    before = dict(world.notary.kept)
    await snapshots.put_back(snapshot)
    async with desk(world, generation=2) as operators:
        await world.reaches(plan, "PARTIALLY_EXECUTED")
        await told(world)
        ticket = await operators.ticket(plan, "EVIDENCE_REJECTED")
        assert (ticket.escalation.escalation_id, 1) in before
        assert [each.refusal for each in ticket.documents] == [""]
    assert world.notary.kept == before
    assert len(world.notary.told) == 2


async def test_an_escalation_of_before_there_were_records(world: Any) -> None:
    """Of one whose opening was not written, since an older version opened it, nothing is said when it is closed."""
    world.notary.deaf = True
    async with desk(world) as operators:
        plan = await rejected(world)
        async with world.database.as_owner() as owner:
            await owner.execute("alter table escalation_document disable trigger escalation_document_stays")
            await owner.execute("delete from escalation_document")
        world.notary.deaf = False
        ticket = await operators.ticket(plan, "EVIDENCE_REJECTED")
        await closed_by_judgement(operators, plan, ticket)
        assert await world.rows("select from escalation_document") == []


async def test_the_database_keeps_what_was_said(world: Any) -> None:
    """No document is changed or removed, by whomever; whether it was told may be."""
    async with world.coordinator():
        await rejected(world)
        await told(world)
    async with world.database.as_owner() as owner:
        for each in (
            "update escalation_document set document = 'x'",
            "delete from escalation_document",
            "truncate escalation_document",
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(each)
        await owner.execute("update escalation_document set told_at = null")
