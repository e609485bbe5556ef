"""Requests in batches: each answered by itself, as it would be alone, and the same again for ever."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import grpc
import pytest

import coordinator.batches
from coordinator.quotas import QuotaSettings
from coordinator.store import accepting
from coordinator.store import requests as requests_store
from lockstep.coordinator.v1 import settlement_pb2
from lockstep.coordinator.v1 import settlement_service_pb2 as messages
from lockstep_kit.convert import gate_to_pb, header_to_pb, leg_to_pb, vote_from_pb
from lockstep_kit.errors import LockstepError, from_status
from lockstep_kit.rpc import ListenSettings
from lockstep_kit.rpc.limits import CallerLimits, ServingLimits
from lockstep_kit.rpc.standings import CallerSettings
from lockstep_kit.statements import Gate, sign_gate
from lockstep_testkit.factories import BUYER, PlanCase, delivery_versus_payment, key_of
from lockstep_testkit.serving import refusal

SECONDS = 60.0
OTHER = "spiffe://lockstep.local/client/other"
TWO = {
    "test": CallerSettings(methods=("*",), parties=(BUYER.party_id,)),
    "other": CallerSettings(methods=("*",), parties=("someone-else",)),
}
STATE = settlement_pb2.PlanState


def create_request(plan: PlanCase, *, make: Any = None, request_id: str | None = None) -> messages.CreatePlanRequest:
    return messages.CreatePlanRequest(
        request_id=request_id or str(uuid.uuid4()),
        header=header_to_pb(plan.header),
        legs=[leg_to_pb(leg) for leg in plan.legs],
        make=gate_to_pb(make or plan.gate(Gate.MAKE)),
    )


def execution(plan: PlanCase) -> messages.ExecutePlanRequest:
    signed = messages.PayerSignature(leg_id="tokens", signature=bytes(65))
    return messages.ExecutePlanRequest(request_id=str(uuid.uuid4()), plan_id=plan.plan_id, payer_signatures=[signed])


def signing(plan: PlanCase, signed: Any) -> messages.SignGateRequest:
    return messages.SignGateRequest(request_id=str(uuid.uuid4()), plan_id=plan.plan_id, signature=gate_to_pb(signed))


async def created(api: Any, requests: Sequence[messages.CreatePlanRequest]) -> list[messages.PlanAnswer]:
    return list((await api.CreatePlans(messages.CreatePlansRequest(requests=requests), timeout=SECONDS)).answers)


async def executed(api: Any, requests: Sequence[messages.ExecutePlanRequest]) -> list[messages.PlanAnswer]:
    return list((await api.ExecutePlans(messages.ExecutePlansRequest(requests=requests), timeout=SECONDS)).answers)


async def signed(api: Any, requests: Sequence[messages.SignGateRequest]) -> list[messages.PlanAnswer]:
    return list((await api.SignGates(messages.SignGatesRequest(requests=requests), timeout=SECONDS)).answers)


def error_of(answer: messages.PlanAnswer) -> LockstepError:
    assert answer.WhichOneof("answer") == "refusal", answer
    return from_status(answer.refusal.code, answer.refusal.message, answer.refusal.details)


def told(answers: Iterable[messages.PlanAnswer]) -> list[str]:
    """What each request was answered: its plan's state, or why it was refused."""
    return [STATE.Name(each.plan.state)[11:] if each.HasField("plan") else error_of(each).reason for each in answers]


def again_with_nonce(plan: PlanCase, gate: Gate, used: Any, who: str) -> Any:
    """A signature over a plan with the nonce of another one."""
    return sign_gate(replace(plan.gate(gate).statement, nonce=used.statement.nonce), key_of(who))


