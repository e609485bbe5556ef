"""Reports: only what the right participant signed about this very leg is news."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator import reports
from coordinator.dossier import Dossier, LegFile, new_plan
from coordinator.model import LegNews, PersonNeeded
from coordinator.participants import Routes
from coordinator.reports import LegReport
from lockstep_kit.fence import Phase
from lockstep_kit.ids import Digest, LegId
from lockstep_kit.statements import OutcomeKind, Refusal, SignedOutcome, SignedVote
from lockstep_testkit.factories import KEYS_FROM, PARTICIPANTS, PlanCase, delivery_versus_payment, registry_of

REGISTRY, ROUTES = registry_of(), Routes(PARTICIPANTS)
NO = Refusal("BANK_PREPARE_FAILED", "AM04")


@pytest.fixture
def plan() -> PlanCase:
    return delivery_versus_payment()


def dossier_of(plan: PlanCase) -> Dossier:
    files = tuple(LegFile(leg, ROUTES.of(leg.kind), plan.lock(leg.leg_id)) for leg in plan.legs)
    return Dossier(new_plan(plan.header, plan.legs), plan.header, files, (), 1, KEYS_FROM, KEYS_FROM, None)


def report(
    plan: PlanCase, phase: Phase = Phase.PREPARED, *, vote: SignedVote | None = None, outcome: SignedOutcome | None = None
) -> LegReport:
    return LegReport(plan.plan_id, LegId("cash"), plan.header.digest, phase, 2, vote, outcome, "")


def admit(plan: PlanCase, told: LegReport, sender: str = "bank-gateway") -> LegNews | PersonNeeded:
    (event,) = reports.admit(told, sender, dossier_of(plan), REGISTRY)
    return event


def test_news(plan: PlanCase) -> None:
    """A phase that a signed vote or outcome bears out is news."""
    for phase, vote, kind in (
        (Phase.PREPARING, None, None),
        (Phase.PREPARED, plan.vote("cash"), None),
        (Phase.REFUSED, plan.vote("cash", NO), None),
        (Phase.REFUSED, plan.vote("cash"), OutcomeKind.REFUSED),
        (Phase.COMMITTED, plan.vote("cash"), OutcomeKind.DONE),
        (Phase.RELEASED, None, OutcomeKind.RELEASED),
    ):
        outcome = plan.outcome("cash", kind) if kind else None
        assert isinstance(admit(plan, report(plan, phase, vote=vote, outcome=outcome)), LegNews), phase


@pytest.mark.parametrize("phase", [Phase.PREPARED, Phase.REFUSED, Phase.COMMITTING, Phase.COMMITTED, Phase.RELEASED])
def test_nothing_is_believed_unsigned(plan: PlanCase, phase: Phase) -> None:
    """A phase that nothing signed bears out is no news: a person is called."""
    found = admit(plan, report(plan, phase))
    assert isinstance(found, PersonNeeded)
    assert found.reason == "PARTICIPANT_SIGNATURE"
    wrong = plan.outcome("cash", OutcomeKind.RELEASED if phase is not Phase.RELEASED else OutcomeKind.DONE)
    assert isinstance(admit(plan, report(plan, phase, outcome=wrong)), PersonNeeded)


def test_what_does_not_match(plan: PlanCase) -> None:
    """Another plan, another lock, another participant, a foreign signature: never news."""
    other = delivery_versus_payment()
    good = plan.vote("cash")
    for told, sender in (
        (report(plan, vote=good), "dlt-gateway"),
        (replace(report(plan, vote=good), plan_digest=Digest(bytes(32))), "bank-gateway"),
        (report(plan, vote=plan.with_lock_of(other).vote("cash")), "bank-gateway"),
        (report(plan, vote=plan.vote("cash", signed_by="dlt-gateway")), "bank-gateway"),
        (report(plan, vote=plan.vote("tokens")), "bank-gateway"),
        (report(plan, vote=other.vote("cash")), "bank-gateway"),
        (report(plan, Phase.COMMITTED, outcome=plan.outcome("cash", participant="dlt-gateway")), "bank-gateway"),
        (report(plan, Phase.COMMITTED, outcome=other.outcome("cash")), "bank-gateway"),
    ):
        found = admit(plan, told, sender)
        assert isinstance(found, PersonNeeded), told
        assert found.reason == "PARTICIPANT_SIGNATURE"


def test_a_vote_never_changes(plan: PlanCase) -> None:
    """Another vote than the known one calls a person; a report without it does not take it away. An outcome beside it is heard all the same."""
    dossier = dossier_of(plan)
    vote = plan.vote("cash")
    legs = tuple(replace(leg, vote=vote, revision=2) if leg.leg_id == "cash" else leg for leg in dossier.plan.legs)
    dossier = replace(dossier, plan=replace(dossier.plan, legs=legs))
    changed = replace(report(plan, Phase.REFUSED, vote=plan.vote("cash", NO)), revision=3)
    (called,) = reports.admit(changed, "bank-gateway", dossier, REGISTRY)
    assert isinstance(called, PersonNeeded)
    assert called.reason == "PARTICIPANT_CONTRADICTS"
    released = replace(changed, phase=Phase.RELEASED, outcome=plan.outcome("cash", OutcomeKind.RELEASED), revision=4)
    news, again = reports.admit(released, "bank-gateway", dossier, REGISTRY)
    assert again == called
    assert isinstance(news, LegNews)
    assert (news.phase, news.vote, news.outcome) == (Phase.RELEASED, vote, released.outcome)
    silent = replace(report(plan, Phase.COMMITTED, outcome=plan.outcome("cash")), revision=3)
    (news,) = reports.admit(silent, "bank-gateway", dossier, REGISTRY)
    assert isinstance(news, LegNews)
    assert news.vote == vote
    assert reports.admit(replace(silent, revision=2), "bank-gateway", dossier, REGISTRY) == ()


def test_a_leg_that_is_not_there(plan: PlanCase) -> None:
    """A report of a leg that the plan does not have calls a person."""
    assert isinstance(admit(plan, replace(report(plan), leg_id=LegId("else"))), PersonNeeded)


def test_a_reversal_is_believed_signed(plan: PlanCase) -> None:
    """REVERSED is news only with the signed reversal beside the signed Done; what is no answer to an order to reverse is none in its place."""
    done, order = plan.outcome("cash"), Digest(bytes(32))
    undone = plan.outcome("cash", OutcomeKind.REVERSED, order=order)
    stays = plan.outcome("cash", OutcomeKind.REVERSAL_REFUSED, order=order)
    stranger = plan.outcome("cash", OutcomeKind.REVERSED, order=order, participant="notary")
    told = {
        (Phase.REVERSING, done, None): True,
        (Phase.REVERSED, done, undone): True,
        (Phase.COMMITTED, done, stays): True,
        (Phase.REVERSING, None, None): False,
        (Phase.REVERSED, done, None): False,
        (Phase.REVERSED, done, stays): False,
        (Phase.REVERSED, None, undone): False,
        (Phase.REVERSED, done, stranger): False,
        (Phase.COMMITTED, done, done): False,
    }
    for (phase, outcome, reversal), believed in told.items():
        found = admit(plan, replace(report(plan, phase, outcome=outcome), reversal=reversal))
        assert isinstance(found, LegNews if believed else PersonNeeded), (phase, outcome, reversal)
