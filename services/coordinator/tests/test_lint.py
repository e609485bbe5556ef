"""Plan lint: one named refusal per rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from coordinator.checks import Rules, judge
from coordinator.compliance import Compliance, barred_party
from coordinator.dossier import Dossier, LegFile, new_plan
from coordinator.lint import Installation, check_capabilities, check_plan
from coordinator.model import CheckFailed, ChecksPassed, GateRecord
from coordinator.participants import Routes
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import ActorId, Digest
from lockstep_kit.participant.ports import AssetCapability, Capabilities
from lockstep_kit.plan import Anchoring, Journal, Leg, LegKind, Notarisation, Policy
from lockstep_kit.statements import Gate, PromiseKind, Verdict
from lockstep_testkit.factories import (
    CHAIN,
    PARTICIPANTS,
    PlanCase,
    address_of,
    credit_terms,
    delivery_versus_payment,
    instrument_terms,
    leg_of,
    plan_of,
    token_terms,
)

NOW = datetime.now(UTC)
DEADLINE = NOW + timedelta(hours=1)
ROUTES = Routes(PARTICIPANTS)
KNOWN = Installation(
    assets={token_terms().amount.asset: 6, "EUR": 2},
    chains=frozenset({CHAIN}),
    escrows=frozenset({address_of("escrow")}),
    registries=frozenset({address_of("registry")}),
    banks=frozenset({"COBADEFF", "BNPAFRPP"}),
    sod_versions=frozenset({1}),
    deadline_min=timedelta(seconds=10),
    deadline_max=timedelta(days=7),
    delivery_margin=timedelta(minutes=10),
)
FIRM = Capabilities(("token_transfer", "credit_transfer", "notarisation", "journal"), PromiseKind.GUARANTEED, None)
NOTARISATION, JOURNAL = Notarisation(CHAIN, address_of("registry")), Journal()


def evidence() -> tuple[Leg, Leg]:
    return leg_of("notarisation", NOTARISATION), leg_of("journal", JOURNAL)


def refusal(plan: PlanCase, known: Installation = KNOWN, **changes: Any) -> str:
    """Field and rule of the refusal, or ""."""
    header = replace(plan.header, **changes)
    make = replace(plan, header=header).gate(Gate.MAKE, expires_at=plan.header.deadline)
    try:
        check_plan(header, plan.legs, make, known, NOW)
    except FieldInvalid as finding:
        return str(finding)
    return ""


def legs(*made: Leg) -> PlanCase:
    return plan_of(made, deadline=DEADLINE)


def test_a_good_plan_passes() -> None:
    """A plan that breaks no rule is accepted."""
    assert refusal(delivery_versus_payment(deadline=DEADLINE)) == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"legs_root": Digest(bytes(32))}, "header.legs_root must be the Merkle root"),
        ({"leg_count": 5}, "header.leg_count must be the number of legs"),
        ({"deadline": NOW - timedelta(seconds=1)}, "header.deadline must be in the future"),
        ({"deadline": NOW + timedelta(seconds=5)}, "header.deadline must be at least 10 seconds away"),
        ({"deadline": NOW + timedelta(days=8)}, "header.deadline must be at most 604800 seconds away"),
        ({"deadline": DEADLINE + timedelta(seconds=1)}, "make.expire_time must not be before the plan's deadline"),
        ({"sod_version": 2}, "header.sod_version must be a version that is in force"),
    ],
)
def test_heads(changes: dict[str, Any], expected: str) -> None:
    """Each rule about a plan's head names its field."""
    assert refusal(delivery_versus_payment(deadline=DEADLINE), **changes).startswith(expected)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (legs(leg_of("a", token_terms()), leg_of("a", credit_terms()), *evidence()), "legs[1].leg_id must be unique"),
        (legs(*evidence()), "legs must hold at least one leg that moves value"),
        (legs(leg_of("a", token_terms()), leg_of("j", JOURNAL)), "legs must hold exactly one notarisation leg"),
        (legs(leg_of("a", token_terms()), leg_of("n", NOTARISATION)), "legs must hold exactly one journal leg"),
        (legs(leg_of("a", token_terms()), leg_of("x", JOURNAL), *evidence()), "legs must hold exactly one journal leg"),
        (legs(leg_of("a", token_terms(), "a"), *evidence()), "legs[0].depends_on[0] must not name the leg itself"),
        (legs(leg_of("a", token_terms(), "z"), *evidence()), "legs[0].depends_on[0] must name a leg of this plan"),
        (legs(leg_of("a", token_terms(), "journal"), *evidence()), "legs[0].depends_on[0] must name a leg of this plan that moves"),
        (
            legs(leg_of("a", token_terms(), "b"), leg_of("b", credit_terms(), "a"), *evidence()),
            "legs[0].depends_on must not lead back",
        ),
        (
            legs(leg_of("a", token_terms()), leg_of("notarisation", NOTARISATION, "a"), leg_of("journal", JOURNAL)),
            "legs[1].depends_on must be empty for evidence legs",
        ),
        (legs(leg_of("a", credit_terms(currency="USD")), *evidence()), "legs[0].credit_transfer.amount.asset must be an asset"),
        (legs(leg_of("a", token_terms(scale=7)), *evidence()), "legs[0].token_transfer.amount.scale must be 6"),
        (
            legs(leg_of("a", token_terms(token=address_of("other"))), *evidence()),
            "legs[0].token_transfer.amount.asset must be an asset of this installation",
        ),
        (
            legs(leg_of("a", replace(token_terms(), escrow=address_of("other"))), *evidence()),
            "legs[0].token_transfer.escrow must be an escrow contract of this installation",
        ),
        (
            legs(leg_of("a", token_terms()), leg_of("n", Notarisation("eip155:1", address_of("registry"))), leg_of("j", JOURNAL)),
            "legs[1].notarisation.chain must be a chain",
        ),
        (
            legs(leg_of("a", token_terms()), leg_of("n", Notarisation(CHAIN, address_of("other"))), leg_of("j", JOURNAL)),
            "legs[1].notarisation.registry must be a notary registry",
        ),
    ],
)
def test_legs(plan: PlanCase, expected: str) -> None:
    """Each rule about legs names leg and field."""
    assert refusal(plan).startswith(expected)


