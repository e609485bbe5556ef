"""A received business message to what it asks for: parsed, valid by the official schemas, and checked where they do not check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from lxml import etree

from bank_simulator.amounts import AmountError, minor_units, scale_of
from bank_simulator.checks import CheckError, certain, parse_time, require_bic, require_iban, require_reference
from bank_simulator.domain import (
    CANCELLATION,
    INSTITUTION_PAYMENT,
    PAYMENT,
    RESERVATION,
    RESERVATION_DELETION,
    RESERVATION_QUERY,
    STATUS_QUERY,
    Cancellation,
    CancellationItem,
    Header,
    Original,
    PaymentBatch,
    PaymentOrder,
    Request,
    ReservationDeletion,
    ReservationOrder,
    ReservationQuery,
    StatusQuery,
)
from bank_simulator.instruments import APPLICATION, ISSUANCE, TERMINATION
from bank_simulator.iso20022 import trade
from bank_simulator.iso20022.parser import FIELD_WHOLE, parse, place
from bank_simulator.iso20022.schemas import HEADER, NAMESPACE, RAIL, Schemas
from bank_simulator.iso20022.signatures import require_signed

#: How a payment says that it is conditional.
CONDITIONAL: Final = "COND"
#: Payments, cancellations or questions in one message.
ITEMS_MAX: Final = 500
#: What may be sent to the bank.
TAKEN: Final = (
    PAYMENT, INSTITUTION_PAYMENT, CANCELLATION, STATUS_QUERY, RESERVATION, RESERVATION_DELETION, RESERVATION_QUERY, APPLICATION, ISSUANCE,
    TERMINATION,
)  # fmt: skip
#: How a payment says that it is paid out of its reservation.
RESERVED: Final = "RSVD"
#: Type of a reservation for one payment, which is named after the payment's UETR.
FOR_ONE_PAYMENT: Final = "PMNT"


@dataclass(frozen=True, slots=True)
class BusinessMessage:
    """A valid message."""

    header: Header
    request: Request
    #: SHA-256 over its content without the mark of a possible duplicate and the signature: equal for a repeat.
    content_sha256: bytes


def read(body: bytes, schemas: Schemas, certificates: Collection[str] | None = None) -> BusinessMessage:
    """Parses, validates and checks a message. With certificates it must be signed with one of them, without them it must not be signed.

    Raises:
        CheckError: It breaks a rule; nothing of it may be used.
    """
    root = parse(body)
    app_header, document = _parts(root)
    if certificates is not None:
        require_signed(root, certificates)
    schemas.require_valid(app_header)
    header = _header(app_header, document)
    schemas.require_valid(document)
    match header.definition:
        case "pacs.008.001.13" | "pacs.009.001.12":
            request: Request = _payment_batch(_Node(document[0]), header)
        case "camt.103.001.03":
            request = _reservation(_Node(document[0]), header)
        case "camt.049.001.07":
            _message_header(_Node(document[0]), header)
            request = ReservationDeletion(_reserved_for(_Node(document[0]), "CurRsvatn/RsvatnId"))
        case "camt.046.001.08":
            _message_header(_Node(document[0]), header)
            request = ReservationQuery(_reserved_for(_Node(document[0]), "RsvatnQryDef/RsvatnCrit/QryNm"))
        case "camt.056.001.11":
            request = _cancellation(_Node(document[0]), header)
        case "tsin.005.001.01":
            request = trade.read_application(document)
        case "tsrv.001.001.01":
            request = trade.read_issuance(document)
        case "tsrv.004.001.01":
            request = trade.read_termination(document)
        case _:
            request = _status_query(_Node(document[0]), header)
    return BusinessMessage(header, request, _content_digest(app_header, document))


@lru_cache(maxsize=4096)
def _within(prefix: str, path: str) -> str:
    return "/".join(f"{prefix}{step}" for step in path.split("/"))


class _Node:
    """An element, read by short paths in its own namespace."""

    def __init__(self, element: etree._Element) -> None:
        self.element = element
        self._prefix = "".join(str(element.tag).rpartition("}")[:2])

    def all(self, path: str) -> list[_Node]:
        return [_Node(found) for found in self.element.iterfind(self._path(path))]

    def get(self, path: str) -> _Node | None:
        found = self.element.find(self._path(path))
        return None if found is None else _Node(found)

    def text(self, path: str) -> str | None:
        return self.element.findtext(self._path(path))

    def required(self, path: str) -> str:
        """Text that the schema or this rail requires."""
        value = self.text(path)
        if value is None:
            raise CheckError(self.at(path), "REQUIRED", "this rail requires it")
        return value

    def _path(self, path: str) -> str:
        return _within(self._prefix, path)

    def at(self, path: str) -> str:
        return f"{place(self.element)}/{path}"

    def reference(self, path: str) -> str | None:
        return self._sound(path, self.text(path), require_reference)

    def time(self, path: str) -> datetime | None:
        value = self.text(path)
        if value is None:
            return None
        try:
            return parse_time("", value)
        except CheckError as error:
            raise error.at(self.at(path)) from None

    def _sound(self, path: str, value: str | None, check: Callable[[str, str], None]) -> str | None:
        """A value that keeps a rule; where it stands is worked out only for one that does not."""
        if value is not None:
            try:
                check("", value)
            except CheckError as error:
                raise error.at(self.at(path)) from None
        return value

    def day(self, path: str) -> date | None:
        value = self.text(path)
        try:
            return None if value is None else date.fromisoformat(value)
        except ValueError:
            raise CheckError(self.at(path), "DATE", "a date has no offset") from None

    def amount(self, path: str) -> tuple[int, str] | None:
        found = self.get(path)
        if found is None:
            return None
        currency = found.element.get("Ccy") or ""
        try:
            return minor_units((found.element.text or "").strip(), currency), currency
        except AmountError as error:
            raise CheckError(self.at(path), "AMOUNT", str(error)) from None

    def agent(self, path: str) -> str | None:
        path = f"{path}/FinInstnId/BICFI"
        return self._sound(path, self.text(path), require_bic)

    def account(self, path: str) -> str | None:
        number = self._sound(f"{path}/Id/IBAN", self.text(f"{path}/Id/IBAN"), require_iban)
        return number or self.text(f"{path}/Id/Othr/Id")

    def original(self) -> Original:
        number = self.text("OrgnlUETR")
        return Original(
            message_id=self.text("OrgnlGrpInf/OrgnlMsgId"), instruction_id=self.text("OrgnlInstrId"),
            end_to_end_id=self.text("OrgnlEndToEndId"), transaction_id=self.text("OrgnlTxId"), uetr=UUID(number) if number else None,
            message_kind=self.text("OrgnlGrpInf/OrgnlMsgNmId") or PAYMENT,
        )  # fmt: skip


def _parts(root: etree._Element) -> tuple[etree._Element, etree._Element]:
    documents = [f"{{{NAMESPACE}{name}}}Document" for name in TAKEN]
    if root.tag != f"{{{RAIL}}}{FIELD_WHOLE}":
        raise CheckError(FIELD_WHOLE, "ROOT", f"the root is {FIELD_WHOLE} in {RAIL}")
    if [child.tag for child in root[:1]] != [f"{{{NAMESPACE}{HEADER}}}AppHdr"] or len(root) != 2:
        raise CheckError(FIELD_WHOLE, "PARTS", f"it holds one AppHdr of {HEADER} and one Document, in this order")
    if root[1].tag not in documents:
        raise CheckError("Document", "DOCUMENT", f"this bank takes {', '.join(TAKEN)}")
    if root.attrib or any((text or "").strip() for text in (root.text, root[0].tail, root[1].tail)):
        raise CheckError(FIELD_WHOLE, "PARTS", "it holds nothing beside AppHdr and Document")
    return root[0], root[1]


def _header(app_header: etree._Element, document: etree._Element) -> Header:
    node = _Node(app_header)
    definition = (etree.QName(document).namespace or "").removeprefix(NAMESPACE)
    if node.required("MsgDefIdr") != definition:
        raise CheckError("AppHdr/MsgDefIdr", "DEFINITION_MATCH", f"it names another message than the Document, {definition}")
    if node.get("Sgntr") is not None:
        raise CheckError("AppHdr/Sgntr", "SIGNATURE_NOT_AGREED", "signatures are not agreed with this bank")
    header = Header(
        sender=node.required("Fr/FIId/FinInstnId/BICFI"), receiver=node.required("To/FIId/FinInstnId/BICFI"),
        message_id=node.required("BizMsgIdr"), definition=definition, created_at=certain(node.time("CreDt")),
    )  # fmt: skip
    node.reference("BizMsgIdr")
    for path in ("Fr/FIId", "To/FIId"):
        node.agent(path)
    return header


def _group(node: _Node, header: Header) -> _Node:
    """The group header of a pacs message, which says the same as the application header."""
    group = certain(node.get("GrpHdr"))
    if group.required("MsgId") != header.message_id:
        raise CheckError(group.at("MsgId"), "BUSINESS_MESSAGE_MATCH", "it differs from AppHdr/BizMsgIdr")
    group.time("CreDtTm")
    for path, expected in (("InstgAgt", header.sender), ("InstdAgt", header.receiver)):
        if (agent := group.agent(path)) is not None and agent != expected:
            raise CheckError(group.at(path), "AGENT_MATCH", "it differs from the agent in AppHdr")
    return group


def _payment_batch(node: _Node, header: Header) -> PaymentBatch:
    group = _group(node, header)
    found = node.all("CdtTrfTxInf")
    if int(group.required("NbOfTxs")) != len(found):
        raise CheckError(group.at("NbOfTxs"), "COUNT", f"there are {len(found)} payments")
    _require_few(node, len(found))
    batch_expiry = group.time("XpryDtTm")
    payments = tuple(_payment(item, group, batch_expiry, header.definition) for item in found)
    for path, values in (
        ("UETR", [p.uetr for p in payments]),
        ("InstrId", [p.instruction_id for p in payments if p.instruction_id]),
    ):
        if len(set(values)) != len(values):
            raise CheckError(node.at(f"CdtTrfTxInf/PmtId/{path}"), "UNIQUE", "two payments have the same")
    _require_sums(group, payments)
    return PaymentBatch(payments, header.definition)


def _require_sums(group: _Node, payments: tuple[PaymentOrder, ...]) -> None:
    total = group.amount("TtlIntrBkSttlmAmt")
    currencies = {payment.currency for payment in payments}
    if total is not None and (currencies != {total[1]} or sum(payment.amount for payment in payments) != total[0]):
        raise CheckError(group.at("TtlIntrBkSttlmAmt"), "SUM", "it is not the sum of the payments")
    control = group.text("CtrlSum")
    if control is not None and len(currencies) == 1:
        try:
            stated = minor_units(control.strip(), next(iter(currencies)))
        except AmountError as error:
            raise CheckError(group.at("CtrlSum"), "AMOUNT", str(error)) from None
        if stated != sum(payment.amount for payment in payments):
            raise CheckError(group.at("CtrlSum"), "SUM", "it is not the sum of the payments")


def _payment(node: _Node, group: _Node, batch_expiry: datetime | None, definition: str) -> PaymentOrder:
    for path in ("PmtId/InstrId", "PmtId/EndToEndId", "PmtId/TxId"):
        node.reference(path)
    amount = certain(node.amount("IntrBkSttlmAmt"))
    if node.amount("InstdAmt") not in (None, amount):
        raise CheckError(node.at("InstdAmt"), "SAME_AMOUNT", "this bank changes no money: it is the settlement amount")
    debtor_account = node.account("DbtrAcct")
    if debtor_account is None:
        raise CheckError(node.at("DbtrAcct"), "REQUIRED", "this rail requires it")
    between_banks = definition == INSTITUTION_PAYMENT
    expires_at = node.time("XpryDtTm" if between_banks else "AddtlDtTm/XpryDtTm") or batch_expiry
    lock = _lock(node, expires_at)
    institutions = _institutions(node) if between_banks else None
    content = etree.tostring(node.element, method="c14n", exclusive=True)
    return PaymentOrder(
        uetr=UUID(node.required("PmtId/UETR")), instruction_id=node.text("PmtId/InstrId"),
        end_to_end_id=node.required("PmtId/EndToEndId"), transaction_id=node.text("PmtId/TxId"),
        amount=amount[0], currency=amount[1], scale=scale_of(amount[1]),
        settlement_date=node.day("IntrBkSttlmDt") or group.day("IntrBkSttlmDt"), charge_bearer="SLEV" if between_banks else node.required("ChrgBr"),
        debtor_name=None if between_banks else node.text("Dbtr/Nm"), debtor_account=debtor_account, debtor_agent=node.agent("DbtrAgt"),
        creditor_account=node.account("CdtrAcct"), creditor_agent=node.agent("CdtrAgt"),
        lock=lock, expires_at=expires_at,
        content_sha256=hashlib.sha256(content + str(expires_at).encode()).digest(),
        reserved=node.text("PmtTpInf/LclInstrm/Prtry") == RESERVED, message_kind=definition, institutions=institutions,
    )  # fmt: skip


def _institutions(node: _Node) -> tuple[str, str]:
    """BICs of debtor and creditor, each the owner of the account beside it."""
    found = []
    for side in ("Dbtr", "Cdtr"):
        bic = node.agent(side)
        if bic is None:
            raise CheckError(node.at(f"{side}/FinInstnId/BICFI"), "REQUIRED", "this rail requires it")
        found.append(bic)
    return found[0], found[1]


def _message_header(node: _Node, header: Header) -> None:
    """The header of a cash management message, which says the same as the application header."""
    if node.required("MsgHdr/MsgId") != header.message_id:
        raise CheckError(node.at("MsgHdr/MsgId"), "BUSINESS_MESSAGE_MATCH", "it differs from AppHdr/BizMsgIdr")
    node.time("MsgHdr/CreDtTm")


def _reservation(node: _Node, header: Header) -> ReservationOrder:
    _message_header(node, header)
    if node.required("RsvatnId/Tp/Prtry") != FOR_ONE_PAYMENT:
        raise CheckError(node.at("RsvatnId/Tp"), "RESERVATION_TYPE", f"this rail reserves for one payment: {FOR_ONE_PAYMENT}")
    number = node.text("RsvatnId/AcctId/IBAN")
    if number is not None:
        require_iban(node.at("RsvatnId/AcctId/IBAN"), number)
    account_id = number or node.required("RsvatnId/AcctId/Othr/Id")
    amount, start = node.amount("ValSet/Amt/AmtWthCcy"), node.time("ValSet/StartDtTm/DtTm")
    if amount is None or start is None:
        raise CheckError(node.at("ValSet"), "REQUIRED", "this rail requires a start and an amount with its currency")
    return ReservationOrder(_reserved_for(node, "RsvatnId/RsvatnId"), account_id, amount[0], amount[1], scale_of(amount[1]), start)


def _reserved_for(node: _Node, path: str) -> UUID:
    """The payment that a reservation is for: its UETR, without hyphens, is the reservation's name."""
    name = node.required(path)
    try:
        found = UUID(hex=name)
    except ValueError:
        found = None
    if found is None or found.hex != name or found.version != 4:
        raise CheckError(node.at(path), "RESERVATION_NAME", "a reservation is named after its payment's UETR, without hyphens")
    return found


