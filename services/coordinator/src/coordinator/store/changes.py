"""The log of changes of all plans, as the one reader of a replica reads it, and what says who may be shown them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from coordinator.access import Belonging, Client
from coordinator.convert import stored
from coordinator.model import State
from lockstep_kit.db import Connection
from lockstep_kit.ids import PlanId
from lockstep_kit.values import dataclass

#: Changes of all plans behind a place, and where their plans stand by now.
LOG: Final = """
select plan_event.sequence, plan_event.plan_id, plan_event.event, plan.state
from plan_event join plan using (plan_id) where plan_event.sequence > $1 order by plan_event.sequence limit $2
"""

#: How many changes plans have up to a place.
BEFORE: Final = "select plan_id, count(*) as number from plan_event where plan_id = any($1) and sequence <= $2 group by plan_id"

#: Where the log stands, and which one it is.
HEAD: Final = "select next_sequence - 1 as sequence, incarnation from plan_event_counter"

#: What says whose plans are.
BELONGINGS: Final = "select plan_id, header, created_by from plan where plan_id = any($1)"

#: How many changes plans have.
NUMBERS: Final = "select plan_id, count(*) as number from plan_event where plan_id = any($1) group by plan_id"

#: Plans in states, newest first: of everybody, or of some parties and of a client that brought them; and of one party, where it is named.
STANDING: Final = """
select plan.plan_id from plan
where plan.state = any($1)
  and ($2 or plan.created_by = $3 or exists (
      select from plan_party as mine where mine.party_id = any($4::text[]) and mine.seq = plan.seq))
  and ($5 = '' or exists (select from plan_party as asked where asked.party_id = $5 and asked.seq = plan.seq))
order by plan.seq desc
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change in the log."""

    #: Its number over all plans.
    sequence: int
    #: Whose it is.
    plan_id: PlanId
    #: Its number within the plan.
    number: int
    #: The change as it was written.
    event: bytes
    #: Where the plan stood when the log was read: not before this change.
    state: State


async def log(connection: Connection, after: int, limit: int, known: Mapping[PlanId, int]) -> list[Entry]:
    """Changes of all plans behind a place, in order. `known` says of some plans how many changes they have up to there; of others it is asked."""
    rows = await connection.fetch(LOG, after, limit)
    unknown = {row["plan_id"] for row in rows if row["plan_id"] not in known}
    # What lies up to there was committed before anything behind it: it is the same for both statements.
    counted = await connection.fetch(BEFORE, list(unknown), after) if unknown else ()
    numbers = {plan_id: known[plan_id] for row in rows if (plan_id := PlanId(row["plan_id"])) in known}
    numbers |= {PlanId(row["plan_id"]): row["number"] for row in counted}
    found = []
    for row in rows:
        plan_id = PlanId(row["plan_id"])
        numbers[plan_id] = numbers.get(plan_id, 0) + 1
        found.append(Entry(row["sequence"], plan_id, numbers[plan_id], row["event"], State(row["state"])))
    return found


async def head(connection: Connection) -> tuple[int, str]:
    """Number of the last change over all plans, and the incarnation of the log."""
    row = await connection.fetchrow(HEAD)
    if row is None:
        raise AssertionError("the counter has one row")
    return row["sequence"], row["incarnation"]


async def belongings(connection: Connection, ids: Iterable[PlanId]) -> dict[PlanId, Belonging]:
    """Whose plans are; those that nobody knows are left out."""
    rows = await connection.fetch(BELONGINGS, sorted(ids))
    return {
        PlanId(row["plan_id"]): Belonging(
            frozenset(each.party_id for each in stored.header_of(row["header"]).parties), row["created_by"]
        )
        for row in rows
    }


async def numbers(connection: Connection, ids: Sequence[PlanId]) -> dict[PlanId, int]:
    """How many changes plans have."""
    return {PlanId(row["plan_id"]): row["number"] for row in await connection.fetch(NUMBERS, ids)}


async def standing(connection: Connection, client: Client, states: Iterable[State], party: str) -> list[PlanId]:
    """The plans in states that a client may see, newest first; of one party, where it is named."""
    names, parties = sorted(each.value for each in states), sorted(client.standing.parties)
    rows = await connection.fetch(STANDING, names, client.standing.sees_all, client.client_id, parties, party)
    return [PlanId(row["plan_id"]) for row in rows]
