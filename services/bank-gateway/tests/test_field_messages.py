"""Messages as the field may send them: random valid instances of the official schemas. Each is read as a whole, or refused for a stated reason."""

from __future__ import annotations

import collections
import random
import re

import pytest
from bank_samples import SCHEMAS
from lxml import etree
from schema_samples import PREFIX, Samples, matching

from bank_gateway.iso20022.reader import TAKEN, read
from bank_gateway.messages import Booking, Kind, PaymentReturn, Received
from lockstep_kit.fields import FieldInvalid

MESSAGES = 100
#: Kinds that any bank may use as it likes; of the others the rail agreed on less than their schemas allow, and what goes beyond that is refused.
FREE = (Kind.STATUS, Kind.RESOLUTION, Kind.BOOKING, Kind.RETURN)
AGREED = tuple(kind for kind in TAKEN if kind not in FREE)


def tried(octets: bytes) -> Received | FieldInvalid:
    try:
        return read(octets, SCHEMAS)
    except FieldInvalid as finding:
        return finding


def all_of(root: etree._Element, name: str) -> list[etree._Element]:
    return [each for each in root.iter() if etree.QName(each).localname == name]


def require_whole(octets: bytes, received: Received) -> None:
    """What was read is what is there, found by names alone."""
    root = etree.fromstring(octets)
    match received.kind:
        case Kind.STATUS:
            items = all_of(root, "TxInfAndSts")
            told = {name.text for item in items for name in all_of(item, "OrgnlUETR")}
            assert {said.uetr for said in received.statements} - {""} == told
            assert len(received.statements) >= len(items)
        case Kind.RESOLUTION:
            # Those inside OrgnlPmtInfAndSts are about customers' initiations.
            items = [
                item for details in all_of(root, "CxlDtls") for item in details if etree.QName(item).localname == "TxInfAndSts"
            ]
            assert len(received.statements) == len(items)
        case Kind.BOOKING:
            entries = [entry for report in all_of(root, "Ntfctn") for entry in report if etree.QName(entry).localname == "Ntry"]
            # An entry that tells nothing of its payments is told by itself.
            told_by = [(entry, item) for entry in entries for item in (all_of(entry, "TxDtls") or [entry])]
            assert len(received.statements) == len(told_by)
            for said, (entry, item) in zip(received.statements, told_by, strict=True):
                amount = next(each for where in (item, entry) for each in where if etree.QName(each).localname == "Amt")
                assert isinstance(said, Booking)
                assert (said.amount.asset, float(said.amount.text())) == (amount.get("Ccy"), float(amount.text or ""))
        case Kind.RETURN:
            items = [item for item in root[1][0] if etree.QName(item).localname == "TxInf"]
            for said, item in zip(received.statements, items, strict=True):
                assert isinstance(said, PaymentReturn)
                (amount,) = [each for each in item if etree.QName(each).localname == "RtrdIntrBkSttlmAmt"]
                assert (said.amount.asset, float(said.amount.text())) == (amount.get("Ccy"), float(amount.text or ""))
        case _:
            pass


@pytest.mark.parametrize("kind", sorted(FREE))
@pytest.mark.parametrize("plenty", [0.05, 0.2, 0.4])
def test_sound_messages_are_read(kind: Kind, plenty: float) -> None:
    """Valid messages with right checksums, offsets and currencies are read with everything that they say; those that are not say why."""
    samples, refused = Samples(kind.value), collections.Counter[str]()
    read_count = 0
    for seed in range(MESSAGES):
        octets = samples.message(random.Random(seed), plenty=plenty)
        SCHEMAS.require_valid(etree.fromstring(octets)[1])
        result = tried(octets)
        if isinstance(result, Received):
            read_count += 1
            require_whole(octets, result)
        else:
            refused[f"{result.field} {result.rule}"] += 1
    # Nothing but these may be refused of messages that are sound: a message about no payment, one that contradicts itself, a group that says nothing.
    stated = ("Document must say something about a payment", "TxInfAndSts/TxSts must be RJCT", "RtrId must be present")
    assert all(reason.startswith(stated) for reason in refused), refused
    assert read_count + sum(refused.values()) == MESSAGES
    assert read_count > MESSAGES / 3, refused


@pytest.mark.parametrize("kind", sorted(AGREED))
@pytest.mark.parametrize("plenty", [0.05, 0.2, 0.4])
def test_messages_beyond_what_is_agreed_are_refused_by_name(kind: Kind, plenty: float) -> None:
    """Valid messages of kinds of which less is agreed than the schemas allow: each is read, or refused by its field and a rule, and never anything else."""
    samples, outcomes = Samples(kind.value), collections.Counter[str]()
    for seed in range(MESSAGES):
        octets = samples.message(random.Random(seed), plenty=plenty)
        SCHEMAS.require_valid(etree.fromstring(octets)[1])
        result = tried(octets)
        outcomes["read" if isinstance(result, Received) else f"{result.field}: {result.rule}"] += 1
    assert all(outcome == "read" or re.match(r".+: must ", outcome) for outcome in outcomes), outcomes


@pytest.mark.parametrize("kind", sorted(TAKEN))
def test_valid_messages_are_read_or_refused_for_a_reason(kind: Kind) -> None:
    """Valid by the schema alone: whatever checksum, currency, offset, count or sum is wrong, the refusal names a field and a rule, and no value."""
    samples, fields = Samples(kind.value), collections.Counter[str]()
    for seed in range(MESSAGES):
        octets = samples.message(random.Random(seed), sound=False, plenty=0.3)
        result = tried(octets)
        if isinstance(result, FieldInvalid):
            assert result.rule.startswith("must ")
            assert result.field
            fields[result.field] += 1
    assert sum(fields.values()) > 0


@pytest.mark.parametrize(
    "pattern", ["[A-Z]{2,2}[0-9]{2,2}[a-zA-Z0-9]{1,30}", "DUM|[BEOVW]{1,1}[0-9]{2,2}", r"\+[0-9]{1,3}-[0-9()+\-]{1,30}"]
)
def test_generator_meets_patterns(pattern: str) -> None:
    """The texts that stand in the messages match the schemas' patterns."""
    for seed in range(50):
        text = matching(pattern, random.Random(seed))
        assert re.fullmatch(pattern, text)


def test_namespace_is_the_official_one() -> None:
    """The generator writes what the reader takes."""
    assert f"{PREFIX}{Kind.STATUS.value}" in Samples(Kind.STATUS.value).message(random.Random(0)).decode()
