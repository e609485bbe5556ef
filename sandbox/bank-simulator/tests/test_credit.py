"""Intraday credit: lent with the hold, given back whole when the hold ends, repaid out of what is free once the payment is booked; always to the cent."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from bank_world import ALICE, BOB, LINE, POOR, PROVIDER, SEED, THIN, TOKEN, Gateway, Order, World, read, write_settings

from bank_simulator import credit, store
from bank_simulator.main import running
from bank_simulator.seeding import SeedMismatch

DENIED = ("RJCT", "AM23")


def borrowing(amount: str = "80.00", **terms: Any) -> Order:
    """A payment that its debtor's own 30.00 do not cover."""
    return Order(amount, debtor=THIN, debtor_name=None, **terms)


def item(*values: Any) -> store.Item:
    return store.Item(*values)


async def _nothing(*_: object) -> None:
    """What a bank does that forgets to sweep."""


async def postings(gateway: Gateway, order: Order) -> list[str]:
    """Kinds of the postings of a payment, and of the credit that goes with it, in order."""
    found: dict[int, str] = {}
    for name in ("uetr", "credit_for"):
        entries = (await gateway.control("GET", "/entries", params={name: str(order.uetr)}))["entries"]
        found |= {entry["posting_id"]: entry["kind"] for entry in entries}
    return [found[number] for number in sorted(found)]


async def line(gateway: Gateway) -> tuple[int, int]:
    """What is drawn of the line, and of that due, in cents."""
    (shown,) = (await gateway.book())["credit_lines"]
    assert (shown["account"], shown["provider_bic"], shown["limit_minor"]) == (THIN, PROVIDER, 100_00)
    return shown["drawn_minor"], shown["due_minor"]


async def answered(gateway: Gateway, order: Order) -> tuple[str, str | None]:
    await gateway.pay(order)
    return (await gateway.next("pacs.002")).statuses()[order.uetr]


async def test_drawn_with_the_hold(gateway: Gateway) -> None:
    """Exactly what is missing is lent, with the hold; the provider's account holds the debt, and nothing is due yet."""
    order = await gateway.hold(borrowing())
    assert await gateway.drawn() == ("80.00", "80.00", "50.00")
    assert await line(gateway) == (50_00, 0)
    assert await postings(gateway, order) == ["DRAW", "HOLD"]
    (hold,) = (await gateway.book())["holds"]
    assert (hold["uetr"], hold["amount_minor"], hold["drawn_minor"]) == (str(order.uetr), 80_00, 50_00)


async def test_own_money_first(gateway: Gateway) -> None:
    """Nobody borrows what he has: a hold that is covered draws nothing, and the next one no more than it lacks."""
    covered = await gateway.hold(borrowing("30.00"))
    assert await postings(gateway, covered) == ["HOLD"]
    await gateway.hold(borrowing("0.01"))
    assert await line(gateway) == (1, 0)


async def test_cancelled_gives_all_back(gateway: Gateway) -> None:
    """Abort: in the posting that ends the hold's transaction the provider has everything back, and the debtor what he had."""
    order = await gateway.hold(borrowing())
    await gateway.cancel(order.uetr)
    assert (await gateway.next("camt.029")).all("TxCxlSts") == ["ACCR"]
    assert await gateway.drawn() == ("30.00", "0.00", "0.00")
    assert await postings(gateway, order) == ["DRAW", "HOLD", "RELEASE", "REPAY"]
    assert await line(gateway) == (0, 0)


@pytest.mark.parametrize("kind", ["expire_early", "refuse"])
async def test_whatever_ends_the_hold_gives_all_back(gateway: Gateway, kind: str) -> None:
    """A hold that runs out, and a release that the bank refuses, leave no debt."""
    await gateway.misbehave(kind, **({"delay_ms": 100} if kind == "expire_early" else {"stage": "release", "reason": "AC06"}))
    order = await gateway.hold(borrowing())
    if kind == "refuse":
        await gateway.release(order)
    code, reason = (await gateway.next("pacs.002")).statuses()[order.uetr]
    assert (code, reason) == ("RJCT", "AB03" if kind == "expire_early" else "AC06")
    assert await gateway.drawn() == ("30.00", "0.00", "0.00")
    assert await line(gateway) == (0, 0)


