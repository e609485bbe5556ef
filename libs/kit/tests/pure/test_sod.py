"""Segregation of duties: what a matrix must hold, limits, four eyes, agents; and that participants follow what the coordinator lets through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep_kit import certificate as checks
from lockstep_kit import sod
from lockstep_kit.amounts import AssetId
from lockstep_kit.certificate import Certificate, NotAuthorised, check_commit, check_gate, check_prepare
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.plan import Journal
from lockstep_kit.registry import Actor, Limit, Limits, Matrix, Participant, Registry, Role, RoleLimits, Threshold
from lockstep_kit.sod import SIGNATURES_MAX, check_matrix, scope_of, signatures_needed
from lockstep_kit.statements import Gate, GateSignature, Verdict
from lockstep_testkit.factories import (
    MATRIX,
    PARTICIPANTS,
    PlanCase,
    actor_of,
    credit_terms,
    key_of,
    leg_of,
    plan_of,
    registered,
    registry_of,
    token_terms,
)

NOW = datetime.now(UTC)
EUR = AssetId("EUR")
TOKEN = token_terms().amount.asset
#: Approvers and releasers enough for any matrix.
APPROVERS = tuple(f"approver-{number}" for number in range(3))
RELEASERS = tuple(f"releaser-{number}" for number in range(3))


def rule_with(gate: Gate, **changes: object) -> Matrix:
    """The first matrix as a second version, with one gate's rule changed."""
    rule = replace(MATRIX.gates[gate], **changes)  # type: ignore[arg-type]  # any field, any value
    return replace(MATRIX, version=2, gates={**MATRIX.gates, gate: rule})


def registry_with(matrix: Matrix, actors: Iterable[Actor] = ()) -> Registry:
    """Everybody of the tests, the actors before those of the same name, and the matrix."""
    own = {actor.actor_id: actor for actor in registry_of().actors} | {actor.actor_id: actor for actor in actors}
    crew = [actor_of(name, [Role.APPROVER]) for name in APPROVERS] + [actor_of(name, [Role.RELEASER]) for name in RELEASERS]
    names = dict.fromkeys(PARTICIPANTS.values())
    return Registry([*own.values(), *crew], [Participant(name, (registered(key_of(name)),)) for name in names], [MATRIX, matrix])


def payment(*minor_units: int, version: int = 2) -> PlanCase:
    """So many payments in euro, and the journal."""
    legs = [leg_of(f"cash-{index}", credit_terms(each)) for index, each in enumerate(minor_units)]
    return plan_of([*legs, leg_of("journal", Journal())], sod_version=version)


def certificate_of(plan: PlanCase, approvers: Sequence[str] = ("bob",), releasers: Sequence[str] = ("carol",)) -> Certificate:
    """A certificate with these persons' signatures."""
    good = plan.certificate()
    approvals = [plan.gate(Gate.APPROVE, who) for who in approvers]
    releases = [plan.gate(Gate.RELEASE, who, votes=good.votes) for who in releasers]
    return replace(
        good,
        approve=approvals[0],
        release=releases[0],
        further_approvals=tuple(approvals[1:]),
        further_releases=tuple(releases[1:]),
    )


def follow(plan: PlanCase, certificate: Certificate, registry: Registry) -> None:
    """What every participant of the plan says of the decision."""
    for leg in plan.legs:
        key = plan.key(leg.leg_id) if leg.settling else b""
        check_commit(certificate, plan.binding(leg.leg_id), key, PARTICIPANTS[leg.kind], registry)


def refused(check: Callable[[], object]) -> str:
    with pytest.raises(NotAuthorised) as caught:
        check()
    assert caught.value.detail
    return caught.value.reason


def signed_by(plan: PlanCase, gate: Gate, who: str, registry: Registry) -> str:
    """What the coordinator says of a signature, or ""."""
    try:
        check_gate(plan.gate(gate, who), gate, scope_of(plan.header, plan.legs), registry, NOW)
    except NotAuthorised as refusal:
        return refusal.reason
    return ""


# -- What a matrix must hold ---------------------------------------------------------------------------------------------

FOUR = frozenset({Gate.MAKE, Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE})
HIGH = Threshold(EUR, 100, 2)


