"""What is signed: gates, votes, outcomes, with their evidence."""

from __future__ import annotations

import re
from typing import Final

from lockstep.type.v1 import outcome_pb2, signature_pb2
from lockstep_kit import ids, permits, statements
from lockstep_kit.convert.values import (
    count_from_pb,
    enum_from_pb,
    enum_to_pb,
    remembered,
    time_from_pb,
    time_to_pb,
)
from lockstep_kit.fence import Epoch
from lockstep_kit.fields import FieldInvalid, require
from lockstep_kit.keeping import kept
from lockstep_kit.signing import Signature
from lockstep_kit.statements import Gate, OutcomeKind, PromiseKind, Verdict

_PERMIT_VALUE: Final = re.compile(r"[1-9][0-9]{0,77}")
GATES: Final = {
    signature_pb2.GATE_MAKE: Gate.MAKE,
    signature_pb2.GATE_APPROVE: Gate.APPROVE,
    signature_pb2.GATE_RELEASE: Gate.RELEASE,
    signature_pb2.GATE_VALIDATE: Gate.VALIDATE,
    signature_pb2.GATE_CANCEL: Gate.CANCEL,
}
VERDICTS: Final = {signature_pb2.VERDICT_APPROVE: Verdict.APPROVE, signature_pb2.VERDICT_REJECT: Verdict.REJECT}
PROMISES: Final = {
    outcome_pb2.PROMISE_KIND_GUARANTEED: PromiseKind.GUARANTEED,
    outcome_pb2.PROMISE_KIND_BEST_EFFORT: PromiseKind.BEST_EFFORT,
}
OUTCOMES: Final = {
    outcome_pb2.OUTCOME_KIND_DONE: OutcomeKind.DONE,
    outcome_pb2.OUTCOME_KIND_REFUSED: OutcomeKind.REFUSED,
    outcome_pb2.OUTCOME_KIND_RELEASED: OutcomeKind.RELEASED,
    outcome_pb2.OUTCOME_KIND_REVERSED: OutcomeKind.REVERSED,
    outcome_pb2.OUTCOME_KIND_REVERSAL_REFUSED: OutcomeKind.REVERSAL_REFUSED,
}


def signature_from_pb(message: signature_pb2.Signature, field: str = "signature") -> Signature:
    """A signature, its form checked."""
    require(len(message.signature) == 64, f"{field}.signature", "must be 64 bytes")
    return Signature(ids.key_id(message.key_id, f"{field}.key_id"), message.signature)


def signature_to_pb(signature: Signature) -> signature_pb2.Signature:
    """A signature as a message."""
    return signature_pb2.Signature(key_id=signature.key_id, signature=signature.octets)


@remembered(2_048)
def gate_from_pb(message: signature_pb2.GateSignature) -> statements.GateSignature:
    """A person's signed statement, its form checked."""
    require(message.HasField("expire_time"), "expire_time", "must be present")
    statement = statements.GateStatement(
        gate=enum_from_pb(GATES, message.gate, "gate"),
        verdict=enum_from_pb(VERDICTS, message.verdict, "verdict"),
        plan_digest=ids.digest(message.plan_digest, "plan_digest"),
        nonce=message.nonce,
        expires_at=time_from_pb(message.expire_time, "expire_time"),
        votes_digest=ids.digest(message.votes_digest, "votes_digest") if message.votes_digest else None,
        evidence_digest=ids.digest(message.evidence_digest, "evidence_digest") if message.evidence_digest else None,
    )
    statement.check()
    return statements.GateSignature(statement, signature_from_pb(message.signature))


def gate_to_pb(signed: statements.GateSignature) -> signature_pb2.GateSignature:
    """A person's signed statement as a message."""
    return signature_pb2.GateSignature.FromString(gate_octets(signed))


@kept
def gate_octets(signed: statements.GateSignature) -> bytes:
    """A person's signed statement as the bytes of a message."""
    statement = signed.statement
    return signature_pb2.GateSignature(
        gate=enum_to_pb(GATES, statement.gate),
        verdict=enum_to_pb(VERDICTS, statement.verdict),
        plan_digest=statement.plan_digest,
        nonce=statement.nonce,
        expire_time=time_to_pb(statement.expires_at),
        votes_digest=statement.votes_digest or b"",
        evidence_digest=statement.evidence_digest or b"",
        signature=signature_to_pb(signed.signature),
    ).SerializeToString(deterministic=True)


def epoch_from_pb(message: outcome_pb2.Epoch) -> Epoch:
    """A fencing token."""
    require(message.generation >= 1 and message.counter >= 1, "epoch", "must have a generation and a counter of at least 1")
    return Epoch(message.generation, message.counter)


def epoch_to_pb(epoch: Epoch) -> outcome_pb2.Epoch:
    """A fencing token as a message."""
    return outcome_pb2.Epoch(generation=epoch.generation, counter=epoch.counter)


