"""What is said on chain of escalations, on its way to the notary."""

from __future__ import annotations

from alembic import context, op

revision = "0007"
down_revision = "0006"

STATEMENTS = (
    """
    create table escalation_document (
        escalation_id text not null references escalation,
        kind text not null check (kind in ('OPENED', 'RESOLVED')),
        plan_id text not null references plan,
        document bytea not null check (octet_length(document) > 0),
        written_at timestamptz not null,
        told_at timestamptz,
        refusal text not null default '',
        constraint escalation_document_pkey primary key (escalation_id, kind),
        constraint escalation_document_refused check (refusal = '' or told_at is not null)
    )
    """,
    "create index escalation_document_untold on escalation_document (written_at, escalation_id, kind) where told_at is null",
    """
    create function escalation_document_kept() returns trigger language plpgsql as $$
    begin
        if (new.escalation_id, new.kind, new.plan_id, new.document, new.written_at)
            is distinct from (old.escalation_id, old.kind, old.plan_id, old.document, old.written_at) then
            raise exception 'what was said of an escalation never changes'
                using errcode = 'integrity_constraint_violation', constraint = 'escalation_document_kept';
        end if;
        return new;
    end $$
    """,
    """
    create trigger escalation_document_kept before update on escalation_document
        for each row execute function escalation_document_kept()
    """,
    "create trigger escalation_document_stays before delete on escalation_document for each row execute function row_stays()",
    """
    create trigger escalation_document_never_truncated before truncate on escalation_document
        for each statement execute function row_stays()
    """,
    # ALWAYS: for replication sessions too.
    "alter table escalation_document enable always trigger escalation_document_kept",
    "alter table escalation_document enable always trigger escalation_document_stays",
    "alter table escalation_document enable always trigger escalation_document_never_truncated",
)


def upgrade() -> None:
    """Make the table, and grant the service's role what it needs of it."""
    for statement in STATEMENTS:
        op.execute(statement)
    role = context.config.attributes["role"]
    op.execute(f"grant select, insert, update (told_at, refusal) on escalation_document to {role}")
