"""Twins of the transaction machine's statements, with what its database itself sees to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

import asyncpg

from lockstep_chain import final_store, schema, store
from lockstep_chain.machine import TRANSITIONS, State
from lockstep_testkit.simulation.memory import Registry, Row, Rows, Statement, violation
from lockstep_testkit.simulation.specs import Triggers, columns, inserted, listed

STATEMENTS: Final = Registry()

_SIGNER, _TRANSACTION, _ATTEMPT, _FINAL = "evm_signer", "evm_transaction", "evm_attempt", "evm_final_block"
_FIXED: Final = ("id", "chain_id", "idempotency_key", "payload_hash", "to_address", "data", "value", "gas_limit")
_IN_FLIGHT: Final = ("signed", "sent", "mined")
_PLACED: Final = ("mined", "final", "reverted", "cancelled")
#: Columns of an attempt as `STORE_ATTEMPT` inserts them.
_ATTEMPT_COLUMNS: Final = inserted(store.STORE_ATTEMPT)


def _check(holds: bool, constraint: str, about: str) -> None:
    if not holds:
        raise violation(asyncpg.CheckViolationError, constraint, about)


def _guarded(s: Statement, before: Row | None, after: Row) -> None:
    """The trigger `evm_transaction_guard`, and the table's own checks."""
    if before is None:
        _check(after["state"] == "queued", "evm_transaction_transition", f"a transaction begins as queued, not {after['state']}")
    else:
        left, entered = State(before["state"]), State(after["state"])
        steps = left is entered or entered in TRANSITIONS[left]
        _check(steps, "evm_transaction_transition", f"a transaction does not go from {left} to {entered}")
        same = all(after[name] == before[name] for name in _FIXED)
        numbered = (before["signer"], before["nonce"]) == (after["signer"], after["nonce"])
        same = same and (before["nonce"] is None or numbered)
        _check(same, "evm_transaction_immutable", "what a transaction does, and its nonce once given, never change")
        after["updated_at"] = s.now
    state, placed = after["state"], after["block_hash"] is not None
    _check((after["nonce"] is None) == (state in ("queued", "dead")), "evm_transaction_numbered", state)
    _check((after["signer"] is None) == (after["nonce"] is None), "evm_transaction_signed", state)
    whole = (after["block_number"] is not None) == placed and (after["transaction_hash"] is not None) == placed
    _check(placed == (state in _PLACED) and whole, "evm_transaction_placed", state)
    _check(state != "manual" or after["evidence"] is not None, "evm_transaction_manual", state)


def _sound(_: Statement, before: Row | None, after: Row) -> None:
    """The checks of an attempt's table, and what the role may not change of it."""
    _check(0 <= after["tip"] <= after["max_fee"], "evm_attempt_fees", f"{after['tip']} of {after['max_fee']}")
    if before is not None and any(before[name] != after[name] for name in _ATTEMPT_COLUMNS):
        raise asyncpg.InsufficientPrivilegeError("permission denied for table evm_attempt")


TRIGGERS: Final = {_TRANSACTION: Triggers(_guarded), _ATTEMPT: Triggers(_sound)}


def _transactions(s: Statement, ids: Iterable[int]) -> Iterable[Row]:
    return (row for each in ids if (row := s.get(_TRANSACTION, each)) is not None)


def _of_account(s: Statement, chain_id: int, signer: str, states: Sequence[str]) -> list[Row]:
    return [
        row for row in s.all(_TRANSACTION) if row["state"] in states and row["signer"] == signer and row["chain_id"] == chain_id
    ]


# -- what is final ---------------------------------------------------------------------------------------------------------


@STATEMENTS.on(final_store.HELD)
def held_final(s: Statement, chain_id: int) -> Rows:
    row = s.get(_FINAL, chain_id)
    return [] if row is None else [{name: row[name] for name in ("number", "hash")}]


@STATEMENTS.on(final_store.HOLD)
async def hold_final(s: Statement, chain_id: int, number: int, block_hash: bytes) -> Rows:
    row = await s.lock(_FINAL, chain_id)
    if row is None:
        await s.insert(_FINAL, {"chain_id": chain_id, "number": number, "hash": block_hash})
    elif row["number"] < number:
        s.update(_FINAL, row, number=number, hash=block_hash)
    return []


