"""Twins of the statements of `lockstep_kit.leases`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from lockstep_kit import leases
from lockstep_testkit.simulation.memory import LONG_AGO, Registry, Row, Rows, Statement, passed
from lockstep_testkit.simulation.specs import Triggers

STATEMENTS: Final = Registry()


def _epoch_grows(_: Statement, before: Row | None, after: Row) -> None:
    if before is not None and (after["generation"], after["counter"]) < (before["generation"], before["counter"]):
        raise asyncpg.IntegrityConstraintViolationError("an epoch never goes back")


TRIGGERS: Final = {"lease": Triggers(_epoch_grows)}


def free(row: Row, now: datetime) -> bool:
    """`leases.FREE`."""
    return passed(row["expires_at"], now)


def held(s: Statement, row: Row, owner: str, generation: int, left: timedelta) -> bool:
    """`plans.HELD`."""
    mine = row["owner"] == owner and row["generation"] == generation and row["expires_at"] > s.now + left
    return bool(mine and all(generation >= each["generation"] for each in s.all("installation")))


async def locked_held(s: Statement, resources: Sequence[str], owner: str, generation: int, left: timedelta) -> Rows:
    """Those leases of resources that are, in the order of the resources; others share them only where the database is real."""
    rows = [row for each in sorted(set(resources)) if (row := s.get("lease", each)) is not None]
    fits: Callable[[Row], bool] = lambda row: held(s, row, owner, generation, left)  # noqa: E731 - a predicate
    return await s.locking("lease", [row for row in rows if fits(row)], fits)


@STATEMENTS.on(leases.ACQUIRE)
async def acquire(s: Statement, resources: Sequence[str], owner: str, generation: int, duration: timedelta) -> Rows:
    found: Rows = []
    for resource in sorted(resources):
        fresh = {"resource_id": resource, "owner": owner, "generation": generation, "counter": 1, "expires_at": s.now + duration}
        row = await s.insert_new("lease", fresh)
        if row is None:
            known = s.get("lease", resource)
            if known is None or known["generation"] > generation or not (known["owner"] == owner or free(known, s.now)):
                continue
            same = known["owner"] == owner and known["generation"] == generation
            counter = known["counter"] if same else 1 if known["generation"] < generation else known["counter"] + 1
            expires_at = s.now + duration
            row = s.update("lease", known, owner=owner, generation=generation, counter=counter, expires_at=expires_at)
        found.append({name: row[name] for name in ("resource_id", "generation", "counter")})
    return found


@STATEMENTS.on(leases.HOLD)
async def hold(s: Statement, resources: Sequence[str], owner: str, generation: int) -> Rows:
    def mine(row: Row) -> bool:
        return bool(row["owner"] == owner and row["generation"] == generation and row["expires_at"] > s.now)

    wanted = set(resources)
    rows = sorted(
        (each for each in s.all("lease") if each["resource_id"] in wanted and mine(each)), key=lambda row: row["resource_id"]
    )
    return await s.locking("lease", rows, mine)


@STATEMENTS.on(leases.RELEASE)
async def release(s: Statement, resources: Sequence[str], owner: str) -> Rows:
    wanted = set(resources)
    rows = [each for each in s.all("lease") if each["resource_id"] in wanted and each["owner"] == owner]
    for row in await s.locking("lease", rows, lambda row: row["owner"] == owner):
        s.update("lease", row, expires_at=LONG_AGO)
    return []
