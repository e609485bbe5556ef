"""A coordinator in hostile hands, against real participants: what it sends is refused by name, and nothing moves; what they cannot see, the monitor raises."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockstep.participant.v1 import leg_pb2
from lockstep_kit.amounts import Amount
from lockstep_kit.canonical import time_text
from lockstep_kit.certificate import AbortAuthority, Certificate, DeadlinePassed, Decision
from lockstep_kit.convert import binding_to_pb, outcome_from_pb
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import PlanId, sha256
from lockstep_kit.plan import CreditTransfer, TokenTransfer, legs_root
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import (
    Gate,
    GateSignature,
    Refusal,
    SignedVote,
    Verdict,
    sign_gate,
    sign_vote,
    votes_digest,
)
from lockstep_sandbox import outside, scene
from lockstep_sandbox.monitoring import MONITOR, alarms
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit import commands
from lockstep_testkit.crew import Crew, draw_address
from lockstep_testkit.hostile import Held, HostileCoordinator, SandboxPlan, gate_document, leg_document

RAISED_SECONDS_MAX = 240.0
STRANGER = SigningKey(sha256(b"a key that the coordinator drew for itself"))
PREPARED, REJECTED = leg_pb2.LEG_PHASE_PREPARED, leg_pb2.COMMAND_VERDICT_REJECTED
SETTLING = ("bonds", "cash")


async def assert_untouched(hostile: HostileCoordinator, held: Held) -> None:
    """Both legs are as they were promised: at the participants, in the escrow, in the bank's book."""
    for leg_id in SETTLING:
        assert (await hostile.get(held.plan, leg_id)).phase == PREPARED
    assert (await outside.leg_status(hostile.sandbox, held.plan.header.digest, "bonds")).name == "PREPARED"
    assert await hostile.crew.transfers_to(held.payee) == []
    assert await hostile.crew.bookings(held.plan.plan_id, scene.SELLER.iban) == []


def released(held: Held, **changes: object) -> Certificate:
    """A certificate with these changes, over whose votes the releaser was brought to sign."""
    bent = replace(held.certificate, **changes)  # type: ignore[arg-type]  # any field
    return replace(bent, release=held.plan.gate(Gate.RELEASE, votes=bent.votes))


def without_approval(held: Held) -> Certificate:
    return replace(held.certificate, approve=held.certificate.make)


def by_its_own_key(held: Held) -> Certificate:
    return replace(held.certificate, approve=sign_gate(held.certificate.approve.statement, STRANGER))


def of_another_plan(held: Held) -> Certificate:
    other = replace(held.plan.header, plan_id=PlanId(str(uuid.uuid4())))
    statement = replace(held.certificate.approve.statement, plan_digest=other.digest)
    return replace(held.certificate, approve=sign_gate(statement, held.plan.keys["approver"]))


def replayed(held: Held) -> Certificate:
    """An older plan over the very same legs, with the same nonces: another deadline is another digest."""
    older = replace(held.plan.header, deadline=held.plan.header.deadline - timedelta(seconds=1)).digest

    def again(signed: GateSignature, person: str) -> GateSignature:
        return sign_gate(replace(signed.statement, plan_digest=older), held.plan.keys[person])

    told = held.certificate
    return replace(
        told, make=again(told.make, "maker"), approve=again(told.approve, "approver"), release=again(told.release, "releaser")
    )


def expired(held: Held) -> Certificate:
    over = held.plan.gate(Gate.APPROVE, expires_at=held.certificate.decided_at - timedelta(seconds=1))
    return replace(held.certificate, approve=over)


def refused(held: Held) -> Certificate:
    return replace(held.certificate, approve=held.plan.gate(Gate.APPROVE, verdict=Verdict.REJECT))


def by_one_person(held: Held) -> Certificate:
    """One person with every role, and one key for all of it."""
    release = held.plan.gate(Gate.RELEASE, "deputy", votes=held.certificate.votes)
    return replace(held.certificate, approve=held.plan.gate(Gate.APPROVE, "deputy"), release=release)


def by_the_wrong_role(held: Held) -> Certificate:
    return replace(held.certificate, approve=held.plan.gate(Gate.APPROVE, "releaser"))


