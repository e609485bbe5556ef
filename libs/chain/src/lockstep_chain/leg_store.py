"""Every statement about the transactions that carry legs (`chain_order`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from lockstep_chain.judging import Order
from lockstep_kit.db import Connection
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.participant.ports import LegWork
from lockstep_kit.participant.records import LegKey
from lockstep_kit.values import dataclass

V1_UPGRADE: Final = (
    """
    create table chain_order (
        plan_id text not null,
        leg_id text not null,
        phase text not null check (phase in ('PREPARING', 'COMMITTING', 'ABORTING')),
        attempt integer not null check (attempt >= 1),
        intent_key text not null,
        entry_key bytea not null check (octet_length(entry_key) = 32),
        ordered_at timestamptz not null default clock_timestamp(),
        settled boolean not null default false,
        transaction_hash bytea not null default '',
        skip_code text not null default '',
        skip_detail text not null default '',
        constraint chain_order_pkey primary key (plan_id, leg_id, phase, attempt)
    )
    """,
    "create index chain_order_intent on chain_order (intent_key)",
)


#: Reversals are carried by transactions too, and a leg may be ordered to be reversed again after a refusal.
V2_UPGRADE: Final = (
    """
    alter table chain_order
        drop constraint chain_order_phase_check,
        add constraint chain_order_phase_check check (phase in ('PREPARING', 'COMMITTING', 'ABORTING', 'REVERSING')),
        add column order_no integer not null default 1 check (order_no >= 1),
        drop constraint chain_order_pkey,
        add constraint chain_order_pkey primary key (plan_id, leg_id, phase, order_no, attempt)
    """,
)


def grants(role: str) -> tuple[str, ...]:
    """What the service's role may do."""
    return (f"grant select, insert, update on chain_order to {role}",)