def evidence_from_pb(message: outcome_pb2.Evidence) -> statements.Evidence:
    """Evidence; which place it names is checked by whoever relies on it."""
    match message.WhichOneof("evidence"):
        case "chain":
            return _chain_from_pb(message.chain, "evidence.chain")
        case "bank":
            bank = message.bank
            return statements.BankEvidence(
                bank_bic=bank.bank_bic,
                uetr=bank.uetr,
                status=bank.status,
                message_id=bank.message_id,
                message_sha256=bank.message_sha256,
                booking_reference=bank.booking_reference,
                booking_sha256=bank.booking_sha256,
            )
        case "instrument":
            instrument = message.instrument
            return statements.InstrumentEvidence(
                bank_bic=instrument.bank_bic,
                reference=instrument.reference,
                undertaking_number=instrument.undertaking_number,
                status=instrument.status,
                message_id=instrument.message_id,
                message_sha256=instrument.message_sha256,
                issuance_sha256=instrument.issuance_sha256,
            )
        case "journal":
            journal = message.journal
            entry_count = count_from_pb(journal.entry_count, "evidence.journal.entry_count")
            return statements.JournalEvidence(entry_count, journal.head_hash, journal.sealed)
        case "batch":
            batch = message.batch
            root = _chain_from_pb(batch.root, "evidence.batch.root") if batch.HasField("root") else None
            return statements.BatchEvidence(batch.leaf_hash, root)
        case _:
            raise FieldInvalid("evidence", "must be of a kind that this version knows")


def _chain_from_pb(message: outcome_pb2.ChainEvidence, field: str) -> statements.ChainEvidence:
    return statements.ChainEvidence(
        chain=message.chain,
        contract=message.contract,
        entry_key=message.entry_key,
        entry_status=message.entry_status,
        transaction_hash=message.transaction_hash,
        block_number=count_from_pb(message.block_number, f"{field}.block_number"),
        block_hash=message.block_hash,
    )


def evidence_to_pb(evidence: statements.Evidence) -> outcome_pb2.Evidence:
    """Evidence as a message."""
    match evidence:
        case statements.ChainEvidence():
            return outcome_pb2.Evidence(chain=_chain_to_pb(evidence))
        case statements.BankEvidence():
            return outcome_pb2.Evidence(
                bank=outcome_pb2.BankEvidence(
                    bank_bic=evidence.bank_bic,
                    uetr=evidence.uetr,
                    status=evidence.status,
                    message_id=evidence.message_id,
                    message_sha256=evidence.message_sha256,
                    booking_reference=evidence.booking_reference,
                    booking_sha256=evidence.booking_sha256,
                )
            )
        case statements.InstrumentEvidence():
            return outcome_pb2.Evidence(
                instrument=outcome_pb2.InstrumentEvidence(
                    bank_bic=evidence.bank_bic,
                    reference=evidence.reference,
                    undertaking_number=evidence.undertaking_number,
                    status=evidence.status,
                    message_id=evidence.message_id,
                    message_sha256=evidence.message_sha256,
                    issuance_sha256=evidence.issuance_sha256,
                )
            )
        case statements.JournalEvidence():
            return outcome_pb2.Evidence(
                journal=outcome_pb2.JournalEvidence(
                    entry_count=evidence.entry_count, head_hash=evidence.head_hash, sealed=evidence.sealed
                )
            )
        case statements.BatchEvidence():
            batch = outcome_pb2.BatchEvidence(leaf_hash=evidence.leaf_hash)
            if evidence.root is not None:
                batch.root.CopyFrom(_chain_to_pb(evidence.root))
            return outcome_pb2.Evidence(batch=batch)


def _chain_to_pb(evidence: statements.ChainEvidence) -> outcome_pb2.ChainEvidence:
    return outcome_pb2.ChainEvidence(
        chain=evidence.chain,
        contract=evidence.contract,
        entry_key=evidence.entry_key,
        entry_status=evidence.entry_status,
        transaction_hash=evidence.transaction_hash,
        block_number=evidence.block_number,
        block_hash=evidence.block_hash,
    )


def refusal_from_pb(message: outcome_pb2.Refusal) -> statements.Refusal:
    """A definite refusal."""
    require(message.reason != "", "refusal.reason", "must be present")
    return statements.Refusal(message.reason, message.outside_code, message.detail)


def refusal_to_pb(refusal: statements.Refusal) -> outcome_pb2.Refusal:
    """A definite refusal as a message."""
    return outcome_pb2.Refusal(reason=refusal.reason, outside_code=refusal.outside_code, detail=refusal.detail)


def _promise_from_pb(message: outcome_pb2.Promise) -> statements.Promise:
    return statements.Promise(
        kind=enum_from_pb(PROMISES, message.kind, "promise.kind"),
        expires_at=time_from_pb(message.expire_time, "promise.expire_time") if message.HasField("expire_time") else None,
        evidence=evidence_from_pb(message.evidence) if message.HasField("evidence") else None,
    )


