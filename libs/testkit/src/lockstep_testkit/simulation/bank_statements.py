"""Twins of the bank-gateway's statements, with what its database itself sees to."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from bank_gateway import outbox_store, store
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement, passed, violation
from lockstep_testkit.simulation.specs import Triggers, columns, inserted

STATEMENTS: Final = Registry()

_STEPS: Final = frozenset({("QUEUED", "SENT"), ("SENT", "SENT"), ("SENT", "ACKED"), ("SENT", "FAILED"), ("ACKED", "SETTLED")})
#: Phases of a leg that nothing is waited for any more.
_ENDED: Final = ("REFUSED", "COMMITTED", "RELEASED", "REVERSING", "REVERSED")
_WAITING: Final = ("QUEUED", "SENT")
_OWING: Final = ("PREPARING", "COMMITTING", "ABORTING")
_KEPT: Final = ("octets", "idempotency_key", "action", "uetr")
#: From here on the wait between two questions grows no more.
_DOUBLINGS_MAX: Final = 20


def _moves(s: Statement, before: Row | None, after: Row) -> None:
    """The trigger `bank_outbox_moves`."""
    if before is None:
        return
    step = before["state"], after["state"]
    if step not in _STEPS or any(before[name] != after[name] for name in _KEPT):
        raise violation(asyncpg.IntegrityConstraintViolationError, "bank_outbox_moves", f"a message goes from {step} never")
    leg = s.get("participant_leg", after["plan_id"], after["leg_id"])
    if after["state"] == "SETTLED" and (leg is None or leg["phase"] not in _ENDED):
        raise violation(
            asyncpg.IntegrityConstraintViolationError, "bank_outbox_moves", "a message is settled when its leg is at its end"
        )


def _stays(_: Statement, before: Row | None, after: Row) -> None:
    """The triggers `bank_message_stays` and `bank_quarantine_stays`."""
    del after
    if before is not None:
        raise violation(asyncpg.IntegrityConstraintViolationError, "bank_record_stays", "what went over the wire is kept as it was")


def _closes(_: Statement, before: Row | None, after: Row) -> None:
    """The trigger `bank_matter_closes`."""
    if before is None:
        return
    changed = {name for name, value in after.items() if before[name] != value}
    if before["closed_at"] is not None or after["closed_at"] is None or not changed <= {"closed_at", "closing"}:
        about = "a matter is closed once, and nothing else of it changes"
        raise violation(asyncpg.IntegrityConstraintViolationError, "bank_matter_closes", about)


TRIGGERS: Final = {
    "bank_outbox": Triggers(_moves),
    "bank_message": Triggers(_stays),
    "bank_quarantine": Triggers(_stays),
    "bank_matter": Triggers(_closes),
}


async def _numbered(s: Statement, table: str, row: Row) -> Row | None:
    """A row with the next number of the table's identity, which is spent whether the row is added or not; None where there is one like it."""
    row["id"] = s.server.sequences[table] = s.server.sequences.get(table, 0) + 1
    try:
        return await s.insert_new(table, row)
    except asyncpg.UniqueViolationError:
        return None


def _jsonb(text: str) -> str:
    """A document as `jsonb` gives it back: keys by length, then by octets."""
    document = json.loads(text)
    ordered = sorted(document.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))
    return json.dumps(dict(ordered), ensure_ascii=False)


def _open_matters(s: Statement) -> Rows:
    return sorted((row for row in s.all("bank_matter") if row["closed_at"] is None), key=lambda row: row["id"])


def _matter(s: Statement, plan_id: str, leg_id: str) -> str | None:
    """The first open matter of a leg."""
    return next((row["sentence"] for row in _open_matters(s) if (row["plan_id"], row["leg_id"]) == (plan_id, leg_id)), None)