# -- the account ---------------------------------------------------------------------------------------------------------


@STATEMENTS.on(store.ACQUIRE_LEASE)
async def acquire_lease(s: Statement, chain_id: int, address: str, holder: str, seconds: timedelta) -> Rows:
    row = await s.lock(_SIGNER, chain_id, address)
    until = s.now + seconds
    if row is None:
        await s.insert(
            _SIGNER,
            {"chain_id": chain_id, "address": address, "next_nonce": 0, "lease_holder": holder, "lease_until": until},
        )
    elif row["lease_holder"] in (None, holder) or not s.now <= row["lease_until"] <= s.now + 2 * seconds:
        s.update(_SIGNER, row, lease_holder=holder, lease_until=until)
    else:
        return []
    return [{"lease_until": until}]


@STATEMENTS.on(store.BALANCE_LEASE)
async def balance_lease(s: Statement, chain_id: int, address: str, holder: str, seconds: timedelta) -> Rows:
    def held(row: Row | None) -> bool:
        return row is not None and row["lease_holder"] is not None and row["lease_until"] >= s.now

    seen = s.get(_SIGNER, chain_id, address)
    if seen is None or not held(seen) or seen["lease_holder"] == holder:
        return []
    holders = [row["lease_holder"] for row in s.all(_SIGNER) if row["chain_id"] == chain_id and held(row)]
    if holders.count(seen["lease_holder"]) - holders.count(holder) < 2:
        return []
    row = await s.lock(_SIGNER, chain_id, address)
    if row is None or not held(row) or row["lease_holder"] == holder:
        return []
    until = s.now + seconds
    s.update(_SIGNER, row, lease_holder=holder, lease_until=until)
    return [{"lease_until": until}]


@STATEMENTS.on(store.RELEASE_LEASE)
async def release_lease(s: Statement, chain_id: int, address: str, holder: str) -> Rows:
    row = await s.lock(_SIGNER, chain_id, address)
    if row is not None and row["lease_holder"] == holder:
        s.update(_SIGNER, row, lease_holder=None, lease_until=None)
    return []


@STATEMENTS.on(store.LOCK_SIGNER)
async def lock_signer(s: Statement, chain_id: int, address: str, holder: str) -> Rows:
    return await _led(s, chain_id, address, holder)


async def _led(s: Statement, chain_id: int, address: str, holder: str) -> Rows:
    row = await s.lock(_SIGNER, chain_id, address)
    leads = row is not None and row["lease_holder"] == holder and row["lease_until"] > s.now
    return [{"next_nonce": row["next_nonce"]}] if leads and row is not None else []


@STATEMENTS.on(store.LOCK_STANDING)
async def lock_standing(s: Statement, chain_id: int, address: str, holder: str) -> Rows:
    mine = await _led(s, chain_id, address, holder)
    rows = _of_account(s, chain_id, address, ("signed", "sent"))
    costs = (row["value"] + row["gas_limit"] * max(each["max_fee"] for each in _attempts(s, row["id"])) for row in rows)
    return [{**row, "unmined": len(rows), "wei_max": sum(costs)} for row in mine]


# -- intents -------------------------------------------------------------------------------------------------------------


@STATEMENTS.on(store.ENQUEUE)
async def enqueue(s: Statement, chain_id: int, *values: Any) -> Rows:
    added = []
    for row in columns(inserted(store.ENQUEUE)[1:], values):
        # A number is drawn before the key is looked at, and is never given back.
        row["id"] = s.server.sequences[_TRANSACTION] = s.server.sequences.get(_TRANSACTION, 0) + 1
        await s.server.lock(s.tx, ("evm_transaction_key", (row["idempotency_key"],)))
        if _by_key(s, row["idempotency_key"]) is None:
            await s.insert(_TRANSACTION, {"chain_id": chain_id, **row})
            added.append({"id": row["id"], "idempotency_key": row["idempotency_key"]})
    if added:
        s.notify(schema.CHANNEL)
    return added


def _by_key(s: Statement, key: str) -> Row | None:
    return next((row for row in s.all(_TRANSACTION) if row["idempotency_key"] == key), None)


@STATEMENTS.on(store.BY_KEYS)
def by_keys(s: Statement, keys: Sequence[str]) -> Rows:
    found = [row for key in keys if (row := _by_key(s, key)) is not None]
    return [{name: row[name] for name in ("id", "idempotency_key", "payload_hash")} for row in found]


