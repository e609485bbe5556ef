"""The tables that every participant's database has: the legs, and the log of their changes.

The database itself keeps the fence's promises, whatever the service's code does: a leg moves only along the fence's graph, an executed leg stays for
ever, revision and epoch never go down, what a leg is bound to and its vote never change. Every change of a revision is numbered in the outcome log by
a trigger that is deferred to the commit, so that the counter's row is locked last in every transaction: numbers become visible in order, without gaps,
and a reader never passes over one that commits later.
"""

from __future__ import annotations

import re
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

#: Channel that is notified when changes have been numbered.
OUTCOME_CHANNEL: Final = "participant_outcome"

#: Every step between phases that the database lets a leg take; "" is a leg that is not known. The fence's tables, as of the first migration.
V1_STEPS: Final[tuple[tuple[str, str], ...]] = (
    ("", "PREPARING"),
    ("", "COMMITTING"),
    ("", "ABORTING"),
    ("PREPARING", "PREPARED"),
    ("PREPARING", "REFUSED"),
    ("PREPARING", "ABORTING"),
    ("PREPARED", "COMMITTING"),
    ("PREPARED", "REFUSED"),
    ("PREPARED", "ABORTING"),
    ("REFUSED", "ABORTING"),
    ("REFUSED", "COMMITTED"),
    ("COMMITTING", "COMMITTED"),
    ("COMMITTING", "REFUSED"),
    ("COMMITTING", "ABORTING"),
    ("ABORTING", "RELEASED"),
    ("ABORTING", "COMMITTED"),
    ("RELEASED", "COMMITTED"),
)
_STEPS_SQL: Final = ", ".join(f"('{before}', '{after}')" for before, after in V1_STEPS)

