"""Gates, certificates and authorities to abort: each reason of a refusal is reached by bending one thing of what is good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest.mock import patch

import pytest

from lockstep_kit import certificate as certificate_module
from lockstep_kit.certificate import (
    Certificate,
    DeadlinePassed,
    Decision,
    NotAuthorised,
    check_abort,
    check_commit,
    check_distinct,
    check_gate,
    check_prepare,
)
from lockstep_kit.ids import ActorId, Digest, LegId
from lockstep_kit.plan import Policy
from lockstep_kit.registry import Registry, Role
from lockstep_kit.sod import scope_of
from lockstep_kit.statements import (
    Gate,
    GateSignature,
    OutcomeKind,
    Promise,
    PromiseKind,
    Refusal,
    SignedOutcome,
    SignedVote,
    Verdict,
    sign_vote,
)
from lockstep_testkit.factories import MATRIX, PEOPLE, SIGNERS, PlanCase, delivery_versus_payment, key_of, registered, registry_of

NOW = datetime.now(UTC)
PLAN = delivery_versus_payment()
OTHER = delivery_versus_payment()
REGISTRY = registry_of()
SCOPE = scope_of(PLAN.header, PLAN.legs)
BANK = "bank-gateway"
NO = Refusal("BANK_PREPARE_FAILED", "AM04")
SOFT = Promise(PromiseKind.GUARANTEED, NOW + timedelta(minutes=30))


def refused(check: Callable[[], object]) -> str:
    with pytest.raises(NotAuthorised) as caught:
        check()
    assert caught.value.detail
    return caught.value.reason


def commit(
    certificate: Certificate, plan: PlanCase = PLAN, leg: str = "cash", key: bytes | None = None, participant: str = BANK
) -> None:
    binding = plan.binding(leg)
    shown = key if key is not None else (plan.key(leg) if binding.leg.settling else b"")
    check_commit(certificate, binding, shown, participant, REGISTRY)


# -- Gates ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", list(Gate))
def test_gate_opens(gate: Gate) -> None:
    """Each gate opens by a registered person with its role."""
    votes = PLAN.votes() if gate is Gate.RELEASE else None
    outcomes = [PLAN.outcome("tokens")] if gate is Gate.VALIDATE else None
    actor = check_gate(PLAN.gate(gate, votes=votes, outcomes=outcomes), gate, SCOPE, REGISTRY, NOW)
    assert actor.actor_id == SIGNERS[gate]


@pytest.mark.parametrize("gate", list(Gate))
@pytest.mark.parametrize("who", list(PEOPLE))
def test_gate_needs_the_role(gate: Gate, who: str) -> None:
    """Who has not the gate's role does not open it, whatever else they may do."""
    signed = PLAN.gate(gate, who)
    if PEOPLE[who] in MATRIX.gates[gate].roles:
        assert check_gate(signed, gate, SCOPE, REGISTRY, NOW).actor_id == who
    else:
        assert refused(lambda: check_gate(signed, gate, SCOPE, REGISTRY, NOW)) == "GATE_ROLE"


def test_gate_refusals() -> None:
    """Another gate's, another plan's, an expired and a forged signature open nothing."""
    good = PLAN.gate(Gate.APPROVE)
    assert refused(lambda: check_gate(good, Gate.RELEASE, SCOPE, REGISTRY, NOW)) == "GATE_WRONG"
    assert refused(lambda: check_gate(good, Gate.APPROVE, scope_of(OTHER.header, OTHER.legs), REGISTRY, NOW)) == "GATE_PLAN_DIGEST"
    at_its_end = good.statement.expires_at
    assert refused(lambda: check_gate(good, Gate.APPROVE, SCOPE, REGISTRY, at_its_end)) == "GATE_EXPIRED"
    assert check_gate(good, Gate.APPROVE, SCOPE, REGISTRY, at_its_end - timedelta(microseconds=1)).actor_id == "bob"
    longer = replace(good, statement=replace(good.statement, expires_at=at_its_end + timedelta(days=1)))
    assert refused(lambda: check_gate(longer, Gate.APPROVE, SCOPE, REGISTRY, NOW)) == "GATE_SIGNATURE"
    turned = replace(good, statement=replace(good.statement, verdict=Verdict.REJECT))
    assert refused(lambda: check_gate(turned, Gate.APPROVE, SCOPE, REGISTRY, NOW)) == "GATE_SIGNATURE"
    participant = PLAN.gate(Gate.APPROVE, BANK)
    assert refused(lambda: check_gate(participant, Gate.APPROVE, SCOPE, REGISTRY, NOW)) == "GATE_SIGNATURE"
    strangers = registry_of({"alice": [Role.MAKER]})
    assert refused(lambda: check_gate(good, Gate.APPROVE, SCOPE, strangers, NOW)) == "GATE_SIGNATURE"


