"""camt.053 read page by page. Whether the pages of a statement come to a whole, and the whole to its balances, is judged in `reconciliation`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from lxml import etree

from bank_gateway.iso20022.elements import all_of, amount_of, booking_day, day_of, find, minor_units, required, text
from bank_gateway.messages import Booking, StatedTotals, StatementPage
from lockstep_kit.amounts import known_scale
from lockstep_kit.fields import FieldInvalid, require, within

#: ExternalBalanceType1Code of the balance before the first entry: opening booked, or the previous closing booked.
_OPENING: Final = ("OPBD", "PRCD")
#: ExternalBalanceType1Code of the balance after the last entry: closing booked.
_CLOSING: Final = ("CLBD",)
#: Domain and family of a credit transfer that the account's holder, or somebody for it, told the bank to make.
_ORDERED: Final = ("PMNT", "ICDT")
_COUNT: Final = re.compile(r"0*[1-9]\d{0,17}")


def pages(report: etree._Element) -> Iterator[StatementPage]:
    """The statements of a message, each as the page of it that the message holds.

    Raises:
        FieldInvalid: one breaks a rule.
    """
    for statement in all_of(report, "Stmt"):
        with within("Stmt"):
            yield _page(statement)


def _page(statement: etree._Element) -> StatementPage:
    require(find(statement, "CpyDplctInd") is None, "CpyDplctInd", "must be absent: a copy is not the statement")
    account = text(statement, "Acct/Id/IBAN") or required(statement, "Acct/Id/Othr/Id")
    balances = all_of(statement, "Bal")
    first = find(balances[0], "Amt")
    currency = text(statement, "Acct/Ccy") or ("" if first is None else first.get("Ccy") or "")
    scale = known_scale(currency) or 0
    opening, closing = (_balance(balances, codes, currency, scale) for codes in (_OPENING, _CLOSING))
    days = {day_of(text(each, "Dt/Dt") or text(each, "Dt/DtTm"), "Bal/Dt") for each in balances if _code(each) in _CLOSING}
    day = next(iter(days), None)
    if day is None or len(days) != 1:
        raise FieldInvalid("Bal/Dt", "must name the booking day on one closing balance (CLBD)")
    entries = all_of(statement, "Ntry")
    booked = tuple(booking for entry in entries for booking in _entry(entry, account, currency))
    require(all(each.booked_on in (None, day) for each in booked), "Ntry/BookgDt", "must be the day that the closing balance is of")
    return StatementPage(
        statement_id=required(statement, "Id"),
        account=account,
        currency=currency,
        scale=scale,
        day=day,
        number=_count(required(statement, "ElctrncSeqNb"), "ElctrncSeqNb"),
        page=_count(text(statement, "StmtPgntn/PgNb") or "1", "StmtPgntn/PgNb"),
        last=(text(statement, "StmtPgntn/LastPgInd") or "true") in ("true", "1"),
        opening=opening,
        closing=closing,
        totals=_totals(statement, currency, scale),
        amounts=tuple(_signed(entry, minor_units(text(entry, "Amt"), currency, scale, "Ntry/Amt")) for entry in entries),
        entries=booked,
    )


def _count(written: str, field: str) -> int:
    require(_COUNT.fullmatch(written) is not None, field, "must be a whole number from 1")
    return int(written)


def _code(balance: etree._Element) -> str:
    return text(balance, "Tp/CdOrPrtry/Cd") or ""


def _balance(balances: list[etree._Element], codes: tuple[str, ...], currency: str, scale: int) -> int | None:
    for code in codes:
        found = [each for each in balances if _code(each) == code]
        require(len(found) <= 1, "Bal", f"must be one of {code}")
        if found:
            amount = find(found[0], "Amt")
            require(amount is not None and amount.get("Ccy") == currency, "Bal/Amt", "must be in the account's currency")
            return _signed(found[0], minor_units(text(found[0], "Amt"), currency, scale, "Bal/Amt"))
    return None


def _signed(element: etree._Element, minor: int) -> int:
    return -minor if text(element, "CdtDbtInd") == "DBIT" else minor


def _totals(statement: etree._Element, currency: str, scale: int) -> StatedTotals:
    def count(name: str) -> int | None:
        told = text(statement, f"TxsSummry/{name}/NbOfNtries")
        return None if told is None else int(told)

    def total(name: str) -> int | None:
        told = text(statement, f"TxsSummry/{name}/Sum")
        return None if told is None else minor_units(told, currency, scale, f"TxsSummry/{name}/Sum")

    return StatedTotals(
        count("TtlNtries"), count("TtlCdtNtries"), total("TtlCdtNtries"), count("TtlDbtNtries"), total("TtlDbtNtries")
    )


def _entry(entry: etree._Element, account: str, currency: str) -> Iterator[Booking]:
    """An entry payment by payment; one that names none is told as it stands."""
    require(text(entry, "Sts/Cd") == "BOOK", "Ntry/Sts", "must be BOOK: a statement is about what is booked")
    whole = amount_of(find(entry, "Amt"))
    require(whole.asset == currency, "Ntry/Amt", "must be in the account's currency")
    ordered = (text(entry, "BkTxCd/Domn/Cd"), text(entry, "BkTxCd/Domn/Fmly/Cd")) == _ORDERED
    details = all_of(entry, "NtryDtls/TxDtls") or [entry]
    amounts = [whole if find(each, "Amt") is None else amount_of(find(each, "Amt")) for each in details]
    if len(details) > 1:
        # What is booked in one sum is the sum of its parts, where each tells its own in the same currency.
        parts = {each.asset for each in amounts} == {whole.asset}
        require(
            parts and sum(each.minor_units for each in amounts) == whole.minor_units,
            "Ntry/NtryDtls",
            "must come to the entry's amount",
        )
    for each, amount in zip(details, amounts, strict=True):
        yield Booking(
            uetr=text(each, "Refs/UETR") or "",
            end_to_end_id=text(each, "Refs/EndToEndId") or "",
            account=account,
            amount=amount,
            debit=(text(each, "CdtDbtInd") or text(entry, "CdtDbtInd")) == "DBIT",
            status="BOOK",
            reference=text(each, "Refs/AcctSvcrRef") or text(entry, "AcctSvcrRef") or "",
            reversal=text(entry, "RvslInd") in ("true", "1"),
            returned=find(each, "RtrInf") is not None,
            booked_on=booking_day(entry),
            stated=True,
            ordered=ordered,
        )
