"""Legs as payments, and a bank's words as findings about legs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Final

from bank_gateway.meanings import Meaning
from bank_gateway.messages import Footing, Payment, Side
from bank_gateway.operations import Heard, Known
from bank_gateway.profiles import Profile
from bank_gateway.reconciliation import OurPayment, Standing
from bank_gateway.references import references
from lockstep_kit.certificate import Binding
from lockstep_kit.fence import Finding, Phase
from lockstep_kit.ids import LegId, PlanId, uetr
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.plan import BankAccount, CreditTransfer
from lockstep_kit.statements import BankEvidence, Promise, Refusal
from lockstep_kit.values import replace

#: ExternalCancellationReason1Code of a plan that is given up: cancellation requested by the customer.
CANCELLATION_REASON: Final = "CUST"
#: Where a leg's payment stands by our books. What was executed stays paid, whatever was asked of its leg since.
STANDINGS: Final[Mapping[Phase, Standing]] = {
    Phase.PREPARING: Standing.HELD,
    Phase.PREPARED: Standing.HELD,
    Phase.REFUSED: Standing.GIVEN_UP,
    Phase.COMMITTING: Standing.DUE,
    Phase.COMMITTED: Standing.BOOKED,
    Phase.ABORTING: Standing.HELD,
    Phase.RELEASED: Standing.GIVEN_UP,
    Phase.REVERSING: Standing.BOOKED,
    Phase.REVERSED: Standing.BOOKED,
}
_MILLISECOND: Final = timedelta(milliseconds=1)


def credit_terms(binding: Binding) -> CreditTransfer:
    """Terms of a leg that this gateway serves."""
    terms = binding.leg.terms
    if not isinstance(terms, CreditTransfer):
        raise AssertionError("the engine hands over legs of the declared kinds only")
    return terms


def hold_ends(work: LegWork) -> datetime:
    """When the hold of a leg that is prepared ends: when its promise must stand at the least, in whole milliseconds, which messages carry."""
    if work.hold_until is None:
        raise AssertionError("a leg is prepared with the time that its promise must stand")
    return _whole_milliseconds(work.hold_until)


def known_payment(binding: Binding, settlement_date: date, expires_at: datetime, footing: Footing = Footing.CONDITIONAL) -> Payment:
    """The payment of a leg, from its terms, and the date and the time that were set when it was asked for."""
    terms = credit_terms(binding)
    return Payment(
        references=references(binding.header.plan_id, binding.leg.leg_id),
        amount=terms.amount,
        settlement_date=settlement_date,
        debtor=_side(terms.debtor),
        creditor=_side(terms.creditor),
        charge_bearer=terms.charge_bearer.value,
        remittance=terms.remittance,
        lock=binding.lock,
        expires_at=expires_at,
        footing=footing,
    )


def _side(account: BankAccount) -> Side:
    return Side(account.name, account.iban, account.agent_bic, account.institution_bic)


def _whole_milliseconds(moment: datetime) -> datetime:
    cut = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return cut if cut == moment else cut + _MILLISECOND


def promise_until(work: LegWork, profile: Profile, asked_at: datetime, hold_max: timedelta) -> datetime:
    """When the promise ends: as we promised it, for a leg whose row was restored from its vote.

    A reservation ends when all reservations do, by the agreement with the bank; anything else when the promise must stand at the least.
    """
    promise = None if work.vote is None else work.vote.vote.promise
    if promise is not None:
        return promise.expires_at or asked_at
    if profile.reserves:
        return _whole_milliseconds(asked_at + hold_max - _MILLISECOND)
    return asked_at if work.hold_until is None else hold_ends(work)


def our_payment(work: LegWork, known: Known, overdue_since: datetime) -> OurPayment:
    """What our books say of a leg's payment; one that was being executed before a moment should be stated."""
    payment = known_payment(work.binding, work.since, work.since)
    return OurPayment(
        plan_id=work.plan_id,
        leg_id=work.leg_id,
        uetr=payment.references.uetr,
        end_to_end_id=payment.references.end_to_end_id,
        amount=payment.amount,
        debtor=payment.debtor.iban,
        creditor=payment.creditor.iban,
        creditor_here=payment.creditor.agent_bic[:8] == payment.debtor.agent_bic[:8],
        standing=STANDINGS[work.phase],
        overdue=work.phase is Phase.COMMITTING and work.since < overdue_since,
        booked_on=date.fromisoformat(known.booked_on) if known.booked_on else None,
        debit_reference=known.booking_reference,
        credited=known.credited_account,
        returns=tuple(known.returns.values()),
        returned_on=tuple((name, date.fromisoformat(day) if day else None) for name, day in known.returned_on.items()),
    )


def evidence_of(known: Known, plan_id: PlanId, leg_id: LegId, bank_bic: str) -> BankEvidence:
    """Where the bank's words can be looked up."""
    return BankEvidence(
        bank_bic=bank_bic,
        uetr=uetr(plan_id, leg_id),
        status=known.status,
        message_id=known.status_message_id,
        message_sha256=bytes.fromhex(known.status_sha256),
        booking_reference=known.booking_reference,
        booking_sha256=bytes.fromhex(known.booking_sha256),
    )


def completion_of(work: LegWork, heard: Heard, promised: Promise, bank_bic: str) -> Completion | None:
    """The finding that a bank's words lead to, or None; `promised` is what a YES promises, without what shows it."""
    evidence = evidence_of(heard.known, work.plan_id, work.leg_id, bank_bic)
    match heard.meaning:
        case Meaning.VOTES_YES:
            return Completion(work.plan_id, work.leg_id, Finding.VOTED_YES, promise=replace(promised, evidence=evidence))
        case Meaning.VOTES_NO | Meaning.LAPSED | Meaning.REFUSED:
            finding = {
                Meaning.VOTES_NO: Finding.VOTED_NO,
                Meaning.LAPSED: Finding.LAPSED,
                Meaning.REFUSED: Finding.REFUSED,
            }[heard.meaning]
            refusal = Refusal(heard.reason, heard.known.reason, heard.detail)
            return Completion(work.plan_id, work.leg_id, finding, refusal=refusal)
        case Meaning.SETTLES:
            return Completion(work.plan_id, work.leg_id, Finding.EXECUTED, evidence=evidence)
        case Meaning.RELEASED:
            return Completion(work.plan_id, work.leg_id, Finding.RELEASED, evidence=evidence)
        case _:
            return None
