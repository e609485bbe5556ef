"""Payloads in the database: encrypted on the way in, opened on the way out; and the keys of the plans beside them.

Rows of before payloads were encrypted hold theirs plain, and no nonce. A plan that was erased has no key any more, and what stood plain is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import asyncpg
import structlog

from event_journal.chain import Entry, Event
from event_journal.payload_keys import DataKey, DataKeyChanged, PayloadVault, StoredPayload, WrappedKey, WrappingKeyUnknown
from lockstep_kit.db import Connection
from lockstep_kit.errors import LockstepError, unavailable
from lockstep_kit.fields import require
from lockstep_kit.ids import Digest, KeyId, PlanId, sha256
from lockstep_kit.signing import Signature

_log = structlog.get_logger()

#: Keys of plans, and whether they were erased.
PAYLOAD_KEYS: Final = """
select plan.plan_id, key.wrapped_key, key.wrapping_key_id, erasure.plan_id is not null as erased
from unnest($1::text[]) as plan (plan_id)
left join journal_payload_key as key on key.plan_id = plan.plan_id
left join journal_erasure as erasure on erasure.plan_id = plan.plan_id
"""

#: Keeps the wrapped keys of plans whose first entries are written; their chains are locked.
INSERT_PAYLOAD_KEYS: Final = """
insert into journal_payload_key (plan_id, wrapped_key, wrapping_key_id)
select * from unnest($1::text[], $2::bytea[], $3::text[])
"""

#: The wrapping keys that plans' keys are under; one look into the index for each.
WRAPPING_KEYS: Final = """
with recursive used as (
    (select wrapping_key_id from journal_payload_key order by wrapping_key_id limit 1)
    union all
    select (
        select key.wrapping_key_id from journal_payload_key as key
        where key.wrapping_key_id > used.wrapping_key_id order by key.wrapping_key_id limit 1
    )
    from used where used.wrapping_key_id is not null
)
select wrapping_key_id from used where wrapping_key_id is not null
"""


async def check_wrapping_keys(connection: Connection, vault: PayloadVault) -> None:
    """See that the process has every wrapping key that the database's payloads need.

    Raises:
        FieldInvalid: one is missing.
    """
    used = {row["wrapping_key_id"] for row in await connection.fetch(WRAPPING_KEYS)}
    missing = ", ".join(sorted(used - vault.ids))
    require(not missing, "payload_key_files", f"must name the keys that the database's payloads are under; missing: {missing}")


async def seal(
    tx: Connection, entries: Sequence[Entry], vault: PayloadVault, wrapped: Mapping[PlanId, WrappedKey]
) -> list[StoredPayload]:
    """The payloads of new entries as they are stored, in order; plans without a key are given one. The chains must be locked.

    `wrapped` are keys that were read with them. Of another plan there is none where its chain begins here; else it may have come while the lock was waited for.

    Raises:
        LockstepError: UNAVAILABLE; a plan's key is under a wrapping key that this process does not have.
        DataKeyChanged: a plan's key is not what was stored.
    """
    plans = dict.fromkeys(entry.event.plan_id for entry in entries)
    begun = {entry.event.plan_id for entry in entries if entry.event.sequence == 1}
    known = dict(wrapped)
    if unread := [plan_id for plan_id in plans if plan_id not in known and plan_id not in begun]:
        rows = await tx.fetch(PAYLOAD_KEYS, unread)
        known |= {row["plan_id"]: WrappedKey(row["wrapped_key"], row["wrapping_key_id"]) for row in rows if row["wrapped_key"]}
    keys: dict[PlanId, DataKey] = {}
    fresh: list[tuple[PlanId, WrappedKey]] = []
    for plan_id in plans:
        if (stored := known.get(plan_id)) is not None:
            keys[plan_id] = _opened(vault, plan_id, stored)
        else:
            keys[plan_id], drawn = vault.draw(plan_id)
            fresh.append((plan_id, drawn))
    if fresh:
        fresh.sort(key=lambda each: each[0])
        await tx.execute(
            INSERT_PAYLOAD_KEYS,
            [plan_id for plan_id, _ in fresh],
            [drawn.octets for _, drawn in fresh],
            [drawn.wrapping_key_id for _, drawn in fresh],
        )
    return [keys[entry.event.plan_id].seal(entry.event.sequence, entry.event.payload) for entry in entries]


async def entries_of(
    tx: Connection | asyncpg.Connection[asyncpg.Record], rows: Iterable[asyncpg.Record], vault: PayloadVault
) -> list[Entry]:
    """Rows of the journal as entries, their payloads opened, each plan's key once.

    A payload that does not open as what was stored for its entry is empty, so that whoever compares it with its hash finds that it was changed.

    Raises:
        LockstepError: UNAVAILABLE; a plan's key is under a wrapping key that this process does not have.
    """
    rows = list(rows)
    plans = sorted({row["plan_id"] for row in rows})
    # Read after the rows: a plan that is erased in between counts as erased.
    return opened(rows, await tx.fetch(PAYLOAD_KEYS, plans) if plans else (), vault)


def opened(rows: Iterable[asyncpg.Record], keys: Iterable[asyncpg.Record], vault: PayloadVault) -> list[Entry]:
    """Rows as entries, given the answer to `PAYLOAD_KEYS` for their plans."""
    known: dict[str, DataKey] = {}
    erased: set[str] = set()
    for row in keys:
        if row["erased"]:
            erased.add(row["plan_id"])
        elif row["wrapped_key"] is not None:
            try:
                stored = WrappedKey(row["wrapped_key"], row["wrapping_key_id"])
                known[row["plan_id"]] = _opened(vault, PlanId(row["plan_id"]), stored)
            except DataKeyChanged as error:
                _log.error("payload_key_changed", error=str(error))
    return [_entry(row, known.get(row["plan_id"]), erased=row["plan_id"] in erased) for row in rows]


def _opened(vault: PayloadVault, plan_id: PlanId, stored: WrappedKey) -> DataKey:
    try:
        return vault.open(plan_id, stored)
    except WrappingKeyUnknown as error:
        _log.error("payload_key_unknown", plan_id=plan_id, error=str(error))
        raise _key_unknown() from error


def _key_unknown() -> LockstepError:
    return unavailable("PAYLOAD_KEY_UNKNOWN", "this replica cannot open the plan's payload key: go on at another one")


def _entry(row: asyncpg.Record, key: DataKey | None, *, erased: bool) -> Entry:
    payload, nonce = row["payload"], row["payload_nonce"]
    if erased:
        payload = b""
    elif nonce is not None:
        found = None if key is None else key.open(row["sequence"], StoredPayload(payload, nonce))
        if found is None:
            _log.error("payload_unreadable", plan_id=row["plan_id"], sequence=row["sequence"], key=key is not None)
        payload = found or b""
    event = Event(
        plan_id=PlanId(row["plan_id"]),
        sequence=row["sequence"],
        event_id=row["event_id"],
        type=row["type"],
        actor=row["actor"],
        actor_role=row["actor_role"],
        event_time=row["event_time"],
        payload=payload,
    )
    hashed = row["payload_hash"]
    return Entry(
        event,
        Digest(row["previous_hash"]),
        row["canonical_bytes"],
        Signature(KeyId(row["key_id"]), row["signature"]),
        # A row of before hashes were kept has its payload plain.
        sha256(payload) if hashed is None else Digest(hashed),
        erased=erased,
    )
