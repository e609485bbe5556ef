"""What the real bank's messages can suffer on their way: broken, renamed, out of order, lost. Each ends as docs/bank.md says, and money is conserved."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from real_bank import PAYEE, RICH, Bank, Gateway, transfer, until

from lockstep_kit.fence import Phase
from lockstep_testkit.factories import PlanCase

HOW = ("truncated", "entity", "encoding", "schema", "definition")


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _conserved(bank: Bank) -> AsyncIterator[None]:
    """Whatever a test did, the bank's books are right after it."""
    yield
    await bank.behave()
    await bank.sound()


async def settled(gateway: Gateway, plan: PlanCase) -> None:
    await gateway.held(plan)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


async def quarantined_last(gateway: Gateway) -> tuple[str, str]:
    *_, row = await gateway.rows("select * from bank_quarantine order by id")
    return row["field"], row["rule"]


@pytest.mark.parametrize("message", ["pacs.002", "camt.054"])
@pytest.mark.parametrize("how", HOW)
async def test_broken_answer(gateway: Gateway, how: str, message: str) -> None:
    """A broken status or booking is quarantined by field and rule and changes nothing; a question brings it whole, and the leg settles."""
    await gateway.bank.misbehave("garble", how=how, message=message)
    plan = transfer()
    await settled(gateway, plan)
    held = await gateway.rows("select * from bank_quarantine order by id")
    assert held
    field, rule = await quarantined_last(gateway)
    assert field
    assert rule.startswith("must")
    kept = {row["octets"] for row in await gateway.kept(plan, "IN")}
    assert kept.isdisjoint(row["octets"] for row in held)


@pytest.mark.parametrize("how", HOW)
async def test_broken_resolution(gateway: Gateway, how: str) -> None:
    """A broken answer to a cancellation releases nothing; asked again, the bank says it whole, and the leg is released."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("garble", how=how, message="camt.029")
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    assert await gateway.bank.state(plan) == "CANCELLED"
    assert await gateway.bank.booked(plan) == {}
    assert (await quarantined_last(gateway))[0]


@pytest.mark.parametrize("message", ["pacs.002", "camt.054"])
async def test_wrong_uetr(gateway: Gateway, message: str) -> None:
    """What names another payment is an open matter of the leg whose reference it names; the leg itself is asked about, and settles once."""
    await gateway.bank.misbehave("misname", message=message)
    plan = transfer()
    await settled(gateway, plan)
    matters = [row for row in await gateway.matters() if row["plan_id"] == plan.plan_id]
    assert [row["kind"] for row in matters] == ["UNKNOWN_PAYMENT"] * len(matters)
    assert matters
    assert (await gateway.record(plan)).trouble


async def test_wrong_uetr_in_a_resolution(gateway: Gateway) -> None:
    """A resolution that names another payment releases nothing here; the bank is asked again, and releases."""
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("misname", message="camt.029")
    await gateway.abort(plan)
    await gateway.reaches(plan, Phase.RELEASED)
    assert await gateway.bank.state(plan) == "CANCELLED"


@pytest.mark.parametrize("field", ["amount", "currency"])
async def test_wrong_amount_or_currency(gateway: Gateway, field: str) -> None:
    """A booking of another amount or currency settles nothing by itself and stays a person's business; the right one, asked for, settles."""
    await gateway.bank.misbehave("misbook", field=field)
    plan = transfer()
    await gateway.held(plan)
    await gateway.commit(plan)

    async def opened() -> list[str]:
        return [row["kind"] for row in await gateway.matters() if row["plan_id"] == plan.plan_id]

    assert set(await until(opened, "matter")) == {"BOOKING_DIFFERS"}
    assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


async def test_booking_before_its_status(gateway: Gateway) -> None:
    """The status comes after the booking that the same release brought: settled, and nothing was asked."""
    gateway.changes = {"inquiry_seconds": 600.0, "inquiry_seconds_max": 600.0}
    await gateway.close()
    await gateway.open()
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("reorder", message="pacs.002")
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    kinds = [row["kind"] for row in await gateway.kept(plan, "IN")]
    assert kinds == ["pacs.002.001.15", "camt.054.001.13", "pacs.002.001.15"]
    assert (await gateway.record(plan)).trouble == ""
    assert await gateway.bank.postings(plan) == ["HOLD", "SETTLE"]


@pytest.mark.parametrize(("times", "stage"), [(1, "hold"), (2, "hold"), (1, "release"), (2, "release")])
async def test_lost_status(gateway: Gateway, times: int, stage: str) -> None:
    """A status that is lost, also when it is asked for, is asked for again; the leg settles, and the bank books once."""
    plan = transfer()
    if stage == "hold":
        await gateway.bank.misbehave("lose", message="pacs.002", times=times)
        await settled(gateway, plan)
        return
    await gateway.held(plan)
    await gateway.bank.misbehave("lose", message="pacs.002", times=times)
    await settled(gateway, plan)