def order_tables(metadata: sa.MetaData) -> None:
    """Declare the table."""
    sa.Table(
        "chain_order",
        metadata,
        sa.Column("plan_id", sa.Text, nullable=False),
        sa.Column("leg_id", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("intent_key", sa.Text, nullable=False),
        sa.Column("entry_key", sa.LargeBinary, nullable=False),
        sa.Column("ordered_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("transaction_hash", sa.LargeBinary, nullable=False, server_default=sa.text("''")),
        sa.Column("skip_code", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("skip_detail", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("order_no", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.PrimaryKeyConstraint("plan_id", "leg_id", "phase", "order_no", "attempt", name="chain_order_pkey"),
        sa.Index("chain_order_intent", "intent_key"),
    )


#: Notes which transaction carries which legs, in the transaction that queues it.
INSERT_ORDERS: Final = """
insert into chain_order (plan_id, leg_id, phase, order_no, attempt, intent_key, entry_key)
select * from unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::integer[], $6::text[], $7::bytea[])
"""

#: Notes that a transaction is final, or never will be, and which of its legs it skipped.
SETTLE_ORDERS: Final = """
update chain_order set settled = true, transaction_hash = $2, skip_code = coalesce(skip.code, $6), skip_detail = coalesce(skip.detail, $7)
from chain_order as mine left join unnest($3::bytea[], $4::text[], $5::text[]) as skip (entry_key, code, detail) using (entry_key)
where mine.intent_key = $1
  and (chain_order.plan_id, chain_order.leg_id, chain_order.phase, chain_order.order_no, chain_order.attempt)
    = (mine.plan_id, mine.leg_id, mine.phase, mine.order_no, mine.attempt)
returning chain_order.plan_id, chain_order.leg_id, chain_order.phase, chain_order.order_no, chain_order.attempt, chain_order.entry_key,
    chain_order.skip_code, chain_order.skip_detail
"""

#: The entries that transactions carry.
ENTRIES: Final = "select distinct entry_key, plan_id, leg_id, phase from chain_order where intent_key = any($1)"

#: Last transaction of each leg in the phase that it is in.
LAST_ORDERS: Final = """
select distinct on (plan_id, leg_id, phase) plan_id, leg_id, phase, attempt, settled, transaction_hash, skip_code, skip_detail
from chain_order
join unnest($1::text[], $2::text[], $3::text[], $4::integer[]) as asked (plan_id, leg_id, phase, order_no)
    using (plan_id, leg_id, phase, order_no)
order by plan_id, leg_id, phase, attempt desc
"""


#: Legs that are in a phase that takes a transaction; the index participant_leg_open holds these and few others.
_OPEN: Final = """
leg.phase in ('PREPARING', 'PREPARED', 'COMMITTING', 'ABORTING', 'REVERSING') and leg.phase <> 'PREPARED' and (leg.plan_id, leg.leg_id) > ($1, $2)
"""

#: Transactions that carried a leg in the phase that it is in.
_ORDERS: Final = """
chain_order as mine where mine.plan_id = leg.plan_id and mine.leg_id = leg.leg_id and mine.phase = leg.phase
    and mine.order_no = case leg.phase when 'REVERSING' then cardinality(leg.reversals) else 1 end
"""

#: A page of the legs that no transaction has carried yet in the phase that they are in.
UNCARRIED: Final = f"""
select leg.plan_id, leg.leg_id from participant_leg as leg where {_OPEN} and not exists (select from {_ORDERS})
order by leg.plan_id, leg.leg_id limit $3
"""

#: A page of the legs whose last transaction has come to its end, and that owe an answer still.
UNANSWERED: Final = f"""
select leg.plan_id, leg.leg_id from participant_leg as leg
    cross join lateral (select mine.settled from {_ORDERS} order by mine.attempt desc limit 1) as last
where {_OPEN} and last.settled order by leg.plan_id, leg.leg_id limit $3
"""

#: Tells every replica's judge that transactions came to their end.
NOTIFY: Final = "select pg_notify('chain_order', '')"

#: Channel of `NOTIFY`.
CHANNEL: Final = "chain_order"


@dataclass(frozen=True, slots=True)
class Carried:
    """A leg that a transaction carries."""

    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: What the transaction is to bring about.
    phase: Phase
    #: As in LegWork.
    order_no: int
    #: From 1.
    attempt: int
    #: Idempotency key of the transaction.
    intent_key: str
    #: Key of the entry.
    entry_key: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """A leg whose transaction has come to its end."""

    #: Plan of the leg.
    plan_id: PlanId
    #: The leg.
    leg_id: LegId
    #: What the transaction was to bring about.
    phase: Phase
    #: As in LegWork.
    order_no: int
    #: Key of the entry.
    entry_key: bytes
    #: The transaction.
    order: Order


async def uncarried(connection: Connection, after: LegKey | None, limit: int) -> list[LegKey]:
    """A page of the legs that wait for a transaction, in the order (plan, leg), after one of them."""
    return [(row["plan_id"], row["leg_id"]) for row in await connection.fetch(UNCARRIED, *(after or ("", "")), limit)]


async def unanswered(connection: Connection, after: LegKey | None, limit: int) -> list[LegKey]:
    """A page of the legs that can be judged, in the order (plan, leg), after one of them."""
    return [(row["plan_id"], row["leg_id"]) for row in await connection.fetch(UNANSWERED, *(after or ("", "")), limit)]


async def insert_orders(tx: Connection, carried: Sequence[Carried]) -> None:
    """Note which transaction carries which legs."""
    await tx.execute(
        INSERT_ORDERS,
        [each.plan_id for each in carried],
        [each.leg_id for each in carried],
        [each.phase.value for each in carried],
        [each.order_no for each in carried],
        [each.attempt for each in carried],
        [each.intent_key for each in carried],
        [each.entry_key for each in carried],
    )


async def settle_orders(
    tx: Connection,
    intent_key: str,
    transaction_hash: bytes,
    skips: Sequence[tuple[bytes, str, str]],
    otherwise: tuple[str, str] = ("", ""),
) -> list[Ended]:
    """Note that a transaction came to its end; the legs that it carried. `otherwise` is the code and text of legs not skipped by name."""
    rows = await tx.fetch(
        SETTLE_ORDERS,
        intent_key,
        transaction_hash,
        [key for key, _, _ in skips],
        [code for _, code, _ in skips],
        [detail for _, _, detail in skips],
        *otherwise,
    )
    return [
        Ended(
            PlanId(row["plan_id"]),
            LegId(row["leg_id"]),
            Phase(row["phase"]),
            row["order_no"],
            row["entry_key"],
            Order(row["attempt"], True, transaction_hash, row["skip_code"], row["skip_detail"]),  # noqa: FBT003 - it is settled
        )
        for row in rows
    ]


async def entries(connection: Connection, intent_keys: Sequence[str]) -> list[tuple[bytes, LegKey, Phase]]:
    """The entries that transactions carry, with their legs, and the phases in which they do."""
    rows = await connection.fetch(ENTRIES, list(intent_keys))
    return [(row["entry_key"], (row["plan_id"], row["leg_id"]), Phase(row["phase"])) for row in rows]


async def tell(tx: Connection) -> None:
    """Wake every judge once this transaction has committed."""
    await tx.execute(NOTIFY)


async def last_orders(tx: Connection, legs: Sequence[LegWork]) -> dict[tuple[PlanId, LegId], Order]:
    """Last transaction of each leg in the phase that it is in."""
    if not legs:
        return {}
    rows = await tx.fetch(
        LAST_ORDERS,
        [each.plan_id for each in legs],
        [each.leg_id for each in legs],
        [each.phase.value for each in legs],
        [each.order_no for each in legs],
    )
    return {
        (PlanId(row["plan_id"]), LegId(row["leg_id"])): Order(
            row["attempt"], row["settled"], row["transaction_hash"], row["skip_code"], row["skip_detail"]
        )
        for row in rows
    }
