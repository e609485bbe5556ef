"""Reads the chain by JSON-RPC, the bank's book, and every service's database as its owner, into one `Evidence`. Judges nothing.

What is lost at the edge: the reads are one after another, so they are of one moment only when nothing moves; collect when all is quiet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from bank_gateway.ledger import __main__ as ledger
from event_journal.payload_keys import read_vault
from event_journal.payload_store import entries_of
from lockstep.type.v1 import plan_pb2, signature_pb2
from lockstep_client.journal_chain import Entry
from lockstep_contracts import decode_log, escrow, events, notary, token
from lockstep_kit import convert
from lockstep_kit.db import Database, DatabaseSettings
from lockstep_kit.ids import Digest, PlanId
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.participant.store import record_of
from lockstep_kit.registry_file import load_registry
from lockstep_sandbox.stack import BANK, PARTICIPANTS, Sandbox, package_of
from lockstep_testkit.checker.bank import BankAccount, BankBook, BankLine, BankPayment, BankPosting, BankUndertaking
from lockstep_testkit.checker.batched import Batch, standings
from lockstep_testkit.checker.evidence import (
    ChainBook,
    EscrowEvent,
    Evidence,
    PlanRow,
    Probe,
    RecordedEvent,
    TicketRow,
    TokenBook,
    Told,
    Transfer,
    TransitionRow,
)
from lockstep_testkit.checker.log_reading import read_log
from lockstep_testkit.checker.witness_reading import read_witness
from lockstep_testkit.ownership import as_owner

#: Questions that go into one call of a contract.
ASKED_AT_ONCE_MAX: Final = 256


async def collect(
    sandbox: Sandbox,
    *,
    told: Sequence[Told] = (),
    probes: Sequence[Probe] = (),
    resting: Collection[str] = (),
    focus: Collection[str] | None = None,
) -> Evidence:
    """Everything that can be read of a sandbox."""
    plans = await _plans(sandbox)
    chains, positions = await _journal(sandbox)
    return Evidence(
        registry=load_registry(sandbox.run.path / "config" / "registry.yaml"),
        plans=plans,
        legs={name: await leg_rows(sandbox, name) for name in PARTICIPANTS},
        chains=chains,
        positions=positions,
        chain=await _chain(sandbox, list(plans.values())),
        bank=await _bank(sandbox),
        told=tuple(told),
        probes=tuple(probes),
        resting=frozenset(PlanId(each) for each in resting),
        focus=None if focus is None else frozenset(PlanId(each) for each in focus),
        ledger_findings=await _ledger(sandbox),
        log_findings=(*await read_log(sandbox), *await read_witness(sandbox)),
    )


@asynccontextmanager
async def database(sandbox: Sandbox, service: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A service's database, as its owner sees it, in one snapshot."""
    async with as_owner(sandbox, service) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection


# -- The services' databases -------------------------------------------------------------------------------------------


async def _plans(sandbox: Sandbox) -> dict[PlanId, PlanRow]:
    async with database(sandbox, "coordinator") as tx:
        heads = await tx.fetch("select * from plan left join journal_progress using (plan_id) order by seq")
        legs = _by_plan(await tx.fetch("select plan_id, leg from plan_leg order by plan_id, position"))
        moves = _by_plan(await tx.fetch("select * from plan_transition order by plan_id, transition_no"))
        gates = _by_plan(await tx.fetch("select * from gate_signature order by plan_id, ordinal"))
        tickets = _by_plan(await tx.fetch("select * from escalation order by plan_id, ordinal"))
        recorded = _by_plan(await tx.fetch("select * from journal_event order by plan_id, sequence"))
    found: dict[PlanId, PlanRow] = {}
    for row in heads:
        plan_id = PlanId(row["plan_id"])
        header = convert.header_from_pb(plan_pb2.PlanHeader.FromString(row["header"]))
        found[plan_id] = PlanRow(
            header=header,
            legs=tuple(convert.leg_from_pb(plan_pb2.Leg.FromString(each["leg"]), header) for each in legs[plan_id]),
            state=row["state"],
            decision=row["decision"] or "",
            delegate=row["delegate"],
            decided_at=row["decided_at"],
            outcome=row["outcome"] or "",
            transitions=tuple(
                TransitionRow(each["transition_no"], each["left_state"] or "", each["entered_state"], each["journal_sequence"])
                for each in moves[plan_id]
            ),
            gates=tuple(
                (convert.gate_from_pb(signature_pb2.GateSignature.FromString(each["signed"])), each["signed_at"])
                for each in gates[plan_id]
            ),
            tickets=tuple(TicketRow(each["reason"], each["leg_id"], each["resolved_at"]) for each in tickets[plan_id]),
            events=tuple(RecordedEvent(each["sequence"], each["type"], each["payload"]) for each in recorded[plan_id]),
            frozen=row["frozen"] or "",
        )
    return found


