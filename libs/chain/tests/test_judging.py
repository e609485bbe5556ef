"""Judging a leg by its entry's status: every verdict, for every phase and every end of its transaction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lockstep_chain.judging import (
    ATTEMPTS_MAX,
    MANUAL,
    Again,
    Order,
    Place,
    Releases,
    Rules,
    Stuck,
    Unmoved,
    Waits,
    failure_code,
    judge,
    promised,
)
from lockstep_chain.machine import State
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.statements import ChainEvidence, Refusal
from lockstep_testkit.factories import delivery_versus_payment, leg_work

PLAN = delivery_versus_payment()
PLACE = Place("eip155:138", "0x" + "11" * 20, 17, b"b" * 32)
KEY = b"k" * 32
HASH = b"h" * 32
RULES = Rules(
    table={
        (Phase.PREPARING, "None"): Unmoved.REFUSES,
        (Phase.PREPARING, "Prepared"): Finding.VOTED_YES,
        (Phase.PREPARING, "Aborted"): Finding.VOTED_NO,
        (Phase.COMMITTING, "Prepared"): Unmoved.AGAIN,
        (Phase.COMMITTING, "Committed"): Finding.EXECUTED,
        (Phase.COMMITTING, "Aborted"): Finding.REFUSED,
        (Phase.ABORTING, "None"): Unmoved.AGAIN,
        (Phase.ABORTING, "Aborted"): Finding.RELEASED,
        (Phase.ABORTING, "Committed"): Finding.EXECUTED,
    },
    reasons={Phase.PREPARING: "DLT_PREPARE_FAILED", Phase.COMMITTING: "DLT_COMMIT_FAILED"},
    passing=frozenset({"GasTooLow"}),
)


def work(phase: Phase) -> LegWork:
    return leg_work(PLAN.binding("tokens"), phase)


def order(attempt: int = 1, *, settled: bool = True, code: str = "", detail: str = "") -> Order:
    return Order(attempt, settled, HASH if settled else b"", code, detail)


def judged(phase: Phase, status: str, order: Order | None) -> Completion | Again | Releases | Waits | Stuck:
    return judge(work(phase), KEY, status, PLACE, order, RULES)


UNMOVED = [key for key, told in RULES.table.items() if isinstance(told, Unmoved)]
FOUND = [(key, told) for key, told in RULES.table.items() if isinstance(told, Finding)]


@pytest.mark.parametrize(("key", "finding"), FOUND)
@pytest.mark.parametrize("last", [None, order(settled=False), order(), order(code=MANUAL), order(code="BadState")])
def test_the_effect_is_what_counts(key: tuple[Phase, str], finding: Finding, last: Order | None) -> None:
    """What stands in a final block is found, whatever became of our own transaction."""
    found = judged(*key, last)
    assert isinstance(found, Completion)
    assert found.finding is finding


def test_what_could_not_be_paid_out_is_not_promised() -> None:
    """A hold whose payout would fail is ended before the NO is said, since a NO says that nothing is held; not for ever, if it cannot be ended."""
    held = (work(Phase.PREPARING), KEY, "Prepared", PLACE)
    assert judge(*held, order(), RULES, "the payee is blocked") == Releases("the payee is blocked")
    assert judge(*held, None, RULES, "the payee is blocked") == Releases("the payee is blocked")
    assert isinstance(judge(*held, order(ATTEMPTS_MAX), RULES, "the payee is blocked"), Stuck)
    ended = judge(work(Phase.PREPARING), KEY, "Aborted", PLACE, order(2), RULES, "the payee is blocked")
    assert isinstance(ended, Completion)
    assert ended.finding is Finding.VOTED_NO
    # What was decided is not judged by the payee any more.
    assert judge(work(Phase.COMMITTING), KEY, "Prepared", PLACE, order(), RULES, "the payee is blocked") == Again()


def test_what_is_executed_is_not_asked_for_again() -> None:
    """A participant that forgot its promise, and finds the leg executed, promises it again: nothing is held there that could be paid out."""
    rules = replace(RULES, table={**RULES.table, (Phase.PREPARING, "Committed"): Finding.VOTED_YES})
    assert promised(Phase.PREPARING, "Prepared", rules)
    assert not promised(Phase.PREPARING, "Committed", rules)
    assert not promised(Phase.PREPARING, "Aborted", rules)
    assert not promised(Phase.COMMITTING, "Prepared", rules)


@pytest.mark.parametrize("key", UNMOVED)
@pytest.mark.parametrize("attempt", [1, ATTEMPTS_MAX])
def test_a_used_nonce_calls_a_person(key: tuple[Phase, str], attempt: int) -> None:
    """A transaction whose nonce somebody else used is never a refusal, never a release, and never sent anew."""
    found = judged(*key, order(attempt, code=MANUAL, detail="nonce 7"))
    assert isinstance(found, Stuck)
    assert "nonce 7" in found.why


@pytest.mark.parametrize("key", UNMOVED)
def test_nothing_is_said_of_what_is_under_way(key: tuple[Phase, str]) -> None:
    """Without a transaction one is sent; one that has not come to its end is waited for."""
    assert judged(*key, None) == Again()
    assert judged(*key, order(settled=False)) == Waits()


@pytest.mark.parametrize("key", UNMOVED)
def test_attempts_are_bounded(key: tuple[Phase, str]) -> None:
    """A final transaction that changed nothing, and gave no reason, is tried again so often and no more."""
    assert judged(*key, order(ATTEMPTS_MAX - 1)) == Again()
    assert isinstance(judged(*key, order(ATTEMPTS_MAX)), Stuck)


@pytest.mark.parametrize("code", ["SignatureInvalid", "ERC20InsufficientAllowance", "REVERTED", "DEAD", "CANCELLED"])
def test_a_skipped_prepare_is_a_refusal(code: str) -> None:
    """A prepare that the contract skipped, or that can never be mined, is a NO with the contract's own word."""
    found = judged(Phase.PREPARING, "None", order(code=code, detail=f"{code}()"))
    assert isinstance(found, Completion)
    assert (found.finding, found.refusal) == (Finding.VOTED_NO, Refusal("DLT_PREPARE_FAILED", code, f"{code}()"))


