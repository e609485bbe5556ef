"""Messages to the bank: valid by the official schemas, and the same octets for the same values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from lxml import etree

from bank_gateway.iso20022 import writer
from bank_gateway.iso20022.parser import parse
from bank_gateway.iso20022.schemas import NAMESPACE, Schemas
from bank_gateway.messages import Envelope, Footing, Kind, Payment, Side
from bank_gateway.references import message_id, references
from lockstep_kit.amounts import amount_from_text
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId, PlanId, uetr

PLAN, LEG = PlanId("1b4e28ba-2fa1-4d3b-8bd4-0a1f0f9c2b11"), LegId("cash")
NOW = datetime(2026, 11, 21, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    folder = next(parent / ".schemas" / "xsd" for parent in Path(__file__).parents if (parent / ".schemas" / "xsd").is_dir())
    return Schemas(folder)


def payment(currency: str = "EUR", amount: str = "98750.00", scale: int = 2) -> Payment:
    return Payment(
        references=references(PLAN, LEG),
        amount=amount_from_text(currency, amount, scale),
        settlement_date=date(2026, 11, 21),
        debtor=Side("Buyer Bank NV", "DE89370400440532013000", "SNDBDEFFXXX"),
        creditor=Side("Seller AG", "DE75512108001245126199", "SNDBDEFFXXX"),
        charge_bearer="SLEV",
        remittance="DVP 1",
        lock=bytes(range(32)),
        expires_at=datetime(2026, 11, 21, 13, 30, tzinfo=UTC),
    )


def envelope(kind: Kind) -> Envelope:
    return Envelope("LCKSDEFFXXX", "SNDBDEFFXXX", message_id(kind, PLAN, LEG), NOW)


def text(octets: bytes, path: str) -> str | None:
    root = parse(octets)
    namespace = etree.QName(root[1]).namespace
    return root[1].findtext("/".join(f"{{{namespace}}}{step}" for step in path.split("/")))


def test_payment_is_valid_and_conditional(schemas: Schemas) -> None:
    """A pacs.008 carries the lock in upper-case hex, the expiry, and the amount with the currency's decimals."""
    octets = writer.payment(envelope(Kind.PAYMENT), payment(), schemas)
    assert text(octets, "FIToFICstmrCdtTrf/CdtTrfTxInf/PmtSgntr/Sgntr") == bytes(range(32)).hex().upper()
    assert text(octets, "FIToFICstmrCdtTrf/CdtTrfTxInf/PmtTpInf/LclInstrm/Prtry") == "COND"
    assert text(octets, "FIToFICstmrCdtTrf/CdtTrfTxInf/IntrBkSttlmAmt") == "98750.00"
    assert text(octets, "FIToFICstmrCdtTrf/CdtTrfTxInf/AddtlDtTm/XpryDtTm") == "2026-11-21T13:30:00.000+00:00"
    assert text(octets, "FIToFICstmrCdtTrf/CdtTrfTxInf/PmtId/UETR") == uetr(PLAN, LEG)


@pytest.mark.parametrize(("currency", "amount", "scale"), [("JPY", "1050", 0), ("KWD", "0.001", 3), ("EUR", "0.01", 2)])
def test_amounts_have_the_currency_s_decimals(schemas: Schemas, currency: str, amount: str, scale: int) -> None:
    """Yen have no decimals, dinars three."""
    octets = writer.payment(envelope(Kind.PAYMENT), payment(currency, amount, scale), schemas)
    assert text(octets, "FIToFICstmrCdtTrf/CdtTrfTxInf/IntrBkSttlmAmt") == amount


def test_same_values_same_octets(schemas: Schemas) -> None:
    """A message that is built again is equal to the one that was stored."""
    first = writer.payment(envelope(Kind.PAYMENT), payment(), schemas)
    assert writer.payment(envelope(Kind.PAYMENT), payment(), schemas) == first
    assert writer.payment(envelope(Kind.PAYMENT), replace(payment(), remittance="DVP 2"), schemas) != first


def test_cancellation_and_inquiry_are_valid(schemas: Schemas) -> None:
    """camt.056 and pacs.028 name the payment by all its references."""
    cancellation = writer.cancellation(envelope(Kind.CANCELLATION), references(PLAN, LEG), "CUST", schemas)
    assert text(cancellation, "FIToFIPmtCxlReq/Undrlyg/TxInf/OrgnlUETR") == uetr(PLAN, LEG)
    inquiry = writer.inquiry(envelope(Kind.INQUIRY), references(PLAN, LEG), schemas)
    assert text(inquiry, "FIToFIPmtStsReq/TxInf/OrgnlEndToEndId") == references(PLAN, LEG).end_to_end_id


