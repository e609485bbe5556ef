"""What operators may do, as a table and over random histories: total, and what is offered always does something."""

from __future__ import annotations

import itertools
import os
import random
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from protocol_chance import Anything
from protocol_drive import LIMITS, Drive

from coordinator import facts
from coordinator.dossier import Dossier, FiledTicket, LegFile
from coordinator.model import EventType, OperatorsForgot, Plan, Record, Resolved, State
from coordinator.operators import ENDS, Admitted, Move, OperatorRecord, Standing, admit, moves, options, over
from coordinator.protocol import TABLE
from lockstep_kit.certificate import Decision, NotAuthorised
from lockstep_kit.ids import ActorId
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb, sign_resolution
from lockstep_testkit.factories import evidence_of, key_of, registry_of

DOCS = Path(__file__).parents[3] / "docs"
REGISTRY = registry_of()


def test_total() -> None:
    """Every state, decision and standing has its moves; after CLOSED there is none but to close the ticket."""
    for state, decision, standing in itertools.product(State, (None, *Decision), Standing):
        found = moves(state, decision, standing)
        assert Move.FORGET not in found
        assert bool(found) is (state is not State.CLOSED)


def test_moves_lead_where_the_protocol_goes() -> None:
    """What the table of moves offers in a state is an arc of the protocol there, and every arc that operators cause is offered."""
    caused = {Move.REVERSE: "UNWIND_ORDERED", Move.RESOLVE_PLAN: "SETTLED_OUTSIDE", Move.RETRY_LEG: "REDRIVEN"}
    for move, cause in caused.items():
        arcs = {(state, decision) for state, decision, why in TABLE if why.value == cause}
        decisions = {(state, decision) for state, decision, _ in TABLE}
        offered = {
            (state, decision) for state, decision in decisions for standing in Standing if move in moves(state, decision, standing)
        }
        assert arcs <= offered
        # An unwind that is under way may be ordered anew; that is no transition.
        assert {state for state, _ in offered - arcs} <= {State.UNWIND_PENDING}


def test_every_reason_of_a_ticket_is_documented() -> None:
    """A ticket's matter is judged by a reason that people can look up."""
    listed = set(re.findall(r"(?m)^\| ([A-Z][A-Z0-9_]+) \|", (DOCS / "errors.md").read_text()))
    assert sorted(ENDS.keys() - listed) == []


def dossier_of(drive: Drive) -> Dossier:
    plan = drive.plan
    files = tuple(LegFile(leg, "x", drive.case.lock(leg.leg_id)) for leg in drive.case.legs)
    filed = tuple(FiledTicket(f"ticket-{place}", each, None) for place, each in enumerate(plan.tickets))
    return Dossier(plan, drive.case.header, files, filed, 1, drive.now, drive.now, None)


def resolution_of(drive: Drive, filed: FiledTicket, move: Move) -> Resolution:
    executed = evidence = None
    if move is Move.RESOLVE_LEG:
        executed, evidence = True, evidence_of(drive.case.leg(filed.ticket.leg_id))
    leg_id = filed.ticket.leg_id if move.names_leg else ""
    return Resolution(drive.plan.digest, filed.escalation_id, move.verb, leg_id, executed, evidence, "so")


def signed_by(who: str, resolution: Resolution, drive: Drive) -> OperatorRecord:
    statement = ResolutionStatement(resolution, os.urandom(16), drive.now + timedelta(minutes=10))
    return OperatorRecord(sign_resolution(statement, key_of(who)), ActorId(who), drive.now)


def both(drive: Drive, filed: FiledTicket, move: Move) -> Admitted:
    dossier, resolution = dossier_of(drive), resolution_of(drive, filed, move)
    first, second = (signed_by(who, resolution, drive) for who in ("erin", "frank"))
    once = admit(dossier, filed, first.signed, (), REGISTRY, LIMITS, drive.now)
    assert once.event is None
    return admit(dossier, filed, second.signed, (once.record,), REGISTRY, LIMITS, drive.now)


