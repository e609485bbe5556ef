"""Account statements, what was found by them, and the breaks that are left; a break is an open matter with figures."""

from __future__ import annotations

from alembic import context, op

revision = "0008"
down_revision = "0007"

STATEMENTS = (
    # A statement of one account and booking day; whole once all of its pages are there. A correction is a statement of its own.
    """
    create table bank_statement (
        id bigint generated always as identity,
        counterparty text not null,
        account text not null,
        booking_date date not null,
        number bigint not null check (number > 0),
        statement_id text not null,
        opening numeric,
        closing numeric,
        whole_at timestamptz,
        reconciled_at timestamptz,
        constraint bank_statement_pkey primary key (id),
        constraint bank_statement_once unique (counterparty, account, statement_id),
        constraint bank_statement_whole check (num_nulls(opening, closing, whole_at) in (0, 3)),
        constraint bank_statement_reconciled check (reconciled_at is null or whole_at is not null)
    )
    """,
    "create index bank_statement_day on bank_statement (account, booking_date)",
    "create index bank_statement_due on bank_statement (number) where whole_at is not null and reconciled_at is null",
    # Its pages, by the message that is kept.
    """
    create table bank_statement_page (
        statement bigint not null,
        page integer not null check (page > 0),
        last boolean not null,
        message_id text not null,
        message_sha256 bytea not null,
        constraint bank_statement_page_pkey primary key (statement, page),
        constraint bank_statement_page_statement foreign key (statement) references bank_statement (id)
    )
    """,
    """
    create trigger bank_statement_page_stays before update or delete or truncate on bank_statement_page
        for each statement execute function bank_record_stays()
    """,
    # One row for each account and day, of the last time that it was reconciled.
    """
    create table bank_reconciliation (
        counterparty text not null,
        account text not null,
        booking_date date not null,
        statement bigint not null,
        times integer not null default 1 check (times > 0),
        reconciled_at timestamptz not null default clock_timestamp(),
        entries bigint not null check (entries >= 0),
        matched bigint not null check (matched >= 0),
        settled bigint not null check (settled >= 0),
        others bigint not null check (others >= 0),
        breaks bigint not null check (breaks >= 0),
        constraint bank_reconciliation_pkey primary key (counterparty, account, booking_date),
        constraint bank_reconciliation_statement foreign key (statement) references bank_statement (id)
    )
    """,
    "alter table bank_matter drop constraint bank_matter_kind",
    "alter table bank_matter add constraint bank_matter_kind check (kind in ('UNKNOWN_PAYMENT', 'BOOKING_DIFFERS', 'BREAK'))",
    # The figures of a matter that is a break. It is open while the matter is.
    """
    create table bank_break (
        matter bigint not null,
        kind text not null,
        account text not null,
        booking_date date not null,
        subject text not null,
        asset text not null,
        minor_units numeric not null check (minor_units >= 0),
        scale smallint not null,
        resolved_by bigint,
        constraint bank_break_pkey primary key (matter),
        constraint bank_break_resolved_by foreign key (resolved_by) references bank_statement (id)
    )
    """,
    # Statements, breaks and what was found are kept as matters are.
    *(
        f"create trigger {table}_stays before delete or truncate on {table} for each statement execute function bank_record_stays()"
        for table in ("bank_statement", "bank_reconciliation", "bank_break")
    ),
    "create index bank_break_day on bank_break (account, booking_date)",
    # Tells breaks from one another among the matters of one message, or of none.
    "create sequence bank_break_place as integer minvalue 0 cycle",
    # The statement that has the payment's booking as our books have it.
    "alter table bank_payment add column stated_by bigint",
    """
    alter table bank_payment add constraint bank_payment_stated_by foreign key (stated_by) references bank_statement (id)
    """,
    "create index bank_payment_booked on bank_payment ((status ->> 'booked_on'), (status ->> 'booking_account'))",
    "create index bank_payment_credited on bank_payment ((status ->> 'booked_on'), (status ->> 'credited_account'))",
)


def upgrade() -> None:
    """Make the tables, and grant the service's role what it needs."""
    role = context.config.attributes["role"]
    for statement in (
        *STATEMENTS,
        f"grant select, insert, update (opening, closing, whole_at, reconciled_at) on bank_statement to {role}",
        f"grant select, insert on bank_statement_page to {role}",
        f"grant select, insert, update (statement, times, reconciled_at, entries, matched, settled, others, breaks) on bank_reconciliation to {role}",
        f"grant select, insert, update (resolved_by) on bank_break to {role}",
        f"grant usage on sequence bank_break_place to {role}",
        f"grant update (stated_by) on bank_payment to {role}",
    ):
        op.execute(statement)