async def test_each_is_created_by_itself(world: Any) -> None:
    """Good plans are accepted, in order, whatever stands beside them; each bad one is refused as it is alone, and leaves no row."""
    async with world.coordinator(quotas=QuotaSettings(plans_per_minute=12)):
        known = delivery_versus_payment()
        make = known.gate(Gate.MAKE)
        await world.create(known, make=make)
        good = [delivery_versus_payment() for _ in range(3)]
        twice = create_request(good[0])
        plans = [delivery_versus_payment() for _ in range(5)]
        bad = [create_request(each) for each in plans]
        bad[0].header.plan_id = "ABC"
        bad[1].header.deadline.FromSeconds(1_000_000_000)
        bad[2].make.CopyFrom(gate_to_pb(delivery_versus_payment().gate(Gate.MAKE)))
        bad[3].make.CopyFrom(gate_to_pb(again_with_nonce(plans[3], Gate.MAKE, make, "alice")))
        bad[4].request_id = "?"
        requests = [
            bad[0],
            create_request(good[1]),
            bad[1],
            twice,
            bad[2],
            twice,
            create_request(known),
            bad[3],
            create_request(good[2]),
            bad[4],
        ]
        answers = await created(world.api, requests)
        assert told(answers) == [
            "FIELD_INVALID", "DRAFT", "FIELD_INVALID", "DRAFT", "GATE_PLAN_DIGEST", "DRAFT", "PLAN_EXISTS", "GATE_NONCE_REUSED", "DRAFT",
            "FIELD_INVALID",
        ]  # fmt: skip
        assert answers[3] == answers[5]
        # Each says what is wrong as it does alone.
        for place in (0, 2, 4, 6, 7, 9):
            alone, found = await refusal(world.api.CreatePlan(requests[place], timeout=SECONDS)), error_of(answers[place])
            assert (found.code, found.message, found.metadata) == (alone.code, alone.message, alone.metadata)
            assert [(each.field, each.rule) for each in found.fields] == [(each.field, each.rule) for each in alone.fields]
    rows = await world.rows("select plan_id from plan order by seq")
    assert [row["plan_id"] for row in rows] == [each.plan_id for each in (known, good[1], good[0], good[2])]
    for table in ("request", "open_plan", "decision_key", "gate_signature", "lease"):
        assert len(await world.rows(f"select from {table}")) == 4, table
    (quota,) = await world.rows("select unspent from client_quota")
    assert 8 <= quota["unspent"] < 10


async def test_alone_and_in_a_batch_it_is_the_same_request(world: Any) -> None:
    """What was answered alone is answered the same in a batch, and the other way round, whatever has happened since; other content is refused."""
    async with world.coordinator():
        one, two = delivery_versus_payment(), delivery_versus_payment()
        first, second = create_request(one), create_request(two)
        alone = await world.api.CreatePlan(first, timeout=SECONDS)
        batched = await created(world.api, [first, second])
        assert batched[0].plan == alone.plan
        start = execution(one)
        started = await executed(world.api, [start])
        approve = signing(one, one.gate(Gate.APPROVE))
        approved = await signed(world.api, [approve])
        assert told([*started, *approved])[0] == "PRECONDITIONS_PENDING"
        await world.reaches(one, "PREPARED")
        assert await created(world.api, [second, first]) == [batched[1], batched[0]]
        assert (await world.api.CreatePlan(second, timeout=SECONDS)).plan == batched[1].plan
        assert (await world.api.ExecutePlan(start, timeout=SECONDS)).plan == started[0].plan
        assert (await world.api.SignGate(approve, timeout=SECONDS)).plan == approved[0].plan
        assert await signed(world.api, [approve, approve]) == approved * 2
        other = create_request(delivery_versus_payment(), request_id=first.request_id)
        fresh = create_request(delivery_versus_payment())
        assert told(await created(world.api, [other, fresh])) == ["REQUEST_ID_REUSED", "DRAFT"]
        # The id is the first one's that comes.
        reused = create_request(delivery_versus_payment(), request_id=str(uuid.uuid4()))
        late = create_request(delivery_versus_payment(), request_id=reused.request_id)
        assert told(await created(world.api, [reused, late])) == ["DRAFT", "REQUEST_ID_REUSED"]