def with_a_forged_vote(held: Held) -> Certificate:
    vote = held.votes["notarisation"].vote if "notarisation" in held.votes else held.votes["bonds"].vote
    votes = tuple(sign_vote(each.vote, STRANGER) if each.vote.leg_id == vote.leg_id else each for each in held.certificate.votes)
    return released(held, votes=votes)


def with_another_participants_key(held: Held) -> Certificate:
    """One stolen participant's key signs no vote of another participant."""
    key = STOLEN["bank-gateway"]
    votes = tuple(sign_vote(each.vote, key) if each.vote.leg_id == "bonds" else each for each in held.certificate.votes)
    return released(held, votes=votes)


def with_a_missing_vote(held: Held) -> Certificate:
    return released(held, votes=held.certificate.votes[:-1])


def with_a_doubled_vote(held: Held) -> Certificate:
    return released(held, votes=(*held.certificate.votes[:-1], held.certificate.votes[0]))


def over_other_votes(held: Held) -> Certificate:
    return replace(held.certificate, release=held.plan.gate(Gate.RELEASE, votes=held.certificate.votes[:-1]))


def after_the_deadline(held: Held) -> Certificate:
    late = held.plan.header.deadline + timedelta(hours=1)
    over = late + timedelta(hours=1)
    return replace(
        held.certificate,
        decided_at=late,
        make=held.plan.gate(Gate.MAKE, expires_at=over),
        approve=held.plan.gate(Gate.APPROVE, expires_at=over),
        release=held.plan.gate(Gate.RELEASE, votes=held.certificate.votes, expires_at=over),
    )


#: Participants' keys, for those tests in which one of them is stolen; filled by the fixture.
STOLEN: dict[str, SigningKey] = {}

#: What is bent -> reasons that a participant may give for it.
BENT: list[tuple[Callable[[Held], Certificate], tuple[str, ...]]] = [
    (without_approval, ("GATE_WRONG",)),
    (by_its_own_key, ("GATE_SIGNATURE",)),
    (of_another_plan, ("GATE_PLAN_DIGEST",)),
    (replayed, ("GATE_PLAN_DIGEST",)),
    (expired, ("GATE_EXPIRED",)),
    (refused, ("GATE_REJECTED",)),
    (by_one_person, ("GATE_SAME_PERSON",)),
    (by_the_wrong_role, ("GATE_ROLE",)),
    (with_a_forged_vote, ("VOTE_SIGNATURE",)),
    (with_another_participants_key, ("VOTE_SIGNATURE",)),
    (with_a_missing_vote, ("CERTIFICATE_VOTES",)),
    (with_a_doubled_vote, ("CERTIFICATE_VOTES",)),
    (over_other_votes, ("CERTIFICATE_VOTES_DIGEST",)),
    (after_the_deadline, ("CERTIFICATE_PROMISE_LAPSED", "CERTIFICATE_LATE")),
]


@pytest.fixture(autouse=True)
def _stolen(crew: Crew) -> None:
    STOLEN.update({name: crew.key(name) for name in ("bank-gateway", "dlt-gateway")})


@pytest.mark.parametrize(("bend", "reasons"), BENT, ids=lambda value: value.__name__ if callable(value) else "")
async def test_no_commit_without_what_it_needs(
    hostile: HostileCoordinator, held: Held, bend: Callable[[Held], Certificate], reasons: tuple[str, ...]
) -> None:
    """A Commit without the persons', the participants' and the clock's say is refused by every participant of value, and nothing moves."""
    certificate = bend(held)
    for leg_id in SETTLING:
        answer = await hostile.commit(held.plan, leg_id, certificate)
        assert answer.verdict == REJECTED
        assert answer.rejection.reason in reasons
    await assert_untouched(hostile, held)


def dearer(plan: SandboxPlan, leg_id: str) -> SandboxPlan:
    """The same plan, of which one leg moves twice as much."""
    terms = plan.leg(leg_id).terms
    assert isinstance(terms, TokenTransfer | CreditTransfer)
    amount = Amount(terms.amount.asset, terms.amount.minor_units * 2, terms.amount.scale)
    legs = tuple(replace(leg, terms=replace(terms, amount=amount)) if leg.leg_id == leg_id else leg for leg in plan.legs)
    return replace(plan, legs=legs)


