"""The twin of what the coordinator's transactions write by one call, part by part in the function's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from coordinator.store import outboxes, writing
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement
from lockstep_testkit.simulation.specs import columns

STATEMENTS: Final = Registry()


@STATEMENTS.on(writing.WRITE)
async def write(s: Statement, moment: datetime, *values: Sequence[Any] | None) -> Rows:
    parts = _parts(iter(values))
    await _hear(s, parts["heard"])
    if not await _save(s, parts["saved"], moment):
        return [{"plan_write": False}]
    for new in parts["stepped"]:
        row = await s.lock("plan_leg", new["plan_id"], new["leg_id"])
        if row is not None:
            s.update("plan_leg", row, **new)
    for new in parts["signed"]:
        await s.insert("gate_signature", new)
    for new in sorted(parts["moved"], key=lambda row: (row["plan_id"], row["transition_no"])):
        await s.insert("plan_transition", {**new, "moved_at": moment})
    await _record(s, parts["recorded"], moment)
    await _end(s, parts["ended"])
    await _give(s, parts["given"], moment)
    await _tell(s, parts["told"], moment)
    return [{"plan_write": True}]


def _parts(values: Iterator[Sequence[Any] | None]) -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for part, names in writing.PARTS.items():
        lists = list(islice(values, len(names)))
        rows = 0 if lists[0] is None else len(lists[0])
        # As `unnest` has it: a list that is null is null throughout.
        found[part] = columns(names, [[None] * rows if each is None else each for each in lists])
    return found


async def _hear(s: Statement, heard: Sequence[Row]) -> None:
    for new in sorted(heard, key=lambda row: str(row["participant"])):
        if await s.insert_new("participant_cursor", new) is None:
            s.update("participant_cursor", s.get("participant_cursor", new["participant"]) or {}, **new)


async def _save(s: Statement, saved: Sequence[Row], moment: datetime) -> bool:
    """Whether all plans were at their versions."""
    done = 0
    for new in saved:
        row = await s.lock("plan", new["plan_id"])
        if row is not None and row["version"] == new["version"]:
            epoch = {"epoch_generation": new.pop("generation"), "epoch_counter": new.pop("counter")}
            s.update("plan", row, **{**new, **epoch, "version": row["version"] + 1, "updated_at": moment})
            done += 1
    return done == len(saved)


async def _record(s: Statement, recorded: Sequence[Row], moment: datetime) -> None:
    last: dict[str, int] = {}
    for new in recorded:
        last[new["plan_id"]] = max(new["sequence"], last.get(new["plan_id"], 0))
    for plan_id in sorted(last):
        fresh: Row = {"plan_id": plan_id, "recorded": last[plan_id], "appended": 0, "frozen": ""}
        if await s.insert_new("journal_progress", fresh) is None:
            s.update("journal_progress", s.get("journal_progress", plan_id) or {}, recorded=last[plan_id])
    for new in recorded:
        await s.insert("journal_event", {**new, "event_time": moment})


async def _end(s: Statement, ended: Sequence[Row]) -> None:
    kept = {(new["plan_id"], new["leg_id"]): new["kept"] for new in ended}

    def fits(row: Row) -> bool:
        name = (row["plan_id"], row["leg_id"])
        return name in kept and not row["answered"] and row["command"] != kept[name]

    rows = sorted((row for row in s.all("leg_command") if fits(row)), key=_name) if kept else []
    for row in await s.locking("leg_command", rows, fits):
        s.update("leg_command", row, answered=True)


async def _give(s: Statement, given: Sequence[Row], moment: datetime) -> None:
    for new in sorted(given, key=_name):
        fresh = {"due_at": moment + new.pop("pause"), "given_at": moment, "attempts": new.pop("attempts")}
        fresh |= {"rejections": 0, "last_rejection": "", "answered": False}
        if await s.insert_new("leg_command", {**new, **fresh}) is None:
            row = s.get("leg_command", *_name(new))
            again = {name: new[name] for name in ("not_after", "closing", "authority", "traceparent")}
            s.update("leg_command", row or {}, **again, **fresh)


def _name(row: Row) -> tuple[str, str, str]:
    return row["plan_id"], row["leg_id"], row["command"]


async def _tell(s: Statement, told: Sequence[Row], moment: datetime) -> None:
    if not told:
        return
    counter = await s.lock("plan_event_counter", True) or {}
    first = counter["next_sequence"]
    s.update("plan_event_counter", counter, next_sequence=first + len(told))
    for place, new in enumerate(told):
        await s.insert("plan_event", {"sequence": first + place, **new, "event_at": moment})
    s.notify(outboxes.EVENT_CHANNEL)
