"""I3: at most one effective transaction for a leg, one booking for a UETR, each exactly as the plan's terms say, and none without a plan. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from lockstep_contracts import events
from lockstep_contracts.escrow import leg_id_hash
from lockstep_kit.amounts import erc20_asset
from lockstep_kit.instruments import IssueInstrument
from lockstep_kit.plan import CreditTransfer, Leg, TokenTransfer
from lockstep_testkit.checker.bank import BankPosting
from lockstep_testkit.checker.evidence import EscrowEvent, Evidence, PlanRow, Violation

#: Events by which value ends up somewhere; a leg has one of them at the most.
_ENDS = (events.Committed, events.Aborted, events.Executed)
#: Postings by which a payment is booked, and by which its hold ends.
_BOOKED = ("SETTLE", "PAYMENT")
_UNHELD = ("SETTLE", "RELEASE")


def check_effects(evidence: Evidence) -> Iterator[Violation]:
    """Every effect that happened twice, otherwise than agreed, or for no plan."""
    yield from _tokens(evidence)
    yield from _payments(evidence)
    yield from _undertakings(evidence)


# -- Tokens ------------------------------------------------------------------------------------------------------------


def _tokens(evidence: Evidence) -> Iterator[Violation]:
    by_leg: dict[bytes, list[EscrowEvent]] = defaultdict(list)
    for each in evidence.chain.events:
        by_leg[each.leg_key].append(each)
    for key, happened in by_leg.items():
        kinds = Counter(type(each.event) for each in happened)
        plan, leg = evidence.leg_keys.get(key, (None, None))
        if plan is None or leg is None:
            if kinds[events.Prepared]:
                yield Violation("I3", "", "", f"the escrow took tokens for leg {key.hex()}, which is in no plan")
            continue
        if not evidence.judged(plan.plan_id):
            continue
        ends, undone = sum(kinds[each] for each in _ENDS), kinds[events.Reversed]
        if max(kinds[events.Prepared], ends, undone, kinds[events.Tombstoned]) > 1 or undone > kinds[events.Committed]:
            told = ", ".join(f"{each.__name__} {count}" for each, count in kinds.items())
            yield Violation("I3", plan.plan_id, leg.leg_id, f"the escrow moved the leg more than once: {told}")
        for each in happened:
            yield from _as_agreed(evidence, plan, leg, each)


def _as_agreed(evidence: Evidence, plan: PlanRow, leg: Leg, happened: EscrowEvent) -> Iterator[Violation]:
    if not isinstance(leg.terms, TokenTransfer):
        yield Violation("I3", plan.plan_id, leg.leg_id, "the escrow knows a leg that moves no tokens")
        return
    terms, event, escrow = leg.terms, happened.event, evidence.chain.escrow
    token = erc20_asset(terms.amount.asset).token.lower()
    payer, payee = terms.payer.lower(), terms.payee.lower()
    moves: tuple[str, str] | None
    match event:
        case events.Prepared():
            held = event.terms
            wrong = (held.token.lower(), held.payer.lower(), held.payee.lower(), held.amount, held.leg_id_hash) != (
                token,
                payer,
                payee,
                terms.amount.minor_units,
                leg_id_hash(leg.leg_id),
            )
            moves = (payer, escrow)
        case events.Committed():
            wrong = (event.token.lower(), event.payee.lower(), event.amount) != (token, payee, terms.amount.minor_units)
            moves = (escrow, payee) if event.paid else None
        case events.Aborted():
            wrong = (event.token.lower(), event.payer.lower(), event.amount) != (token, payer, terms.amount.minor_units)
            moves = (escrow, payer) if event.paid else None
        case events.Reversed():
            told = (event.token.lower(), event.payer.lower(), event.payee.lower(), event.amount)
            wrong = told != (token, payer, payee, terms.amount.minor_units)
            moves = (payee if event.forced else escrow, payer) if event.paid else None
        case _:
            return
    if wrong:
        yield Violation("I3", plan.plan_id, leg.leg_id, f"the escrow did something else than agreed: {event}")
    if moves is not None and not any(
        (each.token, each.sender, each.recipient, each.amount) == (token, *moves, terms.amount.minor_units)
        for each in evidence.chain.transfers
        if each.transaction_hash == happened.transaction_hash
    ):
        yield Violation("I3", plan.plan_id, leg.leg_id, f"no transfer belongs to {type(event).__name__} of the leg")


# -- Payments ----------------------------------------------------------------------------------------------------------


def _payments(evidence: Evidence) -> Iterator[Violation]:
    by_uetr: dict[str, list[BankPosting]] = defaultdict(list)
    for posting in evidence.bank.postings:
        if posting.uetr:
            by_uetr[posting.uetr].append(posting)
    for reference, postings in by_uetr.items():
        plan, leg = evidence.uetrs.get(reference, (None, None))
        if plan is None or leg is None:
            yield Violation("I3", "", "", f"the bank booked payment {reference}, which is in no plan")
            continue
        if not evidence.judged(plan.plan_id):
            continue
        kinds = Counter(each.kind for each in postings)
        booked, unheld = sum(kinds[each] for each in _BOOKED), sum(kinds[each] for each in _UNHELD)
        if booked > 1 or unheld > 1 or kinds["HOLD"] > 1:
            told = ", ".join(f"{each} {count}" for each, count in kinds.items())
            yield Violation("I3", plan.plan_id, leg.leg_id, f"the bank booked the payment more than once: {told}")
        own = {each.account_id for each in evidence.bank.accounts}
        yield from _booked_as_agreed(plan, leg, postings, own, settled=booked > 0, held=kinds["HOLD"] > unheld)


def _booked_as_agreed(
    plan: PlanRow, leg: Leg, postings: list[BankPosting], own: set[str], *, settled: bool, held: bool
) -> Iterator[Violation]:
    """The debtor gave the amount, or nothing; the creditor was given it, or nothing. Credit that is drawn beside it is the bank's own affair."""
    terms = leg.terms
    if not isinstance(terms, CreditTransfer):
        raise TypeError(f"leg {leg.leg_id} is no payment")
    amount = terms.amount.minor_units
    sums: dict[str, int] = defaultdict(int)
    for posting in postings:
        if posting.kind in ("HOLD", "RELEASE", "SETTLE", "PAYMENT"):
            for line in posting.lines:
                sums[line.account_id] += line.amount
    given = amount if settled or held else 0
    if sums[terms.debtor.iban] != -given:
        text = f"the debtor gave {-sums[terms.debtor.iban]} minor units, and should have given {given}"
        yield Violation("I3", plan.plan_id, leg.leg_id, text)
    taken = amount if settled else 0
    # A creditor at another bank is credited there.
    if terms.creditor.iban in own and sums[terms.creditor.iban] != taken:
        text = f"the creditor was given {sums[terms.creditor.iban]} minor units, and should have been given {taken}"
        yield Violation("I3", plan.plan_id, leg.leg_id, text)