@STATEMENTS.on(store.INSERT_PAYMENTS)
async def insert_payments(s: Statement, *values: Any) -> Rows:
    *lists, profile = values
    for new in columns(("plan_id", "leg_id", "uetr", "end_to_end_id", "asked_at", "settlement_date"), lists):
        if await s.insert_new("bank_payment", {**new, "status": "{}", "profile": profile}) is None:
            continue

        def unknown(matter: Row, uetr: str = new["uetr"]) -> bool:
            return matter["uetr"] == uetr and matter["kind"] == "UNKNOWN_PAYMENT" and matter["closed_at"] is None

        for matter in await s.locking("bank_matter", [each for each in s.all("bank_matter") if unknown(each)], unknown):
            s.update("bank_matter", matter, closed_at=s.now, closing="the payment became known")
    return []


def _of_payments(s: Statement, uetrs: list[str]) -> Rows:
    return sorted((row for row in s.all("bank_payment") if row["uetr"] in uetrs), key=lambda row: row["uetr"])


@STATEMENTS.on(store.LOCK_PAYMENTS)
async def lock_payments(s: Statement, uetrs: list[str]) -> Rows:
    return [
        {name: row[name] for name in ("uetr", "status", "asked_at", "settlement_date", "profile")}
        | {"matter": _matter(s, row["plan_id"], row["leg_id"]) or ""}
        for row in await s.locking("bank_payment", _of_payments(s, uetrs))
    ]


@STATEMENTS.on(store.LEGS_OF)
def legs_of(s: Statement, uetrs: list[str]) -> Rows:
    return [{name: row[name] for name in ("uetr", "plan_id", "leg_id")} for row in _of_payments(s, uetrs)]


@STATEMENTS.on(store.LEG_OF_REFERENCE)
def leg_of_reference(s: Statement, end_to_end_id: str) -> Rows:
    rows = (row for row in s.all("bank_payment") if row["end_to_end_id"] == end_to_end_id)
    return [{"plan_id": row["plan_id"], "leg_id": row["leg_id"]} for row in rows]


@STATEMENTS.on(store.ADD_MATTER)
async def add_matter(s: Statement, *values: Any) -> Rows:
    row = dict(zip(inserted(store.ADD_MATTER), values, strict=True))
    place = row["message_sha256"], row["place"]
    closed = any(
        (each["message_sha256"], each["place"]) == place and each["closed_at"] is not None for each in s.all("bank_matter")
    )
    return [{"added": await _numbered(s, "bank_matter", row) is not None, "open": not closed}]


@STATEMENTS.on(store.COUNT_MATTERS)
def count_matters(s: Statement) -> Rows:
    return [{"count": len(_open_matters(s))}]


@STATEMENTS.on(store.OPEN_MATTERS)
def open_matters(s: Statement, limit: int) -> Rows:
    hidden = ("message_sha256", "place", "closed_at", "closing")
    return [{name: value for name, value in row.items() if name not in hidden} for row in _open_matters(s)[:limit]]


@STATEMENTS.on(store.CLOSE_MATTER)
async def close_matter(s: Statement, number: int, closing: str) -> Rows:
    row = await s.lock("bank_matter", number)
    if row is None or row["closed_at"] is not None:
        return []
    s.update("bank_matter", row, closed_at=s.now, closing=closing)
    return [{name: row[name] for name in ("plan_id", "leg_id", "sentence")}]


@STATEMENTS.on(store.MATTER_OF_LEG)
def matter_of_leg(s: Statement, plan_id: str, leg_id: str) -> Rows:
    sentence = _matter(s, plan_id, leg_id)
    return [] if sentence is None else [{"sentence": sentence}]


@STATEMENTS.on(store.PAYMENTS_OF_MESSAGE)
def payments_of_message(s: Statement, message_id: str, kinds: list[str]) -> Rows:
    named = {
        row["uetr"]
        for row in s.all("bank_message")
        if (row["direction"], row["message_id"]) == ("OUT", message_id) and row["kind"] in kinds and row["uetr"] is not None
    }
    return [{"uetr": uetr} for uetr in sorted(named)]