async def test_no_commit_of_what_was_changed_after_approval(hostile: HostileCoordinator, held: Held) -> None:
    """Another amount, another payee, another path or another head is not what was approved, and is executed by nobody."""
    thief = draw_address()
    bonds = held.plan.leg("bonds").terms
    assert isinstance(bonds, TokenTransfer)
    redirected = replace(
        held.plan,
        legs=tuple(replace(leg, terms=replace(bonds, payee=thief)) if leg.leg_id == "bonds" else leg for leg in held.plan.legs),
    )
    for bent, leg_id in ((dearer(held.plan, "bonds"), "bonds"), (dearer(held.plan, "cash"), "cash"), (redirected, "bonds")):
        # Under the approved head the leg has no path; under a head of its own it has another digest than the one that was approved.
        rooted = replace(bent, header=replace(bent.header, legs_root=legs_root(bent.legs)))
        for shown in (bent, rooted):
            command = commands.commit(shown, leg_id, held.certificate)
            answer = await hostile.send_commit(held.plan, leg_id, command, held.certificate)
            assert answer.verdict == REJECTED
            assert answer.rejection.reason in ("LEG_NOT_IN_PLAN", "DIGEST_MISMATCH", "FIELD_INVALID")
    moved = commands.commit(held.plan, "bonds", held.certificate)
    del moved.binding.inclusion_path[:]
    answer = await hostile.send_commit(held.plan, "bonds", moved, held.certificate)
    assert (answer.verdict, answer.rejection.reason) == (REJECTED, "LEG_NOT_IN_PLAN")
    swapped = commands.commit(held.plan, "bonds", held.certificate)
    swapped.binding.CopyFrom(binding_to_pb(replace(held.plan, plan_key=secrets.token_bytes(32)).binding("bonds")))
    answer = await hostile.send_commit(held.plan, "bonds", swapped, held.certificate)
    assert (answer.verdict, answer.rejection.reason) == (REJECTED, "DIGEST_MISMATCH")
    assert await hostile.crew.transfers_to(thief) == []
    await assert_untouched(hostile, held)


async def test_prepared_twice_with_other_terms(hostile: HostileCoordinator, held: Held) -> None:
    """A leg that was prepared is not prepared again under other terms, other locks or an older owner."""
    for bent in (dearer(held.plan, "cash"), replace(held.plan, plan_key=secrets.token_bytes(32))):
        rooted = replace(bent, header=replace(bent.header, legs_root=legs_root(bent.legs)))
        answer = await hostile.prepare(held.plan, "cash", commands.prepare(rooted, "cash"))
        assert (answer.verdict, answer.rejection.reason) == (REJECTED, "DIGEST_MISMATCH")
    await assert_untouched(hostile, held)


async def test_the_key_alone_moves_nothing(hostile: HostileCoordinator, held: Held) -> None:
    """The right certificate with another leg's key, and every key with no certificate, move nothing."""
    wrong = await hostile.commit(held.plan, "cash", held.certificate, key=held.plan.key("bonds"))
    assert (wrong.verdict, wrong.rejection.reason) == (REJECTED, "KEY_WRONG")
    await assert_untouched(hostile, held)


async def test_delegated_to_two_legs(hostile: HostileCoordinator, held: Held) -> None:
    """A decision is delegated to the one leg that the votes name: a second leg that is told the same of itself executes nothing."""
    mine = {"bonds": Decision.DELEGATED, "cash": Decision.DELEGATED}
    soft = held.certificate.delegated_leg_id
    for leg_id, decision in mine.items():
        if leg_id != soft:
            told = replace(held.certificate, decision=decision, delegated_leg_id=leg_id)
            answer = await hostile.commit(held.plan, leg_id, told)
            assert (answer.verdict, answer.rejection.reason) == (REJECTED, "CERTIFICATE_DELEGATE")
    await assert_untouched(hostile, held)


