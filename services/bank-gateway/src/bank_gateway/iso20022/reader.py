"""Messages of the bank: parsed, valid by the official schemas, and checked where the schemas do not check. What breaks a rule is not half-read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from uuid import UUID

from lxml import etree

from bank_gateway.iso20022 import undertakings
from bank_gateway.iso20022.agreement import Agreement
from bank_gateway.iso20022.checks import require_sound
from bank_gateway.iso20022.elements import all_of as _all
from bank_gateway.iso20022.elements import amount_of as _amount
from bank_gateway.iso20022.elements import booking_day
from bank_gateway.iso20022.elements import find as _find
from bank_gateway.iso20022.elements import path_of as _path
from bank_gateway.iso20022.elements import required as _required
from bank_gateway.iso20022.elements import text as _text
from bank_gateway.iso20022.elements import time_of as _time
from bank_gateway.iso20022.elements import told as _told
from bank_gateway.iso20022.parser import parse
from bank_gateway.iso20022.schemas import HEADER, MESSAGE, NAMESPACE, RAIL, Schemas
from bank_gateway.iso20022.statements import pages
from bank_gateway.messages import (
    AnyStatement,
    Booking,
    Envelope,
    Kind,
    PaymentReturn,
    PaymentStatus,
    Received,
    ReservationStatus,
    Resolution,
)
from lockstep_kit.amounts import Amount
from lockstep_kit.fields import require
from lockstep_kit.forms import check_bic, check_fin_x
from lockstep_kit.values import replace

#: What a bank may send.
TAKEN: Final = (
    Kind.STATUS,
    Kind.RESOLUTION,
    Kind.BOOKING,
    Kind.RETURN,
    Kind.STATEMENT,
    Kind.RECEIPT,
    Kind.RESERVATION_REPORT,
    Kind.UNDERTAKING_STATUS,
    Kind.UNDERTAKING_ISSUED,
)
#: A bank with which nothing more is agreed.
UNSIGNED: Final = Agreement()


def read(octets: bytes, schemas: Schemas, agreed: Agreement = UNSIGNED) -> Received:
    """A message of the bank.

    Raises:
        FieldInvalid: it breaks a rule, or is not as it is agreed; nothing of it may be used.
    """
    root = parse(octets)
    _parts(root)
    header, document = _parts(agreed.authentic(root))
    schemas.require_valid(header)
    schemas.require_valid(document, agreed.deviations)
    kind = Kind((etree.QName(document).namespace or "").removeprefix(NAMESPACE))
    require(_text(header, "MsgDefIdr") == kind.value, "AppHdr/MsgDefIdr", "must name the message that the Document is")
    agreed.require_taken(kind, _text(header, "BizSvc"))
    received = _received(kind, document, _envelope(header), hashlib.sha256(octets).digest())
    require_sound(header)
    require_sound(document)
    return received


def _received(kind: Kind, document: etree._Element, envelope: Envelope, digest: bytes) -> Received:
    if kind in (Kind.UNDERTAKING_STATUS, Kind.UNDERTAKING_ISSUED):
        return Received(envelope, kind, (), digest, undertakings.said(document))
    _require_same_message(document[0], kind, envelope)
    if kind is Kind.STATEMENT:
        return Received(envelope, kind, (), digest, pages=tuple(pages(document[0])))
    return Received(envelope, kind, _statements(kind, document[0]), digest)


def _statements(kind: Kind, report: etree._Element) -> tuple[AnyStatement, ...]:
    """What is said of payments, their reservations and returns."""
    statements = tuple(_READERS[kind](report))
    require(bool(statements), "Document", "must say something about a payment")
    return statements


#: Where a message names itself, and says when it was made.
_OWN_NAME: Final = {
    Kind.STATUS: ("GrpHdr/MsgId", "GrpHdr/CreDtTm"),
    Kind.RESOLUTION: ("Assgnmt/Id", "Assgnmt/CreDtTm"),
    Kind.BOOKING: ("GrpHdr/MsgId", "GrpHdr/CreDtTm"),
    Kind.STATEMENT: ("GrpHdr/MsgId", "GrpHdr/CreDtTm"),
    Kind.RETURN: ("GrpHdr/MsgId", "GrpHdr/CreDtTm"),
    Kind.RECEIPT: ("MsgHdr/MsgId", "MsgHdr/CreDtTm"),
    Kind.RESERVATION_REPORT: ("MsgHdr/MsgId", "MsgHdr/CreDtTm"),
}


def _require_same_message(report: etree._Element, kind: Kind, envelope: Envelope) -> None:
    """Header and document must be one message; its times name their offsets."""
    name, created = _OWN_NAME[kind]
    require(_text(report, name) == envelope.message_id, name, "must equal AppHdr/BizMsgIdr")
    _time(_required(report, created), created)


def _parts(root: etree._Element) -> tuple[etree._Element, etree._Element]:
    require(root.tag == f"{{{RAIL}}}{MESSAGE}", "message", f"must be a {MESSAGE} of {RAIL}")
    documents = {f"{{{NAMESPACE}{kind.value}}}Document" for kind in TAKEN}
    tags = [child.tag for child in root]
    headed = len(tags) == 2 and tags[0] == f"{{{NAMESPACE}{HEADER}}}AppHdr"
    require(headed, "message", "must hold one AppHdr and one Document, in this order")
    require(tags[1] in documents, "Document", f"must be one of {', '.join(kind.value for kind in TAKEN)}")
    loose = (root.text, root[0].tail, root[1].tail, *root.attrib)
    require(not any((text or "").strip() for text in loose), "message", "must hold nothing beside AppHdr and Document")
    return root[0], root[1]


def _envelope(header: etree._Element) -> Envelope:
    require(header.find(_path(header, "CpyDplct")) is None, "AppHdr/CpyDplct", "must be absent: a copy is not the message")
    sender, receiver = (_required(header, f"{side}/FIId/FinInstnId/BICFI") for side in ("Fr", "To"))
    for name, bic in (("AppHdr/Fr", sender), ("AppHdr/To", receiver)):
        check_bic(bic, name)
    message_id = _required(header, "BizMsgIdr")
    check_fin_x(message_id, "AppHdr/BizMsgIdr", length_max=35)
    return Envelope(sender, receiver, message_id, _time(_required(header, "CreDt"), "AppHdr/CreDt"))


def _statuses(report: etree._Element) -> Iterator[PaymentStatus]:
    """Each payment by itself. A group RJCT is about every payment of its message, PART and the others about none."""
    groups = _all(report, "OrgnlGrpInfAndSts")
    rejected = {_text(group, "OrgnlMsgId"): group for group in groups if _text(group, "GrpSts") == "RJCT"}
    items = _all(report, "TxInfAndSts")
    named = set()
    only = _text(groups[0], "OrgnlMsgId") if len(groups) == 1 else None
    for item in map(_told, items):
        message_id = item.get("OrgnlGrpInf/OrgnlMsgId") or only
        group = rejected.get(message_id)
        status = item.get("TxSts") or ("RJCT" if group is not None else "")
        require(group is None or status == "RJCT", "TxInfAndSts/TxSts", "must be RJCT where the whole group is")
        reasoned = item if "StsRsnInf" in item or group is None else _told(group)
        named.add(message_id)
        yield PaymentStatus(
            uetr=item.get("OrgnlUETR", ""),
            end_to_end_id=item.get("OrgnlEndToEndId", ""),
            status=status,
            reason=reasoned.get("StsRsnInf/Rsn/Cd") or reasoned.get("StsRsnInf/Rsn/Prtry", ""),
            text=_in_one_line(reasoned.get("StsRsnInf/AddtlInf", "")),
            key=bytes.fromhex(item.get("CdtSttlmKey", "")),
            message_id=message_id or "",
        )
    for message_id, group in rejected.items():
        if message_id not in named:
            yield PaymentStatus("", "", "RJCT", _reason(group, "StsRsnInf"), _remark(group, "StsRsnInf"), b"", message_id or "")


def _reason(item: etree._Element, path: str) -> str:
    return _text(item, f"{path}/Rsn/Cd") or _text(item, f"{path}/Rsn/Prtry") or ""


def _remark(item: etree._Element, path: str) -> str:
    """What the bank adds, in one line."""
    return _in_one_line(_text(item, f"{path}/AddtlInf") or "")


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _resolutions(resolution: etree._Element) -> Iterator[Resolution]:
    confirmation = _text(resolution, "Sts/Conf") or ""
    for item in _all(resolution, "CxlDtls/TxInfAndSts"):
        yield Resolution(
            uetr=_text(item, "OrgnlUETR") or "",
            confirmation=confirmation,
            individual=_text(item, "TxCxlSts") or "",
            reason=_reason(item, "CxlStsRsnInf"),
            text=_remark(item, "CxlStsRsnInf"),
        )


def _bookings(report: etree._Element) -> Iterator[Booking]:
    for notification in _all(report, "Ntfctn"):
        account = _text(notification, "Acct/Id/IBAN") or _text(notification, "Acct/Id/Othr/Id") or ""
        for entry in _all(notification, "Ntry"):
            # An entry that tells nothing of its payments is money all the same.
            for details in _all(entry, "NtryDtls/TxDtls") or [entry]:
                told = _told(details)
                yield Booking(
                    uetr=told.get("Refs/UETR", ""),
                    end_to_end_id=told.get("Refs/EndToEndId", ""),
                    account=account,
                    amount=_amount(_find(details if "Amt" in told else entry, "Amt")),
                    debit=(told.get("CdtDbtInd") or _text(entry, "CdtDbtInd")) == "DBIT",
                    status=_text(entry, "Sts/Cd") or "",
                    reference=told.get("Refs/AcctSvcrRef") or _text(entry, "AcctSvcrRef") or "",
                    reversal=_text(entry, "RvslInd") in ("true", "1"),
                    charges=_charges(details) if "Chrgs" in told else (),
                    booked_on=booking_day(entry),
                    returned="RtrInf" in told,
                )


def _returns(report: etree._Element) -> Iterator[PaymentReturn]:
    """Each returned payment by itself. What is told of the whole message alone says of no payment how much comes back."""
    items = _all(report, "TxInf")
    require(
        _required(report, "GrpHdr/NbOfTxs") == str(len(items)),
        "GrpHdr/NbOfTxs",
        "must be the number of the payments that are named",
    )
    for item in items:
        original = _find(item, "OrgnlIntrBkSttlmAmt")
        reasoned = item if _find(item, "RtrRsnInf") is not None or _find(report, "OrgnlGrpInf") is None else report
        yield PaymentReturn(
            uetr=_text(item, "OrgnlUETR") or "",
            end_to_end_id=_text(item, "OrgnlEndToEndId") or "",
            return_id=_required(item, "RtrId"),
            original=None if original is None else _amount(original),
            amount=_amount(_find(item, "RtrdIntrBkSttlmAmt")),
            reason=_reason(reasoned, "RtrRsnInf" if reasoned is item else "OrgnlGrpInf/RtrRsnInf"),
            text=_remark(item, "RtrRsnInf"),
        )


def _receipts(receipt: etree._Element) -> Iterator[ReservationStatus]:
    """Each of our messages by itself: the rail agreed on one handling for each, and on naming what is handled."""
    for item in _all(receipt, "RctDtls"):
        handled = _all(item, "ReqHdlg")
        require(len(handled) == 1, "RctDtls/ReqHdlg", "must be present once")
        yield ReservationStatus(
            uetr=_text(item, "OrgnlPmtId/UETR") or "",
            about=_required(item, "OrgnlMsgId/MsgNmId"),
            status=_text(handled[0], "Sts/Cd") or _text(handled[0], "Sts/Prtry") or "",
            reason=_reason(handled[0], "StsRsn"),
            text=_remark(handled[0], "StsRsn") or " ".join((_text(handled[0], "Desc") or "").split()),
            message_id=_required(item, "OrgnlMsgId/MsgId"),
        )


def _reservations(report: etree._Element) -> Iterator[ReservationStatus]:
    """Each reservation by itself; an error of the whole query says nothing of any."""
    query = _required(report, "MsgHdr/OrgnlBizQry/MsgId")
    for item in _all(report, "RptOrErr/BizRpt/CurRsvatn"):
        error = _find(item, "RsvatnOrErr/BizErr")
        amount = _find(item, "RsvatnOrErr/Rsvatn/Amt/AmtWthCcy")
        told = item if error is None else error
        path = "RsvatnOrErr/Rsvatn/Sts" if error is None else "Err"
        yield ReservationStatus(
            uetr=_uetr_of(_required(item, "RsvatnId/RsvatnId")),
            about=Kind.RESERVATION_QUERY.value,
            status=_text(told, f"{path}/Cd") or _text(told, f"{path}/Prtry") or "",
            reason="",
            text=" ".join((_text(told, "Desc") or "").split()) if error is not None else "",
            message_id=query,
            amount=None if amount is None else _amount(amount),
        )


def _uetr_of(reservation_id: str) -> str:
    """The payment that a reservation is named after; "" of one that is named otherwise."""
    try:
        found = str(UUID(hex=reservation_id))
    except ValueError:
        return ""
    return found if found.replace("-", "") == reservation_id else ""


def _charges(details: etree._Element) -> tuple[Amount, ...]:
    """What was debited for the entry besides its amount, added up by currency; a charge of nothing is none."""
    sums: dict[str, Amount] = {}
    for record in _all(details, "Chrgs/Rcrd"):
        included = _text(record, "ChrgInclInd") in ("true", "1")
        if included or _text(record, "CdtDbtInd") == "CRDT" or not (_text(record, "Amt") or "").strip(" \t\r\n0."):
            continue
        amount = _amount(_find(record, "Amt"))
        known = sums.get(amount.asset)
        sums[amount.asset] = amount if known is None else replace(known, minor_units=known.minor_units + amount.minor_units)
    return tuple(sums.values())


_READERS: Final[Mapping[Kind, Callable[[etree._Element], Iterator[AnyStatement]]]] = {
    Kind.STATUS: _statuses,
    Kind.RESOLUTION: _resolutions,
    Kind.BOOKING: _bookings,
    Kind.RETURN: _returns,
    Kind.RECEIPT: _receipts,
    Kind.RESERVATION_REPORT: _reservations,
}
