"""A day three ways: what the bank stated, what the coordinator has as evidence, and what the chain is said to hold. Pure.

1. A payment that the coordinator has as executed is booked at the bank: same UETR, reference and amount, and a whole statement has it, or is awaited.
2. A payment that is booked is executed for the coordinator, once its plan is over.
3. A token transfer that is executed names the entry and transaction that show it; and where a plan is over, its payments and its token transfers took
   effect together or not at all.
4. What the gateway holds open about a leg is open here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum

from lockstep_client.convert import LegView, PlanView
from lockstep_kit import ids
from lockstep_kit.amounts import Amount
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.plan import CreditTransfer, TokenTransfer
from lockstep_kit.statements import BankEvidence, ChainEvidence, OutcomeKind
from lockstep_kit.values import dataclass

#: States in which nothing more becomes of a plan's legs by itself.
OVER = frozenset({"COMMITTED", "CLOSED", "ABORTED"})
#: Status of an escrow entry whose tokens went to the payee.
PAID_OUT = "Committed"


class Result(StrEnum):
    """How a leg stands."""

    #: All sides agree.
    MATCHED = "MATCHED"
    #: Booked as it should be; no whole statement has it yet.
    AWAITING_STATEMENT = "AWAITING_STATEMENT"
    #: Nothing took effect, on any side.
    NOTHING = "NOTHING"
    #: The plan is not over.
    OPEN = "OPEN"
    #: The sides differ.
    BREAK = "BREAK"


@dataclass(frozen=True, slots=True)
class BankBooking:
    """A booking as the bank-gateway shows it."""

    #: Unique end-to-end transaction reference.
    uetr: str
    #: Amount of the payment.
    amount: Amount
    #: Booking day, YYYY-MM-DD.
    booking_date: str
    #: Account servicer's reference.
    reference: str
    #: Whether a whole statement has it.
    stated: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """How the sides of a leg, or of a plan, differ."""

    #: UPPER_SNAKE.
    rule: str
    #: One sentence.
    message: str


@dataclass(frozen=True, slots=True)
class LegResult:
    """One settling leg."""

    #: The leg.
    leg_id: LegId
    #: Amount of its terms.
    amount: Amount
    #: What names it outside: a UETR, or a transaction's hash; "" where there is none.
    reference: str
    #: How it stands.
    result: Result
    #: How its sides differ.
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class PlanResult:
    """One plan."""

    #: The plan.
    plan_id: PlanId
    #: Its state.
    state: str
    #: Its settling legs, in plan order.
    legs: tuple[LegResult, ...]
    #: How its legs differ from one another.
    differences: tuple[Difference, ...]

    @property
    def broken(self) -> bool:
        """Whether anything of it is a break."""
        return bool(self.differences) or any(each.result is Result.BREAK for each in self.legs)


def compare(
    plan: PlanView,
    bookings: Mapping[LegId, BankBooking],
    open_breaks: Mapping[LegId, Sequence[Difference]],
    undone: Collection[LegId] = (),
) -> PlanResult:
    """A plan against the bank's bookings of its legs and what the bank-gateway holds open about them; `undone` are legs that were reversed since."""
    over = plan.state in OVER
    legs: list[LegResult] = []
    effects: set[bool] = set()
    for view in plan.legs:
        leg_id, terms = view.leg.leg_id, view.leg.terms
        executed = _executed(view) and leg_id not in undone
        held_open = tuple(open_breaks.get(leg_id, ()))
        if isinstance(terms, CreditTransfer):
            legs.append(_payment(plan, view, terms, bookings.get(leg_id), held_open, executed=executed))
            effects.add(executed or leg_id in bookings)
        elif isinstance(terms, TokenTransfer):
            legs.append(_tokens(view, terms, held_open, over=over, executed=executed))
            effects.add(executed)
    note = Difference("EFFECTS_APART", "some of the plan's settling legs took effect, and others did not")
    return PlanResult(plan.header.plan_id, plan.state, tuple(legs), (note,) if over and len(effects) > 1 else ())


def _executed(view: LegView) -> bool:
    """Whether the coordinator has it that the leg took effect."""
    if view.outcome is None:
        return view.operators_evidence is not None
    return view.outcome.outcome.kind in (OutcomeKind.DONE, OutcomeKind.REVERSAL_REFUSED)


def _payment(
    plan: PlanView, view: LegView, terms: CreditTransfer, booking: BankBooking | None, held_open: tuple[Difference, ...], *, executed: bool
) -> LegResult:  # fmt: skip
    uetr = ids.uetr(plan.header.plan_id, view.leg.leg_id)
    over = plan.state in OVER
    found = [*held_open]
    if executed and booking is None:
        found.append(
            Difference("BANK_NOT_BOOKED", "the coordinator has the payment as executed, and the bank told no booking of it")
        )
    if booking is not None and over and not executed:
        found.append(
            Difference("BOOKED_NOT_EXECUTED", f"the bank booked the payment ({booking.reference}), and its plan is {plan.state}")
        )
    if booking is not None:
        found += _differs(view, terms, booking, uetr)
    if found:
        result = Result.BREAK
    elif booking is None:
        result = Result.NOTHING if over else Result.OPEN
    elif not executed:
        result = Result.OPEN
    else:
        result = Result.MATCHED if booking.stated else Result.AWAITING_STATEMENT
    return LegResult(view.leg.leg_id, terms.amount, uetr, result, tuple(found))


def _differs(view: LegView, terms: CreditTransfer, booking: BankBooking, uetr: str) -> Iterator[Difference]:
    if booking.uetr != uetr:
        yield Difference("UETR_DIFFERS", f"the booking is of another payment: {booking.uetr}")
    if booking.amount != terms.amount:
        yield Difference("AMOUNT_DIFFERS", f"the booking is of {booking.amount}, the plan of {terms.amount}")
    evidence = view.evidence
    if _executed(view) and not isinstance(evidence, BankEvidence):
        yield Difference("EVIDENCE_MISSING", "the coordinator has no evidence of the payment")
    elif isinstance(evidence, BankEvidence) and evidence.booking_reference not in ("", booking.reference):
        yield Difference("REFERENCE_DIFFERS", f"the evidence names {evidence.booking_reference}, the bank {booking.reference}")


def _tokens(view: LegView, terms: TokenTransfer, held_open: tuple[Difference, ...], *, over: bool, executed: bool) -> LegResult:
    evidence = view.evidence
    found = [*held_open]
    chained = isinstance(evidence, ChainEvidence)
    if executed and not chained:
        found.append(Difference("EVIDENCE_MISSING", "the coordinator has no evidence of the token transfer"))
    if executed and isinstance(evidence, ChainEvidence) and evidence.entry_status != PAID_OUT:
        found.append(Difference("CHAIN_NOT_PAID_OUT", f"the evidence shows the escrow entry as {evidence.entry_status}"))
    transaction = evidence.transaction_hash.hex() if isinstance(evidence, ChainEvidence) and evidence.transaction_hash else ""
    if found:
        result = Result.BREAK
    elif executed:
        result = Result.MATCHED
    else:
        result = Result.NOTHING if over else Result.OPEN
    return LegResult(view.leg.leg_id, terms.amount, f"0x{transaction}" if transaction else "", result, tuple(found))
