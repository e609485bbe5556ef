"""XML signatures: made so that the official schema takes them, and worth something only whole, by the pinned certificate, with the agreed algorithms."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bank_samples import NAMES, SCHEMAS, booking, one_status, status_report
from keys import Identity, identity
from lxml import etree

from bank_gateway.iso20022 import reader, writer
from bank_gateway.iso20022.agreement import Agreement, release_order
from bank_gateway.iso20022.signatures import DSIG, Pinned
from bank_gateway.messages import Envelope, Kind
from lockstep_kit.fields import FieldInvalid

PLAIN = status_report(one_status("ACSC"))
HEAD = "urn:iso:std:iso:20022:tech:xsd:head.001.001.02"


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return identity(tmp_path_factory.mktemp("bank"), "bank")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return identity(tmp_path_factory.mktemp("other"), "other")


@pytest.fixture(scope="module")
def agreed(bank: Identity) -> Agreement:
    return Agreement(pinned=Pinned([bank.fingerprint]))


def finding(octets: bytes, agreement: Agreement) -> str:
    with pytest.raises(FieldInvalid) as refused:
        reader.read(octets, SCHEMAS, agreement)
    return str(refused.value)


def test_signed_message_is_read(bank: Identity, agreed: Agreement) -> None:
    """What a signed message says is what it says unsigned; the signature is valid by the header's schema."""
    signed = bank.signer.sign(PLAIN)
    assert reader.read(signed, SCHEMAS, agreed).statements == reader.read(PLAIN, SCHEMAS).statements
    SCHEMAS.require_valid(etree.fromstring(signed)[0])
    assert etree.fromstring(signed)[0][-1].tag == f"{{{HEAD}}}Sgntr"


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa(tmp_path: Path, bits: int) -> None:
    """RSA signs as well; an agreement on ECDSA alone refuses it."""
    signer = identity(tmp_path, "bank", rsa_bits=bits)
    signed = signer.signer.sign(PLAIN)
    assert reader.read(signed, SCHEMAS, Agreement(pinned=Pinned([signer.fingerprint]))).statements
    only = Agreement(pinned=Pinned([signer.fingerprint], ["ecdsa-sha256"]))
    assert "must be made by an agreed algorithm" in finding(signed, only)


def test_signatures_are_required_or_refused(bank: Identity, agreed: Agreement) -> None:
    """Where they are agreed, an unsigned message is refused; where they are not, a signed one."""
    assert "must hold the signature that is agreed" in finding(PLAIN, agreed)
    assert "signatures are not agreed" in finding(bank.signer.sign(PLAIN), Agreement())


def test_certificates_follow_one_another(bank: Identity, other: Identity) -> None:
    """Two may be pinned; what is not pinned is refused, though its signature holds."""
    both = Agreement(pinned=Pinned([bank.fingerprint, other.fingerprint]))
    for signer in (bank, other):
        assert reader.read(signer.signer.sign(PLAIN), SCHEMAS, both).statements
    alone = Agreement(pinned=Pinned([other.fingerprint]))
    assert "must be made with a certificate that is pinned" in finding(bank.signer.sign(PLAIN), alone)


def test_certificate_was_valid_when_the_message_was_made(tmp_path: Path) -> None:
    """A pinned certificate that had ended, or had not begun, when the message says that it was made signs nothing."""
    for name, begin in (("ended", datetime(2020, 1, 1, tzinfo=UTC)), ("later", datetime(2030, 1, 1, tzinfo=UTC))):
        signer = identity(tmp_path, name, begin=begin, days=30)
        assert "InvalidCertificate" in finding(signer.signer.sign(PLAIN), Agreement(pinned=Pinned([signer.fingerprint])))


