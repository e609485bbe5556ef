"""The checks of gates and of the decision certificate (docs/protocol.md, "Decision certificate"). Pure.

The coordinator runs `check_gate` before it opens a gate; every participant runs `check_commit` and `check_abort` against its own registry before any
effect, so that a compromised coordinator can neither move money alone nor release one leg of a settled plan. Every check either passes or raises
`NotAuthorised` with a named reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from lockstep_kit.ids import ActorId, Digest
from lockstep_kit.keys import opens
from lockstep_kit.plan import Leg, PlanHeader, leg_belongs
from lockstep_kit.registry import Actor, Matrix, Registry
from lockstep_kit.sod import Scope, admits, affords, bounded, scope_of, signatures_needed
from lockstep_kit.statements import (
    Gate,
    GateSignature,
    OutcomeKind,
    Promise,
    SignedOutcome,
    SignedVote,
    Verdict,
    votes_digest,
)
from lockstep_kit.values import dataclass


class Decision(StrEnum):
    """What was decided about a plan."""

    COMMIT = "COMMIT"
    ABORT = "ABORT"
    DELEGATED = "DELEGATED"


class NotAuthorised(Exception):
    """A signature, a gate or a certificate does not allow what is asked.

    Attributes:
        reason: UPPER_SNAKE, docs/errors.md.
        detail: one sentence.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Binding:
    """A leg, bound to its plan."""

    #: Head of the plan.
    header: PlanHeader
    #: The leg.
    leg: Leg
    #: Its place, from 0.
    index: int
    #: Its audit path to legs_root.
    path: tuple[Digest, ...]
    #: SHA-256 of its key.
    lock: Digest

    def check(self) -> None:
        """The leg stands under the head's root.

        Raises:
            NotAuthorised: LEG_NOT_IN_PLAN.
        """
        if not leg_belongs(self.leg, self.index, self.path, self.header):
            raise NotAuthorised("LEG_NOT_IN_PLAN", "the leg's path does not lead to the plan's legs_root")