V1_UPGRADE: Final[tuple[str, ...]] = (
    """
    create table participant_leg (
        plan_id text not null,
        leg_id text not null,
        seq bigint generated always as identity,
        epoch_generation bigint not null check (epoch_generation >= 1),
        epoch_counter bigint not null check (epoch_counter >= 1),
        revision bigint not null check (revision >= 0),
        phase text check (phase in (
            'PREPARING', 'PREPARED', 'REFUSED', 'COMMITTING', 'COMMITTED', 'ABORTING', 'RELEASED')),
        left_phase text,
        digest bytea check (octet_length(digest) = 32),
        plan_digest bytea check (octet_length(plan_digest) = 32),
        binding bytea,
        decision text check (decision in ('COMMIT', 'DELEGATED')),
        prepare_by timestamptz,
        hold_until timestamptz,
        payer_signature bytea,
        key bytea check (octet_length(key) = 32),
        not_after timestamptz,
        closing bytea,
        authority bytea,
        certificate bytea,
        vote bytea,
        outcome bytea,
        trouble text not null default '',
        traceparent text,
        recorded_at timestamptz not null default clock_timestamp(),
        phase_since timestamptz,
        constraint participant_leg_pkey primary key (plan_id, leg_id),
        constraint participant_leg_seq_key unique (seq),
        -- A row without a phase holds an epoch and nothing else.
        constraint participant_leg_bound check (
            num_nonnulls(phase, digest, plan_digest, binding, phase_since) in (0, 5) and (phase is null) = (revision = 0)),
        constraint participant_leg_voted check (phase <> 'PREPARED' or vote is not null),
        constraint participant_leg_decided check (
            phase <> 'COMMITTING' or num_nonnulls(decision, certificate, vote) = 3),
        constraint participant_leg_authorised check (phase <> 'ABORTING' or authority is not null),
        constraint participant_leg_answered check (
            phase not in ('COMMITTED', 'RELEASED') or outcome is not null),
        constraint participant_leg_refused check (phase <> 'REFUSED' or num_nonnulls(vote, outcome) > 0)
    )
    """,
    # Recovery reads the legs that something is still owed for; most legs are done for ever and not in this index.
    """
    create index participant_leg_open on participant_leg (plan_id, leg_id)
        where phase in ('PREPARING', 'PREPARED', 'COMMITTING', 'ABORTING')
    """,
    f"""
    create function participant_leg_fenced() returns trigger language plpgsql as $$
    declare
        broken text;
    begin
        if tg_op = 'INSERT' then
            if new.phase is not null and ('', new.phase) not in ({_STEPS_SQL}) then
                broken := format('a leg does not begin as %s', new.phase);
            end if;
        elsif (new.plan_id, new.leg_id, new.seq) is distinct from (old.plan_id, old.leg_id, old.seq) then
            broken := 'a row stays that of its leg';
        elsif (new.epoch_generation, new.epoch_counter) < (old.epoch_generation, old.epoch_counter) then
            broken := 'an epoch never goes down';
        elsif new.revision < old.revision then
            broken := 'a revision never goes down';
        elsif old.phase is not null
            and (new.digest, new.plan_digest, new.binding) is distinct from (old.digest, old.plan_digest, old.binding) then
            broken := 'what a leg is bound to never changes';
        elsif old.vote is not null and new.vote is distinct from old.vote then
            broken := 'a vote never changes';
        elsif new.phase is distinct from old.phase then
            if new.phase is null or (coalesce(old.phase, ''), new.phase) not in ({_STEPS_SQL}) then
                broken := format('a leg does not go from %s to %s', coalesce(old.phase, 'nothing'), coalesce(new.phase, 'nothing'));
            elsif new.revision = old.revision then
                broken := 'a phase never changes without the revision';
            elsif old.phase = 'COMMITTING' and new.phase = 'ABORTING' and old.decision <> 'DELEGATED' then
                broken := 'after COMMIT there is no way back';
            end if;
        end if;
        if broken is not null then
            raise exception '% (plan %, leg %)', broken, new.plan_id, new.leg_id
                using errcode = 'integrity_constraint_violation', constraint = 'participant_leg_fenced';
        end if;
        return new;
    end $$
    """,
    """
    create trigger participant_leg_fenced before insert or update on participant_leg
        for each row execute function participant_leg_fenced()
    """,
    """
    create function participant_leg_kept() returns trigger language plpgsql as $$
    begin
        if tg_op = 'TRUNCATE' or old.phase = 'COMMITTED' then
            raise exception 'an executed leg stays for ever'
                using errcode = 'integrity_constraint_violation', constraint = 'participant_leg_kept';
        end if;
        return old;
    end $$
    """,
    "create trigger participant_leg_kept before delete on participant_leg for each row execute function participant_leg_kept()",
    """
    create trigger participant_leg_never_truncated before truncate on participant_leg
        for each statement execute function participant_leg_kept()
    """,
    # ALWAYS: they fire for replication sessions too, so that not even their setting opens a way around.
    "alter table participant_leg enable always trigger participant_leg_fenced",
    "alter table participant_leg enable always trigger participant_leg_kept",
    "alter table participant_leg enable always trigger participant_leg_never_truncated",
    """
    create table participant_outcome_log (
        sequence bigint not null,
        plan_id text not null,
        leg_id text not null,
        revision bigint not null,
        recorded_at timestamptz not null default clock_timestamp(),
        constraint participant_outcome_log_pkey primary key (sequence)
    )
    """,
    """
    create table participant_outcome_counter (
        singleton boolean not null default true check (singleton),
        next_sequence bigint not null check (next_sequence >= 1),
        incarnation text not null,
        constraint participant_outcome_counter_pkey primary key (singleton)
    )
    """,
    "insert into participant_outcome_counter (next_sequence, incarnation) values (1, gen_random_uuid()::text)",
    # With the owner's rights: the service's role numbers no change but by changing a leg.
    f"""
    create function participant_outcome_numbered() returns trigger language plpgsql
        security definer set search_path from current as $$
    declare
        number bigint;
    begin
        update participant_outcome_counter set next_sequence = next_sequence + 1 returning next_sequence - 1 into strict number;
        insert into participant_outcome_log (sequence, plan_id, leg_id, revision)
            values (number, new.plan_id, new.leg_id, new.revision);
        perform pg_notify('{OUTCOME_CHANNEL}', '');
        return null;
    end $$
    """,
    """
    create constraint trigger participant_outcome_begun after insert on participant_leg
        deferrable initially deferred for each row when (new.revision > 0) execute function participant_outcome_numbered()
    """,
    """
    create constraint trigger participant_outcome_changed after update on participant_leg
        deferrable initially deferred for each row when (new.revision > old.revision) execute function participant_outcome_numbered()
    """,
)