async def test_a_quota_ends_in_the_middle_of_a_batch(world: Any) -> None:
    """So many plans are accepted as the quota allows, the rest are refused by its name and cost nothing; a bad one takes no room."""
    async with world.coordinator(quotas=QuotaSettings(open_plans_max=3)):
        requests = [create_request(delivery_versus_payment()) for _ in range(5)]
        bad = create_request(delivery_versus_payment())
        bad.header.deadline.FromSeconds(1_000_000_000)
        answers = await created(world.api, [bad, *requests])
        assert told(answers) == ["FIELD_INVALID", "DRAFT", "DRAFT", "DRAFT", "QUOTA_OPEN_PLANS", "QUOTA_OPEN_PLANS"]
        assert error_of(answers[4]).retry_after is not None
        assert len(await world.rows("select from plan")) == len(await world.rows("select from request")) == 3
    async with world.coordinator(quotas=QuotaSettings(plans_per_minute=2), clients={**TWO, "test": TWO["test"]}, operators={}):
        await world.rows("delete from client_quota")
        assert told(await created(world.api, requests[3:]))[:1] == ["DRAFT"]
        (row,) = await world.rows("select unspent from client_quota")
        assert 0 <= row["unspent"] < 1


async def test_each_is_started_and_signed_by_itself(world: Any) -> None:
    """What one may not, or cannot, keeps nobody else from going on; a plan that is another's is answered as one that is not there."""
    async with world.coordinator(clients=TWO, operators={}):
        plans = [delivery_versus_payment() for _ in range(4)]
        assert told(await created(world.api, [create_request(each) for each in plans])) == ["DRAFT"] * 4
        absent = delivery_versus_payment()
        bare, double = execution(plans[1]), execution(plans[2])
        del bare.payer_signatures[:]
        answers = await executed(
            world.api, [execution(plans[0]), bare, execution(absent), double, execution(plans[0]), execution(plans[3])]
        )
        assert told(answers) == [
            "PRECONDITIONS_PENDING", "FIELD_INVALID", "PLAN_NOT_FOUND", "PRECONDITIONS_PENDING", "PLAN_STATE", "PRECONDITIONS_PENDING",
        ]  # fmt: skip
        assert error_of(answers[1]).fields[0].field == "payer_signatures"
        other = world.stub(world.port, OTHER)
        theirs = await signed(other, [signing(each, each.gate(Gate.APPROVE)) for each in (plans[0], absent)])
        for plan, answer in zip((plans[0], absent), theirs, strict=True):
            found = error_of(answer)
            assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND")
            assert found.message.replace(plan.plan_id, "") == "there is no plan "
        used = plans[0].gate(Gate.APPROVE)
        answers = await signed(
            world.api,
            [
                signing(plans[0], used),
                signing(plans[2], again_with_nonce(plans[2], Gate.APPROVE, used, "bob")),
                signing(plans[2], plans[2].gate(Gate.CANCEL)),
                signing(plans[1], plans[1].gate(Gate.APPROVE)),
                signing(plans[2], plans[2].gate(Gate.APPROVE)),
                signing(plans[0], plans[0].gate(Gate.APPROVE)),
                signing(plans[3], plans[3].gate(Gate.APPROVE, "alice")),
            ],
        )
        assert [error_of(answers[each]).reason for each in (1, 2, 5, 6)] == [
            "GATE_NONCE_REUSED", "FIELD_INVALID", "GATE_ALREADY_OPEN", "GATE_ROLE",
        ]  # fmt: skip
        assert [len(answers[each].plan.gates) for each in (0, 3, 4)] == [2, 2, 2]
        for plan, gates in zip(plans, (2, 2, 2, 1), strict=True):
            (row,) = await world.rows("select count(*) as gates from gate_signature where plan_id = $1", plan.plan_id)
            assert row["gates"] == gates
        await world.reaches(plans[0], "PREPARED")
        await world.reaches(plans[2], "PREPARED")


