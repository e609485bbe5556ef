"""Plans in batches, and roots, as pure rules: what is recorded, what is answered, what is sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from notary_world import LEG, plan_over

from lockstep_chain.judging import Stuck
from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_kit.certificate import Binding
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import sha256
from lockstep_kit.merkle import leaf_hash
from lockstep_kit.participant.ports import Completion, LegWork, PlanOutcome
from lockstep_kit.plan import Anchoring
from lockstep_kit.statements import BatchEvidence, ChainEvidence
from lockstep_testkit.factories import CHAIN, address_of, leg_work
from notary.anchors.judging import Again, Never, Order, Stands, Waits
from notary.anchors.judging import judge as judge_root
from notary.anchors.leaves import Ending, Registration
from notary.anchors.rules import UNKNOWN, Leaf, Standing, judge, missing, recorded

PLAN = plan_over(address_of("registry"), anchoring=Anchoring.BATCHED)
DIGEST = PLAN.header.digest
ROOT = ChainEvidence(CHAIN, address_of("registry"), sha256(b"root"), "Outcomes", sha256(b"transaction"), 17, sha256(b"block"))
REGISTERED = Standing(Leaf(Registration(DIGEST)))
ENDINGS = {
    status: Leaf(Ending(DIGEST, status, sha256(b"evidence")))
    for status in (PlanStatus.COMMITTED, PlanStatus.ABORTED, PlanStatus.MIXED)
}


def work(phase: Phase, outcome: PlanOutcome | None = None, anchoring: Anchoring = Anchoring.BATCHED) -> LegWork:
    plan = plan_over(address_of("registry"), anchoring=anchoring) if anchoring is not Anchoring.BATCHED else PLAN
    binding: Binding = plan.binding(LEG)
    return leg_work(binding, phase, closing=None if outcome is None else plan.closing(outcome))


def kinds(phase: Phase, standing: Standing, outcome: PlanOutcome | None = None) -> list[AnchorKind]:
    return [each.kind for each in missing(work(phase, outcome), standing)]


def test_leaves_are_for_ever() -> None:
    """What a leaf says, byte for byte: a golden vector."""
    digest, evidence = bytes(range(32)), bytes([255] * 32)
    assert Registration(digest).leaf_data() == (
        b"lockstep/anchor/v1\n"
        b'{"kind":"registration","plan_digest":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","version":1}'
    )
    data = Ending(digest, PlanStatus.MIXED, evidence).leaf_data()
    assert data == (
        b"lockstep/anchor/v1\n"
        b'{"evidence_digest":"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff","kind":"outcome","outcome":"Mixed",'
        b'"plan_digest":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","version":1}'
    )
    assert leaf_hash(data).hex() == "54931ef881434800a39174adfe202909efc544ae3c3fbf955e4dbd29e2545244"


def test_what_is_recorded() -> None:
    """A registration at Prepare, an outcome at the end, each once; what was lost with a restored database is recorded anew, but never after an abort."""
    registrations, outcomes = AnchorKind.REGISTRATIONS, AnchorKind.OUTCOMES
    assert kinds(Phase.PREPARING, UNKNOWN) == [registrations]
    assert kinds(Phase.PREPARING, REGISTERED) == []
    assert kinds(Phase.COMMITTING, REGISTERED, PlanOutcome.COMMITTED) == [outcomes]
    assert kinds(Phase.COMMITTING, UNKNOWN, PlanOutcome.COMMITTED) == [registrations, outcomes]
    assert kinds(Phase.ABORTING, UNKNOWN, PlanOutcome.ABORTED) == [outcomes]
    assert kinds(Phase.ABORTING, UNKNOWN) == [outcomes]
    assert kinds(Phase.ABORTING, UNKNOWN, PlanOutcome.REVERSED) == [outcomes]
    assert kinds(Phase.ABORTING, UNKNOWN, PlanOutcome.MIXED) == [registrations, outcomes]
    for ending in ENDINGS.values():
        for phase in (Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING):
            assert kinds(phase, Standing(None, ending), PlanOutcome.COMMITTED) == []


@pytest.mark.parametrize("status", ENDINGS)
def test_the_first_outcome_is_the_only_one(status: PlanStatus) -> None:
    """Whatever is asked after an outcome, it is the outcome that is answered, or nothing that contradicts it."""
    standing = Standing(REGISTERED.registration, replace(ENDINGS[status], root=ROOT))
    prepared = judge(work(Phase.PREPARING), standing)
    assert isinstance(prepared, Completion)
    assert prepared.finding is Finding.VOTED_NO
    committed = judge(work(Phase.COMMITTING, PlanOutcome.COMMITTED), standing)
    assert isinstance(committed, Completion)
    assert committed.finding is (Finding.REFUSED if status is PlanStatus.ABORTED else Finding.EXECUTED)
    aborted = judge(work(Phase.ABORTING, PlanOutcome.ABORTED), standing)
    if status is PlanStatus.COMMITTED:
        assert isinstance(aborted, Stuck)
    else:
        assert isinstance(aborted, Completion)
        assert aborted.finding is Finding.RELEASED


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING])
def test_who_waits_for_the_block(phase: Phase) -> None:
    """A batched leg is answered with its root, once that is final; a deferred one at once, and says of no root that it stands before it does."""
    outcome = {Phase.COMMITTING: PlanOutcome.COMMITTED, Phase.ABORTING: PlanOutcome.ABORTED}.get(phase)
    asked = work(phase, outcome)
    after = recorded(UNKNOWN if phase is Phase.PREPARING else REGISTERED, missing(asked, REGISTERED if outcome else UNKNOWN))
    assert judge(asked, after) is None
    anchored = Standing(*(None if each is None else replace(each, root=ROOT) for each in (after.registration, after.ending)))
    for each, standing, root in (
        (asked, anchored, ROOT),
        (work(phase, outcome, Anchoring.DEFERRED), after, None),
        (work(phase, outcome, Anchoring.DEFERRED), anchored, ROOT),
    ):
        answer = judge(each, standing)
        assert isinstance(answer, Completion)
        shown = answer.promise.evidence if answer.promise is not None else answer.evidence
        leaf = standing.ending or standing.registration
        assert leaf is not None
        assert shown == BatchEvidence(leaf_hash(leaf.saying.leaf_data()), root)


def test_roots_are_judged_by_the_registry() -> None:
    """Sent until the registry holds them, whatever becomes of a transaction; never once it holds them as something else."""
    kind, nothing = AnchorKind.CHECKPOINT, (AnchorKind.NONE, 0)
    settled = Order(1, settled=True, skip_code="MANUAL", skip_detail="the nonce was used", rested=True)
    assert judge_root(kind, 7, nothing, None) == Again()
    assert judge_root(kind, 7, nothing, replace(settled, settled=False)) == Waits()
    assert judge_root(kind, 7, nothing, replace(settled, rested=False)) == Waits()
    assert judge_root(kind, 7, nothing, settled) == Again("the nonce was used")
    assert isinstance(judge_root(kind, 7, nothing, replace(settled, skip_code="", skip_detail="")), Again)
    for order in (None, settled):
        assert judge_root(kind, 7, (kind, 7), order) == Stands()
        assert isinstance(judge_root(kind, 7, (kind, 8), order), Never)
        assert isinstance(judge_root(kind, 7, (AnchorKind.OUTCOMES, 7), order), Never)