@STATEMENTS.on(store.PAYMENTS)
def payments(s: Statement, plan_ids: list[str], leg_ids: list[str]) -> Rows:
    rows = (s.get("bank_payment", *leg) for leg in zip(plan_ids, leg_ids, strict=True))
    return [{name: row[name] for name in ("plan_id", "leg_id", "status", "profile")} for row in rows if row is not None]


@STATEMENTS.on(store.UPDATE_PAYMENTS)
async def update_payments(s: Statement, plan_ids: list[str], leg_ids: list[str], statuses: list[str]) -> Rows:
    for plan_id, leg_id, status in zip(plan_ids, leg_ids, statuses, strict=True):
        row = await s.lock("bank_payment", plan_id, leg_id)
        if row is not None:
            s.update("bank_payment", row, status=_jsonb(status))
    return []


@STATEMENTS.on(store.INSERT_MESSAGES)
async def insert_messages(s: Statement, *lists: list[Any]) -> Rows:
    for new in columns(inserted(store.INSERT_MESSAGES), lists):
        await _numbered(s, "bank_message", new)
    return []


@STATEMENTS.on(outbox_store.ENQUEUE)
async def enqueue(s: Statement, *lists: list[Any]) -> Rows:
    added = [await _numbered(s, "bank_outbox", new) for new in columns(inserted(outbox_store.ENQUEUE), lists)]
    return [{"idempotency_key": row["idempotency_key"]} for row in added if row is not None]


@STATEMENTS.on(outbox_store.DUE)
async def due(s: Statement, wait_max: timedelta) -> Rows:
    waiting = (row["due_at"] for row in s.all("bank_outbox") if row["state"] in _WAITING)
    return [{"due": any(passed(due_at, s.now, wait_max) for due_at in waiting)}]


@STATEMENTS.on(outbox_store.CLAIM_TURN)
async def claim_turn(s: Statement) -> Rows:
    await s.server.lock(s.tx, ("claim", ()))
    return [{"taken": False}]


@STATEMENTS.on(outbox_store.CLAIM)
async def claim(s: Statement, limit: int, lease: timedelta, wait_max: timedelta, in_flight_max: int) -> Rows:
    now = s.now
    first: dict[str, int] = {}
    waiting = sorted((row for row in s.all("bank_outbox") if row["state"] in _WAITING), key=lambda row: row["id"])
    for row in waiting:
        first.setdefault(row["uetr"], row["id"])
    due = [row for row in waiting if first[row["uetr"]] == row["id"] and passed(row["due_at"], now, wait_max)]
    free = [row for row in due if not s.server.locked(s.tx, ("bank_outbox", (row["id"],)))]
    again = [row for row in free if row["state"] == "SENT"][:limit]
    room = max(in_flight_max - sum(row["state"] == "SENT" for row in waiting), 0)
    fresh = [row for row in free if row["state"] == "QUEUED"][: min(limit - len(again), room)]
    named = ("id", "plan_id", "leg_id", "uetr", "action", "idempotency_key", "octets", "attempts", "traceparent")
    taken = [
        s.update("bank_outbox", row, state="SENT", attempts=row["attempts"] + 1, due_at=s.now + lease)
        for row in await s.locking("bank_outbox", [*again, *fresh])
    ]
    return [{name: row[name] for name in named} for row in taken]


@STATEMENTS.on(outbox_store.SETTLE)
async def settle(s: Statement, limit: int) -> Rows:
    def over(row: Row) -> bool:
        leg = s.get("participant_leg", row["plan_id"], row["leg_id"])
        return row["state"] == "ACKED" and leg is not None and leg["phase"] in _ENDED

    ended = sorted((row for row in s.all("bank_outbox") if over(row)), key=lambda row: row["id"])
    free = [row for row in ended if not s.server.locked(s.tx, ("bank_outbox", (row["id"],)))]
    for row in await s.locking("bank_outbox", free[:limit], over):
        s.update("bank_outbox", row, state="SETTLED")
    return []


async def _sent(s: Statement, number: int, **changes: Any) -> Rows:
    """Change a message that was tried and has not ended."""
    row = await s.lock("bank_outbox", number)
    if row is None or row["state"] != "SENT":
        return []
    s.update("bank_outbox", row, **changes)
    return [{"id": number}]