# -- Undertakings ------------------------------------------------------------------------------------------------------


def _undertakings(evidence: Evidence) -> Iterator[Violation]:
    """At most one for a leg, as the plan's terms say, and none without a plan."""
    for reference, found in evidence.bank.undertakings.items():
        plan, leg = evidence.instruments.get(reference, (None, None))
        if plan is None or leg is None:
            if found.state in ("LODGED", "ISSUED"):
                yield Violation("I3", "", "", f"the bank has undertaking {reference}, which is in no plan")
            continue
        if not evidence.judged(plan.plan_id):
            continue
        if found.issues != (found.state == "ISSUED"):
            text = f"the bank issued the undertaking {found.issues} times, and says {found.state}"
            yield Violation("I3", plan.plan_id, leg.leg_id, text)
        terms = leg.terms
        if not isinstance(terms, IssueInstrument):
            raise TypeError(f"leg {leg.leg_id} issues nothing")
        told = (found.amount, found.currency, found.account, found.beneficiary, found.expires_on)
        agreed = terms.amount.minor_units, terms.amount.asset, terms.applicant_account, terms.beneficiary.name
        if found.state in ("LODGED", "ISSUED") and told != (*agreed, terms.expiry_date.isoformat()):
            yield Violation("I3", plan.plan_id, leg.leg_id, f"the bank undertook something else than agreed: {told}")
