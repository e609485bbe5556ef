"""Plans, what people and participants said of them, and what is still to be sent."""

from __future__ import annotations

from alembic import context, op

from lockstep_kit import leases

revision = "0001"
down_revision = None

#: Every step between (state, decision) that the database lets a plan take; "" is no decision. The protocol's table, as of this migration.
V1_ARCS = (
    ("DRAFT", "", "INITIATED", ""),
    ("DRAFT", "", "ABORTED", "ABORT"),
    ("INITIATED", "", "PRECONDITIONS_PENDING", ""),
    ("INITIATED", "", "ABORTED", "ABORT"),
    ("PRECONDITIONS_PENDING", "", "READY_FOR_PREPARE", ""),
    ("PRECONDITIONS_PENDING", "", "ABORTED", "ABORT"),
    ("READY_FOR_PREPARE", "", "PREPARED", ""),
    ("READY_FOR_PREPARE", "", "ABORTED", "ABORT"),
    ("PREPARED", "", "EXECUTING", "COMMIT"),
    ("PREPARED", "", "EXECUTING", "DELEGATED"),
    ("PREPARED", "", "ABORTED", "ABORT"),
    ("EXECUTING", "DELEGATED", "EXECUTING", "COMMIT"),
    ("EXECUTING", "DELEGATED", "ABORTED", "ABORT"),
    ("EXECUTING", "COMMIT", "VALIDATING", "COMMIT"),
    ("EXECUTING", "COMMIT", "PARTIALLY_EXECUTED", "COMMIT"),
    ("VALIDATING", "COMMIT", "COMMITTED", "COMMIT"),
    ("VALIDATING", "COMMIT", "PARTIALLY_EXECUTED", "COMMIT"),
    ("COMMITTED", "COMMIT", "CLOSED", "COMMIT"),
    ("COMMITTED", "COMMIT", "PARTIALLY_EXECUTED", "COMMIT"),
    ("ABORTED", "ABORT", "CLOSED", "ABORT"),
    ("ABORTED", "ABORT", "PARTIALLY_EXECUTED", "ABORT"),
    ("ABORTED", "COMMIT", "CLOSED", "COMMIT"),
    ("ABORTED", "COMMIT", "PARTIALLY_EXECUTED", "COMMIT"),
    ("PARTIALLY_EXECUTED", "COMMIT", "EXECUTING", "COMMIT"),
    ("PARTIALLY_EXECUTED", "COMMIT", "UNWIND_PENDING", "COMMIT"),
    ("PARTIALLY_EXECUTED", "COMMIT", "CLOSED", "COMMIT"),
    ("PARTIALLY_EXECUTED", "ABORT", "UNWIND_PENDING", "ABORT"),
    ("PARTIALLY_EXECUTED", "ABORT", "CLOSED", "ABORT"),
    ("UNWIND_PENDING", "COMMIT", "ABORTED", "COMMIT"),
    ("UNWIND_PENDING", "COMMIT", "PARTIALLY_EXECUTED", "COMMIT"),
    ("UNWIND_PENDING", "ABORT", "ABORTED", "ABORT"),
    ("UNWIND_PENDING", "ABORT", "PARTIALLY_EXECUTED", "ABORT"),
)
_ARCS_SQL = ", ".join(f"('{left}', '{before}', '{entered}', '{after}')" for left, before, entered, after in V1_ARCS)

_STATES = """'DRAFT', 'INITIATED', 'PRECONDITIONS_PENDING', 'READY_FOR_PREPARE', 'PREPARED', 'EXECUTING', 'VALIDATING', 'COMMITTED',
    'CLOSED', 'ABORTED', 'PARTIALLY_EXECUTED', 'UNWIND_PENDING'"""

#: Tables whose rows are never changed or removed.
APPEND_ONLY = ("gate_signature", "plan_transition", "plan_event", "journal_event", "decision_key")
#: Tables whose rows are never removed.
KEPT = ("plan", "plan_leg", "request", "escalation", "lease")

