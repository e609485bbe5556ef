"""Each flow between a counterparty and the bank, over real HTTPS and a real database, judged by the books."""

from __future__ import annotations

import asyncio
import hashlib
import uuid

from bank_world import (
    ALICE,
    BOB,
    CORRESPONDENT,
    FOREIGN,
    LORO,
    Gateway,
    Order,
    World,
    as_possible_duplicate,
    draw,
    pacs_008,
    release,
)


async def test_release_settles(gateway: Gateway) -> None:
    """A held payment settles by its key: ACSC echoes the key, then both sides are booked, notified, and the books balance."""
    order = await gateway.hold()
    assert await gateway.account(ALICE) == ("1000.00", "100.00", "900.00")
    assert await gateway.account(BOB) == ("50.00", "0.00", "50.00")
    assert await gateway.release(order) == 202
    status = (await gateway.next("pacs.002")).items("TxInfAndSts")[0]
    assert (status["TxSts"], status["CdtSttlmKey"]) == ("ACSC", order.key.hex().upper())
    booking = await gateway.next("camt.054")
    debit, credit = booking.items("Ntry")
    for entry, side, account in ((debit, "DBIT", ALICE), (credit, "CRDT", BOB)):
        assert (entry["CdtDbtInd"], entry["Amt"]) == (side, "100.00")
        assert (entry["UETR"], entry["EndToEndId"], entry["InstrId"]) == (
            str(order.uetr),
            order.end_to_end_id,
            order.instruction_id,
        )
        assert account in booking.all("IBAN")
    assert booking.all("Cd").count("BOOK") == 2
    assert debit["AcctSvcrRef"] == status["AcctSvcrRef"] != credit["AcctSvcrRef"]
    assert await gateway.account(ALICE) == ("900.00", "0.00", "900.00")
    assert await gateway.account(BOB) == ("150.00", "0.00", "150.00")
    assert await gateway.state(order) == "SETTLED"
    await gateway.conserved()


async def test_group(gateway: Gateway) -> None:
    """Each payment of a group is judged by itself, in the order of the message, and money spent by one is gone for the next."""
    orders = [Order(amount="600.00"), Order(amount="600.00"), Order(amount="400.00")]
    body = await gateway.pay(*orders)
    answer = await gateway.next("pacs.002")
    assert list(answer.statuses().values()) == [("ACFW", None), ("RJCT", "AM04"), ("ACFW", None)]
    assert answer.all("GrpSts") == ["PART"]
    assert answer.all("OrgnlNbOfTxs") == ["3"]
    assert answer.all("OrgnlMsgId")[0].encode() in body
    assert await gateway.account(ALICE) == ("1000.00", "1000.00", "0.00")
    await gateway.release(orders[2])
    released = await gateway.next("pacs.002")
    assert released.statuses() == {orders[2].uetr: ("ACSC", None)}
    assert released.all("GrpSts") == []
    await gateway.next("camt.054")
    await gateway.conserved()


async def test_group_status(gateway: Gateway) -> None:
    """A group that is wholly held, or wholly refused, says so."""
    await gateway.pay(Order(), Order())
    assert (await gateway.next("pacs.002")).all("GrpSts") == ["ACCP"]
    await gateway.pay(Order(amount="5000.00", conditional=False), Order(creditor=FOREIGN))
    assert (await gateway.next("pacs.002")).all("GrpSts") == ["RJCT"]


async def test_ordinary_payment(gateway: Gateway) -> None:
    """A payment without a lock settles at once, and its hold cannot be released."""
    order = Order(conditional=False)
    await gateway.pay(order)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    await gateway.next("camt.054")
    assert await gateway.account(BOB) == ("150.00", "0.00", "150.00")
    assert await gateway.release(order) == 404
    await gateway.conserved()


async def test_correspondent(gateway: Gateway) -> None:
    """A creditor at a correspondent is paid through the correspondent's account here, of which the sender is told only its own side."""
    order = await gateway.hold(Order(creditor=FOREIGN, creditor_agent=CORRESPONDENT))
    await gateway.release(order)
    await gateway.next("pacs.002")
    assert [entry["CdtDbtInd"] for entry in (await gateway.next("camt.054")).items("Ntry")] == ["DBIT"]
    assert await gateway.account(LORO) == ("100.00", "0.00", "100.00")
    await gateway.conserved()


