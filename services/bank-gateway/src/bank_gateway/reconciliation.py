"""A bank's statement of a day against what our own books say of it, both ways. Pure.

1. A statement counts as a whole or not at all: all pages, its counts and sums, and opening balance plus entries equals closing balance.
2. Each entry that names a payment is that payment's, once, in amount, currency, side and reference, or a return of it that was told; what else is on the
   account is its holder's business, except a transfer out of it that nobody here ordered. A return that was not told counts all the same.
3. Each booking that the bank told of the day is in the day's statement; a payment whose key was shown and that no statement shows is in doubt.
4. An entry settles a payment that is being executed and whose outcome is not known. It never releases one.
5. Statements follow one another: numbers without a gap, each opening with the balance that the one before closed with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from enum import StrEnum

from bank_gateway.messages import Booking, StatementPage
from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.values import dataclass, replace


class BreakKind(StrEnum):
    """How a bank's statement and our books differ."""

    #: The bank told the booking, and the day's statement does not have it.
    MISSING_AT_BANK = "MISSING_AT_BANK"
    #: The statement has a transfer that nobody here ordered.
    MISSING_HERE = "MISSING_HERE"
    #: The entry has another amount than the payment.
    AMOUNT_DIFFERS = "AMOUNT_DIFFERS"
    #: The entry is in another currency than the payment.
    CURRENCY_DIFFERS = "CURRENCY_DIFFERS"
    #: The entry is on an account, or on a side of it, that is not the payment's.
    SIDE_DIFFERS = "SIDE_DIFFERS"
    #: The entry names the payment by one reference, and another payment or none by the other; or it is booked under another reference than was told.
    REFERENCE_DIFFERS = "REFERENCE_DIFFERS"
    #: The payment is booked more than once.
    BOOKED_TWICE = "BOOKED_TWICE"
    #: The bank took back an entry of the payment, or booked a return of it that it had not told.
    REVERSED = "REVERSED"
    #: The payment was given up here, and the bank booked it.
    BOOKED_AFTER_RELEASE = "BOOKED_AFTER_RELEASE"
    #: The payment's key was never shown, and the bank booked it.
    BOOKED_UNRELEASED = "BOOKED_UNRELEASED"
    #: The payment is being executed for long, and the statement does not show it.
    IN_DOUBT = "IN_DOUBT"
    #: The statement does not open with the balance that the one before closed with.
    OPENING_DIFFERS = "OPENING_DIFFERS"
    #: The statement is not whole: its balances, counts or sums are not what its entries come to.
    STATEMENT_BROKEN = "STATEMENT_BROKEN"
    #: A number of the account's statements was passed over.
    STATEMENT_GAP = "STATEMENT_GAP"
    #: The bank told bookings of the day, and its statement is overdue.
    STATEMENT_OVERDUE = "STATEMENT_OVERDUE"
    #: The statement has what our books have, and the ledger has no posting of it.
    LEDGER_MISSING = "LEDGER_MISSING"
    #: The ledger has more than one posting of what was booked once.
    LEDGER_TWICE = "LEDGER_TWICE"
    #: The ledger's posting has another amount than the entry.
    LEDGER_AMOUNT_DIFFERS = "LEDGER_AMOUNT_DIFFERS"
    #: The ledger's posting is on another account, or in another currency, than the entry.
    LEDGER_ACCOUNT_DIFFERS = "LEDGER_ACCOUNT_DIFFERS"
    #: The ledger has a posting that the bank neither told nor stated, or told and does not state.
    LEDGER_UNSTATED = "LEDGER_UNSTATED"
    #: The account's stated balances moved by another amount than the ledger, beyond what the other differences come to.
    BALANCE_DIFFERS = "BALANCE_DIFFERS"


class Standing(StrEnum):
    """Where a payment stands by our books."""

    #: Being prepared, held, or being cancelled: nothing may be booked.
    HELD = "HELD"
    #: Its key was shown, and its outcome is not known.
    DUE = "DUE"
    #: Booked.
    BOOKED = "BOOKED"
    #: Refused or released.
    GIVEN_UP = "GIVEN_UP"


