"""The bank as an adversary: it does wrong exactly what it was told, as often as it was told, and its books stay right."""

from __future__ import annotations

import asyncio
import uuid

import aiohttp
import asyncpg
import pytest
from bank_world import ALICE, BOB, Answer, Gateway, Order, World

from bank_simulator.misbehaviour import ActiveScript, Kind, Mischief, Script, Subject


async def test_lost_answer(gateway: Gateway) -> None:
    """A lost answer never comes by itself; a question brings it."""
    await gateway.misbehave("lose", message="pacs.002")
    order = Order()
    await gateway.pay(order)
    await gateway.nothing()
    assert await gateway.state(order) == "HELD"
    await gateway.ask(order.uetr)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACFW", None)}


async def test_late_answer(world: World) -> None:
    """A late answer comes when it is due, also after a restart, and a question meanwhile does not bring it earlier."""
    order = Order()
    async with world.open() as gateway:
        await gateway.misbehave("delay", delay_ms=3_600_000, uetr=str(order.uetr))
        await gateway.pay(order)
        await gateway.ask(order.uetr)
        await gateway.nothing()
    async with world.open() as gateway:
        await gateway.nothing()
    connection = await asyncpg.connect(world.owner_url)
    try:
        # The hour is over, but for two seconds.
        await connection.execute("update deferred_messages set due_at = clock_timestamp() + interval '2 seconds'")
    finally:
        await connection.close()
    async with world.open() as gateway:
        assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACFW", None)}


async def test_what_is_said_now(gateway: Gateway) -> None:
    """What is late of a payment comes when it is told to, by kind, in the order in which it was made; of another payment nothing comes."""
    await gateway.misbehave("delay", delay_ms=3_600_000, times=4)
    order, other = Order(amount="1.00", conditional=False), Order()
    await gateway.pay(order)
    await gateway.pay(other)
    await gateway.nothing()
    assert await gateway.control("POST", f"/payments/{order.uetr}/deliver?message=camt.054") == {"delivered": 1}
    await gateway.next("camt.054")
    await gateway.nothing()
    assert await gateway.control("POST", f"/payments/{order.uetr}/deliver") == {"delivered": 1}
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    assert await gateway.control("POST", f"/payments/{order.uetr}/deliver") == {"delivered": 0}


async def test_a_hold_that_ends_now(gateway: Gateway) -> None:
    """A hold ends when it is told to, once; where there is none nothing happens."""
    order = await gateway.hold()
    assert await gateway.control("POST", f"/payments/{order.uetr}/expire") == {"expired": True}
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "AB03")}
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    for uetr in (order.uetr, uuid.uuid4()):
        assert await gateway.control("POST", f"/payments/{uetr}/expire") == {"expired": False}
    await gateway.conserved()


async def test_doubled_answer(gateway: Gateway) -> None:
    """A doubled answer is the same bytes twice."""
    await gateway.misbehave("duplicate", copies=3)
    await gateway.pay(Order())
    answers = [await gateway.next("pacs.002") for _ in range(3)]
    assert len({answer.body for answer in answers}) == 1
    assert [answer.cursor for answer in answers] == [1, 2, 3]


async def test_refused_payment(gateway: Gateway) -> None:
    """A payment of this debtor is refused as often as told, and then no longer."""
    await gateway.misbehave("refuse", stage="payment", reason="RR04", debtor_account=ALICE, times=2)
    for _ in range(2):
        order = Order()
        await gateway.pay(order)
        assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "RR04")}
    await gateway.hold()
    await gateway.conserved()


async def test_refused_release(gateway: Gateway) -> None:
    """A release that the bank refuses ends the hold: the promise is broken, the money is back with the debtor."""
    order = await gateway.hold()
    await gateway.misbehave("refuse", stage="release", reason="AC04", uetr=str(order.uetr))
    assert await gateway.release(order) == 202
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "AC04")}
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    assert await gateway.release(order) == 202
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "AC04")}
    await gateway.conserved()


async def test_refused_cancellation(gateway: Gateway) -> None:
    """A cancellation that the bank refuses leaves the hold."""
    order = await gateway.hold()
    await gateway.misbehave("refuse", stage="cancellation", reason="LEGL")
    await gateway.cancel(order.uetr)
    assert "LEGL" in (await gateway.next("camt.029")).all("Cd")
    assert await gateway.state(order) == "HELD"


async def test_contradiction(gateway: Gateway) -> None:
    """After ACSC comes RJCT; what is booked stays booked, and a question brings the truth."""
    order = await gateway.hold()
    await gateway.misbehave("contradict", stage="release", reason="AM04")
    await gateway.release(order)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    await gateway.next("camt.054")
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "AM04")}
    await gateway.ask(order.uetr)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    assert await gateway.account(BOB) == ("150.00", "0.00", "150.00")
    await gateway.conserved()


