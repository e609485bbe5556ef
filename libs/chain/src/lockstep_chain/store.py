"""Every statement of the transaction machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import asyncpg

from lockstep_chain.machine import Attempt, AttemptKind, Intent, Limits, Outbound, State
from lockstep_chain.ports import Answer, Fees, Receipt, Signed
from lockstep_chain.records import Ending, InFlight, Queued, Reference
from lockstep_chain.taking import Burden
from lockstep_kit.db import Connection

#: Takes, or keeps, the lease of an account, and makes its row the first time; nothing is returned when somebody else holds it.
ACQUIRE_LEASE: Final = """
insert into evm_signer (chain_id, address, next_nonce, lease_holder, lease_until)
values ($1, $2, 0, $3, clock_timestamp() + $4::interval)
on conflict (chain_id, address) do update set lease_holder = excluded.lease_holder, lease_until = excluded.lease_until
where evm_signer.lease_holder is null or evm_signer.lease_holder = excluded.lease_holder
   or evm_signer.lease_until < clock_timestamp()
   -- Longer than any lease lasts: the clock was put back since.
   or evm_signer.lease_until > clock_timestamp() + 2 * $4::interval
returning lease_until
"""

#: Gives the lease of an account back.
RELEASE_LEASE: Final = """
update evm_signer set lease_holder = null, lease_until = null where chain_id = $1 and address = $2 and lease_holder = $3
"""

#: Takes the lease of an account from a holder that has at least two more than this one, so that replicas share the accounts.
BALANCE_LEASE: Final = """
update evm_signer as wanted set lease_holder = $3, lease_until = clock_timestamp() + $4::interval
where chain_id = $1 and address = $2 and lease_holder <> $3 and lease_until >= clock_timestamp()
  and (
      select count(*) filter (where lease_holder = wanted.lease_holder) - count(*) filter (where lease_holder = $3)
      from evm_signer where chain_id = $1 and lease_until >= clock_timestamp()
  ) >= 2
