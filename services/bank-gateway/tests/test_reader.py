"""Messages of the bank: what is read of them, and everything that the schemas let pass and the reader does not."""

from __future__ import annotations

from decimal import Decimal

import pytest
from bank_samples import (
    AT,
    BANK,
    CREDITOR,
    NAMES,
    ORIGINAL,
    OURS,
    SCHEMAS,
    booking,
    group_status,
    message,
    one_status,
    resolution,
    status_report,
)
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from bank_gateway.iso20022.reader import read
from bank_gateway.messages import Booking, PaymentStatus, Received, Resolution
from lockstep_kit.amounts import known_scale
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256

WHOLE_CURRENCIES = sorted(currency.code for currency in Currency if currency.exponent is not None)


def taken(octets: bytes) -> Received:
    return read(octets, SCHEMAS)


def outcome(octets: bytes) -> Received | FieldInvalid:
    try:
        return taken(octets)
    except FieldInvalid as told:
        return told


def finding(octets: bytes) -> FieldInvalid:
    with pytest.raises(FieldInvalid) as refused:
        taken(octets)
    return refused.value


def test_status_is_read_with_all_that_it_says() -> None:
    """Code, reason, remark, echoed references and the key that the bank was shown; the octets' hash is kept."""
    octets = status_report(one_status("ACSC", "", f"<CdtSttlmKey>{'AB' * 32}</CdtSttlmKey>"))
    found = taken(octets)
    assert found.statements == (PaymentStatus(NAMES.uetr, NAMES.end_to_end_id, "ACSC", "", "", b"\xab" * 32, NAMES.message_id),)
    assert (found.envelope.sender, found.envelope.receiver, found.envelope.message_id) == (BANK, OURS, "ANSWER1")
    assert found.sha256 == sha256(octets)


def test_group_rejection_is_about_every_payment_of_its_message() -> None:
    """RJCT for the group, with payments or without; its reason holds where a payment has none of its own."""
    (alone,) = taken(status_report(group_status("RJCT", "AM05"))).statements
    assert alone == PaymentStatus("", "", "RJCT", "AM05", "", b"", NAMES.message_id)
    (named,) = taken(status_report(group_status("RJCT", "AM05"), one_status(""))).statements
    assert isinstance(named, PaymentStatus)
    assert (named.uetr, named.status, named.reason) == (NAMES.uetr, "RJCT", "AM05")


@pytest.mark.parametrize("group", ["PART", "ACCP", "ACSC", "PDNG"])
def test_other_group_statuses_are_about_no_payment(group: str) -> None:
    """A group that is settled or accepted says nothing of a payment that has no status of its own."""
    (statement,) = taken(status_report(group_status(group), one_status(""))).statements
    assert isinstance(statement, PaymentStatus)
    assert statement.status == ""


def test_group_rejection_beside_another_status_is_refused() -> None:
    """A message that contradicts itself is not half-read."""
    assert finding(status_report(group_status("RJCT"), one_status("ACSC"))).field == "TxInfAndSts/TxSts"


def test_resolution_and_booking_are_read() -> None:
    """camt.029 by payment; camt.054 by entry, with a reversal told apart."""
    (answer,) = taken(resolution("RJCR", "RJCR", "NOOR")).statements
    assert answer == Resolution(NAMES.uetr, "RJCR", "RJCR", "NOOR", "")
    (entry,) = taken(booking()).statements
    assert isinstance(entry, Booking)
    assert (str(entry.amount), entry.debit, entry.status, entry.reference, entry.reversal) == (
        "100.00 EUR",
        True,
        "BOOK",
        "B1",
        False,
    )
    (back,) = taken(booking(side="CRDT", account=CREDITOR, reversal="<RvslInd>true</RvslInd>")).statements
    assert isinstance(back, Booking)
    assert (back.debit, back.reversal) == (False, True)


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("0", "EUR"),
        ("0.00", "EUR"),
        ("+5.00", "EUR"),
        ("10.50", "JPY"),
        ("1.001", "EUR"),
        ("1.0001", "KWD"),
        ("10.00", "ZZZ"),
        ("1", "XAU"),
    ],
)
def test_amounts_that_the_schema_lets_pass(amount: str, currency: str) -> None:
    """Zero, a sign, decimals that the currency has not, a code that is no currency: each is refused by field."""
    assert finding(booking(amount, currency)).field.startswith("Amt")


