"""The simulated bank's ISO 20022: what it reads out of requests, and its answers as octets, written by itself and not by the gateway's code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from bank_gateway.iso20022.parser import parse
from bank_gateway.messages import Kind
from lockstep_testkit.simulation.bank_book import Terms

#: Who the bank is, and who its one customer with a line to it is.
BANK_BIC: Final = "COBADEFF"
CUSTOMER_BIC: Final = "LSTPDEFF"
_ISO: Final = "urn:iso:std:iso:20022:tech:xsd:"
_MINOR: Final = 100


class Asked(StrEnum):
    """What a message asks for."""

    PAYMENT = "PAYMENT"
    CANCELLATION = "CANCELLATION"
    INQUIRY = "INQUIRY"


@dataclass(frozen=True, slots=True)
class Names:
    """How a request names the payment that it is about."""

    message_id: str
    instruction_id: str
    end_to_end_id: str
    transaction_id: str
    uetr: str


@dataclass(frozen=True, slots=True)
class Request:
    """What the customer asks."""

    #: What for.
    asked: Asked
    #: Of which payment.
    names: Names
    #: PAYMENT: what it moves; nothing else.
    terms: Terms | None = None
    #: PAYMENT: what the key must hash to.
    lock: bytes = b""
    #: PAYMENT: end of the hold.
    expires_at: datetime | None = None


def content_of(octets: bytes) -> bytes:
    """What must be the same in a repeat: the document, not the header that may call it one."""
    return octets[octets.index(b"<Document") :]


def read(octets: bytes) -> Request:
    """A request, or an error: the gateway writes nothing that its bank cannot read."""
    document = parse(octets)[1]
    kind = Kind(str(document.tag).removeprefix(f"{{{_ISO}").removesuffix("}Document"))
    name = f"{{{_ISO}{kind.value}}}"

    def text(path: str) -> str:
        found = document.findtext(".//" + "/".join(f"{name}{step}" for step in path.split("/")))
        if found is None:
            raise ValueError(f"a {kind.value} has no {path}")
        return found

    if kind is not Kind.PAYMENT:
        names = Names(*(text(f"Orgnl{each}") for each in ("MsgId", "InstrId", "EndToEndId", "TxId", "UETR")))
        return Request(Asked.CANCELLATION if kind is Kind.CANCELLATION else Asked.INQUIRY, names)
    names = Names(text("GrpHdr/MsgId"), *(text(f"PmtId/{each}") for each in ("InstrId", "EndToEndId", "TxId", "UETR")))
    units = int(Decimal(text("IntrBkSttlmAmt")) * _MINOR)
    return Request(
        Asked.PAYMENT,
        names,
        Terms(text("DbtrAcct/Id/IBAN"), text("CdtrAcct/Id/IBAN"), units),
        bytes.fromhex(text("PmtSgntr/Sgntr")),
        datetime.fromisoformat(text("AddtlDtTm/XpryDtTm")),
    )


@dataclass(frozen=True, slots=True)
class Header:
    """Name and time of an answer."""

    message_id: str
    created_at: datetime


def status(header: Header, about: Names, code: str, reason: str = "", key: bytes = b"") -> bytes:
    """pacs.002: where a payment stands."""
    shown = f"<CdtSttlmKey>{key.hex().upper()}</CdtSttlmKey>" if key else ""
    return _message(
        header,
        Kind.STATUS,
        f"<FIToFIPmtStsRpt>{_group(header)}<TxInfAndSts>{_original(about)}<TxSts>{code}</TxSts>{_because('StsRsnInf', reason)}{shown}"
        "</TxInfAndSts></FIToFIPmtStsRpt>",
    )


def group_rejection(header: Header, about: Names, reason: str) -> bytes:
    """pacs.002: a whole message is rejected, and no payment of it named."""
    named = f"<OrgnlMsgId>{about.message_id}</OrgnlMsgId><OrgnlMsgNmId>{Kind.PAYMENT.value}</OrgnlMsgNmId><GrpSts>RJCT</GrpSts>"
    told = f"<OrgnlGrpInfAndSts>{named}{_because('StsRsnInf', reason)}</OrgnlGrpInfAndSts>"
    return _message(header, Kind.STATUS, f"<FIToFIPmtStsRpt>{_group(header)}{told}</FIToFIPmtStsRpt>")


def resolution(header: Header, about: Names, code: str, reason: str = "") -> bytes:
    """camt.029: what became of a request to cancel."""
    return _message(
        header,
        Kind.RESOLUTION,
        f"<RsltnOfInvstgtn><Assgnmt><Id>{header.message_id}</Id><Assgnr><Agt>{_agent(BANK_BIC)}</Agt></Assgnr>"
        f"<Assgne><Agt>{_agent(CUSTOMER_BIC)}</Agt></Assgne><CreDtTm>{_time(header)}</CreDtTm></Assgnmt><Sts><Conf>{code}</Conf></Sts>"
        f"<CxlDtls><TxInfAndSts>{_original(about)}{_because('CxlStsRsnInf', reason)}</TxInfAndSts></CxlDtls></RsltnOfInvstgtn>",
    )


def booking(header: Header, about: Names, account: str, units: int, reference: str, uetr: str) -> bytes:
    """camt.054: an account was debited. `uetr` is the one that it names."""
    money = f'<Amt Ccy="EUR">{Decimal(units) / _MINOR:.2f}</Amt><CdtDbtInd>DBIT</CdtDbtInd>'
    return _message(
        header,
        Kind.BOOKING,
        f"<BkToCstmrDbtCdtNtfctn>{_group(header)}<Ntfctn><Id>{header.message_id}</Id><Acct><Id><IBAN>{account}</IBAN></Id></Acct><Ntry>"
        f"{money}<Sts><Cd>BOOK</Cd></Sts><AcctSvcrRef>{reference}</AcctSvcrRef><BkTxCd><Prtry><Cd>COND</Cd></Prtry></BkTxCd><NtryDtls>"
        f"<TxDtls><Refs><EndToEndId>{about.end_to_end_id}</EndToEndId><UETR>{uetr}</UETR></Refs>{money}</TxDtls></NtryDtls></Ntry></Ntfctn>"
        "</BkToCstmrDbtCdtNtfctn>",
    )


def _message(header: Header, kind: Kind, body: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><BusinessMessage xmlns="urn:lockstep:rail:v1">'
        f'<AppHdr xmlns="{_ISO}head.001.001.02"><Fr><FIId>{_agent(BANK_BIC)}</FIId></Fr><To><FIId>{_agent(CUSTOMER_BIC)}</FIId></To>'
        f"<BizMsgIdr>{header.message_id}</BizMsgIdr><MsgDefIdr>{kind.value}</MsgDefIdr><CreDt>{_time(header)}</CreDt></AppHdr>"
        f'<Document xmlns="{_ISO}{kind.value}">{body}</Document></BusinessMessage>'
    ).encode()


def _group(header: Header) -> str:
    return f"<GrpHdr><MsgId>{header.message_id}</MsgId><CreDtTm>{_time(header)}</CreDtTm></GrpHdr>"


def _time(header: Header) -> str:
    return header.created_at.isoformat(timespec="microseconds")


def _agent(bic: str) -> str:
    return f"<FinInstnId><BICFI>{bic}</BICFI></FinInstnId>"


def _because(name: str, reason: str) -> str:
    return f"<{name}><Rsn><Cd>{reason}</Cd></Rsn></{name}>" if reason else ""


def _original(about: Names) -> str:
    return (
        f"<OrgnlGrpInf><OrgnlMsgId>{about.message_id}</OrgnlMsgId><OrgnlMsgNmId>{Kind.PAYMENT.value}</OrgnlMsgNmId></OrgnlGrpInf>"
        f"<OrgnlInstrId>{about.instruction_id}</OrgnlInstrId><OrgnlEndToEndId>{about.end_to_end_id}</OrgnlEndToEndId>"
        f"<OrgnlTxId>{about.transaction_id}</OrgnlTxId><OrgnlUETR>{about.uetr}</OrgnlUETR>"
    )
