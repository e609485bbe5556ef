"""The bank's answers as XML: built in the schema's order, valid, and then never built again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from bank_simulator.amounts import decimal_text
from bank_simulator.checks import CheckError, require_iban
from bank_simulator.domain import (
    BOOKING,
    PAYMENT,
    RECEIPT,
    RESERVATION_QUERY,
    RESERVATION_REPORT,
    RESOLUTION,
    RETURN,
    STATEMENT,
    STATUS,
    AccountDay,
    BookedEntry,
    Header,
    Original,
    Receipt,
    ReservationShown,
    Resolved,
    Returned,
    StatedEntry,
    Status,
)
from bank_simulator.iso20022.schemas import HEADER, NAMESPACE, RAIL, Schemas

#: ExternalPaymentGroupStatus1Code knows no ACFW: a group of held payments has passed all checks.
GROUP_STATUS: Final = {"ACFW": "ACCP", "ACSC": "ACSC", "RJCT": "RJCT"}


#: Reasons and states of this rail's own, which stand in no list of ISO 20022.
OWN_REASONS: Final = frozenset({"PAID", "NONE", "OVER"})


#: Beside what always is: a carriage return would be read as a line feed.
_ESCAPED: Final = {"\r": "&#13;"}


@dataclass(frozen=True, slots=True)
class _Amount:
    text: str
    currency: str


#: Element name and what it holds; None leaves the element out.
_Content = str | _Amount | list["_Item"] | None
_Item = tuple[str, _Content]
#: The same, for other modules that write messages.
Money = _Amount
Item = _Item


def write_status(
    header: Header, statuses: Sequence[Status], *, whole_message: str | None, schemas: Schemas, kind: str = PAYMENT
) -> bytes:
    """A pacs.002. `whole_message` is the message of payments that it answers completely, if it does: it then has a group status."""
    group: list[_Item] = []
    if whole_message is not None:
        codes = {GROUP_STATUS[status.code] for status in statuses}
        group = [
            ("OrgnlMsgId", whole_message), ("OrgnlMsgNmId", kind), ("OrgnlNbOfTxs", str(len(statuses))),
            ("GrpSts", codes.pop() if len(codes) == 1 else "PART"),
        ]  # fmt: skip
    content: list[_Item] = [
        ("GrpHdr", [
            ("MsgId", header.message_id), ("CreDtTm", _time(header.created_at)),
            ("InstgAgt", _agent(header.sender)), ("InstdAgt", _agent(header.receiver)),
        ]),
        ("OrgnlGrpInfAndSts", group or None),
        *(("TxInfAndSts", _status(status)) for status in statuses),
    ]  # fmt: skip
    return _write(header, STATUS, ("FIToFIPmtStsRpt", content), schemas)


def write_resolution(header: Header, case_id: str | None, resolved: Sequence[Resolved], schemas: Schemas) -> bytes:
    """A camt.029: CNCL if every payment was cancelled, RJCR if none, PDCR if any is pending, PECR otherwise; and what became of each."""
    accepted = sum(item.accepted for item in resolved)
    outcome = "CNCL" if accepted == len(resolved) else "PECR" if accepted else "RJCR"
    if any(item.pending for item in resolved):
        outcome = "PDCR"
    content: list[_Item] = [
        ("Assgnmt", [
            ("Id", header.message_id), ("Assgnr", [("Agt", _agent(header.sender))]), ("Assgne", [("Agt", _agent(header.receiver))]),
            ("CreDtTm", _time(header.created_at)),
        ]),
        ("RslvdCase", _case(case_id, header)),
        ("Sts", [("Conf", outcome)]),
        ("CxlDtls", [("TxInfAndSts", _resolved(item, header)) for item in resolved]),
    ]  # fmt: skip
    return _write(header, RESOLUTION, ("RsltnOfInvstgtn", content), schemas)


def write_booking(header: Header, entries: Sequence[BookedEntry], schemas: Schemas) -> bytes:
    """A camt.054: one notification for each account that was booked on."""
    by_account: dict[str, list[BookedEntry]] = {}
    for entry in entries:
        by_account.setdefault(entry.account, []).append(entry)
    content: list[_Item] = [
        ("GrpHdr", [("MsgId", header.message_id), ("CreDtTm", _time(header.created_at))]),
        *(
            ("Ntfctn", _notification(booked, f"{header.message_id}-{number}", header))
            for number, booked in enumerate(by_account.values(), 1)
        ),
    ]  # fmt: skip
    return _write(header, BOOKING, ("BkToCstmrDbtCdtNtfctn", content), schemas)


def write_statement(
    header: Header, stated: AccountDay, page: Sequence[StatedEntry], number: int, *, last: bool, schemas: Schemas
) -> bytes:  # fmt: skip
    """One page of a camt.053. Balances and totals are those of the whole statement, on every page."""
    account: _Item = ("IBAN", stated.account) if stated.is_iban else ("Othr", [("Id", stated.account)])
    content: list[_Item] = [
        ("GrpHdr", [("MsgId", header.message_id), ("CreDtTm", _time(header.created_at))]),
        ("Stmt", [
            ("Id", stated.statement_id), ("StmtPgntn", [("PgNb", str(number)), ("LastPgInd", "true" if last else "false")]),
            ("ElctrncSeqNb", str(stated.number)), ("CreDtTm", _time(header.created_at)),
            ("Acct", [("Id", [account]), ("Ccy", stated.currency), ("Svcr", _agent(header.sender))]),
            ("Bal", _balance("OPBD", stated.opening, stated)), ("Bal", _balance("CLBD", stated.closing, stated)),
            ("TxsSummry", _totals(stated)),
            *(("Ntry", _stated(entry, stated)) for entry in page),
        ]),
    ]  # fmt: skip
    return _write(header, STATEMENT, ("BkToCstmrStmt", content), schemas)


def _balance(kind: str, minor: int, stated: AccountDay) -> list[_Item]:
    return [
        ("Tp", [("CdOrPrtry", [("Cd", kind)])]), ("Amt", _Amount(decimal_text(abs(minor), stated.scale), stated.currency)),
        ("CdtDbtInd", _side(minor)), ("Dt", [("Dt", stated.day.isoformat())]),
    ]  # fmt: skip


def _totals(stated: AccountDay) -> list[_Item]:
    credited, debited = ([entry.amount for entry in stated.entries if (entry.amount > 0) is side] for side in (True, False))
    net = sum(credited) + sum(debited)
    whole: _Item = ("TtlNtries", [
        ("NbOfNtries", str(len(stated.entries))), ("Sum", decimal_text(sum(credited) - sum(debited), stated.scale)),
        ("TtlNetNtry", [("Amt", decimal_text(abs(net), stated.scale)), ("CdtDbtInd", _side(net))]),
    ])  # fmt: skip
    sides: list[_Item] = [
        (name, [("NbOfNtries", str(len(amounts))), ("Sum", decimal_text(abs(sum(amounts)), stated.scale))])
        for name, amounts in (("TtlCdtNtries", credited), ("TtlDbtNtries", debited))
    ]
    return [whole, *sides]


def _stated(entry: StatedEntry, stated: AccountDay) -> list[_Item]:
    amount = _Amount(decimal_text(abs(entry.amount), stated.scale), stated.currency)
    original, family = entry.original, "RCDT" if entry.amount > 0 else "ICDT"
    code: _Item = ("Prtry", [("Cd", entry.kind)])
    details: _Content = None
    if original is not None:
        code = ("Domn", [("Cd", "PMNT"), ("Fmly", [("Cd", family), ("SubFmlyCd", _sub_family(entry.return_id))])])
        refs: list[_Item] = [
            ("MsgId", original.message_id), ("AcctSvcrRef", entry.servicer_reference), ("InstrId", original.instruction_id),
            ("EndToEndId", original.end_to_end_id), ("UETR", str(original.uetr)), ("TxId", original.transaction_id),
        ]  # fmt: skip
        returned: _Content = [("AddtlInf", entry.return_id)] if entry.return_id else None
        details = [("TxDtls", [("Refs", refs), ("Amt", amount), ("CdtDbtInd", _side(entry.amount)), ("RtrInf", returned)])]
    day = stated.day.isoformat()
    return [
        ("NtryRef", entry.servicer_reference), ("Amt", amount), ("CdtDbtInd", _side(entry.amount)), ("Sts", [("Cd", "BOOK")]),
        ("BookgDt", [("Dt", day)]), ("ValDt", [("Dt", day)]), ("AcctSvcrRef", entry.servicer_reference), ("BkTxCd", [code]),
        ("NtryDtls", details),
    ]  # fmt: skip


def _sub_family(returned: str | None) -> str:
    """ExternalBankTransactionSubFamily1Code: a domestic transfer, or its reversal by a return."""
    return "RRTN" if returned else "DMCT"


def _side(minor: int) -> str:
    return "DBIT" if minor < 0 else "CRDT"


def write_receipt(header: Header, receipt: Receipt, schemas: Schemas) -> bytes:
    """A camt.025 about one message; the reason of a deletion that was turned down is one of this rail's own."""
    reason: _Content = None
    if receipt.reason is not None:
        code: _Item = ("Prtry" if receipt.reason in OWN_REASONS else "Cd", receipt.reason)
        reason = [("Rsn", [code]), ("AddtlInf", receipt.text)]
    content: list[_Item] = [
        ("MsgHdr", [("MsgId", header.message_id), ("CreDtTm", _time(header.created_at))]),
        ("RctDtls", [
            ("OrgnlMsgId", [("MsgId", receipt.message_id), ("MsgNmId", receipt.definition)]),
            ("OrgnlPmtId", [("UETR", str(receipt.uetr))]),
            ("ReqHdlg", [("Sts", [("Cd", receipt.status)]), ("StsRsn", reason)]),
        ]),
    ]  # fmt: skip
    return _write(header, RECEIPT, ("Rct", content), schemas)