def test_one_person_acts_once() -> None:
    """Nobody acts twice in a plan's gates."""
    check_distinct([ActorId("alice"), ActorId("bob")])
    assert refused(lambda: check_distinct([ActorId("alice"), ActorId("bob"), ActorId("alice")])) == "GATE_SAME_PERSON"


# -- Prepare -------------------------------------------------------------------------------------------------------------


def test_prepare() -> None:
    """A leg is prepared for a maker who approves, under its own plan's root, and not otherwise."""
    binding, make = PLAN.binding("cash"), PLAN.gate(Gate.MAKE)
    check_prepare(binding, make, REGISTRY, NOW)
    rejected = PLAN.gate(Gate.MAKE, verdict=Verdict.REJECT)
    assert refused(lambda: check_prepare(binding, rejected, REGISTRY, NOW)) == "GATE_REJECTED"
    stray = replace(binding, leg=OTHER.leg("cash"))
    assert refused(lambda: check_prepare(stray, make, REGISTRY, NOW)) == "LEG_NOT_IN_PLAN"
    moved = replace(binding, index=binding.index + 1)
    assert refused(lambda: check_prepare(moved, make, REGISTRY, NOW)) == "LEG_NOT_IN_PLAN"
    assert refused(lambda: check_prepare(binding, OTHER.gate(Gate.MAKE), REGISTRY, NOW)) == "GATE_PLAN_DIGEST"


# -- Commit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leg", ["tokens", "cash", "notarisation", "journal"])
def test_good_certificate(leg: str) -> None:
    """A good certificate lets every leg be executed by the participant that voted for it, and by no other."""
    participant = PLAN.vote(leg).vote.participant
    commit(PLAN.certificate(), leg=leg, participant=participant)
    assert refused(lambda: commit(PLAN.certificate(), leg=leg, participant="another")) == "CERTIFICATE_OWN_VOTE"


def _soft(**changes: object) -> Certificate:
    """The same where the tokens' promise can lapse."""
    return replace(PLAN.certificate(PLAN.vote("tokens", SOFT)), **changes)  # type: ignore[arg-type]  # any field, any value


def _bent(**changes: object) -> Certificate:
    return replace(PLAN.certificate(), **changes)  # type: ignore[arg-type]  # any field, any value


def _released(certificate: Certificate) -> Certificate:
    """The certificate with the releaser's signature over the votes as they are now."""
    return replace(certificate, release=PLAN.gate(Gate.RELEASE, votes=certificate.votes))


def _votes(*changed: object) -> Certificate:
    return _released(_bent(votes=PLAN.votes(*changed)))  # type: ignore[arg-type]  # votes


def _late() -> Certificate:
    late = PLAN.header.deadline + timedelta(microseconds=1)
    longer = late + timedelta(days=1)
    good = PLAN.certificate()
    return replace(
        good,
        decided_at=late,
        make=PLAN.gate(Gate.MAKE, expires_at=longer),
        approve=PLAN.gate(Gate.APPROVE, expires_at=longer),
        release=PLAN.gate(Gate.RELEASE, votes=good.votes, expires_at=longer),
    )


def _forged_outcome() -> object:
    good = PLAN.outcome("tokens")
    return replace(good, outcome=replace(good.outcome, revision=good.outcome.revision + 1))