async def test_booked_is_due_and_repaid_from_what_comes_in(gateway: Gateway) -> None:
    """Commit: the debt is due; whatever comes in repays it first, to the cent, and only what is left is the debtor's."""
    order = await gateway.hold(borrowing())
    await gateway.release(order)
    assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("ACSC", None)}
    assert await gateway.drawn() == ("0.00", "0.00", "50.00")
    assert await line(gateway) == (50_00, 50_00)
    for amount, booked, drawn in (("20.00", "0.00", "30.00"), ("45.00", "15.00", "0.00")):
        await gateway.pay(Order(amount, creditor=THIN, conditional=False))
        assert await gateway.drawn() == (booked, "0.00", drawn)
        await gateway.book()
    assert await gateway.account(BOB) == ("130.00", "0.00", "130.00")


async def test_credit_of_a_hold_is_not_due(gateway: Gateway) -> None:
    """Money that comes in repays no credit of a hold that still stands; when it is booked, the free money repays it at once."""
    order = await gateway.hold(borrowing())
    await gateway.pay(Order("60.00", creditor=THIN, conditional=False))
    assert await gateway.drawn() == ("140.00", "80.00", "50.00")
    await gateway.release(order)
    assert await postings(gateway, order) == ["DRAW", "HOLD", "SETTLE", "SWEEP"]
    own = (await gateway.control("GET", "/entries", params={"uetr": str(order.uetr)}))["entries"]
    assert sum(entry["amount"] for entry in own if entry["account_id"] == THIN) == -80_00, "the payment itself is what was ordered"
    assert await gateway.drawn() == ("10.00", "0.00", "0.00")
    await gateway.book()


async def test_released_money_repays_what_is_due(gateway: Gateway) -> None:
    """Two holds on one line: the one that is given up gives back its own, and what comes free repays what is due of the other."""
    first, second = await gateway.hold(borrowing("30.00")), await gateway.hold(borrowing("20.00"))
    await gateway.release(second)
    await gateway.cancel(first.uetr)
    assert await gateway.drawn() == ("10.00", "0.00", "0.00")
    assert await postings(gateway, first) == ["HOLD", "RELEASE", "SWEEP"]
    await gateway.book()


async def test_settlement_between_two_borrowers(gateway: Gateway) -> None:
    """A conditional payment to an account that owes repays its debt when it is booked."""
    order = await gateway.hold(borrowing())
    await gateway.release(order)
    incoming = Order("70.00", creditor=THIN)
    await gateway.pay(incoming)
    await gateway.release(incoming)
    assert await gateway.drawn() == ("20.00", "0.00", "0.00")
    assert await postings(gateway, incoming) == ["HOLD", "SETTLE", "SWEEP"]
    await gateway.book()


async def test_refused_for_want_of_credit(gateway: Gateway) -> None:
    """Beyond the limit, and where the provider lends nothing: AM23, and nothing is booked. Without a line it is AM04, and ordinary payments borrow nothing."""
    assert await answered(gateway, borrowing("130.01")) == DENIED
    assert await answered(gateway, Order("12.00", debtor=POOR, debtor_name=None)) == ("RJCT", "AM04")
    assert await answered(gateway, borrowing("30.01", conditional=False)) == ("RJCT", "AM04")
    await gateway.misbehave("deny_credit", debtor_account=THIN)
    assert await answered(gateway, borrowing("30.00")) == ("ACFW", None), "a hold that needs no credit is no occasion"
    assert await answered(gateway, borrowing("10.00")) == DENIED
    assert await answered(gateway, borrowing("10.00")) == ("ACFW", None)
    assert await line(gateway) == (10_00, 0)


async def test_denied_by_the_provider(gateway: Gateway) -> None:
    """A provider that lends no more leaves what is drawn as it is, until it lends again."""
    order = await gateway.hold(borrowing())
    assert await provider(gateway, "DENIED") == 0
    assert await answered(gateway, borrowing("10.00")) == DENIED
    assert await line(gateway) == (50_00, 0)
    await provider(gateway, "GRANTED")
    await gateway.hold(borrowing("10.00"))
    await gateway.release(order)
    assert await line(gateway) == (60_00, 50_00)


