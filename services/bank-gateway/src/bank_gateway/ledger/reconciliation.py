"""A bank's statement of a day against the ledger, both ways. Pure.

1. What the statement has as our books have it is posted: once, with its amount, on the debtor's account of the ledger of its currency.
2. What is posted was told by the bank, and is in the statement of the day that it was told for.
3. The stated balances move by what was posted of the day, beyond entries that are none of the ledger's business. What other differences explain is no
   difference of its own, so that this one shows what they overlooked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bank_gateway.ledger.rules import AccountKind, Entry, EntryKind, account_of
from bank_gateway.messages import Booking
from bank_gateway.reconciliation import Break, BreakKind, DayStatement, OurPayment, Reconciled, of_payment
from bank_gateway.references import return_name
from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.values import dataclass, replace

#: Kinds of entries that a bank's statement shows.
STATED: frozenset[EntryKind] = frozenset({EntryKind.SETTLED, EntryKind.RETURNED})


@dataclass(frozen=True, slots=True)
class LedgerDay:
    """What the ledger has of a statement's account."""

    #: The ledger: the bank's, in the statement's currency.
    ledger: str
    #: All entries about each payment that is compared, by UETR.
    histories: Mapping[str, Sequence[Entry]]
    #: Postings on the account since the statement before it, whatever they are about.
    recent: Sequence[Entry] = ()
    #: By what all postings of the day moved the account, in minor units, out of it; None where the ledger does not know the account.
    moved: int | None = None


@dataclass(frozen=True, slots=True)
class _Stated:
    """What a statement has of one payment on its debtor's account."""

    #: Place and entry of the payment itself.
    paid: tuple[tuple[int, Booking], ...]
    #: Name of the ledger's posting -> what came back.
    back: Mapping[str, tuple[int, Booking]]

    @property
    def moved(self) -> int:
        """Minor units that left the account."""
        return sum(each.amount.minor_units for _, each in self.paid) - sum(
            each.amount.minor_units for _, each in self.back.values()
        )


def against_ledger(statement: DayStatement, found: Reconciled, ours: Sequence[OurPayment], books: LedgerDay) -> tuple[Break, ...]:
    """How the ledger differs from a statement that was compared with the payments; payments with a difference are left out."""
    known, differing = {each.uetr for each in ours}, _differing(found.breaks)
    stated = _stated_of(statement, ours)
    breaks: list[Break] = []
    for our in ours:
        if our.debtor == statement.account and our.uetr not in differing:
            breaks += _payment(statement, our, stated[our.uetr], books)
    for our in ours:
        if our.debtor == statement.account:
            breaks += _returns(statement, found, our, stated[our.uetr], books)
    breaks += (_stray(statement, each) for each in books.recent if each.uetr not in known and each.kind in STATED)
    return tuple(breaks)


def balance_differs(
    statement: DayStatement, ours: Sequence[OurPayment], books: LedgerDay, breaks: Sequence[Break]
) -> Iterator[Break]:  # fmt: skip
    """The difference that is left between the stated balances and the ledger, after all that `breaks` say."""
    if books.moved is None:
        return
    stated, differing, here = (
        _stated_of(statement, ours),
        _differing(breaks),
        [each for each in ours if each.debtor == statement.account],
    )
    others = sum(_signed(entry) for place, entry in enumerate(statement.entries) if place not in _places(stated.values()))
    left = statement.closing - statement.opening - others + books.moved
    for our in here:
        if our.uetr in differing:
            left -= posted_of_day(statement, our, stated[our.uetr], books) - stated[our.uetr].moved
    if left:
        off = Amount(AssetId(statement.currency), abs(left), statement.scale)
        sentence = f"the balances of {statement.account} for {statement.day} are {off} away from what the ledger posted of the day, and no entry says why"
        yield Break(
            BreakKind.BALANCE_DIFFERS, statement.account, statement.day, "", statement.currency, off.minor_units, statement.scale, None, sentence
        )  # fmt: skip


def of_day(statement: DayStatement, ours: Sequence[OurPayment]) -> tuple[list[str], list[str]]:
    """What a statement has of the ledger's account: UETRs of payments, and names of what came back. Their postings are the day's, whatever was told before."""
    stated = _stated_of(statement, ours)
    return sorted(uetr for uetr, each in stated.items() if each.paid), sorted(
        name for each in stated.values() for name in each.back
    )


def posted_of_day(statement: DayStatement, our: OurPayment, stated: _Stated, books: LedgerDay) -> int:
    """Minor units by which the day's postings of a payment moved the statement's account, out of it."""
    told = dict(our.returned_on)
    total = 0
    for entry in books.histories.get(our.uetr, ()):
        if not _here(entry, statement, books):
            continue
        name = entry.reference.rpartition("/")[2]
        if entry.kind is EntryKind.SETTLED and (stated.paid or our.booked_on == statement.day):
            total += entry.amount
        elif entry.kind is EntryKind.RETURNED and (name in stated.back or told.get(name) == statement.day):
            total -= entry.amount
    return total


