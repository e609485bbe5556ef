"""What the monitor raises about one plan: nothing of an honest chain, and each lie by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from lockstep_kit.ids import sha256
from lockstep_kit.statements import OutcomeKind, Refusal
from lockstep_monitor.entries import Delivered
from lockstep_monitor.findings import Finding
from lockstep_monitor.log import Names
from lockstep_monitor.plans import Patience
from lockstep_monitor.watch import JournalWatch
from lockstep_testkit.bundles.history import BEGUN
from lockstep_testkit.factories import key_of, registry_of
from lockstep_testkit.journal_histories import Told, delivered, settled, signed_anew

NOW = BEGUN + timedelta(minutes=5)
NAMES = Names("lockstep.local/journal", "lockstep.local/notary")


def watching() -> JournalWatch:
    return JournalWatch(registry_of(), NAMES, Patience())


def read(entries: list[Delivered], watch: JournalWatch | None = None) -> list[Finding]:
    watch = watch or watching()
    return [found for each in entries for found in watch.read(each, NOW)]


def rules(history: Told) -> set[str]:
    return {found.rule.value for found in read(delivered(history))}


def decided(history: Told) -> Told:
    history.begin()
    history.votes_given()
    history.approved()
    history.released()
    return history


def test_an_honest_chain_raises_nothing() -> None:
    """A plan that was settled as it should be raises nothing, entry by entry, and nothing is missing of it."""
    watch = watching()
    assert read(delivered(settled()), watch) == []
    assert list(watch.overdue(NOW + timedelta(days=9))) == []
    assert watch.open_plans() == []


def test_a_plan_that_was_stopped_raises_nothing() -> None:
    """Neither does one that a person stopped before it was decided."""
    history = Told()
    history.begin()
    history.votes_given(but=("cash",))
    history.aborted()
    assert read(delivered(history)) == []


def bend_approver(history: Told) -> None:
    history.votes_given()
    history.approved(who="carol")


def bend_one_person(history: Told) -> None:
    history.votes_given()
    history.approved()
    history.released(who="bob")


def bend_without_a_vote(history: Told) -> None:
    history.votes_given(but=("cash",))
    history.approved()
    history.released()


def bend_over_other_votes(history: Told) -> None:
    history.votes_given()
    history.approved()
    history.released(bent={"votes_digest": "11" * 32})


def bend_lapsed(history: Told) -> None:
    history.votes_given(until=history.now + timedelta(seconds=3))
    history.approved()
    history.released()


def bend_backwards(history: Told) -> None:
    history.votes_given()
    history.approved()
    history.released(decided_at=BEGUN - timedelta(minutes=30))


def bend_gate_expired(history: Told) -> None:
    """The coordinator writes the decision at a time at which all gates had run out."""
    history.votes_given()
    history.approved()
    history.released(decided_at=history.case.header.deadline + timedelta(seconds=1))


def bend_no_gates(history: Told) -> None:
    history.votes_given()
    history.approved()
    history.released(bent={"gates": []})


@pytest.mark.parametrize(
    ("bend", "raised"),
    [
        (bend_approver, {"GATE_NOT_AUTHORISED"}),
        (bend_one_person, {"GATE_NOT_AUTHORISED", "DUTIES_NOT_SEPARATE"}),
        (bend_without_a_vote, {"VOTES_DIFFER"}),
        (bend_over_other_votes, {"VOTES_DIFFER"}),
        (bend_lapsed, {"PROMISE_LAPSED"}),
        (bend_backwards, {"DECIDED_AT_DIFFERS", "DECIDED_OUT_OF_ORDER", "DECIDED_LONG_BEFORE"}),
        (bend_gate_expired, {"GATE_NOT_AUTHORISED", "DECIDED_AT_DIFFERS"}),
        (bend_no_gates, {"GATE_NOT_AUTHORISED"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_decision_that_nobody_may_have_taken(bend: Callable[[Told], None], raised: set[str]) -> None:
    """A decision without the persons, the votes, or the time that it needs is raised by name, whatever the coordinator writes."""
    history = Told()
    history.begin()
    bend(history)
    assert rules(history) == raised


def test_what_the_others_were_told() -> None:
    """A participant that was told another time of decision than the journal names shows it by its own signature."""
    history = decided(Told())
    history.acted("tokens", told=sha256(b"a certificate with another time"))
    history.said_executed("tokens")
    assert rules(history) == {"TOLD_DIFFERENTLY"}


def test_the_coordinator_cannot_say_what_was_told() -> None:
    """An outcome whose told decision was written over is not what the participant signed."""
    history = decided(Told())
    history.acted("tokens", told=sha256(b"a certificate with another time"))
    signed = history.outcomes["tokens"]
    history.outcomes["tokens"] = replace(signed, outcome=replace(signed.outcome, decision=history.told))
    history.said_executed("tokens")
    assert rules(history) == {"OUTCOME_INVALID"}


def test_executed_before_the_decision() -> None:
    """A leg that took effect before the time that the decision names is raised: one of the two times is untrue."""
    history = decided(Told())
    history.acted("tokens", at=history.now - timedelta(minutes=10))
    history.said_executed("tokens")
    assert rules(history) == {"DECIDED_OUT_OF_ORDER"}


def test_a_forged_vote_and_a_forged_outcome() -> None:
    """A vote or an outcome under another participant's key is not what the journal's reader believes."""
    history = Told()
    history.begin()
    history.vote("tokens")
    history.votes["cash"] = history.case.vote("cash", signed_by="dlt-gateway", voted_at=history.tick())
    history.record("leg.prepared", "bank-gateway", "participant", history.leg("cash"))
    assert rules(history) == {"VOTE_INVALID"}
    history = decided(Told())
    history.acted("cash", signed_by="dlt-gateway")
    history.said_executed("cash")
    assert rules(history) == {"OUTCOME_INVALID"}


def test_both_yes_and_no() -> None:
    """A participant that has signed both is raised, whatever its reasons."""
    history = Told()
    history.begin()
    history.vote("cash")
    history.vote("cash", Refusal("BANK_PREPARE_FAILED", "AM04"))
    assert rules(history) == {"VOTE_CONTRADICTED"}


def test_a_leg_done_after_an_abort() -> None:
    """A leg that took effect in a plan that was stopped is raised, unless a person was called."""
    for called in (False, True):
        history, watch = Told(), watching()
        history.begin()
        history.votes_given()
        history.aborted()
        history.acted("tokens", told=sha256(b"whatever"))
        history.said_executed("tokens")
        if called:
            history.raised("LEG_FOUND_EXECUTED")
        assert read(delivered(history), watch) == []
        late = {found.rule.value for found in watch.overdue(NOW + timedelta(hours=2))}
        assert late == (set() if called else {"EXECUTED_AFTER_ABORT", "PLAN_SILENT"})


def test_a_leg_done_though_nothing_was_decided() -> None:
    """So is one that took effect before anything was decided."""
    history, watch = Told(), watching()
    history.begin()
    history.votes_given()
    history.acted("tokens")
    history.said_executed("tokens")
    read(delivered(history), watch)
    assert {found.rule.value for found in watch.overdue(NOW + timedelta(hours=2))} == {"EXECUTED_UNDECIDED"}


def test_the_key_was_given_to_one_leg_only() -> None:
    """A decided plan in which one leg acts and the other is never told stands still: that is raised, with the leg's name."""
    history, watch = decided(Told()), watching()
    history.executed(but=("cash",))
    assert read(delivered(history), watch) == []
    assert list(watch.overdue(NOW)) == []
    (found,) = watch.overdue(NOW + timedelta(hours=2))
    assert found.rule == "PLAN_SILENT"
    assert "cash" in found.message
    assert "tokens" not in found.message


