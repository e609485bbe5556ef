"""A statement against the ledger: whatever is posted wrongly has its name, on the statement's side or on the ledger's, and a broken judge is seen to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reconciliation import DAY, HUNDRED, MORE, PAYEE, PAYER, STRANGER, back_of, entry_of, kinds, ours, stated

from bank_gateway.ledger import reconciliation
from bank_gateway.ledger.reconciliation import LedgerDay, against_ledger, balance_differs
from bank_gateway.ledger.rules import AccountKind, Entry, EntryKind, account_of
from bank_gateway.messages import Booking
from bank_gateway.reconciliation import Break, BreakKind, DayStatement, OurPayment, Standing, reconcile
from bank_gateway.references import return_name

LEDGER = "COBADEFF/EUR"
LATER = DAY + timedelta(days=1)
BACK = return_name("B7")


def settled(our: OurPayment, *, name: str = "", account: str = PAYER, ledger: str = LEDGER, amount: int = 0) -> Entry:
    """The posting of a payment."""
    held, there = account_of(account, AccountKind.HELD), account_of(account, AccountKind.SETTLED)
    return Entry(ledger, f"{our.uetr}/SETTLED{name}", EntryKind.SETTLED, our.uetr, held, there, amount or our.amount.minor_units)


def returned(our: OurPayment, name: str = BACK, amount: int = 40_00) -> Entry:
    """The posting of a part that came back."""
    there, line = account_of(PAYER, AccountKind.SETTLED), account_of(PAYER, AccountKind.LINE)
    return Entry(LEDGER, f"{our.uetr}/RETURNED/{name}", EntryKind.RETURNED, our.uetr, there, line, amount)


def compared(
    statement: DayStatement, payments: Sequence[OurPayment], posted: Sequence[Entry], recent: Sequence[Entry] = (), *, blind: bool = False
) -> list[tuple[BreakKind, int]]:  # fmt: skip
    """Every difference that is found; `blind` to all but the balances."""
    found = reconcile(statement, payments)
    histories = {our.uetr: [each for each in posted if each.uetr == our.uetr] for our in payments}
    books = LedgerDay(LEDGER, histories, recent, moved(statement, payments, posted))
    breaks: list[Break] = [*found.breaks]
    if not blind:
        breaks += against_ledger(statement, found, payments, books)
    breaks += balance_differs(statement, payments, books, breaks)
    return [(each.kind, each.minor_units) for each in breaks]


def moved(statement: DayStatement, payments: Sequence[OurPayment], posted: Sequence[Entry]) -> int:
    """As the database counts: what was told for the day or is in its statement, whatever else is thought of it."""
    of_day = {our.uetr for our in payments if our.booked_on == statement.day} | {
        each.uetr for each in statement.entries if each.debit
    }
    back = {name for our in payments for name, day in our.returned_on if day == statement.day}
    back |= {return_name(each.reference) for each in statement.entries if not each.debit}
    there = account_of(statement.account, AccountKind.SETTLED)
    total = 0
    for each in posted:
        if each.ledger == LEDGER and each.credit == there and each.uetr in of_day:
            total += each.amount
        elif each.ledger == LEDGER and each.debit == there and each.reference.rpartition("/")[2] in back:
            total -= each.amount
    return total


OUR, TOLD_BACK = ours(), ours(returns=(40_00,), returned_on=((BACK, DAY),))
UNTOLD = ours(booked_on=None, debit_reference="", credited="", standing=Standing.HELD)
WRONG: list[tuple[str, DayStatement, OurPayment, list[Entry], list[tuple[BreakKind, int]]]] = [
    ("left out", stated(entry_of(OUR)), OUR, [], [(BreakKind.LEDGER_MISSING, 100_00)]),
    ("doubled", stated(entry_of(OUR)), OUR, [settled(OUR), settled(OUR, name="/2")], [(BreakKind.LEDGER_TWICE, 100_00)]),
    ("more", stated(entry_of(OUR)), OUR, [settled(OUR, amount=100_07)], [(BreakKind.LEDGER_AMOUNT_DIFFERS, 7)]),
    ("less", stated(entry_of(OUR)), OUR, [settled(OUR, amount=99_99)], [(BreakKind.LEDGER_AMOUNT_DIFFERS, 1)]),
    ("account", stated(entry_of(OUR)), OUR, [settled(OUR, account=STRANGER)], [(BreakKind.LEDGER_ACCOUNT_DIFFERS, 100_00)]),
    ("currency", stated(entry_of(OUR)), OUR, [settled(OUR, ledger="COBADEFF/USD")], [(BreakKind.LEDGER_ACCOUNT_DIFFERS, 100_00)]),
    ("never booked", stated(), UNTOLD, [settled(UNTOLD)], [(BreakKind.LEDGER_UNSTATED, 100_00)]),
    ("return left out", stated(entry_of(OUR), back_of(OUR)), TOLD_BACK, [settled(OUR)], [(BreakKind.LEDGER_MISSING, 40_00)]),
    ("return of less", stated(entry_of(OUR), back_of(OUR)), TOLD_BACK, [settled(OUR), returned(OUR, amount=39_00)],
     [(BreakKind.LEDGER_AMOUNT_DIFFERS, 1_00)]),
    ("return doubled", stated(entry_of(OUR), back_of(OUR)), TOLD_BACK, [settled(OUR), returned(OUR), returned(OUR, "0" * 16)],
     [(BreakKind.LEDGER_UNSTATED, 40_00)]),
    ("return not stated", stated(entry_of(OUR)), TOLD_BACK, [settled(OUR), returned(OUR)], [(BreakKind.LEDGER_UNSTATED, 40_00)]),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "our", "posted", "expected"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_each_wrong_posting_has_its_name(
    statement: DayStatement, our: OurPayment, posted: list[Entry], expected: list[tuple[BreakKind, int]]
) -> None:
    """A posting that is left out, doubled, of another amount or elsewhere is one break with what it is about, and the balances say nothing beside it."""
    assert compared(statement, [our], posted) == expected


def test_what_is_posted_as_it_is_stated() -> None:
    """Payment and return, each posted once, are no break: on their day, and on a later one for which the return was told."""
    assert compared(stated(entry_of(OUR)), [OUR], [settled(OUR)]) == []
    assert compared(stated(entry_of(OUR), back_of(OUR)), [TOLD_BACK], [settled(OUR), returned(OUR)]) == []
    later = replace(TOLD_BACK, returned_on=((BACK, LATER),))
    assert compared(stated(entry_of(OUR)), [later], [settled(OUR), returned(OUR)]) == []
    assert compared(stated(back_of(OUR, booked_on=LATER), day=LATER), [later], [settled(OUR), returned(OUR)]) == []


def test_other_business_moves_no_ledger() -> None:
    """The holder's salary and fees, and credits of payments that others make to it, are in the balances and not in the ledger."""
    fee = Booking("", "", PAYER, replace(HUNDRED, minor_units=1_20), True, "BOOK", "F1", stated=True)
    salary = Booking("", "", PAYER, HUNDRED, False, "BOOK", "C9", stated=True)
    towards = ours(2, debtor=PAYEE, creditor=PAYER, credited=PAYER)
    entries = entry_of(OUR), fee, salary, entry_of(towards, debit=False, account=PAYER)
    assert compared(stated(*entries), [OUR, towards], [settled(OUR), settled(towards, account=PAYEE)]) == []


