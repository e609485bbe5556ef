"""What operators decide, what is given up as a dead letter, and legs that are reversed."""

from __future__ import annotations

from alembic import context, op

revision = "0002"
down_revision = "0001"

#: Tables whose rows are never changed or removed.
APPEND_ONLY = ("resolution_signature", "resolution")
#: Tables whose rows are never removed.
KEPT = ("dead_letter",)

TABLES = (
    """
    create table resolution (
        escalation_id text not null references escalation,
        digest bytea not null check (octet_length(digest) = 32),
        plan_id text not null references plan,
        verb text not null check (verb in ('RETRY', 'REVERSE', 'RESOLVE', 'FORGET')),
        leg_id text not null,
        first_actor text not null,
        first_signed bytea not null,
        second_actor text not null,
        second_signed bytea not null,
        effective_at timestamptz not null,
        constraint resolution_pkey primary key (escalation_id, digest),
        constraint resolution_two_persons check (first_actor <> second_actor)
    )
    """,
    "create index resolution_plan on resolution (plan_id, effective_at)",
    """
    create table resolution_signature (
        key_id text not null,
        nonce bytea not null check (octet_length(nonce) = 16),
        escalation_id text not null references escalation,
        digest bytea not null check (octet_length(digest) = 32),
        plan_id text not null references plan,
        actor_id text not null,
        signed bytea not null,
        signed_at timestamptz not null,
        constraint resolution_signature_nonce_key primary key (key_id, nonce)
    )
    """,
    "create index resolution_signature_escalation on resolution_signature (escalation_id, signed_at)",
    "alter table escalation add column resolution_digest bytea",
    """
    alter table escalation add constraint escalation_resolution foreign key (escalation_id, resolution_digest)
        references resolution (escalation_id, digest)
    """,
    "alter table escalation add constraint escalation_resolved check ((resolved_at is null) = (resolution_digest is null))",
    "create index escalation_open on escalation (plan_id) where resolved_at is null",
    "create index escalation_raised on escalation (raised_at, escalation_id)",
    "alter table plan add column validated_from integer not null default 0 check (validated_from >= 0)",
    """
    create table dead_letter (
        dead_letter_id text not null,
        plan_id text not null,
        leg_id text not null,
        command text not null check (command in ('PREPARE', 'COMMIT', 'ABORT', 'REVERSE')),
        participant text not null,
        reason text not null,
        detail text not null,
        attempts integer not null check (attempts >= 0),
        dead_at timestamptz not null,
        replayed_at timestamptz,
        replayed_by text,
        constraint dead_letter_pkey primary key (dead_letter_id),
        constraint dead_letter_leg foreign key (plan_id, leg_id) references plan_leg,
        constraint dead_letter_replayed check ((replayed_at is null) = (replayed_by is null))
    )
    """,
    "create unique index dead_letter_once on dead_letter (plan_id, leg_id, command) where replayed_at is null",
    "create index dead_letter_dead on dead_letter (dead_at, dead_letter_id)",
    "alter table leg_command drop constraint leg_command_command_check",
    "alter table leg_command add constraint leg_command_command_check check (command in ('PREPARE', 'COMMIT', 'ABORT', 'REVERSE'))",
    "alter table plan_leg drop constraint plan_leg_phase_check",
    """
    alter table plan_leg add constraint plan_leg_phase_check check (phase in (
        'PREPARING', 'PREPARED', 'REFUSED', 'COMMITTING', 'COMMITTED', 'ABORTING', 'RELEASED', 'REVERSING', 'REVERSED'))
    """,
)

RULES = (
    # An escalation is closed by two operators, and by nothing else.
    """
    create or replace function escalation_kept() returns trigger language plpgsql as $$
    begin
        if old.resolved_at is not null or (new.escalation_id, new.plan_id, new.ordinal, new.reason, new.leg_id, new.detail, new.raised_at)
            is distinct from (old.escalation_id, old.plan_id, old.ordinal, old.reason, old.leg_id, old.detail, old.raised_at) then
            raise exception 'an escalation is resolved once and otherwise never changes'
                using errcode = 'integrity_constraint_violation', constraint = 'escalation_kept';
        end if;
        if new.resolved_at is not null and not exists (
            select from resolution
            where escalation_id = new.escalation_id and digest = new.resolution_digest and verb = 'FORGET'
        ) then
            raise exception 'an escalation is closed by two operators who say that its matter is over'
                using errcode = 'integrity_constraint_violation', constraint = 'escalation_kept';
        end if;
        return new;
    end $$
    """,
    # What took effect was signed by both, each with a nonce that counts once.
    """
    create function resolution_signed() returns trigger language plpgsql as $$
    begin
        if (select count(distinct actor_id) from resolution_signature
            where escalation_id = new.escalation_id and digest = new.digest and actor_id in (new.first_actor, new.second_actor)) <> 2 then
            raise exception 'a resolution takes effect by two operators'' signatures'
                using errcode = 'integrity_constraint_violation', constraint = 'resolution_signed';
        end if;
        return new;
    end $$
    """,
    "create trigger resolution_signed before insert on resolution for each row execute function resolution_signed()",
    """
    create function dead_letter_kept() returns trigger language plpgsql as $$
    begin
        if old.replayed_at is not null
            or (new.dead_letter_id, new.plan_id, new.leg_id, new.command, new.participant, new.reason, new.detail, new.attempts, new.dead_at)
            is distinct from
            (old.dead_letter_id, old.plan_id, old.leg_id, old.command, old.participant, old.reason, old.detail, old.attempts, old.dead_at)
        then
            raise exception 'a dead letter is sent again once and otherwise never changes'
                using errcode = 'integrity_constraint_violation', constraint = 'dead_letter_kept';
        end if;
        return new;
    end $$
    """,
    "create trigger dead_letter_kept before update on dead_letter for each row execute function dead_letter_kept()",
)


def _kept(table: str, *, changes: bool) -> tuple[str, ...]:
    """Rows stay, and unless `changes` stay as they are, for replication sessions too."""
    events = "delete" if changes else "update or delete"
    return (
        f"create trigger {table}_stays before {events} on {table} for each row execute function row_stays()",
        f"create trigger {table}_never_truncated before truncate on {table} for each statement execute function row_stays()",
        f"alter table {table} enable always trigger {table}_stays",
        f"alter table {table} enable always trigger {table}_never_truncated",
    )


def upgrade() -> None:
    """Make the tables, and grant the service's role what it needs of them."""
    role = context.config.attributes["role"]
    for statement in (*TABLES, *RULES):
        op.execute(statement)
    for table in APPEND_ONLY:
        for statement in _kept(table, changes=False):
            op.execute(statement)
        op.execute(f"grant select, insert on {table} to {role}")
    for table in KEPT:
        for statement in _kept(table, changes=True):
            op.execute(statement)
        op.execute(f"grant select, insert, update on {table} to {role}")