async def test_withdrawn_by_the_provider(gateway: Gateway) -> None:
    """A provider that wants its money back ends the holds that it lent for, and no others; what is booked stays booked, and due."""
    booked, covered, lent = await gateway.hold(borrowing("50.00")), Order(), borrowing("40.00")
    await gateway.release(booked)
    await gateway.rest()
    await gateway.hold(covered)
    await gateway.hold(lent)
    assert await provider(gateway, "WITHDRAWN") == 1
    assert (await gateway.next("pacs.002")).statuses() == {lent.uetr: DENIED}
    assert [await gateway.state(order) for order in (booked, covered, lent)] == ["SETTLED", "HELD", "REJECTED"]
    assert await line(gateway) == (20_00, 20_00)
    await gateway.release(lent)
    assert (await gateway.next("pacs.002")).statuses() == {lent.uetr: DENIED}
    assert await provider(gateway, "WITHDRAWN") == 0
    await gateway.pay(Order("20.00", creditor=THIN, conditional=False))
    assert await line(gateway) == (0, 0)


async def test_provider_is_guarded(gateway: Gateway) -> None:
    """Only a line that is there has a state, only the states that there are, and only with the token."""
    for account, state, status in ((ALICE, "DENIED", 404), (THIN, "MAYBE", 400)):
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
            session.post(f"{gateway.control_url}/accounts/{account}/credit", json={"state": state}) as answer,
        ):
            assert answer.status == status
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.control_url}/book") as answer:
        assert answer.status == 401
    with pytest.raises(AssertionError):
        await gateway.control("POST", f"/accounts/{LINE}/status", json={"status": "CLOSED"})


@pytest.mark.parametrize(
    "tampering",
    [
        f"update entries set amount = amount + 1 where account_id = '{LINE}'",
        "update payments set drawn = drawn - 1 where drawn > 0",
        "delete from entries where posting_id in (select posting_id from postings where kind = 'DRAW')",
        f"update accounts set balance = balance + 5000 where account_id = '{LINE}'",
        # A bank that forgets that it lent: the debt of a hold that was given up.
        "update payments set state = 'CANCELLED' where state = 'HELD'",
        # A bank that gives the debtor back what the provider lent.
        f"""update entries set account_id = '{ALICE}' where account_id = '{LINE}'""",
        # A bank that lets a debtor keep what is due.
        "update payments set state = 'SETTLED' where state = 'HELD'",
    ],
)
async def test_audit_finds_lost_credit(world: World, tampering: str) -> None:
    """Money that is lent, kept or forgotten past the rules is found by the audit."""
    async with world.open() as gateway, world.inside() as books:
        await gateway.hold(borrowing())
        await gateway.conserved()
        for table in ("entries", "accounts", "payments", "postings"):
            await books.execute(f"alter table {table} disable trigger user")
        await books.execute(tampering)
        assert (await gateway.control("GET", "/audit"))["violations"]


async def test_audit_finds_debt_that_is_not_repaid(world: World) -> None:
    """A booking that leaves free money beside a debt that is due is found: the seeded fault is the one of a bank that forgets to sweep."""
    async with world.open() as gateway, world.inside() as books:
        order = await gateway.hold(borrowing())
        await gateway.release(order)
        await gateway.conserved()
        await books.fetch(POST, ["gift"], ["OPENING"], [None], [ALICE], [THIN], [7_00])
        rules = {violation["rule"] for violation in (await gateway.control("GET", "/audit"))["violations"]}
        assert rules == {"what is due is repaid as soon as money is free"}


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        (("repay", lambda _payment: []), "what was drawn for a hold is lent"),
        (("sweep", _nothing), "what is due is repaid as soon as money is free"),
        (
            ("draw", lambda uetr, debtor, amount: [item(f"draw:{uetr}", "DRAW", uetr, ALICE, debtor, amount)]),
            "what was drawn for a hold is lent",
        ),
        (
            ("draw", lambda uetr, debtor, amount: [item(f"draw:{uetr}", "DRAW", uetr, LINE, debtor, amount + 1)]),
            "what was drawn for a hold is lent",
        ),
    ],
)
async def test_seeded_fault_is_found(world: World, monkeypatch: pytest.MonkeyPatch, fault: tuple[str, Any], broken: str) -> None:
    """A bank that keeps what it should give back, forgets to sweep, or lends somebody else's money or more than it says, is found by the audit."""
    async with world.open() as gateway:
        monkeypatch.setattr(credit, *fault)
        first, second = await gateway.hold(borrowing()), await gateway.hold(borrowing("10.00"))
        rules = await broken_rules(gateway)
        if not rules:
            await gateway.release(first)
            await gateway.cancel(second.uetr)
            await gateway.pay(Order("200.00", creditor=THIN, conditional=False))
            rules = await broken_rules(gateway)
        assert any(rule.startswith(broken) for rule in rules), rules


