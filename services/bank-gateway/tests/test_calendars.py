"""Cut-offs at the gateway: what cannot settle is a signed NO before the bank is asked, and the settlement date is the bank's business day, kept for good."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from bank_samples import SCHEMAS
from pydantic import ValidationError
from real_bank import BANK_BIC, OUR_BIC, PAYEE, RICH, Gateway, refusal_of, transfer

from bank_gateway.calendar_settings import CalendarSettings
from bank_gateway.gateway import BankOperations
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.calendars import Calendar, HolidayRule
from lockstep_kit.fence import Phase
from lockstep_kit.participant.ports import LegWork
from lockstep_kit.statements import Refusal
from lockstep_testkit.factories import PlanCase, leg_work

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
TARGET: dict[str, Any] = {
    "zone": "Europe/Berlin", "opens": "07:00", "cut_off": "17:00", "weekdays": (1, 2, 3, 4, 5), "holiday_rules": ("TARGET",),
}  # fmt: skip
#: A Monday in winter: TARGET is open from 06:00 to 16:00 UTC.
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def settings(**changes: Any) -> BankGatewaySettings:
    """Settings as a file would give them."""
    unused = Path("unused")
    return BankGatewaySettings.model_validate(
        {
            "database": {"url": "postgresql://nobody@nowhere/none"},
            "tls": dict.fromkeys(("certificate_file", "key_file", "ca_file"), unused),
            "participant": {"signing_key_file": unused, "registry_file": unused},
            "own_bic": OUR_BIC, "bank_bic": BANK_BIC, "currencies": ["EUR"], "rail": {"http": {"url": "https://bank.example"}},
            "schemas": unused, **changes,
        }
    )  # fmt: skip


def work(plan: PlanCase, hold_until: datetime, now: datetime) -> LegWork:
    return leg_work(plan.binding("cash"), Phase.PREPARING, hold_until=hold_until, since=now)


def refuses(now: datetime, deadline: datetime, margin: timedelta = 10 * MINUTE, **changes: Any) -> Refusal | None:
    """What the gateway says of a Prepare at a moment, before it asks the bank."""
    operations = BankOperations(settings(calendars={"EUR": TARGET}, **changes), SCHEMAS)
    return operations._refuses(work(transfer(deadline=deadline), deadline + margin, now), now)


@pytest.mark.parametrize(
    ("now", "deadline", "code"),
    [
        (MONDAY + 12 * HOUR, MONDAY + 15 * HOUR + 50 * MINUTE, None),
        (MONDAY + 12 * HOUR, MONDAY + 15 * HOUR + 50 * MINUTE + timedelta(milliseconds=1), "TM01"),
        (MONDAY + 6 * HOUR, MONDAY + 7 * HOUR, None),
        (MONDAY + 6 * HOUR - timedelta(microseconds=1), MONDAY + 7 * HOUR, "TM01"),
        (MONDAY + 16 * HOUR, MONDAY + 16 * HOUR + MINUTE, "TM01"),
        # The next day's window is another one.
        (MONDAY + 12 * HOUR, MONDAY + DAY + 8 * HOUR, "TM01"),
        (MONDAY - 2 * DAY + 12 * HOUR, MONDAY - 2 * DAY + 13 * HOUR, "TM01"),
        (datetime(2026, 12, 25, 12, tzinfo=UTC), datetime(2026, 12, 25, 13, tzinfo=UTC), "TM01"),
    ],
)
def test_refuses_what_cannot_settle(now: datetime, deadline: datetime, code: str | None) -> None:
    """A hold lies within one window of the calendar, by the clock at Prepare, or is refused by the name of a cut-off."""
    refusal = refuses(now, deadline)
    assert (refusal and refusal.outside_code) == code
    assert refusal is None or refusal.reason == "BANK_PREPARE_FAILED"


def test_a_closed_day_names_the_next_opening() -> None:
    """Who is refused on a Saturday is told that the bank opens on Monday."""
    saturday = MONDAY - 2 * DAY + 12 * HOUR
    refusal = refuses(saturday, saturday + HOUR)
    assert refusal is not None
    assert refusal.detail == "EUR does not settle at COBADEFF before 2026-11-23T06:00:00Z"


def test_settings_without_a_business_day() -> None:
    """A calendar by which nothing settles for a year is refused with the settings, and not at the first payment that needs a settlement date."""
    year = [(MONDAY + number * DAY).date().isoformat() for number in range(400)]
    with pytest.raises(ValidationError, match="holidays must leave a business day within 365 days"):
        settings(calendars={"EUR": {"zone": "Europe/Berlin", "holidays": year}})


def test_the_hold_outlives_the_deadline() -> None:
    """A promise that ends sooner after the deadline than the margin that is set is refused; one that stands as long is not."""
    now, deadline = MONDAY + 12 * HOUR, MONDAY + 13 * HOUR
    assert refuses(now, deadline, timedelta(seconds=90), hold_margin_seconds=90) is None
    refusal = refuses(now, deadline, timedelta(seconds=89), hold_margin_seconds=90)
    assert refusal is not None
    assert "outlive the plan's deadline by 90 seconds" in refusal.detail


def test_capabilities_tell_the_calendar() -> None:
    """What has cut-offs is told with its hours; what settles at any time is told without."""
    for calendar, continuous in ((TARGET, False), ({"zone": "Europe/Berlin"}, True)):
        can = BankOperations(settings(calendars={"EUR": calendar}, hold_margin_seconds=30), SCHEMAS).capabilities()
        (euro,) = can.assets
        assert (euro.hours is None, can.promise_margin) == (continuous, timedelta(seconds=30))
    assert isinstance(settings(calendars={"EUR": TARGET}).calendar("EUR").zone, ZoneInfo)


def test_settings_are_a_calendar() -> None:
    """Each setting is where it belongs."""
    told = CalendarSettings.model_validate({**TARGET, "opens": "21:00", "opens_day_before": True, "holidays": ["2026-12-24"]})
    assert told.calendar() == Calendar(
        ZoneInfo("Europe/Berlin"), -3 * HOUR, 17 * HOUR, frozenset(range(1, 6)), frozenset({HolidayRule.TARGET}), frozenset({date(2026, 12, 24)})
    )  # fmt: skip
    assert CalendarSettings(zone="Etc/UTC").calendar().continuous


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"zone": "Mars/Olympus"}, "zone must be the IANA name"),
        ({"zone": "../etc/passwd"}, "zone must be the IANA name"),
        ({"opens": "7:00"}, "opens must be a wall clock time"),
        ({"cut_off": "24:01"}, "cut_off must be a wall clock time"),
        ({"cut_off": "06:59"}, "cut_off must be after the opening"),
        ({"weekdays": (8,)}, "weekdays must be ISO weekdays"),
        ({"holiday_rules": ("LUNAR",)}, "holiday_rules"),
        ({"holidays": ("2026-02-30",)}, "holidays"),
        ({"half_days": ()}, "half_days"),
    ],
)
def test_settings_that_are_none(change: dict[str, Any], named: str) -> None:
    """A calendar that could not be followed stops the process before it serves, by field."""
    with pytest.raises(ValidationError, match=re.escape(named)):
        settings(calendars={"EUR": TARGET | change})


def test_a_calendar_of_no_currency() -> None:
    """A misspelt currency would leave the right one without cut-offs."""
    with pytest.raises(ValidationError, match="not of EUE"):
        settings(calendars={"EUE": TARGET})


def today(zone: str) -> date:
    return datetime.now(ZoneInfo(zone)).date()


def noon_zone(now: datetime) -> str:
    """A zone in which it is now between twelve and one."""
    ahead = 12 - now.hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


async def reopened(gateway: Gateway, **calendar: Any) -> None:
    await gateway.close()
    gateway.changes = {"calendars": {"EUR": CalendarSettings(**calendar)}}
    await gateway.open()


@pytest.mark.integration
async def test_holiday_and_cut_off_before_the_bank(gateway: Gateway) -> None:
    """On a holiday, and too late in the day, the leg is a signed NO with TM01, and the bank hears nothing of it; in time it is held and settled."""
    now = datetime.now(UTC)
    zone = noon_zone(now)
    for calendar, code in (
        ({"holidays": tuple(today(zone) + n * DAY for n in (-1, 0, 1))}, "TM01"),
        ({"cut_off": "14:00"}, "TM01"),
        ({"opens": "13:30", "cut_off": "23:00"}, "TM01"),
        ({"opens": "10:00", "cut_off": "23:00"}, None),
    ):
        await reopened(gateway, zone=zone, **calendar)
        plan = transfer(deadline=now + 2 * HOUR)
        assert (await gateway.prepare(plan)).rejection is None
        if code is None:
            await gateway.reaches(plan, Phase.PREPARED)
            await gateway.commit(plan)
            await gateway.reaches(plan, Phase.COMMITTED)
            assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}
        else:
            refusal = refusal_of(await gateway.reaches(plan, Phase.REFUSED))
            assert (refusal.reason, refusal.outside_code) == ("BANK_PREPARE_FAILED", code)
            assert await gateway.bank.payment(plan) is None
    await gateway.bank.sound()


@pytest.mark.integration
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
async def test_the_settlement_date_is_the_banks_day_and_stays(gateway: Gateway, zone: str) -> None:
    """By the clock at the bank's place, whatever day it is in UTC; another calendar changes no date that was instructed."""
    await reopened(gateway, zone=zone)
    plan, day = transfer(), today(zone)
    await gateway.held(plan)
    other = "Etc/GMT+12" if zone.startswith("Pacific") else "Pacific/Kiritimati"
    assert today(other) != day
    await reopened(gateway, zone=other)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    (payment,) = await gateway.rows("select settlement_date from bank_payment where plan_id = $1", plan.plan_id)
    (message,) = await gateway.rows(
        "select octets from bank_message where direction = 'OUT' and kind like 'pacs.008%' and uetr is not null"
    )
    # At midnight the day may have changed between the two looks at the clock.
    assert payment["settlement_date"] in (day, day + DAY)
    assert f"<IntrBkSttlmDt>{payment['settlement_date']}</IntrBkSttlmDt>".encode() in message["octets"]
    async with gateway.database.as_role() as role:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await role.execute("update bank_payment set settlement_date = settlement_date + 1")
