"""Commands that their participant will never take as they are: given up at once, called out, and sent again when somebody asks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from lockstep.coordinator.v1 import operator_service_pb2 as messages
from lockstep.coordinator.v1.operator_service_pb2_grpc import OperatorServiceStub
from lockstep_kit.errors import from_rpc
from lockstep_kit.plan import LegKind
from lockstep_kit.rpc import channel
from lockstep_testkit.factories import PlanCase, delivery_versus_payment

CLIENT = "spiffe://lockstep.local/client/test"
DEADLINE_SECONDS = 60.0


@asynccontextmanager
async def operators(world: Any, **changes: Any) -> AsyncIterator[OperatorServiceStub]:
    async with world.coordinator(**changes):
        made = channel(f"127.0.0.1:{world.port}", world.tls_for(CLIENT))
        yield OperatorServiceStub(made)
        await made.close()


async def letters(stub: OperatorServiceStub, *, replayed: bool = False) -> list[messages.DeadLetter]:
    request = messages.ListDeadLettersRequest(include_replayed=replayed)
    return list((await stub.ListDeadLetters(request, timeout=DEADLINE_SECONDS)).dead_letters)


def replay(letter: messages.DeadLetter, request_id: str = "") -> messages.ReplayDeadLetterRequest:
    return messages.ReplayDeadLetterRequest(request_id=request_id or str(uuid.uuid4()), dead_letter_id=letter.dead_letter_id)


async def dead(world: Any) -> PlanCase:
    """A plan whose bank gateway takes no credit transfers any more when it is told to execute one."""
    plan: PlanCase = await world.started()
    await world.reaches(plan, "PREPARED")
    world.parties["bank-gateway"].operations.kinds = ()
    await world.release(plan)
    await world.until(plan, lambda found: any(each.reason == "COMMAND_DEAD" for each in found.escalations))
    return plan


async def test_a_dead_letter_is_sent_again(world: Any) -> None:
    """What a participant will never take is not repeated; it calls a person, and settles once it is sent again and taken."""
    async with operators(world) as stub:
        plan = await dead(world)
        (letter,) = await letters(stub)
        assert (letter.plan_id, letter.leg_id, letter.command) == (plan.plan_id, "cash", "COMMIT")
        assert (letter.reason, letter.attempt_count) == ("LEG_KIND_NOT_SERVED", 1)
        attempts = "select attempts from leg_command where plan_id = $1 and leg_id = 'cash' and command = 'COMMIT'"
        (row,) = await world.rows(attempts, plan.plan_id)
        assert row["attempts"] == 1
        world.parties["bank-gateway"].operations.kinds = (LegKind.CREDIT_TRANSFER,)
        request = replay(letter)
        once = await stub.ReplayDeadLetter(request, timeout=DEADLINE_SECONDS)
        assert once.dead_letter.replayed_by == CLIENT
        assert await stub.ReplayDeadLetter(request, timeout=DEADLINE_SECONDS) == once
        again = await stub.ReplayDeadLetter(replay(letter), timeout=DEADLINE_SECONDS)
        assert again.dead_letter.replay_time == once.dead_letter.replay_time
        await world.reaches(plan, "VALIDATING")
        assert await letters(stub) == []
        assert [each.dead_letter_id for each in await letters(stub, replayed=True)] == [letter.dead_letter_id]


async def test_one_that_is_not_taken_again_is_another_letter(world: Any) -> None:
    """A replayed command that is rejected again is a new letter; the first one stays as it was."""
    async with operators(world) as stub:
        plan = await dead(world)
        (first,) = await letters(stub)
        await stub.ReplayDeadLetter(replay(first), timeout=DEADLINE_SECONDS)
        for _ in range(1200):
            found = await letters(stub)
            if found:
                break
            await asyncio.sleep(0.05)
        assert found[0].dead_letter_id != first.dead_letter_id
        assert len(await letters(stub, replayed=True)) == 2
        assert [each.reason for each in (await world.get(plan)).escalations] == ["COMMAND_DEAD"]


async def test_an_unknown_letter(world: Any) -> None:
    """A letter that does not exist is not found, and its request id stays free."""
    async with operators(world) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ReplayDeadLetter(replay(messages.DeadLetter(dead_letter_id="none")), timeout=DEADLINE_SECONDS)
    assert from_rpc(refused.value).reason == "DEAD_LETTER_NOT_FOUND"
    assert not await world.rows("select from request")


async def test_what_nobody_can_promise_is_given_up(world: Any) -> None:
    """Before the decision a command that cannot be taken as it is aborts its plan at once, with the participant's reason."""
    async with operators(world, capability_seconds=3_600.0) as stub:
        await world.settled()
        world.parties["bank-gateway"].operations.kinds = ()
        plan = delivery_versus_payment()
        await world.create(plan)
        await world.execute(plan)
        found = await world.reaches(plan, "ABORTED")
        assert (found.reason, found.reason_leg_id) == ("LEG_KIND_NOT_SERVED", "cash")
        # Whether it holds anything nobody can say then: its Abort must not be lost.
        assert "PREPARE" not in {each.command for each in await letters(stub, replayed=True)}
