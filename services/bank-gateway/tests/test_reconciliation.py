"""The comparison by itself: each way in which a bank's day can differ from ours is named once, and a judge that is broken is seen to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pytest
from bank_samples import AT, SCHEMAS, message
from hypothesis import given
from hypothesis import strategies as st
from test_races import BOOKED, NOW, PAYMENT

from bank_gateway import reconciliation
from bank_gateway.iso20022.reader import read
from bank_gateway.meanings import Meaning
from bank_gateway.messages import Booking, Envelope, StatementPage
from bank_gateway.operations import Known, hear
from bank_gateway.reconciliation import (
    Break,
    BreakKind,
    DayStatement,
    OurPayment,
    Reconciled,
    Standing,
    StatementBroken,
    assembled,
    follows,
    overdue,
    reconcile,
    resolved,
)
from lockstep_kit.amounts import amount_from_text
from lockstep_kit.fence import Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId, PlanId, uetr

DAY = date(2026, 11, 21)
PAYER, PAYEE, STRANGER = "DE89370400440532013000", "DE75512108001245126199", "DE12500105170648489890"
HUNDRED = amount_from_text("EUR", "100.00", 2)


def ours(number: int = 1, **changes: object) -> OurPayment:
    """A payment that was told as booked on the day."""
    plan_id, leg_id = PlanId(f"1b4e28ba-2fa1-4d3b-8bd4-0a1f0f9c2{number:03}"), LegId("cash")
    payment = OurPayment(
        plan_id, leg_id, uetr(plan_id, leg_id), f"E{number}", HUNDRED, PAYER, PAYEE, creditor_here=True, standing=Standing.BOOKED,
        booked_on=DAY, debit_reference=f"B{number}D", credited=PAYEE,
    )  # fmt: skip
    return replace(payment, **changes)  # type: ignore[arg-type]  # tests name the fields


def entry_of(our: OurPayment, *, debit: bool = True, **changes: object) -> Booking:
    """Its entry on the payer's account, or the payee's."""
    reference = our.debit_reference or "B1D"
    booked = Booking(
        our.uetr, our.end_to_end_id, our.debtor if debit else our.creditor, our.amount, debit, "BOOK", reference if debit else f"{reference[:-1]}C",
        booked_on=DAY, stated=True, ordered=debit,
    )  # fmt: skip
    return replace(booked, **changes)  # type: ignore[arg-type]  # tests name the fields


def stated(*entries: Booking, account: str = PAYER, number: int = 7, day: date = DAY, opening: int = 1_000_000) -> DayStatement:
    moved = sum(-each.amount.minor_units if each.debit else each.amount.minor_units for each in entries)
    return DayStatement("S1", account, "EUR", 2, day, number, opening, opening + moved, entries)


def kinds(found: Reconciled) -> list[tuple[BreakKind, int]]:
    return [(each.kind, each.minor_units) for each in found.breaks]


def test_what_is_as_it_should_be() -> None:
    """Both sides of a payment match, each in its account's statement, and the holder's other business is counted and nothing else."""
    our = ours()
    fee = Booking("", "", PAYER, amount_from_text("EUR", "1.20", 2), True, "BOOK", "F1", stated=True)
    salary = Booking(str(our.uetr)[:-1] + "0", "X", PAYER, HUNDRED, False, "BOOK", "C9", stated=True)
    found = reconcile(stated(entry_of(our), fee, salary), [our])
    assert (found.matched, found.others, found.breaks, found.settles) == ((our,), 2, (), ())
    assert reconcile(stated(entry_of(our, debit=False), account=PAYEE), [our]).matched == (our,)


ELSEWHERE = amount_from_text("USD", "100.00", 2)
MORE = amount_from_text("EUR", "100.07", 2)
DIFFERENCES: list[tuple[str, DayStatement, list[OurPayment], list[tuple[BreakKind, int]]]] = [
    ("left out", stated(), [ours()], [(BreakKind.MISSING_AT_BANK, 100_00)]),
    ("credit left out", stated(account=PAYEE), [ours()], [(BreakKind.MISSING_AT_BANK, 100_00)]),
    ("invented", stated(entry_of(ours(2))), [], [(BreakKind.MISSING_HERE, 100_00)]),
    ("no UETR", stated(entry_of(ours(2), uetr="", end_to_end_id="")), [], [(BreakKind.MISSING_HERE, 100_00)]),
    ("more", stated(entry_of(ours(), amount=MORE)), [ours()], [(BreakKind.AMOUNT_DIFFERS, 7)]),
    ("currency", stated(entry_of(ours(), amount=ELSEWHERE)), [ours()], [(BreakKind.CURRENCY_DIFFERS, 100_00)]),
    ("side", stated(entry_of(ours(), debit=False, account=PAYER)), [ours(booked_on=None)], [(BreakKind.SIDE_DIFFERS, 100_00)]),
    ("account", stated(entry_of(ours(), account=STRANGER), account=STRANGER), [ours()], [(BreakKind.SIDE_DIFFERS, 100_00)]),
    ("UETR", stated(entry_of(ours(), uetr=ours(3).uetr)), [ours()], [(BreakKind.REFERENCE_DIFFERS, 100_00)]),
    ("end to end", stated(entry_of(ours(), end_to_end_id="E9")), [ours()], [(BreakKind.REFERENCE_DIFFERS, 100_00)]),
    ("reference", stated(entry_of(ours(), reference="B9D")), [ours()], [(BreakKind.REFERENCE_DIFFERS, 100_00)]),
    ("twice", stated(entry_of(ours(), reference="B9D"), entry_of(ours())), [ours()], [(BreakKind.BOOKED_TWICE, 100_00)]),
    ("taken back", stated(entry_of(ours()), entry_of(ours(), reversal=True, reference="R1")), [ours()], [(BreakKind.REVERSED, 100_00)]),
    ("given up", stated(entry_of(ours())), [ours(standing=Standing.GIVEN_UP, booked_on=None, debit_reference="")],
     [(BreakKind.BOOKED_AFTER_RELEASE, 100_00)]),
    ("held", stated(entry_of(ours())), [ours(standing=Standing.HELD, booked_on=None, debit_reference="")],
     [(BreakKind.BOOKED_UNRELEASED, 100_00)]),
    ("in doubt", stated(), [ours(standing=Standing.DUE, overdue=True, booked_on=None, debit_reference="", credited="")],
     [(BreakKind.IN_DOUBT, 100_00)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "books", "expected"), [case[1:] for case in DIFFERENCES], ids=[case[0] for case in DIFFERENCES]
)
def test_each_difference_has_its_name(
    statement: DayStatement, books: list[OurPayment], expected: list[tuple[BreakKind, int]]
) -> None:
    """One difference is one break, with what it is about."""
    found = reconcile(statement, books)
    assert kinds(found) == expected
    assert all(each.sentence and each.account == statement.account and each.day == DAY for each in found.breaks)
    # What is known of a leg is told on the leg.
    assert all((each.leg is None) == (each.kind is BreakKind.MISSING_HERE) for each in found.breaks)


def test_what_settles() -> None:
    """An entry that fits settles what is in doubt; one that does not fit settles nothing; what is held or booked already is not settled by it."""
    due = ours(standing=Standing.DUE, booked_on=None, debit_reference="")
    assert reconcile(stated(entry_of(due)), [due]).settles == ((0, due),)
    for wrong in (entry_of(due, amount=MORE), entry_of(due, end_to_end_id="E9"), entry_of(due, reversal=True)):
        assert reconcile(stated(wrong), [due]).settles == ()
    for standing in (Standing.HELD, Standing.BOOKED):
        assert reconcile(stated(entry_of(due)), [replace(due, standing=standing)]).settles == ()
    # The credit alone says nothing of the debtor's money.
    assert reconcile(stated(entry_of(due, debit=False), account=PAYEE), [due]).settles == ()


PART = amount_from_text("EUR", "40.00", 2)


def back_of(our: OurPayment, account: str = PAYER, **changes: object) -> Booking:
    """The entry of a part of it that came back, on the payer's account, or the payee's."""
    there = {"account": account, "debit": account != PAYER, "amount": PART, "reference": "B7", "ordered": False, "returned": True}
    return entry_of(our, **(there | changes))  # type: ignore[arg-type]  # fields of an entry


def test_returns() -> None:
    """Beside its payment's entry a return that was told is as it should be, and posted by the payer's account; any other is a break by its amount."""
    our = ours(returns=(40_00, 10_00))
    found = reconcile(stated(entry_of(our), back_of(our)), [our])
    assert (found.matched, found.returns, found.breaks, found.others) == ((our,), ((1, our),), (), 0)
    found = reconcile(stated(entry_of(our, debit=False), back_of(our, PAYEE), account=PAYEE), [our])
    assert (found.matched, found.returns, found.breaks) == ((our,), (), ())
    # On a day of its own, and of a payment that is stated elsewhere.
    assert kinds(reconcile(stated(back_of(our), day=DAY + timedelta(days=1)), [our])) == []
    for wrong in ({"amount": MORE}, {"amount": replace(ELSEWHERE, minor_units=40_00)}, {"debit": True}):
        found = reconcile(stated(entry_of(our), back_of(our, **wrong)), [our])
        assert [each.kind for each in found.breaks] == [BreakKind.REVERSED]
        assert (found.matched, found.returns) == ((our,), ())
    untold = reconcile(stated(entry_of(our), back_of(our), back_of(our, reference="B8")), [replace(our, returns=())])
    assert kinds(untold) == [(BreakKind.REVERSED, 40_00)] * 2
    assert len({each.name for each in untold.breaks}) == 2


MENDED: list[tuple[str, str, object]] = [
    ("amounts are not compared", "_difference", lambda *_: None),
    ("what is missing is not looked for", "_missing", lambda *_: []),
]


@pytest.mark.parametrize(("name", "bug"), [(name, bug) for _, name, bug in MENDED], ids=[text for text, *_ in MENDED])
def test_a_broken_judge_is_seen(monkeypatch: pytest.MonkeyPatch, name: str, bug: Callable[..., object]) -> None:
    """With a rule taken out, some difference above has no name any more."""
    monkeypatch.setattr(reconciliation, name, bug)
    assert any(kinds(reconcile(statement, books)) != expected for _, statement, books, expected in DIFFERENCES)


@given(st.lists(st.integers(1, 10**9), max_size=6), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_every_payment_is_accounted_for(amounts: list[int], left_out: set[int], invented: set[int]) -> None:
    """Whatever is left out or invented: each payment is matched or missing, each entry matched or unknown, and nothing is both."""
    books = [ours(place, amount=replace(HUNDRED, minor_units=each)) for place, each in enumerate(amounts, 1)]
    there = [each for place, each in enumerate(books) if place not in left_out]
    strange = [entry_of(ours(100 + each)) for each in invented]
    found = reconcile(stated(*map(entry_of, there), *strange), books)
    assert set(found.matched) == set(there)
    missing = {each.leg for each in found.breaks if each.kind is BreakKind.MISSING_AT_BANK}
    assert missing == {(each.plan_id, each.leg_id) for each in books} - {(each.plan_id, each.leg_id) for each in there}
    assert len(found.breaks) == len(missing) + len(invented)


def test_one_after_the_other() -> None:
    """Each number that was passed over is a gap, and an opening balance that is not the last closing one is told with the difference."""
    statement = stated(number=7, opening=500)
    assert list(follows(statement, None)) == []
    assert list(follows(statement, (6, 500))) == []
    assert [(each.kind, each.minor_units) for each in follows(statement, (6, 455))] == [(BreakKind.OPENING_DIFFERS, 45)]
    assert [each.subject for each in follows(statement, (4, 455))] == ["5", "6"]


def test_what_a_later_statement_ends() -> None:
    """A break of the day ends when it is not found again; a missing booking when another day states it; a gap when its number comes; no other does."""
    our = ours()
    missing = reconcile(stated(), [our]).breaks
    later = stated(entry_of(our), day=DAY + timedelta(days=1), number=8)
    assert resolved(missing[0], later, reconcile(later, [our]), [])
    assert not resolved(missing[0], stated(day=later.day, number=8), Reconciled((), (), 0, ()), [])
    assert not resolved(missing[0], stated(), reconcile(stated(), [our]), missing)
    assert resolved(missing[0], stated(entry_of(our)), reconcile(stated(entry_of(our)), [our]), [])
    (gap,) = follows(stated(number=7), (5, 0))
    assert not resolved(gap, stated(number=7), Reconciled((), (), 0, ()), [])
    assert resolved(gap, stated(number=6, day=DAY - timedelta(days=1)), Reconciled((), (), 0, ()), [])
    given_up = ours(standing=Standing.GIVEN_UP, booked_on=None, debit_reference="")
    (late,) = reconcile(stated(entry_of(given_up)), [given_up]).breaks
    # The leg was told as executed meanwhile, so it is no difference any more, and a person must look all the same.
    assert not resolved(late, stated(entry_of(our)), reconcile(stated(entry_of(our)), [our]), [])
    assert resolved(late, stated(), reconcile(stated(), []), [])


def test_overdue() -> None:
    """A day without a statement is a break with what the bank told of it, and a day that it told nothing of is none."""
    (found,) = overdue(PAYER, DAY, [HUNDRED, MORE])
    assert (found.kind, found.minor_units, found.asset) == (BreakKind.STATEMENT_OVERDUE, 200_07, "EUR")
    assert list(overdue(PAYER, DAY, [])) == []


@pytest.mark.parametrize("phase", list(Phase))
def test_a_statement_alone_settles_what_is_being_executed(phase: Phase) -> None:
    """A stated entry without any status settles a payment whose key was shown, with itself as evidence; in every other phase it is a booking like any other."""
    told, statement = replace(BOOKED, booked_on=DAY), replace(BOOKED, booked_on=DAY, stated=True)
    envelope, digest = Envelope("COBADEFF", "LCKSDEFFXXX", "A1", NOW), bytes(32)
    by_notice = hear(Known(), phase, PAYMENT, told, envelope, digest)
    by_statement = hear(Known(), phase, PAYMENT, statement, envelope, digest)
    assert (by_statement.meaning is Meaning.SETTLES) == (phase is Phase.COMMITTING)
    assert by_notice.meaning is not Meaning.SETTLES
    if phase is Phase.COMMITTING:
        known = by_statement.known
        assert (known.status, known.status_message_id, known.booked_on) == ("BOOK", "A1", DAY.isoformat())
        wrong = hear(Known(), phase, PAYMENT, replace(statement, amount=MORE), envelope, digest)
        assert (wrong.meaning, wrong.known) == (Meaning.TROUBLE, Known())
    else:
        assert by_statement == by_notice


# -- The message ---------------------------------------------------------------------------------------------------------


def entry(
    amount: str = "100.00",
    side: str = "DBIT",
    *,
    day: str = "2026-11-21",
    status: str = "BOOK",
    rest: str = "",
    currency: str = "EUR",
) -> str:
    return (
        f'<Ntry><Amt Ccy="{currency}">{amount}</Amt><CdtDbtInd>{side}</CdtDbtInd><Sts><Cd>{status}</Cd></Sts><BookgDt><Dt>{day}</Dt></BookgDt>'
        f"<AcctSvcrRef>B1</AcctSvcrRef><BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>ICDT</Cd><SubFmlyCd>DMCT</SubFmlyCd></Fmly></Domn></BkTxCd>{rest}</Ntry>"
    )


def balance(code: str, amount: str, side: str = "CRDT", day: str = "2026-11-21", currency: str = "EUR") -> str:
    return (
        f'<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp><Amt Ccy="{currency}">{amount}</Amt><CdtDbtInd>{side}</CdtDbtInd>'
        f"<Dt><Dt>{day}</Dt></Dt></Bal>"
    )


def statement_message(
    *entries: str, opening: str = "150.00", closing: str = "50.00", summary: str = "", page: tuple[int, bool] | None = None,
    number: str = "7", balances: str = "", extra: str = "", account: str = PAYER,
) -> bytes:  # fmt: skip
    paged = "" if page is None else f"<StmtPgntn><PgNb>{page[0]}</PgNb><LastPgInd>{str(page[1]).lower()}</LastPgInd></StmtPgntn>"
    told = balances or balance("OPBD", opening) + balance("CLBD", closing)
    return message(
        "camt.053.001.13",
        f"<BkToCstmrStmt><GrpHdr><MsgId>ANSWER1</MsgId><CreDtTm>{AT}</CreDtTm></GrpHdr><Stmt><Id>S1</Id>{paged}"
        f"<ElctrncSeqNb>{number}</ElctrncSeqNb>{extra}<Acct><Id><IBAN>{account}</IBAN></Id></Acct>{told}{summary}{''.join(entries)}</Stmt>"
        f"</BkToCstmrStmt>",
    )


def page_of(octets: bytes) -> StatementPage:
    (page,) = read(octets, SCHEMAS).pages
    return page


def summary(count: str = "1", debits: str = "100.00") -> str:
    return (
        f"<TxsSummry><TtlNtries><NbOfNtries>{count}</NbOfNtries></TtlNtries>"
        f"<TtlDbtNtries><NbOfNtries>1</NbOfNtries><Sum>{debits}</Sum></TtlDbtNtries></TxsSummry>"
    )


def test_a_statement_is_read() -> None:
    """Account, day, number, balances of either sign, entries with their references: as they stand."""
    named = "<NtryDtls><TxDtls><Refs><EndToEndId>E1</EndToEndId><UETR>0e1c2d3a-1b2c-4d3e-8f4a-5b6c7d8e9f01</UETR></Refs></TxDtls></NtryDtls>"
    balances = balance("OPBD", "40.00") + balance("CLBD", "60.00", "DBIT")
    whole = assembled([page_of(statement_message(entry(rest=named), balances=balances, summary=summary()))])
    assert (whole.account, whole.day, whole.number, whole.opening, whole.closing) == (PAYER, DAY, 7, 40_00, -60_00)
    (booked,) = whole.entries
    assert (booked.uetr, booked.end_to_end_id, booked.reference) == ("0e1c2d3a-1b2c-4d3e-8f4a-5b6c7d8e9f01", "E1", "B1")
    assert (booked.amount, booked.debit, booked.ordered, booked.stated, booked.booked_on) == (HUNDRED, True, True, True, DAY)


def test_a_batch_is_read_payment_by_payment() -> None:
    """An entry that books several payments in one sum is each of them, and their sum must be the entry's."""

    def parts(*amounts: str) -> str:
        details = "".join(
            f'<TxDtls><Refs><EndToEndId>E</EndToEndId></Refs><Amt Ccy="EUR">{each}</Amt></TxDtls>' for each in amounts
        )
        return f"<NtryDtls>{details}</NtryDtls>"

    page = page_of(statement_message(entry(rest=parts("60.00", "40.00"))))
    assert ([each.amount.minor_units for each in page.entries], page.amounts) == ([60_00, 40_00], (-100_00,))
    with pytest.raises(FieldInvalid, match="NtryDtls must come to the entry's amount"):
        page_of(statement_message(entry(rest=parts("60.00", "41.00"))))


