"""What operators sign, over gRPC, with real databases: each verb, and every way in which a signature does not count."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest

from coordinator.settings import LimitSettings
from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1.operator_service_pb2_grpc import OperatorServiceStub
from lockstep_kit.convert import VERBS, outcome_from_pb, resolution_to_pb
from lockstep_kit.errors import from_rpc
from lockstep_kit.fence import Finding
from lockstep_kit.ids import Digest
from lockstep_kit.participant.ports import Completion
from lockstep_kit.plan import LegKind
from lockstep_kit.registry import Role
from lockstep_kit.resolutions import Resolution, ResolutionSignature, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.rpc import channel
from lockstep_kit.statements import Gate, Refusal, Verdict
from lockstep_testkit import factories
from lockstep_testkit.factories import PlanCase, delivery_versus_payment, evidence_of, key_of

CLIENT = "spiffe://lockstep.local/client/test"
DEADLINE_SECONDS = 60.0
SHORT = LimitSettings(deadline_seconds_min=0.1, unknown_seconds_max=120.0)
REFUSAL = Refusal("BANK_EXECUTE_FAILED", "AC06", "the account is blocked")


def signed(who: str, resolution: Resolution, *, minutes: float = 10, nonce: bytes | None = None) -> ResolutionSignature:
    statement = ResolutionStatement(
        resolution, nonce or os.urandom(16), datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=minutes)
    )
    return sign_resolution(statement, key_of(who))


@dataclass
class Desk:
    """Operators at their desk."""

    world: Any
    stub: OperatorServiceStub

    async def escalations(self, plan: PlanCase | None = None, **wanted: Any) -> list[messages.EscalationFile]:
        request = messages.ListEscalationsRequest(plan_id=plan.plan_id if plan else "", **wanted)
        return list((await self.stub.ListEscalations(request, timeout=DEADLINE_SECONDS)).escalations)

    async def ticket(self, plan: PlanCase, reason: str) -> messages.EscalationFile:
        """The open ticket of a plan with that reason, once it is there."""
        for _ in range(3000):
            found = await self.escalations(plan, reason=reason)
            if found:
                return found[0]
            await asyncio.sleep(0.02)
        raise AssertionError(f"no ticket {reason}: {await self.escalations(plan)}")

    async def get(self, ticket: messages.EscalationFile) -> messages.GetEscalationResponse:
        request = messages.GetEscalationRequest(escalation_id=ticket.escalation.escalation_id)
        answer: messages.GetEscalationResponse = await self.stub.GetEscalation(request, timeout=DEADLINE_SECONDS)
        return answer

    async def send(self, signature: ResolutionSignature, request_id: str = "") -> messages.SignResolutionResponse:
        request = messages.SignResolutionRequest(request_id=request_id or str(uuid.uuid4()), signature=resolution_to_pb(signature))
        answer: messages.SignResolutionResponse = await self.world.again(self.stub.SignResolution, request)
        return answer

    async def both(self, resolution: Resolution) -> messages.SignResolutionResponse:
        """Two operators sign the same."""
        first = await self.send(signed("erin", resolution))
        assert not first.took_effect
        second = await self.send(signed("frank", resolution))
        assert second.took_effect
        return second

    async def refuses(self, signature: ResolutionSignature, reason: str) -> None:
        """A signature that does not count is refused by name, and nothing of it is kept."""
        escalation = signature.statement.resolution.escalation_id
        before = await self.world.rows("select * from resolution_signature where escalation_id = $1", escalation)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.send(signature)
        assert from_rpc(refused.value).reason == reason
        assert await self.world.rows("select * from resolution_signature where escalation_id = $1", escalation) == before

    async def in_doubt(self, **wanted: Any) -> messages.ListInDoubtResponse:
        answer: messages.ListInDoubtResponse = await self.stub.ListInDoubt(
            messages.ListInDoubtRequest(**wanted), timeout=DEADLINE_SECONDS
        )
        return answer


@asynccontextmanager
async def desk(world: Any, **changes: Any) -> AsyncIterator[Desk]:
    """A coordinator, and operators who call it."""
    async with world.coordinator(**changes):
        made = channel(f"127.0.0.1:{world.port}", world.tls_for(CLIENT))
        try:
            yield Desk(world, OperatorServiceStub(made))
        finally:
            await made.close()


def resolution(plan: PlanCase, ticket: messages.EscalationFile, verb: Verb, **more: Any) -> Resolution:
    return Resolution(Digest(plan.header.digest), ticket.escalation.escalation_id, verb, **({"detail": "by hand"} | more))


def answer(plan: PlanCase, ticket: messages.EscalationFile, leg_id: str, *, executed: bool) -> Resolution:
    evidence = evidence_of(plan.leg(leg_id))
    return resolution(plan, ticket, Verb.RESOLVE, leg_id=leg_id, executed=executed, evidence=evidence)


def verbs(ticket: messages.EscalationFile) -> set[tuple[str, str]]:
    return {(VERBS[each.verb].value, each.leg_id) for each in ticket.options}


async def silent(world: Any) -> PlanCase:
    """A plan whose bank does not say what became of its order."""
    bank = world.parties["bank-gateway"].operations
    plan: PlanCase = await world.started()
    await world.reaches(plan, "PREPARED")
    bank.at_once = False
    await world.release(plan)
    await world.until(plan, lambda found: found.legs[0].phase == 5 and len(bank.begun) == 2)
    return plan


async def grows_old(clocks: Any) -> None:
    """What is not known now is not known for too long: by the clocks, so that nothing that is only slow is."""
    await clocks.go_on(timedelta(seconds=SHORT.unknown_seconds_max))


async def broken(world: Any) -> PlanCase:
    """A plan whose bank broke its promise after the tokens moved."""
    bank = world.parties["bank-gateway"]
    plan = await silent(world)
    work = bank.operations.begun[1]
    async with bank.db.transaction() as tx:
        await bank.engine.complete(tx, [Completion(work.plan_id, work.leg_id, Finding.REFUSED, refusal=REFUSAL)])
    await world.reaches(plan, "PARTIALLY_EXECUTED")
    return plan


async def rejected(world: Any) -> PlanCase:
    """A plan whose evidence the validator refused."""
    plan: PlanCase = await world.executing()
    await world.reaches(plan, "VALIDATING")
    await world.validate(plan, Verdict.REJECT)
    await world.reaches(plan, "PARTIALLY_EXECUTED")
    return plan


async def test_two_operators_answer_for_a_participant(world: Any, clocks: Any) -> None:
    """An Unknown that grows too old calls operators; what two of them show counts as the answer, and the plan goes on."""
    async with desk(world, limits=SHORT) as operators:
        plan = await silent(world)
        await grows_old(clocks)
        ticket = await operators.ticket(plan, "UNKNOWN_TOO_OLD")
        assert verbs(ticket) == {("RETRY", ""), ("RESOLVE", "cash")}
        assert [(each.asset, each.minor_units) for each in ticket.at_risk] == [("EUR", "10000")]
        done = await operators.both(answer(plan, ticket, "cash", executed=True))
        assert done.escalation.resolutions[0].missing_count == 0
        found = await world.reaches(plan, "VALIDATING")
        leg = next(each for each in found.legs if each.leg.leg_id == "cash")
        assert leg.operators_executed
        # The ticket stays until operators close it.
        (still,) = await operators.escalations(plan)
        assert ("FORGET", "") in verbs(still)
        await operators.both(resolution(plan, ticket, Verb.FORGET))
        assert await operators.escalations(plan) == []
        await world.journalled(plan)
        # There is no outcome of that leg to sign over; the validator looks it up outside.
        outcomes = [outcome_from_pb(each.outcome) for each in found.legs if each.leg.leg_id == "tokens"]
        await world.sign(plan, plan.gate(Gate.VALIDATE, outcomes=outcomes))
        await world.reaches(plan, "COMMITTED", "CLOSED")
    payloads = [each["resolution"] for each in world.journal.payloads(plan) if "resolution" in each]
    assert [each["resolution"]["verb"] for each in payloads] == ["RESOLVE", "FORGET"]
    assert [each["actor"] for each in payloads[0]["signatures"]] == ["erin", "frank"]
    assert payloads[0]["resolution"]["evidence"]["kind"] == "bank"
    assert world.journal.types(plan).count("exception.resolved") == 2
    ended = await world.rows("select verb from resolution join escalation on resolution_digest = digest")
    assert [row["verb"] for row in ended] == ["FORGET"]


async def test_what_operators_deny_is_tried_again(world: Any, clocks: Any) -> None:
    """Operators may say that a leg took no effect, and take it back: then it is commanded again and settles."""
    bank = world.parties["bank-gateway"]
    async with desk(world, limits=SHORT) as operators:
        plan = await silent(world)
        await grows_old(clocks)
        ticket = await operators.ticket(plan, "UNKNOWN_TOO_OLD")
        await operators.both(answer(plan, ticket, "cash", executed=False))
        await world.reaches(plan, "PARTIALLY_EXECUTED")
        refused = await operators.ticket(plan, "LEG_REFUSED")
        assert verbs(refused) == {("RETRY", ""), ("RETRY", "cash"), ("REVERSE", ""), ("RESOLVE", "")}
        await operators.both(resolution(plan, refused, Verb.RETRY, leg_id="cash"))
        await world.reaches(plan, "EXECUTING")
        await bank.find(bank.operations.begun[1])
        await world.reaches(plan, "VALIDATING")
        rows = await world.rows("select cause from plan_transition where plan_id = $1 order by transition_no", plan.plan_id)
        assert "REDRIVEN" in [row["cause"] for row in rows]


async def test_evidence_is_looked_at_again(world: Any) -> None:
    """After a validator's refusal two operators have the evidence looked at again, and the plan settles."""
    async with desk(world) as operators:
        plan = await rejected(world)
        ticket = await operators.ticket(plan, "EVIDENCE_REJECTED")
        assert verbs(ticket) == {("RETRY", ""), ("REVERSE", ""), ("RESOLVE", "")}
        await operators.both(resolution(plan, ticket, Verb.RETRY))
        await world.reaches(plan, "VALIDATING")
        await world.validate(plan)
        await world.reaches(plan, "CLOSED")
        await operators.both(resolution(plan, ticket, Verb.FORGET))
        assert await operators.escalations(plan) == []
        (closed,) = await operators.escalations(plan, filter=messages.ESCALATION_FILTER_CLOSED)
        assert closed.escalation.HasField("resolve_time")
        assert verbs(closed) == set()