COMMIT_REFUSALS: list[tuple[str, Callable[[], Certificate]]] = [
    ("CERTIFICATE_PLAN_DIGEST", OTHER.certificate),
    ("GATE_WRONG", lambda: _bent(approve=PLAN.gate(Gate.MAKE))),
    ("GATE_PLAN_DIGEST", lambda: _bent(make=OTHER.gate(Gate.MAKE))),
    ("GATE_EXPIRED", lambda: _bent(approve=PLAN.gate(Gate.APPROVE, expires_at=NOW - timedelta(minutes=1)))),
    ("GATE_SIGNATURE", lambda: _bent(approve=replace(PLAN.gate(Gate.APPROVE), signature=PLAN.gate(Gate.MAKE).signature))),
    ("GATE_ROLE", lambda: _bent(approve=PLAN.gate(Gate.APPROVE, "carol"))),
    ("GATE_REJECTED", lambda: _bent(approve=PLAN.gate(Gate.APPROVE, verdict=Verdict.REJECT))),
    ("CERTIFICATE_VOTES_DIGEST", lambda: _bent(votes=PLAN.votes(PLAN.vote("tokens", voted_at=NOW - timedelta(minutes=2))))),
    ("CERTIFICATE_VOTES", lambda: _released(_bent(votes=PLAN.votes()[:-1]))),
    ("CERTIFICATE_VOTES", lambda: _released(_bent(votes=(*PLAN.votes()[:-1], PLAN.vote("tokens"))))),
    ("CERTIFICATE_VOTES", lambda: _votes(PLAN.vote("tokens", NO))),
    ("CERTIFICATE_VOTES", lambda: _released(_bent(votes=(OTHER.vote("tokens"), *PLAN.votes()[1:])))),
    ("CERTIFICATE_PROMISE_LAPSED", lambda: _votes(PLAN.vote("tokens", replace(SOFT, expires_at=NOW - timedelta(minutes=1))))),
    ("VOTE_SIGNATURE", lambda: _votes(PLAN.vote("tokens", signed_by="alice"))),
    ("VOTE_SIGNATURE", lambda: _votes(PLAN.vote("tokens", signed_by="notary"))),
    ("CERTIFICATE_OWN_VOTE", lambda: _votes(PLAN.vote("cash", participant="notary"))),
    ("CERTIFICATE_OWN_VOTE", lambda: _released(_bent(votes=(PLAN.votes()[1], PLAN.votes()[0], *PLAN.votes()[2:])))),
    ("CERTIFICATE_OWN_VOTE", lambda: _votes(PLAN.with_lock_of(OTHER).vote("cash"))),
    ("CERTIFICATE_LATE", _late),
    ("CERTIFICATE_DECISION", lambda: _bent(decision=Decision.ABORT)),
    ("CERTIFICATE_DECISION", lambda: _soft(decision=Decision.DELEGATED, delegated_leg_id="tokens")),
    ("CERTIFICATE_DECISION", lambda: _votes(PLAN.vote("tokens", SOFT))),
    ("CERTIFICATE_DELEGATE", lambda: _soft(delegated_leg_id="tokens")),
    (
        "CERTIFICATE_DELEGATE",
        lambda: _soft(delegated_leg_id="tokens", delegated_outcome=PLAN.outcome("tokens", OutcomeKind.RELEASED)),
    ),
    ("CERTIFICATE_DELEGATE", lambda: _soft(delegated_leg_id="tokens", delegated_outcome=PLAN.outcome("cash"))),
    ("CERTIFICATE_DELEGATE", lambda: _soft(delegated_leg_id="tokens", delegated_outcome=OTHER.outcome("tokens"))),
    (
        "CERTIFICATE_DELEGATE",
        lambda: _soft(delegated_leg_id="tokens", delegated_outcome=PLAN.outcome("tokens", participant="notary")),
    ),
    ("OUTCOME_SIGNATURE", lambda: _soft(delegated_leg_id="tokens", delegated_outcome=_forged_outcome())),
]


@pytest.mark.parametrize(("reason", "certificate"), COMMIT_REFUSALS)
def test_bent_certificate(reason: str, certificate: Callable[[], Certificate]) -> None:
    """A certificate of which one thing is not as it must be executes nothing."""
    assert refused(lambda: commit(certificate())) == reason


def test_one_person_signs_once() -> None:
    """A person with two roles does not open two gates of one plan."""
    registry = registry_of({"alice": [Role.MAKER, Role.APPROVER], "carol": [Role.RELEASER]})
    certificate = _bent(approve=PLAN.gate(Gate.APPROVE, "alice"))
    check = lambda: check_commit(certificate, PLAN.binding("cash"), PLAN.key("cash"), BANK, registry)  # noqa: E731 - called below
    assert refused(check) == "GATE_SAME_PERSON"


@pytest.mark.parametrize("key", [b"", bytes(32), PLAN.key("tokens"), OTHER.key("cash")])
def test_wrong_key(key: bytes) -> None:
    """A settling leg is not executed without its own key."""
    assert refused(lambda: commit(PLAN.certificate(), key=key)) == "KEY_WRONG"