returning lease_until
"""

#: Locks an account for its lease holder until the transaction ends; nothing is returned to anybody else.
LOCK_SIGNER: Final = """
select next_nonce from evm_signer
where chain_id = $1 and address = $2 and lease_holder = $3 and lease_until > clock_timestamp() for no key update
"""

#: Queues intents in the order given, and announces them; one whose key is known is left out.
ENQUEUE: Final = """
with given as (
    select * from unnest($2::text[], $3::bytea[], $4::text[], $5::bytea[], $6::numeric[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[])
        with ordinality as given (
            idempotency_key, payload_hash, to_address, data, value, gas_limit, purpose, plan_id, leg_id, traceparent, place
        )
), fresh as (
    insert into evm_transaction (
        chain_id, idempotency_key, payload_hash, to_address, data, value, gas_limit, purpose, plan_id, leg_id, traceparent
    )
    select $1, idempotency_key, payload_hash, to_address, data, value, gas_limit, purpose, plan_id, leg_id, traceparent
    from given order by place
    on conflict (idempotency_key) do nothing
    returning id, idempotency_key
)
select id, idempotency_key, pg_notify('evm_transaction', '') from fresh
"""

#: What idempotency keys stand for.
BY_KEYS: Final = "select id, idempotency_key, payload_hash from evm_transaction where idempotency_key = any($1)"

#: Asks for a cancellation of what is not mined yet, and announces it.
REQUEST_CANCEL: Final = """
update evm_transaction set cancel_requested = true
where idempotency_key = $1 and state in ('queued', 'signed', 'sent') returning id, pg_notify('evm_withdrawn', '')
"""

#: Whether anything is queued that was not withdrawn.
HAS_QUEUED: Final = "select exists (select from evm_transaction where chain_id = $1 and state = 'queued' and not cancel_requested)"

#: The same lock, with how many transactions of the account are signed and not mined, and what they cost at the most, by their dearest attempts.
LOCK_STANDING: Final = """
with mine as (
    select next_nonce from evm_signer
    where chain_id = $1 and address = $2 and lease_holder = $3 and lease_until > clock_timestamp() for no key update
), burden as (
    select count(*) as unmined, coalesce(sum(t.value + t.gas_limit * a.max_fee), 0) as wei_max
    from evm_transaction as t
        cross join lateral (select max(max_fee) as max_fee from evm_attempt where transaction_id = t.id) as a
    where t.chain_id = $1 and t.signer = $2 and t.state in ('signed', 'sent')
)
select next_nonce, unmined, wei_max from mine cross join burden
"""

#: Takes the oldest queued transactions that nobody else is taking; what was withdrawn is the undertaker's, and holds up nobody.
TAKE_QUEUED: Final = """
select id, idempotency_key, to_address, data, value, gas_limit, purpose, plan_id, leg_id, traceparent, cancel_requested
from evm_transaction where chain_id = $1 and state = 'queued' and not cancel_requested order by id limit $2 for update skip locked
"""

#: Whether anything is queued that was withdrawn, or is beyond the limits of gas and calldata.
HAS_DEAD: Final = """
select exists (
    select from evm_transaction
    where chain_id = $1 and state = 'queued' and (cancel_requested or gas_limit > $2 or octet_length(data) > $3)
)
"""

#: Takes the oldest of those that nobody else is taking.
TAKE_DEAD: Final = """
select id, idempotency_key, to_address, data, value, gas_limit, purpose, plan_id, leg_id, traceparent, cancel_requested
from evm_transaction
where chain_id = $1 and state = 'queued' and (cancel_requested or gas_limit > $2 or octet_length(data) > $3)
order by id limit $4 for update skip locked
"""

#: Stores nonces, hashes and signed bytes together with the account's next nonce, before anything is sent.
STORE_SIGNED: Final = """
with given as (
    select * from unnest($3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[]) as given (id, nonce, transaction_hash, raw)
), numbered as (
    update evm_transaction set state = 'signed', signer = $2, nonce = given.nonce from given where evm_transaction.id = given.id
), attempts as (
    insert into evm_attempt (transaction_id, number, kind, transaction_hash, raw, max_fee, tip)
    select id, 1, 'send', transaction_hash, raw, $7, $8 from given
)
update evm_signer set next_nonce = greatest(next_nonce, $9) where chain_id = $1 and address = $2
"""

#: Stores another attempt, before it is sent.
STORE_ATTEMPT: Final = """
insert into evm_attempt (transaction_id, number, kind, transaction_hash, raw, max_fee, tip) values ($1, $2, $3, $4, $5, $6, $7)
"""

#: Payload of a transaction that is not mined, locked; nothing is returned when it is.
LOCK_UNMINED: Final = """
select to_address, data, value, gas_limit from evm_transaction where id = $1 and state in ('signed', 'sent') for update
"""

#: Notes what a node said of attempts; what it has, or had, is sent.
NOTE_ANSWERS: Final = """
with said as (
    select * from unnest($1::bigint[], $2::integer[], $3::text[]) as said (id, number, answer)
), noted as (
    update evm_attempt set answer = said.answer, broadcast_at = clock_timestamp(), broadcast_block = $4
    from said where evm_attempt.transaction_id = said.id and evm_attempt.number = said.number
)
update evm_transaction set state = 'sent' from said
where evm_transaction.id = said.id and evm_transaction.state = 'signed' and said.answer in ('accepted', 'nonce_used')
"""

#: Transactions of an account that the chain has not settled, lowest nonce first, with their attempts.
IN_FLIGHT: Final = """
select t.id, t.state, t.nonce, t.transaction_hash, t.block_hash, t.cancel_requested, t.idempotency_key, t.gas_limit, t.purpose,
       t.plan_id, t.leg_id, t.traceparent,
       a.number, a.kind, a.transaction_hash as attempt_hash, a.max_fee, a.tip, a.broadcast_block, a.answer
from (
    select * from evm_transaction where chain_id = $1 and signer = $2 and state in ('signed', 'sent', 'mined') order by nonce limit $3
) as t join evm_attempt as a on a.transaction_id = t.id
order by t.nonce, a.number
"""

#: Bytes of the last attempts.
LAST_RAW: Final = """
select distinct on (transaction_id) transaction_id, number, transaction_hash, raw from evm_attempt
where transaction_id = any($1) order by transaction_id, number desc
"""

#: Payload of a transaction.
PAYLOAD: Final = "select to_address, data, value from evm_transaction where id = $1"

#: Whether any transaction of an account has, or had, a nonce.
NONCE_TAKEN: Final = "select exists (select from evm_transaction where chain_id = $1 and signer = $2 and nonce = $3)"

#: Notes the block that transactions are in, which is not final.
MARK_MINED: Final = """
update evm_transaction
set state = 'mined', transaction_hash = mined.transaction_hash, block_number = mined.block_number, block_hash = mined.block_hash
from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bytea[]) as mined (id, transaction_hash, block_number, block_hash)
where evm_transaction.id = mined.id and evm_transaction.state in ('signed', 'sent', 'mined')
"""

#: Takes transactions back to sent whose block is no longer canonical; their bytes count as never sent.
MARK_REORGANISED: Final = """
with back as (
    update evm_transaction set state = 'sent', transaction_hash = null, block_number = null, block_hash = null
    where id = any($1) and state = 'mined' returning id
)
update evm_attempt set answer = null, broadcast_block = null from back where evm_attempt.transaction_id = back.id
"""

#: Stores the end of transactions, each once, whoever else tries.
SETTLE: Final = """
update evm_transaction
set state = told.state, transaction_hash = told.transaction_hash, block_number = told.block_number, block_hash = told.block_hash,
    gas_used = told.gas_used, effective_gas_price = told.price, detail = told.detail, evidence = told.evidence::jsonb
from unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bytea[], $6::bigint[], $7::numeric[], $8::text[], $9::text[])
    as told (id, state, transaction_hash, block_number, block_hash, gas_used, price, detail, evidence)
where evm_transaction.id = told.id and evm_transaction.state in ('queued', 'signed', 'sent', 'mined')
returning evm_transaction.id
"""

#: Transactions in flight that are looked at together.
IN_FLIGHT_MAX: Final = 4096


class Account:
    """The statements, bound to one account of one chain and one holder of its lease."""

    def __init__(self, chain_id: int, address: str, holder: str) -> None:
        self.chain_id = chain_id
        self.address = address
        self._holder = holder

    async def acquire_lease(self, tx: Connection, seconds: float) -> bool:
        """Whether this holder is the account's sender for so long from now."""
        held = await tx.fetchval(ACQUIRE_LEASE, self.chain_id, self.address, self._holder, timedelta(seconds=seconds))
        return held is not None

    async def balance_lease(self, tx: Connection, seconds: float) -> bool:
        """Whether the lease was taken from a holder of many."""
        taken = await tx.fetchval(BALANCE_LEASE, self.chain_id, self.address, self._holder, timedelta(seconds=seconds))
        return taken is not None

    async def release_lease(self, tx: Connection) -> None:
        """Let somebody else be the sender at once."""
        await tx.execute(RELEASE_LEASE, self.chain_id, self.address, self._holder)

    async def lock(self, tx: Connection) -> int | None:
        """Next nonce by the database, locked; None when this holder is not the sender."""
        nonce: int | None = await tx.fetchval(LOCK_SIGNER, self.chain_id, self.address, self._holder)
        return nonce

    async def lock_standing(self, tx: Connection) -> tuple[int, Burden] | None:
        """The same, and what is signed and not mined. Who waited for the lock may be told a burden of before; this holder's own is in any case."""
        row = await tx.fetchrow(LOCK_STANDING, self.chain_id, self.address, self._holder)
        return None if row is None else (row["next_nonce"], Burden(row["unmined"], int(row["wei_max"])))

    async def take_queued(self, tx: Connection, limit: int) -> list[Queued]:
        """The oldest queued transactions, locked."""
        return [_queued(row) for row in await tx.fetch(TAKE_QUEUED, self.chain_id, limit)]

    async def store_signed(
        self, tx: Connection, ids: Sequence[int], nonces: Sequence[int], signed: Sequence[Signed], fees: Fees
    ) -> None:
        """Store nonces and signed bytes; the account's next nonce is the one after the highest."""
        hashes, raws = [each.hash for each in signed], [each.raw for each in signed]
        following = nonces[-1] + 1
        await tx.execute(
            STORE_SIGNED, self.chain_id, self.address, list(ids), list(nonces), hashes, raws, fees.max_fee, fees.tip, following
        )

    async def in_flight(self, tx: Connection) -> list[InFlight]:
        """Transactions that the chain has not settled, lowest nonce first."""
        by_id: dict[int, list[asyncpg.Record]] = {}
        for row in await tx.fetch(IN_FLIGHT, self.chain_id, self.address, IN_FLIGHT_MAX):
            by_id.setdefault(row["id"], []).append(row)
        return [_in_flight(rows) for rows in by_id.values()]

    async def nonce_taken(self, tx: Connection, nonce: int) -> bool:
        """Whether any transaction has, or had, that nonce."""
        return bool(await tx.fetchval(NONCE_TAKEN, self.chain_id, self.address, nonce))


