"""Abort audit logs, and notices with their way to webhooks."""

from __future__ import annotations

from alembic import context, op

from lockstep_kit.outbox import Outbox

revision = "0003"
down_revision = "0002"

OUTBOX = Outbox("notice_outbox")

#: Tables whose rows are never changed or removed.
APPEND_ONLY = ("audit_log", "notice")
#: Tables whose rows are never removed.
KEPT = ("notice_dead_letter",)

TABLES = (
    # Content-addressed by the database itself: a row whose bytes are not those of its digest cannot be written.
    """
    create table audit_log (
        plan_id text not null references plan,
        ordinal integer not null check (ordinal >= 1),
        digest bytea not null,
        octets bytea not null,
        written_at timestamptz not null,
        constraint audit_log_pkey primary key (plan_id, ordinal),
        constraint audit_log_digest_key unique (plan_id, digest),
        constraint audit_log_addressed check (digest = sha256(octets))
    )
    """,
    "alter table plan add column auditing_since timestamptz",
    "alter table plan add column audit bytea",
    "alter table plan add constraint plan_audit foreign key (plan_id, audit) references audit_log (plan_id, digest)",
    "alter table plan add constraint plan_audited_once check (audit is null or auditing_since is null)",
    "create index plan_auditing on plan (auditing_since) where auditing_since is not null",
    "alter table leg_command add column given_at timestamptz not null default clock_timestamp()",
    """
    create table notice (
        notice_id text not null,
        plan_id text not null references plan,
        kind text not null check (kind in (
            'execution_failed', 'aborted', 'recovery_in_progress', 'intervention_required', 'intervention_resolved')),
        event bytea not null,
        noticed_at timestamptz not null,
        constraint notice_pkey primary key (notice_id)
    )
    """,
    "create index notice_plan on notice (plan_id, noticed_at)",
    """
    create table notice_dead_letter (
        dead_letter_id text not null,
        notice_id text not null references notice,
        webhook text not null,
        attempts integer not null check (attempts >= 0),
        detail text not null,
        dead_at timestamptz not null,
        replayed_at timestamptz,
        replayed_by text,
        constraint notice_dead_letter_pkey primary key (dead_letter_id),
        constraint notice_dead_letter_replayed check ((replayed_at is null) = (replayed_by is null))
    )
    """,
    "create unique index notice_dead_letter_once on notice_dead_letter (notice_id, webhook) where replayed_at is null",
    "create index notice_dead_letter_dead on notice_dead_letter (dead_at, dead_letter_id)",
)

RULES = (
    """
    create function notice_dead_letter_kept() returns trigger language plpgsql as $$
    begin
        if old.replayed_at is not null or (new.dead_letter_id, new.notice_id, new.webhook, new.attempts, new.detail, new.dead_at)
            is distinct from (old.dead_letter_id, old.notice_id, old.webhook, old.attempts, old.detail, old.dead_at) then
            raise exception 'a dead letter is sent again once and otherwise never changes'
                using errcode = 'integrity_constraint_violation', constraint = 'notice_dead_letter_kept';
        end if;
        return new;
    end $$
    """,
    """
    create trigger notice_dead_letter_kept before update on notice_dead_letter
        for each row execute function notice_dead_letter_kept()
    """,
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
    for statement in (*TABLES, *RULES, *OUTBOX.upgrade(), *OUTBOX.grants(role)):
        op.execute(statement)
    for table in APPEND_ONLY:
        for statement in _kept(table, changes=False):
            op.execute(statement)
        op.execute(f"grant select, insert on {table} to {role}")
    for table in KEPT:
        for statement in _kept(table, changes=True):
            op.execute(statement)
        op.execute(f"grant select, insert, update on {table} to {role}")