@pytest.mark.parametrize(
    ("field", "matrix"),
    [
        ("version", replace(MATRIX, version=0)),
        ("gates.VALIDATE", replace(MATRIX, gates={gate: MATRIX.gates[gate] for gate in Gate if gate is not Gate.VALIDATE})),
        ("gates.RELEASE.roles", rule_with(Gate.RELEASE, roles=frozenset())),
        ("gates.RELEASE.roles", rule_with(Gate.RELEASE, roles=frozenset({Role.AUDITOR, Role.RELEASER}))),
        ("different_persons", replace(MATRIX, different_persons=())),
        *(("different_persons", replace(MATRIX, different_persons=(FOUR - {gate}, frozenset({gate})))) for gate in FOUR),
        ("gates.MAKE.thresholds", rule_with(Gate.MAKE, thresholds=(HIGH,))),
        ("gates.CANCEL.thresholds", rule_with(Gate.CANCEL, thresholds=(HIGH,))),
        ("gates.CANCEL.agents", rule_with(Gate.CANCEL, agents=True)),
        ("gates.APPROVE.thresholds[0].signatures", rule_with(Gate.APPROVE, thresholds=(replace(HIGH, signatures=1),))),
        (
            "gates.APPROVE.thresholds[0].signatures",
            rule_with(Gate.APPROVE, thresholds=(replace(HIGH, signatures=SIGNATURES_MAX + 1),)),
        ),
        ("gates.APPROVE.thresholds[0].from_minor_units", rule_with(Gate.APPROVE, thresholds=(replace(HIGH, from_minor_units=0),))),
        ("gates.APPROVE.thresholds[1].from_minor_units", rule_with(Gate.APPROVE, thresholds=(HIGH, replace(HIGH, signatures=3)))),
        (
            "gates.APPROVE.thresholds[1].signatures",
            rule_with(Gate.APPROVE, thresholds=(HIGH, replace(HIGH, from_minor_units=200))),
        ),
        ("gates.APPROVE.agents", rule_with(Gate.APPROVE, thresholds=(HIGH,), agents=True, agent_limits=None)),
        (
            "gates.APPROVE.agents[0].minor_units_max",
            rule_with(Gate.APPROVE, thresholds=(HIGH,), agents=True, agent_limits=(Limit(EUR, 100),)),
        ),
    ],
)
def test_matrices_that_say_less_are_refused(field: str, matrix: Matrix) -> None:
    """Four different persons, no auditor, several signatures where they can be given, and agents below four eyes: whoever wrote the matrix."""
    with pytest.raises(FieldInvalid) as caught:
        check_matrix(matrix)
    assert caught.value.field == field


def test_matrices_that_say_more_are_taken() -> None:
    """A matrix may ask for more persons, and keep more gates apart."""
    check_matrix(MATRIX)
    check_matrix(replace(MATRIX, different_persons=(FOUR, frozenset({Gate.MAKE, Gate.CANCEL}))))
    check_matrix(rule_with(Gate.APPROVE, thresholds=(HIGH, Threshold(EUR, 200, 3)), agents=True, agent_limits=(Limit(EUR, 99),)))


# -- Versions ------------------------------------------------------------------------------------------------------------


def test_an_unknown_version_opens_nothing() -> None:
    """A plan whose matrix a registry does not have is refused by name by that registry's owner, before it is prepared and after."""
    plan = payment(100, version=3)
    binding = plan.binding("cash-0")
    assert refused(lambda: check_prepare(binding, plan.gate(Gate.MAKE), registry_of(), NOW)) == "SOD_VERSION_UNKNOWN"
    assert refused(lambda: follow(plan, plan.certificate(), registry_of())) == "SOD_VERSION_UNKNOWN"
    bare = Registry(registry_of().actors, registry_of().participants)
    assert signed_by(payment(100, version=1), Gate.MAKE, "alice", bare) == "SOD_VERSION_UNKNOWN"


# -- Limits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "minor_units", "reason"),
    [
        (None, (10**17,), ""),
        ((Limit(EUR, 300),), (100, 200), ""),
        ((Limit(EUR, 299),), (100, 200), "GATE_LIMIT"),
        ((Limit(TOKEN, 10**9),), (1,), "GATE_LIMIT"),
        ((), (1,), "GATE_LIMIT"),
    ],
)
@pytest.mark.parametrize(("gate", "who"), [(Gate.MAKE, "alice"), (Gate.APPROVE, "bob"), (Gate.RELEASE, "carol")])
def test_limits_hold_for_the_sum_of_all_legs(
    gate: Gate, who: str, limits: Limits, minor_units: tuple[int, ...], reason: str
) -> None:
    """A person signs up to the role's limit in each asset, over all legs; what is not listed is not allowed."""
    role = next(iter(MATRIX.gates[gate].roles))
    registry = registry_with(rule_with(Gate.MAKE), [actor_of(who, [role], limits)])
    assert signed_by(payment(*minor_units), gate, who, registry) == reason