@STATEMENTS.on(store.REQUEST_CANCEL)
async def request_cancel(s: Statement, key: str) -> Rows:
    row = _by_key(s, key)
    if row is not None:
        row = await s.lock(_TRANSACTION, row["id"])
    if row is None or row["state"] not in ("queued", "signed", "sent"):
        return []
    s.update(_TRANSACTION, row, cancel_requested=True)
    s.notify(schema.WITHDRAWN_CHANNEL)
    return [{"id": row["id"]}]


@STATEMENTS.on(store.HAS_QUEUED)
def has_queued(s: Statement, chain_id: int) -> Rows:
    return [{"exists": any(_queued(row, chain_id) for row in s.all(_TRANSACTION))}]


@STATEMENTS.on(store.TAKE_QUEUED)
async def take_queued(s: Statement, chain_id: int, limit: int) -> Rows:
    def waits(row: Row) -> bool:
        return _queued(row, chain_id) and not s.server.locked(s.tx, (_TRANSACTION, (row["id"],)))

    rows = sorted((row for row in s.all(_TRANSACTION) if waits(row)), key=lambda row: row["id"])
    return await s.locking(_TRANSACTION, rows[:limit], waits)


def _queued(row: Row, chain_id: int) -> bool:
    return bool(row["state"] == "queued" and row["chain_id"] == chain_id and not row["cancel_requested"])


def _dead(row: Row, chain_id: int, gas_limit_max: int, data_bytes_max: int) -> bool:
    beyond = row["gas_limit"] > gas_limit_max or len(row["data"]) > data_bytes_max
    return bool(row["state"] == "queued" and row["chain_id"] == chain_id and (row["cancel_requested"] or beyond))


@STATEMENTS.on(store.HAS_DEAD)
def has_dead(s: Statement, *limits: int) -> Rows:
    return [{"exists": any(_dead(row, *limits) for row in s.all(_TRANSACTION))}]


@STATEMENTS.on(store.TAKE_DEAD)
async def take_dead(s: Statement, *values: int) -> Rows:
    *limits, most = values

    def waits(row: Row) -> bool:
        return _dead(row, *limits) and not s.server.locked(s.tx, (_TRANSACTION, (row["id"],)))

    rows = sorted((row for row in s.all(_TRANSACTION) if waits(row)), key=lambda row: row["id"])
    return await s.locking(_TRANSACTION, rows[:most], waits)


@STATEMENTS.on(store.STORE_SIGNED)
async def store_signed(s: Statement, chain_id: int, signer: str, *values: Any) -> Rows:
    *lists, max_fee, tip, following = values
    for given in columns(listed(store.STORE_SIGNED), lists):
        row = await s.lock(_TRANSACTION, given["id"])
        if row is None:
            continue
        place = (chain_id, signer, given["nonce"])
        if any((each["chain_id"], each["signer"], each["nonce"]) == place for each in s.all(_TRANSACTION)):
            raise violation(asyncpg.UniqueViolationError, "evm_transaction_nonce", f"the nonce {given['nonce']} is given")
        s.update(_TRANSACTION, row, state="signed", signer=signer, nonce=given["nonce"])
        await _attempt(s, given["id"], 1, "send", given["transaction_hash"], given["raw"], max_fee, tip)
    account = await s.lock(_SIGNER, chain_id, signer)
    if account is not None:
        s.update(_SIGNER, account, next_nonce=max(account["next_nonce"], following))
    return []


async def _attempt(s: Statement, *values: Any) -> None:
    await s.insert(_ATTEMPT, dict(zip(_ATTEMPT_COLUMNS, values, strict=True)))


@STATEMENTS.on(store.STORE_ATTEMPT)
async def store_attempt(s: Statement, *values: Any) -> Rows:
    await _attempt(s, *values)
    return []


# -- what is in flight -----------------------------------------------------------------------------------------------------


@STATEMENTS.on(store.LOCK_UNMINED)
async def lock_unmined(s: Statement, transaction_id: int) -> Rows:
    row = await s.lock(_TRANSACTION, transaction_id)
    if row is None or row["state"] not in ("signed", "sent"):
        return []
    return [{name: row[name] for name in ("to_address", "data", "value", "gas_limit")}]