#: The same, as of the second: what is executed can be reversed.
V2_STEPS: Final[tuple[tuple[str, str], ...]] = (
    *V1_STEPS,
    ("COMMITTED", "REVERSING"),
    ("REVERSING", "REVERSED"),
    ("REVERSING", "COMMITTED"),
)
_V2_STEPS_SQL: Final = ", ".join(f"('{before}', '{after}')" for before, after in V2_STEPS)

#: Reversals: each order to reverse is remembered for ever and begun once, and a leg's Done stays what it was whatever is undone.
V2_UPGRADE: Final[tuple[str, ...]] = (
    """
    alter table participant_leg
        add column reverse_authority bytea,
        add column reversals bytea[] not null default '{}',
        add column reversal bytea
    """,
    """
    alter table participant_leg
        -- A leg that is not known may remember a revision that was seen of it before the database was put back.
        drop constraint participant_leg_bound,
        add constraint participant_leg_bound check (
            num_nonnulls(phase, digest, plan_digest, binding, phase_since) in (0, 5) and (phase is null or revision > 0)),
        drop constraint participant_leg_phase_check,
        add constraint participant_leg_phase_check check (phase in (
            'PREPARING', 'PREPARED', 'REFUSED', 'COMMITTING', 'COMMITTED', 'ABORTING', 'RELEASED', 'REVERSING', 'REVERSED')),
        add constraint participant_leg_ordered check (
            phase not in ('REVERSING', 'REVERSED')
            or num_nonnulls(reverse_authority, outcome) = 2 and cardinality(reversals) > 0),
        add constraint participant_leg_undone check (phase <> 'REVERSED' or reversal is not null)
    """,
    "drop index participant_leg_open",
    """
    create index participant_leg_open on participant_leg (plan_id, leg_id)
        where phase in ('PREPARING', 'PREPARED', 'COMMITTING', 'ABORTING', 'REVERSING')
    """,
    f"""
    create or replace function participant_leg_fenced() returns trigger language plpgsql as $$
    declare
        broken text;
    begin
        if tg_op = 'INSERT' then
            if new.phase is not null and ('', new.phase) not in ({_V2_STEPS_SQL}) then
                broken := format('a leg does not begin as %s', new.phase);
            end if;
        elsif (new.plan_id, new.leg_id, new.seq) is distinct from (old.plan_id, old.leg_id, old.seq) then
            broken := 'a row stays that of its leg';
        elsif (new.epoch_generation, new.epoch_counter) < (old.epoch_generation, old.epoch_counter) then
            broken := 'an epoch never goes down';
        elsif new.revision < old.revision then
            broken := 'a revision never goes down';
        elsif old.phase is not null
            and (new.digest, new.plan_digest, new.binding) is distinct from (old.digest, old.plan_digest, old.binding) then
            broken := 'what a leg is bound to never changes';
        elsif old.vote is not null and new.vote is distinct from old.vote then
            broken := 'a vote never changes';
        elsif old.phase in ('COMMITTED', 'REVERSING', 'REVERSED') and new.outcome is distinct from old.outcome then
            broken := 'what was executed stays told';
        elsif new.reversals[1:cardinality(old.reversals)] is distinct from old.reversals
            or (cardinality(new.reversals) - cardinality(old.reversals))
                <> (case when new.phase = 'REVERSING' and old.phase = 'COMMITTED' then 1 else 0 end)
            or (cardinality(new.reversals) > cardinality(old.reversals) and new.reversals[cardinality(new.reversals)] = any(old.reversals))
        then
            broken := 'an order to reverse is begun once, and never forgotten';
        elsif new.phase is distinct from old.phase then
            if new.phase is null or (coalesce(old.phase, ''), new.phase) not in ({_V2_STEPS_SQL}) then
                broken := format('a leg does not go from %s to %s', coalesce(old.phase, 'nothing'), coalesce(new.phase, 'nothing'));
            elsif new.revision = old.revision then
                broken := 'a phase never changes without the revision';
            elsif old.phase = 'COMMITTING' and new.phase = 'ABORTING' and old.decision <> 'DELEGATED' then
                broken := 'after COMMIT there is no way back';
            end if;
        end if;
        if broken is not null then
            raise exception '% (plan %, leg %)', broken, new.plan_id, new.leg_id
                using errcode = 'integrity_constraint_violation', constraint = 'participant_leg_fenced';
        end if;
        return new;
    end $$
    """,
    """
    create or replace function participant_leg_kept() returns trigger language plpgsql as $$
    begin
        if tg_op = 'TRUNCATE' or old.phase in ('COMMITTED', 'REVERSING', 'REVERSED') then
            raise exception 'an executed leg stays for ever'
                using errcode = 'integrity_constraint_violation', constraint = 'participant_leg_kept';
        end if;
        return old;
    end $$
    """,
)