@pytest.mark.parametrize("code", ["DEAD", "REVERTED"])
@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.REVERSING])
def test_a_dead_letter_is_told_at_once(phase: Phase, code: str) -> None:
    """Where nothing is promised yet, a transaction that can never do better is a refusal, even where others would be sent again."""
    rules = replace(
        RULES,
        table={(Phase.PREPARING, "None"): Unmoved.AGAIN, (Phase.REVERSING, "None"): Unmoved.AGAIN},
        reasons={Phase.PREPARING: "NOTARY_PREPARE_FAILED", Phase.REVERSING: "DLT_REVERSE_FAILED"},
    )
    found = judge(work(phase), KEY, "None", PLACE, order(code=code, detail="why"), rules)
    assert isinstance(found, Completion)
    refusals = {Phase.PREPARING: Finding.VOTED_NO, Phase.REVERSING: Finding.REVERSAL_REFUSED}
    assert (found.finding, found.refusal) == (refusals[phase], Refusal(rules.reasons[phase], code, "why"))
    for passing in ("REVERTED_ONCE", "CANCELLED", ""):
        assert judge(work(phase), KEY, "None", PLACE, order(code=passing), rules) == Again()


@pytest.mark.parametrize(
    ("state", "evidence", "code"),
    [
        (State.DEAD, {}, "DEAD"),
        (State.CANCELLED, {}, "CANCELLED"),
        (State.MANUAL, {"nonce": 7}, "MANUAL"),
        (State.REVERTED, {"out_of_gas": False, "revert_data": "0x"}, "REVERTED"),
        (State.REVERTED, {"out_of_gas": False, "revert_data": "0x1234"}, "REVERTED"),
        (State.REVERTED, {"out_of_gas": True}, "REVERTED_ONCE"),
        (State.REVERTED, {"out_of_gas": False, "revert_data": ""}, "REVERTED_ONCE"),
    ],
)
def test_only_a_revert_that_comes_again_is_permanent(state: State, evidence: dict[str, object], code: str) -> None:
    """A revert counts as permanent where the call reverts on the state before its block too; one for lack of gas, or that cannot be had again, does not."""
    assert failure_code(state, evidence) == code


def test_an_error_that_is_not_the_legs_own_is_no_refusal() -> None:
    """A batch that ran out of gas before the leg's turn says nothing about the leg."""
    assert judged(Phase.PREPARING, "None", order(code="GasTooLow")) == Again()
    assert isinstance(judged(Phase.PREPARING, "None", order(ATTEMPTS_MAX, code="GasTooLow")), Stuck)


@pytest.mark.parametrize("code", ["BadState", "KeyWrong", "REVERTED", "DEAD"])
def test_a_promise_is_not_broken_by_a_skip(code: str) -> None:
    """A commit or an abort that was skipped is sent again: only the contract's own status ends it."""
    for phase, status in ((Phase.COMMITTING, "Prepared"), (Phase.ABORTING, "None")):
        found = judged(phase, status, order(code=code))
        assert isinstance(found, Again)
        # Of a dead letter a person is told at once, and not only when it was tried for the last time.
        assert ("dead letter" in found.why) == (code in ("REVERTED", "DEAD"))


def test_what_no_table_foresees_calls_a_person() -> None:
    """A status that the phase has no row for is never an answer."""
    assert isinstance(judged(Phase.COMMITTING, "None", order()), Stuck)
    assert isinstance(judged(Phase.PREPARING, "Unheard", None), Stuck)


def test_evidence_names_the_place_and_only_a_transaction_that_did_it() -> None:
    """Evidence says where and in which block the status was read; a transaction that skipped the leg is not part of it."""
    found = judged(Phase.COMMITTING, "Committed", order())
    assert isinstance(found, Completion)
    assert found.evidence == ChainEvidence(PLACE.chain, PLACE.contract, KEY, "Committed", HASH, 17, PLACE.block_hash)
    found = judged(Phase.ABORTING, "Committed", order(code="BadState"))
    assert isinstance(found, Completion)
    assert isinstance(found.evidence, ChainEvidence)
    assert found.evidence.transaction_hash == b""