async def has_queued(connection: Connection, chain_id: int) -> bool:
    """Whether anything is queued that was not withdrawn."""
    return bool(await connection.fetchval(HAS_QUEUED, chain_id))


async def enqueue(tx: Connection, chain_id: int, intents: Sequence[Intent], payload_hashes: Sequence[bytes]) -> dict[str, int]:
    """Queue intents; ids by key, without those whose keys were known already."""
    rows = await tx.fetch(
        ENQUEUE,
        chain_id,
        [intent.idempotency_key for intent in intents],
        list(payload_hashes),
        [intent.to for intent in intents],
        [intent.data for intent in intents],
        [intent.value for intent in intents],
        [intent.gas_limit for intent in intents],
        [intent.purpose for intent in intents],
        [intent.plan_id for intent in intents],
        [intent.leg_id for intent in intents],
        [intent.traceparent for intent in intents],
    )
    return {row["idempotency_key"]: row["id"] for row in rows}


async def by_keys(tx: Connection, idempotency_keys: Sequence[str]) -> dict[str, tuple[int, bytes]]:
    """Ids and payload hashes behind known keys."""
    rows = await tx.fetch(BY_KEYS, list(idempotency_keys))
    return {row["idempotency_key"]: (row["id"], row["payload_hash"]) for row in rows}


async def request_cancel(tx: Connection, idempotency_key: str) -> bool:
    """Ask for a cancellation; whether there was anything left to cancel."""
    return await tx.fetchval(REQUEST_CANCEL, idempotency_key) is not None


async def has_dead(tx: Connection, chain_id: int, limits: Limits) -> bool:
    """Whether anything is queued that was withdrawn or is beyond the limits."""
    return bool(await tx.fetchval(HAS_DEAD, chain_id, limits.gas_limit_max, limits.data_bytes_max))


async def take_dead(tx: Connection, chain_id: int, limits: Limits, limit: int) -> list[Queued]:
    """The oldest queued transactions that were withdrawn or are beyond the limits, locked."""
    rows = await tx.fetch(TAKE_DEAD, chain_id, limits.gas_limit_max, limits.data_bytes_max, limit)
    return [_queued(row) for row in rows]


async def lock_unmined(tx: Connection, transaction_id: int) -> tuple[str, int, bytes, int] | None:
    """Recipient, value, calldata and gas limit of a transaction that is not mined, locked; None when it is."""
    row = await tx.fetchrow(LOCK_UNMINED, transaction_id)
    return None if row is None else (row["to_address"], int(row["value"]), row["data"], row["gas_limit"])


async def store_attempt(tx: Connection, transaction_id: int, number: int, kind: AttemptKind, signed: Signed, fees: Fees) -> None:
    """Store another attempt."""
    await tx.execute(STORE_ATTEMPT, transaction_id, number, kind.value, signed.hash, signed.raw, fees.max_fee, fees.tip)


