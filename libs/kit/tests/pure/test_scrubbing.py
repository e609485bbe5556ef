"""What must never be told is not told, whatever stands around it; what operators need stays."""

from __future__ import annotations

import base64
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schwifty.registry import get_iban_spec

from lockstep_kit.scrubbing import IBAN_LENGTHS, LOG_FIELDS, TEXT_CHARACTERS_MAX, WITHHELD, scrubbed, told, told_attribute

PROSE = st.text(alphabet=string.ascii_letters + string.digits + " .,;:=-_/\n\"'(){}[]@", max_size=80)
SECRETS = st.text(alphabet=string.ascii_letters + string.digits + "_-", min_size=12, max_size=40)
IBAN = "DE89370400440532013000"


@given(PROSE, st.binary(min_size=48, max_size=120), PROSE)
def test_a_private_key_is_never_told(before: str, octets: bytes, after: str) -> None:
    """No part of a PEM's body is left, also where the text was cut before its end."""
    body = base64.encodebytes(octets).decode()
    for ending in ("-----END PRIVATE KEY-----", ""):
        text = scrubbed(f"{before}-----BEGIN PRIVATE KEY-----\n{body}{ending}{after}")
        assert body[:24] not in text
        assert "-----BEGIN" not in text


@given(PROSE, SECRETS, PROSE)
def test_a_password_in_a_url_is_never_told(before: str, password: str, after: str) -> None:
    """The role and the host stay, the password goes."""
    text = scrubbed(f"{before} postgresql://coordinator:CANARY{password}@db:5432/plans {after}")
    assert f"CANARY{password}" not in text


@pytest.mark.parametrize(
    "form",
    [
        "password={}", "password: {}", '"password": "{}"', "PGPASSWORD={}", "host=db password='{}' user=x", "passphrase={}", "client_secret={}",
        "webhook_secret: {}", "?api_key={}&x=1", "access_token={}", "Authorization: Bearer {}", "authorization: basic {}", "private_key={}",
        "seed={}", "{{'password': '{}'}}", '{{\\"password\\": \\"{}\\"}}', "preimage={}",
    ],
)  # fmt: skip
@given(SECRETS)
def test_a_value_beside_its_word_is_never_told(form: str, secret: str) -> None:
    """Whatever library wrote it, in whatever notation."""
    assert f"canary{secret}" not in scrubbed(form.format(f"canary{secret}"))


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["key", "seed", "secret", "private key", "preimage", "plan key"]))
def test_thirty_two_bytes_beside_the_word_key_are_never_told(octets: bytes, word: str) -> None:
    """As hex, with or without 0x, as base64, as a number."""
    for form in (octets.hex(), f"0x{octets.hex()}", octets.hex().upper(), base64.b64encode(octets).decode()):
        for text in (f"{word} {form} refused", f"{word}: {form}", f"the {word} is {form}", f'"{word}": "{form}"'):
            assert form not in scrubbed(text), text


@given(st.binary(min_size=32, max_size=32))
def test_hashes_and_signatures_stay(octets: bytes) -> None:
    """Operators look for them: digests, transaction hashes, roots, addresses, key ids, signatures."""
    for text in (
        f"transaction 0x{octets.hex()} was replaced", f"root {octets.hex()}", f"signature {octets.hex()}{octets.hex()}",
        f"plan_digest={octets.hex()}", f"token 0x{octets[:20].hex()}", f"key id {octets[:8].hex()} is unknown", f"public key {octets.hex()}",
    ):  # fmt: skip
        assert scrubbed(text) == text


def test_a_web_token_and_a_phrase_are_never_told() -> None:
    """Forms of their own."""
    assert "eyJ" not in scrubbed("got eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl from it")
    phrase = "test test test test test test test test test test test junk"
    assert "junk" not in scrubbed(f"mnemonic: {phrase}")
    assert "junk" not in scrubbed(f'seed phrase "{phrase}"')


def test_the_lengths_are_those_of_the_registry() -> None:
    """Every country that the registry of a well-kept library knows, with its length."""
    assert {country: get_iban_spec(country).iban_length for country in IBAN_LENGTHS} == IBAN_LENGTHS


@given(PROSE, PROSE)
def test_an_iban_is_never_told(before: str, after: str) -> None:
    """Together or in groups of four, right or misprinted."""
    for iban in (IBAN, "DE00370400440532013000", "NO9386011117947", "GB82WEST12345698765432"):
        grouped = " ".join(iban[place : place + 4] for place in range(0, len(iban), 4))
        for form in (iban, grouped):
            assert form not in scrubbed(f"{before} {form} {after}")


def test_what_only_looks_like_an_iban_stays() -> None:
    """Message ids, BICs and references are no accounts."""
    for text in (
        "LS20261122ABCDEFGH",
        "COBADEFFXXX",
        "DE8937040044053201300",
        "XDE89370400440532013000",
        "DE893704004405320130001",
    ):
        assert scrubbed(text) == text


def test_what_libraries_quote_is_withheld() -> None:
    """Postgres quotes rows and parameters, asyncpg arguments, pydantic input: each may be somebody's name."""
    for text in (
        'duplicate key value violates unique constraint "a"\nDETAIL:  Key (name)=(Canary Jones) already exists.',
        'invalid input syntax for type uuid: "Canary Jones"',
        "invalid input for query argument $3: 'Canary (Jones)' (expected int, got str)",
        "1 validation error\nname\n  Input should be short [type=x, input_value='Canary Jones', input_type=str]",
        "signature b'Canary Jones \\x00\\x01 and the rest' is wrong",
    ):
        told_text = scrubbed(text)
        assert "Canary" not in told_text
        assert "Jones" not in told_text
    assert 'unique constraint "a"' in scrubbed('violates unique constraint "a"\nDETAIL:  Key (a)=(1).')


@given(st.text(max_size=400))
def test_scrubbing_twice_is_scrubbing_once(text: str) -> None:
    """What was taken away leaves nothing that looks like a secret again."""
    assert scrubbed(scrubbed(text)) == scrubbed(text)


@given(st.text(alphabet=st.characters(codec="ascii"), min_size=1, max_size=20), st.text(min_size=1))
def test_an_unlisted_field_is_withheld(name: str, value: str) -> None:
    """Whatever it is called, unless it is listed; numbers pass."""
    if name in LOG_FIELDS:
        return
    assert told(name, value) == WITHHELD
    assert told(name, 17) == 17
    assert told(name, {"plan_id": value}) == WITHHELD


def test_listed_fields_are_searched_through() -> None:
    """Also inside lists and mappings, whose own names count."""
    assert told("error", f"no account {IBAN}") == "no account [account]"
    assert told("finding", [f"{IBAN}", {"plan_id": "p", "debtor": "Canary"}]) == ["[account]", {"plan_id": "p", "debtor": WITHHELD}]
    assert told("root", b"\x01" * 32) == WITHHELD
    assert told_attribute("lockstep.plan_id", "p") == "p"
    assert told_attribute("db.statement", "select 1") == WITHHELD
    assert told_attribute("exception.message", f"about {IBAN}") == "about [account]"


@pytest.mark.parametrize(
    "piece", ["://a:", "password", "key ", "DE12 ", "A1", "b'", "-----BEGIN PRIVATE KEY-----", "seed=", "input_value=", "eyJa."]
)
def test_a_hostile_text_costs_little(piece: str) -> None:
    """Time grows with the length and not with its square: what is too long is cut first."""
    began = time.thread_time()
    text = scrubbed(piece * 100_000)
    assert time.thread_time() - began < 5.0
    assert len(text) <= TEXT_CHARACTERS_MAX * 10