def _by_plan(rows: Sequence[asyncpg.Record]) -> defaultdict[str, list[asyncpg.Record]]:
    found: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in rows:
        found[row["plan_id"]].append(row)
    return found


async def leg_rows(sandbox: Sandbox, participant: str) -> tuple[LegRecord, ...]:
    """A participant's legs, as its database has them."""
    async with database(sandbox, participant) as tx:
        return tuple(record_of(row) for row in await tx.fetch("select * from participant_leg order by plan_id, leg_id"))


async def _journal(sandbox: Sandbox) -> tuple[dict[PlanId, tuple[Entry, ...]], tuple[int, ...]]:
    async with database(sandbox, "event-journal") as tx:
        rows = await tx.fetch("select * from journal_entry order by plan_id, sequence")
        stored = await entries_of(tx, rows, read_vault([sandbox.payload_key_file]))
    chains: dict[PlanId, list[Entry]] = {}
    for each in stored:
        event = each.event
        entry = Entry(
            plan_id=event.plan_id,
            sequence=event.sequence,
            event_id=event.event_id,
            type=event.type,
            actor=event.actor,
            actor_role=event.actor_role,
            event_time=event.event_time,
            payload=event.payload,
            payload_hash=each.payload_hash,
            previous_hash=each.previous_hash,
            entry_hash=each.entry_hash,
            canonical_bytes=each.canonical_bytes,
            signature=each.signature,
        )
        chains.setdefault(entry.plan_id, []).append(entry)
    return {plan_id: tuple(entries) for plan_id, entries in chains.items()}, tuple(sorted(row["position"] for row in rows))


async def _ledger(sandbox: Sandbox) -> tuple[str, ...]:
    """What the audit of the bank-gateway's ledger finds; it computes everything anew from the rows."""
    login = sandbox.databases.logins[package_of("bank-gateway")]
    settings = DatabaseSettings(url=login.url, password_file=login.password_file)
    db = await Database.connect(settings, application_name="checker")
    try:
        return tuple((await ledger.audit(db))[1])
    finally:
        await db.close()


# -- The bank ----------------------------------------------------------------------------------------------------------


async def _bank(sandbox: Sandbox) -> BankBook:
    async with database(sandbox, BANK) as tx:
        accounts = await tx.fetch("select account_id, kind, currency, balance from accounts order by account_id")
        lines = await tx.fetch(
            "select posting_id, kind, uetr, account_id, currency, amount from postings join entries using (posting_id)"
            " order by posting_id, account_id"
        )
        undertakings = await tx.fetch(
            "select uetr, state, coalesce(amount, 0) as amount, coalesce(currency, '') as currency, coalesce(account_id, '') as account,"
            " coalesce(beneficiary_name, '') as beneficiary, coalesce(expires_on::text, '') as expires_on,"
            " (select count(*) from undertaking_issues as issued where issued.uetr = undertakings.uetr) as issues from undertakings"
        )
        payments = await tx.fetch("select uetr, state, amount, currency, debtor_account, credited_account from payments")
    postings: dict[int, tuple[str, str, list[BankLine]]] = {}
    for row in lines:
        posting = postings.setdefault(row["posting_id"], (row["kind"], str(row["uetr"] or ""), []))
        posting[2].append(BankLine(row["account_id"], row["currency"], row["amount"]))
    return BankBook(
        accounts=tuple(BankAccount(*row) for row in accounts),
        postings=tuple(BankPosting(kind, reference, tuple(moved)) for kind, reference, moved in postings.values()),
        payments={
            str(row["uetr"]): BankPayment(
                uetr=str(row["uetr"]),
                state=row["state"],
                amount=row["amount"] or 0,
                currency=row["currency"] or "",
                debtor_account=row["debtor_account"] or "",
                credited_account=row["credited_account"] or "",
            )
            for row in payments
        },
        undertakings={str(row["uetr"]): BankUndertaking(**{**dict(row), "uetr": str(row["uetr"])}) for row in undertakings},
    )


# -- The chain ---------------------------------------------------------------------------------------------------------


