"""Between protobuf and domain for what the client reads. The only module of the client that judges messages field by field."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lockstep.coordinator.v1 import settlement_pb2
from lockstep.journal.v1 import entry_pb2
from lockstep_client.journal_chain import Entry
from lockstep_kit import ids, plan
from lockstep_kit.convert import (
    gate_from_pb,
    header_from_pb,
    leg_from_pb,
    outcome_from_pb,
    signature_from_pb,
    time_from_pb,
    vote_from_pb,
)
from lockstep_kit.fields import require, within
from lockstep_kit.ids import ActorId, Digest
from lockstep_kit.statements import GateSignature, SignedOutcome, SignedVote


@dataclass(frozen=True, slots=True)
class LegView:
    """A leg as the coordinator shows it; nothing here is believed before it is checked."""

    #: The leg.
    leg: plan.Leg
    #: Its lock.
    lock: Digest
    #: Participant that is said to serve it.
    participant: str
    #: Its vote, once given.
    vote: SignedVote | None
    #: Its outcome, once given.
    outcome: SignedOutcome | None


@dataclass(frozen=True, slots=True)
class GateView:
    """A gate as the coordinator shows it."""

    #: What was signed.
    signed: GateSignature
    #: Who is said to have signed.
    actor_id: ActorId
    #: When it was accepted.
    signed_at: datetime


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan as the coordinator shows it; nothing here is believed before it is checked."""

    #: Its head.
    header: plan.PlanHeader
    #: Its legs, in plan order.
    legs: tuple[LegView, ...]
    #: What is said to be the head's digest.
    plan_digest: Digest
    #: Name of its state, as docs/protocol.md writes it.
    state: str
    #: Gates so far.
    gates: tuple[GateView, ...]
    #: What is said to be the digest over the votes.
    votes_digest: Digest | None
    #: What is said to be the digest over the settling legs' outcomes.
    evidence_digest: Digest | None
    #: Journal events so far.
    journal_sequence: int


def state_name(state: settlement_pb2.PlanState.ValueType) -> str:
    """A state as docs/protocol.md writes it; a number that this version does not know is shown as such."""
    if state not in settlement_pb2.PlanState.values():
        return f"STATE_{state}"
    return settlement_pb2.PlanState.Name(state).removeprefix("PLAN_STATE_")


def plan_from_pb(message: settlement_pb2.Plan) -> PlanView:
    """A plan, its form checked.

    Raises:
        FieldInvalid: a field is absent or has another form.
    """
    with within("plan"):
        require(message.HasField("header"), "header", "must be present")
        with within("header"):
            header = header_from_pb(message.header)
        return PlanView(
            header=header,
            legs=tuple(_leg(each, header, index) for index, each in enumerate(message.legs)),
            plan_digest=ids.digest(message.plan_digest, "plan_digest"),
            state=state_name(message.state),
            gates=tuple(_gate(each, index) for index, each in enumerate(message.gates)),
            votes_digest=ids.digest(message.votes_digest, "votes_digest") if message.votes_digest else None,
            evidence_digest=ids.digest(message.evidence_digest, "evidence_digest") if message.evidence_digest else None,
            journal_sequence=message.journal_sequence,
        )


def _leg(message: settlement_pb2.PlanLeg, header: plan.PlanHeader, index: int) -> LegView:
    with within(f"legs[{index}]"):
        return LegView(
            leg=leg_from_pb(message.leg, header),
            lock=ids.digest(message.lock, "lock"),
            participant=message.participant,
            vote=vote_from_pb(message.vote) if message.HasField("vote") else None,
            outcome=outcome_from_pb(message.outcome) if message.HasField("outcome") else None,
        )


def _gate(message: settlement_pb2.GateRecord, index: int) -> GateView:
    with within(f"gates[{index}]"):
        return GateView(gate_from_pb(message.signature), ActorId(message.actor_id), time_from_pb(message.sign_time, "sign_time"))


def entry_from_pb(message: entry_pb2.Entry) -> Entry:
    """An entry of the journal, its form checked.

    Raises:
        FieldInvalid: a field has another form.
    """
    with within(f"entries[{message.sequence}]"):
        return Entry(
            plan_id=ids.plan_id(message.plan_id),
            sequence=message.sequence,
            event_id=message.event_id,
            type=message.type,
            actor=message.actor,
            actor_role=message.actor_role,
            event_time=time_from_pb(message.event_time, "event_time"),
            payload=message.payload,
            payload_hash=ids.digest(message.payload_hash, "payload_hash"),
            previous_hash=ids.digest(message.previous_hash, "previous_hash"),
            entry_hash=ids.digest(message.entry_hash, "entry_hash"),
            canonical_bytes=message.canonical_bytes,
            signature=signature_from_pb(message.signature),
        )