def test_one_leg_released_and_the_other_executed() -> None:
    """Commit to one and abort to the other: the second participant's own signature shows it."""
    history, watch = decided(Told()), watching()
    history.executed(but=("cash",))
    history.acted("cash", OutcomeKind.RELEASED)
    history.record("leg.refused", "bank-gateway", "participant", history.leg("cash"))
    read(delivered(history), watch)
    assert "LEG_FAILED" in {found.rule.value for found in watch.overdue(NOW + timedelta(hours=2))}


def test_committed_over_evidence_that_nobody_validated() -> None:
    """The evidence that is committed is that of the outcomes, and a validator's signature is over it."""
    history = decided(Told())
    history.executed()
    history.committed()
    assert rules(history) == {"NOT_VALIDATED"}
    history = decided(Told())
    history.executed()
    history.validated()
    history.committed(sha256(b"other evidence"))
    assert rules(history) == {"NOT_VALIDATED", "EVIDENCE_DIFFERS"}


def test_a_transition_that_is_not_in_the_table() -> None:
    """A state that was left out, or a way that no rule knows, is raised."""
    history = Told()
    history.begin()
    history.record("plan.approved", "bob", "approver", {**history.move("COMMITTED", "EVIDENCE_VALIDATED", "COMMIT")})
    assert "PAYLOAD_INVALID" in rules(history)
    history = Told()
    history.begin()
    history.record("plan.initiated", "coordinator", "coordinator", history.move("EXECUTING", "RELEASED", "COMMIT"))
    assert rules(history) == {"TRANSITION_UNKNOWN"}
    history = Told()
    history.begin()
    history._transitions += 1
    history.record("plan.initiated", "coordinator", "coordinator", history.move("ABORTED", "DEADLINE_PASSED", "ABORT"))
    assert rules(history) == {"TRANSITION_GAP"}


