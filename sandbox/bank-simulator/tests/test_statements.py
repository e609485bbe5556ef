"""Statements: what was booked, day by day and account by account, to the cent; stated once, and wrongly only where the bank was told to."""

from __future__ import annotations

import asyncio
import time
from datetime import date, timedelta
from decimal import Decimal

import pytest
from bank_world import ALICE, BOB, LORO, THIN, WAIT_SECONDS, Answer, Gateway, Order, World


async def end_day(gateway: Gateway) -> date:
    return date.fromisoformat((await gateway.control("POST", "/end-of-day"))["day"])


async def statements(gateway: Gateway) -> dict[str, list[Answer]]:
    """What is in the mailbox now, page by page, by account."""
    found: dict[str, list[Answer]] = {}
    for answer in await gateway.rest():
        assert answer.kind == "camt.053", answer.body
        found.setdefault((answer.all("IBAN") or answer.all("Id"))[0], []).append(answer)
    return found


def balances(answer: Answer) -> tuple[Decimal, Decimal]:
    """Opening and closing balance; negative where the holder owes."""
    signed = [Decimal(each["Amt"]) * (-1 if each["CdtDbtInd"] == "DBIT" else 1) for each in answer.items("Bal")]
    assert [each["Cd"] for each in answer.items("Bal")] == ["OPBD", "CLBD"]
    return signed[0], signed[1]


def entries(answer: Answer) -> list[tuple[Decimal, str]]:
    """(Amount, UETR or the bank's own code) of each entry; negative where the holder was debited."""
    found = [
        (Decimal(each["Amt"]) * (-1 if each["CdtDbtInd"] == "DBIT" else 1), each.get("UETR") or each["Cd"])
        for each in answer.items("Ntry")
    ]
    assert sum(amount for amount, _ in found) == balances(answer)[1] - balances(answer)[0]
    return found


async def booked(gateway: Gateway, order: Order) -> Order:
    await gateway.hold(order)
    assert await gateway.release(order) == 202
    await gateway.next("pacs.002")
    await gateway.next("camt.054")
    return order


async def test_a_day(gateway: Gateway) -> None:
    """Openings, payments and credit are stated on both sides; a hold is not; the next day opens as this one closed, and numbers count on."""
    paid = await booked(gateway, Order(amount="100.00"))
    lent = await booked(gateway, Order(amount="70.00", debtor=THIN, debtor_name=None, creditor=ALICE))
    held = await gateway.hold(Order(amount="5.00"))
    first = await end_day(gateway)
    told = await statements(gateway)
    assert LORO not in told
    (alice,), (bob,), (thin,) = told[ALICE], told[BOB], told[THIN]
    assert entries(alice) == [
        (Decimal("1000.00"), "OPENING"),
        (Decimal("-100.00"), str(paid.uetr)),
        (Decimal("70.00"), str(lent.uetr)),
    ]
    assert entries(bob)[1:] == [(Decimal("100.00"), str(paid.uetr))]
    assert entries(thin)[1:] == [(Decimal("40.00"), "DRAW"), (Decimal("-70.00"), str(lent.uetr))]
    assert balances(alice) == (Decimal(0), Decimal("970.00"))
    assert (alice.all("ElctrncSeqNb"), alice.all("PgNb"), alice.all("LastPgInd")) == (["1"], ["1"], ["true"])
    assert {each["Dt"] for each in alice.items("BookgDt")} == {first.isoformat()}
    assert await gateway.release(held) == 202
    await gateway.next("pacs.002")
    (booking_day,) = {each["Dt"] for each in (await gateway.next("camt.054")).items("BookgDt")}
    assert date.fromisoformat(booking_day) == first + timedelta(days=1)
    await end_day(gateway)
    (alice,) = (await statements(gateway))[ALICE]
    assert (balances(alice), alice.all("ElctrncSeqNb")) == ((Decimal("970.00"), Decimal("965.00")), ["2"])
    assert entries(alice) == [(Decimal("-5.00"), str(held.uetr))]
    await gateway.conserved()


async def test_who_gets_which(world: World) -> None:
    """A counterparty gets the accounts that it may instruct for, and no others."""
    async with world.open_to_both() as (gateway, other):
        day = await end_day(gateway)
        assert set(await statements(other)) == {BOB}
        assert (await gateway.control("POST", "/statements", json={"day": day.isoformat(), "account": BOB}))["messages"] == 2


async def test_a_correction(gateway: Gateway) -> None:
    """A statement that is made anew has the same number and another identification; a day that is not over is not stated."""
    day = await end_day(gateway)
    (first,) = (await statements(gateway))[ALICE]
    await gateway.control("POST", "/statements", json={"day": day.isoformat(), "account": ALICE})
    (second,) = (await statements(gateway))[ALICE]
    assert first.all("ElctrncSeqNb") == second.all("ElctrncSeqNb") == ["1"]
    assert first.items("Stmt")[0]["Id"] != second.items("Stmt")[0]["Id"]
    with pytest.raises(AssertionError, match="not over"):
        await gateway.control("POST", "/statements", json={"day": (day + timedelta(days=1)).isoformat(), "account": ALICE})


@pytest.mark.parametrize(
    ("kind", "stated"),
    [
        ("omit_entry", []),
        ("misstate_entry", [Decimal("-100.01")]),
        ("repeat_entry", [Decimal("-100.00"), Decimal("-100.00")]),
        ("add_entry", [Decimal("-100.00"), Decimal("-0.01")]),
    ],
)
async def test_misstatements(gateway: Gateway, kind: str, stated: list[Decimal]) -> None:
    """A statement that is wrong adds up all the same; the books are right, and the next day opens with what they say."""
    await end_day(gateway)
    await statements(gateway)
    await booked(gateway, Order(amount="100.00"))
    await gateway.misbehave(kind, debtor_account=ALICE)
    await end_day(gateway)
    (alice,) = (await statements(gateway))[ALICE]
    assert [amount for amount, _ in entries(alice)] == stated
    await end_day(gateway)
    (alice,) = (await statements(gateway))[ALICE]
    assert balances(alice) == (Decimal("900.00"), Decimal("900.00"))
    await gateway.conserved()


async def test_a_wrong_balance(gateway: Gateway) -> None:
    """The closing balance is a cent away from what the entries come to."""
    await gateway.misbehave("misstate_balance", debtor_account=ALICE)
    await end_day(gateway)
    (alice,) = (await statements(gateway))[ALICE]
    assert balances(alice) == (Decimal(0), Decimal("1000.01"))


async def test_stated_after_a_crash(world: World) -> None:
    """A day that was closed and not stated is stated when the bank opens again, once."""
    async with world.open() as gateway:
        await booked(gateway, Order(amount="100.00"))
    async with world.inside() as books:
        await books.execute("insert into closed_days select day from bank_day")
        await books.execute("update bank_day set day = day + 1")
        for _ in range(2):
            async with world.open() as gateway:
                give_up = time.monotonic() + WAIT_SECONDS
                while time.monotonic() < give_up:
                    if not await books.fetchval("select count(*) from closed_days where stated_at is null"):
                        break
                    await asyncio.sleep(0.05)
        stated = await books.fetch(
            "select account_id, count(*) as times from statements where counterparty = 'bank-gateway' group by account_id"
        )
        assert {row["account_id"]: row["times"] for row in stated}[ALICE] == 1
        assert await books.fetchval("select count(*) from closed_days where stated_at is null") == 0
