"""When the bank works, with the clock set: pure; and what it says when it does not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from bank_world import ALICE, BOB, SEED, Order, World, draw, pacs_008, read, write_settings
from pydantic import ValidationError

from bank_simulator.domain import Account, PaymentOrder
from bank_simulator.judgement import Circumstances, Taken, Turned, judge
from bank_simulator.settings import BankSeed

TERMS = {
    "opens": {"EUR": "07:00"}, "cut_off": {"EUR": "17:00"}, "weekdays": [1, 2, 3, 4, 5], "holidays": ["2026-12-25"], "settlement_days_ahead_max": 4,
}  # fmt: skip
BANK_SEED = BankSeed.model_validate(SEED | {"time_zone": "Europe/Berlin", "terms": TERMS})


def verdict(now: str, day: str | None = None, hold_minutes: int | None = 30) -> str:
    """What becomes of a payment that comes at a moment (UTC), for a day, as a hold of so long: "" or the reason."""
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    conditional = hold_minutes is not None
    order = PaymentOrder(
        uuid4(), None, "E1", None, 1_00, "EUR", 2, date.fromisoformat(day) if day else None, "SHAR", None, ALICE, None, BOB, None,
        lock=hashlib.sha256(b"k").digest() if conditional else None,
        expires_at=at + timedelta(minutes=hold_minutes) if hold_minutes is not None else None, content_sha256=bytes(32),
    )  # fmt: skip
    debtor, credited = (Account(account, "CUSTOMER", "Alice", "EUR", "OPEN", 10_00) for account in (ALICE, BOB))
    known = Circumstances(debtor, credited, agent_known=True, instruction_used=False, available=10_00, credit=None, now=at)
    found = judge(order, known, BANK_SEED, BANK_SEED.counterparties[0])
    assert isinstance(found, Taken | Turned)
    return found.reason if isinstance(found, Turned) else ""


@pytest.mark.parametrize(
    ("now", "day", "hold_minutes", "expected"),
    [
        # A Monday in winter: 07:00 to 17:00 in Berlin is 06:00 to 16:00 UTC.
        ("2026-11-23 05:59:59", None, 30, "TM01"),
        ("2026-11-23 06:00:00", None, 30, ""),
        ("2026-11-23 15:30:00", None, 30, ""),
        ("2026-11-23 15:30:01", None, 30, "TM01"),
        ("2026-11-23 15:59:59", None, None, ""),
        ("2026-11-23 16:00:00", None, None, "TM01"),
        # After the cut-off, for the next day; a hold that ends before its cut-off, or not.
        ("2026-11-23 16:00:00", "2026-11-24", None, ""),
        ("2026-11-23 16:00:00", "2026-11-24", 60, ""),
        ("2026-11-23 16:00:00", "2026-11-24", 24 * 60 + 1, "TM01"),
        # A Saturday, and Christmas; for the Monday after, from the Friday.
        ("2026-11-21 12:00:00", None, 30, "TM01"),
        ("2026-12-25 12:00:00", "2026-12-25", 30, "TM01"),
        ("2026-11-20 12:00:00", "2026-11-23", 30, ""),
        ("2026-11-20 12:00:00", "2026-11-22", 30, "TM01"),
        # In summer the same hours are an hour earlier in UTC.
        ("2026-07-06 05:00:00", None, 30, ""),
        ("2026-07-06 15:00:00", None, None, "TM01"),
    ],
)
def test_hours(now: str, day: str | None, hold_minutes: int | None, expected: str) -> None:
    """The clock on the bank's wall, its weekdays and holidays decide, and a hold ends before the cut-off of its day."""
    assert verdict(now, day, hold_minutes) == expected


def test_always_open_by_default() -> None:
    """A bank of which nothing else is said works at every hour of every day."""
    seed = BankSeed.model_validate(SEED)
    assert (seed.terms.opens, seed.terms.cut_off, seed.terms.holidays, len(seed.terms.weekdays)) == ({}, {}, (), 7)


@pytest.mark.parametrize("terms", [{"weekdays": []}, {"weekdays": [0]}, {"opens": {"EUR": "17:00"}, "cut_off": {"EUR": "17:00"}}])
def test_hours_that_are_none(terms: dict[str, object]) -> None:
    """A bank that never works is no bank."""
    with pytest.raises(ValidationError):
        BankSeed.model_validate(SEED | {"terms": terms})


@pytest.mark.integration
async def test_closed_today(world: World, tmp_path: Path) -> None:
    """On a holiday a payment is turned down, and nothing is held."""
    today = datetime.now(UTC).date()
    closed = {"holidays": [(today + timedelta(days=n)).isoformat() for n in (-1, 0, 1)]}
    path = write_settings(tmp_path / "closed", world.certificates, world.owner_url, SEED | {"terms": closed, "time_zone": "UTC"})
    async with replace(world, settings=read(path)).open() as gateway:
        order, message_id = Order(amount="1.00"), draw("P")
        assert (await gateway.post(pacs_008([order], message_id), message_id))[0] == 202
        assert (await gateway.next("pacs.002")).statuses() == {order.uetr: ("RJCT", "TM01")}
        assert await gateway.account(ALICE) == ("1000.00", "0.00", "1000.00")
        await gateway.conserved()
