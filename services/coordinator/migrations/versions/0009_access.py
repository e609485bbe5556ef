"""Access to plans: whose a plan is, in an order of each party's own, and whose a request's answer is.

A plan that a replica of before accepts after this is found by its parties by its id, since its header says whose it is, but not in their lists.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from lockstep.type.v1 import plan_pb2

revision = "0009"
down_revision = "0008"

STATEMENTS = (
    # Nobody wrote down who brought the plans that are there, nor who sent the requests.
    "alter table plan add column created_by text not null default ''",
    "create index plan_created_by on plan (created_by, seq) where created_by <> ''",
    "alter table request add column client text not null default ''",
    """
    create table plan_party (
        party_id text not null,
        seq bigint not null,
        plan_id text not null references plan,
        constraint plan_party_pkey primary key (party_id, seq)
    )
    """,
    # Whose a plan is never changes; for replication sessions neither.
    "create trigger plan_party_stays before update or delete on plan_party for each row execute function row_stays()",
    "create trigger plan_party_never_truncated before truncate on plan_party for each statement execute function row_stays()",
    "alter table plan_party enable always trigger plan_party_stays",
    "alter table plan_party enable always trigger plan_party_never_truncated",
    """
    create function plan_creator_kept() returns trigger language plpgsql as $$
    begin
        raise exception 'who brought a plan never changes (plan %)', new.plan_id
            using errcode = 'integrity_constraint_violation', constraint = 'plan_creator_kept';
    end $$
    """,
    """
    create trigger plan_creator_kept before update on plan for each row when (new.created_by <> old.created_by)
        execute function plan_creator_kept()
    """,
    """
    create function request_client_kept() returns trigger language plpgsql as $$
    begin
        raise exception 'whose a request is never changes'
            using errcode = 'integrity_constraint_violation', constraint = 'request_client_kept';
    end $$
    """,
    """
    create trigger request_client_kept before update on request for each row when (new.client <> old.client)
        execute function request_client_kept()
    """,
)

PLANS_AT_ONCE = 1_000
READ = sa.text("select seq, plan_id, header from plan where seq > :after order by seq limit :most")
INSERT = sa.text("insert into plan_party (party_id, seq, plan_id) values (:party_id, :seq, :plan_id)")


def upgrade() -> None:
    """Make the table and the columns, and list the plans that are there for their parties."""
    for statement in STATEMENTS:
        op.execute(statement)
    op.execute(f"grant select, insert on plan_party to {context.config.attributes['role']}")
    connection, after = op.get_bind(), 0
    while page := connection.execute(READ, {"after": after, "most": PLANS_AT_ONCE}).all():
        connection.execute(
            INSERT,
            [
                {"party_id": party.party_id, "seq": seq, "plan_id": plan_id}
                for seq, plan_id, header in page
                for party in plan_pb2.PlanHeader.FromString(header).parties
            ],
        )
        after = page[-1][0]
