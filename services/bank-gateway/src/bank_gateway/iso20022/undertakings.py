"""Messages about undertakings: application, issuance and termination to the bank; notification and status report from it.

They have no identification or time of their own: those of the header count. Nothing here reads a clock or draws a number.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Final

from lxml import etree

from bank_gateway.instruments.values import (
    Undertaking,
    UndertakingIssued,
    UndertakingStatus,
    UndertakingWord,
    conditions_of,
    uetr_of,
)
from bank_gateway.iso20022.schemas import NAMESPACE, Schemas
from bank_gateway.iso20022.writer import Item, message
from bank_gateway.messages import Envelope, Kind
from lockstep_kit.amounts import Amount, amount_from_text, known_scale
from lockstep_kit.fields import FieldInvalid, require, within
from lockstep_kit.forms import check_bic
from lockstep_kit.instruments import InstrumentParty

#: What the application asks the bank to do with it, as agreed: the first line of its instructions.
HOLD: Final = "HOLD AS A DRAFT. ISSUE ON RECEIPT OF THE ISSUANCE ONLY."


def issuance(envelope: Envelope, undertaking: Undertaking, schemas: Schemas) -> bytes:
    """tsrv.001: the undertaking itself, for the bank to issue."""
    terms = undertaking.terms
    details: list[Item] = [
        ("Id", undertaking.number),
        ("Nm", terms.form.value),
        # Issued, with the request that the advising bank advise it.
        ("IssncTp", "ISAD"),
        ("Applcnt", _party(terms.applicant)),
        ("Issr", _bank(terms.issuing_bic)),
        ("Bnfcry", _party(terms.beneficiary)),
        ("DtOfIssnc", undertaking.dated.isoformat()),
        ("AdvsgPty", _bank(terms.advising_bic)),
        ("UdrtkgAmt", [("Amt", terms.amount)]),
        ("XpryDtls", _expiry(undertaking)),
        ("GovncRulesAndLaw", [("RuleId", [("Cd", terms.governing_rules.value)])]),
        *_conditions(undertaking),
    ]
    content: list[Item] = [("UdrtkgIssncDtls", details), ("BkToBkInf", f"UETR {uetr_of(undertaking.reference)}")]
    return message(envelope, Kind.ISSUANCE, ("UdrtkgIssnc", content), schemas)


def application(envelope: Envelope, undertaking: Undertaking, issuance_sha256: bytes, schemas: Schemas) -> bytes:
    """tsin.005: agree to the undertaking, and hold it as a draft that this issuance alone makes one."""
    terms = undertaking.terms
    details: list[Item] = [
        ("ApplcntRefNb", undertaking.reference),
        ("Purp", "CONDITIONAL SETTLEMENT"),
        ("Nm", terms.form.value),
        # An undertaking in support of a financial obligation.
        ("Tp", [("Cd", "FINC")]),
        ("Oblgr", _party(terms.applicant)),
        ("Applcnt", _party(terms.applicant)),
        ("Issr", _bank(terms.issuing_bic)),
        ("Bnfcry", _party(terms.beneficiary)),
        ("AdvsgPty", _bank(terms.advising_bic)),
        ("CntrUdrtkgInd", "false"),
        ("UdrtkgAmt", [("Amt", terms.amount)]),
        ("XpryDtls", _expiry(undertaking)),
        ("GovncRulesAndLaw", [("RuleId", [("Cd", terms.governing_rules.value)])]),
        ("UdrtkgWrdg", _conditions(undertaking)),
        ("DlvryChanl", [("Mtd", "SWMX"), ("DlvrToPtyTp", [("Cd", "ADVP")])]),
        ("OblgrLbltyAcct", [("Id", [("IBAN", terms.applicant_account)]), ("Ccy", terms.amount.asset)]),
    ]
    instructions = (
        HOLD,
        f"UNDERTAKING {undertaking.number}",
        f"ISSUANCE SHA-256 {issuance_sha256.hex().upper()}",
        f"UETR {uetr_of(undertaking.reference)}",
    )
    content: list[Item] = [("UdrtkgApplDtls", details), *(("InstrsToBk", line) for line in instructions)]
    return message(envelope, Kind.APPLICATION, ("UdrtkgAppl", content), schemas)


def termination(envelope: Envelope, undertaking: Undertaking, schemas: Schemas) -> bytes:
    """tsrv.004: end it, on the day of the message. A draft ends by it at once; an undertaking that is issued only if its beneficiary consents."""
    terms = undertaking.terms
    named: list[Item] = [
        ("Id", undertaking.number),
        ("Issr", _bank(terms.issuing_bic)),
        ("ApplcntRefNb", undertaking.reference),
    ]
    details: list[Item] = [
        ("ApplcntReqNb", envelope.message_id),
        ("UdrtkgId", named),
        ("Applcnt", _party(terms.applicant)),
        ("TermntnDtls", [("FctvDt", envelope.created_at.date().isoformat())]),
    ]
    content: list[Item] = [("UdrtkgAmdmntReqDtls", details), ("InstrsToBk", f"UETR {uetr_of(undertaking.reference)}")]
    return message(envelope, Kind.TERMINATION, ("UdrtkgAmdmntReq", content), schemas)


def document_sha256(octets: bytes) -> bytes:
    """SHA-256 over a message's Document, exclusively canonicalised: the same however often it is sent, marked or not."""
    return hashlib.sha256(etree.tostring(etree.fromstring(octets)[1], method="c14n", exclusive=True)).digest()


