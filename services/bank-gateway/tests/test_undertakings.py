"""What a bank says of undertakings, judged by itself: the table, every short course of words, each rule broken on purpose, and the messages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fence_samples import FINDING_OF
from lxml import etree

from bank_gateway.instruments import operations
from bank_gateway.instruments.operations import MEANINGS, Heard, Known, Said, differing, hear, said_of, stray
from bank_gateway.instruments.values import (
    Undertaking,
    UndertakingIssued,
    UndertakingStatus,
    UndertakingWord,
    conditions_of,
    uetr_of,
    undertaking_of,
)
from bank_gateway.iso20022 import reader, undertakings
from bank_gateway.iso20022.schemas import NAMESPACE, RAIL, Schemas
from bank_gateway.iso20022.writer import possible_duplicate
from bank_gateway.meanings import Meaning
from bank_gateway.messages import Envelope, Kind
from lockstep_kit.amounts import amount_from_text
from lockstep_kit.fence import FINDINGS, Phase
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_testkit.factories import instrument_terms, leg_of, plan_of

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PLAN = plan_of([leg_of("guarantee", instrument_terms(expiry_date=date(2027, 11, 21)))], deadline=NOW)
UNDERTAKING: Undertaking = undertaking_of(PLAN.binding("guarantee"))
TERMS = UNDERTAKING.terms
AS_ASKED = UndertakingIssued(
    reference=UNDERTAKING.reference, number=UNDERTAKING.number, form="STBY", amount=TERMS.amount, issuer_bic=TERMS.issuing_bic,
    applicants=(TERMS.applicant.name,), beneficiaries=(TERMS.beneficiary.name,), advising_bic=TERMS.advising_bic, rules="ISPR",
    expiry_date=TERMS.expiry_date, conditions=conditions_of(TERMS), issued_on=NOW.date(),
)  # fmt: skip


def status(category: str, code: str, reason: str = "") -> UndertakingStatus:
    return UndertakingStatus(UNDERTAKING.reference, category, code, reason, "")


LODGED, WITHDRAWN, STAYS = status("APPL", "ACCP"), status("APPL", "WTHD"), status("TERM", "REJT", "ARDT")
REJECTED, NEVER = status("APPL", "REJT", "AM02"), status("APPL", "REJT", "NOOR")
OTHER = replace(AS_ASKED, amount=amount_from_text("EUR", "1.00", 2))
SAYING: dict[Said, UndertakingWord] = {
    Said.LODGED: LODGED, Said.REJECTED: REJECTED, Said.WITHDRAWN: WITHDRAWN, Said.NEVER_THERE: NEVER, Said.STAYS: STAYS,
    Said.ISSUED: AS_ASKED, Said.DIFFERS: OTHER, Said.STRANGE: status("DEMD", "ACCP"),
}  # fmt: skip
#: As they were agreed, whatever the code under test says.
ENDING = (REJECTED, WITHDRAWN, NEVER)


def test_every_word_in_every_phase() -> None:
    """The table is total, every word can be said, and what leads to a finding leads somewhere in the fence."""
    assert set(MEANINGS) == set(itertools.product(Phase, Said))
    assert {said_of(UNDERTAKING, told): said for said, told in SAYING.items()} == {said: said for said in Said}
    for (phase, _), meaning in MEANINGS.items():
        assert meaning not in FINDING_OF or (phase, FINDING_OF[meaning]) in FINDINGS


def violations() -> Iterator[str]:
    """Rules that some course of up to three words breaks, begun in any phase that a draft or its want leads to."""
    lodged = hear(Known(), Phase.PREPARING, UNDERTAKING, LODGED, Envelope("COBADEFF", "LCKSDEFFXXX", "M0", NOW), bytes(32)).known
    begun = [(Phase.PREPARING, Known()), (Phase.ABORTING, Known())]
    begun += [(phase, lodged) for phase in (Phase.PREPARED, Phase.COMMITTING, Phase.ABORTING)]
    for phase, known in begun:
        for words in itertools.product(SAYING.values(), repeat=3):
            yield from _course(phase, known, words)


def _course(phase: Phase, known: Known, words: tuple[UndertakingWord, ...]) -> Iterator[str]:
    heard: list[UndertakingWord] = []
    for step, told in enumerate(words, 1):
        envelope = Envelope("COBADEFF", "LCKSDEFFXXX", f"M{step}", NOW + timedelta(seconds=step))
        after = operations.hear(known, phase, UNDERTAKING, told, envelope, sha256(envelope.message_id.encode()))
        yield from _broken(phase, heard, told, after)
        heard.append(told)
        known = after.known
        if after.meaning in FINDING_OF:
            phase = FINDINGS.get((phase, FINDING_OF[after.meaning]), phase)


def _broken(phase: Phase, before: list[UndertakingWord], told: UndertakingWord, after: Heard) -> Iterator[str]:
    ends = after.meaning in (Meaning.VOTES_NO, Meaning.LAPSED, Meaning.REFUSED, Meaning.RELEASED)
    if after.meaning is Meaning.SETTLES and told != AS_ASKED:
        yield "executed without the undertaking that was applied for"
    if after.meaning is Meaning.VOTES_YES and told != LODGED:
        yield "promised without a draft"
    if ends and AS_ASKED in before:
        yield "given up after the issue"
    if ends and told not in ENDING:
        yield "given up without the bank's word"
    if (phase is Phase.COMMITTED and told in ENDING) and after.meaning is Meaning.NOTHING:
        yield "contradicted in silence"
    if told == OTHER and after.meaning is not Meaning.TROUBLE:
        yield "another undertaking in silence"
    if after.meaning in (Meaning.VOTES_NO, Meaning.LAPSED, Meaning.REFUSED) and not after.reason:
        yield "refused without a reason"


def test_no_course_breaks_a_rule() -> None:
    """Whatever three words a bank says in a row, no rule is broken."""
    assert set(violations()) == set()


def _table(monkeypatch: pytest.MonkeyPatch, changes: dict[tuple[Phase, Said], Meaning]) -> None:
    monkeypatch.setattr(operations, "MEANINGS", {**MEANINGS, **changes})


def _silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule stands twice: before the table, and in it."""
    _table(monkeypatch, {(Phase.COMMITTED, Said.REJECTED): Meaning.NOTHING})
    monkeypatch.setattr(Known, "issued", property(lambda _: False))