async def test_settled_outside(world: Any) -> None:
    """What two operators settled outside closes as MIXED, stays so for ever, and its ticket can be closed after that."""
    async with desk(world) as operators:
        plan = await broken(world)
        ticket = await operators.ticket(plan, "BANK_EXECUTE_FAILED")
        assert verbs(ticket) == {("RETRY", ""), ("REVERSE", ""), ("RESOLVE", "")}
        file = await operators.get(ticket)
        doubts = {each.leg_id: messages.DoubtKind.Name(each.kind) for each in file.legs}
        assert doubts == {"tokens": "DOUBT_KIND_EXECUTED_ALONE"}
        assert {each.leg.leg_id: each.phase for each in file.plan.legs}["cash"] == 3
        await operators.both(resolution(plan, ticket, Verb.RESOLVE, detail="paid by hand, reference 4711"))
        await world.reaches(plan, "CLOSED")
        rows = await world.rows("select outcome from plan where plan_id = $1", plan.plan_id)
        assert rows[0]["outcome"] == "MIXED"
        assert (await operators.in_doubt()).legs == []
        (still,) = await operators.escalations(plan)
        assert verbs(still) == {("FORGET", "")}
        await operators.both(resolution(plan, ticket, Verb.FORGET))
        assert await operators.escalations(plan) == []
    async with world.database.as_owner() as owner:
        with pytest.raises(Exception, match="CLOSED is the end"):
            await owner.execute("update plan set outcome = 'COMMITTED', version = version + 1")


