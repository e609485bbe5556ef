"""Between protobuf and domain for what the client reads. The only module of the client that judges messages field by field."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from lockstep.coordinator.v1 import settlement_pb2, settlement_service_pb2
from lockstep.journal.v1 import entry_pb2
from lockstep_client.journal_chain import Entry
from lockstep_kit import ids, plan
from lockstep_kit.convert import (
    evidence_from_pb,
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
from lockstep_kit.statements import Evidence, GateSignature, SignedOutcome, SignedVote
from lockstep_kit.values import dataclass

_STATES: Final = {number: name.removeprefix("PLAN_STATE_") for name, number in settlement_pb2.PlanState.items()}


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
    #: What two operators are said to have shown in place of its participant's answer, where they say that it took effect.
    operators_evidence: Evidence | None = None

    @property
    def evidence(self) -> Evidence | None:
        """Where its effect can be looked up: as its participant signed, else as operators showed."""
        return self.operators_evidence if self.outcome is None else self.outcome.outcome.evidence


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


@dataclass(frozen=True, slots=True)
class AuditView:
    """An abort audit log as the coordinator shows it; nothing here is believed before it is checked."""

    #: Its bytes.
    octets: bytes
    #: What the coordinator says that their hash is.
    digest: Digest
    #: Logs of the plan's earlier ends.
    earlier: tuple[Digest, ...]
    #: INTACT, MISSING or CORRUPT.
    copy: str
    #: The notary's signed outcomes.
    notarisations: tuple[SignedOutcome, ...]


def state_name(state: settlement_pb2.PlanState.ValueType) -> str:
    """A state as docs/protocol.md writes it; a number that this version does not know is shown as such."""
    return _STATES.get(state, f"STATE_{state}")


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
            operators_evidence=evidence_from_pb(message.operators_evidence) if message.operators_executed else None,
        )


def _gate(message: settlement_pb2.GateRecord, index: int) -> GateView:
    with within(f"gates[{index}]"):
        return GateView(gate_from_pb(message.signature), ActorId(message.actor_id), time_from_pb(message.sign_time, "sign_time"))


def audit_from_pb(message: settlement_service_pb2.GetAbortAuditLogResponse) -> AuditView:
    """An abort audit log, its message's form checked.

    Raises:
        FieldInvalid: a field has another form.
    """
    with within("audit_log"):
        return AuditView(
            octets=message.log,
            digest=ids.digest(message.sha256, "sha256"),
            earlier=tuple(ids.digest(each, "earlier_sha256") for each in message.earlier_sha256),
            copy=settlement_service_pb2.AuditCopyState.Name(message.copy).removeprefix("AUDIT_COPY_STATE_")
            if message.copy in settlement_service_pb2.AuditCopyState.values()
            else str(message.copy),
            notarisations=tuple(outcome_from_pb(each) for each in message.notarisations),
        )


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
            erased=message.erased,
        )
