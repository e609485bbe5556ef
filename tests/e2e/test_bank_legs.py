"""Plans whose money moves in each of the bank leg's profiles, with files as the way to the bank: settled and given up, and the day reconciled."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from bank_gateway.messages import Kind
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.participant.v1 import leg_pb2
from lockstep_client.convert import state_name
from lockstep_client.journal_chain import verify_chain
from lockstep_kit import ids
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.registry_file import load_registry
from lockstep_kit.statements import Gate
from lockstep_sandbox import outside, scene
from lockstep_sandbox.runtime import RuntimeDirectory
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.checker import collect, judge
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew, draw_address

SECONDS_MAX: Final = 180.0
PROFILES: Final = ("reservation", "plain", "conditional")
#: What is at the bank about a payment that is promised and not made: our messages about it, and its reservation.
PROMISED: Final = {
    "reservation": ([], "RESERVED"),
    "plain": ([], None),
    "conditional": ([Kind.PAYMENT], None),
}
#: And where the ledger has its money.
PLACES: Final = {"reservation": "HELD", "plain": "INSTRUCTED", "conditional": "HELD"}
#: What is left of the reservation of a plan that settled, and of one that was given up.
LEFT: Final = {"reservation": ("PAID", "DELETED"), "plain": (None, None), "conditional": (None, None)}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def installation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """An installation of its own, since the rail of a bank is one for all of its legs."""
    async with Sandbox(RuntimeDirectory.create(tmp_path_factory.mktemp("files")), by_files=True) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(installation: Sandbox) -> AsyncIterator[Crew]:
    """The people around it."""
    async with Crew(installation) as crew:
        yield crew


def uetr_of(plan: settlement.Plan) -> str:
    return ids.uetr(PlanId(plan.header.plan_id), LegId("cash"))


async def received(installation: Sandbox, plan: settlement.Plan) -> list[str]:
    """Definitions of the messages that the bank has about a payment, oldest first."""
    found = (await outside.bank(installation, "/messages", uetr=uetr_of(plan)))["received"]
    return [each["kind"] for each in found[::-1]]


async def reservation(installation: Sandbox, plan: settlement.Plan) -> str | None:
    found = (await outside.bank(installation, "/reservations", uetr=uetr_of(plan)))["reservations"]
    return str(found[0]["state"]) if found else None


async def on_the_books(people: Crew, plan: settlement.Plan) -> dict[str, int]:
    """Where the gateway's ledger has the money of a plan's payment, by the kind of account."""
    async with people.database("bank-gateway") as database:
        entries = await database.fetch("select debit, credit, amount from ledger_entry where uetr = $1", uetr_of(plan))
    sums: dict[str, int] = {}
    for entry in entries:
        for side, amount in (("debit", -entry["amount"]), ("credit", entry["amount"])):
            kind = entry[side].rpartition("/")[2]
            sums[kind] = sums.get(kind, 0) + amount
    return {kind: amount for kind, amount in sums.items() if amount}


async def assert_recorded(people: Crew, plan: settlement.Plan) -> None:
    """The plan's chain in the journal is valid and sealed."""
    plan_id = PlanId(plan.header.plan_id)
    verdict = verify_chain(await people.entries(plan_id), plan_id, load_registry(people.configuration.registry_file))
    assert verdict.valid, verdict.findings
    assert verdict.sealed


async def assert_right(installation: Sandbox, plan: settlement.Plan) -> None:
    """Neither the checker nor the bank's own audit finds anything wrong."""
    judgement = judge(await collect(installation, focus=[plan.header.plan_id]))
    assert [f"{each.invariant} {each.leg_id} {each.sentence}" for each in judgement.violations] == []
    assert (await outside.bank(installation, "/audit"))["violations"] == []


async def reconciled(installation: Sandbox, day: str) -> tuple[int, dict[str, Any]]:
    """What `lockstep reconcile` says of a day, once the payer's account was reconciled."""
    give_up = time.monotonic() + SECONDS_MAX
    while True:
        code, out, errors = await lockstep("reconcile", "--date", day, "--json", sandbox=installation, seconds_max=SECONDS_MAX)
        assert out, errors
        document: dict[str, Any] = json.loads(out.splitlines()[0])
        if scene.BUYER.iban in {each["account"] for each in document["accounts"]}:
            return code, document
        assert time.monotonic() < give_up, document
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("profile", PROFILES)
async def test_settles_and_is_given_up(installation: Sandbox, people: Crew, profile: str) -> None:
    """By the bank's book, the chain, the ledger and the journal one plan settles once and one leaves nothing; their day is reconciled without a break."""
    await installation.change("bank-gateway", profile=profile)
    await outside.bank_command(installation, "/end-of-day", {})
    payee, unpaid = draw_address(), draw_address()
    settling, ending = await asyncio.gather(
        people.started(people.payments(payee=payee)), people.started(people.payments(payee=unpaid))
    )
    waiting, _ = await asyncio.gather(*(people.awaiting(each.header.plan_id, "release") for each in (ending, settling)))
    for plan in (settling, ending):
        assert (await received(installation, plan), await reservation(installation, plan)) == PROMISED[profile]
        assert await on_the_books(people, plan) == {"LINE": -100_00, PLACES[profile]: 100_00}
    await people.client.cancel_plan(ending.header.plan_id, people.signature(waiting, Gate.CANCEL.name.lower(), person="maker"))
    settled, ended = await asyncio.gather(*(people.driven(each.header.plan_id) for each in (settling, ending)))

    assert (state_name(settled.state), settled.outcome) == ("CLOSED", leg_pb2.PLAN_OUTCOME_COMMITTED)
    await people.assert_settled_once(settled.header.plan_id, payee)
    assert (await received(installation, settled)).count(Kind.PAYMENT) == 1
    assert await on_the_books(people, settled) == {"LINE": -100_00, "SETTLED": 100_00}
    assert settled.delegated_leg_id == "cash"

    assert ended.outcome == leg_pb2.PLAN_OUTCOME_ABORTED
    await people.assert_nothing_moved(ended.header.plan_id, unpaid)
    assert (Kind.PAYMENT in await received(installation, ended)) is (profile == "conditional")
    assert await on_the_books(people, ended) == {}
    assert (await reservation(installation, settled), await reservation(installation, ended)) == LEFT[profile]
    for plan in (settled, ended):
        await assert_recorded(people, plan)
        await assert_right(installation, plan)

    day = (await outside.bank_command(installation, "/end-of-day", {}))["day"]
    code, document = await reconciled(installation, day)
    (plan,) = document["plans"]
    assert (plan["plan_id"], {leg["leg_id"]: leg["result"] for leg in plan["legs"]}) == (
        settled.header.plan_id, {"bonds": "MATCHED", "cash": "MATCHED"},
    )  # fmt: skip
    assert (code, document["breaks"]) == (0, [])
