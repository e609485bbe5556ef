"""What the schemas let pass and cannot be right: each is refused by its field, though the message is valid."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from bank_samples import SCHEMA_FOLDER, SCHEMAS, booking, one_status, status_report
from lxml import etree

from bank_gateway.iso20022 import reader
from bank_gateway.iso20022.checks import MOMENTS
from bank_gateway.iso20022.reader import read
from bank_gateway.iso20022.schemas import PINNED
from lockstep_kit.fields import FieldInvalid

NOTIFICATION = "Document/BkToCstmrDbtCdtNtfctn/Ntfctn"
BOOKED = booking()


def entered(*entries: tuple[str, str, str], summary: str = "", pages: str = "") -> bytes:
    """A camt.054 with entries of (amount, currency, side), one payment each, and a summary."""
    one = BOOKED[BOOKED.index(b"<Ntry>") : BOOKED.index(b"</Ntry>") + 7].decode()
    told = "".join(
        one.replace(">100.00<", f">{amount}<").replace('Ccy="EUR"', f'Ccy="{currency}"').replace("DBIT", side)
        for amount, currency, side in entries
    )
    octets = BOOKED.replace(one.encode(), (summary + told).encode())
    return octets.replace(b"</Id><Acct>", f"</Id>{pages}<Acct>".encode(), 1) if pages else octets


def summed(totals: str) -> str:
    return f"<TxsSummry>{totals}</TxsSummry>"


TWO = (("100.00", "EUR", "DBIT"), ("30.00", "EUR", "CRDT"))
BATCH = "<NtryDtls><Btch>{}</Btch>"


def batched(told: str) -> bytes:
    return BOOKED.replace(b"<NtryDtls>", BATCH.format(told).encode())


def put(old: str, new: str) -> Callable[[], bytes]:
    def change() -> bytes:
        assert old.encode() in BOOKED
        return BOOKED.replace(old.encode(), new.encode(), 1)

    return change


WRONG: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "IBAN's checksum": (put("DE89370400440532013000", "DE88370400440532013000"), f"{NOTIFICATION}/Acct/Id/IBAN", "must be an IBAN"),
    "BIC's country": (
        put("</Acct>", "<Svcr><FinInstnId><BICFI>SNDBZZFF</BICFI></FinInstnId></Svcr></Acct>"), f"{NOTIFICATION}/Acct/Svcr/FinInstnId/BICFI",
        "must be a BIC",
    ),
    "LEI's checksum": (
        put("</Acct>", "<Svcr><FinInstnId><LEI>529900T8BM49AURSDO56</LEI></FinInstnId></Svcr></Acct>"), f"{NOTIFICATION}/Acct/Svcr/FinInstnId/LEI",
        "must be an LEI",
    ),
    "currency of an account": (put("</Acct>", "<Ccy>ZZZ</Ccy></Acct>"), f"{NOTIFICATION}/Acct/Ccy", "must be an ISO 4217"),
    "time without offset": (
        put("<AcctSvcrRef>B1", "<ValDt><DtTm>2026-11-21T12:00:00</DtTm></ValDt><AcctSvcrRef>B1"), f"{NOTIFICATION}/Ntry/ValDt/DtTm",
        "must name its offset",
    ),
    "hour 24": (
        put("<AcctSvcrRef>B1", "<ValDt><DtTm>2026-11-21T24:00:00Z</DtTm></ValDt><AcctSvcrRef>B1"), f"{NOTIFICATION}/Ntry/ValDt/DtTm",
        "must be a time",
    ),
    "direction override": (put("</Ntry>", "<AddtlNtryInf>a\u202eb</AddtlNtryInf></Ntry>"), f"{NOTIFICATION}/Ntry/AddtlNtryInf", "must hold no control"),
    "yen with decimals": (
        put("<NtryDtls>", '<Chrgs><TtlChrgsAndTaxAmt Ccy="JPY">1.5</TtlChrgsAndTaxAmt></Chrgs><NtryDtls>'), f"{NOTIFICATION}/Ntry/Chrgs/TtlChrgsAndTaxAmt",
        "must have at most 0 decimals",
    ),
    "currency of a charge": (
        put("<NtryDtls>", '<Chrgs><TtlChrgsAndTaxAmt Ccy="ZZZ">1</TtlChrgsAndTaxAmt></Chrgs><NtryDtls>'),
        f"{NOTIFICATION}/Ntry/Chrgs/TtlChrgsAndTaxAmt/@Ccy", "must be an ISO 4217",
    ),
    "entries counted": (
        lambda: entered(*TWO, summary=summed("<TtlNtries><NbOfNtries>3</NbOfNtries></TtlNtries>")),
        f"{NOTIFICATION}/TxsSummry/TtlNtries/NbOfNtries", "must be the number",
    ),
    "entries summed": (
        lambda: entered(*TWO, summary=summed("<TtlNtries><Sum>130.01</Sum></TtlNtries>")), f"{NOTIFICATION}/TxsSummry/TtlNtries/Sum", "must be the sum",
    ),
    "credits summed": (
        lambda: entered(*TWO, summary=summed("<TtlCdtNtries><Sum>100</Sum></TtlCdtNtries>")), f"{NOTIFICATION}/TxsSummry/TtlCdtNtries/Sum",
        "must be the sum",
    ),
    "debits counted": (
        lambda: entered(*TWO, summary=summed("<TtlDbtNtries><NbOfNtries>2</NbOfNtries></TtlDbtNtries>")),
        f"{NOTIFICATION}/TxsSummry/TtlDbtNtries/NbOfNtries", "must be the number",
    ),
    "net": (
        lambda: entered(*TWO, summary=summed("<TtlNtries><TtlNetNtry><Amt>71</Amt><CdtDbtInd>DBIT</CdtDbtInd></TtlNetNtry></TtlNtries>")),
        f"{NOTIFICATION}/TxsSummry/TtlNtries/TtlNetNtry/Amt", "must be credits less debits",
    ),
    "side of the net": (
        lambda: entered(*TWO, summary=summed("<TtlNtries><TtlNetNtry><Amt>70</Amt><CdtDbtInd>CRDT</CdtDbtInd></TtlNetNtry></TtlNtries>")),
        f"{NOTIFICATION}/TxsSummry/TtlNtries/TtlNetNtry/CdtDbtInd", "must be the side",
    ),
    "batch counted": (lambda: batched("<NbOfTxs>2</NbOfTxs>"), f"{NOTIFICATION}/Ntry/NtryDtls/Btch/NbOfTxs", "must be the number"),
    "batch summed": (lambda: batched('<TtlAmt Ccy="EUR">100.01</TtlAmt>'), f"{NOTIFICATION}/Ntry/NtryDtls/Btch/TtlAmt", "must be the sum"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_right_is_refused(name: str) -> None:
    """Valid by the schema, wrong all the same: refused by field and rule."""
    make, field, rule = WRONG[name]
    octets = make()
    SCHEMAS.require_valid(etree.fromstring(octets)[1])
    with pytest.raises(FieldInvalid) as refused:
        read(octets, SCHEMAS)
    assert refused.value.field == field
    assert refused.value.rule.startswith(rule)


@pytest.mark.parametrize("name", WRONG)
def test_nothing_else_notices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded bug: without the check the message is read, so no other rule stands in for it."""
    monkeypatch.setattr(reader, "require_sound", lambda _: None)
    assert read(WRONG[name][0](), SCHEMAS).statements