def test_possible_duplicate_touches_the_header_alone(schemas: Schemas) -> None:
    """The mark stands in the header; the document is the same to the byte, and the whole is still valid."""
    first = writer.payment(envelope(Kind.PAYMENT), payment(), schemas)
    again = writer.possible_duplicate(first)
    root, before = parse(again), parse(first)
    schemas.require_valid(root[0])
    assert root[0].findtext(f"{{{NAMESPACE}head.001.001.02}}PssblDplct") == "true"
    assert etree.tostring(root[1], method="c14n") == etree.tostring(before[1], method="c14n")
    assert writer.possible_duplicate(again) == again


def test_what_the_schema_forbids_is_never_sent(schemas: Schemas) -> None:
    """A name that is too long breaks the schema, and no message comes of it."""
    broken = replace(payment(), debtor=replace(payment().debtor, name="x" * 141))
    with pytest.raises(FieldInvalid):
        writer.payment(envelope(Kind.PAYMENT), broken, schemas)


def test_references_are_stable_and_fit() -> None:
    """The names of a payment are derived, differ by leg, and fit the 16 characters that every bank takes."""
    names = references(PLAN, LEG)
    assert names == references(PLAN, LEG)
    assert len({names.message_id, names.instruction_id, names.end_to_end_id, names.transaction_id}) == 4
    assert all(len(name) == 16 for name in (names.message_id, names.instruction_id, names.end_to_end_id, names.transaction_id))
    assert references(PLAN, LegId("other")).uetr != names.uetr


@pytest.mark.parametrize("footing", list(Footing))
def test_payment_says_on_what_it_is_made(schemas: Schemas, footing: Footing) -> None:
    """Only a conditional payment carries lock and expiry; one out of a reservation says so, and an ordinary one says nothing."""
    octets = writer.payment(envelope(Kind.PAYMENT), replace(payment(), footing=footing), schemas)
    transaction = "FIToFICstmrCdtTrf/CdtTrfTxInf"
    assert (text(octets, f"{transaction}/PmtTpInf/LclInstrm/Prtry") or "") == footing.value
    conditional = footing is Footing.CONDITIONAL
    assert (text(octets, f"{transaction}/PmtSgntr/Sgntr") is not None) == conditional
    assert (text(octets, f"{transaction}/AddtlDtTm/XpryDtTm") is not None) == conditional


@pytest.mark.parametrize("footing", list(Footing))
def test_payment_between_institutions(schemas: Schemas, footing: Footing) -> None:
    """A pacs.009 names debtor and creditor by their BICs and no names, and what is asked about it names it as what it is."""
    between = replace(
        payment(),
        footing=footing,
        debtor=replace(payment().debtor, institution_bic="MARKDEFFXXX"),
        creditor=replace(payment().creditor, institution_bic="BNPAFRPPXXX"),
    )
    octets = writer.payment(envelope(Kind.INSTITUTION_PAYMENT), between, schemas)
    transaction = "FICdtTrf/CdtTrfTxInf"
    assert text(octets, f"{transaction}/Dbtr/FinInstnId/BICFI") == "MARKDEFFXXX"
    assert text(octets, f"{transaction}/Cdtr/FinInstnId/BICFI") == "BNPAFRPPXXX"
    assert (text(octets, f"{transaction}/PmtSgntr/Sgntr") is not None) == (footing is Footing.CONDITIONAL)
    assert b"Buyer Bank NV" not in octets
    names = references(PLAN, LEG)
    cancelled = writer.cancellation(envelope(Kind.CANCELLATION), names, "CUST", schemas, between.kind)
    assert text(cancelled, "FIToFIPmtCxlReq/Undrlyg/TxInf/OrgnlGrpInf/OrgnlMsgNmId") == "pacs.009.001.12"
    asked = writer.inquiry(envelope(Kind.INQUIRY), names, schemas, between.kind)
    assert text(asked, "FIToFIPmtStsReq/OrgnlGrpInf/OrgnlMsgNmId") == "pacs.009.001.12"


def test_reservation_is_named_after_its_payment(schemas: Schemas) -> None:
    """camt.103, camt.049 and camt.046 name the reservation by the UETR without hyphens; the first says account, amount and start."""
    name, told = uetr(PLAN, LEG).replace("-", ""), replace(payment(), footing=Footing.RESERVED)
    created = writer.reservation(envelope(Kind.RESERVATION), told, schemas)
    assert text(created, "CretRsvatn/RsvatnId/RsvatnId") == name
    assert text(created, "CretRsvatn/RsvatnId/AcctId/IBAN") == told.debtor.iban
    assert text(created, "CretRsvatn/ValSet/Amt/AmtWthCcy") == "98750.00"
    assert text(created, "CretRsvatn/ValSet/StartDtTm/DtTm") == "2026-11-21T12:30:15.123+00:00"
    deleted = writer.reservation_deletion(envelope(Kind.RESERVATION_DELETION), told, schemas)
    assert text(deleted, "DelRsvatn/CurRsvatn/RsvatnId") == name
    asked = writer.reservation_query(envelope(Kind.RESERVATION_QUERY), told, schemas)
    assert text(asked, "GetRsvatn/RsvatnQryDef/RsvatnCrit/QryNm") == name
