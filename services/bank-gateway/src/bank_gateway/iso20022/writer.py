"""Messages to the bank: built in the schema's order, valid, and the same octets for the same values.

Nothing here reads a clock or draws a number: a message that is sent again is the stored octets, and one that is built again is equal to them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from bank_gateway.iso20022.schemas import HEADER, MESSAGE, NAMESPACE, RAIL, Schemas
from bank_gateway.messages import Envelope, Footing, Kind, Payment, References, Side
from lockstep_kit.amounts import Amount

#: Type of a reservation that is for one payment alone: the one whose UETR, without hyphens, is its name.
RESERVATION_TYPE: Final = "PMNT"

#: Beside what always is: a carriage return would be read as a line feed.
_ESCAPED: Final = {"\r": "&#13;"}

_Content = str | Amount | list["_Item"]
_Item = tuple[str, _Content]
#: An element and what it holds.
Item = _Item


def payment(envelope: Envelope, told: Payment, schemas: Schemas) -> bytes:
    """pacs.008, or pacs.009 between financial institutions: pay, on the footing that the payment says."""
    header: _Item = (
        "GrpHdr",
        [
            ("MsgId", envelope.message_id),
            ("CreDtTm", _time(envelope.created_at)),
            ("NbOfTxs", "1"),
            ("SttlmInf", [("SttlmMtd", "CLRG")]),
            ("InstgAgt", _agent(envelope.sender)),
            ("InstdAgt", _agent(envelope.receiver)),
        ],
    )
    if told.kind is Kind.INSTITUTION_PAYMENT:
        document: _Item = ("FICdtTrf", [header, ("CdtTrfTxInf", _between_institutions(told))])
    else:
        document = ("FIToFICstmrCdtTrf", [header, ("CdtTrfTxInf", _between_customers(told))])
    return _message(envelope, told.kind, document, schemas)


def _between_customers(told: Payment) -> list[_Item]:
    conditional = told.footing is Footing.CONDITIONAL
    items: list[_Item] = [*_named(told), *_settled(told)]
    if conditional:
        items.append(("AddtlDtTm", [("XpryDtTm", _time(told.expires_at))]))
    items.append(("ChrgBr", told.charge_bearer))
    if conditional:
        items.append(_lock(told))
    items += [
        *_party("Dbtr", told.debtor),
        ("DbtrAgt", _agent(told.debtor.agent_bic)),
        ("CdtrAgt", _agent(told.creditor.agent_bic)),
        *_party("Cdtr", told.creditor),
        *_remittance(told),
    ]
    return items


def _between_institutions(told: Payment) -> list[_Item]:
    items: list[_Item] = [*_named(told), *_settled(told)]
    if told.footing is Footing.CONDITIONAL:
        items += [("XpryDtTm", _time(told.expires_at)), _lock(told)]
    items += [
        ("Dbtr", _agent(told.debtor.institution_bic)),
        _account("DbtrAcct", told.debtor),
        ("DbtrAgt", _agent(told.debtor.agent_bic)),
        ("CdtrAgt", _agent(told.creditor.agent_bic)),
        ("Cdtr", _agent(told.creditor.institution_bic)),
        _account("CdtrAcct", told.creditor),
        *_remittance(told),
    ]
    return items


def _named(told: Payment) -> list[_Item]:
    names = told.references
    items: list[_Item] = [
        (
            "PmtId",
            [
                ("InstrId", names.instruction_id),
                ("EndToEndId", names.end_to_end_id),
                ("TxId", names.transaction_id),
                ("UETR", names.uetr),
            ],
        )
    ]
    if told.footing is not Footing.ORDINARY:
        items.append(("PmtTpInf", [("LclInstrm", [("Prtry", told.footing.value)])]))
    return items


def _settled(told: Payment) -> list[_Item]:
    return [("IntrBkSttlmAmt", told.amount), ("IntrBkSttlmDt", told.settlement_date.isoformat())]


def _lock(told: Payment) -> _Item:
    return ("PmtSgntr", [("Sgntr", told.lock.hex().upper())])


def _party(name: str, side: Side) -> list[_Item]:
    return [(name, [("Nm", side.name)]), _account(f"{name}Acct", side)]


def _account(name: str, side: Side) -> _Item:
    return (name, [("Id", [("IBAN", side.iban)])])


def _remittance(told: Payment) -> list[_Item]:
    return [("RmtInf", [("Ustrd", told.remittance)])] if told.remittance else []


def reservation(envelope: Envelope, told: Payment, schemas: Schemas) -> bytes:
    """camt.103: reserve a payment's amount on its debtor's account, from now on."""
    start: _Item = ("StartDtTm", [("DtTm", _time(envelope.created_at))])
    content: list[_Item] = [
        _header(envelope),
        ("RsvatnId", _reservation_id(told)),
        ("ValSet", [start, ("Amt", [("AmtWthCcy", told.amount)])]),
    ]
    return _message(envelope, Kind.RESERVATION, ("CretRsvatn", content), schemas)


def reservation_deletion(envelope: Envelope, told: Payment, schemas: Schemas) -> bytes:
    """camt.049: give a payment's reservation back."""
    content: list[_Item] = [_header(envelope), ("CurRsvatn", _reservation_id(told))]
    return _message(envelope, Kind.RESERVATION_DELETION, ("DelRsvatn", content), schemas)


