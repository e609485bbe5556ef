"""What follows from a value is worked out once, and never outlives a change of the value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Any

import pytest

from lockstep_kit import convert
from lockstep_kit.canonical import digest_of
from lockstep_kit.ids import sha256
from lockstep_kit.keeping import kept
from lockstep_kit.signing import Signature
from lockstep_kit.statements import Gate, evidence_digest, votes_digest
from lockstep_testkit.factories import delivery_versus_payment


@dataclass(frozen=True)
class Pair:
    one: int
    other: int


def test_it_is_worked_out_once_for_each_value() -> None:
    """Once for a value, anew for another one that is equal, and for one that was made from it."""
    worked: list[Pair] = []

    @kept
    def total(pair: Pair) -> int:
        worked.append(pair)
        return pair.one + pair.other

    first = Pair(1, 2)
    changed = replace(first, other=5)
    assert [total(first), total(first), total(changed), total(Pair(1, 2)), total(first)] == [3, 3, 6, 3, 3]
    assert worked == [first, changed, Pair(1, 2)]


def test_what_is_kept_is_no_part_of_the_value() -> None:
    """Equality, hash, text and fields are as before, two functions of one value keep apart, and the value cannot be changed."""

    @kept
    def sign(pair: Pair) -> int:
        return -pair.one

    @kept
    def double(pair: Pair) -> int:
        return 2 * pair.one

    value, fresh = Pair(1, 2), Pair(1, 2)
    assert (sign(value), double(value), sign(value)) == (-1, 2, -1)
    assert (value, hash(value), repr(value)) == (fresh, hash(fresh), repr(fresh))
    assert [each.name for each in fields(value)] == ["one", "other"]
    with pytest.raises(FrozenInstanceError):
        value.one = 3  # type: ignore[misc]


def test_what_is_signed_follows_every_change() -> None:
    """A statement that differs in anything has other bytes to sign and to keep, although those of the first were worked out before."""
    plan = delivery_versus_payment()
    signed = plan.gate(Gate.APPROVE)
    before = (signed.statement.signed_bytes(), convert.gate_octets(signed), plan.header.digest, plan.legs[0].leaf)
    other = replace(signed, statement=replace(signed.statement, nonce=bytes(16)))
    header, leg = replace(plan.header, reference="another"), replace(plan.legs[0], salt=bytes(16))
    after = (other.statement.signed_bytes(), convert.gate_octets(other), header.digest, leg.leaf)
    assert all(first != second for first, second in zip(before, after, strict=True))
    assert before == (signed.statement.signed_bytes(), convert.gate_octets(signed), plan.header.digest, plan.legs[0].leaf)


def test_a_message_is_its_readers() -> None:
    """What one reader does to a message is not seen by the next."""
    plan = delivery_versus_payment()
    vote = plan.certificate().votes[0]
    shown: list[tuple[Callable[[Any], Any], object]] = [
        (convert.header_to_pb, plan.header),
        (convert.leg_to_pb, plan.legs[0]),
        (convert.vote_to_pb, vote),
    ]
    for show, value in shown:
        message = show(value)
        message.Clear()
        assert show(value) != message


def test_digests_over_statements_are_those_of_their_documents() -> None:
    """Votes and outcomes are hashed as the array of what names each of them (docs/protocol.md)."""
    certificate = delivery_versus_payment().certificate()

    def named(signed_bytes: bytes, signature: Signature) -> dict[str, str]:
        return {
            "statement": sha256(signed_bytes).hex(),
            "key_id": signature.key_id,
            "signature": signature.octets.hex(),
        }

    for votes in ((), certificate.votes[:1], certificate.votes):
        assert votes_digest(votes) == digest_of([named(each.vote.signed_bytes(), each.signature) for each in votes])
    assert evidence_digest([]) == digest_of([])
