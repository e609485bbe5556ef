"""Gates: who may sign what, and when; and that a decision is one that participants would follow."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator import gates
from coordinator.certificates import assemble, check_release
from coordinator.dossier import Dossier, LegFile, new_plan
from coordinator.model import GateRecord, LegState, Limits, Order, State
from coordinator.participants import Routes
from coordinator.waiting import WaitingKind, waiting
from lockstep_kit.certificate import Decision, NotAuthorised, check_commit
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId
from lockstep_kit.registry import Role
from lockstep_kit.statements import Gate, GateSignature, Promise, PromiseKind, SignedVote, Verdict
from lockstep_testkit.factories import PARTICIPANTS, PEOPLE, SIGNERS, PlanCase, delivery_versus_payment, registry_of

NOW = datetime.now(UTC)
#: Everybody with one role, and one person with all.
EVERYBODY = {name: (role,) for name, role in PEOPLE.items()} | {
    "alice": tuple(Role),
    "ivan": (Role.APPROVER, Role.RELEASER),
}
REGISTRY = registry_of(EVERYBODY)
ROUTES = Routes(PARTICIPANTS)


def dossier_of(plan: PlanCase, state: State, *signed: Gate, votes: tuple[SignedVote, ...] = (), frozen: str = "") -> Dossier:
    """The plan in a state, with its votes, and gates signed by whom they should be."""
    given = {each.vote.leg_id: each for each in votes or plan.votes()}
    legs = tuple(
        LegState(
            leg.leg_id, leg.kind, leg.depends_on, Order.PREPARE, NOW, Phase.PREPARED, 2, given[leg.leg_id], plan.outcome(leg.leg_id)
        )
        for leg in plan.legs
    )
    records = tuple(
        GateRecord(plan.gate(each, votes=list(given.values()) if each is Gate.RELEASE else None), ActorId(SIGNERS[each]), NOW)
        for each in (Gate.MAKE, *signed)
    )
    made = replace(new_plan(plan.header, plan.legs), state=state, legs=legs, gates=records, since=NOW)
    files = tuple(LegFile(leg, ROUTES.of(leg.kind), plan.lock(leg.leg_id)) for leg in plan.legs)
    return Dossier(made, plan.header, files, (), 1, NOW, NOW, None, frozen)


def votes_of(dossier: Dossier) -> list[SignedVote]:
    return [each.vote for each in dossier.plan.legs if each.vote is not None]


def refusal(dossier: Dossier, signed: GateSignature, moment: datetime = NOW) -> str:
    try:
        gates.admit(dossier, signed, REGISTRY, moment)
    except NotAuthorised as refused:
        return refused.reason
    return ""


@pytest.fixture
def plan() -> PlanCase:
    return delivery_versus_payment()


@pytest.mark.parametrize("state", list(State))
def test_states(plan: PlanCase, state: State) -> None:
    """Each gate is taken in its states and in no other."""
    for gate in (Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE, Gate.CANCEL):
        for verdict in Verdict:
            dossier = dossier_of(plan, state)
            outcomes = [each.outcome for each in dossier.plan.legs if each.outcome is not None and each.kind.settling]
            signed = plan.gate(
                gate,
                verdict=verdict,
                votes=votes_of(dossier) if gate is Gate.RELEASE else None,
                outcomes=outcomes if gate is Gate.VALIDATE else None,
            )
            found = refusal(dossier, signed)
            if (gate, verdict) not in gates.STATES:
                assert found == "GATE_WRONG"
            elif state in gates.STATES[gate, verdict]:
                assert found == ""
            else:
                assert found == "PLAN_STATE"


def test_refusals(plan: PlanCase) -> None:
    """Wrong role, unknown signer, another plan's signature, an expired one: each is refused by name."""
    dossier = dossier_of(plan, State.READY_FOR_PREPARE)
    other = delivery_versus_payment()
    assert refusal(dossier, plan.gate(Gate.APPROVE, "dave")) == "GATE_ROLE"
    assert refusal(dossier, plan.gate(Gate.APPROVE, "mallory")) == "GATE_SIGNATURE"
    assert refusal(dossier, other.gate(Gate.APPROVE)) == "GATE_PLAN_DIGEST"
    assert refusal(dossier, plan.gate(Gate.APPROVE, expires_at=NOW)) == "GATE_EXPIRED"
    forged = plan.gate(Gate.APPROVE)
    forged = replace(forged, statement=replace(forged.statement, nonce=bytes(16)))
    assert refusal(dossier, forged) == "GATE_SIGNATURE"
    assert refusal(dossier, plan.gate(Gate.APPROVE)) == ""


def test_people_are_distinct(plan: PlanCase) -> None:
    """Neither the maker nor anyone who signed another gate can sign; a plan's maker may still cancel it."""
    dossier = dossier_of(plan, State.READY_FOR_PREPARE)
    assert refusal(dossier, plan.gate(Gate.APPROVE, "alice")) == "GATE_SAME_PERSON"
    assert refusal(dossier, plan.gate(Gate.CANCEL, "alice")) == ""
    prepared = dossier_of(plan, State.PREPARED)
    by_ivan = GateRecord(plan.gate(Gate.APPROVE, "ivan"), ActorId("ivan"), NOW)
    prepared = replace(prepared, plan=replace(prepared.plan, gates=(*prepared.plan.gates, by_ivan)))
    assert refusal(prepared, plan.gate(Gate.RELEASE, "ivan", votes=votes_of(prepared))) == "GATE_SAME_PERSON"
    assert refusal(prepared, plan.gate(Gate.RELEASE, "carol", votes=votes_of(prepared))) == ""