@pytest.mark.parametrize(
    ("bug", "seen"),
    [
        (
            lambda m: _table(m, {(Phase.COMMITTING, Said.LODGED): Meaning.SETTLES}),
            "executed without the undertaking that was applied for",
        ),
        (lambda m: m.setattr(operations, "differing", lambda *_: ()), "executed without the undertaking that was applied for"),
        (lambda m: _table(m, {(Phase.ABORTING, Said.STAYS): Meaning.RELEASED}), "given up without the bank's word"),
        (_silent, "contradicted in silence"),
        (lambda m: m.setattr(Known, "issued", property(lambda _: False)), "given up after the issue"),
        (lambda m: m.setattr(operations, "REASONS", {}), "refused without a reason"),
        (lambda m: _table(m, {(Phase.PREPARING, Said.STRANGE): Meaning.VOTES_YES}), "promised without a draft"),
    ],
)
def test_seeded_bugs_are_seen(monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None], seen: str) -> None:
    """A rule that is broken on purpose is seen by the same judge that finds nothing otherwise."""
    bug(monkeypatch)
    assert seen in set(violations())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"number": "U1"}, "number"),
        ({"form": "DGAR"}, "form"),
        ({"amount": amount_from_text("USD", "50000.00", 2)}, "amount"),
        ({"issuer_bic": "BNPAFRPP"}, "issuer"),
        ({"applicants": ()}, "applicant"),
        ({"beneficiaries": (*AS_ASKED.beneficiaries, "Another SA")}, "beneficiary"),
        ({"advising_bic": ""}, "advising bank"),
        ({"rules": "URDG"}, "rules"),
        ({"expiry_date": None}, "expiry"),
        ({"conditions": AS_ASKED.conditions[:1]}, "terms"),
    ],
)
def test_differences_are_named(change: dict[str, Any], name: str) -> None:
    """An undertaking that was issued otherwise is not the leg's, and the field is named."""
    assert differing(UNDERTAKING, AS_ASKED) == ()
    assert differing(UNDERTAKING, replace(AS_ASKED, **change)) == (name,)