def _lock(node: _Node, expires_at: datetime | None) -> bytes | None:
    """The lock of a conditional payment. Lock and condition go together: a lock that is overlooked would settle at once."""
    conditional = node.text("PmtTpInf/LclInstrm/Prtry") == CONDITIONAL
    lock = node.text("PmtSgntr/Sgntr")
    if node.get("PmtSgntr/ILPV4") is not None:
        raise CheckError(node.at("PmtSgntr/ILPV4"), "LOCK", "this bank takes SHA-256 locks in Sgntr")
    if conditional and lock is None:
        raise CheckError(node.at("PmtSgntr/Sgntr"), "LOCK", f"a payment with local instrument {CONDITIONAL} has a lock")
    if lock is not None and not conditional:
        raise CheckError(node.at("PmtTpInf/LclInstrm/Prtry"), "LOCK", f"a payment with a lock has local instrument {CONDITIONAL}")
    if conditional and expires_at is None:
        raise CheckError(node.at("AddtlDtTm/XpryDtTm"), "EXPIRY", "a conditional payment says when it expires")
    return None if lock is None else bytes.fromhex(lock)


def _cancellation(node: _Node, header: Header) -> Cancellation:
    assignment = certain(node.get("Assgnmt"))
    assignment.time("CreDtTm")
    for path, expected in (("Assgnr/Agt", header.sender), ("Assgne/Agt", header.receiver)):
        if (agent := assignment.agent(path)) is not None and agent != expected:
            raise CheckError(assignment.at(path), "AGENT_MATCH", "it differs from the agent in AppHdr")
    found = node.all("Undrlyg/TxInf")
    if not found:
        raise CheckError(node.at("Undrlyg/TxInf"), "REQUIRED", "this rail cancels payments one by one")
    _require_few(node, len(found))
    count = node.text("CtrlData/NbOfTxs")
    if count is not None and int(count) != len(found):
        raise CheckError(node.at("CtrlData/NbOfTxs"), "COUNT", f"there are {len(found)} payments")
    items = tuple(
        CancellationItem(
            cancellation_id=item.reference("CxlId"), case_id=item.text("Case/Id"), original=item.original(),
            uetr=UUID(item.required("OrgnlUETR")), amount=item.amount("OrgnlIntrBkSttlmAmt"),
        ) for item in found
    )  # fmt: skip
    if len({item.uetr for item in items}) != len(items):
        raise CheckError(node.at("Undrlyg/TxInf/OrgnlUETR"), "UNIQUE", "two payments have the same")
    return Cancellation(node.text("Case/Id"), items)


def _status_query(node: _Node, header: Header) -> StatusQuery:
    _group(node, header)
    found = node.all("TxInf")
    _require_few(node, len(found))
    for item in found:
        item.required("OrgnlUETR")
    messages = tuple(item.required("OrgnlMsgId") for item in node.all("OrgnlGrpInf"))
    if not found and not messages:
        raise CheckError(node.at("TxInf/OrgnlUETR"), "REQUIRED", "a question is about payments or messages")
    # A question about payments names their message as well; only one without payments is about all of a message.
    return StatusQuery(tuple(item.original() for item in found), () if found else messages)


def _require_few(node: _Node, count: int) -> None:
    if count > ITEMS_MAX:
        raise CheckError(place(node.element), "ITEMS", f"a message holds {ITEMS_MAX} items at most")


def _content_digest(app_header: etree._Element, document: etree._Element) -> bytes:
    digest = hashlib.sha256()
    for child in app_header:
        if etree.QName(child).localname not in {"PssblDplct", "Sgntr"}:
            digest.update(etree.tostring(child, method="c14n", exclusive=True))
    digest.update(etree.tostring(document, method="c14n", exclusive=True))
    return digest.digest()
