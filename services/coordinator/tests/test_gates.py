"""Gates: who may sign what, and when; and that a decision is one that participants would follow."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coordinator import facts, gates
from coordinator.certificates import assemble, check_release
from coordinator.dossier import Dossier, LegFile, new_plan
from coordinator.model import Cause, GateRecord, LegState, Limits, Order, Quorum, State
from coordinator.participants import Routes
from coordinator.waiting import WaitingKind, waiting
from lockstep_kit.amounts import AssetId
from lockstep_kit.certificate import Decision, NotAuthorised, check_commit
from lockstep_kit.fence import Phase
from lockstep_kit.ids import ActorId
from lockstep_kit.plan import Journal
from lockstep_kit.registry import GateRule, Limit, Registry, Role, Threshold
from lockstep_kit.sod import scope_of
from lockstep_kit.statements import Gate, GateSignature, Promise, PromiseKind, SignedVote, Verdict
from lockstep_testkit.factories import (
    MATRIX,
    PARTICIPANTS,
    PEOPLE,
    SIGNERS,
    PlanCase,
    actor_of,
    credit_terms,
    delivery_versus_payment,
    leg_of,
    plan_of,
    registry_of,
)

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


# -- Four eyes -----------------------------------------------------------------------------------------------------------

#: From 10.00 euros on two persons approve and two release; agents sign for less.
TWO = GateRule(frozenset(), (Threshold(AssetId("EUR"), 10_00, 2),))
MATRIX_2 = replace(
    MATRIX,
    version=2,
    gates={
        **MATRIX.gates,
        Gate.APPROVE: replace(TWO, roles=frozenset({Role.APPROVER})),
        Gate.RELEASE: replace(TWO, roles=frozenset({Role.RELEASER})),
    },
    different_persons=(*MATRIX.different_persons, frozenset({Gate.MAKE, Gate.CANCEL})),
)
FOUR = Registry(
    [*REGISTRY.actors, *(actor_of(name, [Role.APPROVER, Role.RELEASER]) for name in ("judy", "kim", "liam"))],
    REGISTRY.participants,
    [MATRIX, MATRIX_2],
)


def four_eyes(plan: PlanCase, state: State, *signed: tuple[Gate, str]) -> Dossier:
    """A plan of the second version in a state, with gates signed by these persons."""
    dossier = dossier_of(plan, state)
    for gate, who in signed:
        dossier = with_gate(dossier, plan, gate, who)
    return replace(dossier, plan=replace(dossier.plan, quorum=Quorum(approve=2, release=2)))


def with_gate(dossier: Dossier, plan: PlanCase, gate: Gate, who: str, until: datetime | None = None) -> Dossier:
    votes = votes_of(dossier) if gate is Gate.RELEASE else None
    record = GateRecord(plan.gate(gate, who, votes=votes, expires_at=until), ActorId(who), NOW)
    return replace(dossier, plan=replace(dossier.plan, gates=(*dossier.plan.gates, record)))


@pytest.fixture
def large() -> PlanCase:
    legs = [leg_of("cash", credit_terms(6_00)), leg_of("more", credit_terms(4_00)), leg_of("journal", Journal())]
    return plan_of(legs, sod_version=2)


def admitted(dossier: Dossier, signed: GateSignature, moment: datetime = NOW) -> str:
    try:
        gates.admit(dossier, signed, FOUR, moment)
    except NotAuthorised as refused:
        return refused.reason
    return ""


def test_a_second_person_signs_and_nobody_twice(large: PlanCase) -> None:
    """A gate that takes two stays open for a second person until the second has signed; neither signs twice, nor another gate."""
    one = four_eyes(large, State.READY_FOR_PREPARE, (Gate.APPROVE, "judy"))
    assert admitted(one, large.gate(Gate.APPROVE, "judy")) == "GATE_ALREADY_OPEN"
    assert admitted(one, large.gate(Gate.APPROVE, "alice")) == "GATE_SAME_PERSON"
    assert admitted(one, large.gate(Gate.APPROVE, "kim")) == ""
    assert admitted(one, large.gate(Gate.APPROVE, "kim", verdict=Verdict.REJECT)) == ""
    both = four_eyes(large, State.READY_FOR_PREPARE, (Gate.APPROVE, "judy"), (Gate.APPROVE, "kim"))
    assert admitted(both, large.gate(Gate.APPROVE, "liam")) == "GATE_ALREADY_OPEN"
    prepared = replace(both, plan=replace(both.plan, state=State.PREPARED))
    for who in ("judy", "kim"):
        assert admitted(prepared, large.gate(Gate.RELEASE, who, votes=votes_of(prepared))) == "GATE_SAME_PERSON"


def test_a_matrix_may_bar_the_maker_from_cancelling(large: PlanCase) -> None:
    """Who must differ from whom is the matrix's to say."""
    dossier = four_eyes(large, State.READY_FOR_PREPARE)
    assert admitted(dossier, large.gate(Gate.CANCEL, "alice")) == "GATE_SAME_PERSON"
    assert admitted(dossier, large.gate(Gate.CANCEL, "erin")) == ""


def test_signatures_of_a_plan_are_limited(large: PlanCase) -> None:
    """Approvals that run out cannot be given again for ever; the plan can still be stopped."""
    dossier = four_eyes(large, State.READY_FOR_PREPARE)
    for _ in range(gates.SIGNATURES_OF_A_PLAN_MAX):
        dossier = with_gate(dossier, large, Gate.APPROVE, "judy", until=NOW - timedelta(seconds=1))
    assert admitted(dossier, large.gate(Gate.APPROVE, "judy")) == "GATE_TOO_MANY"
    assert admitted(dossier, large.gate(Gate.APPROVE, "judy", verdict=Verdict.REJECT)) == ""
    assert admitted(dossier, large.gate(Gate.CANCEL, "erin")) == ""