async def test_releases_in_a_batch(world: Any) -> None:
    """Each release is checked as it is alone: one over other votes is refused, the others decide their plans."""
    async with world.coordinator():
        plans = [await world.started() for _ in range(3)]
        votes = [[vote_from_pb(leg.vote) for leg in (await world.reaches(each, "PREPARED")).legs] for each in plans]
        requests = [signing(plan, plan.gate(Gate.RELEASE, votes=own)) for plan, own in zip(plans, votes, strict=True)]
        requests[1].signature.CopyFrom(gate_to_pb(plans[1].gate(Gate.RELEASE, votes=votes[0])))
        assert told(await signed(world.api, requests)) == ["EXECUTING", "GATE_VOTES_DIGEST", "EXECUTING"]
        assert (await world.get(plans[1])).state == STATE.PLAN_STATE_PREPARED


async def test_a_plan_that_another_replica_holds(world: Any) -> None:
    """It is refused by itself; the others of the batch are done."""
    async with world.coordinator():
        plans = [delivery_versus_payment() for _ in range(2)]
        await created(world.api, [create_request(each) for each in plans])
        await world.rows(
            "update lease set owner = 'another', expires_at = 'infinity' where resource_id = $1 returning 1", plans[0].plan_id
        )
        answers = await executed(world.api, [execution(each) for each in plans])
        assert told(answers) == ["PLAN_HELD_ELSEWHERE", "PRECONDITIONS_PENDING"]
        assert error_of(answers[0]).code is grpc.StatusCode.UNAVAILABLE


async def test_a_batch_is_one_transaction(world: Any) -> None:
    """All of a batch is written at once, and calls that wait at the same time are taken together."""
    async with world.coordinator():
        await created(world.api, [create_request(delivery_versus_payment()) for _ in range(40)])
        assert len(await world.rows("select distinct xmin::text from request")) == 1
        plans = [delivery_versus_payment() for _ in range(40)]
        requests = [create_request(each) for each in plans]
        answers = await asyncio.gather(*(world.api.CreatePlan(each, timeout=SECONDS) for each in requests))
        assert [each.plan.header.plan_id for each in answers] == [each.plan_id for each in plans]
        rows = await world.rows("select distinct xmin::text from plan where plan_id = any($1)", [each.plan_id for each in plans])
        assert len(rows) <= 20
    assert len(await world.rows("select from plan")) == 80


async def test_how_large_a_batch_may_be(world: Any) -> None:
    """1 to 256 requests, and so many octets; a batch that is neither is refused as a whole, and nothing is done."""
    async with world.coordinator():
        for count in (0, 257):
            batch = messages.SignGatesRequest(requests=[messages.SignGateRequest()] * count)
            found = await refusal(world.api.SignGates(batch, timeout=SECONDS))
            assert (found.reason, found.metadata["field"], found.message) == (
                "FIELD_INVALID",
                "requests",
                "requests must be 1 to 256",
            )
        assert told(await signed(world.api, [messages.SignGateRequest()] * 256)) == ["FIELD_INVALID"] * 256
        large = create_request(delivery_versus_payment())
        large.legs[1].credit_transfer.remittance = "x" * 300_000
        answers = await created(world.api, [large, create_request(delivery_versus_payment())])
        assert told(answers) == ["FIELD_INVALID", "DRAFT"]
        found = await refusal(world.api.CreatePlans(messages.CreatePlansRequest(requests=[large] * 8), timeout=SECONDS))
        assert found.reason == "REQUEST_TOO_LARGE"


