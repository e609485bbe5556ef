"""The calendar of the bank's rail for one currency, as settings say it."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lockstep_kit.calendars import EVERY_DAY, Calendar, HolidayRule
from lockstep_kit.fields import FieldInvalid

_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


class CalendarSettings(BaseModel):
    """When payments in one currency settle at the bank. As it stands, with a zone alone, always."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    zone: str = Field(description="IANA name of the place whose wall clock counts, as in Europe/Berlin")
    opens: str = Field(default="00:00", description="wall clock time from which on payments settle")
    opens_day_before: bool = Field(default=False, description="whether that is on the calendar day before the business day")
    cut_off: str = Field(default="24:00", description="wall clock time from which on they no longer do")
    weekdays: tuple[int, ...] = Field(default=tuple(sorted(EVERY_DAY)), description="ISO weekdays of business days, Monday is 1")
    holiday_rules: tuple[HolidayRule, ...] = Field(default=(), description="sets of holidays that follow from the year")
    holidays: tuple[date, ...] = Field(default=(), description="other days on which nothing settles")

    def calendar(self) -> Calendar:
        """The calendar.

        Raises:
            FieldInvalid: a field breaks a rule.
        """
        opens = _after_midnight(self.opens, "opens") - timedelta(days=self.opens_day_before)
        return Calendar(
            zone=_zone(self.zone),
            opens=opens,
            cut_off=_after_midnight(self.cut_off, "cut_off"),
            weekdays=frozenset(self.weekdays),
            rules=frozenset(self.holiday_rules),
            holidays=frozenset(self.holidays),
        )

    @model_validator(mode="after")
    def _valid(self) -> CalendarSettings:
        try:
            self.calendar()
        except FieldInvalid as finding:
            raise ValueError(str(finding)) from None
        return self


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise FieldInvalid("zone", "must be the IANA name of a time zone") from None


def _after_midnight(text: str, field: str) -> timedelta:
    if _CLOCK.fullmatch(text) is None:
        raise FieldInvalid(field, "must be a wall clock time as in 17:00, at most 24:00")
    hours, minutes = map(int, text.split(":"))
    return timedelta(hours=hours, minutes=minutes)