@given(st.sampled_from(WHOLE_CURRENCIES), st.integers(min_value=1, max_value=10**13))
def test_amounts_come_through_exactly(code: str, minor_units: int) -> None:
    """Whatever fits the currency is read to the minor unit, never through a float."""
    scale = known_scale(code) or 0
    text = f"{Decimal(minor_units).scaleb(-scale):.{scale}f}"
    (entry,) = taken(booking(text, code)).statements
    assert isinstance(entry, Booking)
    assert (entry.amount.minor_units, entry.amount.scale, entry.amount.asset) == (minor_units, scale, code)


@pytest.mark.parametrize(
    ("octets", "field"),
    [
        (message("pacs.002.001.15", "<FIToFIPmtStsRpt/>", named="camt.054.001.13"), "Document/FIToFIPmtStsRpt"),
        (status_report(one_status("ACSC"), named="camt.054.001.13"), "AppHdr/MsgDefIdr"),
        (status_report(one_status("ACSC"), message_id="OTHER"), "GrpHdr/MsgId"),
        (status_report(one_status("ACSC"), created="2026-11-21T12:00:00"), "GrpHdr/CreDtTm"),
        (status_report(one_status("ACSC"), message_id="Zürich"), "AppHdr/BizMsgIdr"),
        (status_report(one_status("ACSC")).replace(f"<CreDt>{AT}".encode(), b"<CreDt>2026-11-21T24:00:00Z"), "AppHdr/CreDt"),
        (status_report(one_status("ACSC")).replace(b"SNDBDEFFXXX", b"SNDBZZFFXXX", 1), "AppHdr/Fr"),
        (status_report(one_status("ACSC"), extra="<CpyDplct>COPY</CpyDplct>"), "AppHdr/CpyDplct"),
        (status_report(one_status("ACSC"), extra='<Sgntr><Signature xmlns="http://www.w3.org/2000/09/xmldsig#"/></Sgntr>'), "AppHdr/Sgntr"),
        (status_report(one_status("ACSC", original=ORIGINAL.replace(NAMES.uetr, NAMES.uetr.upper()))), "Document/FIToFIPmtStsRpt/TxInfAndSts/OrgnlUETR"),
        (status_report(), "Document"),
        (resolution("CNCL", details=False), "Document"),
        (message("pacs.008.001.13", "<FIToFICstmrCdtTrf/>"), "Document"),
        (status_report(one_status("ACSC")).replace(b"</AppHdr>", b"</AppHdr>loose"), "message"),
        (status_report(one_status("ACSC")).replace(b"</Document>", b"</Document><Document/>"), "message"),
        (b"<Document/>", "message"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused_by_field(octets: bytes, field: str) -> None:
    """Header against document, offsets, character sets, BICs, unsigned copies, second documents: refused, with the field that is wrong."""
    assert finding(octets).field == field


def test_refusals_tell_no_values() -> None:
    """What a schema refuses may be a name or an account; only the field and the rule reach the log."""
    told = finding(booking(account="DE89 3704 0044"))
    assert "3704" not in str(told)
    assert told.rule == "must be valid by camt.054.001.13 (cvc-pattern-valid)"


def test_every_cut_and_every_flipped_byte_is_refused_or_read() -> None:
    """A damaged message is read or refused for a stated reason; nothing else ever comes of it."""
    whole = status_report(one_status("RJCT", "AM04"))
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    damaged += [whole[:place] + bytes([whole[place] ^ 0x21]) + whole[place + 1 :] for place in range(0, len(whole), 5)]
    for octets in damaged:
        told = outcome(octets)
        assert isinstance(told, Received) or (told.field and told.rule)