def test_stray_leg() -> None:
    """A leg that is not under the plan's root is not executed."""
    binding = replace(PLAN.binding("cash"), path=())
    assert refused(lambda: check_commit(PLAN.certificate(), binding, PLAN.key("cash"), BANK, REGISTRY)) == "LEG_NOT_IN_PLAN"


def test_delegation() -> None:
    """A delegated decision reaches its leg alone; the others follow on that leg's signed Done."""
    soft = PLAN.vote("cash", SOFT)
    delegated = PLAN.certificate(soft, decision=Decision.DELEGATED, delegated="cash")
    commit(delegated)
    assert refused(lambda: commit(delegated, leg="tokens", participant="dlt-gateway")) == "CERTIFICATE_DECISION"
    commit(PLAN.certificate(soft, delegated="cash"), leg="tokens", participant="dlt-gateway")


def test_delegated_to_two_legs() -> None:
    """The votes say to which leg a decision can be delegated: to the first whose promise can lapse, and to no other, also where several can."""
    both = (PLAN.vote("tokens", SOFT), PLAN.vote("cash", SOFT))
    commit(PLAN.certificate(*both, decision=Decision.DELEGATED, delegated="tokens"), leg="tokens", participant="dlt-gateway")
    second = PLAN.certificate(*both, decision=Decision.DELEGATED, delegated="cash")
    assert refused(lambda: commit(second)) == "CERTIFICATE_DELEGATE"
    firm = PLAN.certificate(PLAN.vote("cash"), decision=Decision.DELEGATED, delegated="cash")
    assert refused(lambda: commit(firm)) == "CERTIFICATE_DELEGATE"


def test_accepted_expiry_risk() -> None:
    """Promises that lapse need no delegation where the approved plan accepts the risk."""
    risky = delivery_versus_payment(policy=Policy(accept_expiry_risk=True))
    commit(risky.certificate(risky.vote("cash", SOFT), risky.vote("tokens", SOFT)), plan=risky)


# -- Abort ---------------------------------------------------------------------------------------------------------------


def abort(authority: object, moment: datetime = NOW, registry: Registry = REGISTRY) -> None:
    check_abort(authority, PLAN.binding("cash"), BANK, registry, moment)  # type: ignore[arg-type]  # authorities


@pytest.mark.parametrize(
    "authority",
    [
        PLAN.vote("tokens", NO),
        PLAN.outcome("tokens", OutcomeKind.REFUSED),
        PLAN.outcome("tokens", OutcomeKind.RELEASED),
        PLAN.gate(Gate.CANCEL, "alice"),
        PLAN.gate(Gate.CANCEL, "erin"),
        PLAN.gate(Gate.APPROVE, verdict=Verdict.REJECT),
        PLAN.gate(Gate.RELEASE, verdict=Verdict.REJECT),
    ],
)
def test_good_authority(authority: object) -> None:
    """A NO, a refusal, a release, a cancellation or a rejected gate of this plan releases its legs."""
    abort(authority)


def test_cancellation_outlives_its_statement() -> None:
    """What was stopped stays stopped, after the statement and the deadline have run out."""
    abort(PLAN.gate(Gate.CANCEL), PLAN.header.deadline + timedelta(days=400))


def test_deadline() -> None:
    """The deadline is authority once it has passed, and not at its very moment."""
    assert refused(lambda: abort(DeadlinePassed(), PLAN.header.deadline)) == "ABORT_DEADLINE"
    abort(DeadlinePassed(), PLAN.header.deadline + timedelta(microseconds=1))


def _forged_no() -> object:
    good = PLAN.vote("tokens", NO)
    return replace(good, vote=replace(good.vote, leg_id=LegId("journal")))


def _renamed(signed: SignedVote) -> SignedVote:
    """A NO, well signed, that names the plan's digest and another plan's id."""
    return sign_vote(replace(signed.vote, plan_id=OTHER.plan_id), key_of(signed.vote.participant))


def _revised(signed: SignedOutcome) -> SignedOutcome:
    return replace(signed, outcome=replace(signed.outcome, revision=9))


def _undated(signed: GateSignature) -> GateSignature:
    """A signature stretched to a longer time than was signed for."""
    return replace(signed, statement=replace(signed.statement, expires_at=signed.statement.expires_at + timedelta(days=1)))


