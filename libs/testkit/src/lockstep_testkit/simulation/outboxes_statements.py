"""Twins of the coordinator's statements about what is still to be sent, and what was heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from coordinator.store import kept_news, letters, outboxes
from lockstep_testkit.simulation.leases_statements import free, held, locked_held
from lockstep_testkit.simulation.memory import INFINITY, Registry, Row, Rows, Statement, passed
from lockstep_testkit.simulation.specs import among, columns

STATEMENTS: Final = Registry()

_OPEN: Callable[[Row], bool] = lambda row: row["replayed_at"] is None  # noqa: E731 - a predicate of an index


def _behind(s: Statement, row: Row) -> bool:
    """Whether a command waits for what comes before it in the journal."""
    if not row["behind_journal"]:
        return False
    progress = s.get("journal_progress", row["plan_id"])
    return progress is None or progress["appended"] < progress["recorded"]


# -- commands ------------------------------------------------------------------------------------------------------------


async def _commands(s: Statement, fits: Callable[[Row], bool]) -> list[Row]:
    return await s.locking("leg_command", sorted((row for row in s.all("leg_command") if fits(row)), key=_name), fits)


@STATEMENTS.on(outboxes.END_SHOWN)
async def end_shown(s: Statement, *values: Sequence[Any]) -> Rows:
    plan_ids, leg_ids, commands, phases, revisions = values
    told = zip(phases, revisions, strict=True)
    shown = dict(zip(zip(plan_ids, leg_ids, commands, strict=True), told, strict=True))

    def fits(row: Row) -> bool:
        leg = s.get("plan_leg", row["plan_id"], row["leg_id"])
        phase, revision = shown.get(_name(row), ("", 0))
        return not row["answered"] and leg is not None and leg["phase"] == phase and leg["revision"] >= revision

    for row in await _commands(s, fits):
        s.update("leg_command", row, answered=True)
    return []


@STATEMENTS.on(outboxes.SHOWN_OTHERWISE)
def shown_otherwise(s: Statement, *values: Sequence[Any]) -> Rows:
    def otherwise(plan_id: str, leg_id: str, phase: str, revision: int) -> bool:
        leg = s.get("plan_leg", plan_id, leg_id)
        return leg is not None and leg["phase"] not in (None, phase) and leg["revision"] >= revision

    return [{"exists": any(otherwise(*each) for each in zip(*values, strict=True))}]


def _due(s: Statement, row: Row, participant: str, now: datetime) -> bool:
    due = passed(row["due_at"], now)
    return row["participant"] == participant and not row["answered"] and due and not _behind(s, row)


@STATEMENTS.on(outboxes.DUE)
def due(s: Statement, owner: str) -> Rows:
    now = s.now

    def mine(row: Row) -> bool:
        lease = s.get("lease", row["plan_id"])
        return lease is not None and lease["owner"] == owner

    waiting = {row["participant"] for row in s.all("leg_command") if _due(s, row, row["participant"], now) and mine(row)}
    progress = (row for row in s.all("journal_progress") if row["appended"] < row["recorded"] and not row["frozen"])
    return [{"participant": each} for each in sorted(waiting)] + [{"participant": outboxes.JOURNAL}] * any(map(mine, progress))


@STATEMENTS.on(outboxes.DUE_PLANS)
def due_plans(s: Statement, participant: str, owner: str, generation: int, left: timedelta, limit: int) -> Rows:
    now = s.now
    rows = [row for row in s.all("leg_command") if _due(s, row, participant, now)]
    mine = [row for row in rows if (lease := s.get("lease", row["plan_id"])) is not None and lease["owner"] == owner]
    first = {row["plan_id"] for row in sorted(mine, key=lambda row: row["due_at"])[:limit]}
    return [{"plan_id": each, "held": held(s, s.get("lease", each) or {}, owner, generation, left)} for each in sorted(first)]


@STATEMENTS.on(outboxes.LOCK_DUE)
async def lock_due(
    s: Statement, participant: str, owner: str, generation: int, left: timedelta, plan_ids: Sequence[str], limit: int
) -> Rows:
    now, epochs = s.now, {row["resource_id"]: row for row in await locked_held(s, plan_ids, owner, generation, left)}

    def fits(row: Row) -> bool:
        return row["plan_id"] in epochs and _due(s, row, participant, now)

    rows = sorted((row for row in s.all("leg_command") if fits(row)), key=_name)[:limit]
    return [
        {**row, **{name: epochs[row["plan_id"]][name] for name in ("generation", "counter")}}
        for row in await s.locking("leg_command", rows, fits)
    ]


@STATEMENTS.on(outboxes.SENT)
async def sent(
    s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str], commands: Sequence[str], delays: Sequence[timedelta]
) -> Rows:
    for plan_id, leg_id, command, delay in zip(plan_ids, leg_ids, commands, delays, strict=True):
        row = await s.lock("leg_command", plan_id, leg_id, command)
        if row is not None:
            s.update("leg_command", row, attempts=row["attempts"] + 1, due_at=s.now + delay)
    return []


@STATEMENTS.on(outboxes.REJECTED)
async def rejected(
    s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str], commands: Sequence[str], reasons: Sequence[str]
) -> Rows:
    found: Rows = []
    for plan_id, leg_id, command, reason in zip(plan_ids, leg_ids, commands, reasons, strict=True):
        row = await s.lock("leg_command", plan_id, leg_id, command)
        if row is not None:
            found.append(s.update("leg_command", row, rejections=row["rejections"] + 1, last_rejection=reason))
    return found


@STATEMENTS.on(outboxes.WITHHOLD)
async def withhold(s: Statement, plan_id: str) -> Rows:
    def fits(row: Row) -> bool:
        return row["plan_id"] == plan_id and row["command"] == "COMMIT" and not row["attempts"] and not row["answered"]

    return [s.update("leg_command", row, answered=True) for row in await _commands(s, fits)]


@STATEMENTS.on(outboxes.HASTEN)
async def hasten(s: Statement, plan_ids: Sequence[str]) -> Rows:
    wanted = set(plan_ids)

    def fits(row: Row) -> bool:
        return row["plan_id"] in wanted and not row["answered"] and row["due_at"] < INFINITY

    for row in await _commands(s, fits):
        s.update("leg_command", row, due_at=s.now)
    return []


@STATEMENTS.on(outboxes.HASTEN_PARTICIPANT)
async def hasten_participant(s: Statement, participant: str) -> Rows:
    def fits(row: Row) -> bool:
        return row["participant"] == participant and not row["answered"] and s.now < row["due_at"] < INFINITY

    for row in await _commands(s, fits):
        s.update("leg_command", row, due_at=s.now)
    return []


@STATEMENTS.on(outboxes.UNFINISHED)
def unfinished(s: Statement, plan_ids: Sequence[str]) -> Rows:
    done = ("COMMITTED", "RELEASED", "REVERSED")
    rows = [row for row in among(s, "plan_leg", plan_ids) if row["last_order"] != "NONE" and row["phase"] not in done]
    return sorted(rows, key=lambda row: (row["plan_id"], row["leg_id"]))


@STATEMENTS.on(outboxes.UNANSWERED)
def unanswered(s: Statement, plan_ids: Sequence[str]) -> Rows:
    rows = [row for row in among(s, "leg_command", plan_ids) if not row["answered"]]
    return sorted(rows, key=lambda row: (row["plan_id"], row["leg_id"]))


# -- the journal ---------------------------------------------------------------------------------------------------------


@STATEMENTS.on(outboxes.PENDING_EVENTS)
def pending_events(s: Statement, owner: str, limit: int) -> Rows:
    behind = {
        row["plan_id"]: row["appended"]
        for row in s.all("journal_progress")
        if row["appended"] < row["recorded"]
        and not row["frozen"]
        and (held := s.get("lease", row["plan_id"])) is not None
        and held["owner"] == owner
    }
    if not behind:
        return []
    rows = [row for row in s.all("journal_event") if row["plan_id"] in behind and row["sequence"] > behind[row["plan_id"]]]
    return _with_epoch(s, sorted(rows, key=lambda row: (row["plan_id"], row["sequence"]))[:limit])


def _with_epoch(s: Statement, events: Sequence[Row]) -> Rows:
    leases = [(row, s.get("lease", row["plan_id"])) for row in events]
    return [{**row, "generation": held["generation"], "counter": held["counter"]} for row, held in leases if held is not None]


@STATEMENTS.on(outboxes.EVENTS_FROM)
def events_from(s: Statement, plan_id: str, sequence: int, limit: int) -> Rows:
    rows = [row for row in s.all("journal_event") if row["plan_id"] == plan_id and row["sequence"] >= sequence]
    return _with_epoch(s, sorted(rows, key=lambda row: row["sequence"])[:limit])


@STATEMENTS.on(outboxes.APPENDED)
async def appended(s: Statement, plan_ids: Sequence[str], sequences: Sequence[int]) -> Rows:
    for plan_id, sequence in zip(plan_ids, sequences, strict=True):
        row = await s.lock("journal_progress", plan_id)
        if row is not None:
            s.update("journal_progress", row, appended=max(row["appended"], sequence))
    return []


@STATEMENTS.on(outboxes.FREEZE)
async def freeze(s: Statement, plan_id: str, why: str) -> Rows:
    row = await s.lock("journal_progress", plan_id)
    if row is not None and not row["frozen"]:
        s.update("journal_progress", row, frozen=why)
    return []


# -- what was heard ------------------------------------------------------------------------------------------------------


@STATEMENTS.on(outboxes.READ_CURSOR)
def read_cursor(s: Statement, participant: str) -> Rows:
    row = s.get("participant_cursor", participant)
    return [] if row is None else [row]


@STATEMENTS.on(kept_news.KEEP)
async def keep_news(s: Statement, *values: Sequence[Any]) -> Rows:
    names = ("plan_id", "leg_id", "participant", "revision", "report")
    for new in sorted(columns(names, values), key=lambda row: (row["plan_id"], row["leg_id"])):
        if await s.insert_new("leg_news", new) is None:
            row = s.get("leg_news", new["plan_id"], new["leg_id"]) or {}
            if row["revision"] < new["revision"]:
                s.update("leg_news", row, revision=new["revision"], report=new["report"])
    return []


@STATEMENTS.on(kept_news.READ)
def take_news(s: Statement, owner: str, limit: int) -> Rows:
    now = s.now

    def mine(row: Row) -> bool:
        held = s.get("lease", row["plan_id"])
        return held is not None and (held["owner"] == owner or free(held, now))

    return sorted((row for row in s.all("leg_news") if mine(row)), key=lambda row: (row["plan_id"], row["leg_id"]))[:limit]


@STATEMENTS.on(kept_news.DROP_HEARD)
async def drop_heard(s: Statement) -> Rows:
    def heard(row: Row) -> bool:
        leg = s.get("plan_leg", row["plan_id"], row["leg_id"])
        return leg is not None and leg["revision"] >= row["revision"]

    for row in await s.locking("leg_news", [row for row in s.all("leg_news") if heard(row)], heard):
        s.delete("leg_news", row)
    return []


@STATEMENTS.on(kept_news.DROP)
async def drop_news(s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str], revisions: Sequence[int]) -> Rows:
    for plan_id, leg_id, revision in zip(plan_ids, leg_ids, revisions, strict=True):
        row = await s.lock("leg_news", plan_id, leg_id)
        if row is not None and row["revision"] <= revision:
            s.delete("leg_news", row)
    return []


# -- dead letters --------------------------------------------------------------------------------------------------------


def _named(plan_ids: Sequence[str], leg_ids: Sequence[str], commands: Sequence[str]) -> set[tuple[str, str, str]]:
    return set(zip(plan_ids, leg_ids, commands, strict=True))


def _name(row: Row) -> tuple[str, str, str]:
    return row["plan_id"], row["leg_id"], row["command"]


@STATEMENTS.on(letters.PARK)
async def park(s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str], commands: Sequence[str]) -> Rows:
    dead = _named(plan_ids, leg_ids, commands)
    for row in await _commands(s, lambda row: _name(row) in dead and not row["answered"]):
        s.update("leg_command", row, due_at=INFINITY)
    return []


@STATEMENTS.on(letters.INSERT)
async def insert_letters(s: Statement, *values: Any) -> Rows:
    plan_ids, leg_ids, commands, participant, *rest = values
    names = ("plan_id", "leg_id", "command", "reason", "detail", "attempts")
    for row in columns(names, [plan_ids, leg_ids, commands, *rest]):
        if any(_name(each) == _name(row) and _OPEN(each) for each in s.all("dead_letter")):
            continue
        letter = {"dead_letter_id": s.server.draw("dead_letter"), "participant": participant, "dead_at": s.now}
        await s.insert("dead_letter", {**row, **letter})
    return []


@STATEMENTS.on(letters.PAGE)
def page_letters(s: Statement, moment: datetime | None, letter_id: str, replayed: bool, limit: int) -> Rows:
    def waits(row: Row) -> bool:
        command = s.get("leg_command", *_name(row))
        return command is not None and not command["answered"] and command["due_at"] == INFINITY and _OPEN(row)

    rows = [
        row
        for row in s.all("dead_letter")
        if (moment is None or (row["dead_at"], row["dead_letter_id"]) < (moment, letter_id))
        and s.get("leg_command", *_name(row)) is not None
        and (replayed or waits(row))
    ]
    return sorted(rows, key=lambda row: (row["dead_at"], row["dead_letter_id"]), reverse=True)[:limit]


@STATEMENTS.on(letters.LOCK)
async def lock_letter(s: Statement, letter_id: str) -> Rows:
    row = s.get("dead_letter", letter_id)
    return [] if row is None else await s.locking("dead_letter", [row])


@STATEMENTS.on(letters.REPLAYED)
async def replayed_letters(s: Statement, letter_ids: Sequence[str], who: str) -> Rows:
    wanted = set(letter_ids)
    rows = [row for row in s.all("dead_letter") if row["dead_letter_id"] in wanted and _OPEN(row)]
    return [s.update("dead_letter", row, replayed_at=s.now, replayed_by=who) for row in await s.locking("dead_letter", rows, _OPEN)]


@STATEMENTS.on(letters.OPEN_OF_PLAN)
def open_letters(s: Statement, plan_id: str) -> Rows:
    rows = [row for row in s.all("dead_letter") if row["plan_id"] == plan_id and _OPEN(row)]
    return sorted(({"dead_letter_id": row["dead_letter_id"]} for row in rows), key=lambda row: row["dead_letter_id"])


@STATEMENTS.on(letters.REVIVE)
async def revive(s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str], commands: Sequence[str]) -> Rows:
    dead = _named(plan_ids, leg_ids, commands)
    rows = await _commands(s, lambda row: _name(row) in dead and not row["answered"] and row["due_at"] == INFINITY)
    return [s.update("leg_command", row, due_at=s.now, rejections=0, last_rejection="") for row in rows]
