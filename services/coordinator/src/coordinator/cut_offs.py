"""Whether a plan's money can settle in time: deadline and delivery margin against every cut-off. Pure.

A leg settles at a moment that nobody knows before: after it was prepared, at the latest when the decision is delivered, which is the delivery margin after
the deadline. So its asset must settle at every moment from Prepare until then, which is within one window of the hours that its participant tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from coordinator.participants import Routes
from lockstep_kit.calendars import Hours, Window, open_window
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import LegId
from lockstep_kit.participant.ports import Capabilities
from lockstep_kit.plan import CreditTransfer, Leg, PlanHeader, TokenTransfer


class CutOffMissed(FieldInvalid):
    """A leg's money could not settle in time."""

    def __init__(self, leg_id: LegId, rule: str) -> None:
        super().__init__("header.deadline", rule)
        #: The leg.
        self.leg_id = leg_id


def check_cut_offs(
    header: PlanHeader,
    legs: Sequence[Leg],
    capabilities: Mapping[str, Capabilities],
    routes: Routes,
    margin: timedelta,
    now: datetime,
    *,
    preparing: bool,
) -> None:
    """Every asset settles from Prepare until the decision is delivered. Prepare is now, or for a draft at any time before its deadline.

    Participants that are not listed are not asked.

    Raises:
        CutOffMissed: one does not.
    """
    for index, leg in enumerate(legs):
        can, terms = capabilities.get(routes.of(leg.kind)), leg.terms
        if can is None or not isinstance(terms, TokenTransfer | CreditTransfer):
            continue
        for each in can.assets:
            if each.asset == terms.amount.asset and each.hours is not None:
                what = f"legs[{index}].{leg.kind.value} ({leg.leg_id}) settles {each.asset}"
                _check(leg.leg_id, what, each.hours, header.deadline, margin, now, preparing=preparing)


def _check(
    leg_id: LegId, what: str, hours: Hours, deadline: datetime, margin: timedelta, now: datetime, *, preparing: bool
) -> None:
    delivered = deadline + margin
    window = open_window(hours, now) if preparing else _last_before(hours, now, deadline)
    if window is not None and delivered <= window.cut_off:
        return
    if window is not None and window.cut_off - margin > now:
        last = f"the last possible deadline is {_text(window.cut_off - margin)}"
        cut_off = _text(window.cut_off)
        raise CutOffMissed(leg_id, f"must, with the delivery margin, lie before the cut-off: {what} until {cut_off}; {last}")
    raise CutOffMissed(leg_id, f"must leave time to settle: {what} {_later(hours, now, delivered, margin)}")


def _last_before(hours: Hours, now: datetime, deadline: datetime) -> Window | None:
    """The last window that opens before a deadline."""
    return next(iter(hours.windows(now, deadline)[-1:]), None)


def _later(hours: Hours, now: datetime, delivered: datetime, margin: timedelta) -> str:
    """When it can be done instead."""
    ahead = [
        each
        for each in hours.windows(now, delivered + timedelta(days=14))
        if each.opens > now and each.cut_off - margin > each.opens
    ]
    if not ahead:
        return "at no time that is known"
    return f"again from {_text(ahead[0].opens)}; the last possible deadline is then {_text(ahead[0].cut_off - margin)}"


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
