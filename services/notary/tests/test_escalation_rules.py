"""Every standing of an escalation on the registry, and every statement about it: what is done is what the registry would take, and a broken rule is seen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from lockstep_contracts.notary import EscalationKind, KnownEscalation
from lockstep_kit.ids import PlanId, sha256
from notary.anchors.judging import Again, Never, Order, Stands, Waits
from notary.escalations import rules
from notary.escalations.rules import Statement

MINE, THEIRS = sha256(b"mine"), sha256(b"theirs")
PLAN, OTHER = PlanId("8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a11"), PlanId("8b0c2f8e-1c4b-4f7e-9d53-0d9d3f1c2a12")
UNDER_WAY = Order(1, settled=False, skip_code="", skip_detail="", rested=True)
TIRED = Order(1, settled=True, skip_code="BadState", skip_detail="", rested=False)
USELESS = Order(1, settled=True, skip_code="REVERTED", skip_detail="", rested=True)
ORDERS = (None, UNDER_WAY, TIRED, USELESS)


def statements() -> Iterator[Statement]:
    for plan, kind, document in itertools.product((PLAN, OTHER), EscalationKind, (MINE, THEIRS)):
        yield Statement(plan, sha256(plan.encode()), "escalation", kind, document)


def standings() -> Iterator[KnownEscalation]:
    """Everything that the registry can know: nothing, an opening, or an opening and a resolution."""
    yield KnownEscalation(b"", b"", b"")
    for plan, opened, resolved in itertools.product((PLAN, OTHER), (MINE, THEIRS), (b"", MINE, THEIRS)):
        yield KnownEscalation(sha256(plan.encode()), opened, resolved)


def violations() -> Iterator[str]:
    """Where something is done that the registry would not take, or said that it does not hold."""
    for said, found, order in itertools.product(statements(), standings(), ORDERS):
        same_plan = not found.opened or found.plan_digest == said.plan_digest
        known = found.hash_of(said.kind)
        refused = not same_plan or known not in (b"", said.document_hash)
        takes = not refused and not known and (said.kind is EscalationKind.OPENED or bool(found.opened))
        match rules.judge(said, found, order):
            case Stands() if refused or not known:
                yield "what the registry does not hold is said to stand there"
            case Again() if not takes or order in (UNDER_WAY, TIRED):
                yield "a transaction is sent that is of no use"
            case Never() if not refused:
                yield "what can stand there is given up"
            case Waits() if refused or known or (takes and order in (None, USELESS)):
                yield "it waits for nothing"
    for first, second in itertools.product(statements(), repeat=2):
        alike = (first.plan_id, first.plan_digest) == (second.plan_id, second.plan_digest)
        fits = alike and (first.kind is not second.kind or first.document_hash == second.document_hash)
        if fits is bool(rules.conflict(second, [first])):
            yield "the first word is not the only one"
        elsewhere = replace(second, escalation_id="another")
        if rules.conflict(elsewhere, [first]):
            yield "another escalation stands in the way"


def test_what_is_done_is_what_the_registry_takes() -> None:
    """Nothing is sent in vain, given up without need, or said to stand where it does not."""
    assert set(violations()) == set()


SOUND_JUDGE, SOUND_CONFLICT = rules.judge, rules.conflict


def _believes_any_hash(said: Statement, found: KnownEscalation, order: Order | None) -> object:
    return Stands() if found.hash_of(said.kind) else SOUND_JUDGE(said, found, order)


def _resolves_the_unopened(said: Statement, found: KnownEscalation, order: Order | None) -> object:
    answer = SOUND_JUDGE(said, found, order)
    return Again() if isinstance(answer, Waits) and order is None else answer


def _sends_twice(said: Statement, found: KnownEscalation, order: Order | None) -> object:
    del order
    return SOUND_JUDGE(said, found, None)


def _ignores_the_plan(said: Statement, found: KnownEscalation, order: Order | None) -> object:
    return SOUND_JUDGE(said, replace(found, plan_digest=said.plan_digest), order)


def _gives_up_at_once(said: Statement, found: KnownEscalation, order: Order | None) -> object:
    return Never("it failed") if order is USELESS else SOUND_JUDGE(said, found, order)


def _last_word_counts(said: Statement, known: Any) -> str:
    return SOUND_CONFLICT(said, [each for each in known if each.kind is not said.kind])


def _any_plan(said: Statement, known: Any) -> str:
    return SOUND_CONFLICT(said, [replace(each, plan_id=said.plan_id, plan_digest=said.plan_digest) for each in known])


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("judge", _believes_any_hash),
        ("judge", _resolves_the_unopened),
        ("judge", _sends_twice),
        ("judge", _ignores_the_plan),
        ("judge", _gives_up_at_once),
        ("conflict", _last_word_counts),
        ("conflict", _any_plan),
    ],
)
def test_a_broken_rule_is_seen(monkeypatch: pytest.MonkeyPatch, rule: str, broken: Callable[..., object]) -> None:
    """With one rule broken, some standing shows it."""
    monkeypatch.setattr(rules, rule, broken)
    assert next(violations(), None) is not None
