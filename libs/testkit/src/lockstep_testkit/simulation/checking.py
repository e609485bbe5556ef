"""The invariants of DESIGN section 8, judged from outside: the ledgers, the participants' databases, the journal, the coordinator's rows; not its word.

I1 no plan half settled without an open ticket or a MIXED outcome, and no leg executed without the durable decision; I2 nothing is made or lost; I3 one
effect per leg; I4 whole, valid chains with one event per transition; I5 everything at rest, nothing held for a closed plan, nothing shown that is not
read; I6 distinct persons; I7 (noticed while it runs) nothing is saved under an old epoch; I8 what people were told is what happened.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, cast

import asyncpg

from event_journal.chain import verify
from event_journal.payload_store import opened
from lockstep_contracts.escrow import LegStatus, leg_key
from lockstep_kit.ids import uetr
from lockstep_kit.plan import CreditTransfer, Leg, LegKind, TokenTransfer
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import PARTICIPANTS, address_of
from lockstep_testkit.simulation import bank_checking, chain_checking, journal_log_checking, monitoring
from lockstep_testkit.simulation.bank_book import Standing
from lockstep_testkit.simulation.memory import LONG_AGO, Key, Row
from lockstep_testkit.simulation.people import Case
from lockstep_testkit.simulation.world import COORDINATOR, MONEY, TOKENS, World, registry

#: A plan with an open ticket at which nothing has changed for so long is at rest.
REST_SECONDS: Final = 45.0
_DISTINCT: Final = ("MAKE", "APPROVE", "RELEASE", "VALIDATE")


def rows(world: World, table: str, database: str = COORDINATOR) -> list[dict[str, Any]]:
    """What is committed in a table."""
    return list(world.servers[database].tables[table].values())


def gateway_tables(world: World) -> Mapping[str, Mapping[Key, Row]]:
    """What is committed at the bank-gateway."""
    return world.servers[PARTICIPANTS[LegKind.CREDIT_TRANSFER]].tables


def of_plan(world: World, table: str, plan_id: str) -> list[dict[str, Any]]:
    """What is committed in a table of the coordinator about a plan."""
    return [row for row in rows(world, table) if row["plan_id"] == plan_id]


def tickets(world: World, plan_id: str) -> list[dict[str, Any]]:
    """The open escalations of a plan."""
    return [row for row in of_plan(world, "escalation", plan_id) if row["resolved_at"] is None]


def at_rest(world: World, row: dict[str, Any]) -> bool:
    """Whether nothing more will happen to a plan without a person: it is closed, or waits with an open ticket."""
    if row["state"] == "CLOSED":
        return True
    now, still_since = world.servers[COORDINATOR].now(), _still_since(world, row)
    # What was given up for no reason that anybody signed is let go of when the deadline has passed, and not before.
    case = next(each for each in world.people.cases if each.plan.plan_id == row["plan_id"])
    # A clock that jumped says nothing of how long that is: it is so long since everything is well, too.
    still = min((now - max(still_since, case.plan.header.deadline)).total_seconds(), world.loop.time() - world.healed_at)
    return bool(tickets(world, row["plan_id"])) and still > REST_SECONDS


def _still_since(world: World, row: dict[str, Any]) -> datetime:
    """When anything last changed of a plan. What a bank that contradicted its book goes on saying is news each time, and changes nothing."""
    moment: datetime = row["updated_at"]
    if not _about_contradictions(world, row):
        return moment
    moved = [each["moved_at"] for each in of_plan(world, "plan_transition", row["plan_id"])]
    raised = [each["raised_at"] for each in tickets(world, row["plan_id"])]
    # What was noted while a clock was ahead lies in the future, and says nothing.
    return max((each for each in (*moved, *raised) if each <= world.servers[COORDINATOR].now()), default=LONG_AGO)


def _about_contradictions(world: World, row: dict[str, Any]) -> bool:
    """Whether a person was called about a leg of whose payment the bank said what its book does not show."""
    called = tickets(world, row["plan_id"])
    return any(bank_checking.contradicted(world.bank, row["plan_id"], each["leg_id"]) for each in called)


def standing(world: World, case: Case, leg: Leg) -> str:
    """Where a settling leg stands outside: EXECUTED, HELD or NOTHING."""
    if isinstance(leg.terms, TokenTransfer):
        status = world.chain.node.final.state.leg(leg_key(case.plan.header.digest, leg.leg_id))
        return {LegStatus.COMMITTED: "EXECUTED", LegStatus.PREPARED: "HELD"}.get(status, "NOTHING")
    found = world.bank.book.standing(uetr(case.plan.plan_id, leg.leg_id))
    return {Standing.BOOKED: "EXECUTED", Standing.HELD: "HELD"}.get(found, "NOTHING")


def may_rest(world: World, case: Case, row: dict[str, Any]) -> bool:
    """Whether a plan may stay open for good.

    Its validator never comes or refuses; its signers took the risk that one of several promises lapses; or the bank contradicted its own book about a
    payment of the plan, or the chain does not say what became of a leg, and a person was called about that leg; or what only the coordinator and a participant
    knew is lost, and a person was called about that.
    """
    if world.lost_twice and any(each["reason"] == "RESTORE_CONTRADICTED" for each in tickets(world, row["plan_id"])):
        return True
    if _about_contradictions(world, row) or chain_checking.handed_over(world, row["plan_id"]):
        return True
    if row["state"] == "VALIDATING":
        return case.habits.takes[Gate.VALIDATE] is None
    if row["state"] == "PARTIALLY_EXECUTED":
        several = sum(leg.kind is LegKind.CREDIT_TRANSFER for leg in case.plan.legs) > 1
        return Gate.VALIDATE in case.habits.refuses or (several and case.plan.header.policy.accept_expiry_risk)
    return False


def findings(world: World) -> list[str]:
    """Everything that does not hold; empty when all does."""
    found = [*world.findings, *world.network.internal, *world.loop.unhandled, *world.timeline.impossible]
    plans = {row["plan_id"]: row for row in rows(world, "plan")}
    for case in world.people.cases:
        row = plans.get(case.plan.plan_id)
        if row is None:
            if case.created and world.generation == 1:
                found.append(f"I8: plan {case.plan.plan_id} was accepted, and is not known")
            continue
        found += [
            *_atomic(world, case, row),
            *_ended(world, case, row),
            *_journal(world, row),
            *_persons(world, row),
            *_told(case, row),
        ]
    kept = bank_checking.kept(world.bank, gateway_tables(world), restored=world.restored)
    journal = world.servers[PARTICIPANTS[_journal_kind()]]
    log = journal_log_checking.findings(journal.tables, registry(), journal.now())
    return [
        *found,
        *_conserved(world),
        *_once(world),
        *unheard(world),
        *chain_checking.findings(world),
        *kept,
        *log,
        *monitoring.findings(world),
    ]


def _settling(case: Case) -> list[Leg]:
    return [leg for leg in case.plan.legs if leg.settling]


def _atomic(world: World, case: Case, row: dict[str, Any]) -> Iterator[str]:
    plan_id = row["plan_id"]
    stands = {leg.leg_id: standing(world, case, leg) for leg in _settling(case)}
    executed = {leg for leg, found in stands.items() if found == "EXECUTED"}
    excused = bool(tickets(world, plan_id)) or row["outcome"] == "MIXED"
    if executed and len(executed) < len(stands) and not excused:
        yield f"I1: plan {plan_id} is half settled and nobody was called: {stands} in {row['state']} {row['outcome']}"
    allowed = stands if row["decision"] == "COMMIT" else {row["delegate"]} if row["decision"] == "DELEGATED" else {}
    if not executed <= set(allowed) and not excused:
        yield f"I1: plan {plan_id} has legs executed under the decision {row['decision']}: {stands}"
    if row["state"] == "CLOSED" and row["outcome"] == "COMMITTED" and len(executed) < len(stands) and not excused:
        yield f"I1: plan {plan_id} is closed as COMMITTED, and stands {stands}"
    if row["state"] == "CLOSED" and row["outcome"] in ("ABORTED", "REVERSED") and executed and not excused:
        yield f"I1: plan {plan_id} is closed as {row['outcome']}, and stands {stands}"
    decisions = [each["decision"] for each in of_plan(world, "plan_transition", plan_id) if each["decision"]]
    steps = {(one, other) for one, other in pairwise(decisions) if one != other}
    if not steps <= {("DELEGATED", "COMMIT"), ("DELEGATED", "ABORT")}:
        yield f"I1: plan {plan_id} was decided more than once: {decisions}"


def _ended(world: World, case: Case, row: dict[str, Any]) -> Iterator[str]:
    if not at_rest(world, row):
        yield f"I5: plan {row['plan_id']} is still {row['state']} {row['decision']}, and nobody was called"
    elif row["state"] != "CLOSED" and not may_rest(world, case, row):
        reasons = [(each["reason"], each["leg_id"]) for each in tickets(world, row["plan_id"])]
        yield f"I5: plan {row['plan_id']} rests in {row['state']} {row['decision']} for no reason of the people's: {reasons}"
    if row["state"] == "CLOSED" and row["outcome"] != "MIXED":
        held = [
            leg.leg_id
            for leg in _settling(case)
            if standing(world, case, leg) == "HELD"
            and not bank_checking.excused(world.bank, gateway_tables(world), row["plan_id"], leg.leg_id)
        ]
        if held:
            yield f"I5: plan {row['plan_id']} is closed, and {held} are still held"


def _journal(world: World, row: dict[str, Any]) -> Iterator[str]:
    plan_id, database = row["plan_id"], PARTICIPANTS[_journal_kind()]
    stored = sorted(
        (each for each in rows(world, "journal_entry", database) if each["plan_id"] == plan_id), key=lambda each: each["sequence"]
    )
    keys = [{**each, "erased": False} for each in rows(world, "journal_payload_key", database) if each["plan_id"] == plan_id]
    entries = opened(cast("list[asyncpg.Record]", stored), cast("list[asyncpg.Record]", keys), world.vault)
    if [each.event.sequence for each in entries] != list(range(1, len(entries) + 1)):
        yield f"I4: plan {plan_id} has gaps in its chain"
    if entries:
        verified = verify(entries, registry())
        if not verified.valid:
            yield f"I4: plan {plan_id} has an invalid chain: {verified.findings[0].message}"
    recorded = [number for each in entries if (number := _transition_of(each.event.payload)) is not None]
    moved = sorted(each["transition_no"] for each in of_plan(world, "plan_transition", plan_id))
    frozen = any(each["frozen"] for each in of_plan(world, "journal_progress", plan_id))
    if not frozen and row["state"] == "CLOSED" and recorded != moved:
        yield f"I4: plan {plan_id} moved {moved}, its chain says {recorded}"
    if len(set(recorded)) < len(recorded):
        yield f"I4: plan {plan_id} has a transition that is recorded twice: {recorded}"


def _journal_kind() -> Any:
    return next(kind for kind, name in PARTICIPANTS.items() if name == "event-journal")


def _transition_of(payload: bytes) -> int | None:
    told = json.loads(payload).get("transition")
    return None if told is None else int(told["transition_no"])


def _persons(world: World, row: dict[str, Any]) -> Iterator[str]:
    signed = [
        each
        for each in of_plan(world, "gate_signature", row["plan_id"])
        if each["verdict"] == "APPROVE" and each["gate"] in _DISTINCT
    ]
    who: dict[str, set[str]] = {}
    for each in signed:
        who.setdefault(each["actor_id"], set()).add(each["gate"])
    for actor, gates in who.items():
        if len(gates) > 1:
            yield f"I6: {actor} signed {sorted(gates)} of plan {row['plan_id']}"
    opened = {each["gate"] for each in signed}
    if row["decision"] in ("COMMIT", "DELEGATED") and not {"MAKE", "APPROVE", "RELEASE"} <= opened:
        yield f"I6: plan {row['plan_id']} was decided with {sorted(opened)}"


def _told(case: Case, row: dict[str, Any]) -> Iterator[str]:
    ended = {outcome for state, outcome in case.told if state == "CLOSED"}
    if ended and ended != {row["outcome"]}:
        yield f"I8: people were told that plan {row['plan_id']} ended {sorted(ended)}; it ended {row['outcome']}"


def _conserved(world: World) -> Iterator[str]:
    tokens = {address_of("seller"): TOKENS, address_of("buyer"): 0, address_of("escrow"): 0}
    money: Counter[str] = Counter()
    for case in world.people.cases:
        for leg in _settling(case):
            stands = standing(world, case, leg)
            if isinstance(leg.terms, TokenTransfer) and stands != "NOTHING":
                tokens[leg.terms.payer] -= leg.terms.amount.minor_units
                tokens[leg.terms.payee if stands == "EXECUTED" else address_of("escrow")] += leg.terms.amount.minor_units
            if isinstance(leg.terms, CreditTransfer) and stands == "EXECUTED":
                money[leg.terms.debtor.iban] -= leg.terms.amount.minor_units
                money[leg.terms.creditor.iban] += leg.terms.amount.minor_units
    state = world.chain.node.final.state
    balances = Counter(state.balances) + Counter(state.claimable)
    balances[address_of("escrow")] -= sum(state.claimable.values())
    if +balances != {who: units for who, units in tokens.items() if units}:
        yield f"I2: tokens are {balances}; by the legs they would be {tokens}"
    if sum(world.bank.book.balances.values()) != MONEY:
        yield f"I2: the bank's book sums to {sum(world.bank.book.balances.values())}"
    if any(world.bank.book.balances[account] - units not in (MONEY, 0) for account, units in money.items()):
        yield f"I2: the bank's book is {world.bank.book.balances}; by the legs it moved {dict(money)}"


def unheard(world: World) -> Iterator[str]:
    """Once the weather is fair, what participants show is read to its end: repeats of commands are no reason to be deaf."""
    cursors = world.servers[COORDINATOR].tables["participant_cursor"]
    for name in PARTICIPANTS.values():
        (counter,) = rows(world, "participant_outcome_counter", name)
        end = (counter["incarnation"], counter["next_sequence"] - 1)
        row = cursors.get((name,))
        read = (row["incarnation"], row["sequence"]) if row is not None else (counter["incarnation"], 0)
        if read != end:
            yield f"I5: the log of {name} ends at {end}, and was read to {read}"


def _once(world: World) -> Iterator[str]:
    for name, payment in world.bank.book.payments.items():
        if payment.bookings > 1:
            yield f"I3: the payment {name} was booked {payment.bookings} times"
    effects = Counter(
        (effect.key, effect.name in ("Prepared", "Registered"))
        for mined in world.chain.node.final_blocks()
        for effect in mined.effects
    )
    for (key, _), count in effects.items():
        if count > 1:
            yield f"I3: {count} transactions took effect about {key.hex()}"