@pytest.mark.parametrize(
    ("reason", "authority"),
    [
        ("ABORT_VOTE", PLAN.vote("tokens")),
        ("ABORT_VOTE", PLAN.vote("cash", NO, participant="dlt-gateway")),
        ("ABORT_VOTE", PLAN.with_lock_of(OTHER).vote("cash", NO)),
        ("ABORT_VOTE", _renamed(PLAN.vote("tokens", NO))),
        ("ABORT_OUTCOME", PLAN.outcome("cash", OutcomeKind.RELEASED, participant="dlt-gateway")),
        ("ABORT_OUTCOME", PLAN.outcome("tokens", OutcomeKind.REVERSAL_REFUSED)),
        ("OUTCOME_SIGNATURE", _revised(PLAN.outcome("tokens", OutcomeKind.RELEASED))),
        ("GATE_SIGNATURE", _undated(PLAN.gate(Gate.CANCEL))),
        ("GATE_ROLE", PLAN.gate(Gate.APPROVE, "carol", verdict=Verdict.REJECT)),
        ("GATE_ROLE", PLAN.gate(Gate.RELEASE, "erin", verdict=Verdict.REJECT)),
        ("ABORT_GATE", PLAN.gate(Gate.MAKE, verdict=Verdict.REJECT)),
        ("ABORT_VOTE", OTHER.vote("tokens", NO)),
        ("VOTE_SIGNATURE", _forged_no()),
        ("VOTE_SIGNATURE", PLAN.vote("tokens", NO, signed_by="alice")),
        ("ABORT_OUTCOME", PLAN.outcome("tokens")),
        ("ABORT_OUTCOME", OTHER.outcome("tokens", OutcomeKind.RELEASED)),
        ("OUTCOME_SIGNATURE", replace(PLAN.outcome("tokens", OutcomeKind.RELEASED), signature=key_of("notary").sign(b"x"))),
        ("ABORT_GATE", PLAN.gate(Gate.APPROVE)),
        ("ABORT_GATE", PLAN.gate(Gate.VALIDATE, verdict=Verdict.REJECT)),
        ("ABORT_GATE", PLAN.gate(Gate.CANCEL, verdict=Verdict.REJECT)),
        ("GATE_PLAN_DIGEST", OTHER.gate(Gate.CANCEL)),
        ("GATE_ROLE", PLAN.gate(Gate.CANCEL, "dave")),
        ("GATE_SIGNATURE", PLAN.gate(Gate.CANCEL, BANK)),
    ],
)
def test_bent_authority(reason: str, authority: object) -> None:
    """What does not stop this very plan releases nothing."""
    assert refused(lambda: abort(authority)) == reason


def test_a_key_that_counts_no_more_stops_nothing() -> None:
    """A statement is judged by when it was in force: a key that ended before cannot have signed it, and one that begins after neither."""
    cancel = PLAN.gate(Gate.CANCEL, expires_at=NOW + timedelta(minutes=5))
    for key, reason in (
        (registered(key_of("alice"), not_after=NOW - timedelta(days=1)), "GATE_SIGNATURE"),
        (registered(key_of("alice"), not_before=NOW + timedelta(hours=1)), "GATE_SIGNATURE"),
        (registered(key_of("alice"), not_after=NOW + timedelta(minutes=10)), ""),
    ):
        actors = [replace(each, keys=(key,)) if each.actor_id == "alice" else each for each in REGISTRY.actors]
        registry = Registry(actors, REGISTRY.participants, REGISTRY.matrices.values())
        if reason:
            assert refused(partial(abort, cancel, NOW + timedelta(days=1), registry)) == reason
        else:
            abort(cancel, NOW + timedelta(days=1), registry)


@pytest.mark.parametrize(
    ("check", "authority"),
    [
        ("check_vote", PLAN.vote("tokens", NO, signed_by="alice")),
        ("check_outcome", replace(PLAN.outcome("tokens", OutcomeKind.RELEASED), signature=key_of("notary").sign(b"x"))),
        ("_check_stop", PLAN.gate(Gate.CANCEL, "dave")),
    ],
)
def test_seeded_bugs_in_the_checks_of_aborts_are_caught(check: str, authority: object) -> None:
    """Each check is the one thing that refuses a forged authority: without it the leg would be released."""
    with pytest.raises(NotAuthorised):
        abort(authority)
    with patch.object(certificate_module, check, lambda *_: None):
        abort(authority)


def test_stray_leg_is_not_released() -> None:
    """A leg that is not under the plan's root is not released."""
    binding = replace(PLAN.binding("cash"), path=(Digest(bytes(32)),))
    assert refused(lambda: check_abort(PLAN.gate(Gate.CANCEL), binding, BANK, REGISTRY, NOW)) == "LEG_NOT_IN_PLAN"