async def test_cancel_held(gateway: Gateway) -> None:
    """A held payment is cancelled: CNCL, the money is back, and it can neither be released nor cancelled into anything else."""
    order = await gateway.hold()
    body = await gateway.cancel(order.uetr)
    answer = await gateway.next("camt.029")
    assert (answer.all("Conf"), answer.all("TxCxlSts"), answer.all("OrgnlUETR")) == (["CNCL"], ["ACCR"], [str(order.uetr)])
    assert answer.items("CxlDtls")[0]["CxlStsId"] == "C0"
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    await gateway.cancel(order.uetr)
    assert (await gateway.next("camt.029")).all("Conf") == ["CNCL"]
    assert await gateway.release(order) == 202
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "DS02")}
    assert (await gateway.post(as_possible_duplicate(body), body.split(b"BizMsgIdr>")[1][:15].decode()))[0] == 202
    assert (await gateway.next("camt.029")).body == answer.body
    assert await gateway.state(order) == "CANCELLED"
    await gateway.conserved()


async def test_cancel_settled(gateway: Gateway) -> None:
    """What is settled is not cancelled: RJCR with ARDT."""
    order = await gateway.hold()
    await gateway.release(order)
    await gateway.next("pacs.002")
    await gateway.next("camt.054")
    await gateway.cancel(order.uetr)
    answer = await gateway.next("camt.029")
    assert (answer.all("Conf"), answer.all("TxCxlSts")) == (["RJCR"], ["RJCR"])
    assert "ARDT" in answer.all("Cd")
    assert await gateway.state(order) == "SETTLED"


async def test_cancel_unknown_leaves_a_tombstone(gateway: Gateway) -> None:
    """Cancelling what never came is answered NOOR, and what comes later with this UETR is refused with TM01."""
    order = Order()
    await gateway.cancel(order.uetr)
    answer = await gateway.next("camt.029")
    assert (answer.all("Conf"), "NOOR" in answer.all("Cd")) == (["RJCR"], True)
    body = await gateway.pay(order)
    refused = await gateway.next("pacs.002")
    assert refused.statuses() == {order.uetr: ("RJCT", "TM01")}
    assert refused.all("OrgnlMsgId")[0].encode() in body
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    await gateway.conserved()


async def test_cancel_several(gateway: Gateway) -> None:
    """One request may cancel several payments: PECR, and each one's own answer."""
    held, refused = await gateway.hold(), Order(amount="100000.00", conditional=False)
    await gateway.pay(refused)
    await gateway.next("pacs.002")
    await gateway.cancel(held.uetr, refused.uetr, uuid.uuid4())
    answer = await gateway.next("camt.029")
    assert (answer.all("Conf"), answer.all("TxCxlSts")) == (["PECR"], ["ACCR", "RJCR", "RJCR"])
    assert [item.get("Cd") for item in answer.items("TxInfAndSts")] == [None, "ARJT", "NOOR"]
    await gateway.conserved()


async def test_cancel_with_another_amount(gateway: Gateway) -> None:
    """A cancellation that states another amount cancels nothing."""
    order = await gateway.hold()
    await gateway.cancel(order.uetr, amount="99.00")
    assert "NARR" in (await gateway.next("camt.029")).all("Cd")
    assert await gateway.state(order) == "HELD"


async def test_expiry(gateway: Gateway) -> None:
    """A hold ends by itself at its expiry: RJCT AB03, the money is back, a release after it changes nothing."""
    order = await gateway.hold(Order(expires_in=8.0))
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "AB03")}
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
    assert await gateway.release(order) == 202
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "AB03")}
    await gateway.cancel(order.uetr)
    assert "ARJT" in (await gateway.next("camt.029")).all("Cd")
    await gateway.conserved()


async def test_status_query(gateway: Gateway) -> None:
    """A question brings what was last said, byte for byte, and a settled payment's booking after it."""
    order = Order()
    await gateway.pay(order)
    held = await gateway.next("pacs.002")
    await gateway.ask(order.uetr)
    assert (await gateway.next("pacs.002")).body == held.body
    await gateway.ask(original=held.all("OrgnlMsgId")[0])
    assert (await gateway.next("pacs.002")).body == held.body
    await gateway.release(order)
    settled, booked = await gateway.next("pacs.002"), await gateway.next("camt.054")
    await gateway.ask(order.uetr)
    assert [(await gateway.next("pacs.002")).body, (await gateway.next("camt.054")).body] == [settled.body, booked.body]


async def test_status_query_for_unknown(gateway: Gateway) -> None:
    """A question about what never came is answered TM01, always the same, and is the truth from then on."""
    order = Order()
    await gateway.ask(order.uetr)
    first = await gateway.next("pacs.002")
    assert first.statuses() == {order.uetr: ("RJCT", "TM01")}
    await gateway.ask(order.uetr)
    assert (await gateway.next("pacs.002")).body == first.body
    await gateway.pay(order)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "TM01")}
    assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")


