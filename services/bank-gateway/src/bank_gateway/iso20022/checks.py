"""What the schemas leave open, checked over every element of a message: identifiers, currencies, times, characters, counts and sums.

The elements are known by their names, which ISO 20022's dictionary uses for one thing only. What the schemas close (code sets, patterns, lengths) is
theirs; external code sets grow every quarter and are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Final

from lxml import etree

from lockstep_kit.amounts import known_scale
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.forms import check_bic, check_fin_x, check_iban, check_lei

_OFFSET: Final = re.compile(r".*(Z|[+-]\d\d:\d\d)")
NAME_LENGTH_MAX: Final = 35
#: Elements that hold a moment, in the schemas that are spoken here.
MOMENTS: Final = (
    "AccptncDtTm", "CdtDtTm", "CreDtTm", "DbtDtTm", "DtTm", "EQDtTm", "FrDtTm", "NEQDtTm", "OrgnlCreDtTm", "QtnDtTm", "ToDtTm", "TxDtTm",
    "XpryDtTm",
)  # fmt: skip
#: Elements that name a currency.
_AMOUNTS: Final = etree.XPath("descendant-or-self::*[@Ccy]")


def require_sound(part: etree._Element) -> None:
    """A header or document, valid by its schema, holds no identifier, currency, time, text, count or sum that cannot be right.

    Raises:
        FieldInvalid: one cannot be.
    """
    # Texts without control characters, as nearly all are, need not be looked at one by one.
    plain = etree.tostring(part, method="text", encoding="unicode").isprintable()
    for element in part.iter(*_RULED) if plain else part.iter():
        name = str(element.tag).rpartition("}")[2]
        _check(element, _CHECKS.get(name, _characters))
        if name in _COUNTED:
            _COUNTED[name](element)
    for element in _AMOUNTS(part):
        _check(element, partial(_amount, currency=element.get("Ccy")))


def _check(element: etree._Element, check: Callable[[str], None]) -> None:
    text = (element.text or "").strip() if not len(element) else ""
    if not text:
        return
    try:
        check(text)
    except FieldInvalid as finding:
        raise FieldInvalid(place(element) + finding.field, finding.rule) from None


def place(element: etree._Element) -> str:
    """Where an element is, by names from the header or document on."""
    steps = [etree.QName(element).localname]
    for above in element.iterancestors():
        if etree.QName(above).localname == "BusinessMessage":
            break
        steps.append(etree.QName(above).localname)
    return "/".join(reversed(steps))


def _finding(check: Callable[[str, str], None], text: str) -> str:
    """The rule that a text breaks, or ""."""
    try:
        check(text, "")
    except FieldInvalid as finding:
        return finding.rule
    return ""


@lru_cache(maxsize=4096)
def _bic_finding(text: str) -> str:
    return _finding(check_bic, text)


@lru_cache(maxsize=4096)
def _iban_finding(text: str) -> str:
    return _finding(check_iban, text)


def _bic(text: str) -> None:
    rule = _bic_finding(text)
    require(not rule, "", rule)


def _iban(text: str) -> None:
    rule = _iban_finding(text)
    require(not rule, "", rule)


def _lei(text: str) -> None:
    check_lei(text, "")


def _name(text: str) -> None:
    check_fin_x(text, "", length_max=NAME_LENGTH_MAX)


def _moment(text: str) -> None:
    require(_OFFSET.fullmatch(text) is not None, "", "must name its offset from UTC")
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise FieldInvalid("", "must be a time of the calendar, with hours up to 23") from error


def _currency(text: str) -> None:
    try:
        known_scale(text)
    except FieldInvalid:
        raise FieldInvalid("", "must be an ISO 4217 currency with minor units") from None


def _amount(text: str, currency: str) -> None:
    """No more decimals than the currency has; zeros at the end say nothing."""
    try:
        scale = known_scale(currency) or 0
    except FieldInvalid:
        raise FieldInvalid("/@Ccy", "must be an ISO 4217 currency with minor units") from None
    require(not text.startswith("+"), "", "must have no sign")
    decimals = text.partition(".")[2].rstrip("0")
    require(len(decimals) <= scale, "", f"must have at most {scale} decimals, as {currency} has")


def _characters(text: str) -> None:
    """Line breaks and tabs may part words; control, format and unassigned characters are none."""
    require(text.isprintable() or " ".join(text.split()).isprintable(), "", "must hold no control or format characters")


#: Local name of an element that holds text -> its check.
_CHECKS: Final[Mapping[str, Callable[[str], None]]] = MappingProxyType(
    {
        **dict.fromkeys(("BICFI", "AnyBIC", "BIC"), _bic),
        **dict.fromkeys(MOMENTS, _moment),
        "LEI": _lei,
        "IBAN": _iban,
        "Ccy": _currency,
        # Our own identifications, echoed, and the message's: SWIFT's set X. Those of others' payments are theirs.
        **dict.fromkeys(("BizMsgIdr", "OrgnlMsgId", "OrgnlInstrId", "OrgnlEndToEndId", "OrgnlTxId"), _name),
    }
)


# -- Counts and sums -------------------------------------------------------------------------------------------------


def _child(element: etree._Element, path: str) -> etree._Element | None:
    return next(_children(element, path), None)


def _children(element: etree._Element, path: str) -> Iterator[etree._Element]:
    namespace = etree.QName(element).namespace
    yield from element.iterfind("/".join(f"{{{namespace}}}{step}" for step in path.split("/")))


def _stated(element: etree._Element, path: str, actual: Decimal | int, what: str) -> None:
    """Where a number is stated, it is the actual one."""
    found = _child(element, path)
    if found is not None:
        require(Decimal((found.text or "0").strip()) == actual, place(found), f"must be {what}")


def _value(element: etree._Element) -> Decimal:
    amount = _child(element, "Amt")
    return Decimal((amount.text or "0").strip()) if amount is not None else Decimal(0)


def _side(element: etree._Element) -> str:
    found = _child(element, "CdtDbtInd")
    return "" if found is None else found.text or ""


def _entries(summary: etree._Element) -> None:
    """TxsSummry of a notification: its counts and sums are those of the entries beside it, where all of them are there.

    Those of a statement are judged once it is whole, since one that does not add up is a break (`reconciliation.assembled`).
    """
    report = summary.getparent()
    if report is None or etree.QName(report).localname != "Ntfctn" or _child(report, "NtfctnPgntn") is not None:
        # On one page of several, the summary is about all of them.
        return
    entries = list(_children(report, "Ntry"))
    for path, side in (("TtlNtries", ""), ("TtlCdtNtries", "CRDT"), ("TtlDbtNtries", "DBIT")):
        chosen = [entry for entry in entries if not side or _side(entry) == side]
        _stated(summary, f"{path}/NbOfNtries", len(chosen), "the number of the entries that are there")
        _stated(summary, f"{path}/Sum", sum(map(_value, chosen)), "the sum of the entries that are there")
    net = sum((_value(entry) if _side(entry) == "CRDT" else -_value(entry) for entry in entries), Decimal(0))
    _stated(summary, "TtlNtries/TtlNetNtry/Amt", abs(net), "credits less debits of the entries that are there")
    stated = _child(summary, "TtlNtries/TtlNetNtry/CdtDbtInd")
    if stated is not None and net:
        require(stated.text == ("CRDT" if net > 0 else "DBIT"), place(stated), "must be the side of credits less debits")


def _batch(batch: etree._Element) -> None:
    """Btch of an entry: it counts the payments that are told one by one, where any are."""
    details = batch.getparent()
    payments = [] if details is None else list(_children(details, "TxDtls"))
    if not payments:
        return
    _stated(batch, "NbOfTxs", len(payments), "the number of the payments that are there")
    if all(_child(payment, "Amt") is not None for payment in payments):
        _stated(batch, "TtlAmt", sum(map(_value, payments)), "the sum of the payments that are there")


def _group(header: etree._Element) -> None:
    """GrpHdr of messages that carry transactions: their number and, in one currency, their sum."""
    message = header.getparent()
    items = [] if message is None else [each for each in message if etree.QName(each).localname in ("TxInf", "CdtTrfTxInf")]
    if not items:
        return
    _stated(header, "NbOfTxs", len(items), "the number of the payments that are there")
    amounts = [
        each for item in items for name in ("IntrBkSttlmAmt", "RtrdIntrBkSttlmAmt") if (each := _child(item, name)) is not None
    ]
    if len(amounts) != len(items) or len({each.get("Ccy") for each in amounts}) != 1:
        return
    total = sum(Decimal((each.text or "0").strip()) for each in amounts)
    for path in ("CtrlSum", "TtlIntrBkSttlmAmt", "TtlRtrdIntrBkSttlmAmt"):
        _stated(header, path, total, "the sum of the payments that are there")


#: Local name of an element that counts or sums -> its check.
_COUNTED: Final[Mapping[str, Callable[[etree._Element], None]]] = MappingProxyType(
    {"TxsSummry": _entries, "Btch": _batch, "GrpHdr": _group}
)
#: Every element that a rule is about, whatever stands in it.
_RULED: Final = tuple(f"{{*}}{name}" for name in (*_CHECKS, *_COUNTED))
