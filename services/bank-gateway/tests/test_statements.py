"""The bank states its days, rightly and wrongly: each statement is reconciled with our books, what differs is a break with its amount, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from real_bank import BANK_BIC, PAYEE, RICH, Bank, Gateway, evidence_of, start_bank, transfer, until
from test_crashes import RECONCILING

from bank_gateway import matters
from bank_gateway.ledger import rules
from bank_gateway.ledger import store as ledger_store
from bank_gateway.references import references
from bank_gateway.servicer import ReconciliationServicer
from lockstep.bank.v1 import reconciliation_service_pb2 as messages
from lockstep_kit import failpoints
from lockstep_kit.db import Database
from lockstep_kit.fence import Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId, sha256
from lockstep_kit.rpc import TlsSettings
from lockstep_sandbox.processes import Supervisor
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import PlanCase

GATEWAY = "spiffe://lockstep.local/bank-gateway"
#: Entries on one page of a statement.
PAGE = 3
Making = Callable[..., Awaitable[TestDatabase]]


@pytest_asyncio.fixture(loop_scope="session")
async def bank(database_for: Making, tls_for: Callable[[str], TlsSettings], tmp_path: Path) -> AsyncIterator[Bank]:
    """A bank for each test, since its days and statements are its own."""
    database = await database_for("bank_simulator")
    async with Supervisor(tmp_path / "logs") as supervisor:
        tls = tls_for("spiffe://lockstep.local/bank-simulator")
        yield await start_bank(supervisor, tmp_path / "bank", database, tls, GATEWAY, terms={"statement_entries_max": PAGE})


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(bank: Bank, database_for: Making, tls_for: Callable[[str], TlsSettings]) -> AsyncIterator[Gateway]:
    """A gateway that runs; no statement of its is ever overdue, unless a test says so."""
    opened = Gateway(await database_for("bank_gateway"), bank, tls_for(GATEWAY), {"statement_due_hours": 240.0})
    await opened.open()
    yield opened
    await opened.close()


def uetr_of(plan: PlanCase) -> str:
    return references(plan.plan_id, LegId("cash")).uetr


async def settled(gateway: Gateway, minor_units: int = 100_00) -> PlanCase:
    plan = transfer(minor_units)
    await gateway.held(plan)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    return plan


async def noted(gateway: Gateway, plan: PlanCase) -> None:
    """The camt.054 has come, with both of its sides."""

    async def told() -> bool:
        rows = await gateway.rows("select status from bank_payment where uetr = $1", uetr_of(plan))
        return '"booked_on": "20' in rows[0]["status"] and f'"credited_account": "{PAYEE}"' in rows[0]["status"]

    await until(told, "the booking")


async def reconciled(gateway: Gateway, day: date, *, times: int = 1, account: str = RICH) -> dict[str, Any]:
    """What was found of the account's day, once it was reconciled so often."""

    async def found() -> dict[str, Any] | None:
        rows = await gateway.rows("select * from bank_reconciliation where account = $1 and booking_date = $2", account, day)
        return dict(rows[0]) if rows and rows[0]["times"] >= times else None

    row = await until(found, "the reconciliation")
    assert row is not None
    return row


async def breaks(gateway: Gateway) -> list[tuple[Any, ...]]:
    """Open breaks: (kind, account, minor units, plan)."""
    query = """
        select broken.kind, account, minor_units::int, plan_id from bank_break as broken join bank_matter on id = matter
        where closed_at is null order by matter
    """
    return [tuple(row) for row in await gateway.rows(query)]


async def test_clean_day(gateway: Gateway) -> None:
    """Every payment of the day is in the statement as our books have it: no break, no trouble, and each message is kept byte for byte."""
    plans = [await settled(gateway, amount) for amount in (100_00, 250_01, 1, 77_77)]
    for plan in plans:
        await noted(gateway, plan)
    day = await gateway.bank.end_day()
    found = await reconciled(gateway, day)
    credited = await reconciled(gateway, day, account=PAYEE)
    # RICH's opening balance is booked on its first day; a second page holds what one does not.
    assert (found["entries"], found["matched"], found["others"], found["breaks"]) == (5, 4, 1, 0)
    assert (credited["entries"], credited["matched"], credited["breaks"]) == (4, 4, 0)
    assert await breaks(gateway) == []
    kept = await gateway.rows("select octets, sha256 from bank_message where kind = 'camt.053.001.13'")
    assert all(sha256(row["octets"]) == row["sha256"] for row in kept)
    pages = await gateway.rows(
        "select account, count(*) as pages from bank_statement join bank_statement_page on statement = id group by account"
    )
    assert {row["account"]: row["pages"] for row in pages}[RICH] == 2
    assert {row["stated_by"] for row in await gateway.rows("select stated_by from bank_payment")} == {found["statement"]}
    assert [(await gateway.record(plan)).trouble for plan in plans] == [""] * 4
    second = await gateway.bank.end_day()
    assert (await reconciled(gateway, second))["entries"] == 0
    assert await breaks(gateway) == []


