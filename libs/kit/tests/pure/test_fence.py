"""The fence as a pure function: what no sequence of commands, crashes, replays and findings can bring about."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep_kit.certificate import Decision
from lockstep_kit.fence import (
    FINDINGS,
    TABLE,
    YES_REVISION,
    Action,
    Asked,
    Command,
    Epoch,
    FenceRow,
    Finding,
    Phase,
    Rejected,
    complete,
    raise_epoch,
    rule,
)
from lockstep_kit.ids import Digest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGESTS = [Digest(bytes([n]) * 32) for n in (1, 2)]
EPOCHS = st.builds(Epoch, st.integers(1, 3), st.integers(1, 3))
ASKED = st.builds(
    Asked,
    command=st.sampled_from(Command),
    digest=st.sampled_from([DIGESTS[0]] * 5 + [DIGESTS[1]]),
    epoch=EPOCHS,
    not_after=st.sampled_from([None, NOW - timedelta(seconds=1), NOW, NOW + timedelta(seconds=1)]),
    decision=st.sampled_from([Decision.COMMIT, Decision.DELEGATED]),
    own_yes=st.booleans(),
    order=st.sampled_from([None, *DIGESTS]),
)
EVENTS = st.lists(ASKED | st.sampled_from(Finding) | EPOCHS, max_size=25)


def happened(row: FenceRow | None, event: Asked | Finding | Epoch) -> FenceRow | None:
    """The row after an event, as the engine would store it."""
    if isinstance(event, Asked):
        return rule(row, event, NOW).row or row
    if isinstance(event, Finding):
        return row if row is None else complete(row, event) or row
    return raise_epoch(row, event) or row


@given(EVENTS)
def test_what_never_happens(events: list[Asked | Finding | Epoch]) -> None:
    """Executed stays executed; a decided leg is released only when delegated; epoch and revision never go down; the binding never changes."""
    row: FenceRow | None = None
    for event in events:
        after = happened(row, event)
        if row is not None and after is not None:
            assert after.epoch >= row.epoch
            assert after.revision >= row.revision
            assert after.phase is row.phase or after.revision > row.revision
            assert row.digest is None or after.digest == row.digest
            assert row.phase is None or after.phase is not None
            if row.phase is not None and row.phase.executed:
                assert after.phase in (Phase.COMMITTED, Phase.REVERSING, Phase.REVERSED)
            if row.phase is Phase.REVERSED:
                assert after.phase is Phase.REVERSED
            assert after.reversals[: len(row.reversals)] == row.reversals
            assert len(set(after.reversals)) == len(after.reversals)
            assert (after.reversals != row.reversals) == (row.phase is Phase.COMMITTED and after.phase is Phase.REVERSING)
            if row.phase is Phase.COMMITTING and after.phase in (Phase.ABORTING, Phase.RELEASED):
                assert row.decision is Decision.DELEGATED
            if row.phase in (Phase.RELEASED, Phase.ABORTING):
                assert after.phase in (Phase.RELEASED, Phase.ABORTING, Phase.COMMITTED)
        row = after


@given(EVENTS, ASKED)
def test_replay_is_idle(events: list[Asked | Finding | Epoch], asked: Asked) -> None:
    """A command that was accepted begins nothing when it comes again, and a rejected one is rejected again for the same reason."""
    row: FenceRow | None = None
    for event in events:
        row = happened(row, event)
    first = rule(row, asked, NOW)
    again = rule(first.row or row, asked, NOW)
    if first.action is Action.REJECT:
        assert (again.action, again.reason) == (Action.REJECT, first.reason)
    else:
        assert again.action is Action.REPLAY
    assert again.row is None


@given(EVENTS, ASKED)
def test_only_a_begin_changes_the_leg(events: list[Asked | Finding | Epoch], asked: Asked) -> None:
    """Replays and rejections change no more than the epoch; one for another digest or of an older owner changes nothing."""
    row: FenceRow | None = None
    for event in events:
        row = happened(row, event)
    ruling = rule(row, asked, NOW)
    if ruling.reason in (Rejected.DIGEST_MISMATCH, Rejected.EPOCH_STALE):
        assert ruling.row is None
    elif ruling.action is not Action.BEGIN and ruling.row is not None:
        assert row is not None
        assert ruling.row == FenceRow(row.phase, row.digest, asked.epoch, row.decision, row.revision, row.reversals)
        assert asked.epoch > row.epoch


def test_tables_are_whole() -> None:
    """Every phase has a word for every command; final phases are left by contradictions, reversals and by asking outside once more only."""
    assert set(TABLE) == set(itertools.product([None, *Phase], Command))
    assert {phase for (phase, _), _ in FINDINGS.items()} == set(Phase) - {Phase.COMMITTED, Phase.REVERSED}
    assert {phase for (phase, command), told in TABLE.items() if told is Phase.REVERSING} == {Phase.COMMITTED}
    left = {(phase, after) for (phase, _), after in FINDINGS.items() if phase.final}
    assert left == {(Phase.REFUSED, Phase.COMMITTED), (Phase.RELEASED, Phase.COMMITTED)}
    working = {Phase.PREPARING, Phase.COMMITTING, Phase.ABORTING, Phase.REVERSING}
    assert {phase for phase in Phase if phase.working} == working


@pytest.mark.parametrize("order", [None, DIGESTS[1]])
def test_an_order_to_reverse_is_obeyed_once(order: Digest | None) -> None:
    """A copy of an order whose reversal was refused begins nothing, even after a newer order; a new order does."""
    asked = Asked(Command.REVERSE, DIGESTS[0], Epoch(1, 1), order=order)
    row = FenceRow(Phase.COMMITTED, DIGESTS[0], Epoch(1, 1), Decision.COMMIT, 4)
    begun = rule(row, asked, NOW).row
    assert begun is not None
    assert begun.phase is Phase.REVERSING
    refused = complete(begun, Finding.REVERSAL_REFUSED)
    assert refused is not None
    assert refused.phase is Phase.COMMITTED
    assert rule(refused, asked, NOW).action is Action.REPLAY
    newer = rule(refused, Asked(Command.REVERSE, DIGESTS[0], Epoch(1, 1), order=Digest(bytes(32))), NOW)
    assert newer.action is Action.BEGIN
    assert newer.row is not None
    again = complete(newer.row, Finding.REVERSAL_REFUSED)
    assert rule(again, asked, NOW).action is Action.REPLAY


def test_restored_revision_is_that_of_the_vote() -> None:
    """A row that is restored goes on from the revision at which its YES was given, whatever way it would have gone without the restore."""
    asked = Asked(Command.PREPARE, DIGESTS[0], Epoch(1, 1), NOW)
    preparing = rule(None, asked, NOW).row
    assert preparing is not None
    prepared = complete(preparing, Finding.VOTED_YES)
    assert prepared is not None
    assert prepared.revision == YES_REVISION
    commit = Asked(Command.COMMIT, DIGESTS[0], Epoch(1, 1), decision=Decision.COMMIT, own_yes=True)
    assert rule(None, commit, NOW).row == rule(prepared, commit, NOW).row
    raised = FenceRow(None, None, Epoch(1, 1))
    assert rule(raised, commit, NOW).row == rule(None, commit, NOW).row


@pytest.mark.parametrize(("command", "reason"), [(Command.PREPARE, Rejected.PREPARE_LATE), (Command.COMMIT, Rejected.COMMIT_LATE)])
def test_too_late_is_after(command: Command, reason: Rejected) -> None:
    """At the very moment a command is in time; a microsecond later it is not."""
    row = None if command is Command.PREPARE else FenceRow(Phase.PREPARED, DIGESTS[0], Epoch(1, 1), None, 2)
    asked = Asked(command, DIGESTS[0], Epoch(1, 1), NOW, Decision.DELEGATED)
    assert rule(row, asked, NOW).action is Action.BEGIN
    assert rule(row, asked, NOW + timedelta(microseconds=1)).reason is reason


def test_prepare_without_a_limit() -> None:
    """A Prepare that never comes late could be resurrected after its tombstone: it does not begin."""
    assert rule(None, Asked(Command.PREPARE, DIGESTS[0], Epoch(1, 1)), NOW).reason is Rejected.PREPARE_LATE


def test_epochs_compare_by_generation() -> None:
    """A restored coordinator's first owner stands above every owner before the restore."""
    assert Epoch(2, 1) > Epoch(1, 999)
    assert raise_epoch(FenceRow(None, None, Epoch(2, 1)), Epoch(1, 999)) is None
