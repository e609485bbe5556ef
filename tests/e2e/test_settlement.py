"""Plans from their making to their end, judged by the chain, the bank's book, the databases and the journal."""

from __future__ import annotations

import asyncio
import json

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.participant.v1 import leg_pb2
from lockstep_client.convert import state_name
from lockstep_client.journal_chain import verify_chain
from lockstep_contracts import token
from lockstep_kit.registry_file import load_registry
from lockstep_kit.statements import Gate
from lockstep_sandbox import outside, scene
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.crew import Crew, draw_address


async def ended(crew: Crew, plan: settlement.Plan) -> settlement.Plan:
    """The plan at its end; nothing of it may be held anywhere."""
    return await crew.driven(plan.header.plan_id)


async def assert_nothing_held(sandbox: Sandbox) -> None:
    assert await outside.escrowed(sandbox, scene.BOND.symbol) == 0
    accounts = (await outside.bank(sandbox, "/accounts"))["accounts"]
    assert all(account["held_minor"] == 0 for account in accounts if "held_minor" in account)
    assert (await outside.bank(sandbox, "/audit"))["violations"] == []


async def test_a_plan_settles_once_everywhere(sandbox: Sandbox, crew: Crew) -> None:
    """Tokens and money move exactly once, the record is whole and sealed, and nothing stays held."""
    payee = draw_address()
    plan = await crew.settled(crew.payments(payee=payee))
    plan_id = plan.header.plan_id
    assert (state_name(plan.state), plan.outcome) == ("CLOSED", leg_pb2.PLAN_OUTCOME_COMMITTED)
    await crew.assert_settled_once(plan_id, payee)
    await assert_nothing_held(sandbox)
    await assert_recorded(crew, plan)
    assert (await outside.leg_status(sandbox, plan.plan_digest, "bonds")).name == "COMMITTED"


async def assert_recorded(crew: Crew, plan: settlement.Plan) -> None:
    """The journal is valid and sealed, and has one entry for each transition and no transition without one."""
    plan_id = plan.header.plan_id
    entries = await crew.entries(plan_id)
    verdict = verify_chain(entries, plan_id, load_registry(crew.configuration.registry_file))
    assert verdict.valid, verdict.findings
    assert verdict.sealed
    async with crew.database("coordinator") as database:
        rows = await database.fetch(
            "select transition_no, entered_state, journal_sequence from plan_transition where plan_id = $1", plan_id
        )
        events = await database.fetch("select sequence, type, payload from journal_event where plan_id = $1", plan_id)
    sealed = entries[-1]
    assert sealed.type == "plan.closed"
    # What the journal holds, but for its own seal, is what the coordinator recorded, entry by entry.
    assert [(entry.sequence, entry.type, entry.payload) for entry in entries[:-1]] == sorted(tuple(row) for row in events)
    told = {entry.sequence: json.loads(entry.payload).get("transition") for entry in entries[:-1]}
    moved = {sequence: (each["transition_no"], each["to"]) for sequence, each in told.items() if each is not None}
    stored = {row["journal_sequence"]: (row["transition_no"], row["entered_state"]) for row in rows}
    assert len(stored) == len(rows)
    assert stored.pop(sealed.sequence)[1] == "CLOSED"
    assert stored == moved


async def test_refusals_move_nothing(sandbox: Sandbox, crew: Crew) -> None:
    """A NO by the bank (no money), a NO by the chain (no allowance) and a cancel before release leave everything as it was."""
    payees = [draw_address() for _ in range(3)]
    poor, barred, stopped = await asyncio.gather(
        crew.started(crew.payments(payee=payees[0], buyer=scene.PAUPER)),
        crew.started(crew.payments(payee=payees[1], payer="issuer")),
        crew.started(crew.payments(payee=payees[2])),
    )
    waiting = await crew.awaiting(stopped.header.plan_id, "release")
    assert await outside.escrowed(sandbox, scene.BOND.symbol) >= 10_00
    await crew.client.cancel_plan(stopped.header.plan_id, crew.signature(waiting, Gate.CANCEL.name.lower(), person="maker"))
    for plan, payee, payer in zip((poor, barred, stopped), payees, (scene.PAUPER, scene.BUYER, scene.BUYER), strict=True):
        closed = await ended(crew, plan)
        assert closed.outcome == leg_pb2.PLAN_OUTCOME_ABORTED, closed
        await crew.assert_nothing_moved(plan.header.plan_id, payee, payer)
    await assert_nothing_held(sandbox)


async def test_several_plans_at_once_conserve_tokens_and_money(sandbox: Sandbox, crew: Crew) -> None:
    """Plans that run together, one of them without money, each settle once; no token and no cent appears or vanishes."""
    chain = sandbox.chain
    payees = [draw_address() for _ in range(4)]
    documents = [crew.payments(payee=payee) for payee in payees]
    del documents[3]["legs"][1]
    before = await outside.token_balance(sandbox, scene.BOND.symbol, chain.address("seller"))
    plans = await asyncio.gather(*(crew.settled(document) for document in documents))
    for plan, payee in zip(plans[:3], payees[:3], strict=True):
        await crew.assert_settled_once(plan.header.plan_id, payee)
    assert await crew.bookings(plans[3].header.plan_id, scene.BUYER.iban) == []
    assert [units for _, units in await crew.transfers_to(payees[3])] == [10_00]
    after = await outside.token_balance(sandbox, scene.BOND.symbol, chain.address("seller"))
    assert before - after == 4 * 10_00
    supply = token.decode_count(await chain.node.read(chain.tokens[scene.BOND.symbol], token.TOTAL_SUPPLY.encode()))
    assert supply == sum(scene.BOND.minted.values())
    audit = await outside.bank(sandbox, "/audit")
    assert audit["violations"] == []
    await assert_nothing_held(sandbox)
