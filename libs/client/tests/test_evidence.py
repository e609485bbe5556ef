"""What a validator finds: nothing in a plan whose evidence holds, and by name whatever was tampered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lockstep_client.bank_evidence import Entry, check_bank_leg
from lockstep_client.chain_evidence import ChainFacts, LoggedCommit, check_chain_leg
from lockstep_client.convert import plan_from_pb
from lockstep_client.evidence import Finding, check_plan
from lockstep_client.signing import escrow_terms
from lockstep_contracts.escrow import LegStatus, leg_key, terms_hash
from lockstep_contracts.events import Committed
from lockstep_kit.convert import evidence_to_pb
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_kit.statements import Gate, OutcomeKind, Refusal, Verdict, evidence_digest

LATER = datetime(2150, 1, 1, tzinfo=UTC)


def rules(findings: list[Finding]) -> set[str]:
    return {each.rule for each in findings}


def test_a_plan_that_holds(world: Any) -> None:
    """Of a plan whose signatures, digests and people are right nothing is found."""
    assert check_plan(world.view(), world.registry) == []


def _other_leg(world: Any) -> None:
    world.settle("delivery", leg_id="payment")


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda w: w.settle("delivery", signer="bank-gateway"), {"OUTCOME_SIGNATURE"}),
        (lambda w: w.settle("delivery", signer="validator"), {"OUTCOME_SIGNATURE"}),
        (lambda w: w.settle("delivery", participant="bank-gateway"), {"OUTCOME_PARTICIPANT"}),
        (lambda w: w.settle("delivery", plan_digest=sha256(b"another plan")), {"OUTCOME_SUBJECT"}),
        (lambda w: w.settle("delivery", plan_id="6b7e0c39-4b84-4b0b-9a2c-0a5c2f3d1e77"), {"OUTCOME_SUBJECT"}),
        (_other_leg, {"OUTCOME_SUBJECT"}),
        (lambda w: w.settle("delivery", kind=OutcomeKind.RELEASED), {"OUTCOME_NOT_DONE"}),
        (lambda w: w.settle("payment", kind=OutcomeKind.REFUSED, refusal=Refusal("NO")), {"OUTCOME_NOT_DONE"}),
        (lambda w: w.settle("delivery", evidence=None), {"EVIDENCE_MISSING"}),
        (lambda w: w.settle("delivery", settled_at=LATER), {"OUTCOME_SIGNATURE"}),
        (lambda w: w.outcomes.pop("payment"), {"OUTCOME_MISSING", "OUTCOMES_INCOMPLETE"}),
        (lambda w: w.vote("payment", signer="dlt-gateway"), {"VOTE_SIGNATURE"}),
        (lambda w: w.vote("payment", participant="dlt-gateway"), {"VOTE_PARTICIPANT"}),
        (lambda w: w.vote("payment", lock=sha256(b"another lock")), {"VOTE_LOCK"}),
        (lambda w: w.vote("payment", answer=Refusal("BANK_PREPARE_FAILED")), {"VOTE_NO"}),
        (lambda w: w.vote("payment", leg_id="delivery"), {"VOTE_SUBJECT"}),
        (lambda w: w.vote("payment", plan_digest=sha256(b"another plan")), {"VOTE_SUBJECT"}),
        (lambda w: w.votes.pop("journal"), {"VOTE_MISSING"}),
    ],
)
def test_tampering_is_named(world: Any, tamper: Callable[[Any], object], found: set[str]) -> None:
    """A vote or outcome that is not its participant's about this leg of this plan is found by name, and nothing else is."""
    tamper(world)
    if len(world.votes) == len(world.draft.legs):
        world.release()
    assert rules(check_plan(world.view(), world.registry)) - {"VOTES_DIGEST_DIFFERS"} == found


def test_votes_changed_after_release(world: Any) -> None:
    """A vote that was exchanged after the releaser signed is found, even if its participant signed it."""
    world.vote("payment", voted_at=datetime(2026, 6, 1, 12, 0, 1, tzinfo=UTC))
    assert rules(check_plan(world.view(), world.registry)) == {"VOTES_DIGEST_DIFFERS"}


def test_digests_are_recomputed(world: Any) -> None:
    """Digests that the coordinator names are held against those of what it shows."""
    assert rules(check_plan(world.view(evidence_digest=bytes(32)), world.registry)) == {"EVIDENCE_DIGEST_DIFFERS"}
    assert rules(check_plan(world.view(evidence_digest=b""), world.registry)) == {"EVIDENCE_DIGEST_DIFFERS"}
    assert rules(check_plan(world.view(plan_digest=bytes(32)), world.registry)) == {"PLAN_DIGEST_DIFFERS"}