@remembered(2_048)
def vote_from_pb(message: outcome_pb2.SignedVote) -> statements.SignedVote:
    """A participant's vote, its form checked; the signature is checked against a registry."""
    answer: statements.Promise | statements.Refusal
    match message.WhichOneof("vote"):
        case "promise":
            answer = _promise_from_pb(message.promise)
        case "refusal":
            answer = refusal_from_pb(message.refusal)
        case _:
            raise FieldInvalid("vote", "must be a promise or a refusal")
    vote = statements.Vote(
        participant=message.participant,
        plan_id=ids.plan_id(message.plan_id),
        plan_digest=ids.digest(message.plan_digest, "plan_digest"),
        leg_id=ids.leg_id(message.leg_id),
        lock=ids.digest(message.lock, "lock"),
        answer=answer,
        voted_at=time_from_pb(message.vote_time, "vote_time"),
    )
    return statements.SignedVote(vote, signature_from_pb(message.signature))


def vote_to_pb(signed: statements.SignedVote) -> outcome_pb2.SignedVote:
    """A participant's vote as a message."""
    return outcome_pb2.SignedVote.FromString(vote_octets(signed))


@kept
def vote_octets(signed: statements.SignedVote) -> bytes:
    """A participant's vote as the bytes of a message."""
    vote = signed.vote
    message = outcome_pb2.SignedVote(
        participant=vote.participant,
        plan_id=vote.plan_id,
        plan_digest=vote.plan_digest,
        leg_id=vote.leg_id,
        lock=vote.lock,
        vote_time=time_to_pb(vote.voted_at),
        signature=signature_to_pb(signed.signature),
    )
    if isinstance(vote.answer, statements.Refusal):
        message.refusal.CopyFrom(refusal_to_pb(vote.answer))
    else:
        message.promise.kind = enum_to_pb(PROMISES, vote.answer.kind)
        if vote.answer.expires_at is not None:
            message.promise.expire_time.CopyFrom(time_to_pb(vote.answer.expires_at))
        if vote.answer.evidence is not None:
            message.promise.evidence.CopyFrom(evidence_to_pb(vote.answer.evidence))
    return message.SerializeToString(deterministic=True)


@remembered(2_048)
def outcome_from_pb(message: outcome_pb2.SignedOutcome) -> statements.SignedOutcome:
    """A participant's outcome, its form checked; the signature is checked against a registry."""
    outcome = statements.Outcome(
        participant=message.participant,
        plan_id=ids.plan_id(message.plan_id),
        plan_digest=ids.digest(message.plan_digest, "plan_digest"),
        leg_id=ids.leg_id(message.leg_id),
        kind=enum_from_pb(OUTCOMES, message.kind, "kind"),
        evidence=evidence_from_pb(message.evidence) if message.HasField("evidence") else None,
        refusal=refusal_from_pb(message.refusal) if message.HasField("refusal") else None,
        revision=count_from_pb(message.revision, "revision"),
        settled_at=time_from_pb(message.outcome_time, "outcome_time"),
        order=ids.digest(message.order, "order") if message.order else None,
        decision=ids.digest(message.decision, "decision") if message.decision else None,
    )
    return statements.SignedOutcome(outcome, signature_from_pb(message.signature))


def outcome_to_pb(signed: statements.SignedOutcome) -> outcome_pb2.SignedOutcome:
    """A participant's outcome as a message."""
    return outcome_pb2.SignedOutcome.FromString(outcome_octets(signed))


@kept
def outcome_octets(signed: statements.SignedOutcome) -> bytes:
    """A participant's outcome as the bytes of a message."""
    outcome = signed.outcome
    message = outcome_pb2.SignedOutcome(
        participant=outcome.participant,
        plan_id=outcome.plan_id,
        plan_digest=outcome.plan_digest,
        leg_id=outcome.leg_id,
        kind=enum_to_pb(OUTCOMES, outcome.kind),
        revision=outcome.revision,
        outcome_time=time_to_pb(outcome.settled_at),
        order=outcome.order or b"",
        decision=outcome.decision or b"",
        signature=signature_to_pb(signed.signature),
    )
    if outcome.evidence is not None:
        message.evidence.CopyFrom(evidence_to_pb(outcome.evidence))
    if outcome.refusal is not None:
        message.refusal.CopyFrom(refusal_to_pb(outcome.refusal))
    return message.SerializeToString(deterministic=True)


def permit_from_pb(message: signature_pb2.Permit) -> permits.Permit:
    """A payer's allowance by signature.

    Raises:
        FieldInvalid: a form rule is broken.
    """
    require(_PERMIT_VALUE.fullmatch(message.value) is not None, "value", "must be a decimal number above 0 without leading zeros")
    require(int(message.value) <= permits.PERMIT_VALUE_MAX, "value", "must be below 2^256")
    require(message.HasField("deadline"), "deadline", "must be present")
    deadline = time_from_pb(message.deadline, "deadline")
    require(deadline.microsecond == 0 and deadline.timestamp() > 0, "deadline", "must be a time in whole seconds")
    length = permits.PERMIT_SIGNATURE_BYTES
    require(len(message.signature) == length, "signature", f"must be {length} bytes: r, s and v")
    return permits.Permit(int(message.value), deadline, message.signature)


def permit_to_pb(permit: permits.Permit) -> signature_pb2.Permit:
    """A payer's allowance by signature as a message."""
    return signature_pb2.Permit(value=str(permit.value), deadline=time_to_pb(permit.deadline), signature=permit.signature)