def test_what_refusals_are_called() -> None:
    """A bank that does not issue what it holds breaks its promise, unless the undertaking's own day was over."""
    envelope = Envelope("COBADEFF", "LCKSDEFFXXX", "M1", NOW)
    known = Known(status="APPL/ACCP", at=NOW.isoformat())
    late = replace(envelope, created_at=datetime(2027, 11, 22, 9, 0, tzinfo=UTC))
    for made, code, reason in (
        (envelope, "AM02", "BANK_COMMIT_FAILED"),
        (envelope, "DT01", "BANK_COMMIT_FAILED"),
        (late, "DT01", "BANK_EXECUTE_FAILED"),
    ):
        heard = hear(known, Phase.COMMITTING, UNDERTAKING, status("APPL", "REJT", code), made, bytes(32))
        assert (heard.meaning, heard.reason) == (Meaning.REFUSED, reason)


def test_a_late_confirmation_changes_nothing() -> None:
    """The draft's confirmation that was made before its withdrawal, and comes after it, is no news."""
    withdrawn = hear(Known(), Phase.ABORTING, UNDERTAKING, WITHDRAWN, Envelope("B", "U", "M2", NOW), bytes(32)).known
    before = Envelope("B", "U", "M1", NOW - timedelta(seconds=1))
    assert hear(withdrawn, Phase.RELEASED, UNDERTAKING, LODGED, before, bytes(32)).meaning is Meaning.NOTHING
    after = replace(before, created_at=NOW + timedelta(seconds=1))
    assert hear(withdrawn, Phase.RELEASED, UNDERTAKING, LODGED, after, bytes(32)).meaning is Meaning.TROUBLE


def test_strays() -> None:
    """Of an undertaking that nobody here knows a person is told if it binds somebody."""
    assert stray(AS_ASKED)
    assert stray(LODGED)
    assert [stray(told) for told in (*ENDING, STAYS)] == [""] * 4


# -- Messages ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    folder = next(parent / ".schemas" / "xsd" for parent in Path(__file__).parents if (parent / ".schemas" / "xsd").is_dir())
    return Schemas(folder)


ENVELOPE = Envelope("LCKSDEFFXXX", "COBADEFF", "MESSAGE1", NOW)


def test_the_same_issuance_however_often(schemas: Schemas) -> None:
    """The Document follows from the plan alone: another time, another name or the mark of a duplicate leave its hash as it is; another term does not."""
    first = undertakings.issuance(ENVELOPE, UNDERTAKING, schemas)
    later = replace(ENVELOPE, message_id="MESSAGE2", created_at=NOW + timedelta(days=3))
    digest = undertakings.document_sha256(first)
    assert undertakings.issuance(ENVELOPE, UNDERTAKING, schemas) == first
    assert undertakings.document_sha256(undertakings.issuance(later, UNDERTAKING, schemas)) == digest
    assert undertakings.document_sha256(possible_duplicate(first)) == digest
    other = replace(UNDERTAKING, terms=replace(TERMS, expiry_place="PARIS"))
    assert undertakings.document_sha256(undertakings.issuance(ENVELOPE, other, schemas)) != digest
    assert TERMS.terms.sha256.hex().upper().encode() in first


def test_the_application_names_the_issuance(schemas: Schemas) -> None:
    """The application carries the hash of the only issuance that may come of it, the facility's account, and how the bank finds it again."""
    digest = undertakings.document_sha256(undertakings.issuance(ENVELOPE, UNDERTAKING, schemas))
    root = etree.fromstring(undertakings.application(ENVELOPE, UNDERTAKING, digest, schemas))
    lines = [each.text for each in root.iter("{*}InstrsToBk")]
    assert f"ISSUANCE SHA-256 {digest.hex().upper()}" in lines
    assert root.findtext(".//{*}OblgrLbltyAcct/{*}Id/{*}IBAN") == TERMS.applicant_account
    reference = root.findtext(".//{*}ApplcntRefNb") or ""
    assert f"UETR {uetr_of(reference)}" in lines
    ended = etree.fromstring(undertakings.termination(ENVELOPE, UNDERTAKING, schemas))
    assert ended.findtext(".//{*}UdrtkgId/{*}ApplcntRefNb") == reference