async def test_no_abort_without_authority(hostile: HostileCoordinator, held: Held) -> None:
    """A deadline that has not passed, a NO that nobody gave, another plan's cancellation, a REJECT by nobody who may: nothing is let go."""
    cash, other = held.votes["cash"], replace(held.plan.header, reference="another")
    said_no = SignedVote(replace(cash.vote, answer=Refusal("BANK_PREPARE_FAILED")), cash.signature)
    cancel = held.plan.gate(Gate.CANCEL)
    authorities: dict[AbortAuthority, str] = {
        DeadlinePassed(): "ABORT_DEADLINE",
        said_no: "VOTE_SIGNATURE",
        cash: "ABORT_VOTE",
        sign_gate(replace(cancel.statement, plan_digest=other.digest), held.plan.keys["maker"]): "GATE_PLAN_DIGEST",
        sign_gate(cancel.statement, STRANGER): "GATE_SIGNATURE",
        held.plan.gate(Gate.CANCEL, "validator"): "GATE_ROLE",
        held.plan.gate(Gate.APPROVE): "ABORT_GATE",
    }
    for authority, reason in authorities.items():
        for leg_id in SETTLING:
            answer = await hostile.abort(held.plan, leg_id, authority)
            assert (answer.verdict, answer.rejection.reason) == (REJECTED, reason)
    await assert_untouched(hostile, held)


async def test_epoch_games(hostile: HostileCoordinator, held: Held) -> None:
    """An older owner is not obeyed, and a newer one obeyed no more than its signatures allow: a huge epoch opens nothing."""
    report = await hostile.get(held.plan, "bonds", raise_to=Epoch(1, 5))
    assert report.phase == PREPARED
    stale = await hostile.commit(held.plan, "bonds", held.certificate, epoch=Epoch(1, 4))
    assert (stale.verdict, stale.rejection.reason) == (REJECTED, "EPOCH_STALE")
    huge = await hostile.commit(held.plan, "bonds", without_approval(held), epoch=Epoch(2**40, 2**40))
    assert (huge.verdict, huge.rejection.reason) == (REJECTED, "GATE_WRONG")
    # What was refused has raised nothing: the plan's owner is still obeyed.
    again = await hostile.commit(held.plan, "bonds", without_approval(held), epoch=Epoch(1, 5))
    assert (again.verdict, again.rejection.reason) == (REJECTED, "GATE_WRONG")
    await assert_untouched(hostile, held)


def as_journalled(hostile: HostileCoordinator, plan: SandboxPlan, told: Certificate, claimed: datetime) -> list[Any]:
    """What an honest coordinator would have written up to the decision, with another time in it than participants were told."""

    def moved(number: int, left: str, entered: str, cause: str, decision: str = "") -> dict[str, Any]:
        return {"transition": {"transition_no": number, "from": left, "to": entered, "decision": decision, "cause": cause}}

    gates = [
        gate_document(each, who) for each, who in ((told.make, "maker"), (told.approve, "approver"), (told.release, "releaser"))
    ]
    decision = {
        "delegate": told.delegated_leg_id,
        "decided_at": time_text(claimed),
        "votes_digest": votes_digest(told.votes).hex(),
        "gates": gates,
        "legs": [leg.leg_id for leg in plan.legs],
    }
    coordinator = ("coordinator", "coordinator")
    return [
        ("plan.initiated", *coordinator, moved(2, "DRAFT", "INITIATED", "EXECUTE_ASKED")),
        ("plan.initiated", *coordinator, moved(3, "INITIATED", "PRECONDITIONS_PENDING", "CHECKS_BEGUN")),
        ("plan.ready", *coordinator, moved(4, "PRECONDITIONS_PENDING", "READY_FOR_PREPARE", "CHECKS_PASSED")),
        *(("leg.prepared", each.vote.participant, "participant", {"leg": leg_document(plan, each)}) for each in told.votes),
        (
            "plan.approved",
            "approver",
            "approver",
            {**moved(5, "READY_FOR_PREPARE", "PREPARED", "PREPARED_AND_APPROVED"), "gate": gates[1]},
        ),
        (
            "plan.released",
            "releaser",
            "releaser",
            {**moved(6, "PREPARED", "EXECUTING", "RELEASED_DELEGATED", "DELEGATED"), "gate": gates[2], "decision": decision},
        ),
    ]