async def test_replay(gateway: Gateway) -> None:
    """The same bytes again, marked as a possible duplicate or not, hold nothing twice and bring the same answer bytes."""
    order, message_id = Order(), draw("P")
    body = pacs_008([order], message_id)
    accepted = await gateway.post(body, message_id)
    first = await gateway.next("pacs.002")
    for again in (body, as_possible_duplicate(body)):
        assert await gateway.post(again, message_id) == accepted
        assert (await gateway.next("pacs.002")).body == first.body
    assert await gateway.account(ALICE) == ("1000.00", "100.00", "900.00")
    assert await gateway.release(order) == 202
    settled = await gateway.next("pacs.002")
    await gateway.next("camt.054")
    assert await gateway.release(order) == 202
    assert (await gateway.next("pacs.002")).body == settled.body
    await gateway.next("camt.054")
    assert (await gateway.post(as_possible_duplicate(body), message_id)) == accepted
    assert (await gateway.next("pacs.002")).body == settled.body
    assert await gateway.account(BOB) == ("150.00", "0.00", "150.00")
    received = (await gateway.control("GET", "/messages", params={"uetr": str(order.uetr)}))["received"]
    assert [hashlib.sha256(each["body"].encode()).hexdigest() for each in received] == [each["sha256"] for each in received]
    assert len([each for each in received if each["repeat_of"]]) == 3
    await gateway.conserved()


async def test_release_refusals(gateway: Gateway) -> None:
    """A wrong key, an unknown hold, a reused idempotency key and a malformed key change nothing."""
    order, second = await gateway.hold(), await gateway.hold()
    assert await gateway.release(order, key=b"\1" * 32) == 422
    assert await gateway.release(Order()) == 404
    assert await gateway.release(order, idempotency_key="same") == 202
    assert await gateway.release(second, idempotency_key="same") == 409
    for key, rule in (("ab" * 32, "KEY"), ("AB", "KEY"), (7, "TEXT")):
        ((status, refusal),) = await gateway.ask_all(release(second) | {"key": key})
        assert (status, refusal["rule"]) == (400, rule)
    ((status, refusal),) = await gateway.ask_all(
        {name: text for name, text in release(second).items() if name != "idempotency_key"}
    )
    assert (status, refusal["rule"]) == (400, "FIELDS")
    assert await gateway.state(second) == "HELD"
    await gateway.conserved()


async def test_release_crossing_cancellation(gateway: Gateway) -> None:
    """Of a release and a cancellation that cross, one wins, the other is told so, and the books show one outcome."""
    for _ in range(12):
        order = await gateway.hold(Order(amount="1.00"))
        await asyncio.gather(gateway.release(order), gateway.cancel(order.uetr))
        answers = {answer.kind: answer for answer in await gateway.rest()}
        if await gateway.state(order) == "SETTLED":
            assert answers["camt.029"].all("Conf") == ["RJCR"]
            assert answers["pacs.002"].statuses() == {order.uetr: ("ACSC", None)}
        else:
            assert answers["camt.029"].all("Conf") == ["CNCL"]
            assert answers["pacs.002"].statuses() == {order.uetr: ("RJCT", "DS02")}
    await gateway.conserved()


async def test_mailbox(world: World) -> None:
    """Messages come in order from any cursor, also after a restart and after their acknowledgement; without one, from what was acknowledged."""
    async with world.open() as gateway:
        orders = [await gateway.hold(Order(amount="1.00")) for _ in range(3)]
        everything = await gateway.mailbox(after=0)
        assert [answer.cursor for answer in everything] == [1, 2, 3]
        assert [list(answer.statuses()) for answer in everything] == [[order.uetr] for order in orders]
        assert [answer.cursor for answer in await gateway.mailbox(after=1, limit=1)] == [2]
        assert await gateway.request("POST", "/mailbox/ack", json={"upto": 2}) == (200, {"acknowledged": 2})
        assert (await gateway.request("POST", "/mailbox/ack", json={"upto": 4}))[0] == 400
    async with world.open() as gateway:
        assert [answer.cursor for answer in await gateway.mailbox()] == [3]
        assert [answer.body for answer in await gateway.mailbox(after=0)] == [answer.body for answer in everything]


async def test_long_poll(gateway: Gateway) -> None:
    """A reader that waits gets a message as soon as it is there."""
    reading = asyncio.create_task(gateway.mailbox(after=0, wait=20))
    await asyncio.sleep(0.1)
    assert not reading.done()
    await gateway.pay(Order())
    assert len(await asyncio.wait_for(reading, 18)) == 1
    assert await gateway.mailbox(after=1, wait=0.1) == []
