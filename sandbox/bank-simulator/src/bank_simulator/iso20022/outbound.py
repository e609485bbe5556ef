"""The bank's answers as XML: built in the schema's order, valid, and then never built again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from lxml import etree

from bank_simulator.amounts import decimal_text
from bank_simulator.domain import BOOKING, PAYMENT, RESOLUTION, STATUS, BookedEntry, Header, Original, Resolved, Status
from bank_simulator.iso20022.schemas import HEADER, NAMESPACE, RAIL, Schemas

#: ExternalPaymentGroupStatus1Code knows no ACFW: a group of held payments has passed all checks.
GROUP_STATUS: Final = {"ACFW": "ACCP", "ACSC": "ACSC", "RJCT": "RJCT"}


@dataclass(frozen=True, slots=True)
class _Amount:
    text: str
    currency: str


#: Element name and what it holds; None leaves the element out.
_Content = str | _Amount | list["_Item"] | None
_Item = tuple[str, _Content]


def write_status(header: Header, statuses: Sequence[Status], *, whole_message: str | None, schemas: Schemas) -> bytes:
    """A pacs.002. `whole_message` is the pacs.008 that it answers completely, if it does: it then has a group status."""
    group: list[_Item] = []
    if whole_message is not None:
        codes = {GROUP_STATUS[status.code] for status in statuses}
        group = [
            ("OrgnlMsgId", whole_message), ("OrgnlMsgNmId", PAYMENT), ("OrgnlNbOfTxs", str(len(statuses))),
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
    content: list[_Item] = [
        ("GrpHdr", [("MsgId", header.message_id), ("CreDtTm", _time(header.created_at))]),
        *(("Ntfctn", _notification(entry, f"{header.message_id}-{number}", header)) for number, entry in enumerate(entries, 1)),
    ]  # fmt: skip
    return _write(header, BOOKING, ("BkToCstmrDbtCdtNtfctn", content), schemas)


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
        message = [("OrgnlMsgId", original.message_id), ("OrgnlMsgNmId", PAYMENT)]
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


def _notification(entry: BookedEntry, number: str, header: Header) -> list[_Item]:
    amount = _Amount(decimal_text(entry.amount, entry.scale), entry.currency)
    side, booked, original = "CRDT" if entry.credit else "DBIT", _time(entry.booked_at), entry.original
    account: _Item = ("IBAN", entry.account) if entry.is_iban else ("Othr", [("Id", entry.account)])
    family = "RCDT" if entry.credit else "ICDT"
    return [
        ("Id", number),
        ("CreDtTm", _time(header.created_at)),
        ("Acct", [("Id", [account]), ("Ccy", entry.currency), ("Svcr", _agent(header.sender))]),
        ("Ntry", [
            ("NtryRef", entry.servicer_reference), ("Amt", amount), ("CdtDbtInd", side), ("Sts", [("Cd", "BOOK")]),
            ("BookgDt", [("DtTm", booked)]), ("ValDt", [("Dt", entry.booked_at.date().isoformat())]),
            ("AcctSvcrRef", entry.servicer_reference),
            ("BkTxCd", [("Domn", [("Cd", "PMNT"), ("Fmly", [("Cd", family), ("SubFmlyCd", "DMCT")])])]),
            ("NtryDtls", [("TxDtls", [
                ("Refs", [
                    ("MsgId", original.message_id), ("AcctSvcrRef", entry.servicer_reference), ("InstrId", original.instruction_id),
                    ("EndToEndId", original.end_to_end_id), ("UETR", str(original.uetr)), ("TxId", original.transaction_id),
                ]),
                ("Amt", amount), ("CdtDbtInd", side),
            ])]),
        ]),
    ]  # fmt: skip


def _agent(bic: str) -> list[_Item]:
    return [("FinInstnId", [("BICFI", bic)])]


def _time(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds")


def _write(header: Header, definition: str, document: _Item, schemas: Schemas) -> bytes:
    root = etree.Element(f"{{{RAIL}}}BusinessMessage", nsmap={None: RAIL})
    app_header: _Item = ("AppHdr", [
        ("Fr", [("FIId", _agent(header.sender))]), ("To", [("FIId", _agent(header.receiver))]),
        ("BizMsgIdr", header.message_id), ("MsgDefIdr", definition), ("CreDt", _time(header.created_at)),
    ])  # fmt: skip
    for name, part in ((HEADER, app_header), (definition, ("Document", [document]))):
        schemas.require_valid(_append(root, NAMESPACE + name, part))
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _append(parent: etree._Element, namespace: str, item: _Item) -> etree._Element:
    name, content = item
    element = etree.SubElement(parent, f"{{{namespace}}}{name}", nsmap={None: namespace})
    if isinstance(content, _Amount):
        element.text = content.text
        element.set("Ccy", content.currency)
    elif isinstance(content, str):
        element.text = content
    else:
        for child in content or []:
            if child[1] is not None:
                _append(element, namespace, child)
    return element
