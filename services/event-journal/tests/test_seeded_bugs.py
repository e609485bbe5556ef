"""A rule that is broken on purpose is noticed by the test that is about it. A test that notices no seeded bug notices no bug."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import pytest
import test_chain
import test_grouping
import test_key_expiry

from lockstep_testkit.simulation.mutations import Mutation, mutated

BUGS = [
    ("event_journal.chain", "_entry_findings", "if entry.previous_hash != previous", "if False", test_chain.test_every_change_is_named),
    ("event_journal.chain", "_entry_findings", "if event.sequence != place", "if False", test_chain.test_every_change_is_named),
    ("event_journal.chain", "_entry_findings", "entry.canonical_bytes != said", "b'' == said", test_chain.test_every_change_is_named),
    ("event_journal.chain", "_entry_findings", "if signer is None or", "if False and", test_chain.test_every_change_is_named),
    ("event_journal.chain", "_entry_findings", "if sealed:", "if False:", test_chain.test_nothing_follows_a_seal),
    (
        "event_journal.chain", "verify", "if keys.keys and not keys.has(", "if keys.keys and keys.has(",
        test_chain.test_a_key_must_be_in_the_history_at_its_time,
    ),
    (
        "lockstep_kit.key_history", "KeyHistory.has", "and key.valid_at(moment)", "",
        test_chain.test_a_key_must_be_in_the_history_at_its_time,
    ),
    (
        "event_journal.appending", "_append_one", "if sent.invalid is not None", "if False",
        test_chain.test_a_payload_of_another_form_is_invalid_by_itself,
    ),
    (
        "lockstep_kit.document_forms", "Shape.check", "if found != len(required)", "if False",
        test_chain.test_a_payload_of_another_form_is_invalid_by_itself,
    ),
    (
        "event_journal.chain", "Event.check", "self.event_id == journal_event_id(self.plan_id, self.sequence)", "self.event_id",
        test_chain.test_an_id_that_is_not_its_places_is_invalid_by_itself,
    ),
    (
        "event_journal.appending", "_append_one", "if epoch < head.epoch", "if False",
        test_chain.test_what_an_older_epoch_sent_is_not_obeyed,
    ),
    (
        "event_journal.appending", "_append_one", "replace(head, frozen=head.frozen or why)", "head",
        test_chain.test_other_content_at_a_taken_place_freezes_the_chain,
    ),
    (
        "event_journal.grouping", "GroupWriter._write_calls", "place += len(events)", "place += 1",
        test_grouping.test_who_comes_meanwhile_is_carried_together,
    ),
    (
        "lockstep_kit.grouping", "Grouping._carry", "if len(group) > 1 and not is_transient(error)", "if False",
        test_grouping.test_one_that_is_at_fault_spoils_no_other,
    ),
    (
        "lockstep_kit.grouping", "Grouping._next", "if asked.answer.done()", "if False",
        test_grouping.test_a_caller_that_gives_up_takes_nobody_with_it,
    ),
    (
        "lockstep_kit.grouping", "Grouping._next", "elif held.isdisjoint(asked.keys)", "elif True",
        test_grouping.test_the_events_of_a_plan_are_never_in_two_batches_at_once,
    ),
    (
        "lockstep_kit.grouping", "Grouping._next", "held |= asked.keys\n            left.append(asked)", "left.append(asked)",
        test_grouping.test_the_events_of_a_plan_are_never_in_two_batches_at_once,
    ),
    (
        "event_journal.signing_keys", "refusal", "if keys.keys and not keys.has(key_id, now)", "if False",
        test_key_expiry.test_what_may_not_sign_is_named,
    ),
    (
        "event_journal.signing_keys", "refusal", "and key.valid_at(now)", "",
        test_key_expiry.test_what_may_not_sign_is_named,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("module", "function", "right", "wrong", "test"), BUGS, ids=[f"{each[1]}: {each[2]}" for each in BUGS])
async def test_a_seeded_bug_is_noticed(
    module: str, function: str, right: str, wrong: str, test: Callable[[], Awaitable[None] | None]
) -> None:
    """The test holds without the bug and fails with it."""

    async def run() -> None:
        found = test()
        if inspect.isawaitable(found):
            await found

    await run()
    with mutated(Mutation(f"{function}: {wrong}", module, function, right, wrong, 0)), pytest.raises((AssertionError, IndexError)):
        await run()