@pytest.mark.parametrize("field", ["amount", "uetr", "currency"])
async def test_misbooking(gateway: Gateway, field: str) -> None:
    """A booking is notified with one wrong value; the books themselves are right."""
    order = await gateway.hold()
    await gateway.misbehave("misbook", field=field)
    await gateway.release(order)
    await gateway.next("pacs.002")
    booking = await gateway.next("camt.054")
    told = (booking.all("Amt")[0], booking.all("UETR")[0], booking.all("Ccy")[0])
    right = ("100.00", str(order.uetr), "EUR")
    assert [name for name, one, other in zip(("amount", "uetr", "currency"), told, right, strict=True) if one != other] == [field]
    assert await gateway.account(BOB) == ("150.00", "0.00", "150.00")
    await gateway.conserved()


async def test_early_expiry(gateway: Gateway) -> None:
    """A hold ends long before it was agreed to."""
    await gateway.misbehave("expire_early", delay_ms=200)
    order = await gateway.hold()
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "AB03")}
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    await gateway.conserved()


async def test_booking_without_status(gateway: Gateway) -> None:
    """The release is booked and notified, and no status comes until it is asked for."""
    order = await gateway.hold()
    await gateway.misbehave("book_without_status")
    await gateway.release(order)
    booking = await gateway.next("camt.054")
    await gateway.nothing()
    assert await gateway.state(order) == "SETTLED"
    await gateway.ask(order.uetr)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    assert (await gateway.next("camt.054")).body == booking.body
    await gateway.conserved()


async def test_status_without_booking(gateway: Gateway) -> None:
    """ACSC comes though nothing is booked; the hold stands, and another release settles it."""
    order = await gateway.hold()
    await gateway.misbehave("status_without_booking")
    await gateway.release(order)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    await gateway.nothing()
    assert await gateway.account(BOB) == ("50.00", "0.00", "50.00")
    await gateway.conserved()
    await gateway.release(order)
    await gateway.next("pacs.002")
    await gateway.next("camt.054")
    assert await gateway.account(BOB) == ("150.00", "0.00", "150.00")
    await gateway.conserved()


async def test_control_is_guarded(gateway: Gateway) -> None:
    """The control interface wants its token, and refuses a script that it does not understand."""
    url = str(gateway.control_url)
    async with aiohttp.ClientSession() as session:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            for path in ("/accounts", "/audit", "/misbehaviours"):
                async with session.get(url + path, headers=headers) as response:
                    assert response.status == 401
        async with session.get(f"{url}/health") as response:
            assert await response.json() == {"healthy": True}
    for script in ({"kind": "nonsense"}, {"kind": "lose", "unknown": 1}, {"kind": "delay"}, {"kind": "refuse", "reason": "x"}, {}):
        with pytest.raises(AssertionError):
            await gateway.control("POST", "/misbehaviours", json=script)
    await gateway.misbehave("lose", times=5)
    assert [each["remaining"] for each in (await gateway.control("GET", "/misbehaviours"))["misbehaviours"]] == [5]
    await gateway.control("DELETE", "/misbehaviours")
    await gateway.hold()


async def test_account_status(gateway: Gateway) -> None:
    """An account can be blocked; a payment that is held already still settles, since it was promised."""
    order = await gateway.hold()
    for account in (ALICE, BOB):
        await gateway.control("POST", f"/accounts/{account}/status", json={"status": "BLOCKED"})
    refused = Order()
    await gateway.pay(refused)
    assert (await gateway.next("pacs.002")).statuses() == {refused.uetr: ("RJCT", "AC06")}
    await gateway.release(order)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    await gateway.conserved()


@pytest.mark.parametrize("says", ["ACSC", "ACFW"])
async def test_contradiction_after_a_refusal(gateway: Gateway, says: str) -> None:
    """After RJCT comes the opposite; what was refused stays refused, and a status that is no contradiction is not said."""
    await gateway.misbehave("contradict", stage="payment", says="RJCT")
    await gateway.misbehave("contradict", stage="payment", says=says)
    order = Order("2000.00")
    await gateway.pay(order)
    assert (await gateway.next("pacs.002")).statuses()[order.uetr][0] == "RJCT"
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: (says, None)}
    assert await gateway.state(order) == "REJECTED"
    await gateway.conserved()


async def test_contradiction_after_a_cancellation(gateway: Gateway) -> None:
    """After CNCL comes ACSC; the payment is cancelled all the same, and a question brings the truth."""
    order = await gateway.hold()
    await gateway.misbehave("contradict", stage="cancellation", says="ACSC")
    await gateway.cancel(order.uetr)
    assert (await gateway.next("camt.029")).all("TxCxlSts") == ["ACCR"]
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    await gateway.ask(order.uetr)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "DS02")}
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    await gateway.conserved()