def test_the_journal_drops_moves_and_signs_anew() -> None:
    """What the journal leaves out, changes, or signs with a stolen key is found in the chain itself."""
    entries = delivered(settled())
    assert {found.rule.value for found in read(entries[:5] + entries[6:])} >= {"SEQUENCE_GAP", "LINK_BROKEN", "POSITION_GAP"}
    changed = replace(entries[5], payload=entries[4].payload)
    assert {found.rule.value for found in read([*entries[:5], changed, *entries[6:]])} >= {"PAYLOAD_CHANGED"}
    stolen = signed_anew(entries[5], key_of("notary"))
    assert {found.rule.value for found in read([*entries[:5], stolen, *entries[6:]])} >= {"ENTRY_MALFORMED"}
    forged = replace(entries[5], signature=replace(stolen.signature, key_id=entries[5].signature.key_id))
    assert {found.rule.value for found in read([*entries[:5], forged, *entries[6:]])} == {"ENTRY_SIGNATURE"}
    said = replace(entries[5], actor="mallory")
    assert {found.rule.value for found in read([*entries[:5], said, *entries[6:]])} >= {"ENTRY_MALFORMED"}


def test_an_entry_behind_the_seal() -> None:
    """Nothing stands behind a seal, and a seal is about the chain before it."""
    history = settled()
    history.raised()
    assert "AFTER_SEAL" in rules(history)
    history = decided(Told())
    history.executed()
    history.validated()
    history.seal("COMMITTED", sha256(b"evidence"))
    assert rules(history) == {"SEAL_WRONG", "TRANSITION_UNKNOWN"}


def test_entries_of_the_future_and_erased_ones() -> None:
    """An entry that is to come is a warning; one whose payload was erased is judged by what is left of it."""
    history = settled()
    entries = delivered(history)
    ahead = JournalWatch(registry_of(), NAMES, Patience())
    early = BEGUN - timedelta(hours=1)
    warned = [found for each in entries for found in ahead.read(each, early)]
    assert {found.rule.value for found in warned} == {"ENTRY_AHEAD"}
    assert all(found.rule.warns for found in warned)
    assert read([replace(each, payload=b"", erased=True) for each in entries]) == []
