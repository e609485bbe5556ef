"""Every transition has its entry in the journal and every entry that tells of one has its transition, soon after it was made."""

from __future__ import annotations

import asyncio
import json
import statistics
from datetime import datetime, timedelta

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep_client.readers import JournalClient
from lockstep_kit.statements import Gate
from lockstep_sandbox.stack import CLIENT, Sandbox
from lockstep_testkit.crew import Crew, draw_address

#: How soon, as a rule; and how late at the very latest. On a machine that has other things to do everything takes longer, and so may this.
RULE, LATEST = timedelta(seconds=2), timedelta(seconds=20)
#: What a plan takes, beside which the journal is soon.
PLAN_SHARE = 4


async def cancelled(crew: Crew) -> settlement.Plan:
    """A plan that is given up once it is prepared."""
    plan = await crew.started(crew.payments(payee=draw_address()))
    waiting = await crew.awaiting(plan.header.plan_id, "release")
    await crew.client.cancel_plan(plan.header.plan_id, crew.signature(waiting, Gate.CANCEL.name.lower(), person="maker"))
    return await crew.driven(plan.header.plan_id)


async def test_entries_follow_transitions(sandbox: Sandbox, crew: Crew) -> None:
    """One entry for each transition, one transition for each such entry, in both directions by number and states; within two seconds as a rule."""
    plans = await asyncio.gather(crew.settled(crew.payments(payee=draw_address())), cancelled(crew))
    ids = [plan.header.plan_id for plan in plans]
    async with crew.database("coordinator") as database:
        rows = await database.fetch("select * from plan_transition where plan_id = any($1)", ids)
    async with crew.database("event-journal") as database:
        times = await database.fetch("select plan_id, sequence, recorded_at from journal_entry where plan_id = any($1)", ids)
    async with JournalClient(crew.configuration.journal, sandbox.tls(CLIENT)) as journal:
        entries = [each for plan_id in ids async for each in journal.list_entries(plan_id)]
    made = {(row["plan_id"], row["journal_sequence"]): row for row in rows}
    assert len(made) == len(rows), "an entry records one transition"
    told = {(entry.plan_id, entry.sequence): json.loads(entry.payload).get("transition") for entry in entries}
    assert {place: (row["transition_no"], row["left_state"] or "", row["entered_state"]) for place, row in made.items()} == {
        place: (each["transition_no"], each["from"], each["to"]) for place, each in told.items() if each is not None
    }
    recorded: dict[tuple[str, int], datetime] = {(row["plan_id"], row["sequence"]): row["recorded_at"] for row in times}
    # The seal is written first, by the journal itself: the coordinator hears of it.
    lags = [recorded[place] - row["moved_at"] for place, row in made.items() if row["entered_state"] != "CLOSED"]
    taken = max(row["moved_at"] for row in rows) - min(row["moved_at"] for row in rows)
    assert max(lags) < max(LATEST, taken)
    assert statistics.median(lags) < max(RULE, taken / PLAN_SHARE)