async def _chain(sandbox: Sandbox, plans: Sequence[PlanRow]) -> ChainBook:
    contract, registry = sandbox.chain.contracts["SettlementEscrow"], sandbox.chain.contracts["NotaryRegistry"]
    happened = tuple(
        EscrowEvent(key, event, transaction)
        for _, event, transaction in await _logs(sandbox, [contract])
        if (key := getattr(event, "leg_key", None)) is not None
    )
    transfers = tuple(
        Transfer(place, event.sender.lower(), event.recipient.lower(), event.amount, transaction)
        for place, event, transaction in await _logs(sandbox, list(sandbox.chain.tokens.values()))
        if isinstance(event, events.Transferred)
    )
    keys = sorted(
        {each.leg_key for each in happened} | {escrow.leg_key(plan.digest, leg.leg_id) for plan in plans for leg in plan.legs}
    )
    statuses: dict[bytes, escrow.LegStatus] = {}
    for some in (keys[at : at + ASKED_AT_ONCE_MAX] for at in range(0, len(keys), ASKED_AT_ONCE_MAX)):
        (answered,) = escrow.STATUS_OF_MANY.decode(await _call(sandbox, contract, escrow.STATUS_OF_MANY.encode(some)))
        statuses |= {key: escrow.LegStatus(status) for key, status in zip(some, answered, strict=True)}
    notarised: dict[Digest, notary.PlanStatus] = {}
    digests = [plan.digest for plan in plans]
    for of_plans in (digests[at : at + ASKED_AT_ONCE_MAX] for at in range(0, len(digests), ASKED_AT_ONCE_MAX)):
        found = notary.decode_plan_status_of_many(await _call(sandbox, registry, notary.encode_plan_status_of_many(of_plans)))
        notarised |= dict(zip(of_plans, found, strict=True))
    notarised |= await _batched(sandbox, registry)
    tokens = [await _token(sandbox, address, transfers) for address in sandbox.chain.tokens.values()]
    return ChainBook(contract.lower(), tuple(tokens), transfers, happened, statuses, notarised)


async def _batched(sandbox: Sandbox, registry: str) -> dict[Digest, notary.PlanStatus]:
    """Where plans stand that are in batches whose roots the registry holds."""
    async with database(sandbox, "notary") as tx:
        rows = await tx.fetch(
            "select batch.id, batch.kind, leaf_data from plan_batch as batch join plan_leaf as leaf on leaf.batch_id = batch.id"
            " order by batch.id, leaf_index"
        )
    leaves: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
    for row in rows:
        leaves[row["id"], row["kind"]].append(row["leaf_data"])
    batches = [Batch(notary.AnchorKind(kind), tuple(each)) for (_, kind), each in leaves.items()]
    roots = [batch.root for batch in batches]
    anchors: dict[bytes, tuple[notary.AnchorKind, int]] = {}
    for some in (roots[at : at + ASKED_AT_ONCE_MAX] for at in range(0, len(roots), ASKED_AT_ONCE_MAX)):
        found = notary.decode_anchor_of_many(await _call(sandbox, registry, notary.encode_anchor_of_many(some)))
        anchors |= dict(zip(some, found, strict=True))
    return standings(batches, anchors)


async def _token(sandbox: Sandbox, address: str, transfers: Sequence[Transfer]) -> TokenBook:
    contract, place = sandbox.chain.contracts["SettlementEscrow"], address.lower()
    owners = {contract.lower()}
    owners |= {owner for each in transfers if each.token == place for owner in (each.sender, each.recipient) if int(owner, 16)}

    async def count(to: str, calldata: bytes) -> int:
        return token.decode_count(await _call(sandbox, to, calldata))

    return TokenBook(
        token=place,
        supply=await count(address, token.TOTAL_SUPPLY.encode()),
        balances={owner: await count(address, token.encode_balance_of(owner)) for owner in sorted(owners)},
        locked=await count(contract, escrow.LOCKED_TOTAL.encode(address)),
        claimable=await count(contract, escrow.CLAIMABLE_TOTAL.encode(address)),
    )


async def _logs(sandbox: Sandbox, addresses: Sequence[str]) -> list[tuple[str, events.Event, bytes]]:
    """Events of contracts: lower-case address, event, transaction."""
    asked = {"address": list(addresses), "fromBlock": "0x0", "toBlock": "latest"}
    logs: list[dict[str, Any]] = await sandbox.chain.node.call("eth_getLogs", asked)
    found: list[tuple[str, events.Event, bytes]] = []
    for log in logs:
        event = decode_log([_octets(topic) for topic in log["topics"]], _octets(log["data"]))
        if event is not None:
            found.append((str(log["address"]).lower(), event, _octets(log["transactionHash"])))
    return found


async def _call(sandbox: Sandbox, to: str, calldata: bytes) -> bytes:
    return await sandbox.chain.node.read(to, calldata)


def _octets(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