@pytest.mark.parametrize(
    "octets",
    [
        entered(
            *TWO,
            summary=summed(
                "<TtlNtries><NbOfNtries>2</NbOfNtries><Sum>130</Sum><TtlNetNtry><Amt>70.00</Amt><CdtDbtInd>DBIT</CdtDbtInd></TtlNetNtry></TtlNtries>"
                "<TtlCdtNtries><NbOfNtries>1</NbOfNtries><Sum>30.00</Sum></TtlCdtNtries>"
                "<TtlDbtNtries><NbOfNtries>1</NbOfNtries><Sum>100.00</Sum></TtlDbtNtries>"
            ),
        ),
        entered(
            *TWO,
            summary=summed("<TtlNtries><NbOfNtries>900</NbOfNtries></TtlNtries>"),
            pages="<NtfctnPgntn><PgNb>1</PgNb><LastPgInd>false</LastPgInd></NtfctnPgntn>",
        ),
        batched('<NbOfTxs>1</NbOfTxs><TtlAmt Ccy="EUR">100</TtlAmt>'),
        BOOKED.replace(b"</Acct>", b"<Svcr><FinInstnId><BICFI>TRGTXEPMXXX</BICFI></FinInstnId></Svcr></Acct>"),
        BOOKED.replace(b"</Ntry>", "<AddtlNtryInf>Müller, Łódź\n zweite Zeile</AddtlNtryInf></Ntry>".encode()),
    ],
    ids=["sums", "one page of several", "batch", "TARGET's own BIC", "other letters"],
)
def test_what_is_right_is_read(octets: bytes) -> None:
    """Right counts and sums, a page whose summary is about all pages, the ECB's BICs, and letters of all languages are fine."""
    assert read(octets, SCHEMAS).statements


def test_echoed_names_are_of_the_x_set() -> None:
    """An identification of ours that comes back with other characters is not ours."""
    octets = status_report(one_status("ACSC")).replace(b"<OrgnlEndToEndId>E", b"<OrgnlEndToEndId>_")
    with pytest.raises(FieldInvalid) as refused:
        read(octets, SCHEMAS)
    assert refused.value.field.endswith("TxInfAndSts/OrgnlEndToEndId")


def test_entry_without_payments_is_money_all_the_same() -> None:
    """An entry whose payments are not told is read by itself, and names none."""
    start, end = BOOKED.index(b"<NtryDtls>"), BOOKED.index(b"</NtryDtls>") + len(b"</NtryDtls>")
    (said,) = read(BOOKED[:start] + BOOKED[end:], SCHEMAS).statements
    assert (said.uetr, said.amount.text(), said.debit) == ("", "100.00", True)  # type: ignore[union-attr]


def test_every_moment_of_the_schemas_is_known() -> None:
    """Whatever the schemas call by a moment's name is checked as one, but for what holds other elements."""
    declared = {
        name
        for definition in PINNED
        for name in re.findall(
            r'<xs:element [^>]*name="(\w*DtTm)" type="ISO\w+"', (SCHEMA_FOLDER / f"{definition}.xsd").read_text()
        )
    }
    assert declared == set(MOMENTS)