def test_a_difference_of_entries_is_one_difference() -> None:
    """What the statement has of a payment otherwise than our books is told once, and not by the ledger and the balances again."""
    for statement in (stated(), stated(entry_of(OUR, amount=MORE)), stated(entry_of(OUR), entry_of(OUR, reference="B9D"))):
        found = reconcile(statement, [OUR])
        assert len(found.breaks) == 1
        assert compared(statement, [OUR], [settled(OUR)]) == kinds(found)


def test_a_posting_about_nobody() -> None:
    """A posting since the statement before, about a payment that is not known, is a break that concerns no leg."""
    strange = settled(ours(9))
    found = reconcile(stated(), [])
    (only,) = against_ledger(stated(), found, [], LedgerDay(LEDGER, {}, [strange], 0))
    assert (only.kind, only.minor_units, only.leg, only.subject) == (BreakKind.LEDGER_UNSTATED, 100_00, None, strange.reference)


def test_a_ledger_that_does_not_know_the_account() -> None:
    """Where the ledger knows no account there are no balances to compare."""
    statement = stated(entry_of(OUR, debit=False), account=PAYEE)
    assert list(balance_differs(statement, [OUR], LedgerDay(LEDGER, {}), [])) == []


@pytest.mark.parametrize(
    "case", [case for case in WRONG if case[0] not in ("never booked", "return doubled")], ids=lambda case: case[0]
)
def test_the_balances_show_what_the_entries_overlook(
    case: tuple[str, DayStatement, OurPayment, list[Entry], list[tuple[BreakKind, int]]],
) -> None:
    """With the comparison of postings taken out, the day's balances do not come to what the ledger moved; what is of no day is beyond them."""
    _, statement, our, posted, expected = case
    assert compared(statement, [our], posted, blind=True) == [(BreakKind.BALANCE_DIFFERS, expected[0][1])]


def _nothing(*_: object) -> list[Break]:
    return []


@pytest.mark.parametrize("name", ["_payment", "_returns", "_stray"])
def test_a_broken_judge_is_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With a rule taken out, some wrong posting above has its name no more."""
    bug: Callable[..., object] = _nothing
    if name == "_stray":
        monkeypatch.setattr(reconciliation, "STATED", frozenset())
        assert compared(stated(), [], [], [settled(ours(9))]) == []
        return
    monkeypatch.setattr(reconciliation, name, bug)
    assert any(compared(statement, [our], posted) != expected for _, statement, our, posted, expected in WRONG)


@given(
    st.lists(st.integers(1, 10**9), min_size=1, max_size=5),
    st.dictionaries(st.integers(0, 4), st.sampled_from(["left out", "doubled", "more"]), max_size=5),
)
def test_every_posting_is_accounted_for(amounts: list[int], bugs: dict[int, str]) -> None:
    """Whatever is left out, doubled or changed: exactly these payments have a break, each by its amount, and the balances are explained by them."""
    payments = [ours(place, amount=replace(HUNDRED, minor_units=each)) for place, each in enumerate(amounts, 1)]
    posted: list[Entry] = []
    expected: list[tuple[BreakKind, int]] = []
    for place, our in enumerate(payments):
        units = our.amount.minor_units
        match bugs.get(place):
            case "left out":
                expected.append((BreakKind.LEDGER_MISSING, units))
            case "doubled":
                posted += [settled(our), settled(our, name="/2")]
                expected.append((BreakKind.LEDGER_TWICE, units))
            case "more":
                posted.append(settled(our, amount=units + 3))
                expected.append((BreakKind.LEDGER_AMOUNT_DIFFERS, 3))
            case _:
                posted.append(settled(our))
    assert compared(stated(*map(entry_of, payments)), payments, posted) == expected


def test_days_are_days() -> None:
    """What the bank told for another day is not looked for in this one."""
    other: date = LATER
    our = ours(booked_on=other)
    assert compared(stated(), [our], [settled(our)]) == []