def test_legs_are_those_of_the_plan(world: Any) -> None:
    """A leg with another amount, a leg left out, legs in another order: none stands under the plan's root."""
    view = world.view()
    first = view.legs[0]
    terms = replace(first.leg.terms, amount=replace(first.leg.terms.amount, minor_units=1))
    forged = replace(view, legs=(replace(first, leg=replace(first.leg, terms=terms)), *view.legs[1:]))
    assert rules(check_plan(forged, world.registry)) == {"LEGS_ROOT_DIFFERS"}
    assert "LEGS_ROOT_DIFFERS" in rules(check_plan(replace(view, legs=view.legs[:3]), world.registry))
    swapped = replace(view, legs=(view.legs[1], view.legs[0], *view.legs[2:]))
    assert "LEGS_ROOT_DIFFERS" in rules(check_plan(swapped, world.registry))


def test_the_participant_is_the_validators_choice(world: Any) -> None:
    """Which participant serves a kind of leg is not the coordinator's to say."""
    message = world.message()
    message.legs[0].participant = "bank-gateway"
    assert rules(check_plan(plan_from_pb(message), world.registry)) == {"PARTICIPANT_WRONG"}


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda w: w.sign("maker", Gate.APPROVE), {"GATE_ROLE"}),
        (lambda w: w.sign("approver", Gate.APPROVE, verdict=Verdict.REJECT), {"GATE_MISSING"}),
        (lambda w: w.gates.pop(), {"GATE_MISSING"}),
    ],
)
def test_people(world: Any, tamper: Callable[[Any], object], found: set[str]) -> None:
    """Each gate was opened by somebody with its role, and three persons opened them."""
    tamper(world)
    assert rules(check_plan(world.view(), world.registry)) == found


def test_a_malformed_plan_is_no_plan(world: Any) -> None:
    """What has another form is refused before anything is compared."""
    with pytest.raises(FieldInvalid) as refused:
        world.view(plan_digest=b"short")
    assert refused.value.field == "plan.plan_digest"
    message = world.message()
    message.legs[1].vote.lock = b""
    with pytest.raises(FieldInvalid) as refused:
        plan_from_pb(message)
    assert refused.value.field == "plan.legs[1].lock"


# -- chain -------------------------------------------------------------------------------------------------------------


def chain_facts(world: Any) -> ChainFacts:
    """What a node says when everything holds."""
    header, leg = world.draft.header, world.leg("delivery")
    view = world.view().legs[0]
    terms = escrow_terms(header, leg, view.lock)
    event = Committed(leg_key(header.digest, "delivery"), terms.token, leg.terms.payee, 10_000, b"k" * 32, True)
    logged = LoggedCommit(leg.terms.escrow, event, b"\x11" * 32, 40, b"\x40" * 32, b"\x40" * 32)
    return ChainFacts("eip155:138", LegStatus.COMMITTED, terms_hash(terms)[:31], b"\x42" * 32, (logged,), True)


def test_a_token_leg_that_holds(world: Any) -> None:
    """Of a payout of the very token, payee and amount in a canonical block nothing is found."""
    view = world.view()
    assert check_chain_leg(view.legs[0], view.header, chain_facts(world)) == []
    failed_transfer = chain_facts(world).commits[0]
    claimable = replace(failed_transfer, event=replace(failed_transfer.event, paid=False))
    assert check_chain_leg(view.legs[0], view.header, replace(chain_facts(world), commits=(claimable,))) == []