@dataclass(frozen=True, slots=True)
class OurPayment:
    """What our books say of one payment."""

    #: Plan of its leg.
    plan_id: PlanId
    #: Its leg.
    leg_id: LegId
    #: Unique end-to-end transaction reference.
    uetr: str
    #: End-to-end reference.
    end_to_end_id: str
    #: Amount.
    amount: Amount
    #: Account that pays.
    debtor: str
    #: Account that is paid.
    creditor: str
    #: Whether the creditor's account is at the same bank.
    creditor_here: bool
    #: Where it stands.
    standing: Standing
    #: Whether it is being executed for so long that a statement should show it.
    overdue: bool = False
    #: Booking day, as the bank told it when it booked; None where it told none.
    booked_on: date | None = None
    #: Account servicer's reference of the debit, as told then, or "".
    debit_reference: str = ""
    #: Account that was told to be credited, or "".
    credited: str = ""
    #: Minor units of each return that was told.
    returns: tuple[int, ...] = ()
    #: What the bank booked back: (name of the ledger's posting, booking day as it was told, or None).
    returned_on: tuple[tuple[str, date | None], ...] = ()


@dataclass(frozen=True, slots=True)
class DayStatement:
    """A whole statement of one account and booking day. Balances are minor units."""

    #: The bank's name of it.
    statement_id: str
    #: Account.
    account: str
    #: ISO 4217 code.
    currency: str
    #: Decimal places.
    scale: int
    #: Booking day.
    day: date
    #: Electronic sequence number.
    number: int
    #: Balance before the first entry.
    opening: int
    #: Balance after the last entry.
    closing: int
    #: What was booked, page after page.
    entries: tuple[Booking, ...]