def _payment(statement: DayStatement, our: OurPayment, stated: _Stated, books: LedgerDay) -> Iterator[Break]:
    settled = [each for each in books.histories.get(our.uetr, ()) if each.kind is EntryKind.SETTLED]
    here = [each for each in settled if _here(each, statement, books)]
    entry = stated.paid[0][1] if stated.paid else None
    if entry is not None and not settled:
        yield of_payment(BreakKind.LEDGER_MISSING, statement, our, "the ledger has no posting of the payment", entry)
    elif settled and not here:
        where = f"{settled[0].credit} of {settled[0].ledger}"
        yield of_payment(BreakKind.LEDGER_ACCOUNT_DIFFERS, statement, our, f"the ledger posted the payment on {where}", entry)
    elif settled and entry is None and not our.debit_reference:
        yield of_payment(BreakKind.LEDGER_UNSTATED, statement, our, "the ledger posted a payment that the bank did not book", None)
    elif len(settled) > 1:
        more = sum(each.amount for each in settled[1:])
        yield of_payment(BreakKind.LEDGER_TWICE, statement, our, f"the ledger posted the payment {len(settled)} times", entry, more)
    elif settled and settled[0].amount != our.amount.minor_units:
        wrong = replace(our.amount, minor_units=settled[0].amount)
        off = abs(settled[0].amount - our.amount.minor_units)
        yield of_payment(
            BreakKind.LEDGER_AMOUNT_DIFFERS, statement, our, f"the ledger posted {wrong} instead of {our.amount}", entry, off
        )


def _returns(statement: DayStatement, found: Reconciled, our: OurPayment, stated: _Stated, books: LedgerDay) -> Iterator[Break]:
    """What came back: each posting was told, and each return that the statement has is posted."""
    told, counted = dict(our.returned_on), {place for place, _ in found.returns}
    posted = {
        each.reference.rpartition("/")[2]: each for each in books.histories.get(our.uetr, ()) if each.kind is EntryKind.RETURNED
    }
    for name, (place, entry) in stated.back.items():
        there = posted.get(name)
        if there is None and place in counted:
            yield _of_return(BreakKind.LEDGER_MISSING, statement, our, name, "the ledger has no posting of a return", entry)
        elif there is not None and there.amount != entry.amount.minor_units:
            off, wrong = abs(there.amount - entry.amount.minor_units), replace(our.amount, minor_units=there.amount)
            sentence = f"the ledger posted a return of {wrong} instead of {entry.amount}"
            yield _of_return(BreakKind.LEDGER_AMOUNT_DIFFERS, statement, our, name, sentence, entry, off)
    for name, each in posted.items():
        if name not in stated.back and (name not in told or told[name] == statement.day):
            amount = replace(our.amount, minor_units=each.amount)
            sentence = f"the ledger posted a return of {amount} that the bank {'told' if name in told else 'did not book'}"
            yield _of_return(BreakKind.LEDGER_UNSTATED, statement, our, name, sentence, None, each.amount)


def _of_return(
    kind: BreakKind, statement: DayStatement, our: OurPayment, name: str, sentence: str, entry: Booking | None, minor_units: int | None = None
) -> Break:  # fmt: skip
    # A payment may come back in parts.
    return replace(of_payment(kind, statement, our, sentence, entry, minor_units), subject=f"{our.uetr}:{name}")


def _stray(statement: DayStatement, entry: Entry) -> Break:
    amount = Amount(AssetId(statement.currency), entry.amount, statement.scale)
    sentence = f"the ledger posted {amount} ({entry.reference}) about a payment that nobody here knows"
    return Break(
        BreakKind.LEDGER_UNSTATED, statement.account, statement.day, entry.reference, amount.asset, amount.minor_units, amount.scale, None,
        sentence, entry.uetr,
    )  # fmt: skip


def _stated_of(statement: DayStatement, ours: Sequence[OurPayment]) -> dict[str, _Stated]:
    """What the statement has of each payment that its account pays, by UETR."""
    here = [each for each in ours if each.debtor == statement.account]
    by_uetr, by_reference = {each.uetr: each for each in here}, {each.end_to_end_id: each for each in here}
    paid: dict[str, list[tuple[int, Booking]]] = defaultdict(list)
    back: dict[str, dict[str, tuple[int, Booking]]] = defaultdict(dict)
    for place, entry in enumerate(statement.entries):
        our = by_uetr.get(entry.uetr) or by_reference.get(entry.end_to_end_id)
        if our is None:
            continue
        if entry.debit and not entry.returned:
            paid[our.uetr].append((place, entry))
        elif not entry.debit and (entry.returned or entry.reversal):
            back[our.uetr][return_name(entry.reference)] = place, entry
    return {each.uetr: _Stated(tuple(paid[each.uetr]), back[each.uetr]) for each in here}


def _places(stated: Iterable[_Stated]) -> set[int]:
    return {place for each in stated for place, _ in (*each.paid, *each.back.values())}


def _differing(breaks: Iterable[Break]) -> set[str]:
    """Payments that have a difference; their postings are explained by it."""
    return {each.uetr for each in breaks if each.leg is not None}


def _here(entry: Entry, statement: DayStatement, books: LedgerDay) -> bool:
    account = account_of(statement.account, AccountKind.SETTLED)
    return entry.ledger == books.ledger and account in (entry.debit, entry.credit)


def _signed(entry: Booking) -> int:
    return -entry.amount.minor_units if entry.debit else entry.amount.minor_units