async def test_a_decision_that_is_backdated_is_raised(hostile: HostileCoordinator, crew: Crew, sandbox: Sandbox) -> None:
    """An approval that had run out is made to count by a time that no participant can check: it acts, and its own signature convicts the coordinator."""
    plan = hostile.plan(crew.payments())
    votes = await hostile.prepared(plan)
    honest = hostile.certificate(plan, votes)
    over = datetime.now(UTC) + timedelta(seconds=2)
    told = replace(honest, decided_at=over - timedelta(seconds=1), approve=held_until(plan, over))
    await asyncio.sleep(3)
    late = await hostile.commit(plan, "cash", replace(told, decided_at=datetime.now(UTC)))
    assert (late.verdict, late.rejection.reason) == (REJECTED, "GATE_EXPIRED")
    await hostile.commit(plan, "cash", told)
    report = await hostile.phase(plan, "cash", leg_pb2.LEG_PHASE_COMMITTED)
    claimed = datetime.now(UTC)
    await hostile.append(plan, as_journalled(hostile, plan, told, claimed))
    done = leg_document(plan, votes["cash"], outcome_from_pb(report.outcome))
    await hostile.append(plan, [("leg.executed", "bank-gateway", "participant", {"leg": done})])
    async with asyncio.timeout(RAISED_SECONDS_MAX):
        while not {"TOLD_DIFFERENTLY", "GATE_NOT_AUTHORISED"} <= raised_about(sandbox, plan):  # noqa: ASYNC110 - another process raises it
            await asyncio.sleep(0.2)
    assert raised_about(sandbox, plan) == {"TOLD_DIFFERENTLY", "GATE_NOT_AUTHORISED"}
    # The other leg follows the delegated one's signed Done alone: nobody can leave it behind but by silence, and it can be told now.
    follows = replace(told, decision=Decision.COMMIT, delegated_outcome=outcome_from_pb(report.outcome))
    await hostile.commit(plan, "bonds", follows)
    await hostile.phase(plan, "bonds", leg_pb2.LEG_PHASE_COMMITTED)


def raised_about(sandbox: Sandbox, plan: SandboxPlan) -> set[str]:
    """What the sandbox's monitor has raised about a plan."""
    return {each["rule"] for each in alarms(sandbox.supervisor.log_path(MONITOR)) if each["plan_id"] == plan.plan_id}


def held_until(plan: SandboxPlan, moment: datetime) -> GateSignature:
    """An approval that counts until a moment."""
    return plan.gate(Gate.APPROVE, expires_at=moment)


async def test_the_key_is_revealed_to_one_leg_only(hostile: HostileCoordinator, crew: Crew, held: Held) -> None:
    """One leg executes and the other is told nothing: it holds what it promised, and is executed once the signed Done is brought to it."""
    payee = draw_address()
    plan = hostile.plan(crew.payments(payee=payee))
    votes = await hostile.prepared(plan)
    told = hostile.certificate(plan, votes)
    await hostile.commit(plan, "cash", told)
    report = await hostile.phase(plan, "cash", leg_pb2.LEG_PHASE_COMMITTED)
    assert (await hostile.get(plan, "bonds")).phase == PREPARED
    # Neither a deadline that has not passed nor another's Done lets the other leg go.
    refusals: list[tuple[AbortAuthority, str]] = [
        (DeadlinePassed(), "ABORT_DEADLINE"),
        (outcome_from_pb(report.outcome), "ABORT_OUTCOME"),
    ]
    for authority, reason in refusals:
        answer = await hostile.abort(plan, "bonds", authority)
        assert (answer.verdict, answer.rejection.reason) == (REJECTED, reason)
    follows = replace(told, decision=Decision.COMMIT, delegated_outcome=outcome_from_pb(report.outcome))
    await hostile.commit(plan, "bonds", follows)
    await hostile.phase(plan, "bonds", leg_pb2.LEG_PHASE_COMMITTED)
    await crew.assert_settled_once(plan.plan_id, payee)