def write_reservation_report(header: Header, query: str, shown: ReservationShown, schemas: Schemas) -> bytes:
    """A camt.047 that answers a question about one reservation."""
    name = shown.uetr.hex
    identification: list[_Item] = [("RsvatnId", name), ("Tp", [("Prtry", "PMNT")])]
    if shown.account_id:
        identification.append(("AcctId", [_account_id(shown.account_id)]))
    told: _Item = ("BizErr", [("Err", [("Cd", "X050")]), ("Desc", "never received, and not taken any more")])
    if shown.status is not None:
        code: _Item = ("Prtry" if shown.status in OWN_REASONS else "Cd", shown.status)
        amount = _Amount(decimal_text(shown.amount, shown.scale), shown.currency)
        told = ("Rsvatn", [("Amt", [("AmtWthCcy", amount)]), ("Sts", [code])])
    asked: list[_Item] = [("MsgId", query), ("MsgNmId", RESERVATION_QUERY)]
    content: list[_Item] = [
        ("MsgHdr", [
            ("MsgId", header.message_id), ("CreDtTm", _time(header.created_at)), ("OrgnlBizQry", asked), ("QryNm", name),
        ]),
        ("RptOrErr", [("BizRpt", [("CurRsvatn", [("RsvatnId", identification), ("RsvatnOrErr", [told])])])]),
    ]  # fmt: skip
    return _write(header, RESERVATION_REPORT, ("RtrRsvatn", content), schemas)


