"""Plans in batches against a real registry: what is answered and when, what can be proven, and what stands on the chain."""

from __future__ import annotations

import json

import pytest
from notary_world import LEG, NotaryWorld

from lockstep.notary.v1 import anchor_pb2
from lockstep_contracts.events import Anchored
from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_kit import merkle
from lockstep_kit.convert import outcome_from_pb, vote_from_pb
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.plan import Anchoring
from lockstep_kit.statements import BatchEvidence, OutcomeKind, Promise
from lockstep_testkit import commands
from lockstep_testkit.factories import PlanCase
from lockstep_testkit.participant_conformance import DONE, ParticipantConformance, ParticipantHarness
from lockstep_testkit.strict_node import StrictNode

POLICIES = (Anchoring.BATCHED, Anchoring.DEFERRED)


class TestBatched(ParticipantConformance):
    @pytest.fixture
    def harness(self, world: NotaryWorld) -> ParticipantHarness:
        return world.harness_of(Anchoring.BATCHED)


class TestDeferred(ParticipantConformance):
    @pytest.fixture
    def harness(self, world: NotaryWorld) -> ParticipantHarness:
        return world.harness_of(Anchoring.DEFERRED)


def proven(plan: PlanCase, proof: anchor_pb2.PlanProof) -> dict[str, object]:
    """What a leaf says, once its path leads to its root."""
    leaf = merkle.leaf_hash(proof.leaf_data)
    assert merkle.root_from_path(leaf, proof.leaf_index, proof.tree_size, proof.path) == proof.root_hash
    prefix, _, document = proof.leaf_data.partition(b"\n")
    assert prefix == b"lockstep/anchor/v1"
    said: dict[str, object] = json.loads(document)
    assert (said["version"], said["plan_digest"]) == (1, plan.header.digest.hex())
    return said


async def test_batched_answers_when_the_root_is_final(world: NotaryWorld) -> None:
    """Vote and Done name a root that the registry holds; the plan's paths lead there; the plan has no entry of its own."""
    harness = world.harness_of(Anchoring.BATCHED)
    plan = await harness.plan()
    vote = vote_from_pb((prepared := await harness.prepare(plan)).report.vote).vote.answer
    assert isinstance(vote, Promise)
    assert isinstance(vote.evidence, BatchEvidence)
    assert vote.evidence.root is not None
    done = outcome_from_pb((await harness.commit(plan, prepared.report)).report.outcome).outcome
    assert isinstance(done.evidence, BatchEvidence)
    assert done.evidence.root is not None
    read = await world.read(plan)
    registration, ending = read.registration_proof, read.outcome_proof
    assert proven(plan, registration)["kind"] == "registration"
    assert merkle.leaf_hash(registration.leaf_data) == vote.evidence.leaf_hash
    said = proven(plan, ending)
    assert (said["kind"], said["outcome"], read.outcome) == ("outcome", "Committed", "Committed")
    async with world.service.database.as_owner() as connection:
        closing = await connection.fetchval("select closing from participant_leg where plan_id = $1", plan.plan_id)
    assert bytes.fromhex(str(said["evidence_digest"])) in closing
    for proof, evidence in ((registration, vote.evidence), (ending, done.evidence)):
        assert evidence.root is not None
        assert proof.root_hash == proof.anchor.root_hash == evidence.root.entry_key
        assert await world.anchors(proof.root_hash) == [Anchored(AnchorKind(proof.anchor.kind), proof.root_hash, proof.tree_size)]
        assert await world.shows(proof.anchor)
    assert await world.status(plan) is PlanStatus.NONE
    assert not read.HasField("registration")


async def test_many_plans_share_a_root(world: NotaryWorld) -> None:
    """Plans that come together go under one root, and each has a path of its own."""
    harness = world.harness_of(Anchoring.BATCHED)
    plans = [await harness.plan() for _ in range(20)]
    await harness.stub.Prepare(commands.prepare_request(*(commands.prepare(plan, LEG) for plan in plans), wait=5), timeout=60)
    proofs = []
    for plan in plans:
        assert (await harness.prepare(plan)).verdict == DONE
        proofs.append((await world.read(plan)).registration_proof)
        proven(plan, proofs[-1])
    assert len({proof.root_hash for proof in proofs}) == 1
    assert sorted(proof.leaf_index for proof in proofs) == list(range(20))


@pytest.mark.parametrize("anchoring", POLICIES)
@pytest.mark.parametrize(
    ("outcome", "said"),
    [(PlanOutcome.ABORTED, "Aborted"), (PlanOutcome.REVERSED, "Aborted"), (PlanOutcome.MIXED, "Mixed")],
)
async def test_what_did_not_commit(world: NotaryWorld, anchoring: Anchoring, outcome: PlanOutcome, said: str) -> None:
    """A plan that is closed otherwise has a leaf that says so."""
    harness = world.harness_of(anchoring)
    plan = await harness.plan()
    await harness.prepare(plan)
    command = commands.abort(plan, LEG, closing=plan.closing(outcome))
    answer = await harness.settled(lambda: harness.send_abort(command))
    assert outcome_from_pb(answer.report.outcome).outcome.kind is OutcomeKind.RELEASED
    read = await world.anchored(plan)
    assert (proven(plan, read.outcome_proof)["outcome"], read.outcome) == (said, said)


@pytest.mark.parametrize("anchoring", POLICIES)
async def test_a_plan_that_was_aborted_first_is_never_registered(world: NotaryWorld, anchoring: Anchoring) -> None:
    """An abort that comes first stands alone, whoever tries to register the plan afterwards."""
    harness = world.harness_of(anchoring)
    plan = await harness.plan()
    assert (await harness.abort(plan)).verdict == DONE
    await harness.prepare(plan)
    read = await world.anchored(plan)
    assert not read.HasField("registration_proof")
    assert read.outcome == "Aborted"


async def test_deferred_goes_on_while_the_chain_is_down(world: NotaryWorld, endpoint: StrictNode) -> None:
    """A deferred plan is prepared and committed without the chain; it is said to be anchored only when it is, and then it can be proven."""
    harness = world.harness_of(Anchoring.DEFERRED)
    plan = await harness.plan()
    endpoint.faults.down = True
    try:
        prepared = await harness.prepare(plan)
        vote = vote_from_pb(prepared.report.vote).vote.answer
        assert isinstance(vote, Promise)
        assert isinstance(vote.evidence, BatchEvidence)
        assert vote.evidence.root is None
        done = await harness.commit(plan, prepared.report)
        assert done.verdict == DONE
        read = await world.batched(plan)
        assert proven(plan, read.outcome_proof)["outcome"] == "Committed"
        assert not read.outcome_proof.HasField("anchor")
    finally:
        endpoint.faults.down = False
    read = await world.anchored(plan)
    assert await world.shows(read.registration_proof.anchor)
    assert await world.shows(read.outcome_proof.anchor)
