"""When the bank is asked again: one statement, for payments and for undertakings."""

from __future__ import annotations


def asked_again(table: str) -> str:
    """The statement that finds rows of a table whose legs owe an answer though the bank has everything that we sent, and notes that they are asked about.

    After twice as long each time, up to a longest wait, and counted anew in each phase. A clock that was set back makes it ask at once rather than wait. A row
    that somebody is working on is left to the next time, so that nobody waits for anybody in a circle. Its arguments are the first wait, the longest, and how
    many rows at the most.
    """
    return f"""
with overdue as (
    select asked.plan_id, asked.leg_id, leg.phase, leg.phase_since, counted.inquiries
    from {table} as asked
    join participant_leg as leg using (plan_id, leg_id)
    cross join lateral (
        select case when same then asked.inquiries else 0 end as inquiries,
            case when same then coalesce(asked.inquired_at, leg.phase_since) else leg.phase_since end as since
        from (select asked.inquiries_since is not distinct from leg.phase_since as same) as phase) as counted
    where leg.phase in ('PREPARING', 'COMMITTING', 'ABORTING')
      and clock_timestamp() not between counted.since
        and counted.since + least($1::interval * power(2, least(counted.inquiries, 20)), $2::interval)
      and not exists (
        select from bank_outbox where bank_outbox.uetr = asked.uetr and bank_outbox.state in ('QUEUED', 'SENT'))
    order by counted.since limit $3
    for update of asked skip locked
)
update {table} as asked
set inquiries = overdue.inquiries + 1, inquiries_since = overdue.phase_since, inquired_at = clock_timestamp()
from overdue
where asked.plan_id = overdue.plan_id and asked.leg_id = overdue.leg_id
returning asked.plan_id, asked.leg_id, overdue.phase, asked.inquiries
"""