def test_participants_hold_limits_by_their_own_leg() -> None:
    """A coordinator that lets through what is above a person's limit is refused by every participant whose leg shows it."""
    plan = payment(100, 900)
    registry = registry_with(rule_with(Gate.MAKE), [actor_of("bob", [Role.APPROVER], (Limit(EUR, 500),))])
    small, large = plan.binding("cash-0"), plan.binding("cash-1")
    shown = certificate_of(plan)
    check_commit(shown, small, plan.key("cash-0"), "bank-gateway", registry)
    assert refused(lambda: check_commit(shown, large, plan.key("cash-1"), "bank-gateway", registry)) == "GATE_LIMIT"
    maker = registry_with(rule_with(Gate.MAKE), [actor_of("alice", [Role.MAKER], (Limit(EUR, 500),))])
    assert refused(lambda: check_prepare(large, plan.gate(Gate.MAKE), maker, NOW)) == "GATE_LIMIT"


def test_a_limit_is_a_roles() -> None:
    """Who may approve much and release little releases little."""
    roles = frozenset({Role.APPROVER, Role.RELEASER})
    both = replace(
        actor_of("bob", roles), limits=(RoleLimits(Role.APPROVER, (Limit(EUR, 500),)), RoleLimits(Role.RELEASER, (Limit(EUR, 5),)))
    )
    registry = registry_with(rule_with(Gate.MAKE), [both])
    plan = payment(500)
    assert signed_by(plan, Gate.APPROVE, "bob", registry) == ""
    release = plan.gate(Gate.RELEASE, "bob", votes=plan.votes())
    assert refused(lambda: check_gate(release, Gate.RELEASE, scope_of(plan.header, plan.legs), registry, NOW)) == "GATE_LIMIT"
    unsaid = replace(both, limits=both.limits[:1])
    assert (
        refused(
            lambda: check_gate(
                release, Gate.RELEASE, scope_of(plan.header, plan.legs), registry_with(rule_with(Gate.MAKE), [unsaid]), NOW
            )
        )
        == "GATE_LIMIT"
    )


def test_stopping_takes_the_role_alone() -> None:
    """A person may refuse or cancel what is above the limit, and an agent what it could not approve."""
    registry = registry_with(rule_with(Gate.MAKE), [actor_of("bob", [Role.APPROVER], (), agent=True)])
    plan = payment(500)
    scope = scope_of(plan.header, plan.legs)
    for signed in (plan.gate(Gate.APPROVE, "bob", verdict=Verdict.REJECT), plan.gate(Gate.CANCEL, "bob")):
        assert check_gate(signed, signed.statement.gate, scope, registry, NOW).actor_id == "bob"


# -- Four eyes -----------------------------------------------------------------------------------------------------------

FOUR_EYES = rule_with(Gate.APPROVE, thresholds=(Threshold(EUR, 1_000, 2), Threshold(EUR, 5_000, 3)))
TWO_RELEASE = rule_with(Gate.RELEASE, thresholds=(Threshold(EUR, 1_000, 2),))


@pytest.mark.parametrize(("minor_units", "needed"), [(999, 1), (1_000, 2), (4_999, 2), (5_000, 3)])
def test_four_eyes_by_amount(minor_units: int, needed: int) -> None:
    """From a threshold on a certificate needs so many persons' approvals, and more are taken too."""
    plan, registry = payment(minor_units), registry_with(FOUR_EYES)
    assert signatures_needed(FOUR_EYES, Gate.APPROVE, scope_of(plan.header, plan.legs)) == needed
    for given_ in range(1, 4):
        shown = certificate_of(plan, APPROVERS[:given_])
        if given_ < needed:
            assert refused(lambda shown=shown: follow(plan, shown, registry)) == "GATE_SIGNATURES"  # type: ignore[misc]  # bound now
        else:
            follow(plan, shown, registry)


