"""What a transaction hands on: sent once, in order, and left to a look where it cannot be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from coordinator import relay
from coordinator.commands import REPEAT_MIN, Command
from coordinator.convert.participant import Outgoing
from coordinator.dossier import Dossier, LegFile, new_plan
from coordinator.model import EventType, Order
from coordinator.payloads import JournalEvent
from coordinator.store.outboxes import PendingEvent
from coordinator.wakes import URGENT_EVENTS, Checking, Flushed, Orders, Records, Wakes
from lockstep_kit.fence import Epoch
from lockstep_kit.ids import LegId, PlanId, sha256
from lockstep_testkit.factories import delivery_versus_payment

NOW = datetime.now(UTC)
FIRST, SECOND = PlanId("plan-1"), PlanId("plan-2")


def outgoing(leg_id: str, order: Order = Order.PREPARE, version: int = 1) -> Outgoing:
    case = delivery_versus_payment()
    files = tuple(LegFile(each, "bank-gateway", sha256(b"lock")) for each in case.legs)
    dossier = Dossier(new_plan(case.header, case.legs), case.header, files, (), version, NOW, NOW, None)
    return Outgoing(Command(FIRST, LegId(leg_id), order), dossier, Epoch(1, 1), b"")


def recorded(plan_id: PlanId, sequence: int) -> PendingEvent:
    return PendingEvent(plan_id, JournalEvent(sequence, EventType.PLAN_CREATED, "", "", b"{}"), NOW, None, Epoch(1, 1))


def places(records: Records, limit: int = 100) -> list[tuple[str, int]]:
    return [(each.plan_id, each.event.sequence) for each in records.take(limit)]


async def test_the_last_command_about_a_leg_is_sent() -> None:
    """A plan's commands go in the order of its legs, each once; of two about one leg the later one goes, whichever was handed on first."""
    orders = Orders()
    assert orders.takes_look(), "what was left by the process before is looked for"
    for each in (outgoing("cash", Order.ABORT, 2), outgoing("cash", Order.PREPARE, 1), outgoing("tokens")):
        orders.give(each)
    assert orders.wake.is_set()
    taken = orders.take(100)
    assert [(each.command.leg_id, each.command.order) for each in taken] == [("tokens", Order.PREPARE), ("cash", Order.ABORT)]
    assert orders.take(100) == []
    assert not orders.takes_look()


async def test_what_waited_for_too_long_is_left_to_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose row is due again is not sent beside what the look finds."""
    orders = Orders()
    orders.give(outgoing("cash"))
    monkeypatch.setattr("coordinator.wakes.REPEAT_MIN", REPEAT_MIN * 0)
    assert orders.take(100) == []


async def test_events_are_brought_in_order() -> None:
    """Each event once, each plan's in order, no more than fit; nothing more of a plan whose chain is another."""
    records = Records()
    assert records.takes_look()
    records.record([recorded(SECOND, 1), recorded(FIRST, 2), recorded(FIRST, 1), recorded(FIRST, 1)], {})
    assert not records.urgent.is_set()
    assert places(records, 2) == [(FIRST, 1), (FIRST, 2)]
    assert places(records) == [(SECOND, 1)]
    assert not records.waiting
    records.stop(FIRST)
    records.record([recorded(FIRST, 3), recorded(SECOND, 2)], {})
    assert places(records) == [(SECOND, 2)]
    # A look finds in the rows what was handed on, too.
    records.record([recorded(SECOND, 3)], {})
    records.look()
    assert records.takes_look()
    assert places(records) == []


async def test_many_events_and_a_closing_do_not_wait() -> None:
    """Events wait for company, unless they are many, or a chain is to be closed after them."""
    many, closing = Records(), Records()
    many.record([recorded(FIRST, each) for each in range(1, URGENT_EVENTS)], {})
    assert not many.urgent.is_set()
    many.record([recorded(FIRST, URGENT_EVENTS)], {})
    assert many.urgent.is_set()
    closing.record([recorded(FIRST, 1)], {FIRST: 2})
    assert closing.urgent.is_set()
    assert not closing.appended({SECOND: 1})
    assert not closing.appended({FIRST: 1})
    assert closing.appended({FIRST: 2})
    assert not closing.appended({FIRST: 3})
    assert closing.has(FIRST, 3)
    assert not closing.has(FIRST, 4)


async def test_a_closing_hurries_once() -> None:
    """What comes after a closing was seen to waits for company again; one that waits for nothing hurries nobody."""
    records = Records()
    records.record([recorded(FIRST, 1)], {FIRST: 1})
    records.take(10)
    records.urgent.clear()
    records.record([recorded(SECOND, 1)], {})
    assert not records.urgent.is_set()
    records.appended({FIRST: 1})
    records.record([recorded(SECOND, 2)], {FIRST: 1})
    assert not records.urgent.is_set()
    records.record([recorded(SECOND, 3)], {}, awaited=True)
    assert records.urgent.is_set()


async def test_each_loop_is_told_what_is_its() -> None:
    """Commands go to their participants; a closing that waits has the journal's looked for once what is before it is there."""
    wakes = Wakes({"bank-gateway": Orders(), "event-journal": Orders()}, "event-journal")
    for each in wakes.orders.values():
        each.takes_look()
    wakes.wake(Flushed(given=(("bank-gateway", outgoing("cash")),), recorded=(recorded(FIRST, 1),), checks=frozenset({FIRST})))
    assert len(wakes.orders["bank-gateway"].take(100)) == 1
    assert wakes.orders["event-journal"].take(100) == []
    assert (wakes.records.waiting, wakes.checks.take(10)) == (True, [FIRST])
    wakes.wake(Flushed(closing={FIRST: 1}))
    assert wakes.orders["event-journal"].takes_look()
    wakes.appended({FIRST: 1})
    assert wakes.orders["event-journal"].takes_look()
    assert not wakes.orders["bank-gateway"].takes_look()


async def test_plans_to_check_are_taken_once() -> None:
    """As many as fit, and the others when it is their turn."""
    checking = Checking()
    checking.add([SECOND, FIRST])
    checking.wake.clear()
    assert checking.take(1) == [FIRST]
    assert checking.wake.is_set()
    assert checking.take(1) == [SECOND]
    assert checking.take(1) == []


async def test_a_plan_settles_without_a_look(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes what is to be sent hands it on: a plan comes to its end although nobody looks for what is due."""

    async def never(_: Any) -> None:
        return None

    monkeypatch.setattr(relay.Due, "run", never)
    async with world.coordinator():
        plan = await world.settled()
        await world.reaches(plan, "CLOSED")
    assert not await world.rows("select from leg_command where not answered or attempts <> 1")
