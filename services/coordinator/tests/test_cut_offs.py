"""The lint of cut-offs: it never passes what could not settle, and says what could."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lint import FIRM, KNOWN

from coordinator import cut_offs
from coordinator.checks import Rules, judge
from coordinator.compliance import Compliance
from coordinator.convert.participant import capabilities_from_pb
from coordinator.cut_offs import CutOffMissed, check_cut_offs
from coordinator.dossier import Dossier, LegFile, new_plan
from coordinator.lint import check_capabilities
from coordinator.model import CheckFailed, ChecksPassed, GateRecord
from coordinator.participants import Routes
from lockstep_kit.calendars import Calendar, HolidayRule, Hours, Timetable, Window, open_window
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import ActorId, KeyId, LegId
from lockstep_kit.participant.convert import description
from lockstep_kit.participant.ports import AssetCapability, Capabilities
from lockstep_kit.plan import LegKind
from lockstep_kit.statements import Gate, PromiseKind
from lockstep_testkit.factories import PARTICIPANTS, PlanCase, delivery_versus_payment

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ROUTES, MARGIN = Routes(PARTICIPANTS), timedelta(minutes=10)
BERLIN = ZoneInfo("Europe/Berlin")
WORKDAYS = frozenset(range(1, 6))
TARGET = Calendar(BERLIN, 7 * HOUR, 17 * HOUR, WORKDAYS, frozenset({HolidayRule.TARGET}))
#: A Monday in winter: TARGET is open from 06:00 to 16:00 UTC.
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
HOLD_MAX = timedelta(days=6)


def bank(hours: Hours | None, **changes: timedelta) -> Capabilities:
    can = Capabilities(("credit_transfer",), PromiseKind.GUARANTEED, HOLD_MAX, (AssetCapability("EUR", 2, hours=hours),))
    return replace(can, **changes)  # type: ignore[arg-type]


def told(can: Capabilities, now: datetime) -> Capabilities:
    """As the coordinator hears it: over the wire."""
    return capabilities_from_pb(description("bank-gateway", KeyId("k"), can, "incarnation", now))


def refused(hours: Hours | None, now: datetime, deadline: datetime, *, preparing: bool = True) -> str:
    plan = delivery_versus_payment(deadline=deadline)
    known = {PARTICIPANTS[LegKind.CREDIT_TRANSFER]: told(bank(hours), now)}
    try:
        check_cut_offs(plan.header, plan.legs, known, ROUTES, MARGIN, now, preparing=preparing)
    except CutOffMissed as finding:
        return finding.rule if (finding.leg_id, finding.field) == ("cash", "header.deadline") else "of another leg or field"
    return ""


def last_deadline(rule: str) -> datetime:
    found = re.search(r"the last possible deadline is (?:then )?(\S+)Z", rule)
    assert found is not None, rule
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC)


def test_before_the_cut_off() -> None:
    """Deadline and delivery margin lie before the cut-off, to the second; what does not is told the last deadline that would."""
    now = MONDAY + 12 * HOUR
    assert refused(TARGET, now, MONDAY + 15 * HOUR + 50 * MINUTE) == ""
    rule = refused(TARGET, now, MONDAY + 15 * HOUR + 50 * MINUTE + timedelta(seconds=1))
    assert "legs[1].credit_transfer (cash) settles EUR until 2026-11-23T16:00:00Z" in rule
    assert last_deadline(rule) == MONDAY + 15 * HOUR + 50 * MINUTE
    assert refused(None, now, MONDAY + 20 * HOUR) == ""


@pytest.mark.parametrize("preparing", [True, False])
def test_a_plan_for_another_day(preparing: bool) -> None:
    """On Saturday nothing can be prepared, while a draft for Monday is accepted; a deadline on a holiday never is."""
    saturday = MONDAY - 2 * DAY + 12 * HOUR
    rule = refused(TARGET, saturday, MONDAY + 10 * HOUR, preparing=preparing)
    assert (rule != "") == preparing
    if preparing:
        assert "again from 2026-11-23T06:00:00Z" in rule
        assert last_deadline(rule) == MONDAY + 15 * HOUR + 50 * MINUTE
    christmas = datetime(2026, 12, 25, 12, tzinfo=UTC)
    assert refused(TARGET, christmas - 3 * DAY, christmas, preparing=preparing) != ""


def test_nothing_is_known_ahead() -> None:
    """A bank that tells no window at all settles nothing."""
    assert refused(Timetable(()), MONDAY, MONDAY + HOUR).endswith("at no time that is known")


def test_the_cut_off_is_the_participants() -> None:
    """Only the asset that has cut-offs is held against them, and only where its participant was asked."""
    plan = delivery_versus_payment(deadline=MONDAY + 20 * HOUR)
    for known in (
        {},
        {PARTICIPANTS[LegKind.CREDIT_TRANSFER]: replace(bank(TARGET), assets=(AssetCapability("USD", 2, hours=TARGET),))},
    ):
        check_cut_offs(plan.header, plan.legs, known, ROUTES, MARGIN, MONDAY + 12 * HOUR, preparing=True)


def test_the_margin_that_a_participant_asks_for() -> None:
    """An installation whose delivery margin is shorter than a participant asks for accepts no plan with it."""
    now = MONDAY + 12 * HOUR
    plan = delivery_versus_payment(deadline=now + HOUR)
    can = bank(None, promise_margin=MARGIN)
    known = {PARTICIPANTS[LegKind.CREDIT_TRANSFER]: told(can, now)}
    check_capabilities(plan.header, plan.legs, known, ROUTES, MARGIN, now)
    with pytest.raises(FieldInvalid, match=r"header\.deadline must be outlived by every promise"):
        check_capabilities(plan.header, plan.legs, known, ROUTES, MARGIN - MINUTE, now)


def test_checks_fail_by_name() -> None:
    """The checks before Prepare give the reason CUT_OFF_MISSED with the leg, and pass a plan in time."""
    now = MONDAY + 12 * HOUR
    for deadline, expected in ((now + HOUR, None), (now + 5 * HOUR, "CUT_OFF_MISSED")):
        plan = delivery_versus_payment(deadline=deadline)
        known = dict.fromkeys(PARTICIPANTS.values(), FIRM)
        known[PARTICIPANTS[LegKind.CREDIT_TRANSFER]] = replace(FIRM, assets=(AssetCapability("EUR", 2, hours=TARGET),))
        found = judge(dossier_of(plan, now), known, Rules(KNOWN, Compliance(), ROUTES), now)
        if expected is None:
            assert found == ChecksPassed()
        else:
            assert isinstance(found, CheckFailed)
            assert (found.reason, found.leg_id) == (expected, "cash")
            assert "2026-11-23T15:50:00Z" in found.detail


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cut_off_time": None}, "assets[0].windows[0].cut_off_time"),
        ({"open_time": None}, "assets[0].windows[0].open_time"),
        ({"settlement_date": "23.11.2026"}, "assets[0].windows[0].settlement_date"),
        ({"cut_off_time": MONDAY}, "assets[0].windows[0].cut_off_time"),
        ({"cut_off_time": MONDAY + 2 * DAY}, "assets[0].windows[1].open_time"),
    ],
)
def test_hours_that_are_none(change: dict[str, datetime | str | None], field: str) -> None:
    """A participant whose hours are malformed, or lie within one another, counts as one that says nothing: by field."""
    message = description("bank-gateway", KeyId("k"), bank(TARGET), "incarnation", MONDAY)
    window = message.assets[0].windows[0]
    for name, value in change.items():
        if isinstance(value, str):
            window.settlement_date = value
        elif value is None:
            window.ClearField(name)  # type: ignore[arg-type]
        else:
            getattr(window, name).FromDatetime(value)
    with pytest.raises(FieldInvalid) as refusal:
        capabilities_from_pb(message)
    assert refusal.value.field == field


def dossier_of(plan: PlanCase, now: datetime) -> Dossier:
    files = tuple(LegFile(leg, ROUTES.of(leg.kind), plan.lock(leg.leg_id)) for leg in plan.legs)
    made = replace(new_plan(plan.header, plan.legs), gates=(GateRecord(plan.gate(Gate.MAKE), ActorId("alice"), now),))
    return Dossier(made, plan.header, files, (), 1, now, now, None)


ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Etc/UTC")
EDGES = (
    date(2026, 3, 29), date(2026, 10, 25), date(2026, 3, 8), date(2026, 11, 1), date(2026, 4, 5), date(2026, 10, 4), date(2026, 12, 31),
)  # fmt: skip


@st.composite
def courses(draw: st.DrawFn) -> tuple[Calendar, datetime, datetime]:
    """A calendar, a moment near an edge of clocks or years, and a deadline within hours of it."""
    opens = draw(st.integers(-12 * 60, 20 * 60))
    cut_off = draw(st.integers(max(opens, 0) + 30, min(opens, 0) + 24 * 60))
    calendar = Calendar(
        ZoneInfo(draw(st.sampled_from(ZONES))), opens * MINUTE, cut_off * MINUTE,
        draw(st.sampled_from([WORKDAYS, frozenset(range(1, 8)), frozenset({1, 3, 7})])),
        draw(st.sampled_from([frozenset(), frozenset({HolidayRule.TARGET})])),
        draw(st.sets(st.sampled_from(EDGES), max_size=3).map(frozenset)),
    )  # fmt: skip
    now = datetime.combine(draw(st.sampled_from(EDGES)), time(), UTC) + draw(st.integers(-2 * 24 * 60, 2 * 24 * 60)) * MINUTE
    return calendar, now, now + draw(st.integers(1, 12 * 60)) * MINUTE


def settles_every_minute(calendar: Calendar, start: datetime, end: datetime) -> bool:
    """Whether a clerk who reads the clock on the wall would settle, for one and the same business day, at every minute."""

    def business_day(at: datetime) -> date | None:
        wall = at.astimezone(calendar.zone).replace(tzinfo=None)
        for midnight in (datetime.combine(wall.date() + n * DAY, time()) for n in (0, 1)):
            if calendar.is_business_day(midnight.date()) and midnight + calendar.opens <= wall < midnight + calendar.cut_off:
                return midnight.date()
        return None

    days = {business_day(start + n * MINUTE) for n in range(int((end - start) / MINUTE))}
    return len(days) == 1 and None not in days


def judged(course: tuple[Calendar, datetime, datetime], *, preparing: bool = True) -> tuple[bool, str]:
    calendar, now, deadline = course
    rule = refused(calendar, now, deadline, preparing=preparing)
    return settles_every_minute(calendar, now, deadline + MARGIN), rule


@settings(max_examples=200, deadline=None)
@given(courses())
def test_never_passes_what_cannot_settle(course: tuple[Calendar, datetime, datetime]) -> None:
    """What passes settles at every minute until the decision is delivered; what is refused and names a deadline for now would pass with that one."""
    calendar, now, deadline = course
    settles, rule = judged(course)
    assert settles or rule
    if "the last possible deadline is 2" in rule:
        last = last_deadline(rule)
        assert now < last < deadline
        assert refused(calendar, now, last) == ""
        assert refused(calendar, now, last + MINUTE) != ""
    elif rule:
        again = re.search(r"again from (\S+)Z", rule)
        assert again is not None
        opens, last = datetime.fromisoformat(again[1]).replace(tzinfo=UTC), last_deadline(rule)
        assert refused(calendar, opens, last) == ""
        assert open_window(calendar, now) is None or all(refused(calendar, now, now + n * MINUTE) for n in range(1, 5))


@settings(max_examples=100, deadline=None)
@given(courses())
def test_a_draft_that_passes_can_be_prepared_in_time(course: tuple[Calendar, datetime, datetime]) -> None:
    """Of a draft that is accepted, there is a minute before its deadline from which on it can be prepared."""
    calendar, now, deadline = course
    if refused(calendar, now, deadline, preparing=False) == "":
        assert any(refused(calendar, at, deadline) == "" for at in (deadline - n * MINUTE for n in range(1, 24 * 60)) if at >= now)


@pytest.mark.parametrize("bug", ["any window will do", "the margin is forgotten", "the day is forgotten"])
def test_the_model_finds_seeded_bugs(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """The minute-by-minute model notices each rule of the lint that is broken on purpose."""
    friday, cases = MONDAY - 3 * DAY, []
    match bug:
        case "any window will do":
            monkeypatch.setattr(cut_offs, "open_window", lambda hours, at: next(iter(hours.windows(at, at + DAY)), None))
            cases = [(TARGET, MONDAY + HOUR, MONDAY + 7 * HOUR)]
        case "the margin is forgotten":
            check = cut_offs._check

            def forgetting(
                leg_id: LegId, what: str, hours: Hours, deadline: datetime, margin: timedelta, now: datetime, **when: bool
            ) -> None:
                check(leg_id, what, hours, deadline, margin * 0, now, **when)

            monkeypatch.setattr(cut_offs, "_check", forgetting)
            cases = [(TARGET, MONDAY + 12 * HOUR, MONDAY + 15 * HOUR + 55 * MINUTE)]
        case "the day is forgotten":
            monkeypatch.setattr(cut_offs, "open_window", lambda hours, at: hours.windows(at, at + 6 * DAY)[-1])
            cases = [(TARGET, friday + 15 * HOUR, friday + 17 * HOUR)]
    found = [judged(case) for case in cases]
    assert [(settles, rule == "") for settles, rule in found] == [(False, True)] * len(cases)


@pytest.mark.parametrize("told_before", [True, False])
async def test_nothing_is_prepared_that_cannot_settle(world: Any, told_before: bool) -> None:
    """A plan that misses a cut-off is not stored, or, where that is known only later, ends before anyone was asked for anything; in time it goes on."""
    now = datetime.now(UTC)
    bank = world.parties["bank-gateway"].operations
    hours = Timetable((Window(now.date(), now - HOUR, now + 30 * MINUTE),))
    late, in_time = delivery_versus_payment(), delivery_versus_payment(deadline=now + 10 * MINUTE)
    if told_before:
        bank.assets = (AssetCapability("EUR", 2, hours=hours),)
    async with world.coordinator(capability_seconds=3_600.0 if told_before else 0.5):
        # What the participants can do is asked when a plan needs it.
        await world.started(in_time)
        await world.reaches(in_time, "PREPARED")
        if told_before:
            with pytest.raises(grpc.aio.AioRpcError, match="the last possible deadline is"):
                await world.create(late)
            assert not await world.rows("select from plan where plan_id = $1", late.plan_id)
            return
        await world.create(late)
        bank.assets = (AssetCapability("EUR", 2, hours=hours),)
        await asyncio.sleep(1)
        await world.execute(late)
        found = await world.reaches(late, "ABORTED")
    assert found.reason == "CUT_OFF_MISSED"
    assert [await party.phases(late) for party in world.parties.values()] == [{}] * 4