def test_places_that_are_not_here() -> None:
    """A chain or a bank that this installation does not reach is refused by name."""
    plan = delivery_versus_payment(deadline=DEADLINE)
    assert refusal(plan, replace(KNOWN, chains=frozenset())).startswith("legs[0].token_transfer.amount.asset must be on a chain")
    only = replace(KNOWN, banks=frozenset({"COBADEFF"}))
    assert refusal(plan, only).startswith("legs[1].credit_transfer.creditor.agent_bic must be a bank")


def test_the_maker_asks_for_the_plan() -> None:
    """The maker's signature is an approval of the gate MAKE."""
    plan = delivery_versus_payment(deadline=DEADLINE)
    for gate, verdict, field in ((Gate.CANCEL, Verdict.APPROVE, "make.gate"), (Gate.MAKE, Verdict.REJECT, "make.verdict")):
        with pytest.raises(FieldInvalid, match=field):
            check_plan(plan.header, plan.legs, plan.gate(gate, verdict=verdict), KNOWN, NOW)


def capable(**by_kind: Capabilities) -> dict[str, Capabilities]:
    return dict.fromkeys(PARTICIPANTS.values(), FIRM) | {PARTICIPANTS[LegKind(kind)]: can for kind, can in by_kind.items()}


def refused(plan: PlanCase, capabilities: dict[str, Capabilities]) -> str:
    try:
        check_capabilities(plan.header, plan.legs, capabilities, ROUTES, KNOWN.delivery_margin, NOW)
    except FieldInvalid as finding:
        return str(finding)
    return ""