@dataclass(frozen=True, slots=True)
class Break:
    """A difference between the bank and us, which stays until a later statement or a person ends it."""

    #: What it is.
    kind: BreakKind
    #: Account.
    account: str
    #: Booking day.
    day: date
    #: What tells it from others of its kind: a UETR, a reference or a number, or "".
    subject: str
    #: ISO 4217 code.
    asset: str
    #: How much money it is about, in minor units, never negative.
    minor_units: int
    #: Decimal places.
    scale: int
    #: Leg that it concerns, or None.
    leg: tuple[PlanId, LegId] | None
    #: One sentence.
    sentence: str
    #: UETR that is named, or "".
    uetr: str = ""
    #: End-to-end reference that is named, or "".
    end_to_end_id: str = ""

    @property
    def name(self) -> tuple[BreakKind, str, date, str, int]:
        """What makes it the same difference when it is found again."""
        return self.kind, self.account, self.day, self.subject, self.minor_units


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison found."""

    #: Payments whose entries are as our books have them.
    matched: tuple[OurPayment, ...]
    #: Payments whose outcome the statement tells: (place of the entry, payment).
    settles: tuple[tuple[int, OurPayment], ...]
    #: Entries that are none of our business.
    others: int
    #: Differences.
    breaks: tuple[Break, ...]
    #: Returns to debtors, told or not: (place of the entry, payment).
    returns: tuple[tuple[int, OurPayment], ...] = ()

    @property
    def concerned(self) -> frozenset[tuple[PlanId, LegId]]:
        """Legs that something is to be done about."""
        settled = {(our.plan_id, our.leg_id) for _, our in (*self.settles, *self.returns)}
        return frozenset(settled | {each.leg for each in self.breaks if each.leg is not None})


class StatementBroken(FieldInvalid):
    """A statement is not a whole; nothing of it counts.

    Attributes:
        difference: the break that it is.
    """

    def __init__(self, field: str, rule: str, page: StatementPage, minor_units: int = 0) -> None:
        super().__init__(f"Stmt/{field}", rule)
        sentence = f"the bank's statement {page.statement_id} of {page.account} for {page.day} cannot be used: {field} {rule}"
        self.difference = Break(
            BreakKind.STATEMENT_BROKEN, page.account, page.day, page.statement_id, page.currency, abs(minor_units), page.scale, None, sentence
        )  # fmt: skip


def assembled(pages: Sequence[StatementPage]) -> DayStatement:
    """The statement that pages make, in order.

    Raises:
        StatementBroken: they do not make a whole one.
    """
    first = pages[0]

    def need(condition: bool, field: str, rule: str, minor_units: int = 0) -> None:
        if not condition:
            raise StatementBroken(field, rule, first, minor_units)

    numbers = [page.page for page in pages]
    need(numbers == list(range(1, len(pages) + 1)), "StmtPgntn", "must count the pages from 1 without a gap")
    need([page.last for page in pages] == [False] * (len(pages) - 1) + [True], "StmtPgntn", "must mark the last page and no other")
    for page in pages:
        same = (page.account, page.currency, page.day, page.number, page.totals) == (
            first.account, first.currency, first.day, first.number, first.totals
        )  # fmt: skip
        need(same, "Id", "must be one account, day, number and summary on all pages")
    openings, closings = (
        {each for each in told if each is not None} for told in zip(*((p.opening, p.closing) for p in pages), strict=True)
    )
    need(len(openings) == 1, "Bal", "must state one opening balance")
    need(len(closings) == 1, "Bal", "must state one closing balance")
    amounts = [amount for page in pages for amount in page.amounts]
    credited, debited = [each for each in amounts if each > 0], [-each for each in amounts if each < 0]
    totals, (opening,), (closing,) = first.totals, openings, closings
    for field, told, found in (
        ("TtlNtries/NbOfNtries", totals.count, len(amounts)),
        ("TtlCdtNtries/NbOfNtries", totals.credit_count, len(credited)),
        ("TtlDbtNtries/NbOfNtries", totals.debit_count, len(debited)),
    ):
        need(told in (None, found), f"TxsSummry/{field}", "must be the number of entries")
    for field, told, found in (
        ("TtlCdtNtries/Sum", totals.credit_sum, sum(credited)),
        ("TtlDbtNtries/Sum", totals.debit_sum, sum(debited)),
    ):
        need(told in (None, found), f"TxsSummry/{field}", "must be the sum of the entries", (told or 0) - found)
    need(opening + sum(amounts) == closing, "Bal", "must be opening balance plus entries", closing - opening - sum(amounts))
    entries = tuple(entry for page in pages for entry in page.entries)
    return DayStatement(
        first.statement_id, first.account, first.currency, first.scale, first.day, first.number, opening, closing, entries
    )


def reconcile(statement: DayStatement, ours: Sequence[OurPayment]) -> Reconciled:
    """Every entry of a statement against our books, and our books against it.

    `ours` holds every payment that the statement names by UETR or end-to-end reference, every one that was told as booked on this account and day, and
    every one that is being executed on this account.
    """
    by_uetr = {each.uetr: each for each in ours}
    by_reference = {each.end_to_end_id: each for each in ours}
    entries: dict[tuple[str, bool], list[tuple[int, Booking]]] = defaultdict(list)
    breaks: list[Break] = []
    returns: list[tuple[int, OurPayment]] = []
    others = 0
    for place, entry in enumerate(statement.entries):
        our = by_uetr.get(entry.uetr) or by_reference.get(entry.end_to_end_id)
        if our is not None and entry.returned:
            untold = _untold_return(statement, our, entry)
            if untold is not None:
                breaks.append(untold)
            if _comes_back(our, entry):
                returns.append((place, our))
        elif our is not None:
            entries[our.uetr, entry.debit].append((place, entry))
        elif entry.debit and (entry.ordered or entry.uetr):
            breaks.append(_unknown(statement, entry, place))
        else:
            others += 1
    matched: dict[str, OurPayment] = {}
    settles: list[tuple[int, OurPayment]] = []
    for (uetr, debit), found in entries.items():
        our = by_uetr[uetr]
        told = our.debit_reference if debit else ""
        place, main = next(((place, entry) for place, entry in found if told and entry.reference == told), found[0])
        breaks += [of_payment(BreakKind.BOOKED_TWICE, statement, our, f"the bank booked the payment again ({entry.reference})", entry)
                   for other, entry in found if other != place and not entry.reversal]  # fmt: skip
        breaks += [of_payment(BreakKind.REVERSED, statement, our, f"the bank took the booking back ({entry.reference})", entry)
                   for _, entry in found if entry.reversal]  # fmt: skip
        if main.reversal:
            continue
        difference = _difference(statement, our, main)
        if difference is not None:
            breaks.append(difference)
        if difference is None or difference.kind is BreakKind.BOOKED_AFTER_RELEASE:
            if debit and our.standing in (Standing.DUE, Standing.GIVEN_UP):
                settles.append((place, our))
            if difference is None:
                matched[uetr] = our
    breaks += _missing(statement, ours, entries)
    return Reconciled(tuple(matched.values()), tuple(settles), others, tuple(breaks), tuple(returns))


def _unknown(statement: DayStatement, entry: Booking, place: int) -> Break:
    amount = entry.amount
    sentence = (
        f"the bank's statement debits {amount} ({entry.reference}) for a payment that is not known here: {entry.uetr or 'no UETR'}"
    )
    return Break(
        BreakKind.MISSING_HERE, statement.account, statement.day, entry.reference or f"{statement.number}/{place}", amount.asset,
        amount.minor_units, amount.scale, None, sentence, entry.uetr, entry.end_to_end_id,
    )  # fmt: skip


def of_payment(
    kind: BreakKind, statement: DayStatement, our: OurPayment, sentence: str, entry: Booking | None, minor_units: int | None = None
) -> Break:  # fmt: skip
    """A difference in a payment, with what the statement has of it."""
    amount = our.amount if entry is None else entry.amount
    side = "" if entry is None or entry.debit else ":credit"
    stated = f"its statement of {statement.day} does not have it" if entry is None else f"its statement of {statement.day} says so"
    return Break(
        kind, statement.account, statement.day, f"{our.uetr}{side}", amount.asset,
        amount.minor_units if minor_units is None else minor_units, amount.scale, (our.plan_id, our.leg_id),
        f"{sentence}: {stated}", our.uetr, our.end_to_end_id,
    )  # fmt: skip


def _comes_back(our: OurPayment, entry: Booking) -> bool:
    """Whether a return gives the debtor money of the payment back, be it told before or not."""
    amount = entry.amount
    return (
        entry.account == our.debtor
        and not entry.debit
        and amount.asset == our.amount.asset
        and amount.minor_units <= our.amount.minor_units
    )


def _untold_return(statement: DayStatement, our: OurPayment, entry: Booking) -> Break | None:
    """The break that a return is that the bank books and did not tell so; None for one that it told."""
    back = not entry.debit if entry.account == our.debtor else entry.debit
    if back and entry.amount.asset == our.amount.asset and entry.amount.minor_units in our.returns:
        return None
    sentence = f"the bank booked a return of {entry.amount} that it had not told ({entry.reference})"
    found = of_payment(BreakKind.REVERSED, statement, our, sentence, entry)
    # A payment may come back in parts.
    return replace(found, subject=f"{found.subject}:{entry.reference}")


def _difference(statement: DayStatement, our: OurPayment, entry: Booking) -> Break | None:
    """How an entry is not the payment's; None where it is."""
    amount = entry.amount
    debited = entry.debit and entry.account == our.debtor
    credited = not entry.debit and entry.account != our.debtor and (entry.account == our.creditor or not our.creditor_here)
    if not debited and not credited:
        side = "debited" if entry.debit else "credited"
        return of_payment(BreakKind.SIDE_DIFFERS, statement, our, f"the bank {side} an account that is not the payment's", entry)
    if amount.asset != our.amount.asset:
        return of_payment(BreakKind.CURRENCY_DIFFERS, statement, our, f"the bank booked {amount} instead of {our.amount}", entry)
    if amount.minor_units != our.amount.minor_units:
        off = abs(amount.minor_units - our.amount.minor_units)
        return of_payment(BreakKind.AMOUNT_DIFFERS, statement, our, f"the bank booked {amount} instead of {our.amount}", entry, off)
    if (entry.uetr, entry.end_to_end_id) != (our.uetr, our.end_to_end_id):
        named = f"the bank names the payment {entry.uetr or 'no UETR'} ({entry.end_to_end_id or 'no end-to-end reference'})"
        return of_payment(BreakKind.REFERENCE_DIFFERS, statement, our, named, entry)
    if entry.debit and our.debit_reference and entry.reference != our.debit_reference:
        named = f"the bank booked under {entry.reference}, and had told {our.debit_reference}"
        return of_payment(BreakKind.REFERENCE_DIFFERS, statement, our, named, entry)
    match our.standing:
        case Standing.GIVEN_UP:
            return of_payment(BreakKind.BOOKED_AFTER_RELEASE, statement, our, "the bank booked a payment that was given up", entry)
        case Standing.HELD:
            return of_payment(BreakKind.BOOKED_UNRELEASED, statement, our, "the bank booked a payment that was not released", entry)
        case _:
            return None


