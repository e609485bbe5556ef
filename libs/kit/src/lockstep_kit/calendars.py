"""When money can settle: a rail's business days, and its opening and cut-off times on the wall clock of its place. Pure: a zone's rules are an argument.

1. A business day has one window, from its opening (included) to its cut-off (excluded). It may open on the calendar day before.
2. A wall clock time that comes twice, as clocks go back, opens a window at the second and cuts one off at the first: there is never less time than is
   believed.
3. One that never comes, as clocks go forward, stands for the moment at which they do.
4. A window that these rules leave empty is none, and nothing settles on that day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Final, Protocol

from lockstep_kit.fields import require
from lockstep_kit.values import dataclass

_DAY: Final = timedelta(days=1)
_MINUTE: Final = timedelta(minutes=1)
_SECOND: Final = timedelta(seconds=1)
#: ISO weekdays, Monday to Sunday.
EVERY_DAY: Final = frozenset(range(1, 8))
#: A calendar has a business day at least once in so many days.
DAYS_OFF_MAX: Final = 365
HOLIDAYS_MAX: Final = 1_000
#: Years of which holidays may be.
YEARS: Final = range(1900, 3000)


class HolidayRule(StrEnum):
    """Sets of holidays that follow from the year."""

    #: Closing days of the Eurosystem's TARGET services: 1 January, Good Friday, Easter Monday, 1 May, 25 and 26 December.
    TARGET = "TARGET"


@dataclass(frozen=True, slots=True)
class Window:
    """A time during which money settles, in UTC."""

    #: Settlement day of what settles in it.
    day: date
    #: From when on.
    opens: datetime
    #: From when on no longer.
    cut_off: datetime


class Hours(Protocol):
    """Times at which money can settle."""

    def windows(self, start: datetime, end: datetime) -> Sequence[Window]:
        """Windows that end after `start` and begin before `end`, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Timetable:
    """Hours as somebody told them, window by window."""

    #: In order, none within another.
    told: tuple[Window, ...]

    def __post_init__(self) -> None:
        for index, window in enumerate(self.told):
            require(window.opens < window.cut_off, f"windows[{index}].cut_off_time", "must be after the opening")
            earlier = index == 0 or self.told[index - 1].cut_off <= window.opens
            require(earlier, f"windows[{index}].open_time", "must not be before the cut-off of the window before")

    def windows(self, start: datetime, end: datetime) -> Sequence[Window]:
        """Windows that end after `start` and begin before `end`, in order."""
        return [each for each in self.told if each.cut_off > start and each.opens < end]


