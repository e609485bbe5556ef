"""When the bank works: its days, and its hours by the clock on its wall. Pure."""

from __future__ import annotations

from datetime import date, datetime, time

from bank_simulator.settings import Terms


def works_on(terms: Terms, day: date) -> bool:
    """Whether a day is a business day."""
    return day.isoweekday() in terms.weekdays and day not in terms.holidays


def closed_for(terms: Terms, currency: str, local: datetime, day: date, hold_ends: datetime | None) -> str:
    """Why a payment that comes at a local time cannot settle on a day, nor be held until another local time; "" if it can.

    A payment for a day ahead is taken after the cut-off too. A hold ends before the cut-off of its day, so that whatever is released in time settles on it.
    """
    opens, cut_off = terms.opens.get(currency, time()), terms.cut_off.get(currency)
    if not works_on(terms, day):
        return "the settlement date is no business day of the bank"
    if day <= local.date() and cut_off is not None and local.time() >= cut_off:
        return "the cut-off time of the currency has passed"
    if day == local.date() and local.time() < opens:
        return "the currency's day has not begun"
    if hold_ends is not None and cut_off is not None and (hold_ends.date(), hold_ends.time()) > (max(day, local.date()), cut_off):
        return "the hold would end after the cut-off time of its settlement date"
    return ""