def swapped(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(octets: bytes) -> bytes:
        assert octets.count(old) >= 1
        return octets.replace(old, new, 1)

    return change


def moved(octets: bytes) -> bytes:
    """The signature with its header under another element, a false one in its place (signature wrapping)."""
    root = etree.fromstring(octets)
    false = etree.fromstring(PLAIN.replace(b"ACSC", b"RJCT"))
    false[0].append(root[0].find(f"{{{HEAD}}}Sgntr"))  # type: ignore[arg-type]
    false.append(root)
    return etree.tostring(false)


def second(octets: bytes) -> bytes:
    root = etree.fromstring(octets)
    place = root[0].find(f"{{{HEAD}}}Sgntr")
    assert place is not None
    place.append(etree.fromstring(etree.tostring(place[0])))
    return etree.tostring(root)


def referring(uri: str) -> Callable[[bytes], bytes]:
    return lambda octets: octets.replace(b'<ds:Reference URI="">', f'<ds:Reference URI="{uri}">'.encode())


def without_certificate(octets: bytes) -> bytes:
    return re.sub(rb"<ds:KeyInfo>.*</ds:KeyInfo>", b"", octets, flags=re.DOTALL)


TAMPERED: dict[str, Callable[[bytes], bytes]] = {
    "status": swapped(b"<TxSts>ACSC", b"<TxSts>RJCT"),
    "header": swapped(b"<BizMsgIdr>ANSWER1", b"<BizMsgIdr>ANSWER2"),
    "mark": swapped(b"</CreDt>", b"</CreDt><PssblDplct>true</PssblDplct>"),
    "blank": swapped(b"<TxInfAndSts>", b"<TxInfAndSts> "),
    "digest": lambda octets: re.sub(rb"(DigestValue>)....", rb"\1AAAA", octets, count=1),
    "value": lambda octets: re.sub(rb"(SignatureValue>)....", rb"\1AAAA", octets, count=1),
    "short value": lambda octets: re.sub(rb"(SignatureValue>)[^<]*", rb"\1AAAA", octets, count=1),
    "no value": lambda octets: re.sub(rb"(SignatureValue>)[^<]*", rb"\1", octets, count=1),
    "no certificate": without_certificate,
    "certificate of nobody": lambda octets: re.sub(rb"(X509Certificate>)[^<]*", rb"\1AAAA", octets, count=1),
    "two signatures": second,
    "moved": moved,
    "another reference": referring("#somewhere"),
    "a file": referring("file:///etc/passwd"),
    "inclusive": swapped(b'CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"', b'CanonicalizationMethod Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"'),
    "xslt": swapped(b'<ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>', b'<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/>'),
    "sha1": swapped(b"ecdsa-sha256", b"ecdsa-sha1"),
    "hmac": swapped(b"ecdsa-sha256", b"hmac-sha256"),
    "something beside it": swapped(b"</ds:Signature>", b'</ds:Signature><x xmlns="urn:x"/>'),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_anything_else_is_refused(name: str, bank: Identity, agreed: Agreement) -> None:
    """A message, signature, reference, algorithm or certificate that is not what was signed and agreed: refused, by the signature's field or the form."""
    told = finding(TAMPERED[name](bank.signer.sign(PLAIN)), agreed)
    assert told.startswith(("AppHdr/Sgntr must", "message must hold one AppHdr and one Document"))


def test_only_what_is_signed_is_read(bank: Identity, agreed: Agreement) -> None:
    """Every statement of a booking is changed in turn, and none passes."""
    signed = bank.signer.sign(booking())
    assert reader.read(signed, SCHEMAS, agreed).statements
    for old, new in ((b">100.00<", b">900.00<"), (b'Ccy="EUR"', b'Ccy="USD"'), (b">DBIT<", b">CRDT<"), (b">BOOK<", b">PDNG<")):
        assert "AppHdr/Sgntr" in finding(signed.replace(old, new), agreed)


def test_resent_message_is_signed_anew(bank: Identity) -> None:
    """The mark of a possible duplicate is signed with the rest, and the document stays octet by octet what it was."""
    agreement = Agreement(signer=bank.signer)
    envelope = Envelope("LCKSDEFFXXX", "SNDBDEFFXXX", "Q1", datetime(2026, 11, 21, tzinfo=UTC))
    first = agreement.seal(writer.inquiry(envelope, NAMES, SCHEMAS))
    again = agreement.seal(writer.possible_duplicate(first))
    documents = [octets[octets.index(b"<Document") :] for octets in (first, again)]
    assert documents[0] == documents[1]
    root = Pinned([bank.fingerprint]).authentic(etree.fromstring(again), envelope.created_at)
    assert root[0].findtext(f"{{{HEAD}}}PssblDplct") == "true"
    assert again.count(b"<ds:Signature ") == first.count(b"<ds:Signature ") == 1
    SCHEMAS.require_valid(etree.fromstring(again)[0])


def test_release_is_signed(bank: Identity) -> None:
    """A release says who, whom, which payment and which key, and none of it can be changed."""
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    order = Agreement(signer=bank.signer).seal(
        release_order("LCKSDEFFXXX", "SNDBDEFFXXX", NAMES.uetr, bytes(32), "I1-release", moment)
    )
    pinned = Pinned([bank.fingerprint])
    told = {etree.QName(child).localname: child.text for child in pinned.authentic(etree.fromstring(order), moment)}
    assert (told["UETR"], told["Key"], told["Id"], told["Fr"]) == (NAMES.uetr, "00" * 32, "I1-release", "LCKSDEFFXXX")
    with pytest.raises(FieldInvalid):
        pinned.authentic(etree.fromstring(order.replace(b"<Key>00", b"<Key>01")), moment)
    assert etree.fromstring(order)[-1][0].tag == f"{{{DSIG}}}Signature"


def test_keys_that_do_not_serve(bank: Identity, other: Identity, tmp_path: Path) -> None:
    """A key that others may read, that is too short, that is another certificate's, or that is none: refused by the setting's name."""
    weak = identity(tmp_path, "weak", rsa_bits=1024)
    shared = identity(tmp_path, "shared")
    shared.key_file.chmod(0o640)
    none = replace(shared, key_file=tmp_path / "none", certificate_file=tmp_path / "none")
    none.key_file.write_text("none")
    none.key_file.chmod(0o600)
    for wrong, field in (
        (weak, "signatures.key_file"),
        (shared, "signatures.key_file"),
        (none, "signatures.key_file"),
        (replace(bank, certificate_file=other.certificate_file), "signatures.certificate_file"),
        (replace(bank, certificate_file=none.certificate_file), "signatures.certificate_file"),
    ):
        with pytest.raises(FieldInvalid) as refused:
            _ = wrong.signer
        assert refused.value.field == field


def test_agreed_kinds_and_service() -> None:
    """A kind that is not agreed, and a header without the agreed business service, are refused by the header's field."""
    assert "AppHdr/MsgDefIdr must be agreed" in finding(PLAIN, Agreement(taken=frozenset({Kind.BOOKING})))
    service = Agreement(business_service="swift.cbprplus.03")
    assert "AppHdr/BizSvc must be swift.cbprplus.03" in finding(PLAIN, service)
    named = PLAIN.replace(b"</MsgDefIdr>", b"</MsgDefIdr><BizSvc>swift.cbprplus.03</BizSvc>")
    assert reader.read(named, SCHEMAS, service).statements


def test_agreed_deviations_are_passed_over() -> None:
    """An element in which the bank is known to break the schema is as if absent; elsewhere the same mistake is refused, and so is one that leaves a hole."""
    place = "Document/BkToCstmrDbtCdtNtfctn/Ntfctn/Ntry/AddtlNtryInf"
    broken = booking().replace(b"</Ntry>", b"<AddtlNtryInf></AddtlNtryInf></Ntry>")
    assert finding(broken, Agreement()).startswith(place)
    agreement = Agreement(deviations=frozenset({f"camt.054.001.13 {place}"}))
    assert reader.read(broken, SCHEMAS, agreement).statements == reader.read(booking(), SCHEMAS).statements
    assert "AddtlNtfctnInf" in finding(broken.replace(b"</Ntfctn>", b"<AddtlNtfctnInf></AddtlNtfctnInf></Ntfctn>"), agreement)
    needed = Agreement(deviations=frozenset({"camt.054.001.13 Document/BkToCstmrDbtCdtNtfctn/Ntfctn/Ntry/CdtDbtInd"}))
    assert "must be valid by camt.054.001.13" in finding(booking(side="NONE"), needed)


@pytest.mark.parametrize(
    ("skipped", "tampered"),
    [("_require_form", "inclusive"), ("_require_form", "another reference")],
)
def test_library_refuses_what_the_form_lets_pass(
    skipped: str, tampered: str, bank: Identity, agreed: Agreement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without our own look at the form, the library still finds that the signature does not hold: two checks, either of them enough."""
    monkeypatch.setattr(Pinned, skipped, lambda *_: None)
    assert finding(TAMPERED[tampered](bank.signer.sign(PLAIN)), agreed).startswith("AppHdr/Sgntr must")


def test_pin_alone_keeps_strangers_out(bank: Identity, other: Identity, agreed: Agreement, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded bug: were every certificate pinned, a stranger's message would be read; nothing else keeps it out."""
    signed = other.signer.sign(PLAIN)
    assert "pinned" in finding(signed, agreed)

    class Everything(frozenset[bytes]):
        def __contains__(self, _: object) -> bool:
            return True

    monkeypatch.setattr(agreed.pinned, "_fingerprints", Everything())
    assert reader.read(signed, SCHEMAS, agreed).statements