#: A payer's allowance comes with the leg (EIP-2612).
V3_UPGRADE: Final[tuple[str, ...]] = ("alter table participant_leg add column permit bytea",)

_ROLE: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def grants(role: str) -> tuple[str, ...]:
    """Statements that give a service's role what it needs of these tables, and no more: nothing is ever deleted, and only a trigger numbers.

    Raises:
        ValueError: the name is none of a role.
    """
    if _ROLE.fullmatch(role) is None:
        raise ValueError(f"{role!r} is no name of a role")
    return (
        f"grant select, insert, update on participant_leg to {role}",
        f"grant select on participant_outcome_log to {role}",
        f"grant select on participant_outcome_counter to {role}",
    )


def participant_tables(metadata: sa.MetaData) -> None:
    """Declare the same tables in a service's metadata."""
    moment = sa.DateTime(timezone=True)
    leg = sa.Table(
        "participant_leg",
        metadata,
        sa.Column("plan_id", sa.Text, nullable=False),
        sa.Column("leg_id", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("epoch_generation", sa.BigInteger, nullable=False),
        sa.Column("epoch_counter", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("phase", sa.Text),
        sa.Column("left_phase", sa.Text),
        *(sa.Column(name, sa.LargeBinary) for name in ("digest", "plan_digest", "binding")),
        sa.Column("decision", sa.Text),
        *(sa.Column(name, moment) for name in ("prepare_by", "hold_until", "not_after")),
        *(
            sa.Column(name, sa.LargeBinary)
            for name in ("payer_signature", "key", "closing", "authority", "certificate", "vote", "outcome")
        ),
        *(sa.Column(name, sa.LargeBinary) for name in ("reverse_authority", "reversal", "permit")),
        sa.Column("reversals", postgresql.ARRAY(sa.LargeBinary), nullable=False, server_default="{}"),
        sa.Column("trouble", sa.Text, nullable=False, server_default=""),
        sa.Column("traceparent", sa.Text),
        sa.Column("recorded_at", moment, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("phase_since", moment),
        sa.PrimaryKeyConstraint("plan_id", "leg_id", name="participant_leg_pkey"),
        sa.UniqueConstraint("seq", name="participant_leg_seq_key"),
    )
    sa.Index(
        "participant_leg_open",
        leg.c.plan_id,
        leg.c.leg_id,
        postgresql_where=leg.c.phase.in_(["PREPARING", "PREPARED", "COMMITTING", "ABORTING", "REVERSING"]),
    )
    sa.Table(
        "participant_outcome_log",
        metadata,
        sa.Column("sequence", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("plan_id", sa.Text, nullable=False),
        sa.Column("leg_id", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", moment, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.PrimaryKeyConstraint("sequence", name="participant_outcome_log_pkey"),
    )
    sa.Table(
        "participant_outcome_counter",
        metadata,
        sa.Column("singleton", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("next_sequence", sa.BigInteger, nullable=False),
        sa.Column("incarnation", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("singleton", name="participant_outcome_counter_pkey"),
    )