async def test_pending_cancellation(gateway: Gateway) -> None:
    """PDCR, and the hold stays until another request is decided."""
    order = await gateway.hold()
    await gateway.misbehave("pend")
    await gateway.cancel(order.uetr)
    answer = await gateway.next("camt.029")
    assert (answer.all("Conf"), answer.all("TxCxlSts"), await gateway.state(order)) == (["PDCR"], ["PDCR"], "HELD")
    await gateway.cancel(order.uetr)
    assert (await gateway.next("camt.029")).all("TxCxlSts") == ["ACCR"]


async def test_pause(gateway: Gateway) -> None:
    """The request is carried out at once, and only its acknowledgement is kept back; others are not."""
    order, other = Order(), Order()
    await gateway.misbehave("pause", delay_ms=8000, uetr=str(order.uetr), stage="payment")
    paused = asyncio.create_task(gateway.pay(order))
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACFW", None)}
    await gateway.pay(other)
    assert (await gateway.next("pacs.002")).statuses() == {other.uetr: ("ACFW", None)}
    assert not paused.done()
    await paused


async def test_forgotten_requests(gateway: Gateway) -> None:
    """A payment and a release are acknowledged and come to nothing; a question and another release bring them on."""
    lost = Order()
    await gateway.misbehave("forget", stage="payment", uetr=str(lost.uetr))
    await gateway.pay(lost)
    await gateway.nothing()
    await gateway.ask(lost.uetr)
    assert (await gateway.next("pacs.002")).statuses() == {lost.uetr: ("RJCT", "TM01")}
    order = await gateway.hold()
    await gateway.misbehave("forget", stage="release")
    assert await gateway.release(order) == 202
    await gateway.nothing()
    assert await gateway.state(order) == "HELD"
    assert await gateway.release(order, idempotency_key="again") == 202
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    await gateway.conserved()


def test_chance_is_seeded() -> None:
    """The same occasions in the same order meet the same fate; another seed, another fate; nothing is hit for ever, and about the share that was told."""

    def fates(seed: int) -> list[bool]:
        active = ActiveScript(1, Script(kind=Kind.LOSE, times=10_000, chance=0.3, seed=seed), 10_000)
        mischief = Mischief([active])
        payments = [uuid.UUID(int=number, version=4) for number in range(500)]
        return [
            mischief.take({Kind.LOSE}, Subject(frozenset([each]), frozenset()), message="pacs.002") is not None for each in payments
        ]

    assert fates(1) == fates(1) != fates(2)
    assert 100 < sum(fates(1)) < 200
    again = ActiveScript(1, Script(kind=Kind.LOSE, times=10_000, chance=0.9), 10_000)
    subject = Subject(frozenset([uuid.uuid4()]), frozenset())
    assert not all(Mischief([again]).take({Kind.LOSE}, subject, message="pacs.002") for _ in range(500))


@pytest.mark.parametrize("how", ["truncated", "entity", "encoding", "schema", "definition"])
async def test_garbled_answer(gateway: Gateway, how: str) -> None:
    """A garbled answer arrives broken; what was said stays as it was, and a question brings it whole."""
    await gateway.misbehave("garble", how=how)
    order = Order()
    await gateway.pay(order)
    (broken,) = await gateway.raw(after=0, wait=5)
    await gateway.ask(order.uetr)
    (_, whole) = await gateway.raw(after=0, wait=5, least=2)
    assert broken != whole
    assert Answer(2, whole).statuses() == {order.uetr: ("ACFW", None)}
    assert await gateway.state(order) == "HELD"


async def test_answer_that_names_another_payment(gateway: Gateway) -> None:
    """A status under another UETR changes nothing in the books; a question brings it right."""
    await gateway.misbehave("misname", message="pacs.002")
    order = Order()
    await gateway.pay(order)
    (other,) = (await gateway.next("pacs.002")).statuses()
    assert other != order.uetr
    await gateway.ask(order.uetr)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACFW", None)}
    await gateway.conserved()


async def test_reordered_answers(gateway: Gateway) -> None:
    """The status comes after the booking that the same release brings."""
    order = await gateway.hold()
    await gateway.misbehave("reorder", message="pacs.002")
    assert await gateway.release(order) == 202
    await gateway.next("camt.054")
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    await gateway.conserved()


@pytest.mark.parametrize(
    "script",
    [{"kind": "garble"}, {"kind": "garble", "how": "value"}, {"kind": "missign", "how": "x"}, {"kind": "lose", "how": "absent"}],
)
def test_ways_that_there_are_not(script: dict[str, str]) -> None:
    """A script that names no way, or another kind's, is refused."""
    with pytest.raises(ValueError, match="how"):
        Script.model_validate(script)