def reservation_query(envelope: Envelope, told: Payment, schemas: Schemas) -> bytes:
    """camt.046: what became of a payment's reservation? The query bears the reservation's name, as agreed for the rail."""
    content: list[_Item] = [_header(envelope), ("RsvatnQryDef", [("RsvatnCrit", [("QryNm", told.reservation_id)])])]
    return _message(envelope, Kind.RESERVATION_QUERY, ("GetRsvatn", content), schemas)


def _header(envelope: Envelope) -> _Item:
    return ("MsgHdr", [("MsgId", envelope.message_id), ("CreDtTm", _time(envelope.created_at))])


def _reservation_id(told: Payment) -> list[_Item]:
    return [
        ("RsvatnId", told.reservation_id),
        ("Tp", [("Prtry", RESERVATION_TYPE)]),
        ("AcctId", [("IBAN", told.debtor.iban)]),
    ]


def cancellation(envelope: Envelope, about: References, reason: str, schemas: Schemas, kind: Kind = Kind.PAYMENT) -> bytes:
    """camt.056: cancel a payment; `reason` is an ExternalCancellationReason1Code, `kind` the definition that carries the payment."""
    return _message(
        envelope,
        Kind.CANCELLATION,
        (
            "FIToFIPmtCxlReq",
            [
                (
                    "Assgnmt",
                    [
                        ("Id", envelope.message_id),
                        ("Assgnr", [("Agt", _agent(envelope.sender))]),
                        ("Assgne", [("Agt", _agent(envelope.receiver))]),
                        ("CreDtTm", _time(envelope.created_at)),
                    ],
                ),
                (
                    "Undrlyg",
                    [
                        (
                            "TxInf",
                            [
                                ("CxlId", envelope.message_id),
                                ("Case", [("Id", envelope.message_id), ("Cretr", [("Agt", _agent(envelope.sender))])]),
                                ("OrgnlGrpInf", _original(about, kind)),
                                *_names(about),
                                ("CxlRsnInf", [("Rsn", [("Cd", reason)])]),
                            ],
                        )
                    ],
                ),
            ],
        ),
        schemas,
    )


def inquiry(envelope: Envelope, about: References, schemas: Schemas, kind: Kind = Kind.PAYMENT) -> bytes:
    """pacs.028: what became of a payment? `kind` is the definition that carries it."""
    return _message(
        envelope,
        Kind.INQUIRY,
        (
            "FIToFIPmtStsReq",
            [
                (
                    "GrpHdr",
                    [
                        ("MsgId", envelope.message_id),
                        ("CreDtTm", _time(envelope.created_at)),
                        ("InstgAgt", _agent(envelope.sender)),
                        ("InstdAgt", _agent(envelope.receiver)),
                    ],
                ),
                ("OrgnlGrpInf", _original(about, kind)),
                ("TxInf", [("StsReqId", envelope.message_id), *_names(about)]),
            ],
        ),
        schemas,
    )


def possible_duplicate(octets: bytes) -> bytes:
    """The same message, marked as one that may have been sent before. Its document is not touched."""
    root = etree.fromstring(octets)
    header = root[0]
    tag = f"{{{NAMESPACE}{HEADER}}}PssblDplct"
    if header.find(tag) is None:
        mark = etree.Element(tag)
        mark.text = "true"
        created = header.find(f"{{{NAMESPACE}{HEADER}}}CreDt")
        if created is None:
            raise AssertionError("a header without CreDt is not valid")
        created.addnext(mark)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _original(about: References, kind: Kind) -> list[_Item]:
    return [("OrgnlMsgId", about.message_id), ("OrgnlMsgNmId", kind.value)]


def _names(about: References) -> list[_Item]:
    return [
        ("OrgnlInstrId", about.instruction_id),
        ("OrgnlEndToEndId", about.end_to_end_id),
        ("OrgnlTxId", about.transaction_id),
        ("OrgnlUETR", about.uetr),
    ]


def _agent(bic: str) -> list[_Item]:
    return [("FinInstnId", [("BICFI", bic)])]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _message(envelope: Envelope, kind: Kind, document: _Item, schemas: Schemas) -> bytes:
    header: _Item = (
        "AppHdr",
        [
            ("Fr", [("FIId", _agent(envelope.sender))]),
            ("To", [("FIId", _agent(envelope.receiver))]),
            ("BizMsgIdr", envelope.message_id),
            ("MsgDefIdr", kind.value),
            ("CreDt", _time(envelope.created_at)),
        ],
    )
    parts = _written(header, f' xmlns="{NAMESPACE}{HEADER}"') + _written(
        ("Document", [document]), f' xmlns="{NAMESPACE}{kind.value}"'
    )
    octets = f"<?xml version='1.0' encoding='UTF-8'?>\n<{MESSAGE} xmlns=\"{RAIL}\">{parts}</{MESSAGE}>".encode()
    try:
        root = etree.fromstring(octets)
    except etree.XMLSyntaxError as error:
        raise ValueError("a message holds no characters that XML has not") from error
    for part in root:
        schemas.require_valid(part)
    return octets


def _written(item: _Item, attributes: str = "") -> str:
    """An element as text: what is built so is read once, to be validated, instead of being put together node by node."""
    name, content = item
    if isinstance(content, Amount):
        return f"<{name} Ccy={quoteattr(content.asset)}>{content.text()}</{name}>"
    inner = escape(content, _ESCAPED) if isinstance(content, str) else "".join([_written(child) for child in content])
    return f"<{name}{attributes}>{inner}</{name}>"


def message(envelope: Envelope, kind: Kind, document: Item, schemas: Schemas) -> bytes:
    """Any message, from its element and what that holds, in the schema's order."""
    return _message(envelope, kind, document, schemas)