def test_two_release_over_the_same_votes() -> None:
    """Every releaser signs over the certificate's votes."""
    plan, registry = payment(1_000), registry_with(TWO_RELEASE)
    good = certificate_of(plan, releasers=RELEASERS[:2])
    follow(plan, good, registry)
    other = plan.gate(Gate.RELEASE, RELEASERS[1], votes=plan.votes())
    assert refused(lambda: follow(plan, replace(good, further_releases=(other,)), registry)) == "CERTIFICATE_VOTES_DIGEST"


def _further(plan: PlanCase, signed: GateSignature) -> Certificate:
    return replace(certificate_of(plan, APPROVERS[:1]), further_approvals=(signed,))


@pytest.mark.parametrize(
    ("reason", "signed"),
    [
        ("GATE_SAME_PERSON", lambda plan: plan.gate(Gate.APPROVE, APPROVERS[0])),
        ("GATE_ROLE", lambda plan: plan.gate(Gate.APPROVE, "alice")),
        ("GATE_ROLE", lambda plan: plan.gate(Gate.APPROVE, "dave")),
        ("GATE_WRONG", lambda plan: plan.gate(Gate.MAKE, "alice")),
        ("GATE_REJECTED", lambda plan: plan.gate(Gate.APPROVE, APPROVERS[1], verdict=Verdict.REJECT)),
        ("GATE_EXPIRED", lambda plan: plan.gate(Gate.APPROVE, APPROVERS[1], expires_at=NOW - timedelta(seconds=1))),
        ("GATE_SIGNATURE", lambda plan: plan.gate(Gate.APPROVE, "mallory")),
        ("GATE_PLAN_DIGEST", lambda _: payment(1_000).gate(Gate.APPROVE, APPROVERS[1])),
    ],
)
def test_the_second_signature_counts_like_the_first(reason: str, signed: Callable[[PlanCase], GateSignature]) -> None:
    """A further approval that is forged, run out, refused, of another plan or by the same person is none, and spoils the certificate."""
    plan = payment(1_000)
    assert refused(lambda: follow(plan, _further(plan, signed(plan)), registry_with(FOUR_EYES))) == reason


# -- Agents --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "minor_units", "reason"),
    [
        (rule_with(Gate.MAKE), 1, "GATE_AGENT"),
        (rule_with(Gate.APPROVE, agents=True, agent_limits=(Limit(EUR, 500),)), 500, ""),
        (rule_with(Gate.APPROVE, agents=True, agent_limits=(Limit(EUR, 500),)), 501, "GATE_AGENT"),
        (rule_with(Gate.APPROVE, agents=True, agent_limits=(Limit(TOKEN, 500),)), 1, "GATE_AGENT"),
        (rule_with(Gate.APPROVE, agents=True, agent_limits=None), 10**17, ""),
        (rule_with(Gate.RELEASE, agents=True, agent_limits=None), 1, "GATE_AGENT"),
    ],
)
def test_agents_sign_where_the_matrix_lets_them(matrix: Matrix, minor_units: int, reason: str) -> None:
    """An agent opens a gate only where the matrix says so, and up to its amount; its own limits count besides."""
    plan = payment(minor_units)
    agent = actor_of("bob", [Role.APPROVER], agent=True)
    assert signed_by(plan, Gate.APPROVE, "bob", registry_with(matrix, [agent])) == reason
    bound = replace(agent, limits=(RoleLimits(Role.APPROVER, (Limit(EUR, minor_units - 1),)),))
    assert signed_by(plan, Gate.APPROVE, "bob", registry_with(matrix, [bound])) == (reason or "GATE_LIMIT")


# -- What the coordinator lets through, participants follow --------------------------------------------------------------

LIMITS = st.none() | st.builds(lambda euro, token: (Limit(EUR, euro), Limit(TOKEN, token)), st.integers(0, 40), st.integers(0, 40))


def _thresholds(draw: st.DrawFn, below: int) -> tuple[Threshold, ...]:
    asset = draw(st.sampled_from([EUR, TOKEN]))
    first = draw(st.integers(below, 40))
    return (Threshold(asset, first, 2), Threshold(asset, first + draw(st.integers(1, 20)), 3))[: draw(st.integers(0, 2))]


