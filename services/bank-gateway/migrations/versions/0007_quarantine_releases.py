"""What is in the quarantine can be released by a person, to be read again; who, when, why and what came of it is kept."""

from __future__ import annotations

from alembic import context, op

revision = "0007"
down_revision = "0005"

STATEMENTS = (
    # WAITING: a person wants it read again. READ: it was judged like a delivery. REFUSED: it breaks a rule still; it may be released once more.
    """
    create table bank_quarantine_release (
        id bigint generated always as identity,
        quarantine_id bigint not null,
        released_by text not null constraint bank_quarantine_release_by check (released_by <> ''),
        reason text not null constraint bank_quarantine_release_reason check (reason <> ''),
        released_at timestamptz not null default clock_timestamp(),
        state text not null default 'WAITING' constraint bank_quarantine_release_state check (state in ('WAITING', 'READ', 'REFUSED')),
        finding text,
        ended_at timestamptz,
        constraint bank_quarantine_release_pkey primary key (id),
        constraint bank_quarantine_release_ended check ((state = 'WAITING') = (ended_at is null)),
        constraint bank_quarantine_release_finding check ((state = 'REFUSED') = (finding is not null) and finding <> '')
    )
    """,
    # A message waits once, and is read once.
    "create unique index bank_quarantine_release_open on bank_quarantine_release (quarantine_id) where finding is null",
    """
    create function bank_quarantine_release_ends() returns trigger language plpgsql as $$
    begin
        if tg_op <> 'UPDATE' then
            raise exception 'a release is kept' using errcode = 'integrity_constraint_violation';
        end if;
        if old.state <> 'WAITING' or new.state = 'WAITING'
            or (new.id, new.quarantine_id, new.released_by, new.reason, new.released_at)
            is distinct from (old.id, old.quarantine_id, old.released_by, old.reason, old.released_at)
        then
            raise exception 'a release ends once, and nothing else of it changes' using errcode = 'integrity_constraint_violation';
        end if;
        return new;
    end $$
    """,
    """
    create trigger bank_quarantine_release_ends before update or delete on bank_quarantine_release
        for each row execute function bank_quarantine_release_ends()
    """,
    """
    create trigger bank_quarantine_release_stays before truncate on bank_quarantine_release
        for each statement execute function bank_record_stays()
    """,
)


def upgrade() -> None:
    """Make the table, and grant the service's role what it needs."""
    role = context.config.attributes["role"]
    for statement in (*STATEMENTS, f"grant select, insert, update (state, finding, ended_at) on bank_quarantine_release to {role}"):
        op.execute(statement)
