"""Legs as payments, and a bank's words as findings about legs. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from bank_gateway.messages import Payment, Side
from bank_gateway.operations import Heard, Known, Meaning
from bank_gateway.references import references
from lockstep_kit.certificate import Binding
from lockstep_kit.fence import Finding
from lockstep_kit.ids import LegId, PlanId, uetr
from lockstep_kit.participant.ports import Completion, LegWork
from lockstep_kit.plan import CreditTransfer
from lockstep_kit.statements import BankEvidence, Promise, PromiseKind, Refusal

#: ExternalCancellationReason1Code of a plan that is given up: cancellation requested by the customer.
CANCELLATION_REASON: Final = "CUST"
_MILLISECOND: Final = timedelta(milliseconds=1)


def credit_terms(binding: Binding) -> CreditTransfer:
    """Terms of a leg that this gateway serves."""
    terms = binding.leg.terms
    if not isinstance(terms, CreditTransfer):
        raise AssertionError("the engine hands over legs of the declared kinds only")
    return terms


def payment_of(work: LegWork, asked_at: datetime) -> Payment:
    """The leg as a payment. The hold ends when the promise must stand at the least, in whole milliseconds, which messages carry."""
    if work.hold_until is None:
        raise AssertionError("a leg is prepared with the time that its promise must stand")
    return known_payment(work.binding, asked_at, _whole_milliseconds(work.hold_until))


def known_payment(binding: Binding, asked_at: datetime, expires_at: datetime) -> Payment:
    """The payment of a leg, from its terms and the two times that were set when it was asked for."""
    terms = credit_terms(binding)
    return Payment(
        references=references(binding.header.plan_id, binding.leg.leg_id),
        amount=terms.amount,
        settlement_date=asked_at.date(),
        debtor=Side(terms.debtor.name, terms.debtor.iban, terms.debtor.agent_bic),
        creditor=Side(terms.creditor.name, terms.creditor.iban, terms.creditor.agent_bic),
        charge_bearer=terms.charge_bearer.value,
        remittance=terms.remittance,
        lock=binding.lock,
        expires_at=expires_at,
    )


def _whole_milliseconds(moment: datetime) -> datetime:
    cut = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    return cut if cut == moment else cut + _MILLISECOND


def promise_until(work: LegWork) -> datetime | None:
    """When the bank's hold ends: as we promised it, for a leg whose row was restored from its vote."""
    promise = None if work.vote is None else work.vote.vote.promise
    if promise is not None:
        return promise.expires_at
    return None if work.hold_until is None else _whole_milliseconds(work.hold_until)


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


def completion_of(work: LegWork, heard: Heard, bank_bic: str) -> Completion | None:
    """The finding that a bank's words lead to, or None."""
    evidence = evidence_of(heard.known, work.plan_id, work.leg_id, bank_bic)
    match heard.meaning:
        case Meaning.VOTES_YES:
            promise = Promise(PromiseKind.GUARANTEED, promise_until(work), evidence)
            return Completion(work.plan_id, work.leg_id, Finding.VOTED_YES, promise=promise)
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