TABLES = (
    f"""
    create table plan (
        plan_id text not null,
        seq bigint generated always as identity,
        digest bytea not null check (octet_length(digest) = 32),
        header bytea not null,
        state text not null check (state in ({_STATES})),
        decision text check (decision in ('COMMIT', 'ABORT', 'DELEGATED')),
        delegate text not null,
        decided_at timestamptz,
        since timestamptz not null,
        transition_no integer not null check (transition_no >= 1),
        journal_sequence bigint not null check (journal_sequence >= 1),
        cause text,
        reason text not null,
        reason_leg text not null,
        reason_detail text not null,
        outcome text check (outcome in ('COMMITTED', 'ABORTED', 'REVERSED', 'MIXED')),
        sealing boolean not null,
        unwound_by_policy boolean not null,
        version bigint not null check (version >= 1),
        epoch_generation bigint not null,
        epoch_counter bigint not null,
        due_at timestamptz,
        traceparent text,
        created_at timestamptz not null,
        updated_at timestamptz not null,
        constraint plan_pkey primary key (plan_id),
        constraint plan_seq_key unique (seq),
        constraint plan_delegated check (decision is distinct from 'DELEGATED' or delegate <> ''),
        constraint plan_decided check (decision is null or decision = 'ABORT' or decided_at is not null),
        constraint plan_closed check (state <> 'CLOSED' or (outcome is not null and sealing))
    )
    """,
    "create index plan_due on plan (due_at) where due_at is not null",
    "create index plan_state on plan (state, seq)",
    "create index plan_open on plan (plan_id) where state <> 'CLOSED'",
    """
    create table plan_leg (
        plan_id text not null references plan,
        leg_id text not null,
        position integer not null check (position >= 0),
        leg bytea not null,
        participant text not null,
        lock bytea not null check (octet_length(lock) = 32),
        payer_signature bytea,
        last_order text not null check (last_order in ('NONE', 'PREPARE', 'COMMIT', 'ABORT', 'REVERSE')),
        ordered_at timestamptz,
        phase text check (phase in ('PREPARING', 'PREPARED', 'REFUSED', 'COMMITTING', 'COMMITTED', 'ABORTING', 'RELEASED')),
        revision bigint not null check (revision >= 0),
        vote bytea,
        outcome bytea,
        trouble text not null,
        reversed boolean not null,
        operators_executed boolean,
        operators_evidence bytea,
        constraint plan_leg_pkey primary key (plan_id, leg_id),
        constraint plan_leg_position_key unique (plan_id, position),
        constraint plan_leg_answered check (phase not in ('COMMITTED', 'RELEASED') or num_nonnulls(outcome, operators_executed) > 0)
    )
    """,
    """
    create table gate_signature (
        plan_id text not null references plan,
        ordinal integer not null check (ordinal >= 1),
        gate text not null check (gate in ('MAKE', 'APPROVE', 'RELEASE', 'VALIDATE', 'CANCEL')),
        verdict text not null check (verdict in ('APPROVE', 'REJECT')),
        actor_id text not null,
        key_id text not null,
        nonce bytea not null check (octet_length(nonce) = 16),
        signed bytea not null,
        signed_at timestamptz not null,
        constraint gate_signature_pkey primary key (plan_id, ordinal),
        constraint gate_signature_nonce_key unique (key_id, nonce)
    )
    """,
    f"""
    create table plan_transition (
        plan_id text not null references plan,
        transition_no integer not null check (transition_no >= 1),
        left_state text check (left_state in ({_STATES})),
        entered_state text not null check (entered_state in ({_STATES})),
        decision text check (decision in ('COMMIT', 'ABORT', 'DELEGATED')),
        cause text not null,
        journal_sequence bigint not null check (journal_sequence >= 1),
        moved_at timestamptz not null,
        constraint plan_transition_pkey primary key (plan_id, transition_no),
        constraint plan_transition_journal_key unique (plan_id, journal_sequence)
    )
    """,
    """
    create table plan_event (
        sequence bigint not null check (sequence >= 1),
        plan_id text not null,
        event bytea not null,
        event_at timestamptz not null,
        constraint plan_event_pkey primary key (sequence)
    )
    """,
    "create index plan_event_plan on plan_event (plan_id, sequence)",
    """
    create table plan_event_counter (
        singleton boolean not null default true check (singleton),
        next_sequence bigint not null check (next_sequence >= 1),
        incarnation text not null,
        constraint plan_event_counter_pkey primary key (singleton)
    )
    """,
    "insert into plan_event_counter (next_sequence, incarnation) values (1, gen_random_uuid()::text)",
    """
    create table journal_event (
        plan_id text not null references plan,
        sequence bigint not null check (sequence >= 1),
        type text not null,
        actor text not null,
        actor_role text not null,
        event_time timestamptz not null,
        payload bytea not null,
        traceparent text,
        constraint journal_event_pkey primary key (plan_id, sequence)
    )
    """,
    """
    create table journal_progress (
        plan_id text not null references plan,
        recorded bigint not null,
        appended bigint not null check (appended >= 0),
        frozen text not null,
        constraint journal_progress_pkey primary key (plan_id)
    )
    """,
    "create index journal_progress_behind on journal_progress (plan_id) where appended < recorded and frozen = ''",
    """
    create table leg_command (
        plan_id text not null,
        leg_id text not null,
        command text not null check (command in ('PREPARE', 'COMMIT', 'ABORT')),
        participant text not null,
        behind_journal boolean not null,
        not_after timestamptz,
        closing bytea,
        authority bytea,
        traceparent text,
        due_at timestamptz not null,
        attempts integer not null check (attempts >= 0),
        rejections integer not null check (rejections >= 0),
        last_rejection text not null,
        answered boolean not null,
        constraint leg_command_pkey primary key (plan_id, leg_id, command),
        constraint leg_command_leg foreign key (plan_id, leg_id) references plan_leg,
        constraint leg_command_authorised check (command <> 'ABORT' or authority is not null)
    )
    """,
    "create index leg_command_due on leg_command (participant, due_at) where not answered",
    """
    create table request (
        request_id text not null,
        method text not null,
        digest bytea not null check (octet_length(digest) = 32),
        response bytea,
        asked_at timestamptz not null,
        constraint request_pkey primary key (request_id)
    )
    """,
    """
    create table escalation (
        escalation_id text not null,
        plan_id text not null references plan,
        ordinal integer not null check (ordinal >= 1),
        reason text not null,
        leg_id text not null,
        detail text not null,
        raised_at timestamptz not null,
        resolved_at timestamptz,
        constraint escalation_pkey primary key (escalation_id),
        constraint escalation_ordinal_key unique (plan_id, ordinal)
    )
    """,
    """
    create table decision_key (
        plan_id text not null references plan,
        service_key_id text not null,
        service_sealed bytea not null,
        recovery_key_id text not null,
        recovery_sealed bytea not null,
        constraint decision_key_pkey primary key (plan_id)
    )
    """,
    """
    create table participant_cursor (
        participant text not null,
        incarnation text not null,
        sequence bigint not null check (sequence >= 0),
        constraint participant_cursor_pkey primary key (participant)
    )
    """,
    """
    create table leg_news (
        plan_id text not null,
        leg_id text not null,
        participant text not null,
        revision bigint not null,
        report bytea not null,
        constraint leg_news_pkey primary key (plan_id, leg_id)
    )
    """,
)

