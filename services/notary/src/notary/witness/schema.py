"""The witness's tables: checkpoints that were cosigned, alarms, and one row that is locked by whoever adds to either.

The database itself keeps what a witness promises: within one history of the log checkpoints only grow, none follows an open alarm, and a new history
begins only where a person has said so of an alarm. Nothing is ever changed or removed, by whatever role.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

V1_UPGRADE: Final = (
    """
    create table witness (
        singleton boolean not null default true constraint witness_one check (singleton),
        incarnation text not null,
        known_incarnation text not null,
        looked_at timestamptz,
        anchor_requested_at timestamptz,
        anchor_requested_root bytea,
        constraint witness_pkey primary key (singleton)
    )
    """,
    # Migrations of a database that was put back change the incarnation, and so does nobody else.
    "insert into witness (incarnation, known_incarnation) select id, id from (select gen_random_uuid()::text as id) as drawn",
    """
    create table witness_alarm (
        id bigint generated always as identity,
        rule text not null constraint witness_alarm_rule check (rule in (
            'NOTE_MALFORMED', 'ORIGIN_DIFFERS', 'SIGNATURE_INVALID', 'LOG_SHRUNKEN', 'LOG_SPLIT', 'PROOF_MISSING',
            'DATABASE_RESTORED')),
        message text not null constraint witness_alarm_message check (message <> ''),
        cosigned_note bytea,
        refused_note bytea,
        proof bytea[],
        raised_at timestamptz not null default clock_timestamp(),
        finding text constraint witness_alarm_finding check (finding <> ''),
        acknowledged_at timestamptz,
        follows integer,
        constraint witness_alarm_pkey primary key (id),
        constraint witness_alarm_acknowledged check (
            (finding is null) = (acknowledged_at is null) and (follows is null or acknowledged_at is not null))
    )
    """,
    "create unique index witness_alarm_open on witness_alarm ((acknowledged_at is null)) where acknowledged_at is null",
    """
    create table witness_checkpoint (
        history integer not null,
        tree_size bigint not null constraint witness_checkpoint_size check (tree_size >= 0),
        root_hash bytea not null constraint witness_checkpoint_root check (octet_length(root_hash) = 32),
        signed_note bytea not null,
        witnessed_at timestamptz not null,
        constraint witness_checkpoint_pkey primary key (history, tree_size)
    )
    """,
    # The row is locked first: what is read after that is what every other writer has committed.
    """
    create function witness_checkpoint_continues() returns trigger language plpgsql as $$
    declare
        last record;
    begin
        perform from witness for update;
        if exists (select from witness_alarm where acknowledged_at is null) then
            raise exception 'nothing is cosigned while an alarm is open' using errcode = 'integrity_constraint_violation';
        end if;
        select history, tree_size into last from witness_checkpoint order by history desc, tree_size desc limit 1;
        if not found then
            if new.history <> 1 then
                raise exception 'histories are counted from 1' using errcode = 'integrity_constraint_violation';
            end if;
        elsif new.history = last.history then
            if new.tree_size <= last.tree_size then
                raise exception 'a log only grows' using errcode = 'integrity_constraint_violation';
            end if;
        elsif new.history <> last.history + 1 or not exists (select from witness_alarm where follows = new.history) then
            raise exception 'a log begins anew only where a person has said so of an alarm'
                using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    """
    create trigger witness_checkpoint_continues before insert on witness_checkpoint
        for each row execute function witness_checkpoint_continues()
    """,
    """
    create function witness_stays() returns trigger language plpgsql as $$
    begin
        raise exception 'what was witnessed is kept' using errcode = 'integrity_constraint_violation';
    end $$
    """,
    """
    create function witness_alarm_is_acknowledged() returns trigger language plpgsql as $$
    begin
        if old.acknowledged_at is not null or new.acknowledged_at is null
            or (new.id, new.rule, new.message, new.cosigned_note, new.refused_note, new.proof, new.raised_at)
                is distinct from (old.id, old.rule, old.message, old.cosigned_note, old.refused_note, old.proof, old.raised_at)
        then
            raise exception 'an alarm is acknowledged once, and is kept' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    """
    create trigger witness_alarm_is_acknowledged before update on witness_alarm
        for each row execute function witness_alarm_is_acknowledged()
    """,
    """
    create trigger witness_checkpoint_stays before update or delete or truncate on witness_checkpoint
        for each statement execute function witness_stays()
    """,
    """
    create trigger witness_alarm_stays before delete or truncate on witness_alarm
        for each statement execute function witness_stays()
    """,
    # ALWAYS: they fire for replication sessions too, so that not even their setting opens a way around.
    "alter table witness_checkpoint enable always trigger witness_checkpoint_continues",
    "alter table witness_checkpoint enable always trigger witness_checkpoint_stays",
    "alter table witness_alarm enable always trigger witness_alarm_is_acknowledged",
    "alter table witness_alarm enable always trigger witness_alarm_stays",
)


def grants(role: str) -> tuple[str, ...]:
    """What the service's role may do."""
    return (
        f"grant select, update (known_incarnation, looked_at, anchor_requested_at, anchor_requested_root) on witness to {role}",
        f"grant select, insert, update (finding, acknowledged_at, follows) on witness_alarm to {role}",
        f"grant select, insert on witness_checkpoint to {role}",
    )


def witness_tables(metadata: sa.MetaData) -> None:
    """Declare the tables."""
    moment = sa.DateTime(timezone=True)
    sa.Table(
        "witness",
        metadata,
        sa.Column("singleton", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("incarnation", sa.Text, nullable=False),
        sa.Column("known_incarnation", sa.Text, nullable=False),
        sa.Column("looked_at", moment),
        sa.Column("anchor_requested_at", moment),
        sa.Column("anchor_requested_root", sa.LargeBinary),
        sa.PrimaryKeyConstraint("singleton", name="witness_pkey"),
    )
    alarm = sa.Table(
        "witness_alarm",
        metadata,
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("cosigned_note", sa.LargeBinary),
        sa.Column("refused_note", sa.LargeBinary),
        sa.Column("proof", ARRAY(sa.LargeBinary)),
        sa.Column("raised_at", moment, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("finding", sa.Text),
        sa.Column("acknowledged_at", moment),
        sa.Column("follows", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="witness_alarm_pkey"),
    )
    is_open = alarm.c.acknowledged_at.is_(None)
    sa.Index("witness_alarm_open", is_open, unique=True, postgresql_where=is_open)
    sa.Table(
        "witness_checkpoint",
        metadata,
        sa.Column("history", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("tree_size", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("root_hash", sa.LargeBinary, nullable=False),
        sa.Column("signed_note", sa.LargeBinary, nullable=False),
        sa.Column("witnessed_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("history", "tree_size", name="witness_checkpoint_pkey"),
    )