@pytest.mark.parametrize(
    ("kind", "expected", "minor_units"),
    [
        ("omit_entry", "MISSING_AT_BANK", 100_00),
        ("add_entry", "MISSING_HERE", 1),
        ("repeat_entry", "BOOKED_TWICE", 100_00),
        ("misstate_entry", "AMOUNT_DIFFERS", 1),
    ],
)
async def test_misstated_entry(gateway: Gateway, kind: str, expected: str, minor_units: int) -> None:
    """An entry left out, invented, doubled or changed is exactly its break; the correction of the statement ends it, and the leg has no trouble any more."""
    plan = await settled(gateway)
    await noted(gateway, plan)
    await gateway.bank.misbehave(kind, debtor_account=RICH)
    day = await gateway.bank.end_day()
    assert (await reconciled(gateway, day))["breaks"] == 1
    concerned = None if kind == "add_entry" else plan.plan_id
    assert await breaks(gateway) == [(expected, RICH, minor_units, concerned)]
    record = await gateway.record(plan)
    assert (record.fence.phase, record.trouble != "") == (Phase.COMMITTED, concerned is not None)
    await gateway.bank.state_again(RICH, day)
    assert (await reconciled(gateway, day, times=2))["breaks"] == 0
    assert await breaks(gateway) == []
    assert (await gateway.record(plan)).trouble == ""
    await gateway.bank.sound()


async def test_returns_are_stated(gateway: Gateway) -> None:
    """Parts of a payment that come back as they were told are no breaks. One that was not told is one, is posted by the statement, and calls a person."""
    plan, untold = await settled(gateway), await settled(gateway)
    for each in (plan, untold):
        await noted(gateway, each)
    # The notification of the first part is lost: the statement has it.
    await gateway.bank.misbehave("lose", message="camt.054")
    await gateway.bank.give_back(plan, amount="40.00", reason="AC04")
    await gateway.bank.give_back(plan)

    async def told() -> bool:
        return len([row for row in await gateway.kept(plan, "IN") if row["kind"] in ("pacs.004.001.14", "camt.054.001.13")]) == 4

    await until(told, "both returns")
    assert await gateway.on_the_books(RICH) == {"LINE": -140_00, "SETTLED": 140_00}
    for message in ("pacs.004", "camt.054"):
        await gateway.bank.misbehave("lose", message=message)
    await gateway.bank.give_back(untold, amount="1.00")
    day = await gateway.bank.end_day()
    found, credited = await reconciled(gateway, day), await reconciled(gateway, day, account=PAYEE)
    assert (found["entries"], found["matched"], found["settled"], found["breaks"]) == (6, 2, 0, 1)
    assert (credited["entries"], credited["matched"], credited["breaks"]) == (5, 2, 1)
    assert sorted(await breaks(gateway)) == sorted(("REVERSED", account, 1_00, untold.plan_id) for account in (RICH, PAYEE))
    assert await gateway.on_the_books(RICH) == {"LINE": -99_00, "SETTLED": 99_00}
    shown = await gateway.rows(
        "select message_id from bank_statement_page join bank_statement on id = statement where account = $1", RICH
    )
    returned = [row for row in await gateway.matters() if row["kind"] == "PAYMENT_RETURNED" and row["plan_id"] == untold.plan_id]
    assert [row["message_id"] in {page["message_id"] for page in shown} for row in returned] == [True]
    # Stated once more it is the same: nothing is posted again, nobody is called again.
    await gateway.bank.state_again(RICH, day)
    assert (await reconciled(gateway, day, times=2))["breaks"] == 1
    assert await gateway.on_the_books(RICH) == {"LINE": -99_00, "SETTLED": 99_00}
    assert [
        row for row in await gateway.matters() if row["kind"] == "PAYMENT_RETURNED" and row["plan_id"] == untold.plan_id
    ] == returned
    assert await gateway.wrong_on_the_books() == []
    await gateway.bank.sound()


