"""Many requests in one: each is judged by itself, in its order, and what can be is done in one transaction."""

from __future__ import annotations

from typing import Any

import asyncpg
from bank_world import ALICE, BOB, Gateway, Order, World, draw, message, pacs_008, pacs_028, release

COUNT = 6


def payment(order: Order) -> dict[str, Any]:
    name = draw("P")
    return message(pacs_008([order], name), name)


async def transactions(connection: asyncpg.Connection[asyncpg.Record], table: str) -> list[int]:
    """How many rows of a table each transaction wrote, most first."""
    rows = await connection.fetch(f"select count(*) as n from {table} group by xmin order by n desc")
    return [row["n"] for row in rows]


async def test_what_comes_together_is_done_together(world: World) -> None:
    """Payments are kept, held and answered by one transaction and one message, and so are their releases; the books are right."""
    async with world.open() as gateway, world.inside() as connection:
        orders = [Order(amount="10.00") for _ in range(COUNT)]
        assert [status for status, _ in await gateway.ask_all(*map(payment, orders))] == [202] * COUNT
        held = await gateway.mailbox(after=0)
        assert [answer.statuses() for answer in held] == [{order.uetr: ("ACFW", None) for order in orders}]
        for table, rows in (("messages_in", COUNT), ("messages_out", 1), ("payments", COUNT), ("mailbox_items", 1)):
            assert await transactions(connection, table) == [rows], table
        assert [status for status, _ in await gateway.ask_all(*map(release, orders))] == [202] * COUNT
        assert [await gateway.state(order) for order in orders] == ["SETTLED"] * COUNT
        assert await transactions(connection, "messages_in") == [COUNT] * 2
        assert await transactions(connection, "messages_out") == [2, 1]
        settled, booked = await gateway.mailbox(after=held[-1].cursor)
        assert settled.statuses() == {order.uetr: ("ACSC", None) for order in orders}
        assert settled.all("CdtSttlmKey") == [order.key.hex().upper() for order in orders]
        assert booked.all("UETR") == [str(order.uetr) for order in orders] * 2
        assert await transactions(connection, "payments") == [COUNT]
        assert await gateway.account(ALICE) == ("940.00", "0.00", "940.00")
        assert await gateway.account(BOB) == ("110.00", "0.00", "110.00")
        await gateway.conserved()


async def test_each_by_itself(gateway: Gateway) -> None:
    """What is not valid, not known or turned down is told in its place, and changes nothing of the others."""
    held = await gateway.hold(Order(amount="10.00"))
    good, poor = Order(amount="10.00"), Order(amount="899.00")
    last = Order(amount="82.00")
    broken = message(b"<broken", draw("P"))
    answers = await gateway.ask_all(
        payment(good), broken, {"idempotency_key": "x"}, payment(poor), release(held, key=bytes(32)), release(Order()), release(held),
        payment(last),
    )  # fmt: skip
    assert [status for status, _ in answers] == [202, 400, 400, 202, 422, 404, 202, 202]
    assert [refusal.get("rule") for _, refusal in answers][1:3] == ["WELL_FORMED", "FIELDS"]
    said: dict[Any, tuple[str, str | None]] = {}
    for answer in await gateway.rest():
        said |= answer.statuses()
    kept = ("ACFW", None)
    assert said == {good.uetr: kept, poor.uetr: kept, last.uetr: ("RJCT", "AM04"), held.uetr: ("ACSC", None)}
    assert len((await gateway.control("GET", "/quarantine"))["quarantine"]) == 1
    await gateway.conserved()


async def test_money_that_one_spends_is_gone_for_the_next(gateway: Gateway) -> None:
    """Payments that come together are judged one after the other, in their order."""
    orders = [Order(amount="600.00"), Order(amount="600.00"), Order(amount="400.00")]
    await gateway.ask_all(*map(payment, orders))
    answer = await gateway.next("pacs.002")
    assert list(answer.statuses().items()) == [
        (orders[0].uetr, ("ACFW", None)), (orders[1].uetr, ("RJCT", "AM04")), (orders[2].uetr, ("ACFW", None)),
    ]  # fmt: skip
    await gateway.conserved()


async def test_requests_about_one_payment_are_done_in_their_order(world: World) -> None:
    """A payment, its key, a question about it and the payment again, in one: as if each had come alone."""
    async with world.open() as gateway, world.inside() as connection:
        order, name = Order(), draw("Q")
        first = payment(order)
        answers = await gateway.ask_all(first, release(order), message(pacs_028([order.uetr], name), name), first)
        assert [status for status, _ in answers] == [202] * 4
        kinds = [answer.kind for answer in await gateway.rest()]
        assert kinds == ["pacs.002", "pacs.002", "camt.054", "pacs.002", "camt.054", "pacs.002", "camt.054"]
        assert await transactions(connection, "messages_in") == [1] * 4
        await gateway.conserved()


