"""Times at which an asset settles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

from lockstep.participant.v1 import participant_service_pb2
from lockstep_kit.calendars import Hours, Timetable, Window
from lockstep_kit.convert.values import time_from_pb, time_to_pb
from lockstep_kit.fields import FieldInvalid, require, within

#: More are refused, so that nobody's answer fills a memory.
WINDOWS_MAX: Final = 1_000


def hours_to_pb(hours: Hours, start: datetime, end: datetime) -> list[participant_service_pb2.SettlementWindow]:
    """Hours window by window, as messages: those that end after `start` and begin before `end`."""
    return [
        participant_service_pb2.SettlementWindow(
            settlement_date=each.day.isoformat(), open_time=time_to_pb(each.opens), cut_off_time=time_to_pb(each.cut_off)
        )
        for each in hours.windows(start, end)
    ]


def hours_from_pb(messages: Sequence[participant_service_pb2.SettlementWindow]) -> Hours:
    """Hours as they were told.

    Raises:
        FieldInvalid: a window has another form, or they are not in order and apart.
    """
    require(len(messages) <= WINDOWS_MAX, "windows", f"must be at most {WINDOWS_MAX}")
    found: list[Window] = []
    for index, message in enumerate(messages):
        with within(f"windows[{index}]"):
            for field in ("open_time", "cut_off_time"):
                require(message.HasField(field), field, "must be present")
            opens, cut_off = time_from_pb(message.open_time, "open_time"), time_from_pb(message.cut_off_time, "cut_off_time")
            found.append(Window(_day(message.settlement_date), opens, cut_off))
    return Timetable(tuple(found))


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise FieldInvalid("settlement_date", "must be a date as ISO 8601 writes it") from None