async def test_wrong_postings(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A posting left out, of another amount, doubled, or about nobody: each is its break, with its amount and its leg, and what is right is none."""
    heard = rules.heard

    def wrong(leg: rules.LedgerLeg, *known: Any) -> rules.Entry | None:
        entry = heard(leg, *known)
        if entry is None or entry.kind is not rules.EntryKind.SETTLED:
            return entry
        return {200_00: None, 300_00: replace(entry, amount=299_99)}.get(leg.amount, entry)

    monkeypatch.setattr(rules, "heard", wrong)
    right, left_out, less, doubled = [await settled(gateway, amount) for amount in (100_00, 200_00, 300_00, 400_00)]
    for plan in (right, left_out, less, doubled):
        await noted(gateway, plan)
    nobody = "ffffffff-ffff-4fff-8fff-ffffffffffff"
    async with gateway.database.as_role() as role:
        for uetr, name, amount in ((uetr_of(doubled), "SETTLED/2", 7_00), (nobody, "SETTLED", 1_00)):
            await role.fetch(
                ledger_store.POST, [f"{BANK_BIC}/EUR"], [f"{uetr}/{name}"], ["SETTLED"], [uetr], [f"{RICH}/HELD"], [f"{RICH}/SETTLED"], [amount]
            )  # fmt: skip
    day = await gateway.bank.end_day()
    assert (await reconciled(gateway, day))["breaks"] == 4
    assert sorted(await breaks(gateway), key=str) == sorted(
        [
            ("LEDGER_MISSING", RICH, 200_00, left_out.plan_id),
            ("LEDGER_AMOUNT_DIFFERS", RICH, 1, less.plan_id),
            ("LEDGER_TWICE", RICH, 7_00, doubled.plan_id),
            ("LEDGER_UNSTATED", RICH, 1_00, None),
        ],
        key=str,
    )
    troubled = [plan for plan in (right, left_out, less, doubled) if (await gateway.record(plan)).trouble]
    assert troubled == [left_out, less, doubled]
    # The next day has none of it, and what was found is not found again.
    after = await gateway.bank.end_day()
    assert (await reconciled(gateway, after))["breaks"] == 0
    assert len(await breaks(gateway)) == 4


async def test_statement_that_does_not_add_up(gateway: Gateway) -> None:
    """A closing balance that the entries do not come to: the whole statement is quarantined, and a break says by how much; the correction ends it."""
    plan = await settled(gateway)
    await noted(gateway, plan)
    await gateway.bank.misbehave("misstate_balance", debtor_account=RICH)
    day = await gateway.bank.end_day()

    async def quarantined() -> Any:
        return (await gateway.rows("select field, rule from bank_quarantine") or [None])[0]

    row = await until(quarantined, "the quarantine")
    assert tuple(row) == ("Stmt/Bal", "must be opening balance plus entries")
    assert await breaks(gateway) == [("STATEMENT_BROKEN", RICH, 1, None)]
    assert await gateway.rows("select from bank_reconciliation where account = $1", RICH) == []
    await gateway.bank.state_again(RICH, day)
    assert (await reconciled(gateway, day))["matched"] == 1
    assert await breaks(gateway) == []


async def test_missing_page_and_gap(gateway: Gateway) -> None:
    """Without one of its pages a statement does not count; the next one shows the gap; when it comes at last, both are reconciled, and the gap is gone."""
    await gateway.bank.end_day()
    plans = [await settled(gateway) for _ in range(PAGE + 1)]
    for plan in plans:
        await noted(gateway, plan)
    await gateway.bank.misbehave("lose", message="camt.053", uetr=uetr_of(plans[0]), times=2)
    day = await gateway.bank.end_day()
    after = await gateway.bank.end_day()
    for account in (RICH, PAYEE):
        assert (await reconciled(gateway, after, account=account))["breaks"] == 1
        # The other page is here, and counts for nothing.
        pages = (
            "select page from bank_statement_page join bank_statement on id = statement where account = $1 and booking_date = $2"
        )
        assert [row["page"] for row in await gateway.rows(pages, account, day)] == [2]
        assert await gateway.rows("select from bank_reconciliation where account = $1 and booking_date = $2", account, day) == []
    assert {(kind, account) for kind, account, *_ in await breaks(gateway)} == {("STATEMENT_GAP", RICH), ("STATEMENT_GAP", PAYEE)}
    for account in (RICH, PAYEE):
        await gateway.bank.state_again(account, day)
        assert (await reconciled(gateway, day, account=account))["matched"] == PAGE + 1
        assert (await reconciled(gateway, after, account=account, times=2))["breaks"] == 0
    assert await breaks(gateway) == []


async def test_overdue_statement(gateway: Gateway) -> None:
    """The bank told bookings of a day and never stated it: a break with what they come to, once; the statement ends it when it comes."""
    async with gateway.bank.database.as_owner() as owner:
        await owner.execute("update bank_day set day = day - 3")
    plans = [await settled(gateway, amount) for amount in (100_00, 23_45)]
    for plan in plans:
        await noted(gateway, plan)
    await gateway.close()
    gateway.changes["statement_due_hours"] = 0.0
    await gateway.open()

    async def overdue() -> list[Any] | None:
        return await breaks(gateway) or None

    assert await until(overdue, "the break") == [("STATEMENT_OVERDUE", RICH, 123_45, None)]
    await asyncio.sleep(1.2)
    assert len(await breaks(gateway)) == 1
    day = await gateway.bank.end_day()
    assert (await reconciled(gateway, day))["matched"] == 2
    assert await breaks(gateway) == []


async def test_statement_settles_what_is_in_doubt(gateway: Gateway) -> None:
    """Status and booking are lost for good: the leg stays in doubt until the day's statement has its entry, which settles it, and is its evidence."""
    plan = transfer()
    await gateway.held(plan)
    for message in ("pacs.002", "camt.054"):
        await gateway.bank.misbehave("lose", message=message, times=1000)
    await gateway.commit(plan)

    async def booked() -> bool:
        return await gateway.bank.state(plan) == "SETTLED"

    await until(booked, "the bank's booking")
    assert await gateway.phase(plan) is Phase.COMMITTING
    day = await gateway.bank.end_day()
    record = await gateway.reaches(plan, Phase.COMMITTED)
    evidence = evidence_of(record)
    (stated,) = await gateway.rows(
        "select message_sha256 from bank_statement_page join bank_statement on id = statement where account = $1", RICH
    )
    assert (evidence.status, evidence.booking_sha256) == ("BOOK", stated["message_sha256"])
    assert evidence.booking_reference.startswith("B")
    found = await reconciled(gateway, day)
    assert (found["settled"], found["matched"], found["breaks"]) == (1, 1, 0)
    assert record.trouble == ""


async def test_what_no_statement_shows_stays_in_doubt(gateway: Gateway) -> None:
    """A key that the bank forgot: the day's statement does not show the payment, which is a break until the leg is settled, and settles nothing."""
    await gateway.close()
    gateway.changes |= {"inquiry_seconds": 2.0, "inquiry_seconds_max": 0.01}
    await gateway.open()
    plan = transfer()
    await gateway.held(plan)
    await gateway.bank.misbehave("forget", stage="release", times=1000)
    await gateway.bank.misbehave("forget", stage="inquiry", times=1000)
    await gateway.commit(plan)

    async def shown() -> bool:
        """The payment and its key were both acknowledged."""
        return len(await gateway.rows("select from bank_outbox where uetr = $1 and state = 'ACKED'", uetr_of(plan))) >= 2

    await until(shown, "the key's acknowledgement")
    # A statement counts for what was due a moment before it was made.
    await asyncio.sleep(1.5)
    day = await gateway.bank.end_day()
    assert (await reconciled(gateway, day))["breaks"] == 1
    assert await breaks(gateway) == [("IN_DOUBT", RICH, 100_00, plan.plan_id)]
    # From now on it forgets neither the question nor the key, which it is shown again.
    await gateway.bank.behave()
    await gateway.reaches(plan, Phase.COMMITTED)

    async def none() -> bool:
        return await breaks(gateway) == []

    await until(none, "the end of the doubt")
    assert (await gateway.record(plan)).trouble == ""


@pytest.mark.parametrize("name", ["receive.in_tx", "receive.after_commit", *RECONCILING])
async def test_dies_while_it_reconciles(gateway: Gateway, name: str) -> None:
    """Dead between taking a statement and having reconciled it: the next gateway goes on, the break is opened once, and the leg in doubt settles once."""
    missing = await settled(gateway)
    await noted(gateway, missing)
    doubtful = transfer(55_00)
    await gateway.held(doubtful)
    for message in ("pacs.002", "camt.054"):
        await gateway.bank.misbehave("lose", message=message, times=1000)
    await gateway.commit(doubtful)

    async def booked() -> bool:
        return await gateway.bank.state(doubtful) == "SETTLED"

    await until(booked, "the bank's booking")
    await gateway.bank.misbehave("omit_entry", uetr=uetr_of(missing), debtor_account=RICH)
    failpoints.arm(f"bank-gateway.{name}=raise@1")
    try:
        day = await gateway.bank.end_day()
        dead = asyncio.ensure_future(gateway.ended())
        await asyncio.wait([dead], timeout=240)
        with pytest.raises(failpoints.FailpointRaised):
            dead.result()
        await gateway.close()
        await gateway.open()
        found = await reconciled(gateway, day)
    finally:
        failpoints.arm("")
    assert (await gateway.reaches(doubtful, Phase.COMMITTED)).trouble == ""
    assert (found["times"], found["settled"], found["breaks"]) == (1, 1, 1)
    assert await breaks(gateway) == [("MISSING_AT_BANK", RICH, 100_00, missing.plan_id)]


async def test_a_person_closes_a_break(gateway: Gateway) -> None:
    """A break that a person closed stays closed when the day is reconciled again and still shows it, and its leg says nothing any more."""
    plan = await settled(gateway)
    await noted(gateway, plan)
    await gateway.bank.misbehave("omit_entry", debtor_account=RICH, times=2)
    day = await gateway.bank.end_day()
    await reconciled(gateway, day)
    assert "does not have it" in (await gateway.record(plan)).trouble
    db = await Database.connect(gateway.database.settings, application_name="test")
    try:
        (matter,) = await gateway.matters()
        assert await matters.close(db, matter["id"], "the bank answered by telephone")
    finally:
        await db.close()
    await gateway.bank.state_again(RICH, day)
    assert (await reconciled(gateway, day, times=2))["breaks"] == 1
    assert await breaks(gateway) == []
    assert (await gateway.record(plan)).trouble == ""


async def test_what_readers_are_told(gateway: Gateway) -> None:
    """The day as it was reconciled, the open breaks with their amounts, and the bookings page by page; what breaks a rule is refused by its field."""
    plans = [await settled(gateway, amount) for amount in (100_00, 23_45)]
    for plan in plans:
        await noted(gateway, plan)
    await gateway.bank.misbehave("omit_entry", uetr=uetr_of(plans[1]), debtor_account=RICH)
    day = await gateway.bank.end_day()
    await reconciled(gateway, day)
    await reconciled(gateway, day, account=PAYEE)
    db = await Database.connect(gateway.database.settings, application_name="test")
    try:
        servicer: Any = ReconciliationServicer(db, gateway.engine)
        told = await servicer.GetReconciliation(messages.GetReconciliationRequest(booking_date=day.isoformat()), None)
        assert [(each.matched, each.breaks) for each in told.accounts if each.account == RICH] == [(1, 1)]
        (open_break,) = told.breaks
        assert (open_break.kind, open_break.plan_id, open_break.amount.minor_units) == ("MISSING_AT_BANK", plans[1].plan_id, "2345")
        bookings, token = [], ""
        while True:
            page = await servicer.ListBookings(
                messages.ListBookingsRequest(booking_date=day.isoformat(), page_size=1, page_token=token), None
            )
            bookings += page.bookings
            token = page.next_page_token
            if not token:
                break
        assert {each.plan_id: each.stated for each in bookings} == {plans[0].plan_id: True, plans[1].plan_id: False}
        assert {each.amount.minor_units for each in bookings} == {"10000", "2345"}
        of_plan = await servicer.ListBookings(messages.ListBookingsRequest(plan_ids=[plans[0].plan_id]), None)
        assert [each.uetr for each in of_plan.bookings] == [uetr_of(plans[0])]
        for request in (
            messages.ListBookingsRequest(),
            messages.ListBookingsRequest(booking_date="yesterday"),
            messages.ListBookingsRequest(booking_date=day.isoformat(), plan_ids=[plans[0].plan_id]),
        ):
            with pytest.raises(FieldInvalid, match="booking_date"):
                await servicer.ListBookings(request, None)
        for odd in ("plan\x00/leg", "x" * 101):
            with pytest.raises(FieldInvalid, match="page_token"):
                await servicer.ListBookings(messages.ListBookingsRequest(booking_date=day.isoformat(), page_token=odd), None)
    finally:
        await db.close()