@pytest.mark.parametrize(
    ("change", "found", "may_pass"),
    [
        (lambda f: replace(f, chain="eip155:1"), "CHAIN_OTHER", False),
        (lambda f: replace(f, status=LegStatus.PREPARED), "CHAIN_NOT_COMMITTED", True),
        (lambda f: replace(f, status=LegStatus.ABORTED), "CHAIN_NOT_COMMITTED", False),
        (lambda f: replace(f, terms_digest=b"\x00" * 31), "CHAIN_TERMS_DIFFER", False),
        (lambda f: replace(f, evidence_block_hash=b"\x43" * 32), "CHAIN_BLOCK_NOT_CANONICAL", False),
        (lambda f: replace(f, evidence_block_hash=b""), "CHAIN_BLOCK_NOT_CANONICAL", True),
        (lambda f: replace(f, commits=()), "CHAIN_EVENT_MISSING", True),
        (lambda f: replace(f, commits=f.commits * 2), "CHAIN_EVENT_MISSING", False),
        (lambda f: logged(f, contract="0x52908400098527886E0F7030069857D2E4169EE7"), "CHAIN_EVENT_MISSING", True),
        (lambda f: logged(f, leg_key=b"\x01" * 32), "CHAIN_EVENT_MISSING", True),
        (lambda f: logged(f, token="0x52908400098527886E0F7030069857D2E4169EE7"), "CHAIN_TOKEN_DIFFERS", False),
        (lambda f: logged(f, payee="0x52908400098527886E0F7030069857D2E4169EE7"), "CHAIN_PAYEE_DIFFERS", False),
        (lambda f: logged(f, amount=9_999), "CHAIN_AMOUNT_DIFFERS", False),
        (lambda f: logged(f, canonical_hash=b"\x41" * 32), "CHAIN_EVENT_NOT_CANONICAL", True),
        (lambda f: logged(f, canonical_hash=b""), "CHAIN_EVENT_NOT_CANONICAL", True),
        (lambda f: logged(f, block_number=43), "CHAIN_EVENT_LATE", False),
        (lambda f: replace(f, transaction_succeeded=False), "CHAIN_TRANSACTION_FAILED", True),
    ],
)
def test_what_the_chain_does_not_say(world: Any, change: Callable[[ChainFacts], ChainFacts], found: str, may_pass: bool) -> None:
    """Each difference between the node's word and the plan is found by name; only what may still be seen may pass."""
    view = world.view()
    findings = check_chain_leg(view.legs[0], view.header, change(chain_facts(world)))
    assert [(each.rule, each.may_pass) for each in findings] == [(found, may_pass)]
    assert findings[0].leg_id == "delivery"


def logged(facts: ChainFacts, **changes: Any) -> ChainFacts:
    commit = facts.commits[0]
    of_event = {name: value for name, value in changes.items() if name in ("leg_key", "token", "payee", "amount")}
    of_log = {name: value for name, value in changes.items() if name not in of_event}
    return replace(facts, commits=(replace(commit, event=replace(commit.event, **of_event), **of_log),))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"chain": "eip155:1"}, "CHAIN_EVIDENCE_CHAIN"),
        ({"contract": "0x52908400098527886E0F7030069857D2E4169EE7"}, "CHAIN_EVIDENCE_CONTRACT"),
        ({"entry_key": b"\x01" * 32}, "CHAIN_EVIDENCE_KEY"),
        ({"block_hash": b"\x01" * 32}, "CHAIN_BLOCK_NOT_CANONICAL"),
    ],
)
def test_chain_evidence_about_something_else(world: Any, change: dict[str, Any], found: str) -> None:
    """Evidence that its participant signed, but that names another place, is found by name."""
    world.settle("delivery", evidence=replace(world.evidence("delivery"), **change))
    view = world.view()
    assert rules(check_plan(view, world.registry)) == set()
    assert rules(check_chain_leg(view.legs[0], view.header, chain_facts(world))) == {found}


def test_another_lock(world: Any) -> None:
    """A leg that the escrow holds under another lock than the plan's is found."""
    view = world.view()
    shown = replace(view.legs[0], lock=sha256(b"another lock"))
    assert rules(check_chain_leg(shown, view.header, chain_facts(world))) == {"CHAIN_TERMS_DIFFER"}


# -- bank --------------------------------------------------------------------------------------------------------------


def book(world: Any) -> tuple[Entry, ...]:
    """A hold on an account of the bank's own, and its booking to the creditor's account."""
    terms, uetr = world.leg("payment").terms, world.evidence("payment").uetr
    taken = Entry(uetr, "1", False, terms.debtor.iban, "", -9_845_000, "EUR")
    held = replace(taken, account="HOLD-EUR", minor_units=9_845_000)
    let_go = replace(held, posting="2", books=True, minor_units=-9_845_000)
    return taken, held, let_go, replace(let_go, account=terms.creditor.iban, minor_units=9_845_000)


def at_home(world: Any) -> None:
    """Debtor and creditor have their accounts at one bank, which answers."""
    world.settle("payment", evidence=replace(world.evidence("payment"), bank_bic="BNPAFRPPXXX"))


def test_a_bank_leg_that_holds(world: Any) -> None:
    """Of a payment that is booked once, from account to account, nothing is found; other payments in the book do not matter."""
    at_home(world)
    other = replace(book(world)[0], uetr="another")
    assert check_bank_leg(world.view().legs[1], world.draft.header, (*book(world), other)) == []