def notification(schemas: Schemas, change: Callable[[etree._Element], None] = lambda _: None) -> bytes:
    """A tsrv.003 with the undertaking as it was applied for, but for a change."""
    drawn = etree.fromstring(undertakings.issuance(ENVELOPE, UNDERTAKING, schemas))
    details = etree.tostring(drawn[1][0][0], encoding="unicode")
    details = details.replace(Kind.ISSUANCE.value, Kind.UNDERTAKING_ISSUED.value).replace("UdrtkgIssncDtls", "UdrtkgDtls")
    inner = (
        f"<UdrtkgIssncNtfctn><UdrtkgIssncNtfctnDtls><ApplcntRefNb>{UNDERTAKING.reference}</ApplcntRefNb>"
        f"<UdrtkgIssncMsg>{details}</UdrtkgIssncMsg></UdrtkgIssncNtfctnDtls></UdrtkgIssncNtfctn>"
    )
    header = etree.tostring(drawn[0], encoding="unicode").replace(Kind.ISSUANCE.value, Kind.UNDERTAKING_ISSUED.value)
    document = f'<Document xmlns="{NAMESPACE}{Kind.UNDERTAKING_ISSUED.value}">{inner}</Document>'
    root = etree.fromstring(f'<BusinessMessage xmlns="{RAIL}">{header}{document}</BusinessMessage>')
    change(root)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def test_a_notification_is_read(schemas: Schemas) -> None:
    """What was issued as it was applied for reads as nothing else."""
    received = reader.read(notification(schemas), schemas)
    assert isinstance(received.undertaking, UndertakingIssued)
    assert differing(UNDERTAKING, received.undertaking) == ()
    assert (received.kind, received.statements) == (Kind.UNDERTAKING_ISSUED, ())


def _text(path: str, value: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        found = root.find(f".//{path}")
        assert found is not None
        found.text = value

    return change


def _attribute(path: str, name: str, value: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        found = root.find(f".//{path}")
        assert found is not None
        found.set(name, value)

    return change


def _extended(root: etree._Element) -> None:
    found = root.find(".//{*}XpryTerms")
    assert found is not None
    etree.SubElement(found, f"{{{NAMESPACE}{Kind.UNDERTAKING_ISSUED.value}}}OpnEnddInd").text = "true"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_text("{*}UdrtkgAmt/{*}Amt", "0"), "UdrtkgAmt/Amt"),
        (_text("{*}UdrtkgAmt/{*}Amt", "10.001"), "UdrtkgAmt/Amt"),
        (_text("{*}UdrtkgAmt/{*}Amt", "+10.00"), "UdrtkgAmt/Amt"),
        (_attribute("{*}UdrtkgAmt/{*}Amt", "Ccy", "ZZZ"), "UdrtkgAmt/Amt"),
        (_text("{*}Issr/{*}Id/{*}OrgId/{*}AnyBIC", "COBAZZFF"), "Issr/Id/OrgId/AnyBIC"),
        (_text("{*}XpryDtls/{*}XpryTerms/{*}DtTm/{*}Dt", "2027-11-21Z"), "XpryDtls/XpryTerms/DtTm/Dt"),
        (_extended, "XpryDtls/XpryTerms/OpnEnddInd"),
        (_text("{*}UdrtkgDtls/{*}Nm", "OTHR"), ""),
    ],
)
def test_notifications_that_are_refused(schemas: Schemas, change: Callable[[etree._Element], None], field: str) -> None:
    """What breaks a rule is not half-read; the field is named, and never the value."""
    with pytest.raises(FieldInvalid) as caught:
        reader.read(notification(schemas, change), schemas)
    assert caught.value.field.startswith(field)