async def test_signatures_that_do_not_count(world: Any) -> None:
    """Every way in which a signature does not count has its name, and changes nothing."""
    async with desk(world) as operators:
        plan, other = await broken(world), delivery_versus_payment()
        ticket = await operators.ticket(plan, "BANK_EXECUTE_FAILED")
        outside = resolution(plan, ticket, Verb.RESOLVE)
        await operators.refuses(signed("dave", outside), "RESOLUTION_ROLE")
        await operators.refuses(signed("mallory", outside), "RESOLUTION_SIGNATURE")
        await operators.refuses(signed("erin", outside, minutes=-1), "RESOLUTION_EXPIRED")
        await operators.refuses(signed("erin", resolution(other, ticket, Verb.RESOLVE)), "RESOLUTION_PLAN_DIGEST")
        await operators.refuses(signed("erin", resolution(plan, ticket, Verb.FORGET)), "RESOLUTION_NOT_ALLOWED")
        await operators.refuses(signed("erin", resolution(plan, ticket, Verb.RETRY, leg_id="cash")), "RESOLUTION_NOT_ALLOWED")
        await operators.refuses(signed("erin", resolution(plan, ticket, Verb.RETRY, leg_id="tokens")), "RESOLUTION_LEG")
        await operators.refuses(signed("erin", answer(plan, ticket, "cash", executed=True)), "RESOLUTION_NOT_ALLOWED")
        nowhere = replace(outside, escalation_id=str(uuid.uuid4()))
        await operators.refuses(signed("erin", nowhere), "ESCALATION_NOT_FOUND")
        tampered = replace(signed("erin", outside), signature=signed("erin", nowhere).signature)
        await operators.refuses(tampered, "RESOLUTION_SIGNATURE")
        assert not await world.rows("select from resolution_signature")

        first = await operators.send(signed("erin", outside, nonce=bytes(16)))
        assert (first.took_effect, first.escalation.resolutions[0].missing_count) == (False, 1)
        await operators.refuses(signed("erin", outside), "RESOLUTION_SAME_PERSON")
        await operators.refuses(signed("erin", replace(outside, detail="else"), nonce=bytes(16)), "RESOLUTION_NONCE_REUSED")
        # Another sentence is another resolution.
        elsewhere = await operators.send(signed("frank", replace(outside, detail="otherwise")))
        assert not elsewhere.took_effect
        assert (await world.get(plan)).state == settlement_pb2.PLAN_STATE_PARTIALLY_EXECUTED
        assert (await operators.send(signed("frank", outside))).took_effect