@pytest.mark.parametrize(
    ("octets", "field"),
    [
        (statement_message(entry(status="PDNG")), "Stmt.Ntry/Sts"),
        (statement_message(entry(currency="USD")), "Stmt.Ntry/Amt"),
        (statement_message(entry(day="2026-11-20")), "Stmt.Ntry/BookgDt"),
        (statement_message(entry(amount="1.001")), "Stmt.Amt.amount"),
        (statement_message(entry(), number="0"), "Stmt.ElctrncSeqNb"),
        (statement_message(entry(), number="7."), "Stmt.ElctrncSeqNb"),
        (statement_message(entry(), page=(0, True)), "Stmt.StmtPgntn/PgNb"),
        (statement_message(entry(), balances=balance("OPBD", "1.00")), "Stmt.Bal/Dt"),
        (statement_message(entry(), balances=balance("OPBD", "1.00") * 2 + balance("CLBD", "1.00")), "Stmt.Bal"),
        (statement_message(entry(), balances=balance("OPBD", "1.00", currency="USD") + balance("CLBD", "1.00")), "Stmt.Bal/Amt"),
        (statement_message(entry(), extra="<CpyDplctInd>COPY</CpyDplctInd>"), "Stmt.CpyDplctInd"),
    ],
)
def test_what_is_refused_of_a_statement(octets: bytes, field: str) -> None:
    """Each is valid by the schema, and refused by field and rule."""
    with pytest.raises(FieldInvalid) as refused:
        read(octets, SCHEMAS)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("messages", "field", "off"),
    [
        ([statement_message(entry(), closing="50.01")], "Bal", 1),
        ([statement_message(entry(), summary=summary(count="2"))], "TxsSummry/TtlNtries/NbOfNtries", 0),
        ([statement_message(entry(), summary=summary(debits="90.00"))], "TxsSummry/TtlDbtNtries/Sum", 10_00),
        ([statement_message(entry(), page=(1, False))], "StmtPgntn", 0),
        ([statement_message(entry(), page=(2, True))], "StmtPgntn", 0),
        ([statement_message(entry(), page=(1, True)), statement_message(entry(), page=(2, True))], "StmtPgntn", 0),
        ([statement_message(entry(), page=(1, False)), statement_message(page=(2, True), closing="49.00")], "Bal", 0),
        ([statement_message(entry(), page=(1, False)), statement_message(page=(2, True), number="8")], "Id", 0),
    ],
)
def test_what_is_no_whole(messages: list[bytes], field: str, off: int) -> None:
    """Pages, counts, sums and balances must fit; the break names the account, the day and by how much they do not."""
    with pytest.raises(StatementBroken) as broken:
        assembled([page_of(each) for each in messages])
    difference: Break = broken.value.difference
    assert (broken.value.field, difference.kind, difference.minor_units) == (f"Stmt/{field}", BreakKind.STATEMENT_BROKEN, off)
    assert (difference.account, difference.day, difference.asset) == (PAYER, DAY, "EUR")


def test_pages_make_a_whole() -> None:
    """Two pages, with the totals of the whole on each, are one statement with the entries of both."""
    whole = "<TxsSummry><TtlNtries><NbOfNtries>2</NbOfNtries></TtlNtries></TxsSummry>"
    pages = [
        statement_message(entry("60.00"), page=(1, False), summary=whole),
        statement_message(entry("40.00"), page=(2, True), summary=whole),
    ]
    assert [each.amount.minor_units for each in assembled([page_of(each) for each in pages]).entries] == [60_00, 40_00]