@STATEMENTS.on(store.NOTE_ANSWERS)
async def note_answers(s: Statement, *values: Any) -> Rows:
    *lists, head = values
    for said in columns(listed(store.NOTE_ANSWERS), lists):
        attempt = await s.lock(_ATTEMPT, said["id"], said["number"])
        if attempt is not None:
            s.update(_ATTEMPT, attempt, answer=said["answer"], broadcast_at=s.now, broadcast_block=head)
        row = await s.lock(_TRANSACTION, said["id"])
        if row is not None and row["state"] == "signed" and said["answer"] in ("accepted", "nonce_used"):
            s.update(_TRANSACTION, row, state="sent")
    return []


def _attempts(s: Statement, transaction_id: int) -> Iterable[Row]:
    """In their order: they are numbered densely."""
    number = 1
    while (row := s.get(_ATTEMPT, transaction_id, number)) is not None:
        yield row
        number += 1


@STATEMENTS.on(store.IN_FLIGHT)
def in_flight(s: Statement, chain_id: int, signer: str, limit: int) -> Rows:
    rows = sorted(_of_account(s, chain_id, signer, _IN_FLIGHT), key=lambda row: row["nonce"])[:limit]
    return [
        {
            **{name: row[name] for name in _TOLD},
            **{name: attempt[name] for name in ("number", "kind", "max_fee", "tip", "broadcast_block", "answer")},
            "attempt_hash": attempt["transaction_hash"],
        }
        for row in rows
        for attempt in _attempts(s, row["id"])
    ]


#: Columns of a transaction that `IN_FLIGHT` reads.
_TOLD: Final = (
    "id", "state", "nonce", "transaction_hash", "block_hash", "cancel_requested", "idempotency_key", "gas_limit", "purpose",
    "plan_id", "leg_id", "traceparent",
)  # fmt: skip


@STATEMENTS.on(store.LAST_RAW)
def last_raw(s: Statement, ids: Sequence[int]) -> Rows:
    found = [list(_attempts(s, each))[-1:] for each in sorted(set(ids))]
    return [
        {name: last[name] for name in ("transaction_id", "number", "transaction_hash", "raw")} for each in found for last in each
    ]


@STATEMENTS.on(store.PAYLOAD)
def payload(s: Statement, transaction_id: int) -> Rows:
    return [{name: row[name] for name in ("to_address", "data", "value")} for row in _transactions(s, [transaction_id])]


@STATEMENTS.on(store.NONCE_TAKEN)
def nonce_taken(s: Statement, chain_id: int, signer: str, nonce: int) -> Rows:
    return [
        {
            "exists": any(
                row["nonce"] == nonce for row in s.all(_TRANSACTION) if (row["chain_id"], row["signer"]) == (chain_id, signer)
            )
        }
    ]


@STATEMENTS.on(store.MARK_MINED)
async def mark_mined(s: Statement, *values: Sequence[Any]) -> Rows:
    for mined in columns(listed(store.MARK_MINED), values):
        row = await s.lock(_TRANSACTION, mined["id"])
        if row is not None and row["state"] in _IN_FLIGHT:
            s.update(_TRANSACTION, row, state="mined", **mined)
    return []


@STATEMENTS.on(store.MARK_REORGANISED)
async def mark_reorganised(s: Statement, ids: Sequence[int]) -> Rows:
    for each in ids:
        row = await s.lock(_TRANSACTION, each)
        if row is None or row["state"] != "mined":
            continue
        s.update(_TRANSACTION, row, state="sent", transaction_hash=None, block_number=None, block_hash=None)
        for attempt in list(_attempts(s, each)):
            s.update(_ATTEMPT, attempt, answer=None, broadcast_block=None)
    return []


@STATEMENTS.on(store.SETTLE)
async def settle(s: Statement, *values: Sequence[Any]) -> Rows:
    settled: Rows = []
    for told in columns(listed(store.SETTLE), values):
        row = await s.lock(_TRANSACTION, told["id"])
        if row is not None and row["state"] in ("queued", *_IN_FLIGHT):
            price = told.pop("price")
            s.update(_TRANSACTION, row, **told, effective_gas_price=price)
            settled.append({"id": told["id"]})
    return settled
