"""What a transaction does to its plans is written by one call: what it takes is not parted by ways to the database and back.

The function runs as the owner, so that whoever may call it need not have the rights on what it writes. Its statements are planned once for all values, for
few rows of large tables, whatever the tables held when that was done.
"""

from __future__ import annotations

from alembic import context, op

revision = "0014"
down_revision = "0013"

#: What is given of each part: a list for each column. A part that is left out is null.
PARTS = {
    "heard": (("participant", "text"), ("incarnation", "text"), ("sequence", "bigint")),
    "saved": (
        *(("plan_id", "text"), ("version", "bigint"), ("state", "text"), ("decision", "text"), ("delegate", "text")),
        *(("decided_at", "timestamptz"), ("since", "timestamptz"), ("transition_no", "integer"), ("journal_sequence", "bigint")),
        *(("cause", "text"), ("reason", "text"), ("reason_leg", "text"), ("reason_detail", "text"), ("outcome", "text")),
        *(("sealing", "boolean"), ("unwound_by_policy", "boolean"), ("generation", "bigint"), ("counter", "bigint")),
        *(("due_at", "timestamptz"), ("validated_from", "integer"), ("auditing_since", "timestamptz"), ("audit", "bytea")),
        ("unwind_refusal", "bytea"),
    ),
    "stepped": (
        *(("plan_id", "text"), ("leg_id", "text"), ("last_order", "text"), ("ordered_at", "timestamptz"), ("phase", "text")),
        *(("revision", "bigint"), ("vote", "bytea"), ("outcome", "bytea"), ("trouble", "text"), ("reversed", "boolean")),
        *(("operators_executed", "boolean"), ("operators_evidence", "bytea"), ("reversal", "bytea")),
    ),
    "signed": (
        *(("plan_id", "text"), ("ordinal", "integer"), ("gate", "text"), ("verdict", "text"), ("actor_id", "text")),
        *(("key_id", "text"), ("nonce", "bytea"), ("signed", "bytea"), ("signed_at", "timestamptz")),
    ),
    "moved": (
        *(("plan_id", "text"), ("transition_no", "integer"), ("left_state", "text"), ("entered_state", "text")),
        *(("decision", "text"), ("cause", "text"), ("journal_sequence", "bigint")),
    ),
    "recorded": (
        *(("plan_id", "text"), ("sequence", "bigint"), ("type", "text"), ("actor", "text"), ("actor_role", "text")),
        *(("payload", "bytea"), ("traceparent", "text")),
    ),
    "ended": (("plan_id", "text"), ("leg_id", "text"), ("kept", "text")),
    "given": (
        *(("plan_id", "text"), ("leg_id", "text"), ("command", "text"), ("participant", "text"), ("behind_journal", "boolean")),
        *(("not_after", "timestamptz"), ("closing", "bytea"), ("authority", "bytea"), ("traceparent", "text")),
        *(("attempts", "integer"), ("pause", "interval")),
    ),
    "told": (("plan_id", "text"), ("event", "bytea")),
}

_TYPES = ", ".join(["timestamptz", *(f"{kind}[]" for columns in PARTS.values() for _, kind in columns)])
_PARAMETERS = ", ".join(
    ["moment timestamptz", *(f"{part}_{name} {kind}[]" for part, columns in PARTS.items() for name, kind in columns)]
)
#: A part's lists as rows.
_ROWS = {
    part: f"unnest({', '.join(f'{part}_{name}' for name, _ in columns)}) as new ({', '.join(name for name, _ in columns)})"
    for part, columns in PARTS.items()
}

