"""Messages about undertakings: read as what they ask for, and written as what the bank answers."""

from __future__ import annotations

import hashlib
import re
from datetime import date
from typing import Final
from uuid import UUID

from lxml import etree

from bank_simulator.amounts import AmountError, decimal_text, minor_units, scale_of
from bank_simulator.checks import CheckError, require_bic, require_iban, require_reference
from bank_simulator.domain import Header
from bank_simulator.instruments import (
    NOTIFICATION,
    UNDERTAKING_STATUS,
    Application,
    Issuance,
    Termination,
    Undertaking,
    UndertakingStatus,
)
from bank_simulator.iso20022.outbound import Item, Money, write_document
from bank_simulator.iso20022.parser import place
from bank_simulator.iso20022.schemas import Schemas

#: Lines of an application's instructions, as agreed.
_NUMBER: Final = re.compile(r"UNDERTAKING (?P<value>[A-Z0-9]{1,35})")
_SHA256: Final = re.compile(r"ISSUANCE SHA-256 (?P<value>[0-9A-F]{64})")


def read_application(document: etree._Element) -> Application:
    """A tsin.005.

    Raises:
        CheckError: It breaks a rule that the schemas do not check.
    """
    details, root = document[0][0], document[0]
    lines = [each.text or "" for each in root.findall("{*}InstrsToBk")]
    number, wanted = _line(root, lines, _NUMBER, "UNDERTAKING"), _line(root, lines, _SHA256, "ISSUANCE SHA-256")
    account = _required(details, "OblgrLbltyAcct/Id/IBAN")
    require_iban(_at(details, "OblgrLbltyAcct/Id/IBAN"), account)
    amount, currency = _amount(details)
    expiry = _text(details, "XpryDtls/XpryTerms/DtTm/Dt")
    return Application(
        uetr=_reference(details, "ApplcntRefNb"), number=number, form=_required(details, "Nm"), amount=amount, currency=currency,
        scale=scale_of(currency), applicant_name=_required(details, "Applcnt/Nm"), account=account,
        issuer_bic=_bank(details, "Issr"), beneficiary_name=_required(details, "Bnfcry/Nm"), advising_bic=_bank(details, "AdvsgPty"),
        expires_on=_day(details, "XpryDtls/XpryTerms/DtTm/Dt", expiry) if expiry else None,
        issuance_sha256=bytes.fromhex(wanted), content_sha256=_digest(document),
    )  # fmt: skip


def read_issuance(document: etree._Element) -> Issuance:
    """A tsrv.001; the draft that it is of is named in the information to the bank.

    Raises:
        CheckError: It names none.
    """
    root = document[0]
    about = (each.text or "" for each in root.findall("{*}BkToBkInf"))
    named = next((each.removeprefix("UETR ") for each in about if each.startswith("UETR ")), "")
    try:
        uetr = UUID(named)
    except ValueError:
        raise CheckError(_at(root, "BkToBkInf"), "UETR", "it names the draft that it is of") from None
    content = etree.tostring(document, method="c14n", exclusive=True)
    return Issuance(uetr, _required(root[0], "Id"), hashlib.sha256(content).digest(), content)


def read_termination(document: etree._Element) -> Termination:
    """A tsrv.004 that asks to end an undertaking.

    Raises:
        CheckError: It asks for anything else.
    """
    details = document[0][0]
    if details.find("{*}TermntnDtls") is None:
        raise CheckError(_at(details, "TermntnDtls"), "REQUIRED", "undertakings are ended here, and not amended")
    return Termination(_reference(details, "UdrtkgId/ApplcntRefNb"), _required(details, "UdrtkgId/Id"))


