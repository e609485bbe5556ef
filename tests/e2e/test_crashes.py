"""Every process is killed with SIGKILL in the middle of a plan; after its restart the plan completes, with each effect exactly once."""

from __future__ import annotations

import pytest

from lockstep_sandbox.stack import BANK, Sandbox
from lockstep_testkit.crew import Crew, draw_address

DEATH_SECONDS_MAX = 180.0


async def test_the_coordinator_dies_while_executing(sandbox: Sandbox, crew: Crew) -> None:
    """Killed after its decision is written and before anybody is told, the coordinator tells everybody once it is back."""
    payee = draw_address()
    plan_id = (await crew.started(crew.payments(payee=payee))).header.plan_id
    waiting = await crew.awaiting(plan_id, "release")
    # Other plans may still have to be told something: only this one's commands kill.
    await crew.arm("coordinator", f"coordinator.commit.before_send=kill/{plan_id}")
    try:
        # The answer may be lost with the process: the signature is not.
        request = crew.gate_request(waiting, "release")
        told = crew.sent_until_told(request)
        assert await sandbox.supervisor.wait_until_ended("coordinator", DEATH_SECONDS_MAX) == -9
        async with crew.database("coordinator") as database:
            assert await database.fetchval("select state from plan where plan_id = $1", plan_id) == "EXECUTING"
        assert await crew.transfers_to(payee) == []
    finally:
        await crew.disarm("coordinator")
    await told
    await crew.driven(plan_id)
    await crew.assert_settled_once(plan_id, payee)


@pytest.mark.parametrize(
    ("service", "failpoint"),
    [
        ("dlt-gateway", "dlt-gateway.chain.broadcast.after_send=kill"),
        ("bank-gateway", "bank-gateway.send.after_send=kill"),
        ("notary", "notary.chain.broadcast.after_send=kill"),
        ("event-journal", "event-journal.append.after_commit=kill@5"),
    ],
)
async def test_a_participant_dies_before_it_knows_that_it_acted(sandbox: Sandbox, crew: Crew, service: str, failpoint: str) -> None:
    """Killed between an effect and its own record or answer, a participant neither repeats nor forgets the effect."""
    payee = draw_address()
    await crew.arm(service, failpoint)
    try:
        plan_id = (await crew.started(crew.payments(payee=payee))).header.plan_id
        driving = crew.driving(plan_id)
        assert await sandbox.supervisor.wait_until_ended(service, DEATH_SECONDS_MAX) == -9
    finally:
        await crew.disarm(service)
    await driving
    await crew.assert_settled_once(plan_id, payee)


async def test_the_bank_dies_in_the_middle(sandbox: Sandbox, crew: Crew) -> None:
    """Killed while it holds the money, the bank settles the payment once when it is back."""
    payee = draw_address()
    plan_id = (await crew.started(crew.payments(payee=payee))).header.plan_id
    waiting = await crew.awaiting(plan_id, "release")
    await sandbox.supervisor.kill9(BANK)
    try:
        await crew.client.sign_gate(plan_id, crew.signature(waiting, "release"))
    finally:
        await sandbox.supervisor.restart(BANK)
    await crew.driven(plan_id)
    await crew.assert_settled_once(plan_id, payee)
