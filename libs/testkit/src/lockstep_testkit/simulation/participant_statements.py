"""Twins of the statements of every participant's half of the protocol, with what its database itself sees to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from lockstep_kit.participant import schema, store
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement, violation
from lockstep_testkit.simulation.specs import Triggers, columns, inserted, listed

STATEMENTS: Final = Registry()

_STEPS: Final = frozenset(schema.V2_STEPS)


def _fenced(_: Statement, before: Row | None, after: Row) -> None:
    """The trigger `participant_leg_fenced`."""
    broken = _broken(before, after)
    if broken:
        about = f"{broken} (plan {after['plan_id']}, leg {after['leg_id']})"
        raise violation(asyncpg.IntegrityConstraintViolationError, "participant_leg_fenced", about)


def _broken(before: Row | None, after: Row) -> str:
    phase = after["phase"]
    if before is None:
        return "" if phase is None or ("", phase) in _STEPS else f"a leg does not begin as {phase}"
    bound = ("digest", "plan_digest", "binding")
    added = len(after["reversals"]) - len(before["reversals"])
    begun = 1 if phase == "REVERSING" and before["phase"] == "COMMITTED" else 0
    rules = (
        ((after["epoch_generation"], after["epoch_counter"]) < (before["epoch_generation"], before["epoch_counter"]),
         "an epoch never goes down"),
        (after["revision"] < before["revision"], "a revision never goes down"),
        (before["phase"] is not None and any(after[name] != before[name] for name in bound), "what a leg is bound to never changes"),
        (before["vote"] is not None and after["vote"] != before["vote"], "a vote never changes"),
        (before["phase"] in ("COMMITTED", "REVERSING", "REVERSED") and after["outcome"] != before["outcome"],
         "what was executed stays told"),
        (after["reversals"][: len(before["reversals"])] != before["reversals"] or added != begun
         or (added and after["reversals"][-1] in before["reversals"]), "an order to reverse is begun once, and never forgotten"),
    )  # fmt: skip
    for holds, sentence in rules:
        if holds:
            return sentence
    if phase == before["phase"]:
        return ""
    left = before["phase"] or ""
    if phase is None or (left, phase) not in _STEPS:
        return f"a leg does not go from {left or 'nothing'} to {phase}"
    if after["revision"] == before["revision"]:
        return "a phase never changes without the revision"
    return (
        "after COMMIT there is no way back"
        if (left, phase) == ("COMMITTING", "ABORTING") and before["decision"] != "DELEGATED"
        else ""
    )


def _numbered(s: Statement, before: Row | None, after: Row) -> None:
    """The deferred triggers that number every change of a revision."""
    if after["revision"] <= (0 if before is None else before["revision"]):
        return
    counter = s.get("participant_outcome_counter", True) or {}
    number = counter["next_sequence"]
    s.update("participant_outcome_counter", counter, next_sequence=number + 1)
    entry = {"sequence": number, "plan_id": after["plan_id"], "leg_id": after["leg_id"], "revision": after["revision"]}
    s.tx.writes.setdefault("participant_outcome_log", {})[(number,)] = entry
    s.notify(schema.OUTCOME_CHANNEL)


TRIGGERS: Final = {"participant_leg": Triggers(_fenced, _numbered)}


def seeds(incarnation: str) -> tuple[tuple[str, Row], ...]:
    """The rows that the migration inserts."""
    return (("participant_outcome_counter", {"singleton": True, "next_sequence": 1, "incarnation": incarnation}),)


def _named(s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str]) -> list[Row]:
    pairs = zip(plan_ids, leg_ids, strict=True)
    return [row for pair in pairs if (row := s.get("participant_leg", *pair)) is not None]


@STATEMENTS.on(store.LOCK_LEGS)
async def lock_legs(s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str]) -> Rows:
    wanted = sorted(_named(s, plan_ids, leg_ids), key=lambda row: (row["plan_id"], row["leg_id"]))
    rows = await s.locking("participant_leg", wanted)
    moment = s.now
    return [{**row, "moment": moment} for row in rows] or [{"plan_id": None, "moment": moment}]


@STATEMENTS.on(store.LOCK_WORK)
@STATEMENTS.on(store.HOLD_LEGS)
async def lock_work(s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str]) -> Rows:
    wanted = sorted(_named(s, plan_ids, leg_ids), key=lambda row: (row["plan_id"], row["leg_id"]))
    return await s.locking("participant_leg", wanted)


@STATEMENTS.on(store.READ_LEGS)
@STATEMENTS.on(store.READ_WORK)
def read_legs(s: Statement, plan_ids: Sequence[str], leg_ids: Sequence[str]) -> Rows:
    return _named(s, plan_ids, leg_ids)


@STATEMENTS.on(store.INSERT_BEGUN)
async def insert_begun(s: Statement, *values: Sequence[Any]) -> Rows:
    begun: Rows = []
    for new in columns(inserted(store.INSERT_BEGUN), values):
        if await s.insert_new("participant_leg", new) is None:
            row = s.get("participant_leg", new["plan_id"], new["leg_id"]) or {}
            epoch = (row["epoch_generation"], row["epoch_counter"])
            overtaken = epoch > (new["epoch_generation"], new["epoch_counter"]) or row["revision"] >= new["revision"]
            if row["phase"] is not None or overtaken:
                continue
            s.update("participant_leg", row, **new)
        begun.append({"plan_id": new["plan_id"]})
    return begun


@STATEMENTS.on(store.UPDATE_BEGUN)
async def update_begun(s: Statement, *values: Sequence[Any]) -> Rows:
    for new in columns(listed(store.UPDATE_BEGUN), values):
        order = new.pop("reverse_order")
        row = await s.lock("participant_leg", new["plan_id"], new["leg_id"])
        if row is not None:
            reversals = [*row["reversals"], order] if new["phase"] == "REVERSING" else row["reversals"]
            s.update("participant_leg", row, **new, trouble="", reversals=reversals)
    return []


async def _changed(s: Statement, names: Sequence[str], values: Sequence[Sequence[Any]]) -> Rows:
    for new in columns(names, values):
        row = await s.lock("participant_leg", new["plan_id"], new["leg_id"])
        if row is not None:
            s.update("participant_leg", row, **new)
    return []


@STATEMENTS.on(store.UPDATE_FOUND)
async def update_found(s: Statement, *values: Sequence[Any]) -> Rows:
    return await _changed(s, listed(store.UPDATE_FOUND), values)


@STATEMENTS.on(store.RAISE_EPOCHS)
async def raise_epochs(s: Statement, *values: Sequence[Any]) -> Rows:
    return await _changed(s, listed(store.RAISE_EPOCHS), values)


@STATEMENTS.on(store.RAISE_FENCE)
async def raise_fence(s: Statement, plan_id: str, leg_id: str, generation: int, counter: int, revision: int) -> Rows:
    row = await s.lock("participant_leg", plan_id, leg_id)
    if row is not None:
        s.update("participant_leg", row, epoch_generation=generation, epoch_counter=counter, revision=revision)
    return []


@STATEMENTS.on(store.INSERT_EPOCH)
async def insert_epoch(s: Statement, *values: Any) -> Rows:
    row = dict(zip(inserted(store.INSERT_EPOCH), values, strict=True))
    return [] if await s.insert_new("participant_leg", row) is None else [{"plan_id": row["plan_id"]}]


@STATEMENTS.on(store.UPDATE_TROUBLE)
async def update_trouble(s: Statement, plan_id: str, leg_id: str, text: str) -> Rows:
    row = await s.lock("participant_leg", plan_id, leg_id)
    if row is not None and row["phase"] is not None and row["trouble"] != text:
        s.update("participant_leg", row, trouble=text, revision=row["revision"] + 1)
    return []


@STATEMENTS.on(store.READ_WORKING)
def read_working(s: Statement, phases: Sequence[str], plan_id: str, leg_id: str, limit: int) -> Rows:
    rows = [
        row
        for row in s.all("participant_leg")
        if row["phase"] in phases
        and row["phase"] in ("PREPARING", "PREPARED", "COMMITTING", "ABORTING", "REVERSING")
        and (row["plan_id"], row["leg_id"]) > (plan_id, leg_id)
    ]
    return sorted(rows, key=lambda row: (row["plan_id"], row["leg_id"]))[:limit]


@STATEMENTS.on(store.READ_PAGE)
def read_page(s: Statement, after: int, limit: int) -> Rows:
    rows = [row for row in s.all("participant_leg") if row["seq"] > after and row["phase"] is not None]
    return sorted(rows, key=lambda row: row["seq"])[:limit]


@STATEMENTS.on(store.READ_LOG_HEAD)
def read_log_head(s: Statement) -> Rows:
    return [
        {"incarnation": row["incarnation"], "last_sequence": row["next_sequence"] - 1, "moment": s.now}
        for row in s.all("participant_outcome_counter")
    ]


@STATEMENTS.on(store.READ_CHANGES)
def read_changes(s: Statement, after: int, limit: int) -> Rows:
    # Numbers are dense and rows stay, so that the page is found without a search.
    counter = s.get("participant_outcome_counter", True) or {}
    latest: dict[tuple[str, str], int] = {}
    read = None
    for number in range(after + 1, min(counter["next_sequence"], after + 1 + limit)):
        entry = s.get("participant_outcome_log", number)
        if entry is not None:
            latest[entry["plan_id"], entry["leg_id"]] = read = number
    rows = ((sequence, s.get("participant_leg", *leg)) for leg, sequence in latest.items())
    head = {"incarnation": counter["incarnation"], "last_sequence": counter["next_sequence"] - 1, "read": read}
    changed = [{**row, "sequence": sequence} for sequence, row in sorted(rows, key=lambda each: each[0]) if row is not None]
    return [{**row, **head} for row in changed] or [{"phase": None, "sequence": None, **head}]