def write_undertaking_status(header: Header, told: UndertakingStatus, schemas: Schemas) -> bytes:
    """A tsrv.019."""
    reason: list[Item] | None = None
    if told.reason is not None:
        reason = [("Rsn", [("Cd", told.reason)]), ("AddtlInf", told.text)]
    issuer: Item = ("Issr", [("Id", [("OrgId", [("AnyBIC", header.sender)])])])
    details: list[Item] = [
        ("InitgPty", [("Id", [("OrgId", [("AnyBIC", header.sender)])])]),
        ("UdrtkgId", [("Id", told.number), issuer, ("ApplcntRefNb", told.uetr.hex)]),
        ("StsCtgy", told.category), ("Sts", told.status), ("StsRsn", reason),
    ]  # fmt: skip
    return write_document(header, UNDERTAKING_STATUS, ("UdrtkgStsRpt", [("UdrtkgStsRptDtls", details)]), schemas)


def write_notification(
    header: Header, undertaking: Undertaking, issued_on: date, issuance: bytes, schemas: Schemas, *, amount: int | None = None
) -> bytes:
    """A tsrv.003: the undertaking as it was issued, on its day; `amount` states another amount than it has."""
    details = etree.fromstring(issuance)[0][0]
    copied = _copied(details)
    for at, (name, _) in enumerate(copied):
        if name == "DtOfIssnc":
            copied[at] = (name, issued_on.isoformat())
        if name == "UdrtkgAmt" and amount is not None:
            copied[at] = (name, [("Amt", Money(decimal_text(amount, undertaking.scale), undertaking.currency))])
    content: list[Item] = [("ApplcntRefNb", undertaking.uetr.hex), ("UdrtkgIssncMsg", [("UdrtkgDtls", copied)])]
    return write_document(header, NOTIFICATION, ("UdrtkgIssncNtfctn", [("UdrtkgIssncNtfctnDtls", content)]), schemas)


def _copied(element: etree._Element) -> list[Item]:
    """What an element holds, for another namespace."""
    found: list[Item] = []
    for child in element:
        name = etree.QName(child).localname
        if child.get("Ccy") is not None:
            found.append((name, Money(child.text or "", child.get("Ccy") or "")))
        else:
            found.append((name, _copied(child) if len(child) else child.text or ""))
    return found


def _line(root: etree._Element, lines: list[str], pattern: re.Pattern[str], name: str) -> str:
    found = [match["value"] for line in lines if (match := pattern.fullmatch(line))]
    if len(found) != 1:
        raise CheckError(_at(root, "InstrsToBk"), "INSTRUCTION", f"one line of the instructions is: {name} and its value")
    return found[0]


def _reference(details: etree._Element, path: str) -> UUID:
    value = _required(details, path)
    require_reference(_at(details, path), value)
    try:
        found = UUID(hex=value)
    except ValueError:
        raise CheckError(_at(details, path), "UETR", "a reference is a UETR without hyphens") from None
    if found.hex != value:
        raise CheckError(_at(details, path), "UETR", "a reference is a UETR without hyphens")
    return found


def _amount(details: etree._Element) -> tuple[int, str]:
    found = details.find(_path("UdrtkgAmt/Amt"))
    if found is None:
        raise AssertionError("the schema requires it")
    currency = found.get("Ccy") or ""
    try:
        return minor_units((found.text or "").strip(), currency), currency
    except AmountError as error:
        raise CheckError(_at(details, "UdrtkgAmt/Amt"), "AMOUNT", str(error)) from None


def _bank(details: etree._Element, name: str) -> str:
    path = f"{name}/Id/OrgId/AnyBIC"
    value = _required(details, path)
    require_bic(_at(details, path), value)
    return value


def _day(details: etree._Element, path: str, value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise CheckError(_at(details, path), "DATE", "a date has no offset") from None


def _digest(document: etree._Element) -> bytes:
    return hashlib.sha256(etree.tostring(document, method="c14n", exclusive=True)).digest()


def _path(path: str) -> str:
    return "/".join(f"{{*}}{step}" for step in path.split("/"))


def _text(element: etree._Element, path: str) -> str | None:
    return element.findtext(_path(path))


def _required(element: etree._Element, path: str) -> str:
    value = _text(element, path)
    if not value:
        raise CheckError(_at(element, path), "REQUIRED", "this rail requires it")
    return value


def _at(element: etree._Element, path: str) -> str:
    return f"{place(element)}/{path}"