def _missing(
    statement: DayStatement, ours: Sequence[OurPayment], entries: Mapping[tuple[str, bool], Sequence[tuple[int, Booking]]]
) -> Iterator[Break]:  # fmt: skip
    """What our books have of the account and day, and the statement has not."""
    for our in ours:
        if our.booked_on == statement.day:
            if our.debtor == statement.account and (our.uetr, True) not in entries:
                yield of_payment(
                    BreakKind.MISSING_AT_BANK,
                    statement,
                    our,
                    f"the bank told the booking {our.debit_reference}",
                    None,
                )
            if our.credited == statement.account and (our.uetr, False) not in entries:
                found = of_payment(BreakKind.MISSING_AT_BANK, statement, our, "the bank told the credit of the payment", None)
                yield replace(found, subject=f"{our.uetr}:credit")
        elif our.overdue and our.debtor == statement.account and (our.uetr, True) not in entries:
            yield of_payment(
                BreakKind.IN_DOUBT, statement, our, "the payment's key was shown, and nobody knows what became of it", None
            )


def follows(statement: DayStatement, before: tuple[int, int] | None) -> Iterator[Break]:
    """How a statement does not follow the one before it, given as (number, closing balance); the first that was ever taken follows nothing."""
    if before is None:
        return
    number, closing = before
    asset, scale = statement.currency, statement.scale
    for missing in range(number + 1, statement.number):
        sentence = f"the bank's statement number {missing} of {statement.account} is not here, and number {statement.number} is"
        yield Break(BreakKind.STATEMENT_GAP, statement.account, statement.day, str(missing), asset, 0, scale, None, sentence)
    if number + 1 == statement.number and closing != statement.opening:
        off = Amount(AssetId(asset), abs(closing - statement.opening), scale)
        sentence = f"the bank's statement number {statement.number} of {statement.account} opens {off} away from where number {number} closed"
        yield Break(
            BreakKind.OPENING_DIFFERS, statement.account, statement.day, str(statement.number), asset, off.minor_units, scale, None, sentence
        )  # fmt: skip