@st.composite
def situations(draw: st.DrawFn) -> tuple[PlanCase, Registry, Certificate]:
    """A matrix, persons and agents with limits, and a plan with whose signatures chance has it."""
    agent_limit = draw(st.integers(0, 20))
    rules = {
        gate: replace(
            MATRIX.gates[gate],
            thresholds=() if gate is Gate.MAKE else _thresholds(draw, agent_limit + 1),
            agents=draw(st.integers(0, 3)) > 0,
            agent_limits=(Limit(EUR, agent_limit), Limit(TOKEN, agent_limit)),
        )
        for gate in (Gate.MAKE, Gate.APPROVE, Gate.RELEASE)
    }
    matrix = replace(MATRIX, version=2, gates={**MATRIX.gates, **rules})
    check_matrix(matrix)
    people = [("alice", Role.MAKER), *((name, Role.APPROVER) for name in APPROVERS), *((name, Role.RELEASER) for name in RELEASERS)]
    actors = [actor_of(name, [role], draw(LIMITS), agent=draw(st.integers(0, 7)) == 0) for name, role in people]
    own = [actor for actor in registry_of().actors if actor.actor_id not in {each.actor_id for each in actors}]
    registry = Registry([*own, *actors], registry_of().participants, [MATRIX, matrix])
    amounts = draw(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), min_size=1, max_size=3))
    legs = [
        leg_of(f"leg-{index}", credit_terms(units) if cash else token_terms(units)) for index, (cash, units) in enumerate(amounts)
    ]
    plan = plan_of([*legs, leg_of("journal", Journal())], sod_version=2)
    shown = certificate_of(
        plan,
        draw(st.lists(st.sampled_from(APPROVERS), min_size=1, unique=True)),
        draw(st.lists(st.sampled_from(RELEASERS), min_size=1, unique=True)),
    )
    return plan, registry, shown


def lets_through(plan: PlanCase, registry: Registry, shown: Certificate) -> bool:
    """What the coordinator asks of the gates, by the sums over all legs."""
    scope = scope_of(plan.header, plan.legs)
    try:
        for gate, signatures in shown.gates:
            people = {check_gate(signed, gate, scope, registry, shown.decided_at).actor_id for signed in signatures}
            if len(people) < signatures_needed(registry.matrices[2], gate, scope):
                return False
    except NotAuthorised:
        return False
    return True


@settings(max_examples=120, deadline=None)
@given(situations())
def test_participants_follow_what_the_coordinator_lets_through(situation: tuple[PlanCase, Registry, Certificate]) -> None:
    """With equal registries: after COMMIT there is only forward, so no participant may find a limit or a missing signature then."""
    plan, registry, shown = situation
    if lets_through(plan, registry, shown):
        follow(plan, shown, registry)


def test_the_property_sees_a_rule_that_is_not_monotone() -> None:
    """A rule under which less money takes more signatures breaks it: the property is no tautology."""
    honest = sod.signatures_needed

    def inverted(matrix: Matrix, gate: Gate, scope: sod.Scope) -> int:
        return 4 - honest(matrix, gate, scope)

    plan, registry = payment(600, 600), registry_with(FOUR_EYES)
    shown = certificate_of(plan, APPROVERS[:2], RELEASERS)
    with patch.object(checks, "signatures_needed", inverted):
        assert refused(lambda: follow(plan, shown, registry)) == "GATE_SIGNATURES"


# -- Seeded bugs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "broken", "situation"),
    [
        ("affords", lambda *_: True, "limit"),
        ("admits", lambda *_: True, "agent"),
        ("signatures_needed", lambda *_: 1, "eyes"),
        ("bounded", lambda *_: False, "limit"),
    ],
)
def test_seeded_bugs_are_caught(rule: str, broken: Callable[..., object], situation: str) -> None:
    """Each rule of limits, agents and four eyes is the one thing that refuses a forged certificate."""
    plan = payment(1_000)
    limited = [actor_of("bob", [Role.APPROVER], (Limit(EUR, 999),))]
    agent = [actor_of("bob", [Role.APPROVER], agent=True)]
    registry = {
        "limit": registry_with(rule_with(Gate.MAKE), limited),
        "agent": registry_with(rule_with(Gate.MAKE), agent),
        "eyes": registry_with(FOUR_EYES),
    }[situation]
    shown = certificate_of(plan)
    assert refused(lambda: follow(plan, shown, registry)) in ("GATE_LIMIT", "GATE_AGENT", "GATE_SIGNATURES")
    with patch.object(checks, rule, broken):
        follow(plan, shown, registry)