def test_an_open_gate_is_not_signed_again(plan: PlanCase) -> None:
    """But an approval that has run out is, by the same person or another."""
    dossier = dossier_of(plan, State.READY_FOR_PREPARE, Gate.APPROVE)
    assert refusal(dossier, plan.gate(Gate.APPROVE, "ivan")) == "GATE_ALREADY_OPEN"
    later = dossier.header.deadline
    again = plan.gate(Gate.APPROVE, expires_at=later + timedelta(hours=1))
    assert refusal(dossier, again, later) == ""


def test_digests(plan: PlanCase) -> None:
    """The releaser signs over the very votes, the validator over the very outcomes."""
    dossier = dossier_of(plan, State.PREPARED)
    assert refusal(dossier, plan.gate(Gate.RELEASE, votes=votes_of(dossier)[:-1])) == "GATE_VOTES_DIGEST"
    validating = dossier_of(plan, State.VALIDATING)
    assert refusal(validating, plan.gate(Gate.VALIDATE, outcomes=[plan.outcome("cash")])) == "GATE_EVIDENCE_DIGEST"


def test_a_frozen_plan_is_not_released(plan: PlanCase) -> None:
    """A plan whose journal has other events must not be decided; refusing it is still possible."""
    dossier = dossier_of(plan, State.PREPARED, frozen="another event stands at 3")
    assert refusal(dossier, plan.gate(Gate.RELEASE, votes=votes_of(dossier))) == "PLAN_FROZEN"
    assert refusal(dossier, plan.gate(Gate.RELEASE, verdict=Verdict.REJECT)) == ""


def release_of(dossier: Dossier, plan: PlanCase) -> GateRecord:
    return GateRecord(plan.gate(Gate.RELEASE, votes=votes_of(dossier)), ActorId("carol"), NOW)


def keys_of(plan: PlanCase) -> dict[Any, bytes]:
    return {leg.leg_id: plan.key(leg.leg_id) for leg in plan.legs if leg.settling}


def test_decisions_are_checked_as_participants_would(plan: PlanCase) -> None:
    """A release is refused when any participant would refuse the decision: a lapsed promise, a wrong key, an approval that ran out."""
    dossier = dossier_of(plan, State.PREPARED, Gate.APPROVE)
    check_release(dossier, release_of(dossier, plan), keys_of(plan), REGISTRY, NOW)
    lapsed = Promise(PromiseKind.GUARANTEED, NOW - timedelta(seconds=1))
    for bent, keys, moment, reason in (
        (
            dossier_of(plan, State.PREPARED, Gate.APPROVE, votes=plan.votes(plan.vote("cash", lapsed))),
            keys_of(plan),
            NOW,
            "CERTIFICATE_PROMISE_LAPSED",
        ),
        (dossier, keys_of(plan.with_lock_of(delivery_versus_payment())), NOW, "KEY_WRONG"),
        (dossier, keys_of(plan), dossier.header.deadline, "GATE_EXPIRED"),
    ):
        with pytest.raises(NotAuthorised) as refused:
            check_release(bent, release_of(bent, plan), keys, REGISTRY, moment)
        assert refused.value.reason == reason


def test_delegated_decisions_are_checked_too(plan: PlanCase) -> None:
    """With one soft leg the same holds, and the certificate reaches that leg alone."""
    soft = Promise(PromiseKind.GUARANTEED, NOW + timedelta(days=1))
    votes = plan.votes(plan.vote("cash", soft))
    dossier = dossier_of(plan, State.PREPARED, Gate.APPROVE, votes=votes)
    release = release_of(dossier, plan)
    check_release(dossier, release, keys_of(plan), REGISTRY, NOW)
    decided = replace(
        dossier.plan, gates=(*dossier.plan.gates, release), decision=Decision.DELEGATED, delegate="cash", decided_at=NOW
    )
    certificate = assemble(replace(dossier, plan=decided))
    check_commit(certificate, plan.binding("cash"), plan.key("cash"), "bank-gateway", REGISTRY)
    with pytest.raises(NotAuthorised):
        check_commit(certificate, plan.binding("tokens"), plan.key("tokens"), "dlt-gateway", REGISTRY)
    done = assemble(replace(dossier, plan=replace(decided, decision=Decision.COMMIT)))
    check_commit(done, plan.binding("tokens"), plan.key("tokens"), "dlt-gateway", REGISTRY)


def test_who_can_act(plan: PlanCase) -> None:
    """A plan names the gate that it waits for and those who may sign it: with the role, and not barred."""
    prepared = dossier_of(plan, State.PREPARED, Gate.APPROVE)
    (waits,) = waiting(prepared, REGISTRY, Limits())
    assert (waits.kind, waits.gate, waits.until) == (WaitingKind.GATE, Gate.RELEASE, plan.header.deadline)
    assert set(waits.who) == {"carol", "ivan"}
    ready = dossier_of(plan, State.READY_FOR_PREPARE)
    unvoted = replace(ready.plan.legs[1], phase=Phase.PREPARING, vote=None)
    ready = replace(ready, plan=replace(ready.plan, legs=(ready.plan.legs[0], unvoted, *ready.plan.legs[2:])))
    found = {each.kind: each for each in waiting(ready, REGISTRY, Limits())}
    assert found[WaitingKind.GATE].gate is Gate.APPROVE
    assert (found[WaitingKind.PARTICIPANT].who, found[WaitingKind.PARTICIPANT].leg_id) == (("bank-gateway",), "cash")
    assert waiting(dossier_of(plan, State.CLOSED), REGISTRY, Limits()) == ()
