"""Every statement about the block that is held to be final (`evm_final_block`), and what persons found about it (`evm_final_finding`)."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from lockstep_kit.db import Connection
from lockstep_kit.values import dataclass


@dataclass(frozen=True, slots=True)
class HeldBlock:
    """A block that is held to be final."""

    #: Height.
    number: int
    #: Hash (32 bytes).
    hash: bytes


V1_UPGRADE: Final = (
    """
    create table evm_final_finding (
        id bigint generated always as identity,
        chain_id bigint not null,
        former_number bigint not null,
        former_hash bytea not null,
        number bigint not null,
        hash bytea not null,
        finding text not null constraint evm_final_finding_text check (finding <> ''),
        recorded_at timestamptz not null default clock_timestamp(),
        constraint evm_final_finding_pkey primary key (id)
    )
    """,
    # One row per chain: the highest block that was seen to be final, unless a person has put another in its place.
    """
    create table evm_final_block (
        chain_id bigint not null constraint evm_final_block_chain check (chain_id > 0),
        number bigint not null constraint evm_final_block_number check (number >= 0),
        hash bytea not null constraint evm_final_block_hash check (octet_length(hash) = 32),
        finding_id bigint,
        constraint evm_final_block_pkey primary key (chain_id),
        constraint evm_final_block_finding foreign key (finding_id) references evm_final_finding (id)
    )
    """,
    """
    create function evm_final_block_moves() returns trigger language plpgsql as $$
    begin
        if tg_op <> 'UPDATE' then
            raise exception 'what was final is kept' using errcode = 'integrity_constraint_violation';
        end if;
        if new.chain_id <> old.chain_id
            or not (coalesce(new.finding_id, 0) > coalesce(old.finding_id, 0)
                or (new.finding_id is not distinct from old.finding_id and new.number > old.number))
        then
            raise exception 'what was final is replaced by a higher block, or by a finding' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    """
    create trigger evm_final_block_moves before update or delete on evm_final_block
        for each row execute function evm_final_block_moves()
    """,
    """
    create trigger evm_final_block_stays before truncate on evm_final_block
        for each statement execute function evm_final_block_moves()
    """,
    """
    create trigger evm_final_finding_stays before update or delete or truncate on evm_final_finding
        for each statement execute function evm_final_block_moves()
    """,
)

#: The block that is held to be final.
HELD: Final = "select number, hash from evm_final_block where chain_id = $1"

#: Holds a block to be final; a lower one changes nothing.
HOLD: Final = """
insert into evm_final_block (chain_id, number, hash) values ($1, $2, $3)
on conflict (chain_id) do update set number = excluded.number, hash = excluded.hash where evm_final_block.number < excluded.number
"""

#: Puts another block in the place of the one that was held, with what a person found; nothing is returned when that one is not held any more.
REPLACE: Final = """
with held as (
    select number, hash from evm_final_block where chain_id = $1 and number = $2 and hash = $3 for update
), found as (
    insert into evm_final_finding (chain_id, former_number, former_hash, number, hash, finding)
    select $1, held.number, held.hash, $4, $5, $6 from held
    returning id
)
update evm_final_block set number = $4, hash = $5, finding_id = found.id from found where chain_id = $1 returning finding_id
"""


def grants(role: str) -> tuple[str, ...]:
    """What the service's role may do."""
    return (
        f"grant select, insert, update (number, hash, finding_id) on evm_final_block to {role}",
        f"grant select, insert on evm_final_finding to {role}",
    )


def final_tables(metadata: sa.MetaData) -> None:
    """Declare the tables."""
    sa.Table(
        "evm_final_finding",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("chain_id", sa.BigInteger, nullable=False),
        sa.Column("former_number", sa.BigInteger, nullable=False),
        sa.Column("former_hash", sa.LargeBinary, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("finding", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.PrimaryKeyConstraint("id", name="evm_final_finding_pkey"),
    )
    sa.Table(
        "evm_final_block",
        metadata,
        sa.Column("chain_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("finding_id", sa.BigInteger),
        sa.PrimaryKeyConstraint("chain_id", name="evm_final_block_pkey"),
        sa.ForeignKeyConstraint(["finding_id"], ["evm_final_finding.id"], name="evm_final_block_finding"),
    )


async def held(connection: Connection, chain_id: int) -> HeldBlock | None:
    """The block that is held to be final."""
    row = await connection.fetchrow(HELD, chain_id)
    return None if row is None else HeldBlock(row["number"], row["hash"])


async def hold(connection: Connection, chain_id: int, final: HeldBlock) -> None:
    """Hold a block to be final."""
    await connection.execute(HOLD, chain_id, final.number, final.hash)


async def replace(connection: Connection, chain_id: int, former: HeldBlock, block: HeldBlock, finding: str) -> bool:
    """Hold another block in the place of `former`; False when that is not the one that is held."""
    values = (former.number, former.hash, block.number, block.hash, finding)
    return await connection.fetchval(REPLACE, chain_id, *values) is not None