async def test_one_that_spoils_a_transaction_is_by_itself(world: World) -> None:
    """What the database refuses is not taken, and nobody knows of it; what came with it is done. Once it can be, it is."""
    async with world.open() as gateway, world.inside() as connection:
        orders = [Order(amount="10.00") for _ in range(3)]
        spoilt = orders[1].end_to_end_id
        await connection.execute(f"alter table payments add constraint spoilt check (end_to_end_id <> '{spoilt}')")
        requests = [payment(order) for order in orders]
        answers = await gateway.ask_all(*requests)
        assert [status for status, _ in answers] == [202, 500, 202]
        assert [await gateway.state(order) for order in orders] == ["HELD", None, "HELD"]
        assert await gateway.account(ALICE) == ("1000.00", "20.00", "980.00")
        await connection.execute("alter table payments drop constraint spoilt")
        assert [status for status, _ in await gateway.ask_all(*requests)] == [202] * 3
        assert await gateway.account(ALICE) == ("1000.00", "30.00", "970.00")
        await gateway.conserved()


async def test_mischief_meets_so_many_as_it_was_told(gateway: Gateway) -> None:
    """Of payments and keys that come together, each occasion of a script is met once."""
    orders = [Order(amount="10.00") for _ in range(4)]
    await gateway.misbehave("refuse", stage="payment", times=1)
    await gateway.misbehave("lose", message="pacs.002", times=2)
    await gateway.ask_all(*map(payment, orders))
    assert [await gateway.state(order) for order in orders] == ["REJECTED", "HELD", "HELD", "HELD"]
    assert [list(answer.statuses()) for answer in await gateway.rest()] == [[orders[2].uetr], [orders[3].uetr]]
    await gateway.misbehave("status_without_booking", uetr=str(orders[2].uetr))
    await gateway.misbehave("forget", stage="release", uetr=str(orders[1].uetr))
    assert [status for status, _ in await gateway.ask_all(*map(release, orders[1:]))] == [202] * 3
    assert [await gateway.state(order) for order in orders] == ["REJECTED", "HELD", "HELD", "SETTLED"]
    assert [answer.kind for answer in await gateway.rest()] == ["pacs.002", "pacs.002", "camt.054"]
    await gateway.conserved()


async def test_one_that_was_told_of_with_others_is_told_of_by_itself(gateway: Gateway) -> None:
    """Who asks about a payment, or shows its key again, hears of that one alone, as it stands; and from then on in the same bytes."""
    orders = [Order(amount="50.00") for _ in range(3)]
    poor = Order(amount="899.00")
    await gateway.ask_all(*map(payment, [*orders, poor]))
    await gateway.rest()
    await gateway.ask(poor.uetr)
    assert [answer.statuses() for answer in await gateway.rest()] == [{poor.uetr: ("RJCT", "AM04")}]
    await gateway.ask(orders[0].uetr)
    assert [answer.statuses() for answer in await gateway.rest()] == [{orders[0].uetr: ("ACFW", None)}]
    await gateway.ask_all(*map(release, orders))
    await gateway.rest()
    for order, again in ((orders[0], False), (orders[1], True)):
        heard = []
        for _ in range(2):
            if again:
                await gateway.ask_all(release(order))
            else:
                await gateway.ask(order.uetr)
            status, booking = await gateway.rest()
            assert (status.statuses(), status.all("CdtSttlmKey")) == ({order.uetr: ("ACSC", None)}, [order.key.hex().upper()])
            assert (booking.kind, booking.all("UETR")) == ("camt.054", [str(order.uetr)] * 2)
            assert status.all("AcctSvcrRef")[0] in booking.all("AcctSvcrRef")
            heard.append((status.body, booking.body))
        assert heard[0] == heard[1]
    assert await gateway.state(orders[2]) == "SETTLED"
    await gateway.conserved()


async def test_mischief_leaves_the_neighbours_alone(gateway: Gateway) -> None:
    """What goes wrong with one payment's messages goes wrong with no other's, which are told of together."""
    orders = [Order(amount="10.00") for _ in range(4)]
    await gateway.misbehave("lose", message="pacs.002", uetr=str(orders[1].uetr))
    await gateway.ask_all(*map(payment, orders))
    kept = {order.uetr: ("ACFW", None) for order in orders if order is not orders[1]}
    assert [answer.statuses() for answer in await gateway.rest()] == [kept]
    await gateway.misbehave("book_without_status", uetr=str(orders[2].uetr))
    await gateway.misbehave("misbook", field="amount", uetr=str(orders[3].uetr))
    await gateway.ask_all(*map(release, orders))
    statuses, rest, wrong = await gateway.rest()
    assert list(statuses.statuses()) == [orders[0].uetr, orders[1].uetr, orders[3].uetr]
    assert {*rest.all("UETR")} == {str(order.uetr) for order in orders[:3]}
    assert {*wrong.all("UETR")} == {str(orders[3].uetr)}
    assert "10.01" in wrong.all("Amt")
    await gateway.conserved()


async def test_what_tells_of_many_can_be_lost_as_a_whole(gateway: Gateway) -> None:
    """A message that tells of several payments may be lost or doubled like any other; each of them can be asked about."""
    orders = [Order(amount="10.00") for _ in range(3)]
    await gateway.misbehave("lose", message="pacs.002", together=True)
    await gateway.ask_all(*map(payment, orders))
    await gateway.nothing()
    for order in orders:
        await gateway.ask(order.uetr)
        assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACFW", None)}
    await gateway.misbehave("duplicate", copies=2, together=True)
    await gateway.ask_all(*map(release, orders))
    first, again, booking = await gateway.rest()
    assert first.body == again.body
    assert len(first.statuses()) == len(orders)
    assert len(booking.all("UETR")) == 2 * len(orders)
    await gateway.conserved()
