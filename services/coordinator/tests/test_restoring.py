"""A plan that is found again, by the rule alone: which command each leg counts as having had, and with what it can be told again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from protocol_drive import NOW, Drive

from coordinator import facts
from coordinator.commands import Command
from coordinator.dossier import Dossier, LegFile
from coordinator.model import EventType, Order, Restored, State
from coordinator.participants import Routes
from coordinator.reports import LegReport
from coordinator.restoring import Adopted, Heard, Written, adopt
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, sha256
from lockstep_kit.participant.ports import Closing, PlanOutcome
from lockstep_kit.statements import Gate, OutcomeKind
from lockstep_testkit.factories import PARTICIPANTS, registry_of

REGISTRY, ROUTES = registry_of(), Routes(PARTICIPANTS)
EVIDENCE = sha256(b"what shows the end")


def aborted() -> Drive:
    """A plan that was cancelled, as it stood before its legs were released."""
    drive = Drive()
    drive.ready()
    drive.yes()
    drive.sign(Gate.CANCEL)
    assert drive.plan.state is State.ABORTED
    return drive


def sealed(drive: Drive) -> tuple[Written, Closing]:
    """The entry that closes the plan's chain, and the order that had it written."""
    plan = drive.plan
    closing = Closing(PlanOutcome.ABORTED, EVIDENCE, plan.journal_sequence + 1, plan.transition_no + 1, plan.state.value)
    transition = {"transition_no": closing.transition_no, "from": closing.from_state, "to": "CLOSED"}
    document = {"outcome": "ABORTED", "evidence_digest": EVIDENCE.hex(), "transition": transition}
    entry = Written(closing.journal_sequence, EventType.PLAN_CLOSED, "event-journal", "journal", NOW, b"", document)
    return entry, closing


def found(drive: Drive, chain: list[Written], **phases: Phase) -> Adopted:
    """The plan as it is found again from a chain and what its participants report."""
    files = tuple(LegFile(leg, ROUTES.of(leg.kind), drive.case.lock(leg.leg_id)) for leg in drive.case.legs)
    heard = {LegId(leg_id): Heard(reported(drive, leg_id, phase), None) for leg_id, phase in phases.items()}
    return adopt(Dossier(drive.plan, drive.case.header, files, (), 1, NOW, NOW, None), chain, heard, {}, REGISTRY, NOW)


def reported(drive: Drive, leg_id: str, phase: Phase) -> LegReport:
    """A leg's participant says where it stands."""
    leg = facts.leg(drive.plan, leg_id)
    outcome = drive.case.outcome(leg_id, OutcomeKind.RELEASED) if phase is Phase.RELEASED else None
    return LegReport(drive.plan.plan_id, leg.leg_id, drive.plan.digest, phase, leg.revision + 2, leg.vote, outcome, "")


def kept(adopted: Adopted, leg_id: str) -> Command | None:
    """The command to a leg that is kept to be sent again."""
    return next((each for each in adopted.commands if each.leg_id == leg_id), None)


def before_release(drive: Drive) -> None:
    """The database is set back to before its legs were told anything."""
    drive.plan = replace(drive.plan, legs=tuple(replace(each, order=Order.PREPARE, ordered_at=NOW) for each in drive.plan.legs))


@pytest.mark.parametrize("phase", [Phase.PREPARED, Phase.RELEASED])
def test_a_seal_in_the_chain_was_ordered(phase: Phase) -> None:
    """The journal was told to close a chain that is closed, whatever it reported a moment ago: that order is kept, with the very closing."""
    drive = aborted()
    before_release(drive)
    entry, closing = sealed(drive)
    adopted = found(drive, [entry], journal=phase, tokens=Phase.RELEASED, cash=Phase.RELEASED, notarisation=Phase.RELEASED)
    assert adopted.plan.state is State.CLOSED
    assert facts.journal(adopted.plan).order is Order.ABORT
    told = kept(adopted, "journal")
    assert told is not None
    assert (told.order, told.closing) == (Order.ABORT, closing)
    assert told.authority is not None


def test_a_seal_that_the_chain_lost_is_ordered_anew() -> None:
    """A journal that reported that it had closed a chain, which is open when it is read, was put back in between: it is told again."""
    drive = aborted()
    before_release(drive)
    adopted = found(drive, [], journal=Phase.RELEASED, tokens=Phase.RELEASED, cash=Phase.RELEASED, notarisation=Phase.RELEASED)
    assert (adopted.plan.state, adopted.plan.sealing) == (State.ABORTED, False)
    assert facts.journal(adopted.plan).order is Order.PREPARE
    assert kept(adopted, "journal") is None


def test_what_was_obeyed_can_be_told_again() -> None:
    """Commands that participants show to have obeyed are kept; what a leg was never told, and what it carried and nobody knows any more, is not."""
    drive = aborted()
    before_release(drive)
    adopted = found(drive, [], journal=Phase.PREPARED, tokens=Phase.RELEASED, cash=Phase.PREPARED, notarisation=Phase.RELEASED)
    assert [(each.leg_id, each.order) for each in adopted.commands] == [("tokens", Order.ABORT)]
    adopted = found(drive, [sealed(drive)[0]], tokens=Phase.RELEASED, notarisation=Phase.RELEASED)
    assert [(each.leg_id, each.order) for each in adopted.commands] == [
        (leg_id, Order.ABORT) for leg_id in ("tokens", "notarisation", "journal")
    ]


def test_a_participant_that_knows_nothing_may_have_forgotten() -> None:
    """A leg that nobody was asked about, as far as is known, is released all the same: coordinator and participant may have lost the same time."""
    drive = Drive()
    adopted = found(drive, [])
    assert adopted.plan.state is State.DRAFT
    assert {each.order for each in adopted.plan.legs} == {Order.PREPARE}
    drive.plan = adopted.plan
    drive.give(Restored())
    assert drive.plan.state is State.ABORTED
    assert {each.order for each in facts.settling(drive.plan)} == {Order.ABORT}