@STATEMENTS.on(outbox_store.MARK_ACKED)
async def mark_acked(s: Statement, numbers: list[int]) -> Rows:
    for number in numbers:
        await _sent(s, number, state="ACKED")
    return []


@STATEMENTS.on(outbox_store.MARK_FAILED)
async def mark_failed(s: Statement, number: int, failure: str) -> Rows:
    return await _sent(s, number, state="FAILED", failure=failure)


@STATEMENTS.on(outbox_store.PUT_OFF)
async def put_off(s: Statement, numbers: list[int], delays: list[timedelta]) -> Rows:
    for number, delay in zip(numbers, delays, strict=True):
        await _sent(s, number, due_at=s.now + delay)
    return []


@STATEMENTS.on(store.CURSOR)
def cursor(s: Statement, counterparty: str) -> Rows:
    row = s.get("bank_mailbox", counterparty)
    return [] if row is None else [{"cursor": row["cursor"]}]


@STATEMENTS.on(store.MOVE_CURSOR)
async def move_cursor(s: Statement, counterparty: str, after: int, place: int) -> Rows:
    if after and s.get("bank_mailbox", counterparty) is None:
        return []
    if await s.insert_new("bank_mailbox", {"counterparty": counterparty, "cursor": place}) is None:
        row = s.get("bank_mailbox", counterparty) or {}
        if row["cursor"] != after or after >= place:
            return []
        s.update("bank_mailbox", row, cursor=place)
    return [{"cursor": place}]


@STATEMENTS.on(store.QUARANTINE)
async def quarantine(s: Statement, *values: Any) -> Rows:
    await _numbered(s, "bank_quarantine", dict(zip(inserted(store.QUARANTINE), values, strict=True)))
    return []


@STATEMENTS.on(store.TO_INQUIRE)
async def to_inquire(s: Statement, after: timedelta, most: timedelta, limit: int) -> Rows:
    busy = {row["uetr"] for row in s.all("bank_outbox") if row["state"] in _WAITING}
    overdue: list[tuple[datetime, Row, Row, int]] = []
    for row in s.all("bank_payment"):
        leg = s.get("participant_leg", row["plan_id"], row["leg_id"])
        if leg is None or leg["phase"] not in _OWING or row["uetr"] in busy:
            continue
        same = row["inquiries_since"] == leg["phase_since"]
        count = row["inquiries"] if same else 0
        since = (row["inquired_at"] or leg["phase_since"]) if same else leg["phase_since"]
        if not since <= s.now <= since + min(after * 2 ** min(count, _DOUBLINGS_MAX), most):
            overdue.append((since, row, leg, count))
    overdue.sort(key=lambda each: each[0])
    free = [each for each in overdue if not s.server.locked(s.tx, ("bank_payment", (each[1]["plan_id"], each[1]["leg_id"])))]
    found: Rows = []
    for _, row, leg, count in free[:limit]:
        for locked in await s.locking("bank_payment", [row]):
            changes = {"inquiries": count + 1, "inquiries_since": leg["phase_since"], "inquired_at": s.now}
            asked = s.update("bank_payment", locked, **changes)
            found.append({name: asked[name] for name in ("plan_id", "leg_id", "inquiries")} | {"phase": leg["phase"]})
    return found


@STATEMENTS.on(store.KEY_OF_EXECUTING)
async def key_of_executing(s: Statement, plan_id: str, leg_id: str) -> Rows:
    row = s.get("participant_leg", plan_id, leg_id)
    if row is None or s.server.locked(s.tx, ("participant_leg", (plan_id, leg_id))):
        return []
    begins = row["not_after"] is None or row["not_after"] > s.now
    if row["phase"] != "COMMITTING" or not begins:
        return []
    await s.lock("participant_leg", plan_id, leg_id)
    return [{"key": row["key"]}]


@STATEMENTS.on(store.NOW)
def now(s: Statement) -> Rows:
    return [{"clock_timestamp": s.now}]
