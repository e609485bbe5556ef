"""Twins of the statements of a transactional outbox (`lockstep_kit.outbox`), whatever its table is called."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from lockstep_kit.outbox import Outbox
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement, passed
from lockstep_testkit.simulation.specs import columns, listed


def twins(outbox: Outbox) -> Registry:
    """The twins of one outbox's statements."""
    found, table = Registry(), outbox.table

    def waiting(s: Statement) -> list[Row]:
        return [row for row in s.all(table) if row["done_at"] is None]

    @found.on(outbox._enqueue)
    async def enqueue(s: Statement, *values: Any) -> Rows:
        *lists, channel = values
        added = [await _numbered(s, table, row) for row in columns(listed(outbox._enqueue)[:-1], lists)]
        s.notify(channel)
        return [{"id": row["id"]} for row in added]

    @found.on(outbox._claim)
    async def claim(
        s: Statement, keys_max: int, run_max: int, lease: timedelta, wanted: Sequence[str] | None, put_off_max: timedelta
    ) -> Rows:
        now, runs = s.now, _runs(waiting(s), wanted)
        due_heads = (run[0] for run in runs.values() if passed(run[0]["due_at"], now, put_off_max))
        heads = [head for head in due_heads if not s.server.locked(s.tx, (table, (head["id"],)))]
        heads.sort(key=lambda row: (row["due_at"], row["id"]))
        due = [row for head in heads[:keys_max] for row in runs[head["destination"], head["ordering_key"]][:run_max]]
        rows = await s.locking(table, due, lambda row: row["done_at"] is None)
        taken = [s.update(table, row, attempts=row["attempts"] + 1, due_at=s.now + lease) for row in rows]
        return sorted(taken, key=lambda row: row["id"])

    @found.on(outbox._done)
    async def done(s: Statement, ids: Sequence[int]) -> Rows:
        for number in ids:
            row = await s.lock(table, number)
            if row is not None and row["done_at"] is None:
                s.update(table, row, done_at=s.now)
        return []

    @found.on(outbox._reschedule)
    async def reschedule(s: Statement, *values: Sequence[Any]) -> Rows:
        for again in columns(listed(outbox._reschedule), values):
            row = await s.lock(table, again["id"])
            if row is not None and row["attempts"] == again["attempts"] and row["done_at"] is None:
                s.update(table, row, due_at=s.now + again["delay"])
        return []

    @found.on(outbox._purge)
    async def purge(s: Statement, age: timedelta, limit: int) -> Rows:
        before = s.now - age
        old = [row for row in s.all(table) if row["done_at"] is not None and row["done_at"] < before]
        free = [row for row in old if not s.server.locked(s.tx, (table, (row["id"],)))]
        rows = await s.locking(table, sorted(free, key=lambda row: row["done_at"])[:limit])
        for row in rows:
            s.delete(table, row)
        return [{"id": row["id"]} for row in rows]

    @found.on(outbox._backlog)
    def backlog(s: Statement) -> Rows:
        ages = [s.now - row["created_at"] for row in waiting(s)]
        return [{"waiting_count": len(ages), "oldest_age": max(ages, default=timedelta(0))}]

    return found


async def _numbered(s: Statement, table: str, row: Row) -> Row:
    row["id"] = s.server.sequences[table] = s.server.sequences.get(table, 0) + 1
    return await s.insert(table, row)


def _runs(rows: Sequence[Row], wanted: Sequence[str] | None) -> dict[tuple[str, str], list[Row]]:
    """Messages that wait, by destination and key, in order."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["id"]):
        if wanted is None or row["destination"] in wanted:
            runs.setdefault((row["destination"], row["ordering_key"]), []).append(row)
    return runs