@dataclass(frozen=True, slots=True)
class Calendar:
    """A rail's calendar for one currency."""

    #: The place whose wall clock counts.
    zone: tzinfo
    #: From the midnight that begins the business day to the opening, on the wall clock; negative: on the day before.
    opens: timedelta = timedelta(0)
    #: From that midnight to the cut-off, on the wall clock.
    cut_off: timedelta = _DAY
    #: ISO weekdays of business days.
    weekdays: frozenset[int] = EVERY_DAY
    #: Holidays that follow from the year.
    rules: frozenset[HolidayRule] = frozenset()
    #: Other holidays.
    holidays: frozenset[date] = frozenset()

    def __post_init__(self) -> None:
        for name, time in (("opens", self.opens), ("cut_off", self.cut_off)):
            require(time % _MINUTE == timedelta(0), name, "must be whole minutes")
        require(-_DAY < self.opens < _DAY, "opens", "must be a time of the business day or of the day before")
        require(timedelta(0) < self.cut_off <= _DAY, "cut_off", "must be a time of the business day, at most its end")
        require(self.opens < self.cut_off, "cut_off", "must be after the opening")
        require(self.cut_off - self.opens <= _DAY, "opens", "must not be before the cut-off of the day before")
        require(bool(self.weekdays) and self.weekdays <= EVERY_DAY, "weekdays", "must be ISO weekdays, 1 to 7, at least one")
        require(len(self.holidays) <= HOLIDAYS_MAX, "holidays", f"must be at most {HOLIDAYS_MAX} days")
        require(all(each.year in YEARS for each in self.holidays), "holidays", "must be of the years 1900 to 2999")
        require(self._never_off_for_long(), "holidays", f"must leave a business day within {DAYS_OFF_MAX} days")

    def _never_off_for_long(self) -> bool:
        """Whether there is a business day within a year of any day. Weekdays and rules leave one, so that only holidays can take it away."""
        seen = date.min
        for holiday in sorted(self.holidays):
            if holiday <= seen:
                continue
            # The days off before it belong to it.
            first = holiday
            while not self.is_business_day(first - _DAY):
                first -= _DAY
            days_off = (first + number * _DAY for number in range(DAYS_OFF_MAX))
            end = next((each for each in days_off if self.is_business_day(each)), None)
            if end is None:
                return False
            seen = end
        return True

    @property
    def continuous(self) -> bool:
        """Whether money settles at any time: there are days, and no cut-offs."""
        always = self.opens == timedelta(0) and self.cut_off == _DAY and self.weekdays == EVERY_DAY
        return always and not self.rules and not self.holidays

    def is_business_day(self, day: date) -> bool:
        """Whether the rail works on a day."""
        by_rule = HolidayRule.TARGET in self.rules and is_target_holiday(day)
        return day.isoweekday() in self.weekdays and day not in self.holidays and not by_rule

    def window(self, day: date) -> Window | None:
        """When an instruction settles on a day: the last moment to give it is just before the cut-off. None: it cannot."""
        if not self.is_business_day(day):
            return None
        opens = _moment(self.zone, day, self.opens, second=True)
        cut_off = _moment(self.zone, day, self.cut_off, second=False)
        return Window(day, opens, cut_off) if opens < cut_off else None

    def next_window(self, at: datetime) -> Window:
        """The window in which money that is instructed at a moment settles: the one that is open, or the next."""
        # A business day that clocks which go forward leave no time of is followed by another.
        return next(self._from(at, 2 * DAYS_OFF_MAX))

    def settlement_day(self, at: datetime) -> date:
        """The day on which money that is instructed at a moment settles."""
        # Where there are no cut-offs the day is over when the wall clock says so, also in an hour that comes twice.
        return at.astimezone(self.zone).date() if self.continuous else self.next_window(at).day

    def settles_at(self, at: datetime) -> datetime:
        """The next moment at which money can settle: the given one while a window is open."""
        return at if self.continuous else max(at, self.next_window(at).opens)

    def windows(self, start: datetime, end: datetime) -> Sequence[Window]:
        """Windows that end after `start` and begin before `end`, in order."""
        days = (end - start).days + 3
        return [each for each in self._from(start, days) if each.opens < end]

    def _from(self, at: datetime, days: int) -> Iterator[Window]:
        """Windows that end after a moment, over so many days."""
        first = at.astimezone(self.zone).date() - _DAY
        for number in range(days + 1):
            window = self.window(first + number * _DAY)
            if window is not None and window.cut_off > at:
                yield window


def open_window(hours: Hours, at: datetime) -> Window | None:
    """The window that is open at a moment; None: money cannot settle then."""
    return next((each for each in hours.windows(at, at + _SECOND) if each.opens <= at), None)


def is_target_holiday(day: date) -> bool:
    """Whether the TARGET services are closed on a day that is no Saturday or Sunday (Guideline (EU) 2022/912, annex I, appendix V)."""
    easter = easter_sunday(day.year)
    moving = (easter - 2 * _DAY, easter + _DAY)
    return day in moving or (day.month, day.day) in ((1, 1), (5, 1), (12, 25), (12, 26))


def easter_sunday(year: int) -> date:
    """Easter Sunday of the Gregorian calendar (Meeus, Jones and Butcher)."""
    century, rest = divmod(year, 100)
    golden = year % 19
    leap, odd = divmod(century, 4)
    shift = (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + century - leap - shift + 15) % 30
    weekday = (32 + 2 * odd + 2 * (rest // 4) - epact - rest % 4) % 7
    late = (golden + 11 * epact + 22 * weekday) // 451
    month, day = divmod(epact + weekday - 7 * late + 114, 31)
    return date(year, month, day + 1)


def _moment(zone: tzinfo, day: date, after_midnight: timedelta, *, second: bool) -> datetime:
    """A wall clock time as a moment in UTC; `second`: which one, where it comes twice."""
    wall = datetime(day.year, day.month, day.day) + after_midnight  # noqa: DTZ001 - a wall clock time; the zone comes below
    before, after = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if before <= after:
        return after if second else before
    # It never comes (PEP 495): the clocks go forward between the two.
    return _change(zone, after, before)


def _change(zone: tzinfo, start: datetime, end: datetime) -> datetime:
    """When clocks are set, between two moments, to the second."""
    old = start.astimezone(zone).utcoffset()
    while end - start > _SECOND:
        middle = (start + (end - start) // 2).replace(microsecond=0)
        start, end = (middle, end) if middle.astimezone(zone).utcoffset() == old else (start, middle)
    return end
