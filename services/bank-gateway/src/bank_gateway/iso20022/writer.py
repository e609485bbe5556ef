"""Messages to the bank: built in the schema's order, valid, and the same octets for the same values.

Nothing here reads a clock or draws a number: a message that is sent again is the stored octets, and one that is built again is equal to them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from lxml import etree

from bank_gateway.iso20022.schemas import HEADER, MESSAGE, NAMESPACE, RAIL, Schemas
from bank_gateway.messages import Envelope, Kind, Payment, References, Side
from lockstep_kit.amounts import Amount

#: Local instrument of a payment that its lock alone releases.
CONDITIONAL: Final = "COND"

_Content = str | Amount | list["_Item"]
_Item = tuple[str, _Content]


def payment(envelope: Envelope, told: Payment, schemas: Schemas) -> bytes:
    """pacs.008: pay on condition that the lock's key is shown before the expiry."""
    names = told.references
    return _message(
        envelope,
        Kind.PAYMENT,
        (
            "FIToFICstmrCdtTrf",
            [
                (
                    "GrpHdr",
                    [
                        ("MsgId", envelope.message_id),
                        ("CreDtTm", _time(envelope.created_at)),
                        ("NbOfTxs", "1"),
                        ("SttlmInf", [("SttlmMtd", "CLRG")]),
                        ("InstgAgt", _agent(envelope.sender)),
                        ("InstdAgt", _agent(envelope.receiver)),
                    ],
                ),
                ("CdtTrfTxInf", _transaction(told, names)),
            ],
        ),
        schemas,
    )


def _transaction(told: Payment, names: References) -> list[_Item]:
    items: list[_Item] = [
        (
            "PmtId",
            [
                ("InstrId", names.instruction_id),
                ("EndToEndId", names.end_to_end_id),
                ("TxId", names.transaction_id),
                ("UETR", names.uetr),
            ],
        ),
        ("PmtTpInf", [("LclInstrm", [("Prtry", CONDITIONAL)])]),
        ("IntrBkSttlmAmt", told.amount),
        ("IntrBkSttlmDt", told.settlement_date.isoformat()),
        ("AddtlDtTm", [("XpryDtTm", _time(told.expires_at))]),
        ("ChrgBr", told.charge_bearer),
        ("PmtSgntr", [("Sgntr", told.lock.hex().upper())]),
        *_party("Dbtr", told.debtor),
        ("DbtrAgt", _agent(told.debtor.agent_bic)),
        ("CdtrAgt", _agent(told.creditor.agent_bic)),
        *_party("Cdtr", told.creditor),
    ]
    if told.remittance:
        items.append(("RmtInf", [("Ustrd", told.remittance)]))
    return items


def _party(name: str, side: Side) -> list[_Item]:
    return [(name, [("Nm", side.name)]), (f"{name}Acct", [("Id", [("IBAN", side.iban)])])]


def cancellation(envelope: Envelope, about: References, reason: str, schemas: Schemas) -> bytes:
    """camt.056: cancel a payment; `reason` is an ExternalCancellationReason1Code."""
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
                                ("OrgnlGrpInf", _original(about)),
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


def inquiry(envelope: Envelope, about: References, schemas: Schemas) -> bytes:
    """pacs.028: what became of a payment?"""
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
                ("OrgnlGrpInf", _original(about)),
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


def _original(about: References) -> list[_Item]:
    return [("OrgnlMsgId", about.message_id), ("OrgnlMsgNmId", Kind.PAYMENT.value)]


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
    root = etree.Element(f"{{{RAIL}}}{MESSAGE}", nsmap={None: RAIL})
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
    for definition, part in ((HEADER, header), (kind.value, ("Document", [document]))):
        schemas.require_valid(_append(root, NAMESPACE + definition, part))
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _append(parent: etree._Element, namespace: str, item: _Item) -> etree._Element:
    name, content = item
    element = etree.SubElement(parent, f"{{{namespace}}}{name}", nsmap={None: namespace})
    if isinstance(content, Amount):
        element.text = content.text()
        element.set("Ccy", content.asset)
    elif isinstance(content, str):
        element.text = content
    else:
        for child in content:
            _append(element, namespace, child)
    return element