async def test_answers_that_do_not_fit(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits no more was done all the same, says so, and is answered when it is asked for again."""
    monkeypatch.setattr(coordinator.batches, "ANSWERS_BYTES_MAX", 3_000)
    async with world.coordinator():
        requests = [create_request(delivery_versus_payment()) for _ in range(4)]
        answers = await created(world.api, requests)
        assert told(answers)[0] == "DRAFT"
        left = [request for request, answer in zip(requests, told(answers), strict=True) if answer == "ANSWERS_TOO_LARGE"]
        assert left
        assert len(await world.rows("select from plan")) == 4
        for each in left:
            assert told(await created(world.api, [each])) == ["DRAFT"]
    assert len(await world.rows("select from plan")) == 4


async def test_a_batch_is_no_way_around_the_rate(world: Any) -> None:
    """Its requests count as they would alone: who has sent a batch waits as long as after so many calls."""
    world.listen = ListenSettings(limits=ServingLimits(clients=CallerLimits(calls_per_second=1, calls_burst=100)))
    async with world.coordinator():
        await created(world.api, [create_request(delivery_versus_payment()) for _ in range(20)])
        found = await refusal(world.api.CreatePlan(create_request(delivery_versus_payment()), timeout=SECONDS))
        assert found.reason == "CALLS_TOO_FAST"
        other = messages.SignGatesRequest(requests=[messages.SignGateRequest()])
        assert (await refusal(world.api.SignGates(other, timeout=SECONDS))).reason == "CALLS_TOO_FAST"
    assert len(await world.rows("select from plan")) == 20


async def _nothing_taken(connection: Any, ids: Any, nonces: Any) -> accepting.Taken:
    return accepting.Taken(frozenset(), frozenset(), frozenset())


def _blind_at_first() -> Any:
    read, calls = requests_store.read, []

    async def blind(connection: Any, asked: Any) -> Any:
        calls.append(asked)
        known = await read(connection, asked)
        return replace(known, answers={}) if len(calls) == 1 else known

    return blind


@pytest.mark.parametrize("race", ["plan", "nonce", "request"])
async def test_another_replica_is_faster(world: Any, monkeypatch: pytest.MonkeyPatch, race: str) -> None:
    """What the database alone turns away, since it was not there when it was looked for, is refused by itself, and the others of the batch are done."""
    async with world.coordinator():
        first = delivery_versus_payment()
        make = first.gate(Gate.MAKE)
        known = create_request(first, make=make)
        await world.api.CreatePlan(known, timeout=SECONDS)
        good = [create_request(delivery_versus_payment()) for _ in range(3)]
        plan = delivery_versus_payment()
        late = {
            "plan": create_request(first),
            "nonce": create_request(plan, make=again_with_nonce(plan, Gate.MAKE, make, "alice")),
            "request": create_request(plan, request_id=known.request_id),
        }[race]
        if race == "request":
            monkeypatch.setattr(requests_store, "read", _blind_at_first())
        else:
            monkeypatch.setattr(accepting, "taken", _nothing_taken)
        found = told(await created(world.api, [good[0], late, *good[1:]]))
        expected = {"plan": "PLAN_EXISTS", "nonce": "GATE_NONCE_REUSED", "request": "REQUEST_ID_REUSED"}[race]
        assert found == ["DRAFT", expected, "DRAFT", "DRAFT"]
    assert len(await world.rows("select from plan")) == len(await world.rows("select from request")) == 4


async def test_a_request_that_another_replica_does_at_the_same_time(world: Any) -> None:
    """Two replicas that are sent the same batches at the same time do each request once, and give the same answers."""
    async with world.coordinator() as _, world.coordinator():
        one = world.api
        second_port = world.port
        two = world.stub(second_port)
        plans = [delivery_versus_payment() for _ in range(10)]
        batch = [create_request(each) for each in plans]
        for _ in range(3):
            found = await asyncio.gather(created(one, batch), created(two, batch))
            assert found[0] == found[1]
        assert told(found[0]) == ["DRAFT"] * 10
    assert len(await world.rows("select from plan")) == len(await world.rows("select from request")) == 10