def overdue(account: str, day: date, told: Sequence[Amount]) -> Iterator[Break]:
    """The break that a statement is overdue, with what the bank told as booked on the day."""
    if told:
        total = sum(each.minor_units for each in told)
        sentence = f"the bank's statement of {account} for {day} is overdue: it told {len(told)} bookings of that day"
        yield Break(BreakKind.STATEMENT_OVERDUE, account, day, "", told[0].asset, total, told[0].scale, None, sentence)


def resolved(known: Break, statement: DayStatement, found: Reconciled, breaks: Sequence[Break]) -> bool:
    """Whether a statement ends a break of its account that was found before. Those of the day are found again or are over."""
    if known.kind is BreakKind.STATEMENT_GAP and known.subject == str(statement.number):
        return True
    if known.kind is BreakKind.MISSING_AT_BANK and known.day < statement.day:
        side = "" if known.subject.endswith(":credit") else statement.account
        return any(each.uetr == known.subject.partition(":")[0] and side in ("", each.debtor) for each in found.matched)
    if known.kind in (BreakKind.BOOKED_AFTER_RELEASE, BreakKind.BOOKED_UNRELEASED):
        # It stays one when the leg was told as executed since, by the same entry.
        return known.day == statement.day and known.subject not in {each.uetr for each in statement.entries}
    # A gap is told by the statement after it, and ends with the one that was missing.
    return (
        known.day == statement.day
        and known.kind is not BreakKind.STATEMENT_GAP
        and known.name not in {each.name for each in breaks}
    )
