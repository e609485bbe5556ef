"""What of a plan is at risk: which amounts, why, and since when. Pure; shown to whoever asks, never decided upon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum

from coordinator import facts
from coordinator.dossier import Dossier
from coordinator.model import LegState, Order, Plan, State
from lockstep_kit.amounts import Amount, AssetId
from lockstep_kit.ids import LegId
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.participant.ports import PlanOutcome
from lockstep_kit.plan import CreditTransfer, Leg, TokenTransfer
from lockstep_kit.values import dataclass


class Doubt(StrEnum):
    """Why a leg's amount is at risk."""

    EXECUTION_UNKNOWN = "EXECUTION_UNKNOWN"
    RELEASE_UNKNOWN = "RELEASE_UNKNOWN"
    REVERSAL_UNKNOWN = "REVERSAL_UNKNOWN"
    EXECUTED_ALONE = "EXECUTED_ALONE"
    HELD = "HELD"
    CONTRADICTED = "CONTRADICTED"


_UNKNOWN = {Order.COMMIT: Doubt.EXECUTION_UNKNOWN, Order.ABORT: Doubt.RELEASE_UNKNOWN, Order.REVERSE: Doubt.REVERSAL_UNKNOWN}
#: In these states a plan is not whole: what took effect stands alone, and what is held waits for people.
_BROKEN = (State.PARTIALLY_EXECUTED, State.UNWIND_PENDING)


@dataclass(frozen=True, slots=True)
class Exposure:
    """A leg whose amount is at risk."""

    #: The leg.
    leg_id: LegId
    #: Who serves it.
    participant: str
    #: What is at risk.
    amount: Amount
    #: Why.
    doubt: Doubt
    #: Since when.
    since: datetime


@dataclass(frozen=True, slots=True)
class AtRisk:
    """What is at risk of one asset."""

    #: Sum.
    amount: Amount
    #: How many legs.
    legs: int
    #: Since when the oldest is.
    oldest: datetime


def exposures(dossier: Dossier) -> tuple[Exposure, ...]:
    """Everything of a plan that is at risk, in plan order. What was settled outside is not."""
    return tuple(_exposures(dossier))


def _exposures(dossier: Dossier) -> Iterator[Exposure]:
    plan = dossier.plan
    if plan.outcome is PlanOutcome.MIXED:
        return
    for file in dossier.files:
        amount, leg = amount_of(file.leg), facts.leg(plan, file.leg.leg_id)
        found = None if amount is None else _doubt(plan, leg)
        if amount is not None and found is not None:
            since = leg.ordered_at if found in _UNKNOWN.values() else plan.since
            yield Exposure(leg.leg_id, file.participant, amount, found, since or dossier.created_at)


def amount_of(leg: Leg) -> Amount | None:
    """What a leg moves; None for those that move nothing."""
    return leg.terms.amount if isinstance(leg.terms, TokenTransfer | CreditTransfer | IssueInstrument) else None


def _doubt(plan: Plan, leg: LegState) -> Doubt | None:
    if any(each.leg_id == leg.leg_id for each in facts.unknown_legs(plan)):
        return _UNKNOWN[leg.order]
    if facts.gainsaid(leg) or (facts.executed(leg) and leg.trouble):
        return Doubt.CONTRADICTED
    if plan.sealing and plan.outcome in (PlanOutcome.ABORTED, PlanOutcome.REVERSED) and facts.executed(leg):
        return Doubt.CONTRADICTED
    if plan.sealing and plan.outcome is PlanOutcome.COMMITTED and not facts.executed(leg):
        return Doubt.CONTRADICTED
    if plan.state not in _BROKEN:
        return None
    if facts.executed(leg):
        return Doubt.EXECUTED_ALONE
    return None if facts.barred(leg) or facts.untouched(leg) or leg.reversed else Doubt.HELD


def by_asset(found: Iterable[Exposure]) -> tuple[AtRisk, ...]:
    """The sums, by asset."""
    return together((AtRisk(each.amount, 1, each.since) for each in found), ())


def older_than(found: Iterable[Exposure], age: timedelta, now: datetime) -> tuple[Exposure, ...]:
    """Those that are at risk for longer than this."""
    return tuple(each for each in found if now - each.since >= age)


def together(some: Iterable[AtRisk], others: Iterable[AtRisk]) -> tuple[AtRisk, ...]:
    """Sums over both, by asset."""
    totals: dict[AssetId, AtRisk] = {}
    for each in (*some, *others):
        known = totals.get(each.amount.asset)
        if known is None:
            totals[each.amount.asset] = each
        else:
            amount = Amount(each.amount.asset, known.amount.minor_units + each.amount.minor_units, each.amount.scale)
            totals[each.amount.asset] = AtRisk(amount, known.legs + each.legs, min(known.oldest, each.oldest))
    return tuple(totals[asset] for asset in sorted(totals))