async def last_raws(tx: Connection, ids: Sequence[int]) -> dict[int, tuple[int, Signed]]:
    """Number and bytes of the last attempts by transaction."""
    rows = await tx.fetch(LAST_RAW, list(ids))
    return {row["transaction_id"]: (row["number"], Signed(row["transaction_hash"], row["raw"])) for row in rows}


async def note_answers(tx: Connection, ids: Sequence[int], numbers: Sequence[int], answers: Sequence[Answer], head: int) -> None:
    """Note what a node said of attempts, and the head at that time."""
    await tx.execute(NOTE_ANSWERS, list(ids), list(numbers), [answer.value for answer in answers], head)


async def payload(tx: Connection, transaction_id: int) -> tuple[str, bytes, int]:
    """Recipient, calldata and value of a transaction."""
    row = await tx.fetchrow(PAYLOAD, transaction_id)
    assert row is not None  # noqa: S101 - rows are never deleted
    return row["to_address"], row["data"], int(row["value"])


async def mark_mined(tx: Connection, mined: Sequence[tuple[int, Receipt]]) -> None:
    """Note the blocks that transactions are in."""
    await tx.execute(
        MARK_MINED,
        [each for each, _ in mined],
        [receipt.transaction_hash for _, receipt in mined],
        [receipt.block_number for _, receipt in mined],
        [receipt.block_hash for _, receipt in mined],
    )


async def mark_reorganised(tx: Connection, ids: Sequence[int]) -> None:
    """Take transactions back to sent."""
    await tx.execute(MARK_REORGANISED, list(ids))


async def settle(tx: Connection, endings: Sequence[Ending]) -> set[int]:
    """Store the end of transactions; ids of those that had not come to it before."""
    receipts = [ending.receipt for ending in endings]
    rows = await tx.fetch(
        SETTLE,
        [ending.reference.id for ending in endings],
        [ending.state.value for ending in endings],
        [receipt and receipt.transaction_hash for receipt in receipts],
        [receipt and receipt.block_number for receipt in receipts],
        [receipt and receipt.block_hash for receipt in receipts],
        [receipt and receipt.gas_used for receipt in receipts],
        [receipt and receipt.effective_gas_price for receipt in receipts],
        [ending.detail for ending in endings],
        [None if ending.evidence is None else json.dumps(ending.evidence) for ending in endings],
    )
    return {row["id"] for row in rows}


def _reference(row: asyncpg.Record) -> Reference:
    return Reference(row["id"], row["idempotency_key"], row["purpose"], row["plan_id"], row["leg_id"], row["traceparent"])


def _queued(row: asyncpg.Record) -> Queued:
    return Queued(row["id"], _intent(row), row["cancel_requested"])


def _intent(row: asyncpg.Record) -> Intent:
    return Intent(
        idempotency_key=row["idempotency_key"],
        to=row["to_address"],
        data=row["data"],
        gas_limit=row["gas_limit"],
        value=int(row["value"]),
        purpose=row["purpose"],
        plan_id=row["plan_id"],
        leg_id=row["leg_id"],
        traceparent=row["traceparent"],
    )


def _in_flight(rows: Sequence[asyncpg.Record]) -> InFlight:
    first = rows[0]
    attempts = tuple(
        Attempt(
            number=row["number"],
            kind=AttemptKind(row["kind"]),
            transaction_hash=row["attempt_hash"],
            fees=Fees(int(row["max_fee"]), int(row["tip"])),
            broadcast_block=row["broadcast_block"],
            answer=None if row["answer"] is None else Answer(row["answer"]),
        )
        for row in rows
    )
    mined = None if first["block_hash"] is None else (first["transaction_hash"], first["block_hash"])
    outbound = Outbound(State(first["state"]), first["nonce"], attempts, mined, first["cancel_requested"])
    return InFlight(_reference(first), outbound, first["gas_limit"])