def write_return(header: Header, returned: Returned, schemas: Schemas) -> bytes:
    """A pacs.004 of one payment."""
    payment, original = returned.payment, returned.payment.original
    whole = _Amount(decimal_text(payment.amount, payment.scale), payment.currency)
    content: list[_Item] = [
        ("GrpHdr", [
            ("MsgId", header.message_id), ("CreDtTm", _time(header.created_at)), ("NbOfTxs", "1"), ("SttlmInf", [("SttlmMtd", "CLRG")]),
            ("InstgAgt", _agent(header.sender)), ("InstdAgt", _agent(header.receiver)),
        ]),
        ("TxInf", [
            ("RtrId", returned.return_id), *_original(original), ("OrgnlIntrBkSttlmAmt", whole),
            ("RtrdIntrBkSttlmAmt", _Amount(decimal_text(returned.amount, payment.scale), payment.currency)),
            ("IntrBkSttlmDt", header.created_at.date().isoformat()), ("RtrRsnInf", [("Rsn", [("Cd", returned.reason)])]),
        ]),
    ]  # fmt: skip
    return _write(header, RETURN, ("PmtRtr", content), schemas)


def _account_id(account: str) -> _Item:
    try:
        require_iban("", account)
    except CheckError:
        return ("Othr", [("Id", account)])
    return ("IBAN", account)


def _status(status: Status) -> list[_Item]:
    reason: _Content = None
    if status.reason is not None:
        reason = [("Rsn", [("Cd", status.reason)]), ("AddtlInf", status.text)]
    return [
        *_original(status.original), ("TxSts", status.code), ("StsRsnInf", reason),
        ("AcctSvcrRef", status.servicer_reference), ("CdtSttlmKey", status.key.hex().upper() if status.key else None),
    ]  # fmt: skip


def _original(original: Original) -> list[_Item]:
    message: _Content = None
    if original.message_id is not None:
        message = [("OrgnlMsgId", original.message_id), ("OrgnlMsgNmId", original.message_kind)]
    return [
        ("OrgnlGrpInf", message), ("OrgnlInstrId", original.instruction_id), ("OrgnlEndToEndId", original.end_to_end_id),
        ("OrgnlTxId", original.transaction_id), ("OrgnlUETR", str(original.uetr) if original.uetr else None),
    ]  # fmt: skip