@dataclass(frozen=True, slots=True)
class Certificate:
    """Why a participant may commit."""

    #: Head of the plan.
    header: PlanHeader
    #: The maker's signature.
    make: GateSignature
    #: The approver's.
    approve: GateSignature
    #: The releaser's, over the votes.
    release: GateSignature
    #: One YES of every leg, in plan order.
    votes: tuple[SignedVote, ...]
    #: COMMIT or DELEGATED.
    decision: Decision
    #: Leg that decides or decided, or "".
    delegated_leg_id: str
    #: The delegated leg's signed Done, once a delegated decision became COMMIT.
    delegated_outcome: SignedOutcome | None
    #: When the release gate opened.
    decided_at: datetime
    #: Other persons' approvals, where the matrix asks for several.
    further_approvals: tuple[GateSignature, ...] = ()
    #: Other persons' releases, over the same votes, where the matrix asks for several.
    further_releases: tuple[GateSignature, ...] = ()

    @property
    def gates(self) -> tuple[tuple[Gate, tuple[GateSignature, ...]], ...]:
        """The gates that it shows, each with everybody who signed there."""
        return (
            (Gate.MAKE, (self.make,)),
            (Gate.APPROVE, (self.approve, *self.further_approvals)),
            (Gate.RELEASE, (self.release, *self.further_releases)),
        )

    @property
    def signatures(self) -> tuple[GateSignature, ...]:
        """Everybody's signature."""
        return tuple(signed for _, signatures in self.gates for signed in signatures)


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Authority to release: the deadline passed."""


#: Outcomes that show that a leg of the plan will never execute, or was undone by an order that its participant checked.
_NEVER_EXECUTES: Final = (OutcomeKind.REFUSED, OutcomeKind.RELEASED, OutcomeKind.REVERSED)

AbortAuthority: TypeAlias = SignedVote | SignedOutcome | GateSignature | DeadlinePassed


def matrix_of(scope: Scope, registry: Registry) -> Matrix:
    """The matrix that the plan names.

    Raises:
        NotAuthorised: SOD_VERSION_UNKNOWN.
    """
    matrix = registry.matrices.get(scope.sod_version)
    if matrix is None:
        raise NotAuthorised("SOD_VERSION_UNKNOWN", f"the registry has no version {scope.sod_version} of the matrix of duties")
    return matrix


def check_gate(signed: GateSignature, gate: Gate, scope: Scope, registry: Registry, moment: datetime) -> Actor:
    """The person who signed this gate of this plan, by a key and a statement that are valid at that moment, and as the plan's matrix allows.

    The role counts always; limits, and where agents may sign, count for what lets the plan go on.

    Raises:
        NotAuthorised: GATE_WRONG, GATE_PLAN_DIGEST, GATE_EXPIRED, GATE_SIGNATURE, SOD_VERSION_UNKNOWN, GATE_ROLE, GATE_AGENT, GATE_LIMIT.
    """
    statement = signed.statement
    if statement.gate is not gate:
        raise NotAuthorised("GATE_WRONG", f"the signature is for the gate {statement.gate}, not {gate}")
    if statement.plan_digest != scope.plan_digest:
        raise NotAuthorised("GATE_PLAN_DIGEST", "the signature is about another plan")
    if moment >= statement.expires_at:
        raise NotAuthorised("GATE_EXPIRED", "the signature's time is over")
    actor = registry.actor_of(signed.signature, statement.signed_bytes(), moment)
    if actor is None:
        raise NotAuthorised("GATE_SIGNATURE", "no registered key that is valid now made this signature")
    rule = matrix_of(scope, registry).gates[gate]
    if not actor.roles & rule.roles:
        raise NotAuthorised("GATE_ROLE", f"{actor.actor_id} has no role that opens the gate {gate}")
    if not bounded(gate, statement.verdict):
        return actor
    if not admits(actor, rule, scope):
        raise NotAuthorised(
            "GATE_AGENT", f"{actor.actor_id} is an agent, and the gate {gate} takes no agent's signature for such a plan"
        )
    if not affords(actor, rule, scope):
        raise NotAuthorised("GATE_LIMIT", f"{actor.actor_id} may not sign the gate {gate} for so much")
    return actor


def check_distinct(actors: Sequence[ActorId]) -> None:
    """Maker, approver, releaser and validator are different persons.

    Raises:
        NotAuthorised: GATE_SAME_PERSON.
    """
    if len(set(actors)) != len(actors):
        raise NotAuthorised("GATE_SAME_PERSON", "one person may not act twice in a plan's gates")


def check_vote(signed: SignedVote, registry: Registry) -> None:
    """The vote is the participant's.

    Raises:
        NotAuthorised: VOTE_SIGNATURE.
    """
    who = registry.participant_of(signed.signature, signed.vote.signed_bytes(), signed.vote.voted_at)
    if who is None or who.name != signed.vote.participant:
        raise NotAuthorised("VOTE_SIGNATURE", f"the vote about leg {signed.vote.leg_id} is not signed by {signed.vote.participant}")


def check_outcome(signed: SignedOutcome, registry: Registry) -> None:
    """The outcome is the participant's.

    Raises:
        NotAuthorised: OUTCOME_SIGNATURE.
    """
    outcome = signed.outcome
    who = registry.participant_of(signed.signature, outcome.signed_bytes(), outcome.settled_at)
    if who is None or who.name != outcome.participant:
        raise NotAuthorised("OUTCOME_SIGNATURE", f"the outcome of leg {outcome.leg_id} is not signed by {outcome.participant}")


def check_prepare(binding: Binding, make: GateSignature, registry: Registry, moment: datetime) -> None:
    """A registered maker asked for the plan, by a matrix that is known and within the maker's limits, and the leg is part of it.

    Raises:
        NotAuthorised: as `Binding.check` and `check_gate`.
    """
    binding.check()
    check_gate(make, Gate.MAKE, scope_of(binding.header, [binding.leg]), registry, moment)
    _check_approves(make)


def check_commit(certificate: Certificate, binding: Binding, key: bytes, participant: str, registry: Registry) -> None:
    """The certificate lets this participant execute this leg. `key` is b"" for evidence legs.

    Signatures, roles and promises count as of `decided_at`.

    Raises:
        NotAuthorised: with the first reason found.
    """
    binding.check()
    scope = scope_of(binding.header, [binding.leg])
    if scope.plan_digest != certificate.header.digest:
        raise NotAuthorised("CERTIFICATE_PLAN_DIGEST", "the certificate is about another plan")
    _check_people(certificate, scope, registry)
    _check_votes(certificate, registry)
    own = certificate.votes[binding.index].vote
    if own.participant != participant or own.leg_id != binding.leg.leg_id or own.lock != binding.lock:
        raise NotAuthorised("CERTIFICATE_OWN_VOTE", "the vote in the certificate is not the one this participant gave for this leg")
    if binding.leg.settling and not opens(key, binding.lock):
        raise NotAuthorised("KEY_WRONG", "the key does not open the leg's lock")
    _check_decision(certificate, binding, registry)


def _check_people(certificate: Certificate, scope: Scope, registry: Registry) -> None:
    """Each gate was opened by as many persons as the matrix asks for, none of whom opened another."""
    matrix = matrix_of(scope, registry)
    people: list[ActorId] = []
    for gate, signatures in certificate.gates:
        for signed in signatures:
            people.append(check_gate(signed, gate, scope, registry, certificate.decided_at).actor_id)
            _check_approves(signed)
        needed = signatures_needed(matrix, gate, scope)
        if len(signatures) < needed:
            raise NotAuthorised(
                "GATE_SIGNATURES", f"the gate {gate} takes {needed} persons' signatures, and {len(signatures)} are there"
            )
    check_distinct(people)
    over = votes_digest(certificate.votes)
    if any(signed.statement.votes_digest != over for signed in (certificate.release, *certificate.further_releases)):
        raise NotAuthorised("CERTIFICATE_VOTES_DIGEST", "the releaser signed over other votes")


def _check_approves(signed: GateSignature) -> None:
    if signed.statement.verdict is not Verdict.APPROVE:
        raise NotAuthorised("GATE_REJECTED", f"the gate {signed.statement.gate} was refused")


def _check_votes(certificate: Certificate, registry: Registry) -> None:
    plan_digest = certificate.header.digest
    if len(certificate.votes) != certificate.header.leg_count:
        raise NotAuthorised("CERTIFICATE_VOTES", "there is not one vote of every leg")
    if len({signed.vote.leg_id for signed in certificate.votes}) != len(certificate.votes):
        raise NotAuthorised("CERTIFICATE_VOTES", "a leg's vote is there twice")
    for signed in certificate.votes:
        if signed.vote.plan_digest != plan_digest:
            raise NotAuthorised("CERTIFICATE_VOTES", f"the vote about leg {signed.vote.leg_id} is about another plan")
        promise = signed.vote.promise
        if promise is None:
            raise NotAuthorised("CERTIFICATE_VOTES", f"the vote about leg {signed.vote.leg_id} is a NO")
        if promise.expires_at is not None and promise.expires_at <= certificate.decided_at:
            raise NotAuthorised("CERTIFICATE_PROMISE_LAPSED", f"the promise about leg {signed.vote.leg_id} had lapsed")
        check_vote(signed, registry)


def _check_decision(certificate: Certificate, binding: Binding, registry: Registry) -> None:
    """The decision reaches this leg: DELEGATED only the delegated one; COMMIT all, with the delegated leg's Done where there was one."""
    if certificate.decided_at > certificate.header.deadline:
        raise NotAuthorised("CERTIFICATE_LATE", "the decision was written after the plan's deadline")
    delegated = certificate.delegated_leg_id
    soft = [signed.vote.leg_id for signed in certificate.votes if _soft(signed)]
    # The votes say which leg that is, so that nobody can delegate the same decision to two.
    if delegated and delegated not in soft[:1]:
        raise NotAuthorised(
            "CERTIFICATE_DELEGATE", "the decision is delegated to a leg that is not the first whose promise can lapse"
        )
    if certificate.decision is Decision.DELEGATED:
        if delegated != binding.leg.leg_id:
            raise NotAuthorised("CERTIFICATE_DECISION", "the decision is delegated to another leg")
        return
    if certificate.decision is not Decision.COMMIT:
        raise NotAuthorised("CERTIFICATE_DECISION", "the decision is not to commit")
    if not delegated:
        if soft and not certificate.header.policy.accept_expiry_risk:
            raise NotAuthorised("CERTIFICATE_DECISION", "a promise can lapse, but the decision was not delegated to its leg")
        return
    done = certificate.delegated_outcome
    if done is None or done.outcome.leg_id != delegated or done.outcome.kind is not OutcomeKind.DONE:
        raise NotAuthorised("CERTIFICATE_DELEGATE", "the delegated leg's signed Done is missing")
    voter = next((signed.vote.participant for signed in certificate.votes if signed.vote.leg_id == delegated), None)
    if done.outcome.plan_digest != binding.header.digest or done.outcome.participant != voter:
        raise NotAuthorised("CERTIFICATE_DELEGATE", "the delegated leg's Done is about another plan or by another participant")
    check_outcome(done, registry)