async def broken_rules(gateway: Gateway) -> list[str]:
    return [violation["rule"] for violation in (await gateway.control("GET", "/audit"))["violations"]]


async def test_database_refuses_lines_out_of_bounds(world: World) -> None:
    """Nothing is lent beyond the limit, nothing repaid that was not drawn, and nothing drawn or repaid twice for one payment."""
    async with world.open() as gateway, world.inside() as books:
        order = await gateway.hold(borrowing())
        for reference, kind, debited, credited, amount in (
            ("more", "DRAW", LINE, THIN, 50_01),
            ("again", "DRAW", LINE, THIN, 1),
            ("less", "SWEEP", ALICE, LINE, 50_01),
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await books.fetch(POST, [reference], [kind], [order.uetr], [debited], [credited], [amount])
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await books.execute("update payments set drawn = 1")
        await gateway.book()


@pytest.mark.parametrize("seed", range(3))
async def test_random_borrowing(world: World, seed: int) -> None:
    """After any sequence of borrowing, releases, cancellations, expiries and a provider that changes its mind, at once, money is where it must be."""
    chance = random.Random(seed)
    async with world.open() as gateway:
        await gateway.misbehave("deny_credit", times=1000, chance=0.2, seed=seed)
        await gateway.misbehave("refuse", stage="release", times=1000, chance=0.1, seed=seed)
        orders = [an_order(chance) for _ in range(40)]
        steps = [(order, step) for order in orders for step in chance.sample(range(7), 4)]
        chance.shuffle(steps)
        for start in range(0, len(steps), 8):
            await asyncio.gather(*(do(gateway, chance, *step) for step in steps[start : start + 8]))
            await gateway.book()
        await provider(gateway, "GRANTED")
        for order in orders:
            await gateway.cancel(order.uetr)
        book = await gateway.book()
        assert book["holds"] == []
        assert all(booking["bookings"] == 1 for booking in book["bookings"])
        (lent,) = book["credit_lines"]
        assert lent["drawn_minor"] == lent["due_minor"]
        await gateway.pay(Order("500.00", creditor=THIN, conditional=False))
        assert (await line(gateway))[0] == 0


def an_order(chance: random.Random) -> Order:
    amount = f"{chance.randrange(1, 60)}.{chance.randrange(100):02}"
    order = borrowing(amount) if chance.random() < 0.7 else Order(amount, creditor=THIN)
    return replace(order, conditional=chance.random() < 0.8, expires_in=chance.choice([0.2, 3600.0]))


async def do(gateway: Gateway, chance: random.Random, order: Order, step: int) -> None:
    match step:
        case 0 | 1 | 2:
            await gateway.pay(order)
        case 3 | 4:
            await gateway.release(order)
        case 5:
            await gateway.cancel(order.uetr)
        case _:
            await provider(gateway, chance.choice(["GRANTED", "GRANTED", "DENIED", "WITHDRAWN"]))


async def test_seed_keeps_lines(world: World, tmp_path: Path) -> None:
    """A line whose provider changes, or that is gone from the seed while its debt may stand, is refused at the start."""
    async with world.open() as gateway:
        await gateway.hold(borrowing())
    accounts: list[dict[str, Any]] = list(SEED["accounts"])  # type: ignore[arg-type]
    thin = next(account for account in accounts if account["account"] == THIN)
    rest = [account for account in accounts if account is not thin]
    for changed in (
        {name: value for name, value in thin.items() if name != "credit_line"},
        thin | {"credit_line": thin["credit_line"] | {"provider": "Somebody else"}},
    ):
        path = write_settings(tmp_path / "again", world.certificates, world.owner_url, SEED | {"accounts": [*rest, changed]})
        with pytest.raises(SeedMismatch):
            async with running(read(path)):
                pass


POST = "select * from post($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::bigint[])"


async def provider(gateway: Gateway, state: str) -> int:
    """What the liquidity provider says; returns how many holds ended by it."""
    told = await gateway.control("POST", f"/accounts/{THIN}/credit", json={"state": state})
    return int(told["holds_ended"])