FUNCTION = f"""
create function plan_write({_PARAMETERS}) returns boolean
language plpgsql security definer
set search_path = pg_catalog, public, pg_temp set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
#variable_conflict use_column
declare
    written bigint;
    first bigint;
begin
    if heard_participant is not null then
        insert into participant_cursor (participant, incarnation, sequence)
        select new.participant, new.incarnation, new.sequence from {_ROWS["heard"]} order by new.participant
        on conflict (participant) do update set incarnation = excluded.incarnation, sequence = excluded.sequence;
    end if;
    if saved_plan_id is not null then
        update plan set state = new.state, decision = new.decision, delegate = new.delegate, decided_at = new.decided_at, since = new.since,
            transition_no = new.transition_no, journal_sequence = new.journal_sequence, cause = new.cause, reason = new.reason,
            reason_leg = new.reason_leg, reason_detail = new.reason_detail, outcome = new.outcome, sealing = new.sealing,
            unwound_by_policy = new.unwound_by_policy, validated_from = new.validated_from, auditing_since = new.auditing_since,
            audit = new.audit, unwind_refusal = new.unwind_refusal, version = plan.version + 1, epoch_generation = new.generation,
            epoch_counter = new.counter, due_at = new.due_at, updated_at = moment
        from {_ROWS["saved"]}
        where plan.plan_id = new.plan_id and plan.version = new.version;
        get diagnostics written = row_count;
        if written <> cardinality(saved_plan_id) then
            return false;
        end if;
    end if;
    if stepped_plan_id is not null then
        update plan_leg set last_order = new.last_order, ordered_at = new.ordered_at, phase = new.phase, revision = new.revision,
            vote = new.vote, outcome = new.outcome, trouble = new.trouble, reversed = new.reversed, reversal = new.reversal,
            operators_executed = new.operators_executed, operators_evidence = new.operators_evidence
        from {_ROWS["stepped"]}
        where plan_leg.plan_id = new.plan_id and plan_leg.leg_id = new.leg_id;
    end if;
    if signed_plan_id is not null then
        insert into gate_signature (plan_id, ordinal, gate, verdict, actor_id, key_id, nonce, signed, signed_at)
        select new.* from {_ROWS["signed"]};
    end if;
    if moved_plan_id is not null then
        insert into plan_transition (plan_id, transition_no, left_state, entered_state, decision, cause, journal_sequence, moved_at)
        select new.*, moment from {_ROWS["moved"]} order by new.plan_id, new.transition_no;
    end if;
    if recorded_plan_id is not null then
        insert into journal_progress (plan_id, recorded, appended, frozen)
        select new.plan_id, max(new.sequence), 0, '' from {_ROWS["recorded"]} group by new.plan_id order by new.plan_id
        on conflict (plan_id) do update set recorded = excluded.recorded;
        insert into journal_event (plan_id, sequence, type, actor, actor_role, payload, traceparent, event_time)
        select new.*, moment from {_ROWS["recorded"]};
    end if;
    -- Like everything that changes several commands, it locks them in the order of their keys.
    if ended_plan_id is not null then
        update leg_command set answered = true from (
            select command.plan_id, command.leg_id, command.command
            from (select * from {_ROWS["ended"]} order by new.plan_id, new.leg_id offset 0) as new
            cross join lateral (
                select plan_id, leg_id, command from leg_command
                where plan_id = new.plan_id and leg_id = new.leg_id and command <> new.kept and not answered
                order by command for update) as command) as locked
        where leg_command.plan_id = locked.plan_id and leg_command.leg_id = locked.leg_id and leg_command.command = locked.command;
    end if;
    -- A command that was given before is given anew.
    if given_plan_id is not null then
        insert into leg_command (plan_id, leg_id, command, participant, behind_journal, not_after, closing, authority, traceparent, due_at,
            given_at, attempts, rejections, last_rejection, answered)
        select new.plan_id, new.leg_id, new.command, new.participant, new.behind_journal, new.not_after, new.closing, new.authority,
            new.traceparent, moment + new.pause, moment, new.attempts, 0, '', false
        from {_ROWS["given"]} order by new.plan_id, new.leg_id, new.command
        on conflict (plan_id, leg_id, command) do update
        set not_after = excluded.not_after, closing = excluded.closing, authority = excluded.authority,
            traceparent = excluded.traceparent, due_at = excluded.due_at, given_at = excluded.given_at, attempts = excluded.attempts,
            rejections = 0, last_rejection = '', answered = false;
    end if;
    -- The counter's row is locked last in every transaction: from here on others wait for its commit.
    if told_plan_id is not null then
        update plan_event_counter set next_sequence = next_sequence + cardinality(told_plan_id)
        returning next_sequence - cardinality(told_plan_id) into first;
        insert into plan_event (sequence, plan_id, event, event_at)
        select first + new.place - 1, new.plan_id, new.event, moment
        from unnest(told_plan_id, told_event) with ordinality as new (plan_id, event, place);
        perform pg_notify('plan_event', '');
    end if;
    return true;
end $$
"""


def upgrade() -> None:
    """Make the function, for the service's role alone."""
    role = context.config.attributes["role"]
    op.execute(FUNCTION)
    op.execute(f"revoke all on function plan_write({_TYPES}) from public")
    op.execute(f"grant execute on function plan_write({_TYPES}) to {role}")
