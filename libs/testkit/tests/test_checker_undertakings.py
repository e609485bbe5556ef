"""The checker counts undertakings as effects: at most one for a leg, as the plan says, and none without a plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from lockstep_kit.ids import LegId, uetr
from lockstep_testkit.checker.bank import BankBook, BankUndertaking
from lockstep_testkit.checker.effects import check_effects
from lockstep_testkit.checker.evidence import ChainBook, Effect, Evidence, PlanRow
from lockstep_testkit.factories import instrument_terms, leg_of, plan_of, registry_of

PLAN = plan_of([leg_of("guarantee", instrument_terms(expiry_date=date(2027, 11, 21)))], deadline=datetime(2027, 1, 1, tzinfo=UTC))
REFERENCE = uetr(PLAN.plan_id, LegId("guarantee"))
ISSUED = BankUndertaking(REFERENCE, "ISSUED", 50_000_00, "EUR", "DE89370400440532013000", "Seller SA", "2027-11-21", 1)
ROW = PlanRow(
    header=PLAN.header, legs=PLAN.legs, state="CLOSED", decision="COMMIT", delegate="", decided_at=None, outcome="COMMITTED",
    transitions=(), gates=(), tickets=(), events=(),
)  # fmt: skip


def evidence(*found: BankUndertaking) -> Evidence:
    return Evidence(
        registry=registry_of(),
        plans={PLAN.plan_id: ROW},
        legs={},
        chains={},
        positions=(),
        chain=ChainBook("0x0", (), (), (), {}, {}),
        bank=BankBook((), (), {}, {each.uetr: each for each in found}),
    )


def sentences(*found: BankUndertaking) -> list[str]:
    return [each.sentence for each in check_effects(evidence(*found))]


@pytest.mark.parametrize(
    ("found", "effect"),
    [
        (ISSUED, Effect.EXECUTED),
        (replace(ISSUED, state="LODGED", issues=0), Effect.HELD),
        (replace(ISSUED, state="WITHDRAWN", issues=0), Effect.RELEASED),
        (BankUndertaking(REFERENCE, "TOMBSTONED", 0, "", "", "", "", 0), Effect.RELEASED),
        (None, Effect.NONE),
    ],
)
def test_what_is_right(found: BankUndertaking | None, effect: Effect) -> None:
    """An undertaking as agreed breaks nothing, wherever it stands."""
    given = () if found is None else (found,)
    assert sentences(*given) == []
    assert evidence(*given).effect(ROW, PLAN.legs[0]) is effect


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (replace(ISSUED, issues=2), "issued the undertaking 2 times"),
        (replace(ISSUED, state="WITHDRAWN"), "issued the undertaking 1 times, and says WITHDRAWN"),
        (replace(ISSUED, issues=0), "issued the undertaking 0 times"),
        (replace(ISSUED, amount=1), "something else than agreed"),
        (replace(ISSUED, beneficiary="Mallory"), "something else than agreed"),
        (replace(ISSUED, expires_on="2028-11-21"), "something else than agreed"),
        (replace(ISSUED, account="DE02120300000000202051"), "something else than agreed"),
        (replace(ISSUED, uetr="00000000-0000-4000-8000-000000000000"), "in no plan"),
    ],
)
def test_what_is_wrong(found: BankUndertaking, told: str) -> None:
    """Each way in which an undertaking is not the plan's is one violation."""
    (sentence,) = sentences(found)
    assert told in sentence
