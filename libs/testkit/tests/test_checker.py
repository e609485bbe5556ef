"""The checker finds nothing wrong with a plan that settled, and everything that is wrong with one that did not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lockstep_client.journal_chain import GENESIS, Entry, signed_bytes
from lockstep_contracts import events
from lockstep_contracts.escrow import LegStatus, LegTerms, leg_id_hash, leg_key
from lockstep_contracts.notary import PlanStatus
from lockstep_kit.canonical import canonical, time_text
from lockstep_kit.convert import binding_to_pb, certificate_to_pb
from lockstep_kit.fence import Epoch, FenceRow, Phase, fence_digest
from lockstep_kit.ids import KeyId, PlanId, sha256, uetr
from lockstep_kit.participant.records import LegRecord
from lockstep_kit.signing import Signature
from lockstep_kit.statements import Gate, GateSignature
from lockstep_testkit.checker import Evidence, Probe, Told, judge
from lockstep_testkit.checker.bank import BankAccount, BankBook, BankLine, BankPayment, BankPosting
from lockstep_testkit.checker.evidence import (
    ChainBook,
    EscrowEvent,
    PlanRow,
    RecordedEvent,
    TicketRow,
    TokenBook,
    Transfer,
    TransitionRow,
)
from lockstep_testkit.factories import (
    PARTICIPANTS,
    PlanCase,
    address_of,
    delivery_versus_payment,
    key_of,
    registry_of,
)

NOW = datetime.now(UTC).replace(microsecond=0)
NOBODY = "0x" + "0" * 40
ESCROW, TOKEN = address_of("escrow").lower(), address_of("token").lower()
SELLER, BUYER = address_of("seller").lower(), address_of("buyer").lower()
DEBTOR, CREDITOR = "DE89370400440532013000", "FR1420041010050500013M02606"
TOKENS, CENTS = 1_000_000, 10_000
STATES = (
    ("", "DRAFT", "plan.created"),
    ("DRAFT", "INITIATED", "plan.initiated"),
    ("INITIATED", "PRECONDITIONS_PENDING", "plan.initiated"),
    ("PRECONDITIONS_PENDING", "READY_FOR_PREPARE", "plan.ready"),
    ("READY_FOR_PREPARE", "PREPARED", "plan.approved"),
    ("PREPARED", "EXECUTING", "plan.released"),
    ("EXECUTING", "VALIDATING", "leg.executed"),
    ("VALIDATING", "COMMITTED", "plan.committed"),
    ("COMMITTED", "CLOSED", "plan.closed"),
)


def chain_of(plan: PlanCase, gates: dict[Gate, GateSignature]) -> tuple[Entry, ...]:
    """A sealed chain as the journal would have written it."""
    entries: list[Entry] = []
    by_type = {"plan.created": Gate.MAKE, "plan.approved": Gate.APPROVE, "plan.released": Gate.RELEASE}
    for number, (left, entered, kind) in enumerate(STATES, start=1):
        document: dict[str, Any] = {
            "plan_digest": plan.header.digest.hex(),
            "transition": {"transition_no": number, "from": left, "to": entered},
        }
        if kind in by_type:
            signed = gates[by_type[kind]]
            document["gate"] = {
                "gate": signed.statement.gate.value,
                "expires_at": time_text(signed.statement.expires_at),
                "key_id": signed.signature.key_id,
                "signature": signed.signature.octets.hex(),
            }
        if kind == "plan.closed":
            document["outcome"] = "COMMITTED"
        entries.append(entry_of(plan.plan_id, number, kind, canonical(document), entries[-1] if entries else None))
    return tuple(entries)


def entry_of(plan_id: PlanId, sequence: int, kind: str, payload: bytes, before: Entry | None) -> Entry:
    key = key_of("event-journal")
    bare = Entry(
        plan_id=plan_id,
        sequence=sequence,
        event_id=f"event-{plan_id}-{sequence}",
        type=kind,
        actor="coordinator",
        actor_role="coordinator",
        event_time=NOW,
        payload=payload,
        payload_hash=sha256(payload),
        previous_hash=before.entry_hash if before else GENESIS,
        entry_hash=GENESIS,
        canonical_bytes=b"",
        signature=Signature(KeyId(key.public.key_id), b""),
    )
    octets = signed_bytes(bare)
    return replace(bare, canonical_bytes=octets, entry_hash=sha256(octets), signature=key.sign(octets))


def settled() -> Evidence:
    """One plan that settled, everywhere and as agreed."""
    plan = delivery_versus_payment(deadline=NOW + timedelta(hours=1))
    certificate = plan.certificate()
    gates = {Gate.MAKE: certificate.make, Gate.APPROVE: certificate.approve, Gate.RELEASE: certificate.release}
    gates[Gate.VALIDATE] = plan.gate(Gate.VALIDATE, outcomes=[plan.outcome("tokens"), plan.outcome("cash")])
    chain = chain_of(plan, gates)
    row = PlanRow(
        header=plan.header,
        legs=plan.legs,
        state="CLOSED",
        decision="COMMIT",
        delegate="",
        decided_at=certificate.decided_at,
        outcome="COMMITTED",
        transitions=tuple(TransitionRow(n, left, entered, n) for n, (left, entered, _) in enumerate(STATES, start=1)),
        gates=tuple((gate, NOW) for gate in gates.values()),
        tickets=(),
        events=tuple(RecordedEvent(each.sequence, each.type, each.payload) for each in chain[:-1]),
    )
    legs: dict[str, tuple[LegRecord, ...]] = {}
    for leg in plan.legs:
        binding = plan.binding(leg.leg_id)
        fence = FenceRow(Phase.COMMITTED, fence_digest(binding), Epoch(1, 1), certificate.decision, 4)
        legs[PARTICIPANTS[leg.kind]] = (
            LegRecord(
                plan.plan_id,
                leg.leg_id,
                fence,
                Phase.COMMITTING,
                plan.header.digest,
                binding_to_pb(binding).SerializeToString(),
                key=plan.key(leg.leg_id) if leg.settling else b"",
                certificate=certificate_to_pb(certificate).SerializeToString(),
            ),
        )
    return Evidence(
        registry=registry_of(),
        plans={plan.plan_id: row},
        legs=legs,
        chains={plan.plan_id: chain},
        positions=tuple(range(1, len(chain) + 1)),
        chain=_chain(plan),
        bank=_bank(plan),
        told=(Told(plan.plan_id, "watch", "CLOSED", "COMMITTED"),),
    )


def _chain(plan: PlanCase) -> ChainBook:
    key = leg_key(plan.header.digest, "tokens")
    terms = LegTerms(
        plan.header.digest, leg_id_hash("tokens"), address_of("token"), address_of("seller"), address_of("buyer"), TOKENS,
        plan.lock("tokens"), 0,
    )  # fmt: skip
    committed = events.Committed(key, address_of("token"), address_of("buyer"), TOKENS, plan.key("tokens"), paid=True)
    return ChainBook(
        escrow=ESCROW,
        tokens=(TokenBook(TOKEN, 5 * TOKENS, {SELLER: 4 * TOKENS, ESCROW: 0, BUYER: TOKENS}, 0, 0),),
        transfers=(
            Transfer(TOKEN, NOBODY, SELLER, 5 * TOKENS, b"mint"),
            Transfer(TOKEN, SELLER, ESCROW, TOKENS, b"prepare"),
            Transfer(TOKEN, ESCROW, BUYER, TOKENS, b"commit"),
        ),
        events=(EscrowEvent(key, events.Prepared(key, terms), b"prepare"), EscrowEvent(key, committed, b"commit")),
        statuses={key: LegStatus.COMMITTED},
        notarised={plan.header.digest: PlanStatus.COMMITTED},
    )


def _posting(kind: str, reference: str, **moved: int) -> BankPosting:
    names = {"debtor": DEBTOR, "creditor": CREDITOR, "hold": "HOLD-EUR", "capital": "CAPITAL-EUR"}
    return BankPosting(kind, reference, tuple(BankLine(names[name], "EUR", amount) for name, amount in moved.items()))


def _bank(plan: PlanCase) -> BankBook:
    reference = uetr(plan.plan_id, plan.leg("cash").leg_id)
    return BankBook(
        accounts=(
            BankAccount(DEBTOR, "CUSTOMER", "EUR", 4 * CENTS),
            BankAccount(CREDITOR, "CUSTOMER", "EUR", CENTS),
            BankAccount("HOLD-EUR", "HOLD", "EUR", 0),
            BankAccount("CAPITAL-EUR", "CAPITAL", "EUR", -5 * CENTS),
        ),
        postings=(
            _posting("OPENING", "", capital=-5 * CENTS, debtor=5 * CENTS),
            _posting("HOLD", reference, debtor=-CENTS, hold=CENTS),
            _posting("SETTLE", reference, hold=-CENTS, creditor=CENTS),
        ),
        payments={reference: BankPayment(reference, "SETTLED", CENTS, "EUR", DEBTOR, CREDITOR)},
    )


def plan_of(evidence: Evidence) -> PlanRow:
    (row,) = evidence.plans.values()
    return row


def with_plan(evidence: Evidence, **changes: Any) -> Evidence:
    row = replace(plan_of(evidence), **changes)
    return replace(evidence, plans={row.plan_id: row})


def with_bank(evidence: Evidence, **changes: Any) -> Evidence:
    return replace(evidence, bank=replace(evidence.bank, **changes))


def with_payment(evidence: Evidence, state: str) -> Evidence:
    ((reference, payment),) = evidence.bank.payments.items()
    return with_bank(evidence, payments={reference: replace(payment, state=state)})


def with_chain(evidence: Evidence, **changes: Any) -> Evidence:
    return replace(evidence, chain=replace(evidence.chain, **changes))


def with_entries(evidence: Evidence, entries: tuple[Entry, ...]) -> Evidence:
    return replace(evidence, chains={plan_of(evidence).plan_id: entries})


def entries_of(evidence: Evidence) -> tuple[Entry, ...]:
    return evidence.chains[plan_of(evidence).plan_id]


def with_row(evidence: Evidence, participant: str, **changes: Any) -> Evidence:
    (row,) = evidence.legs[participant]
    return replace(evidence, legs={**evidence.legs, participant: (replace(row, **changes),)})


# -- What is wrong, and the invariant that says so ---------------------------------------------------------------------


def one_leg_released(evidence: Evidence) -> Evidence:
    reference = next(iter(evidence.bank.payments))
    postings = (*evidence.bank.postings[:2], _posting("RELEASE", reference, hold=-CENTS, debtor=CENTS))
    accounts = (replace(evidence.bank.accounts[0], balance=5 * CENTS), replace(evidence.bank.accounts[1], balance=0))
    bent = with_bank(evidence, postings=postings, accounts=(*accounts, *evidence.bank.accounts[2:]))
    return with_payment(bent, "CANCELLED")


def nothing_decided(evidence: Evidence) -> Evidence:
    return with_plan(evidence, decision="", decided_at=None)


def decided_at_another_time(evidence: Evidence) -> Evidence:
    return with_plan(evidence, decided_at=NOW - timedelta(days=1))


def no_certificate(evidence: Evidence) -> Evidence:
    return with_row(evidence, "dlt-gateway", certificate=None)


def key_of_another_leg(evidence: Evidence) -> Evidence:
    return with_row(evidence, "bank-gateway", key=bytes(32))


def a_token_too_many(evidence: Evidence) -> Evidence:
    book = evidence.chain.tokens[0]
    return with_chain(evidence, tokens=(replace(book, balances={**book.balances, BUYER: TOKENS + 1}),))


def tokens_held_for_nobody(evidence: Evidence) -> Evidence:
    return with_chain(evidence, tokens=(replace(evidence.chain.tokens[0], locked=1),))


def a_cent_lost(evidence: Evidence) -> Evidence:
    accounts = evidence.bank.accounts
    return with_bank(evidence, accounts=(replace(accounts[0], balance=accounts[0].balance - 1), *accounts[1:]))


def a_posting_out_of_balance(evidence: Evidence) -> Evidence:
    accounts = evidence.bank.accounts
    bent = with_bank(evidence, accounts=(replace(accounts[0], balance=accounts[0].balance + 1), *accounts[1:]))
    return with_bank(bent, postings=(*evidence.bank.postings, _posting("PAYMENT", "", debtor=1)))


def tokens_moved_twice(evidence: Evidence) -> Evidence:
    return with_chain(evidence, events=(*evidence.chain.events, evidence.chain.events[-1]))


def tokens_to_somebody_else(evidence: Evidence) -> Evidence:
    last = evidence.chain.events[-1]
    assert isinstance(last.event, events.Committed)
    other = replace(last, event=replace(last.event, payee=address_of("mallory")))
    return with_chain(evidence, events=(evidence.chain.events[0], other))


def booked_twice(evidence: Evidence) -> Evidence:
    reference = next(iter(evidence.bank.payments))
    accounts = evidence.bank.accounts
    bent = (replace(accounts[0], balance=3 * CENTS), replace(accounts[1], balance=2 * CENTS), *accounts[2:])
    again = _posting("PAYMENT", reference, debtor=-CENTS, creditor=CENTS)
    return with_bank(evidence, accounts=bent, postings=(*evidence.bank.postings, again))


def booked_for_no_plan(evidence: Evidence) -> Evidence:
    stray = _posting("PAYMENT", "00000000-0000-4000-8000-000000000000", debtor=-1, creditor=1)
    accounts = evidence.bank.accounts
    bent = (replace(accounts[0], balance=4 * CENTS - 1), replace(accounts[1], balance=CENTS + 1), *accounts[2:])
    return with_bank(evidence, accounts=bent, postings=(*evidence.bank.postings, stray))


def an_entry_changed(evidence: Evidence) -> Evidence:
    entries = entries_of(evidence)
    return with_entries(evidence, (replace(entries[0], payload=b"{}"), *entries[1:]))


def an_entry_missing(evidence: Evidence) -> Evidence:
    return with_entries(evidence, entries_of(evidence)[:-2])


def a_transition_without_event(evidence: Evidence) -> Evidence:
    moves = plan_of(evidence).transitions
    return with_plan(evidence, transitions=(*moves, TransitionRow(10, "CLOSED", "CLOSED", 10)))


def an_event_without_transition(evidence: Evidence) -> Evidence:
    return with_plan(evidence, transitions=plan_of(evidence).transitions[:-2])


def a_hole_in_the_log(evidence: Evidence) -> Evidence:
    return replace(evidence, positions=(*evidence.positions[:-1], evidence.positions[-1] + 1))


def a_log_that_was_changed(evidence: Evidence) -> Evidence:
    return replace(
        evidence, log_findings=("position 7 of the log: LEAF_DIFFERS: the entry at 7 is not the one that the tree is over",)
    )


def stuck(evidence: Evidence) -> Evidence:
    return with_plan(evidence, state="EXECUTING", outcome="")


def held_after_the_end(evidence: Evidence) -> Evidence:
    accounts = evidence.bank.accounts
    bent = (accounts[0], replace(accounts[1], balance=0), replace(accounts[2], balance=CENTS), accounts[3])
    return with_payment(with_bank(evidence, accounts=bent, postings=evidence.bank.postings[:2]), "HELD")


def a_hold_of_nobody(evidence: Evidence) -> Evidence:
    return with_chain(evidence, statuses={**evidence.chain.statuses, bytes(32): LegStatus.PREPARED})


def a_leg_forgotten(evidence: Evidence) -> Evidence:
    (row,) = evidence.legs["notary"]
    return with_row(evidence, "notary", fence=replace(row.fence, phase=Phase.COMMITTING))


def one_person_twice(evidence: Evidence) -> Evidence:
    registry = registry_of()
    everybody = [replace(actor, roles=frozenset().union(*(each.roles for each in registry.actors))) for actor in registry.actors]
    plan = plan_of(evidence)
    release = next(signed for signed, _ in plan.gates if signed.statement.gate is Gate.RELEASE)
    again = replace(release, signature=key_of("bob").sign(release.statement.signed_bytes()))
    gates = tuple((again, at) if signed is release else (signed, at) for signed, at in plan.gates)
    return with_plan(replace(evidence, registry=type(registry)(everybody, registry.participants)), gates=gates)


def nobody_validated(evidence: Evidence) -> Evidence:
    return with_plan(evidence, gates=plan_of(evidence).gates[:-1])


def a_forged_gate(evidence: Evidence) -> Evidence:
    (first, at), *others = plan_of(evidence).gates
    forged = replace(first, signature=Signature(first.signature.key_id, bytes(64)))
    return with_plan(evidence, gates=((forged, at), *others))


def probe_of(evidence: Evidence, **changes: Any) -> Probe:
    (row,) = evidence.legs["bank-gateway"]
    probe = Probe("bank-gateway", row.plan_id, row.leg_id, "ABORT", "REJECTED", "EPOCH_STALE", row, row)
    return replace(probe, **changes)


def an_old_epoch_taken(evidence: Evidence) -> Evidence:
    return replace(evidence, probes=(probe_of(evidence, verdict="DONE", reason=""),))


def an_old_epoch_changes_a_row(evidence: Evidence) -> Evidence:
    (row,) = evidence.legs["bank-gateway"]
    return replace(evidence, probes=(probe_of(evidence, after=replace(row, trouble="changed")),))


def a_client_told_otherwise(evidence: Evidence) -> Evidence:
    return replace(evidence, told=(Told(plan_of(evidence).plan_id, "watch", "CLOSED", "ABORTED"),))


def notarised_otherwise(evidence: Evidence) -> Evidence:
    return with_chain(evidence, notarised={plan_of(evidence).digest: PlanStatus.ABORTED})


def sealed_otherwise(evidence: Evidence) -> Evidence:
    entries = entries_of(evidence)
    document = json.loads(entries[-1].payload) | {"outcome": "ABORTED"}
    last = entry_of(entries[-1].plan_id, len(entries), "plan.closed", canonical(document), entries[-2])
    return with_entries(evidence, (*entries[:-1], last))


def an_entry_not_linked(evidence: Evidence) -> Evidence:
    return replace(evidence, ledger_findings=("entry 2 of COBADEFF/EUR is not linked to the one before",))


def test_a_settled_plan_is_found_in_order() -> None:
    """Nothing is wrong with a plan that settled as agreed, and old epochs that are refused are as they should be."""
    evidence = settled()
    judgement = judge(replace(evidence, probes=(probe_of(evidence),)))
    assert judgement.holds, judgement.text()
    assert judgement.plans == {"CLOSED/COMMITTED": 1}


@pytest.mark.parametrize(
    ("invariant", "bend"),
    [
        ("I1", one_leg_released),
        ("I1", nothing_decided),
        ("I1", decided_at_another_time),
        ("I1", no_certificate),
        ("I1", key_of_another_leg),
        ("I2", a_token_too_many),
        ("I2", tokens_held_for_nobody),
        ("I2", a_cent_lost),
        ("I2", a_posting_out_of_balance),
        ("I2", an_entry_not_linked),
        ("I3", tokens_moved_twice),
        ("I3", tokens_to_somebody_else),
        ("I3", booked_twice),
        ("I3", booked_for_no_plan),
        ("I4", an_entry_changed),
        ("I4", an_entry_missing),
        ("I4", a_transition_without_event),
        ("I4", an_event_without_transition),
        ("I4", a_hole_in_the_log),
        ("I4", a_log_that_was_changed),
        ("I5", stuck),
        ("I5", held_after_the_end),
        ("I5", a_hold_of_nobody),
        ("I5", a_leg_forgotten),
        ("I6", one_person_twice),
        ("I6", nobody_validated),
        ("I6", a_forged_gate),
        ("I7", an_old_epoch_taken),
        ("I7", an_old_epoch_changes_a_row),
        ("I8", a_client_told_otherwise),
        ("I8", notarised_otherwise),
        ("I8", sealed_otherwise),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_is_wrong_is_found(invariant: str, bend: Callable[[Evidence], Evidence]) -> None:
    """Each seeded violation is found under its own invariant."""
    judgement = judge(bend(settled()))
    assert invariant in {each.invariant for each in judgement.violations}, judgement.text()


@pytest.mark.parametrize("called", [True, False], ids=["called", "closed"])
def test_a_person_who_is_called_excuses_a_mixture_and_one_who_was_does_not(called: bool) -> None:
    """A half-settled plan with an open escalation is as it should be; once the ticket is closed without MIXED, it is not."""
    ticket = TicketRow("BANK_COMMIT_FAILED", "cash", None if called else NOW)
    bent = with_plan(one_leg_released(settled()), tickets=(ticket,), state="PARTIALLY_EXECUTED", outcome="")
    found = [each for each in judge(bent).violations if each.invariant == "I1"]
    assert bool(found) is not called


def test_only_plans_in_focus_are_judged_one_by_one() -> None:
    """A plan outside the focus is nobody's business, what is true of all together still is."""
    evidence = replace(stuck(a_cent_lost(settled())), focus=frozenset[PlanId]())
    assert {each.invariant for each in judge(evidence).violations} == {"I2"}
