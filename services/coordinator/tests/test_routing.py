"""What becomes of exceptions, as a table: total, complete, and never against what was decided."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import grpc
import pytest

from coordinator.convert.journal import AppendVerdict
from coordinator.journal_relay import _CODES
from coordinator.routing import ATTEMPTS_MAX, CATEGORIES, Category, Route, classify, route, routed
from lockstep_kit.certificate import Decision
from lockstep_kit.fence import Rejected
from lockstep_kit.participant.records import ItemReason

DECISIONS = (None, *Decision)
ERRORS = Path(__file__).parents[3] / "docs" / "errors.md"


def test_total() -> None:
    """Every category, code, decision and count has exactly one route."""
    for category, code, decision, attempts in itertools.product(Category, [*CATEGORIES, "NOBODY_KNOWS"], DECISIONS, (1, 8, 10_000)):
        assert isinstance(route(category, code, decision, attempts), Route)


def documented(heading: str) -> set[str]:
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", ERRORS.read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None, heading
    return set(re.findall(r"^\| ([A-Z][A-Z0-9_]+) \|", section[1], re.MULTILINE))


def test_complete() -> None:
    """Every reason that a rejection, a refusal, a gate, a certificate, the journal or gRPC gives has a category."""
    given = {each.value for each in (*Rejected, *ItemReason)} | {
        each.name for each in grpc.StatusCode if each is not grpc.StatusCode.OK
    }
    for heading in ("Gates and certificates", "Rejected commands", "Refusals: votes NO, and legs that will never execute"):
        found = documented(heading)
        assert found
        given |= found
    given |= set(_CODES.values())
    # What is stale is sent anew by whoever has the plan now: there is nothing to route.
    assert set(_CODES) == set(AppendVerdict) - {AppendVerdict.APPENDED, AppendVerdict.STALE}
    assert sorted(given - CATEGORIES.keys()) == []


def test_nothing_is_given_up_against_the_decision() -> None:
    """Once something is decided no exception aborts a plan; before, none is a dead letter."""
    for category, code, attempts in itertools.product(Category, CATEGORIES, (1, 100)):
        assert route(category, code, None, attempts) is not Route.DEAD_LETTER
        for decision in Decision:
            assert route(category, code, decision, attempts) is not Route.ABORT


def test_only_permanent_errors_are_dead_letters() -> None:
    """What time, another replica, a registry or an operator can still put right is never given up."""
    for category, code, decision in itertools.product(Category, CATEGORIES, DECISIONS):
        if route(category, code, decision, 10_000) is Route.DEAD_LETTER:
            assert category is Category.DATA


@pytest.mark.parametrize(
    ("code", "decision", "attempts", "expected"),
    [
        ("UNAVAILABLE", Decision.COMMIT, 10_000, Route.RETRY),
        ("DEADLINE_EXCEEDED", None, 10_000, Route.RETRY),
        ("ABORT_DEADLINE", Decision.ABORT, 10_000, Route.RETRY),
        ("EPOCH_STALE", Decision.COMMIT, 10_000, Route.RETRY),
        ("CERTIFICATE_VOTES", Decision.COMMIT, ATTEMPTS_MAX - 1, Route.RETRY),
        ("CERTIFICATE_VOTES", Decision.COMMIT, ATTEMPTS_MAX, Route.PARK),
        ("DIGEST_MISMATCH", Decision.COMMIT, 1, Route.DEAD_LETTER),
        ("DIGEST_MISMATCH", None, 1, Route.ABORT),
        ("BANK_PREPARE_FAILED", None, 1, Route.ABORT),
        ("BANK_EXECUTE_FAILED", Decision.COMMIT, 1, Route.PARK),
        ("COMPLIANCE_FAILED", None, 1, Route.ABORT),
        ("JOURNAL_GAP", Decision.COMMIT, 1, Route.RETRY),
        ("JOURNAL_CONFLICT", None, 1, Route.PARK),
        ("NOBODY_KNOWS", Decision.COMMIT, ATTEMPTS_MAX, Route.PARK),
    ],
)
def test_routes(code: str, decision: Decision | None, attempts: int, expected: Route) -> None:
    """Some that people must be able to rely on."""
    assert routed(code, decision, attempts) is expected


def test_unknown_codes_are_for_people() -> None:
    """A code that nobody has classified is tried for a while and then called out, never given up."""
    assert classify("NOBODY_KNOWS") is Category.CONTROL
