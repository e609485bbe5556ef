"""I6: maker, approver, releaser and validator are four registered persons with the right roles, shown by their signatures alone. Pure.

The signatures are read three times over: from the coordinator's rows, from the certificates by which participants executed, and from the journal's
entries. Each has to hold by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime

from lockstep.type.v1 import certificate_pb2
from lockstep_client.journal_chain import Entry
from lockstep_kit.canonical import time_text
from lockstep_kit.certificate import NotAuthorised, check_distinct, check_gate
from lockstep_kit.convert import certificate_from_pb
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import ActorId
from lockstep_kit.registry import Registry
from lockstep_kit.sod import Scope, scope_of, signatures_needed
from lockstep_kit.statements import Gate, GateSignature, Verdict
from lockstep_testkit.checker.evidence import Effect, Evidence, PlanRow, Violation
from lockstep_testkit.checker.journalling import document

#: Gates that one person may sign only one of.
DISTINCT = (Gate.MAKE, Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE)
_RELEASED = (Gate.MAKE, Gate.APPROVE, Gate.RELEASE)


def check_duties(evidence: Evidence) -> Iterator[Violation]:
    """Every gate that was opened by nobody, by the wrong person, or by one person twice."""
    for plan in evidence.judged_plans:
        for sentence in _plan(evidence.registry, plan, executed=_executed(evidence, plan)):
            yield Violation("I6", plan.plan_id, "", sentence)
        for sentence in _journalled(plan, evidence.chains.get(plan.plan_id, ())):
            yield Violation("I6", plan.plan_id, "", sentence)
    for name, row in evidence.judged_rows:
        if row.certificate is not None:
            for sentence in _certificate(evidence, row.plan_id, row.certificate):
                yield Violation("I6", row.plan_id, row.leg_id, f"{name}: {sentence}")


def _executed(evidence: Evidence, plan: PlanRow) -> bool:
    return any(evidence.effect(plan, leg) in (Effect.EXECUTED, Effect.REVERSED) for leg in plan.settling)


def _plan(registry: Registry, plan: PlanRow, *, executed: bool) -> Iterator[str]:
    approved = [(signed, at) for signed, at in plan.gates if signed.statement.verdict is Verdict.APPROVE]
    needed = set(_RELEASED) if executed else {Gate.MAKE}
    if plan.outcome == "COMMITTED":
        needed |= set(DISTINCT)
    yield from _signers(registry, scope_of(plan.header, plan.legs), approved, needed)


def _certificate(evidence: Evidence, plan_id: str, octets: bytes) -> Iterator[str]:
    try:
        certificate = certificate_from_pb(certificate_pb2.DecisionCertificate.FromString(octets))
    except FieldInvalid as finding:
        yield f"the certificate cannot be read: {finding}"
        return
    if any(signed.statement.gate is not gate for gate, signatures in certificate.gates for signed in signatures):
        yield "the certificate's gates are not those of maker, approver and releaser"
    # The whole plan's, where the coordinator has it; else what the head alone says.
    legs = next((plan.legs for plan in evidence.judged_plans if plan.plan_id == plan_id), ())
    gates = [(each, certificate.decided_at) for each in certificate.signatures]
    yield from _signers(evidence.registry, scope_of(certificate.header, legs), gates, _RELEASED)


def _signers(
    registry: Registry, scope: Scope, gates: Iterable[tuple[GateSignature, datetime]], needed: Collection[Gate]
) -> Iterator[str]:
    """What is wrong with who signed what: gates that are needed are signed by as many persons as the plan's matrix asks for."""
    people: dict[Gate, set[ActorId]] = {}
    refused: set[Gate] = set()
    for signed, at in gates:
        gate = signed.statement.gate
        try:
            actor = check_gate(signed, gate, scope, registry, at)
        except NotAuthorised as refusal:
            yield f"the gate {gate} was opened by a signature that does not hold: {refusal}"
            refused.add(gate)
            continue
        people.setdefault(gate, set()).add(actor.actor_id)
    # The same person may sign the same gate again, as when evidence was sent back; never another.
    try:
        check_distinct([actor for gate in DISTINCT for actor in sorted(people.get(gate, ()))])
    except NotAuthorised as refusal:
        yield str(refusal)
    matrix = registry.matrices.get(scope.sod_version)
    for gate in sorted(set(needed) - refused):
        if gate not in people:
            yield f"the plan went on without the gate {gate}"
        elif matrix is not None and len(people[gate]) < signatures_needed(matrix, gate, scope):
            yield f"the plan went on with fewer persons' signatures than the gate {gate} takes"


def _journalled(plan: PlanRow, chain: Sequence[Entry]) -> Iterator[str]:
    """The gates in the journal are signatures that the coordinator has."""
    known = {
        (
            signed.statement.gate.value,
            time_text(signed.statement.expires_at),
            signed.signature.key_id,
            signed.signature.octets.hex(),
        )
        for signed, _ in plan.gates
    }
    for entry in chain:
        gate = document(entry).get("gate")
        if gate is not None and (gate["gate"], gate["expires_at"], gate["key_id"], gate["signature"]) not in known:
            yield f"entry {entry.sequence} carries a signature for the gate {gate['gate']} that the coordinator does not have"
