"""Every statement on `plan_leaf` and `plan_batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import asyncpg

from lockstep_contracts.notary import AnchorKind, PlanStatus
from lockstep_kit.db import Connection
from lockstep_kit.ids import PlanId
from lockstep_kit.statements import ChainEvidence
from lockstep_kit.values import dataclass
from notary.anchors.leaves import OUTCOMES, Ending, Registration, Saying
from notary.anchors.rules import Leaf, Standing

#: Channel on which new leaves are announced.
CHANNEL: Final = "plan_leaf"
#: Kinds of batches, and the registry's names for them.
KINDS: Final = {AnchorKind.REGISTRATIONS: "Registrations", AnchorKind.OUTCOMES: "Outcomes"}

#: Locks plans, in one order, until the transaction ends: the lock of the tables' own trigger.
LOCK_PLANS: Final = """
select pg_advisory_xact_lock(hashtextextended(encode(plan_digest, 'hex'), 7331))
from (select distinct plan_digest from unnest($1::bytea[]) as asked (plan_digest) order by plan_digest) as ordered
"""

#: What is recorded of plans, and what shows that it is anchored.
STANDINGS: Final = """
select leaf.plan_digest, leaf.kind, leaf.outcome, leaf.evidence_digest, anchor.root, anchor.block_number, anchor.block_hash,
    case when anchor.raw_transaction is null then '' else anchor.transaction_hash end as transaction_hash
from plan_leaf as leaf
    left join plan_batch as batch on batch.id = leaf.batch_id
    left join anchor on anchor.root = batch.root and anchor.block_hash is not null
where leaf.plan_digest = any($1)
"""

#: Records what is said of plans, and announces it.
INSERT_LEAVES: Final = """
with fresh as (
    insert into plan_leaf (plan_digest, kind, plan_id, outcome, evidence_digest, leaf_data)
    select * from unnest($1::bytea[], $2::smallint[], $3::text[], $4::text[], $5::bytea[], $6::bytea[]) returning seq
)
select pg_notify('plan_leaf', '') from fresh limit 1
"""

#: Of each kind of which leaves are in no batch: in how many seconds they are to be one, by when the first of them has waited long enough, or at once if
#: they fill it.
OPEN: Final = """
select kind, case when count(*) >= $1 then 0 else extract(epoch from min(recorded_at) + $2::interval - clock_timestamp())::float8 end as seconds
from plan_leaf where batch_id is null group by kind
"""

#: The oldest leaves of a kind that are in no batch, as many as a batch may have; those that another replica is putting into one are passed over.
TAKE_OPEN: Final = """
select seq, leaf_data from plan_leaf where kind = $1 and batch_id is null order by seq limit $2 for update skip locked
"""

#: Stores a closed batch.
INSERT_BATCH: Final = "insert into plan_batch (kind, root, tree_size) values ($1, $2, $3) returning id"

#: Gives leaves their places in a batch.
PLACE_LEAVES: Final = """
update plan_leaf set batch_id = $1, leaf_index = place.leaf_index
from unnest($2::bigint[], $3::integer[]) as place (seq, leaf_index) where plan_leaf.seq = place.seq
"""

#: Leaves of a plan that are in a batch.
PLACED: Final = """
select leaf.kind, leaf.outcome, leaf.leaf_data, leaf.leaf_index, batch.id, batch.root, batch.tree_size
from plan_leaf as leaf join plan_batch as batch on batch.id = leaf.batch_id where leaf.plan_id = $1
"""

#: All leaves of a batch, in order.
LEAVES: Final = "select leaf_data from plan_leaf where batch_id = $1 order by leaf_index"

#: How a plan ended, by the contract's name for it, in a batch or in none yet.
OUTCOME: Final = "select outcome from plan_leaf where plan_id = $1 and kind = 3"


@dataclass(frozen=True, slots=True)
class PlacedLeaf:
    """A plan's leaf in a closed batch."""

    #: REGISTRATIONS or OUTCOMES.
    kind: AnchorKind
    #: Its data.
    data: bytes
    #: Its place, from 0.
    index: int
    #: Root of the batch.
    root: bytes
    #: Data of all leaves of the batch, in order.
    leaves: tuple[bytes, ...]