def test_four_eyes_move_the_plan(large: PlanCase) -> None:
    """The plan goes on when the second signature stands beside the first, not before, and not beside one that has run out."""
    limits = Limits()
    one = four_eyes(large, State.READY_FOR_PREPARE, (Gate.APPROVE, "judy")).plan
    assert facts.cause(one, NOW, limits) is None
    both = with_gate(four_eyes(large, State.READY_FOR_PREPARE, (Gate.APPROVE, "judy")), large, Gate.APPROVE, "kim").plan
    assert facts.cause(both, NOW, limits) is Cause.PREPARED_AND_APPROVED
    twice = with_gate(four_eyes(large, State.READY_FOR_PREPARE, (Gate.APPROVE, "judy")), large, Gate.APPROVE, "judy").plan
    assert facts.cause(twice, NOW, limits) is None
    short = with_gate(
        four_eyes(large, State.READY_FOR_PREPARE, (Gate.APPROVE, "judy")), large, Gate.APPROVE, "kim", NOW + timedelta(minutes=1)
    ).plan
    assert facts.cause(short, NOW + timedelta(minutes=1), limits) is None
    released = four_eyes(large, State.PREPARED, (Gate.APPROVE, "judy"), (Gate.APPROVE, "kim"), (Gate.RELEASE, "carol"))
    assert facts.cause(released.plan, NOW, limits) is None
    assert facts.cause(with_gate(released, large, Gate.RELEASE, "liam").plan, NOW, limits) is Cause.RELEASED


def test_the_certificate_carries_every_signature(large: PlanCase) -> None:
    """Only the last release is checked as the decision that it is; its certificate carries all, and every participant follows it."""
    prepared = four_eyes(large, State.PREPARED, (Gate.APPROVE, "judy"), (Gate.APPROVE, "kim"))
    first = GateRecord(large.gate(Gate.RELEASE, "carol", votes=votes_of(prepared)), ActorId("carol"), NOW)
    check_release(prepared, first, {}, FOUR, NOW)
    again = with_gate(prepared, large, Gate.RELEASE, "carol")
    last = GateRecord(large.gate(Gate.RELEASE, "liam", votes=votes_of(prepared)), ActorId("liam"), NOW)
    check_release(again, last, keys_of(large), FOUR, NOW)
    decided = replace(again.plan, gates=(*again.plan.gates, last), decision=Decision.COMMIT, decided_at=NOW)
    certificate = assemble(replace(again, plan=decided))
    assert [len(signatures) for _, signatures in certificate.gates] == [1, 2, 2]
    for leg in large.legs:
        key = large.key(leg.leg_id) if leg.settling else b""
        check_commit(certificate, large.binding(leg.leg_id), key, PARTICIPANTS[leg.kind], FOUR)
    short = four_eyes(large, State.PREPARED, (Gate.APPROVE, "judy"), (Gate.RELEASE, "carol"))
    with pytest.raises(NotAuthorised, match="GATE_EXPIRED"):
        check_release(short, last, keys_of(large), FOUR, NOW)


def test_the_waiting_answer_says_how_many_are_missing(large: PlanCase) -> None:
    """A plan that waits for persons names those who may still sign, and how many it takes."""
    (waits,) = waiting(four_eyes(large, State.READY_FOR_PREPARE, (Gate.APPROVE, "judy")), FOUR, Limits())
    assert (waits.gate, waits.signatures_missing) == (Gate.APPROVE, 1)
    assert set(waits.who) == {"bob", "ivan", "kim", "liam"}
    (waits,) = waiting(four_eyes(large, State.PREPARED, (Gate.APPROVE, "judy"), (Gate.APPROVE, "kim")), FOUR, Limits())
    assert (waits.gate, waits.signatures_missing) == (Gate.RELEASE, 2)
    assert set(waits.who) == {"carol", "ivan", "liam"}
    expired = with_gate(four_eyes(large, State.PREPARED, (Gate.APPROVE, "judy")), large, Gate.APPROVE, "kim", NOW)
    (waits,) = waiting(expired, FOUR, Limits())
    assert (waits.gate, waits.signatures_missing) == (Gate.APPROVE, 1)


def test_a_plan_that_nobody_could_finish_is_not_accepted(large: PlanCase) -> None:
    """Each gate needs as many as may sign it for what the plan is worth, the maker aside; a validator with too low a limit is none."""
    scope, quorum, alice = scope_of(large.header, large.legs), Quorum(approve=2, release=2), ActorId("alice")
    gates.check_staffed(scope, alice, quorum, FOUR)
    low = [
        actor_of(each.actor_id, each.roles, (Limit(AssetId("EUR"), 9_99),)) for each in FOUR.actors if Role.VALIDATOR in each.roles
    ]
    others = [each for each in FOUR.actors if Role.VALIDATOR not in each.roles]
    pairs = [each for each in FOUR.actors if each.actor_id in ("alice", "bob", "carol", "dave")]
    for actors in ([*others, *low], pairs):
        with pytest.raises(NotAuthorised, match="GATE_UNSTAFFED"):
            gates.check_staffed(scope, alice, quorum, Registry(actors, FOUR.participants, FOUR.matrices.values()))
