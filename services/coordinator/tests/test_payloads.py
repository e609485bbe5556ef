"""What the journal is told keeps the journal's rules, whatever happens to a plan; and what it was told before payloads had a version is still read."""

from __future__ import annotations

import json
import random
from datetime import timedelta

from protocol_chance import Anything
from protocol_drive import NOW, Drive

from coordinator.convert.restores import Everything, written_from_pb
from coordinator.dossier import Dossier, LegFile
from coordinator.model import Cause, EventType, Record, State
from coordinator.orphans import Released, judge
from coordinator.participants import Routes
from coordinator.payloads import journal_event
from coordinator.reports import LegReport
from coordinator.restoring import Heard, Written
from lockstep.journal.v1 import entry_pb2
from lockstep_kit.canonical import canonical
from lockstep_kit.convert import time_to_pb
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, sha256
from lockstep_kit.journal_payloads import PAYLOADS, STATES, check_payload
from lockstep_testkit.factories import PARTICIPANTS
from lockstep_testkit.journal_events import document_of

ROUTES = Routes(PARTICIPANTS)


def orphaned(drive: Drive) -> dict[LegId, Everything]:
    """What the participants of a plan that nobody knows report: every leg is held."""
    found: dict[LegId, Everything] = {}
    for leg in drive.case.legs:
        report = LegReport(drive.plan.plan_id, leg.leg_id, drive.plan.digest, Phase.PREPARED, 1, None, None, "")
        found[leg.leg_id] = Everything(report, drive.case.binding(leg.leg_id), Heard(report, None))
    return found


def test_names_are_the_same() -> None:
    """The journal's table has the coordinator's event types and states, and no others; every cause has the form of one."""
    assert set(PAYLOADS) == set(EventType)
    assert set(STATES) == set(State)
    for cause in Cause:
        told = document_of("plan.ready")
        told["transition"] = {"transition_no": 1, "from": "", "to": "DRAFT", "decision": "", "cause": cause.value}
        check_payload("plan.ready", told)


def test_every_payload_keeps_the_rules() -> None:
    """Whatever happens to a plan in whatever order, each event that is recorded of it is one that the journal takes; every type occurs."""
    anything, met = Anything(), set()
    for seed in range(200):
        rng = random.Random(seed)
        drive = Drive(anything.case)
        files = tuple(LegFile(leg, ROUTES.of(leg.kind), drive.case.lock(leg.leg_id)) for leg in drive.case.legs)
        # Chance alone hardly ever goes all the way.
        (lambda _: None, Drive.executing, Drive.committed)[seed % 3](drive)
        told = 0
        for _ in range(rng.randrange(10, 60)):
            drive.give(anything.event(rng, drive))
            dossier = Dossier(drive.plan, drive.case.header, files, (), 1, NOW, NOW, None)
            for effect in drive.effects[told:]:
                if isinstance(effect, Record):
                    event = journal_event(dossier, effect)
                    check_payload(event.type.value, json.loads(event.payload))
                    met.add((event.type, effect.moved is not None, effect.gate is not None, effect.mandate is not None))
            told = len(drive.effects)
    assert {each[0] for each in met} == set(EventType) - {EventType.PLAN_CLOSED}
    assert any(mandate for _, _, _, mandate in met)


def test_a_lost_plan_is_aborted_in_words_that_the_journal_takes() -> None:
    """The event that aborts a plan which nobody knows keeps the rules, too."""
    drive = Drive()
    first = document_of("plan.created", drive.plan.digest)
    chain = [Written(1, EventType.PLAN_CREATED, "alice", "maker", NOW, canonical(first), first)]
    found = judge(orphaned(drive), chain, drive.case.header.deadline + timedelta(seconds=1))
    assert isinstance(found, Released)
    assert found.event is not None
    check_payload(found.event.type.value, json.loads(found.event.payload))


def test_what_was_written_before_versions_is_read() -> None:
    """An entry whose payload names no version is read after a restore as it always was."""
    told = document_of("plan.aborted")
    del told["version"]
    payload = canonical(told)
    message = entry_pb2.Entry(
        sequence=3, type="plan.aborted", event_time=time_to_pb(NOW), payload=payload, payload_hash=sha256(payload)
    )
    assert written_from_pb(message).document == told