def test_capabilities() -> None:
    """A plan asks no participant for what it says it cannot do."""
    plan = delivery_versus_payment(deadline=DEADLINE)
    asset = AssetCapability(token_terms().amount.asset, 6)
    assert refused(plan, capable()) == ""
    assert refused(plan, {}) == ""
    told = capable(journal=replace(FIRM, leg_kinds=()))
    assert refused(plan, told).startswith("legs[3].terms must be of a kind that event-journal serves")
    told = capable(token_transfer=replace(FIRM, assets=(replace(asset, asset="EUR"),)))
    assert refused(plan, told).startswith("legs[0].token_transfer.amount.asset")
    told = capable(token_transfer=replace(FIRM, assets=(replace(asset, scale=5),)))
    assert refused(plan, told).startswith("legs[0].token_transfer.amount.scale")
    for kind, field in (
        ("token_transfer", "legs[0].token_transfer.escrow"),
        ("credit_transfer", "legs[1].credit_transfer.debtor.agent_bic"),
        ("notarisation", "legs[2].notarisation.registry"),
    ):
        assert refused(plan, capable(**{kind: replace(FIRM, venues=("elsewhere",))})).startswith(field)


def test_ways_of_anchoring() -> None:
    """A plan that is to go into batches names a way that its notary serves; one that says nothing of it needs none."""
    for anchoring in Anchoring:
        terms = replace(NOTARISATION, anchoring=anchoring)
        plan = plan_of([leg_of("a", token_terms()), leg_of("n", terms), leg_of("j", JOURNAL)], deadline=DEADLINE)
        (other,) = set(Anchoring) - {anchoring}
        for served, field in (
            ((anchoring,), ""),
            ((other,), "legs[1].notarisation.anchoring"),
            ((), "legs[1].notarisation.anchoring"),
        ):
            finding = refused(plan, capable(notarisation=replace(FIRM, anchorings=served)))
            assert finding.startswith(field)
            assert bool(finding) == bool(field)


def test_promises_last_long_enough() -> None:
    """Deadline plus delivery margin lies within the longest promise."""
    plan = delivery_versus_payment(deadline=DEADLINE)
    enough = replace(FIRM, promise_max=timedelta(minutes=71))
    assert refused(plan, capable(credit_transfer=enough)) == ""
    short = replace(FIRM, promise_max=timedelta(minutes=69))
    assert refused(plan, capable(credit_transfer=short)).startswith("header.deadline must leave room")


@pytest.mark.parametrize(
    "soft", [replace(FIRM, promise_max=timedelta(days=1)), replace(FIRM, promise_kind=PromiseKind.BEST_EFFORT)]
)
def test_at_most_one_soft_leg(soft: Capabilities) -> None:
    """A second leg whose promise can lapse is refused, unless the signed policy accepts that risk."""
    told = capable(credit_transfer=soft, token_transfer=soft)
    assert refused(delivery_versus_payment(deadline=DEADLINE), capable(credit_transfer=soft)) == ""
    assert refused(delivery_versus_payment(deadline=DEADLINE), told).startswith("legs[1] must be the only one")
    assert refused(delivery_versus_payment(deadline=DEADLINE, policy=Policy(accept_expiry_risk=True)), told) == ""


def test_a_leg_whose_promise_can_lapse_waits_for_no_firm_one() -> None:
    """Such a leg goes before all others, so that it cannot depend on one that does not; on another like it, or of one that was not asked, it can."""
    pair = leg_of("bonds", token_terms()), leg_of("cash", credit_terms(), "bonds")
    plan = plan_of([*pair, *evidence()], deadline=DEADLINE, policy=Policy(accept_expiry_risk=True))
    soft = replace(FIRM, promise_max=timedelta(days=1))
    assert refused(plan, capable()) == ""
    assert refused(plan, capable(credit_transfer=soft)).startswith(
        "legs[1].depends_on[0] must be a leg whose promise can lapse too"
    )
    assert refused(plan, capable(credit_transfer=soft, token_transfer=soft)) == ""
    assert refused(plan, {PARTICIPANTS[LegKind.CREDIT_TRANSFER]: soft}) == ""


def secured(*, depends_on: str = "", expiry_date: date | None = None, **changes: Any) -> PlanCase:
    """Tokens and an undertaking."""
    terms = replace(instrument_terms(expiry_date=expiry_date), **changes)
    tokens = leg_of("tokens", token_terms(), *([depends_on] if depends_on else []))
    return legs(tokens, leg_of("guarantee", terms), *evidence())