def _party(party: InstrumentParty) -> list[Item]:
    return [("Nm", party.name), ("PstlAdr", [("TwnNm", party.town), ("Ctry", party.country)])]


def _bank(bic: str) -> list[Item]:
    return [("Id", [("OrgId", [("AnyBIC", bic)])])]


def _conditions(undertaking: Undertaking) -> list[Item]:
    return [("UdrtkgTermsAndConds", [("Txt", text)]) for text in conditions_of(undertaking.terms)]


def _expiry(undertaking: Undertaking) -> list[Item]:
    day = undertaking.terms.expiry_date.isoformat()
    return [("XpryTerms", [("DtTm", [("Dt", day)])]), ("AddtlXpryInf", undertaking.terms.expiry_place)]


def said(document: etree._Element) -> UndertakingWord:
    """What a valid Document of the bank says of an undertaking.

    Raises:
        FieldInvalid: it breaks a rule that the schemas do not check.
    """
    report = document[0][0]
    if etree.QName(document).namespace == NAMESPACE + Kind.UNDERTAKING_ISSUED.value:
        return _issued(report)
    return UndertakingStatus(
        reference=_text(report, "UdrtkgId/ApplcntRefNb"),
        category=_text(report, "StsCtgy"),
        status=_text(report, "Sts"),
        reason=_text(report, "StsRsn/Rsn/Cd") or _text(report, "StsRsn/Rsn/Prtry"),
        text=" ".join(_text(report, "StsRsn/AddtlInf").split()),
    )


def _issued(report: etree._Element) -> UndertakingIssued:
    details = report.find(_path("UdrtkgIssncMsg/UdrtkgDtls"))
    if details is None:
        raise AssertionError("the schema requires it")
    expiry = _text(details, "XpryDtls/XpryTerms/DtTm/Dt")
    amount = details.find(_path("UdrtkgAmt/Amt"))
    require(details.find(_path("UdrtkgAmt/PlusTlrnce")) is None, "UdrtkgAmt/PlusTlrnce", "must be absent: no tolerance is agreed")
    for name in ("AutoXtnsn", "Cond", "OpnEnddInd"):
        place = f"XpryDtls/XpryTerms/{name}"
        require(details.find(_path(place)) is None, place, "must be absent: undertakings end on their day")
    banks = {name: _text(details, f"{name}/Id/OrgId/AnyBIC") for name in ("Issr", "AdvsgPty")}
    for name, bic in banks.items():
        if bic:
            check_bic(bic, f"{name}/Id/OrgId/AnyBIC")
    return UndertakingIssued(
        reference=_text(report, "ApplcntRefNb"),
        number=_text(details, "Id"),
        form=_text(details, "Nm"),
        amount=_amount(amount),
        issuer_bic=banks["Issr"],
        applicants=tuple(each.findtext("{*}Nm") or "" for each in details.findall("{*}Applcnt")),
        beneficiaries=tuple(each.findtext("{*}Nm") or "" for each in details.findall("{*}Bnfcry")),
        advising_bic=banks["AdvsgPty"],
        rules=_text(details, "GovncRulesAndLaw/RuleId/Cd"),
        expiry_date=_day(expiry, "XpryDtls/XpryTerms/DtTm/Dt") if expiry else None,
        conditions=tuple(each.text or "" for each in details.findall(_path("UdrtkgTermsAndConds/Txt"))),
        issued_on=_day(_text(details, "DtOfIssnc"), "DtOfIssnc"),
    )


def _amount(element: etree._Element | None) -> Amount:
    if element is None:
        raise AssertionError("the schema requires it")
    currency, text = element.get("Ccy") or "", (element.text or "").strip()
    with within("UdrtkgAmt/Amt"):
        scale = known_scale(currency) or 0
        whole, _, places = text.partition(".")
        # "12.5" and "12.500" are the same amount of money; what is left after dropping zeros must fit the currency.
        places = places.rstrip("0")
        return amount_from_text(currency, f"{whole}.{places}" if places else whole, scale)


def _day(text: str, field: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise FieldInvalid(field, "must be a day without an offset") from error


def _path(path: str) -> str:
    return "/".join(f"{{*}}{step}" for step in path.split("/"))


def _text(element: etree._Element, path: str) -> str:
    return element.findtext(_path(path)) or ""