RULES = (
    """
    create function plan_kept() returns trigger language plpgsql as $$
    declare
        broken text;
    begin
        if (new.plan_id, new.seq, new.digest, new.header, new.created_at)
            is distinct from (old.plan_id, old.seq, old.digest, old.header, old.created_at) then
            broken := 'a plan is immutable';
        elsif new.version <= old.version then
            broken := 'a version grows with every change';
        elsif (new.epoch_generation, new.epoch_counter) < (old.epoch_generation, old.epoch_counter) then
            broken := 'a replica that lost its lease changes nothing';
        elsif new.decision is distinct from old.decision and not (
            old.decision is null or (old.decision = 'DELEGATED' and new.decision in ('COMMIT', 'ABORT'))) then
            broken := 'a decision is written once';
        elsif old.decided_at is not null and (new.decided_at, new.delegate) is distinct from (old.decided_at, old.delegate) then
            broken := 'a decision is written once';
        elsif old.state = 'CLOSED' and (new.state, new.outcome, new.transition_no, new.journal_sequence)
            is distinct from (old.state, old.outcome, old.transition_no, old.journal_sequence) then
            broken := 'CLOSED is the end';
        elsif old.sealing and not new.sealing then
            broken := 'a sealed chain stays sealed';
        end if;
        if broken is not null then
            raise exception '% (plan %)', broken, new.plan_id
                using errcode = 'integrity_constraint_violation', constraint = 'plan_kept';
        end if;
        return new;
    end $$
    """,
    "create trigger plan_kept before update on plan for each row execute function plan_kept()",
    # The plan stands where its last transition led; asked at the commit, when both are there.
    """
    create function plan_moved() returns trigger language plpgsql as $$
    begin
        if not exists (
            select from plan_transition
            where plan_id = new.plan_id and transition_no = new.transition_no and entered_state = new.state
              and decision is not distinct from new.decision
        ) then
            raise exception 'a plan changes its state only by a transition (plan %)', new.plan_id
                using errcode = 'integrity_constraint_violation', constraint = 'plan_moved';
        end if;
        return null;
    end $$
    """,
    """
    create constraint trigger plan_moved after insert or update of state, decision, transition_no on plan
        deferrable initially deferred for each row execute function plan_moved()
    """,
    f"""
    create function plan_transition_legal() returns trigger language plpgsql as $$
    declare
        before plan_transition;
    begin
        if new.transition_no = 1 then
            if new.left_state is not null or new.entered_state <> 'DRAFT' or new.decision is not null then
                raise exception 'a plan begins as DRAFT (plan %)', new.plan_id
                    using errcode = 'integrity_constraint_violation', constraint = 'plan_transition_legal';
            end if;
            return new;
        end if;
        select * into before from plan_transition where plan_id = new.plan_id and transition_no = new.transition_no - 1;
        if before.entered_state is distinct from new.left_state
            or (new.left_state, coalesce(before.decision, ''), new.entered_state, coalesce(new.decision, '')) not in ({_ARCS_SQL}) then
            raise exception 'a plan does not go from %/% to %/% (plan %)',
                new.left_state, before.decision, new.entered_state, new.decision, new.plan_id
                using errcode = 'integrity_constraint_violation', constraint = 'plan_transition_legal';
        end if;
        return new;
    end $$
    """,
    """
    create trigger plan_transition_legal before insert on plan_transition
        for each row execute function plan_transition_legal()
    """,
    """
    create function plan_leg_kept() returns trigger language plpgsql as $$
    declare
        broken text;
    begin
        if (new.plan_id, new.leg_id, new.position, new.leg, new.participant, new.lock)
            is distinct from (old.plan_id, old.leg_id, old.position, old.leg, old.participant, old.lock) then
            broken := 'a leg is immutable';
        elsif new.revision < old.revision then
            broken := 'a revision never goes down';
        elsif old.vote is not null and new.vote is distinct from old.vote then
            broken := 'a vote never changes';
        elsif old.payer_signature is not null and new.payer_signature is distinct from old.payer_signature then
            broken := 'a payer signs once';
        end if;
        if broken is not null then
            raise exception '% (plan %, leg %)', broken, new.plan_id, new.leg_id
                using errcode = 'integrity_constraint_violation', constraint = 'plan_leg_kept';
        end if;
        return new;
    end $$
    """,
    "create trigger plan_leg_kept before update on plan_leg for each row execute function plan_leg_kept()",
    """
    create function request_answered_once() returns trigger language plpgsql as $$
    begin
        if old.response is not null or (new.request_id, new.method, new.digest) is distinct from (old.request_id, old.method, old.digest) then
            raise exception 'a request has one answer for ever'
                using errcode = 'integrity_constraint_violation', constraint = 'request_answered_once';
        end if;
        return new;
    end $$
    """,
    "create trigger request_answered_once before update on request for each row execute function request_answered_once()",
    """
    create function escalation_kept() returns trigger language plpgsql as $$
    begin
        if old.resolved_at is not null or (new.escalation_id, new.plan_id, new.ordinal, new.reason, new.leg_id, new.detail, new.raised_at)
            is distinct from (old.escalation_id, old.plan_id, old.ordinal, old.reason, old.leg_id, old.detail, old.raised_at) then
            raise exception 'an escalation is resolved once and otherwise never changes'
                using errcode = 'integrity_constraint_violation', constraint = 'escalation_kept';
        end if;
        return new;
    end $$
    """,
    "create trigger escalation_kept before update on escalation for each row execute function escalation_kept()",
    """
    create function journal_progress_grows() returns trigger language plpgsql as $$
    begin
        if new.plan_id <> old.plan_id or new.recorded < old.recorded or new.appended < old.appended or (old.frozen <> '' and new.frozen = '') then
            raise exception 'what was appended stays appended, and a frozen plan stays frozen'
                using errcode = 'integrity_constraint_violation', constraint = 'journal_progress_grows';
        end if;
        return new;
    end $$
    """,
    """
    create trigger journal_progress_grows before update on journal_progress
        for each row execute function journal_progress_grows()
    """,
    """
    create function row_stays() returns trigger language plpgsql as $$
    begin
        raise exception 'rows of % are kept as they are', tg_table_name
            using errcode = 'integrity_constraint_violation', constraint = 'row_stays';
    end $$
    """,
)


def _kept(table: str, *, changes: bool) -> tuple[str, ...]:
    """Rows stay, and unless `changes` stay as they are. ALWAYS: for replication sessions too, so that not even their setting is a way around."""
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
    for statement in (*leases.V1_UPGRADE, *TABLES, *RULES):
        op.execute(statement)
    for table in APPEND_ONLY:
        for statement in _kept(table, changes=False):
            op.execute(statement)
    for table in KEPT:
        for statement in _kept(table, changes=True):
            op.execute(statement)
    for table in APPEND_ONLY:
        op.execute(f"grant select, insert on {table} to {role}")
    for table in (*KEPT, "journal_progress", "leg_command", "participant_cursor"):
        op.execute(f"grant select, insert, update on {table} to {role}")
    op.execute(f"grant select, update on plan_event_counter to {role}")
    op.execute(f"grant select, insert, update, delete on leg_news to {role}")