async def test_who_opened_a_gate_resolves_nothing(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who has signed one of the plan's gates is no operator of that plan, whatever the registry says."""
    people = {name: [role] for name, role in factories.PEOPLE.items()} | {"carol": [Role.RELEASER, Role.OPERATOR]}
    registry = factories.registry_of(people)
    monkeypatch.setattr(sys.modules[type(world).__module__], "registry_of", lambda: registry)
    async with desk(world) as operators:
        plan = await broken(world)
        ticket = await operators.ticket(plan, "BANK_EXECUTE_FAILED")
        assert list(ticket.who) == ["erin", "frank"]
        outside = resolution(plan, ticket, Verb.RESOLVE)
        await operators.refuses(signed("carol", outside), "RESOLUTION_SAME_PERSON")
        await operators.send(signed("erin", outside))
        await operators.refuses(signed("carol", outside), "RESOLUTION_SAME_PERSON")


async def test_signatures_that_ran_out_make_nothing_complete(world: Any, clocks: Any) -> None:
    """A first signature that ran out before the second came does not count; its operator may sign again."""
    async with desk(world) as operators:
        plan = await broken(world)
        ticket = await operators.ticket(plan, "BANK_EXECUTE_FAILED")
        outside = resolution(plan, ticket, Verb.RESOLVE)
        first = signed("erin", outside, minutes=3)
        await operators.send(first)
        await clocks.pass_moment(first.statement.expires_at)
        second = await operators.send(signed("frank", outside))
        assert not second.took_effect
        assert second.escalation.resolutions[0].missing_count == 1
        assert (await operators.send(signed("erin", outside))).took_effect


async def test_what_took_effect_is_not_done_again(world: Any) -> None:
    """The same request, the same signature, and a third operator's like one are answered with what stands."""
    async with desk(world) as operators:
        plan = await rejected(world)
        ticket = await operators.ticket(plan, "EVIDENCE_REJECTED")
        retry = resolution(plan, ticket, Verb.RETRY)
        first, request_id = signed("erin", retry), str(uuid.uuid4())
        once = await operators.send(first, request_id)
        twice = await operators.send(first)
        assert [len(each.escalation.resolutions[0].signatures) for each in (once, twice)] == [1, 1]
        second, second_id = signed("frank", retry), str(uuid.uuid4())
        told = await operators.send(second, second_id)
        assert told.took_effect
        await world.reaches(plan, "VALIDATING")
        assert await operators.send(second, second_id) == told
        assert not (await operators.send(second)).took_effect
        assert not (await operators.send(signed("erin", retry))).took_effect
        with pytest.raises(grpc.aio.AioRpcError, match="request"):
            await operators.send(first, second_id)
    moved = await world.rows("select from plan_transition where plan_id = $1 and cause = 'REDRIVEN'", plan.plan_id)
    assert len(moved) == 1


async def test_watchers_see_what_operators_decide(world: Any) -> None:
    """A watcher is told of the resolution with both operators, and of the ticket's end."""
    async with desk(world) as operators:
        plan = await rejected(world)
        ticket = await operators.ticket(plan, "EVIDENCE_REJECTED")
        await operators.both(resolution(plan, ticket, Verb.RETRY))
        await world.reaches(plan, "VALIDATING")
        await operators.both(resolution(plan, ticket, Verb.FORGET))
    rows = await world.rows("select event from plan_event where plan_id = $1 order by sequence", plan.plan_id)
    events = [settlement_pb2.PlanEvent.FromString(row["event"]) for row in rows]
    decided = [each.resolution for each in events if each.HasField("resolution")]
    assert [(VERBS[each.resolution.verb].value, list(each.actor_ids)) for each in decided] == [
        ("RETRY", ["erin", "frank"]),
        ("FORGET", ["erin", "frank"]),
    ]
    ended = [each.escalation for each in events if each.HasField("escalation") and each.escalation.HasField("resolve_time")]
    assert [each.escalation_id for each in ended] == [ticket.escalation.escalation_id]


async def test_pages_and_filters(world: Any, clocks: Any) -> None:
    """Escalations come newest first, page by page; in-doubt legs by plan, with sums over all of them."""
    async with desk(world, limits=SHORT) as operators:
        plans = [await silent(world)]
        bank = world.parties["bank-gateway"].operations
        for _ in range(2):
            bank.begun.clear()
            bank.at_once = True
            # One after the other, so that the tickets are opened in this order.
            await grows_old(clocks)
            await operators.ticket(plans[-1], "UNKNOWN_TOO_OLD")
            plans.append(await silent(world))
        await grows_old(clocks)
        await operators.ticket(plans[-1], "UNKNOWN_TOO_OLD")
        seen: list[str] = []
        token = ""
        while True:
            request = messages.ListEscalationsRequest(page_size=2, page_token=token)
            page = await operators.stub.ListEscalations(request, timeout=DEADLINE_SECONDS)
            seen.extend(each.plan_id for each in page.escalations)
            token = page.next_page_token
            if not token:
                break
        assert seen == [plan.plan_id for plan in reversed(plans)]
        legs: list[str] = []
        token = ""
        while True:
            found = await operators.in_doubt(page_size=1, page_token=token)
            assert [(each.amount.minor_units, each.leg_count) for each in found.totals] == [("30000", 3)]
            legs.extend(each.plan_id for each in found.legs)
            token = found.next_page_token
            if not token:
                break
        assert legs == sorted(plan.plan_id for plan in plans)
        wanted = messages.ListInDoubtRequest()
        wanted.age_min.FromSeconds(3_600)
        assert not (await operators.stub.ListInDoubt(wanted, timeout=DEADLINE_SECONDS)).totals


async def test_default_deny(world: Any) -> None:
    """A client calls the operators' methods that its row names, and no others."""
    async with world.coordinator():
        made = channel(f"127.0.0.1:{world.port}", world.tls_for("spiffe://lockstep.local/client/reader"))
        reader = OperatorServiceStub(made)
        await reader.ListEscalations(messages.ListEscalationsRequest(), timeout=DEADLINE_SECONDS)
        with pytest.raises(grpc.aio.AioRpcError) as denied:
            await reader.ListInDoubt(messages.ListInDoubtRequest(), timeout=DEADLINE_SECONDS)
        await made.close()
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_database_keeps_what_operators_signed(world: Any) -> None:
    """Whatever the service's code does: signatures stay, nothing takes effect without two, and nothing but FORGET closes a ticket."""
    async with desk(world) as operators:
        plan = await rejected(world)
        ticket = await operators.ticket(plan, "EVIDENCE_REJECTED")
        await operators.both(resolution(plan, ticket, Verb.RETRY))
    about = ticket.escalation.escalation_id
    alone = """
        insert into resolution select escalation_id, $1, plan_id, verb, leg_id, first_actor, first_signed, second_actor, second_signed,
            now() from resolution
    """
    async with world.database.as_role() as role, world.database.as_owner() as owner:
        for table in ("resolution", "resolution_signature"):
            for statement in (f"update {table} set plan_id = 'x'", f"delete from {table}", f"truncate {table}"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await role.execute(statement)
                with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                    await owner.execute(statement + (" cascade" if "truncate" in statement else ""))
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="two operators"):
            await role.execute(alone, bytes(32))
        same = alone.replace("second_actor,", "first_actor,")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await role.execute(same, bytes(32))
        for change in ("resolved_at = now()", "resolved_at = now(), resolution_digest = (select digest from resolution)"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await role.execute(f"update escalation set {change} where escalation_id = $1", about)
        assert await owner.fetchval("select resolved_at from escalation where escalation_id = $1", about) is None


async def test_retry_sends_dead_letters_again(world: Any) -> None:
    """What two operators want tried again now is sent at once, what was given up included."""
    bank = world.parties["bank-gateway"].operations
    async with desk(world) as operators:
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        bank.kinds = ()
        await world.release(plan)
        ticket = await operators.ticket(plan, "COMMAND_DEAD")
        assert verbs(ticket) == {("RETRY", ""), ("RESOLVE", "cash")}
        bank.kinds = (LegKind.CREDIT_TRANSFER,)
        await operators.both(resolution(plan, ticket, Verb.RETRY))
        await world.reaches(plan, "VALIDATING")
        (row,) = await world.rows("select replayed_by from dead_letter")
        assert row["replayed_by"] == "erin and frank"
        await operators.both(resolution(plan, ticket, Verb.FORGET))
