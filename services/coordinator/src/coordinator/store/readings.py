"""What is read from rows for metrics: each statement by an index that holds what is open and nothing else, so that it costs what is open."""

from __future__ import annotations

from typing import Final

from coordinator.model import State
from lockstep_kit.db import Connection
from lockstep_kit.ids import PlanId
from lockstep_kit.metrics.readings import Measure, Query

#: Plans that are not closed, by state.
PLANS: Final = Query(
    name="plans",
    statement="""
    select state, count(*) as plans, extract(epoch from clock_timestamp() - min(since)) as oldest
    from plan where state <> 'CLOSED' group by state
    """,
    labels=("state",),
    measures=(
        Measure("plans", "lockstep_plans_open", "Plans that are not closed, by state."),
        Measure("oldest", "lockstep_plan_oldest_age_seconds", "Age of the oldest of them in its state, in seconds."),
    ),
    known=tuple((state.value,) for state in State if state is not State.CLOSED),
)

#: Escalations that nobody closed, and whether an operator has signed anything about them yet.
ESCALATIONS: Final = Query(
    name="escalations",
    statement="""
    select reason, case when signed then 'yes' else 'no' end as acknowledged, count(*) as escalations,
        extract(epoch from clock_timestamp() - min(raised_at)) as oldest
    from (select reason, raised_at, exists (
            select from resolution_signature where resolution_signature.escalation_id = escalation.escalation_id) as signed
        from escalation where resolved_at is null) as open
    group by reason, signed
    """,
    labels=("reason", "acknowledged"),
    measures=(
        Measure(
            "escalations",
            "lockstep_escalations_open",
            "Escalations that nobody closed, by reason, and whether an operator has signed about them.",
        ),
        Measure("oldest", "lockstep_escalation_oldest_age_seconds", "Age of the oldest of them, in seconds."),
    ),
)

#: Commands that no participant has answered.
COMMANDS: Final = Query(
    name="commands",
    statement="""
    select participant, command, count(*) as commands, extract(epoch from clock_timestamp() - min(given_at)) as oldest
    from leg_command where not answered and due_at < 'infinity' group by participant, command
    """,
    labels=("participant", "command"),
    measures=(
        Measure("commands", "lockstep_commands_unanswered", "Commands without an answer, by participant and command."),
        Measure("oldest", "lockstep_command_oldest_age_seconds", "Age of the oldest of them, in seconds."),
    ),
)

#: What was given up and not sent again: commands by participant, notices under the webhooks' name.
DEAD_LETTERS: Final = Query(
    name="dead_letters",
    statement="""
    select participant as destination, count(*) as letters from dead_letter where replayed_at is null group by participant
    union all
    select 'webhooks', count(*) from notice_dead_letter where replayed_at is null having count(*) > 0
    """,
    labels=("destination",),
    measures=(Measure("letters", "lockstep_dead_letters", "Dead letters that nobody has had sent again, by destination."),),
    known=(("webhooks",),),
)

#: Notices that wait for their webhooks, and what the notary has not been told of escalations.
OUTBOX: Final = Query(
    name="outbox",
    statement="""
    select destination, count(*) as messages, extract(epoch from clock_timestamp() - min(created_at)) as oldest
    from notice_outbox where done_at is null group by destination
    union all
    select 'notary', count(*), extract(epoch from clock_timestamp() - min(written_at))
    from escalation_document where told_at is null having count(*) > 0
    """,
    labels=("destination",),
    measures=(
        Measure("messages", "lockstep_outbox_messages", "Messages that wait in an outbox, by destination."),
        Measure("oldest", "lockstep_outbox_oldest_age_seconds", "Age of the oldest of them, in seconds."),
    ),
    known=(("notary",),),
)

#: Events that the journal does not have yet.
JOURNAL: Final = Query(
    name="journal_lag",
    statement="""
    select coalesce(sum(progress.recorded - progress.appended), 0) as events, count(*) as plans,
        extract(epoch from clock_timestamp() - min((
            select event.event_time from journal_event as event
            where event.plan_id = progress.plan_id and event.sequence = progress.appended + 1))) as oldest
    from journal_progress as progress
    where progress.appended < progress.recorded and progress.frozen = ''
    """,
    labels=(),
    measures=(
        Measure("events", "lockstep_journal_lag_events", "Events that the journal does not have yet."),
        Measure("plans", "lockstep_journal_lag_plans", "Plans that they are about."),
        Measure("oldest", "lockstep_journal_lag_oldest_age_seconds", "Age of the oldest of them, in seconds."),
    ),
    known=((),),
)

#: Legs at participants that belong to no plan that is known here.
ORPHANS: Final = Query(
    name="orphans",
    statement="select participant, count(*) as legs from orphan_leg where settled_at is null group by participant",
    labels=("participant",),
    measures=(Measure("legs", "lockstep_orphan_legs", "Legs at participants that no plan here has, and that are not settled."),),
)

READINGS: Final = (PLANS, ESCALATIONS, COMMANDS, DEAD_LETTERS, OUTBOX, JOURNAL, ORPHANS)

#: Plans of which something may be at risk; those that only do what plans do are left out for their first seconds.
AT_RISK: Final = """
select plan_id from plan where state <> 'CLOSED' and (
    state in ('PARTIALLY_EXECUTED', 'UNWIND_PENDING')
    or (state in ('EXECUTING', 'ABORTED') and since < clock_timestamp() - make_interval(secs => $1)))
union select plan_id from escalation where resolved_at is null
order by plan_id limit $2
"""


async def at_risk(connection: Connection, ordinary_seconds: float, limit: int) -> list[PlanId]:
    """Ids of plans of which something may be at risk."""
    return [PlanId(row["plan_id"]) for row in await connection.fetch(AT_RISK, ordinary_seconds, limit)]
