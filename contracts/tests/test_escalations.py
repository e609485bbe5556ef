"""Records of escalations in the notary's registry, against a real node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from contracts_world import Reverted, World, address
from eth_utils.crypto import keccak

from lockstep_contracts import EscalationKind, EscalationRecord, decode_error, gas
from lockstep_contracts import notary as calls
from lockstep_contracts.events import EscalationRecorded, Skipped

PLAN = keccak(text="plan")


def opened(number: int) -> EscalationRecord:
    return EscalationRecord(PLAN, keccak(text=f"escalation {number}"), EscalationKind.OPENED, keccak(text=f"opened {number}"))


def resolved(number: int) -> EscalationRecord:
    return replace(opened(number), kind=EscalationKind.RESOLVED, document_hash=keccak(text=f"resolved {number}"))


def said(record: EscalationRecord) -> EscalationRecorded:
    return EscalationRecorded(record.plan_digest, record.escalation, record.kind, record.document_hash)


def known(world: World, *records: EscalationRecord) -> list[calls.KnownEscalation]:
    answer = world.chain.call(world.registry, calls.encode_escalation_of_many([each.escalation for each in records]))
    return list(calls.decode_escalation_of_many(answer))


def refusals(world: World, records: list[EscalationRecord]) -> list[tuple[bytes, str]]:
    events = world.notarise(calls.encode_record_escalations(records)).events
    return [(event.key, error.name) for event in events if isinstance(event, Skipped) and (error := decode_error(event.reason))]


def test_opened_then_resolved(world: World) -> None:
    """An escalation is opened once and resolved once; both can be repeated in silence, and the plan and both hashes are known."""
    for record, after in ((opened(1), b""), (resolved(1), resolved(1).document_hash)):
        assert world.notarise(calls.encode_record_escalations([record])).events == (said(record),)
        assert world.notarise(calls.encode_record_escalations([record])).events == ()
        assert known(world, record) == [calls.KnownEscalation(PLAN, opened(1).document_hash, after)]
    assert known(world, opened(2)) == [calls.KnownEscalation(b"", b"", b"")]


def test_both_in_one_batch(world: World) -> None:
    """Items are judged one after another, each as the one before left it."""
    events = world.notarise(calls.encode_record_escalations([opened(1), resolved(1)])).events
    assert events == (said(opened(1)), said(resolved(1)))


@pytest.mark.parametrize("record", [opened(1), resolved(1)])
def test_the_first_word_is_the_only_one(world: World, record: EscalationRecord) -> None:
    """Another hash for the same escalation and kind, or another plan, is skipped by name, and changes nothing."""
    world.notarise(calls.encode_record_escalations([opened(1), resolved(1)]))
    others = [replace(record, document_hash=keccak(text="other")), replace(record, plan_digest=keccak(text="other"))]
    assert refusals(world, [*others, record]) == [(record.key, "EscalationConflict")] * 2
    assert known(world, record) == [calls.KnownEscalation(PLAN, opened(1).document_hash, resolved(1).document_hash)]


def test_another_plan_cannot_resolve_it(world: World) -> None:
    """The plan that an escalation is about is said when it is opened."""
    world.notarise(calls.encode_record_escalations([opened(1)]))
    assert refusals(world, [replace(resolved(1), plan_digest=keccak(text="other"))]) == [(resolved(1).key, "EscalationConflict")]
    assert known(world, opened(1))[0].resolved == b""


def test_batches_skip_what_cannot_be(world: World) -> None:
    """What was never opened is not resolved, and takes no other down."""
    events = world.notarise(calls.encode_record_escalations([resolved(1), opened(2)])).events
    assert [type(event) for event in events] == [Skipped, EscalationRecorded]
    assert isinstance(events[0], Skipped)
    error = decode_error(events[0].reason)
    assert error is not None
    assert (events[0].key, error.name) == (resolved(1).key, "EscalationUnopened")
    assert known(world, opened(1), opened(2))[0].resolved == b""


def test_nothing_is_said_of_nothing(world: World) -> None:
    """No kind, or no hash: skipped; a kind that the contract does not know is refused as a whole."""
    for kind, document in ((0, keccak(text="document")), (1, bytes(32))):
        calldata = calls.RECORD_ESCALATIONS.encode([(PLAN, opened(1).escalation, kind, document)])
        (event,) = world.notarise(calldata).events
        assert isinstance(event, Skipped)
        error = decode_error(event.reason)
        assert error is not None
        assert error.name == "EscalationInvalid"
    with pytest.raises(Reverted):
        world.notarise(calls.RECORD_ESCALATIONS.encode([(PLAN, opened(1).escalation, 3, PLAN)]))
    assert known(world, opened(1))[0].opened == b""


@pytest.mark.parametrize("change", [{"plan_digest": b"x"}, {"escalation": bytes(31)}, {"document_hash": bytes(32)}])
def test_what_cannot_be_encoded_cannot_exist(change: dict[str, Any]) -> None:
    """One such record would make a whole batch undecodable, or could never be recorded."""
    with pytest.raises(ValueError, match=r"32 bytes|not zero"):
        replace(opened(1), **change)


def test_the_operator_s_role_is_needed(world: World) -> None:
    """Nobody else records, also not the admin."""
    for person in (world.admin, world.arbiter, address("stranger")):
        with pytest.raises(Reverted, match="AccessControlUnauthorizedAccount"):
            world.chain.call(world.registry, calls.encode_record_escalations([opened(1)]), sender=person)


def test_the_largest_batch_fits(world: World) -> None:
    """As many records as the package says fit under the gas of one transaction and 64 KiB, and each is recorded."""
    batch = [opened(number) for number in range(gas.ESCALATIONS_MAX)]
    calldata, limit = calls.encode_record_escalations(batch), gas.escalation_gas(len(batch))
    assert limit <= gas.TRANSACTION_GAS_MAX
    assert len(calldata) <= 65_536
    events = world.chain.send(world.operator, world.registry, calldata, gas=limit).events
    assert [type(event) for event in events] == [EscalationRecorded] * len(batch)