LAST_DAY = (DEADLINE + KNOWN.delivery_margin).date()


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (secured(), ""),
        (secured(depends_on="guarantee"), "legs[0].depends_on[0] must name a leg that can be undone"),
        (
            legs(leg_of("a", instrument_terms()), leg_of("b", instrument_terms()), *evidence()),
            "legs[0] must be the plan's only irrevocable leg",
        ),
        (secured(expiry_date=LAST_DAY + timedelta(days=1)), ""),
        (secured(expiry_date=LAST_DAY), "legs[1].issue_instrument.expiry_date must be after"),
        (secured(issuing_bic="DEUTDEFF"), "legs[1].issue_instrument.issuing_bic must be a bank that this installation reaches"),
        (secured(amount=credit_terms(currency="USD").amount), "legs[1].issue_instrument.amount.asset must be an asset"),
    ],
)
def test_undertakings(plan: PlanCase, expected: str) -> None:
    """An undertaking is the plan's only one, nothing waits for it, it outlives the deadline, and the bank that issues it is known."""
    found = refusal(plan)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_undertakings_are_promised_without_an_end() -> None:
    """Beside a payment whose hold ends an undertaking is promised without an end, or the plan is refused; alone it may have one."""
    plan = legs(leg_of("cash", credit_terms()), leg_of("guarantee", instrument_terms()), *evidence())
    kinds = ("credit_transfer", "issue_instrument")
    soft = replace(FIRM, leg_kinds=kinds, promise_max=timedelta(days=1))
    assert refused(plan, capable(credit_transfer=replace(soft, firm_kinds=("issue_instrument",)))) == ""
    assert refused(plan, capable(credit_transfer=soft)).startswith("legs[1] must be promised without an end")
    assert refused(legs(leg_of("guarantee", instrument_terms()), *evidence()), capable(credit_transfer=soft)) == ""
    elsewhere = replace(soft, firm_kinds=("issue_instrument",), venues=("BNPAFRPP",))
    alone = legs(leg_of("guarantee", instrument_terms()), *evidence())
    assert refused(alone, capable(credit_transfer=elsewhere)).startswith("legs[0].issue_instrument.issuing_bic must be a bank")


def test_compliance() -> None:
    """Denied parties never pass; where some are allowed, only they do."""
    header = delivery_versus_payment(deadline=DEADLINE).header
    assert barred_party(header, Compliance()) == ""
    assert barred_party(header, Compliance(denied=frozenset({"seller"}))) == "seller"
    assert barred_party(header, Compliance(allowed=frozenset({"buyer"}))) == "seller"
    assert barred_party(header, Compliance(allowed=frozenset({"buyer", "seller"}))) == ""


def test_checks_wait_for_the_silent() -> None:
    """A plan is neither passed nor failed as long as a participant that it needs has said nothing."""
    plan = delivery_versus_payment(deadline=DEADLINE)
    files = tuple(LegFile(leg, ROUTES.of(leg.kind), plan.lock(leg.leg_id)) for leg in plan.legs)
    made = replace(new_plan(plan.header, plan.legs), gates=(GateRecord(plan.gate(Gate.MAKE), ActorId("alice"), NOW),))
    dossier = Dossier(made, plan.header, files, (), 1, NOW, NOW, None)
    rules = Rules(KNOWN, Compliance(), ROUTES)
    told = capable()
    assert judge(dossier, told, rules, NOW) == ChecksPassed()
    del told["notary"]
    assert judge(dossier, told, rules, NOW) is None
    barred = Rules(KNOWN, Compliance(denied=frozenset({"buyer"})), ROUTES)
    found = judge(dossier, told, barred, NOW)
    assert isinstance(found, CheckFailed)
    assert found.reason == "COMPLIANCE_FAILED"
    found = judge(dossier, capable(journal=replace(FIRM, leg_kinds=())), rules, NOW)
    assert isinstance(found, CheckFailed)
    assert (found.reason, found.leg_id) == ("CHECK_FAILED", "journal")
