"""A plan three ways: what agrees is matched, and each way of not agreeing has its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lockstep_client.reconciliation import BankBooking, Difference, PlanResult, Result, compare
from lockstep_kit import ids
from lockstep_kit.amounts import amount_from_text
from lockstep_kit.ids import LegId
from lockstep_kit.statements import OutcomeKind, Refusal

PAYMENT, DELIVERY = LegId("payment"), LegId("delivery")


def booked(world: Any, **changes: Any) -> BankBooking:
    """The payment as the bank booked it."""
    view = world.view()
    leg = next(each for each in view.legs if each.leg.leg_id == PAYMENT)
    evidence = leg.evidence
    told = BankBooking(
        ids.uetr(view.header.plan_id, PAYMENT), leg.leg.terms.amount, "2026-06-01", evidence.booking_reference if evidence else "B1", stated=True
    )  # fmt: skip
    return replace(told, **changes)


def compared(world: Any, *, booking: BankBooking | None = None, state: str = "CLOSED", **breaks: list[Difference]) -> PlanResult:
    view = replace(world.view(), state=state)
    return compare(view, {} if booking is None else {PAYMENT: booking}, {LegId(name): found for name, found in breaks.items()})


def results(found: PlanResult) -> dict[str, Result]:
    return {each.leg_id: each.result for each in found.legs}


def rules(found: PlanResult) -> set[str]:
    return {each.rule for leg in found.legs for each in leg.differences} | {each.rule for each in found.differences}


def test_what_agrees(world: Any) -> None:
    """Booked, stated, paid out and evidenced: matched; not stated yet: awaited, and no break."""
    found = compared(world, booking=booked(world))
    assert (results(found), found.broken) == ({DELIVERY: Result.MATCHED, PAYMENT: Result.MATCHED}, False)
    assert next(each.reference for each in found.legs if each.leg_id == DELIVERY).startswith("0x")
    waiting = compared(world, booking=booked(world, stated=False))
    assert (results(waiting)[PAYMENT], waiting.broken) == (Result.AWAITING_STATEMENT, False)


@pytest.mark.parametrize(
    ("bend", "changes", "expected"),
    [
        (lambda _: None, {"reference": "B999"}, {"REFERENCE_DIFFERS"}),
        (lambda _: None, {"uetr": "0e1c2d3a-1b2c-4d3e-8f4a-5b6c7d8e9f01"}, {"UETR_DIFFERS"}),
        (lambda _: None, {"amount": amount_from_text("EUR", "0.01", 2)}, {"AMOUNT_DIFFERS"}),
        (lambda w: w.settle("payment", kind=OutcomeKind.RELEASED, evidence=None), {}, {"BOOKED_NOT_EXECUTED"}),
        (lambda w: w.settle("payment", evidence=None), {}, {"EVIDENCE_MISSING"}),
        (lambda w: w.settle("delivery", evidence=None), {}, {"EVIDENCE_MISSING"}),
        (lambda w: w.settle("delivery", kind=OutcomeKind.RELEASED, evidence=None), {}, {"EFFECTS_APART"}),
        (
            lambda w: w.settle("delivery", evidence=replace(w.evidence("delivery"), entry_status="Prepared")),
            {},
            {"CHAIN_NOT_PAID_OUT"},
        ),
    ],
)
def test_each_difference_has_its_name(world: Any, bend: Callable[[Any], None], changes: dict[str, Any], expected: set[str]) -> None:
    """One thing that differs is one finding."""
    booking = booked(world, **changes)
    bend(world)
    found = compared(world, booking=booking)
    assert (rules(found), found.broken) == (expected, True)


def test_executed_and_not_booked(world: Any) -> None:
    """A payment that the coordinator has as executed and the bank never told is a break; so is what the gateway holds open."""
    assert rules(compared(world)) == {"BANK_NOT_BOOKED"}
    open_break = [Difference("MISSING_AT_BANK", "the bank told the booking B1: its statement does not have it")]
    found = compared(world, booking=booked(world, stated=False), payment=open_break)
    assert (rules(found), results(found)[PAYMENT]) == ({"MISSING_AT_BANK"}, Result.BREAK)


def test_a_plan_under_way(world: Any) -> None:
    """While a plan is not over, nothing that is not done yet is a break; once it is, one leg without the other is."""
    booking = booked(world)
    world.settle("delivery", kind=OutcomeKind.RELEASED, evidence=None)
    under_way = compared(world, booking=booking, state="EXECUTING")
    assert (results(under_way)[DELIVERY], under_way.broken) == (Result.OPEN, False)
    world.settle("payment", kind=OutcomeKind.RELEASED, evidence=None)
    assert (results(compared(world)), compared(world).broken) == ({DELIVERY: Result.NOTHING, PAYMENT: Result.NOTHING}, False)


def test_what_was_undone_took_no_effect(world: Any) -> None:
    """Tokens that were taken back beside a payment that was never made are no break."""
    world.settle("payment", kind=OutcomeKind.REFUSED, evidence=None, refusal=Refusal("BANK_COMMIT_FAILED"))
    view = replace(world.view(), state="ABORTED")
    assert rules(compare(view, {}, {})) == {"EFFECTS_APART"}
    undone = compare(view, {}, {}, {DELIVERY})
    assert (results(undone), undone.broken) == ({DELIVERY: Result.NOTHING, PAYMENT: Result.NOTHING}, False)