def _resolved(resolved: Resolved, header: Header) -> list[_Item]:
    reason: _Content = None
    if resolved.reason is not None:
        reason = [("Rsn", [("Cd", resolved.reason)]), ("AddtlInf", resolved.text)]
    return [
        ("CxlStsId", resolved.item.cancellation_id), ("RslvdCase", _case(resolved.item.case_id, header)),
        *_original(resolved.item.original), ("TxCxlSts", _answered(resolved)), ("CxlStsRsnInf", reason),
    ]  # fmt: skip


def _answered(resolved: Resolved) -> str:
    if resolved.pending:
        return "PDCR"
    return "ACCR" if resolved.accepted else "RJCR"


def _case(case_id: str | None, header: Header) -> _Content:
    # The case was opened by who asked.
    return None if case_id is None else [("Id", case_id), ("Cretr", [("Agt", _agent(header.receiver))])]


def _notification(entries: Sequence[BookedEntry], number: str, header: Header) -> list[_Item]:
    """What was booked on one account."""
    first = entries[0]
    account: _Item = ("IBAN", first.account) if first.is_iban else ("Othr", [("Id", first.account)])
    return [
        ("Id", number),
        ("CreDtTm", _time(header.created_at)),
        ("Acct", [("Id", [account]), ("Ccy", first.currency), ("Svcr", _agent(header.sender))]),
        *(("Ntry", _booked(entry)) for entry in entries),
    ]


def _booked(entry: BookedEntry) -> list[_Item]:
    amount = _Amount(decimal_text(entry.amount, entry.scale), entry.currency)
    side, original = "CRDT" if entry.credit else "DBIT", entry.original
    family = "RCDT" if entry.credit else "ICDT"
    return [
        ("NtryRef", entry.servicer_reference), ("Amt", amount), ("CdtDbtInd", side), ("Sts", [("Cd", "BOOK")]),
        ("BookgDt", [("Dt", entry.booking_date.isoformat())]), ("ValDt", [("Dt", entry.booked_at.date().isoformat())]),
        ("AcctSvcrRef", entry.servicer_reference),
        ("BkTxCd", [("Domn", [("Cd", "PMNT"), ("Fmly", [("Cd", family), ("SubFmlyCd", _sub_family(entry.return_reason))])])]),
        ("NtryDtls", [("TxDtls", [
            ("Refs", [
                ("MsgId", original.message_id), ("AcctSvcrRef", entry.servicer_reference), ("InstrId", original.instruction_id),
                ("EndToEndId", original.end_to_end_id), ("UETR", str(original.uetr)), ("TxId", original.transaction_id),
            ]),
            ("Amt", amount), ("CdtDbtInd", side),
            ("RtrInf", [("Rsn", [("Cd", entry.return_reason)])] if entry.return_reason else None),
        ])]),
    ]  # fmt: skip


def _agent(bic: str) -> list[_Item]:
    return [("FinInstnId", [("BICFI", bic)])]


def _time(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds")


def _write(header: Header, definition: str, document: _Item, schemas: Schemas) -> bytes:
    app_header: _Item = ("AppHdr", [
        ("Fr", [("FIId", _agent(header.sender))]), ("To", [("FIId", _agent(header.receiver))]),
        ("BizMsgIdr", header.message_id), ("MsgDefIdr", definition), ("CreDt", _time(header.created_at)),
    ])  # fmt: skip
    parts = _written(app_header, f' xmlns="{NAMESPACE}{HEADER}"') + _written(
        ("Document", [document]), f' xmlns="{NAMESPACE}{definition}"'
    )
    body = f"<?xml version='1.0' encoding='UTF-8'?>\n<BusinessMessage xmlns=\"{RAIL}\">{parts}</BusinessMessage>".encode()
    for part in etree.fromstring(body):
        schemas.require_valid(part)
    return body


def write_document(header: Header, definition: str, document: Item, schemas: Schemas) -> bytes:
    """Any message, from its element and what that holds."""
    return _write(header, definition, document, schemas)


def _written(item: _Item, attributes: str = "") -> str:
    """An element as text, which is parsed once, as a whole, to be validated."""
    name, content = item
    if isinstance(content, _Amount):
        return f"<{name} Ccy={quoteattr(content.currency)}>{content.text}</{name}>"
    if isinstance(content, str):
        return f"<{name}{attributes}>{escape(content, _ESCAPED)}</{name}>"
    inner = "".join([_written(child) for child in content or [] if child[1] is not None])
    return f"<{name}{attributes}>{inner}</{name}>"