async def lock_plans(tx: Connection, plan_digests: Sequence[bytes]) -> None:
    """Hold plans until the transaction ends."""
    await tx.execute(LOCK_PLANS, list(plan_digests))


async def standings(connection: Connection, plan_digests: Sequence[bytes], chain: str, contract: str) -> dict[bytes, Standing]:
    """What is recorded of plans, by their digests; what nothing is recorded of is missing."""
    found: dict[bytes, Standing] = {}
    for row in await connection.fetch(STANDINGS, list(plan_digests)):
        digest = row["plan_digest"]
        before = found.get(digest, Standing())
        leaf = Leaf(_saying(row), _root(row, chain, contract))
        found[digest] = (
            Standing(leaf, before.ending) if row["kind"] == AnchorKind.REGISTRATIONS else Standing(before.registration, leaf)
        )
    return found


async def insert_leaves(tx: Connection, sayings: Sequence[tuple[PlanId, Saying]]) -> None:
    """Record what is said of plans, in order."""
    endings = [each if isinstance(each, Ending) else None for _, each in sayings]
    await tx.execute(
        INSERT_LEAVES,
        [each.plan_digest for _, each in sayings],
        [int(each.kind) for _, each in sayings],
        [plan_id for plan_id, _ in sayings],
        [None if each is None else OUTCOMES[each.outcome] for each in endings],
        [None if each is None else each.evidence_digest for each in endings],
        [each.leaf_data() for _, each in sayings],
    )


async def waiting(connection: Connection, leaves_max: int, seconds: float) -> dict[AnchorKind, float]:
    """In how many seconds a batch is to be closed, by kinds of which there are leaves in none."""
    rows = await connection.fetch(OPEN, leaves_max, timedelta(seconds=seconds))
    return {AnchorKind(row["kind"]): row["seconds"] for row in rows}


async def take_open(tx: Connection, kind: AnchorKind, leaves_max: int) -> list[tuple[int, bytes]]:
    """Rows and data of the oldest leaves that are in no batch, locked."""
    return [(row["seq"], row["leaf_data"]) for row in await tx.fetch(TAKE_OPEN, int(kind), leaves_max)]


async def store_batch(tx: Connection, kind: AnchorKind, root: bytes, leaves: Sequence[int]) -> None:
    """Store a closed batch; `leaves` are the rows in their order."""
    batch_id = await tx.fetchval(INSERT_BATCH, int(kind), root, len(leaves))
    await tx.execute(PLACE_LEAVES, batch_id, list(leaves), list(range(len(leaves))))


async def placed(connection: Connection, plan_id: PlanId) -> list[PlacedLeaf]:
    """Leaves of a plan that are in a batch, each with the whole batch."""
    found = []
    for row in await connection.fetch(PLACED, plan_id):
        leaves = tuple(each["leaf_data"] for each in await connection.fetch(LEAVES, row["id"]))
        found.append(PlacedLeaf(AnchorKind(row["kind"]), row["leaf_data"], row["leaf_index"], row["root"], leaves))
    return found


async def outcome(connection: Connection, plan_id: PlanId) -> str:
    """How a plan ended, by the contract's name for it; "" where nothing is recorded of that."""
    found: str | None = await connection.fetchval(OUTCOME, plan_id)
    return found or ""


_STATUSES: Final[Mapping[str, PlanStatus]] = {name: status for status, name in OUTCOMES.items()}


def _saying(row: asyncpg.Record) -> Saying:
    if row["kind"] == AnchorKind.REGISTRATIONS:
        return Registration(row["plan_digest"])
    return Ending(row["plan_digest"], _STATUSES[row["outcome"]], row["evidence_digest"])


def _root(row: asyncpg.Record, chain: str, contract: str) -> ChainEvidence | None:
    if row["root"] is None:
        return None
    kind = KINDS[AnchorKind(row["kind"])]
    return ChainEvidence(chain, contract, row["root"], kind, row["transaction_hash"], row["block_number"], row["block_hash"])