def test_a_creditor_at_another_bank(world: Any) -> None:
    """In the debtor's bank's book the creditor's bank stands for a creditor that has its account there."""
    *rest, credit = book(world)
    abroad = replace(credit, account="VOSTRO-1", correspondent_bic="BNPAFRPPXXX")
    assert check_bank_leg(world.view().legs[1], world.draft.header, (*rest, abroad)) == []
    wrong = replace(credit, account="VOSTRO-2", correspondent_bic="DEUTDEFFXXX")
    assert rules(check_bank_leg(world.view().legs[1], world.draft.header, (*rest, wrong))) == {
        "BANK_CREDITOR_AMOUNT",
        "BANK_OTHER_ACCOUNT",
    }
    at_home(world)
    assert rules(check_bank_leg(world.view().legs[1], world.draft.header, (*rest, abroad))) == {
        "BANK_CREDITOR_AMOUNT",
        "BANK_OTHER_ACCOUNT",
    }


@pytest.mark.parametrize(
    ("change", "found", "may_pass"),
    [
        (lambda taken, held, *_: (taken, held), {"BANK_BOOKINGS"}, True),
        (lambda *_: (), {"BANK_BOOKINGS"}, True),
        (lambda *book: (*book, replace(book[-1], posting="3")), {"BANK_BOOKINGS"}, False),
        (
            lambda taken, held, let_go, credit: (taken, held, let_go, replace(credit, account="X")),
            {"BANK_CREDITOR_AMOUNT", "BANK_OTHER_ACCOUNT"},
            False,
        ),
        (lambda taken, *rest: (replace(taken, account="X"), *rest), {"BANK_DEBTOR_AMOUNT", "BANK_OTHER_ACCOUNT"}, False),
        (lambda taken, *rest: (replace(taken, minor_units=-1), *rest), {"BANK_DEBTOR_AMOUNT"}, False),
        (lambda *book: (*book[:3], replace(book[3], minor_units=1)), {"BANK_CREDITOR_AMOUNT"}, False),
        (lambda *book: (*book[:3], replace(book[3], currency="USD")), {"BANK_CREDITOR_AMOUNT"}, False),
        (lambda *book: (*book, replace(book[0], posting="9", account="FEES", minor_units=5)), {"BANK_OTHER_ACCOUNT"}, False),
        (lambda *book: (*book, replace(book[0], posting="9", minor_units=9_845_000)), {"BANK_DEBTOR_AMOUNT"}, False),
    ],
)
def test_what_the_book_does_not_say(world: Any, change: Callable[..., tuple[Entry, ...]], found: set[str], may_pass: bool) -> None:
    """Each difference between the bank's book and the plan is found by name; only a booking that is not there yet may pass."""
    at_home(world)
    findings = check_bank_leg(world.view().legs[1], world.draft.header, change(*book(world)))
    assert rules(findings) == found
    assert findings[0].may_pass is may_pass


def test_the_bank_did_not_settle(world: Any) -> None:
    """A payment whose last status does not say that money was settled is found."""
    at_home(world)
    held = world.evidence("payment")
    world.settle("payment", evidence=replace(held, status="ACFW"))
    assert rules(check_bank_leg(world.view().legs[1], world.draft.header, book(world))) == {"BANK_NOT_SETTLED"}


def test_another_payment_cannot_stand_for_the_leg(world: Any) -> None:
    """A payment of the same amount between the same accounts, but not the leg's own, is found out; the leg's own is not booked."""
    at_home(world)
    other = "11111111-4b84-4b0b-9a2c-0a5c2f3d1e77"
    entries = [replace(each, uetr=other) for each in book(world)]
    world.settle("payment", evidence=replace(world.evidence("payment"), uetr=other))
    assert rules(check_bank_leg(world.view().legs[1], world.draft.header, entries)) == {"BANK_UETR_WRONG", "BANK_BOOKINGS"}


def test_what_operators_showed_is_looked_up_as_well(world: Any) -> None:
    """Where two operators answered for a participant the validator misses no outcome, and judges the book by what they showed."""
    outcome = world.outcomes.pop("payment")
    missing = world.view(evidence_digest=evidence_digest(list(world.outcomes.values())))
    assert {each.rule for each in check_plan(missing, world.registry)} == {"OUTCOME_MISSING", "OUTCOMES_INCOMPLETE"}
    message = world.message(evidence_digest=evidence_digest(list(world.outcomes.values())))
    leg = next(each for each in message.legs if each.leg.leg_id == "payment")
    leg.operators_executed = True
    leg.operators_evidence.CopyFrom(evidence_to_pb(outcome.outcome.evidence))
    view = plan_from_pb(message)
    assert check_plan(view, world.registry) == []
    shown = next(each for each in view.legs if each.leg.leg_id == "payment")
    assert {each.rule for each in check_bank_leg(shown, view.header, ())} == {"BANK_BOOKINGS"}
    # What they showed of a leg that took no effect is nothing to sign over.
    leg.operators_executed = False
    assert "OUTCOME_MISSING" in {each.rule for each in check_plan(plan_from_pb(message), world.registry)}