def test_what_is_offered_takes_effect() -> None:
    """Over random histories: every move that is offered is admitted, does what it says, and is told; what is not offered is refused."""
    anything, taken = Anything(), set()
    for drive in histories(anything):
        for filed in dossier_of(drive).tickets[:2]:
            offered = options(drive.plan, filed, drive.now, LIMITS)
            for move in Move:
                before = drive.plan
                if move not in offered:
                    with pytest.raises(NotAuthorised) as refused:
                        both(drive, filed, move)
                    assert refused.value.reason in ("RESOLUTION_NOT_ALLOWED", "RESOLUTION_EVIDENCE")
                    continue
                admitted = both(drive, filed, move)
                assert admitted.mandate is not None
                assert admitted.event is not None
                again = Drive(anything.case)
                again.plan, again.now = before, drive.now
                effects = again.give(admitted.event)
                assert [each.mandate for each in effects if isinstance(each, Resolved)] == [admitted.mandate]
                recorded = [each for each in effects if isinstance(each, Record) and each.mandate is admitted.mandate]
                assert len(recorded) == (0 if before.sealing or before.state is State.CLOSED else 1)
                assert all(each.type is EventType.EXCEPTION_RESOLVED for each in recorded)
                assert did(move, before, again, filed)
                taken.add(move)
    assert taken == set(Move)


def histories(anything: Anything) -> Iterator[Drive]:
    """Many by chance, and one that chance does not find: operators deny a leg, and nothing else is amiss."""
    for seed in range(150):
        rng = random.Random(seed)
        drive = Drive(anything.case)
        for _ in range(rng.randrange(20, 60)):
            drive.give(anything.event(rng, drive))
        yield drive
    drive = Drive(anything.case).executing()
    drive.done("tokens")
    drive.give(drive.answered("cash", executed=False))
    yield drive


def did(move: Move, before: Plan, drive: Drive, filed: FiledTicket) -> bool:
    """Whether the plan is as the move says."""
    plan = drive.plan
    match move:
        case Move.RETRY | Move.RETRY_LEG:
            return filed.ticket in plan.tickets
        case Move.REVERSE:
            return plan.unwind is not None
        case Move.RESOLVE_LEG:
            # Of a reversal they say that it was not carried out; its participant still may.
            asked = facts.reversing(facts.leg(before, filed.ticket.leg_id))
            return asked or facts.leg(plan, filed.ticket.leg_id).operators_evidence is not None
        case Move.RESOLVE_PLAN:
            return plan.outcome is PlanOutcome.MIXED
        case Move.FORGET:
            return filed.ticket in plan.forgotten and filed.ticket not in plan.tickets


def test_nothing_that_is_half_settled_can_be_forgotten() -> None:
    """As long as one leg took effect and another cannot, or may not have, some ticket of the plan cannot be closed."""
    anything, met = Anything(), 0
    for seed in range(300):
        rng = random.Random(seed)
        drive = Drive(anything.case)
        for _ in range(rng.randrange(20, 60)):
            event = anything.event(rng, drive)
            if not isinstance(event, OperatorsForgot) or over(drive.plan, event.ticket, drive.now, LIMITS):
                drive.give(event)
        plan = drive.plan
        legs = facts.settling(plan)
        half = any(facts.executed(each) for each in legs) and any(facts.barred(each) for each in legs)
        if half and plan.outcome is not PlanOutcome.MIXED and plan.state is not State.CLOSED:
            met += 1
            assert any(not over(plan, each, drive.now, LIMITS) for each in plan.tickets), (seed, plan)
    assert met > 0


@pytest.mark.parametrize("verb", Verb)
def test_closed_tickets_take_nothing(verb: Verb) -> None:
    """About a ticket that is closed nothing is signed any more."""
    drive = Drive().partial()
    ticket = drive.plan.tickets[0]
    filed = FiledTicket("ticket-0", ticket, drive.now)
    assert options(drive.plan, filed, drive.now, LIMITS) == frozenset()
    move = next(each for each in Move if each.verb is verb and not each.names_leg)
    signed = signed_by("erin", resolution_of(drive, filed, move), drive).signed
    with pytest.raises(NotAuthorised) as refused:
        admit(dossier_of(drive), filed, signed, (), REGISTRY, LIMITS, drive.now)
    assert refused.value.reason == "RESOLUTION_CLOSED"
