"""When money can settle, held against a wall clock that is read minute by minute."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockstep_kit.calendars import (
    Calendar,
    HolidayRule,
    Timetable,
    Window,
    easter_sunday,
    is_target_holiday,
    open_window,
)
from lockstep_kit.fields import FieldInvalid

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
BERLIN, NEW_YORK, LORD_HOWE, UTC_ZONE, APIA = (
    ZoneInfo(name) for name in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Etc/UTC", "Pacific/Apia")
)
ZONES = (BERLIN, NEW_YORK, LORD_HOWE, UTC_ZONE, APIA, ZoneInfo("America/Sao_Paulo"), ZoneInfo("Africa/Casablanca"))
WORKDAYS = frozenset(range(1, 6))
TARGET = Calendar(BERLIN, 7 * HOUR, 17 * HOUR, WORKDAYS, frozenset({HolidayRule.TARGET}))
#: Clocks are set within two days of these: both ways in three zones, a day that never came in one, and ends of years.
EDGES = (
    date(2026, 3, 29), date(2026, 10, 25), date(2026, 3, 8), date(2026, 11, 1), date(2026, 4, 5), date(2026, 10, 4),
    date(2011, 12, 30), date(2018, 2, 18), date(2018, 11, 4), date(2026, 12, 31), date(2028, 2, 29),
)  # fmt: skip


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    opens = draw(st.integers(-24 * 60 + 1, 24 * 60 - 1))
    cut_off = draw(st.integers(max(opens, 0) + 1, min(opens, 0) + 24 * 60))
    return Calendar(
        draw(st.sampled_from(ZONES)), opens * MINUTE, cut_off * MINUTE,
        draw(st.sets(st.integers(1, 7), min_size=1).map(frozenset)),
        draw(st.sampled_from([frozenset(), frozenset({HolidayRule.TARGET})])),
        draw(st.sets(st.sampled_from([day + n * DAY for day in EDGES for n in (-1, 0, 1)]), max_size=6).map(frozenset)),
    )  # fmt: skip


@st.composite
def moments(draw: st.DrawFn) -> datetime:
    """Near a day on which something happens to clocks or calendars, to the minute."""
    day = draw(st.sampled_from(EDGES))
    return datetime.combine(day, time(), UTC) + draw(st.integers(-3 * 24 * 60, 3 * 24 * 60)) * MINUTE


def clock_says_open(calendar: Calendar, at: datetime) -> bool:
    """Whether the clock on the wall, as a clerk reads it, says that a business day has opened and is not cut off."""
    wall = at.astimezone(calendar.zone).replace(tzinfo=None)
    midnights = [datetime.combine(wall.date() + n * DAY, time()) for n in (0, 1)]
    return any(
        calendar.is_business_day(midnight.date()) and midnight + calendar.opens <= wall < midnight + calendar.cut_off
        for midnight in midnights
    )


def test_easter() -> None:
    """Known Sundays, among them the earliest and the latest there are."""
    known = {1818: (3, 22), 1943: (4, 25), 2000: (4, 23), 2024: (3, 31), 2025: (4, 20), 2026: (4, 5), 2038: (4, 25), 2285: (3, 22)}
    assert {year: (easter_sunday(year).month, easter_sunday(year).day) for year in known} == known
    assert all(easter_sunday(year).isoweekday() == 7 for year in range(1900, 2300))
    assert all(date(year, 3, 22) <= easter_sunday(year) <= date(year, 4, 25) for year in range(1900, 2300))


def test_target_holidays() -> None:
    """The six closing days of 2026, as the ECB published them."""
    year = [date(2026, 1, 1) + n * DAY for n in range(365)]
    closed = [f"{day:%m-%d}" for day in year if is_target_holiday(day)]
    assert closed == ["01-01", "04-03", "04-06", "05-01", "12-25", "12-26"]


def test_a_day() -> None:
    """Winter and summer, a weekend and the feasts at the end of a year."""
    assert TARGET.window(date(2026, 1, 5)) == Window(date(2026, 1, 5), utc("2026-01-05 06:00"), utc("2026-01-05 16:00"))
    assert TARGET.window(date(2026, 7, 6)) == Window(date(2026, 7, 6), utc("2026-07-06 05:00"), utc("2026-07-06 15:00"))
    assert TARGET.window(date(2026, 4, 3)) is None
    assert TARGET.settles_at(utc("2026-12-24 15:59")) == utc("2026-12-24 15:59")
    assert TARGET.settles_at(utc("2026-12-24 16:00")) == utc("2026-12-28 06:00")
    assert TARGET.settlement_day(utc("2026-12-31 16:00")) == date(2027, 1, 4)
    assert open_window(TARGET, utc("2026-12-24 16:00")) is None
    assert open_window(TARGET, utc("2026-12-24 15:59")) == TARGET.window(date(2026, 12, 24))


def test_opening_on_the_day_before() -> None:
    """As Fedwire does: what is instructed on Sunday evening settles on Monday."""
    fedwire = Calendar(NEW_YORK, -3 * HOUR, 19 * HOUR, WORKDAYS)
    sunday = datetime(2026, 11, 22, 21, tzinfo=NEW_YORK)
    assert fedwire.settles_at(sunday) == sunday
    assert fedwire.settlement_day(sunday) == date(2026, 11, 23)
    assert fedwire.settles_at(sunday - MINUTE) == sunday


@pytest.mark.parametrize(
    ("calendar", "day", "opens", "cut_off"),
    [
        # 02:30 comes twice on 25 October, at 00:30 and 01:30 UTC; on 29 March it never comes, and stands for 01:00 UTC.
        (Calendar(BERLIN, 2 * HOUR + 30 * MINUTE, 17 * HOUR), date(2026, 10, 25), "01:30", "16:00"),
        (Calendar(BERLIN, HOUR, 2 * HOUR + 30 * MINUTE), date(2026, 10, 25), "2026-10-24 23:00", "00:30"),
        (Calendar(BERLIN, 2 * HOUR + 30 * MINUTE, 17 * HOUR), date(2026, 3, 29), "01:00", "15:00"),
        (Calendar(BERLIN, HOUR, 2 * HOUR + 30 * MINUTE), date(2026, 3, 29), "00:00", "01:00"),
        (Calendar(NEW_YORK, HOUR + 30 * MINUTE, 17 * HOUR), date(2026, 11, 1), "06:30", "22:00"),
        (Calendar(NEW_YORK, HOUR, 2 * HOUR + 30 * MINUTE), date(2026, 3, 8), "06:00", "07:00"),
        # Lord Howe sets its clocks by half an hour: 01:45 comes twice on 5 April, 02:15 never on 4 October.
        (Calendar(LORD_HOWE, HOUR + 45 * MINUTE, 17 * HOUR), date(2026, 4, 5), "2026-04-04 15:15", "06:30"),
        (Calendar(LORD_HOWE, HOUR, 2 * HOUR + 15 * MINUTE), date(2026, 10, 4), "2026-10-03 14:30", "2026-10-03 15:30"),
    ],
)
def test_clocks_are_set(calendar: Calendar, day: date, opens: str, cut_off: str) -> None:
    """A time that comes twice opens at the second and cuts off at the first; one that never comes is when the clocks are set."""
    window = calendar.window(day)
    assert window is not None
    found = tuple(each if len(each) > 5 else f"{day} {each}" for each in (opens, cut_off))
    assert (window.opens, window.cut_off) == tuple(map(utc, found))


def test_a_day_that_never_came() -> None:
    """Samoa left out 30 December 2011: nothing settles on it, and what was instructed on the 29th after the cut-off settles on the 31st."""
    calendar = Calendar(APIA, 9 * HOUR, 16 * HOUR)
    assert calendar.window(date(2011, 12, 30)) is None
    assert calendar.settlement_day(datetime(2011, 12, 29, 16, tzinfo=APIA)) == date(2011, 12, 31)


@settings(max_examples=300)
@given(calendars(), moments())
@example(Calendar(BERLIN, 2 * HOUR + 10 * MINUTE, 2 * HOUR + 50 * MINUTE), utc("2026-10-25 00:15"))
def test_never_open_when_the_clock_says_closed(calendar: Calendar, at: datetime) -> None:
    """For six hours, minute by minute: inside a window the wall clock says open; outside it may say so only where clocks go back."""
    windows = calendar.windows(at, at + 6 * HOUR)
    for number in range(6 * 60):
        moment = at + number * MINUTE
        inside = any(each.opens <= moment < each.cut_off for each in windows)
        says = clock_says_open(calendar, moment)
        assert not inside or says
        twice = any(
            (moment + n * HOUR).astimezone(calendar.zone).utcoffset() != moment.astimezone(calendar.zone).utcoffset()
            for n in (-24, 24)
        )
        assert inside == says or twice
        assert inside == (open_window(calendar, moment) is not None)


@given(calendars(), moments(), st.integers(0, 3 * 24 * 60))
def test_monotonous(calendar: Calendar, at: datetime, minutes: int) -> None:
    """What is instructed later settles no earlier, on no earlier day, and never before it was instructed."""
    later = at + minutes * MINUTE
    assert at <= calendar.settles_at(at) <= calendar.settles_at(later)
    assert calendar.settlement_day(at) <= calendar.settlement_day(later)
    if not calendar.continuous:
        window = calendar.next_window(at)
        assert window.opens <= calendar.settles_at(at) < window.cut_off
        # The last moment at which an instruction given settles on that day.
        assert calendar.settlement_day(window.cut_off - MINUTE) == window.day
        assert calendar.settlement_day(window.cut_off) > window.day


@given(calendars(), moments())
def test_windows_are_in_order(calendar: Calendar, at: datetime) -> None:
    """Windows are in order, apart, one of each business day at the most, and what was told of them is a timetable that says the same."""
    windows = calendar.windows(at - 2 * DAY, at + 2 * DAY)
    told = Timetable(tuple(windows))
    assert list(told.windows(at, at + DAY)) == list(calendar.windows(at, at + DAY))
    assert all(calendar.window(each.day) == each for each in windows)
    for before, after in itertools.pairwise(windows):
        assert before.day < after.day
        assert before.cut_off <= after.opens


def test_without_cut_offs() -> None:
    """A rail that is always open has days, by its own clock, and no cut-offs."""
    always = Calendar(BERLIN)
    assert always.continuous
    assert not TARGET.continuous
    assert always.settlement_day(utc("2026-11-21 22:59")) == date(2026, 11, 21)
    assert always.settlement_day(utc("2026-11-21 23:00")) == date(2026, 11, 22)
    assert always.settles_at(utc("2026-11-21 23:00")) == utc("2026-11-21 23:00")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"opens": 17 * HOUR}, "cut_off"),
        ({"cut_off": 25 * HOUR}, "cut_off"),
        ({"cut_off": timedelta(0)}, "cut_off"),
        ({"opens": -24 * HOUR}, "opens"),
        ({"opens": -3 * HOUR, "cut_off": 22 * HOUR}, "opens"),
        ({"opens": timedelta(seconds=90)}, "opens"),
        ({"weekdays": frozenset()}, "weekdays"),
        ({"weekdays": frozenset({0})}, "weekdays"),
        ({"holidays": frozenset(date(2026, 1, 1) + n * DAY for n in range(1001))}, "holidays"),
    ],
)
def test_calendars_that_are_none(changes: dict[str, timedelta], field: str) -> None:
    """What could not be followed is refused by field."""
    with pytest.raises(FieldInvalid) as refused:
        Calendar(**({"zone": BERLIN, "opens": 7 * HOUR, "cut_off": 17 * HOUR} | changes))  # type: ignore[arg-type]
    assert refused.value.field == field


def test_timetables_that_are_none() -> None:
    """Windows that end before they begin, or lie within one another, are refused."""
    first, second = (
        Window(day, *(utc(f"{day} {hour}") for hour in ("07:00", "17:00"))) for day in (date(2026, 1, 5), date(2026, 1, 6))
    )
    assert Timetable((first, second)).told == (first, second)
    for told in ((second, first), (first, first), (Window(first.day, first.cut_off, first.opens),)):
        with pytest.raises(FieldInvalid):
            Timetable(told)


@pytest.mark.parametrize(("days", "refused"), [(363, False), (364, True), (800, True)])
def test_a_year_without_a_business_day(days: int, refused: bool) -> None:
    """A calendar without a business day for a year is refused; days off before and after the holidays count among them."""
    saturday = date(2026, 1, 3)
    holidays = frozenset(saturday + n * DAY for n in range(2, days))
    if refused:
        with pytest.raises(FieldInvalid) as finding:
            Calendar(BERLIN, weekdays=WORKDAYS, holidays=holidays)
        assert finding.value.field == "holidays"
    else:
        calendar = Calendar(BERLIN, weekdays=WORKDAYS, holidays=holidays)
        assert calendar.settlement_day(utc("2026-01-03 12:00")) == max(holidays) + DAY


def test_holidays_of_no_year() -> None:
    """A holiday far from any plan is a mistake, and is refused by its field."""
    for day in (date.min, date.max):
        with pytest.raises(FieldInvalid) as finding:
            Calendar(BERLIN, holidays=frozenset({day}))
        assert finding.value.field == "holidays"
