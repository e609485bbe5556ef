"""Messages of the bank: parsed, valid by the official schemas, and checked where the schemas do not check. What breaks a rule is not half-read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from lxml import etree

from bank_gateway.iso20022.parser import parse
from bank_gateway.iso20022.schemas import HEADER, MESSAGE, NAMESPACE, RAIL, Schemas
from bank_gateway.messages import Booking, Envelope, Kind, PaymentStatus, Received, Resolution, Statement
from lockstep_kit.amounts import Amount, amount_from_text, known_scale
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.forms import check_bic, check_fin_x

#: What a bank may send.
TAKEN: Final = (Kind.STATUS, Kind.RESOLUTION, Kind.BOOKING)
_OFFSET: Final = re.compile(r".*(Z|[+-]\d\d:\d\d)")
_TRAILING_ZEROS: Final = re.compile(r"(\.\d*?)0+$")


def read(octets: bytes, schemas: Schemas) -> Received:
    """A message of the bank.

    Raises:
        FieldInvalid: it breaks a rule; nothing of it may be used.
    """
    root = parse(octets)
    header, document = _parts(root)
    schemas.require_valid(header)
    schemas.require_valid(document)
    kind = Kind((etree.QName(document).namespace or "").removeprefix(NAMESPACE))
    require(_text(header, "MsgDefIdr") == kind.value, "AppHdr/MsgDefIdr", "must name the message that the Document is")
    envelope = _envelope(header)
    _require_same_message(document[0], kind, envelope)
    match kind:
        case Kind.STATUS:
            statements: tuple[Statement, ...] = tuple(_statuses(document[0]))
        case Kind.RESOLUTION:
            statements = tuple(_resolutions(document[0]))
        case _:
            statements = tuple(_bookings(document[0]))
    require(bool(statements), "Document", "must say something about a payment")
    return Received(envelope, kind, statements, hashlib.sha256(octets).digest())


#: Where a message names itself, and says when it was made.
_OWN_NAME: Final = {
    Kind.STATUS: ("GrpHdr/MsgId", "GrpHdr/CreDtTm"),
    Kind.RESOLUTION: ("Assgnmt/Id", "Assgnmt/CreDtTm"),
    Kind.BOOKING: ("GrpHdr/MsgId", "GrpHdr/CreDtTm"),
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
    for name, why in (("Sgntr", "signatures are not agreed"), ("CpyDplct", "a copy is not the message")):
        require(header.find(_path(header, name)) is None, f"AppHdr/{name}", f"must be absent: {why}")
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
    told = set()
    for item in items:
        message_id = _text(item, "OrgnlGrpInf/OrgnlMsgId") or (_text(groups[0], "OrgnlMsgId") if len(groups) == 1 else None)
        group = rejected.get(message_id)
        status = _text(item, "TxSts") or ("RJCT" if group is not None else "")
        require(group is None or status == "RJCT", "TxInfAndSts/TxSts", "must be RJCT where the whole group is")
        reasoned = item if _find(item, "StsRsnInf") is not None or group is None else group
        told.add(message_id)
        yield PaymentStatus(
            uetr=_text(item, "OrgnlUETR") or "",
            end_to_end_id=_text(item, "OrgnlEndToEndId") or "",
            status=status,
            reason=_reason(reasoned, "StsRsnInf"),
            text=_remark(reasoned, "StsRsnInf"),
            key=bytes.fromhex(_text(item, "CdtSttlmKey") or ""),
            message_id=message_id or "",
        )
    for message_id, group in rejected.items():
        if message_id not in told:
            yield PaymentStatus("", "", "RJCT", _reason(group, "StsRsnInf"), _remark(group, "StsRsnInf"), b"", message_id or "")


def _reason(item: etree._Element, path: str) -> str:
    return _text(item, f"{path}/Rsn/Cd") or _text(item, f"{path}/Rsn/Prtry") or ""


def _remark(item: etree._Element, path: str) -> str:
    """What the bank adds, in one line."""
    return " ".join((_text(item, f"{path}/AddtlInf") or "").split())


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
            for details in _all(entry, "NtryDtls/TxDtls"):
                yield Booking(
                    uetr=_text(details, "Refs/UETR") or "",
                    end_to_end_id=_text(details, "Refs/EndToEndId") or "",
                    account=account,
                    amount=_amount(_find(details, "Amt") if _find(details, "Amt") is not None else _find(entry, "Amt")),
                    debit=(_text(details, "CdtDbtInd") or _text(entry, "CdtDbtInd")) == "DBIT",
                    status=_text(entry, "Sts/Cd") or "",
                    reference=_text(details, "Refs/AcctSvcrRef") or _text(entry, "AcctSvcrRef") or "",
                    reversal=_text(entry, "RvslInd") in ("true", "1"),
                )


def _amount(element: etree._Element | None) -> Amount:
    if element is None:
        raise FieldInvalid("Amt", "must be present")
    currency = element.get("Ccy") or ""
    try:
        scale = known_scale(currency)
        # "12.50" and "12.500" are the same amount of money; what is left after dropping zeros must fit the currency.
        text = _TRAILING_ZEROS.sub(r"\1", (element.text or "").strip()).rstrip(".")
        return amount_from_text(currency, text, scale or 0)
    except FieldInvalid as finding:
        raise finding.under("Amt") from None


def _path(element: etree._Element, path: str) -> str:
    namespace = etree.QName(element).namespace
    return "/".join(f"{{{namespace}}}{step}" for step in path.split("/"))


def _find(element: etree._Element, path: str) -> etree._Element | None:
    return element.find(_path(element, path))


def _all(element: etree._Element, path: str) -> list[etree._Element]:
    return element.findall(_path(element, path))


def _text(element: etree._Element, path: str) -> str | None:
    return element.findtext(_path(element, path))


def _required(element: etree._Element, path: str) -> str:
    found = _text(element, path)
    if not found:
        raise FieldInvalid(path, "must be present")
    return found


def _time(text: str, field: str) -> datetime:
    require(_OFFSET.fullmatch(text) is not None, field, "must name its offset from UTC")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError as error:
        raise FieldInvalid(field, "must be a time with at most six decimals of a second") from error
