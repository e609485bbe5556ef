"""Valid messages, mutated octet by octet and element by element: read as a whole, or refused by field and rule; what is read is valid by the official schemas.

It runs for LOCKSTEP_FUZZ_SECONDS (8) per target. A finding names the seed that brings it back.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
from bank_samples import SCHEMA_FOLDER, SCHEMAS, booking, group_status, one_status, resolution, status_report
from keys import identity
from lxml import etree
from schema_samples import Samples

from bank_gateway.iso20022 import reader
from bank_gateway.iso20022.agreement import Agreement
from bank_gateway.iso20022.signatures import Pinned
from bank_gateway.messages import Received
from lockstep_kit.fields import FieldInvalid

SECONDS = float(os.environ.get("LOCKSTEP_FUZZ_SECONDS", "8"))
SEEDED = (
    status_report(one_status("ACSC"), one_status("RJCT", "AM04")),
    status_report(group_status("RJCT", "AC01")),
    resolution("CNCL", "ACCR"),
    booking(),
    booking("100", "JPY", side="CRDT"),
)
PIECES = (
    b"<", b">", b"&", b"&#0;", b"&#x41;", b"&e;", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?x?>", b"<!DOCTYPE a>", b"\x00", b"\xff", b"\xef\xbb\xbf",
    b"\xc0\x80", b"\xed\xa0\x80", b"xmlns=''", b"xmlns:a='b'", b" ", b"\n", b"\r", b"-", b"+", b"0", b"9" * 30, b"1e3", b"NaN", b".", b"ZZZ", b"24:00:00",
    "\u202e".encode(), "\u00e9".encode(), "\U0001f600".encode(), b"</Document>", b"<Document>", b"xsi:nil='true'", b"xml:space='preserve'",
)  # fmt: skip
#: The official schemas, compiled apart from the ones that the reader uses.
APART = {path.stem: etree.XMLSchema(etree.parse(path)) for path in SCHEMA_FOLDER.glob("*.xsd")}


def by_octets(octets: bytes, rng: random.Random) -> bytes:
    """One to four small changes anywhere."""
    changed = bytearray(octets)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[place:place] = rng.choice(PIECES)
            case 2:
                del changed[place : place + rng.randint(1, 40)]
            case 3:
                other = rng.randrange(len(changed) + 1)
                changed[place:place] = changed[other : other + rng.randint(1, 200)]
            case 4:
                changed[place : place + 1] = bytes([(changed[place] if place < len(changed) else 0) ^ (1 << rng.randrange(8))])
            case _:
                changed[place : place + rng.randint(1, 8)] = rng.choice(PIECES)
    return bytes(changed)


def by_elements(octets: bytes, rng: random.Random) -> bytes:
    """One to three elements removed, doubled, moved, renamed, emptied, filled with something else."""
    root = etree.fromstring(octets)
    for _ in range(rng.randint(1, 3)):
        elements = [each for each in root.iter() if each is not root]
        element, other = rng.choice(elements), rng.choice(elements)
        parent = element.getparent()
        assert parent is not None
        match rng.randrange(8):
            case 0:
                parent.remove(element)
            case 1:
                parent.insert(parent.index(element), deepcopy(element))
            case 2:
                other.append(deepcopy(element))
            case 3:
                element.tag = other.tag
            case 4:
                element.text = rng.choice(("", " ", "0", "-1", "\u202e", "x" * 500, "2026-13-40T25:61:61", other.text or ""))
            case 5:
                element.set(
                    rng.choice(("Ccy", "Id", "{http://www.w3.org/2001/XMLSchema-instance}nil")),
                    rng.choice(("EUR", "XXX", "true", "")),
                )
            case 6:
                element.tail = rng.choice(("text", " ", "0"))
            case _:
                element.tag = f"{{urn:other}}{etree.QName(element).localname}"
        if len(list(root)) == 0:
            break
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def outcome(octets: bytes, agreed: Agreement, seed: int) -> Received | None:
    """What is read, or None for what is refused; anything else is a finding."""
    try:
        return reader.read(octets, SCHEMAS, agreed)
    except FieldInvalid as finding:
        if finding.field and finding.rule.startswith("must"):
            return None
        raise AssertionError(f"seed {seed}: refused without a field or rule: {finding}") from finding
    except Exception as error:
        raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


def corpus() -> list[bytes]:
    made = [Samples(kind.value).message(random.Random(seed), plenty=0.2) for kind in sorted(reader.TAKEN) for seed in range(12)]
    return [*SEEDED, *made]


@pytest.mark.parametrize("mutate", [by_octets, by_elements])
def test_mutated_messages(mutate: Callable[[bytes, random.Random], bytes]) -> None:
    """Nothing but a whole message or a stated refusal ever comes out, and what is read passes the official schemas."""
    messages, seed, accepted = corpus(), 0, 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or not accepted:
        rng = random.Random(seed)
        octets = mutate(rng.choice(messages), rng)
        received = outcome(octets, Agreement(), seed)
        if received is not None:
            accepted += 1
            for part in etree.fromstring(octets):
                definition = (etree.QName(part).namespace or "").rpartition(":")[2]
                assert APART[definition].validate(part), f"seed {seed}: {APART[definition].error_log}"
            assert received.statements or received.pages or received.undertaking, f"seed {seed}"
        seed += 1
        assert seed < 10_000_000
    assert 0 < accepted < seed


def test_mutated_signed_messages(tmp_path: Path) -> None:
    """A signed message that was changed is refused, unless the change is none in the canonical form: then it says exactly what was signed."""
    bank = identity(tmp_path, "bank")
    agreed = Agreement(pinned=Pinned([bank.fingerprint]))
    signed = {octets: bank.signer.sign(octets) for octets in SEEDED}
    said = {octets: reader.read(octets, SCHEMAS) for octets in SEEDED}
    seed, refused = 0, 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or not refused:
        rng = random.Random(seed)
        plain = rng.choice(SEEDED)
        received = outcome(rng.choice((by_octets, by_elements))(signed[plain], rng), agreed, seed)
        if received is None:
            refused += 1
        else:
            told = received.envelope, received.kind, received.statements
            assert told == (said[plain].envelope, said[plain].kind, said[plain].statements), f"seed {seed}"
        seed += 1
        assert seed < 10_000_000