def _soft(signed: SignedVote) -> bool:
    return isinstance(signed.vote.answer, Promise) and signed.vote.answer.soft


def check_abort(authority: AbortAuthority, binding: Binding, participant: str, registry: Registry, moment: datetime) -> None:
    """The authority lets this participant release this leg at that moment of its own clock.

    A participant knows the plan's head and its own leg alone: who serves another leg it takes from that participant's own signature.

    Raises:
        NotAuthorised: with the first reason found.
    """
    binding.check()
    plan_digest = binding.header.digest
    match authority:
        case DeadlinePassed():
            if moment <= binding.header.deadline:
                raise NotAuthorised("ABORT_DEADLINE", "the plan's deadline has not passed by this participant's clock")
        case SignedVote(vote):
            if vote.plan_digest != plan_digest or vote.plan_id != binding.header.plan_id or vote.promise is not None:
                raise NotAuthorised("ABORT_VOTE", "the vote is about another plan, or no NO")
            if vote.leg_id == binding.leg.leg_id and (vote.participant != participant or vote.lock != binding.lock):
                raise NotAuthorised("ABORT_VOTE", "the vote is about this very leg, and is not this participant's own")
            check_vote(authority, registry)
        case SignedOutcome(outcome):
            about = (outcome.plan_digest, outcome.plan_id) == (plan_digest, binding.header.plan_id)
            if not about or outcome.kind not in _NEVER_EXECUTES:
                raise NotAuthorised("ABORT_OUTCOME", "the outcome is about another plan, or no refusal")
            if outcome.leg_id == binding.leg.leg_id and outcome.participant != participant:
                raise NotAuthorised("ABORT_OUTCOME", "the outcome is about this very leg, and is not this participant's own")
            check_outcome(authority, registry)
        case GateSignature():
            _check_stop(authority, scope_of(binding.header, [binding.leg]), registry, moment)


def _check_stop(signed: GateSignature, scope: Scope, registry: Registry, moment: datetime) -> None:
    """A person refused a gate or cancelled. The statement may have run out since: what it stopped stays stopped."""
    statement = signed.statement
    cancels = statement.gate is Gate.CANCEL and statement.verdict is Verdict.APPROVE
    rejects = statement.gate in (Gate.APPROVE, Gate.RELEASE) and statement.verdict is Verdict.REJECT
    if not cancels and not rejects:
        raise NotAuthorised("ABORT_GATE", "the signature neither cancels the plan nor refuses a gate before the decision")
    check_gate(signed, statement.gate, scope, registry, min(moment, statement.expires_at - datetime.resolution))
