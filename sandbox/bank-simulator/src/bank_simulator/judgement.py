"""Whether the bank takes a payment. Pure: what is known about accounts, agreements and the time are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bank_simulator.amounts import minor_units
from bank_simulator.checks import certain
from bank_simulator.domain import Account, PaymentOrder
from bank_simulator.hours import closed_for
from bank_simulator.settings import BankSeed, Counterparty


@dataclass(frozen=True, slots=True)
class Taken:
    """The payment is taken: the debtor's account pays, this account of the bank is credited."""

    credited_account: str
    #: What is drawn from the debtor's credit line for it.
    drawn: int = 0


@dataclass(frozen=True, slots=True)
class Turned:
    """The payment is turned down."""

    #: ExternalStatusReason1Code.
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known when a payment is judged."""

    debtor: Account | None
    #: The creditor's account here, or its correspondent's.
    credited: Account | None
    #: Whether the creditor's agent is somebody with whom the bank has an account relation.
    agent_known: bool
    #: Whether its instruction id was used before by this counterparty.
    instruction_used: bool
    #: What the debtor may still spend, after the payments before it in the same message.
    available: int
    #: What the debtor may still draw from its credit line for a hold; None where it has none.
    credit: int | None
    now: datetime


#: ExternalStatusReason1Code where the debtor's money does not suffice and no credit makes up for it: the settlement limit is exceeded.
CREDIT_DENIED: Final = "AM23"


def is_here(bank: BankSeed, agent: str | None) -> bool:
    """Whether an agent is this bank; absent means this bank, and a branch is the bank."""
    return agent is None or agent[:8] == bank.bic[:8]


def judge(order: PaymentOrder, known: Circumstances, bank: BankSeed, counterparty: Counterparty) -> Taken | Turned:
    """Takes a payment or names the first rule that it breaks, in the order in which a payments desk looks."""
    if known.instruction_used:
        return Turned("DU05", "the instruction identification was used before")
    turned = _debtor(order, known, bank, counterparty) or _creditor(order, known, bank)
    if turned is None:
        turned = _agreement(order, bank, known.now) or (_hold(order, bank, known.now) if order.lock else None)
    drawn = max(0, order.amount - known.available)
    if turned is None and drawn and known.credit is None:
        turned = Turned("AM04", "not enough money is available on the debtor's account")
    if turned is None and drawn > (known.credit or 0):
        turned = Turned(CREDIT_DENIED, "the liquidity provider lends the debtor no more")
    if turned is not None:
        return turned
    return Taken(certain(known.credited).account_id, drawn)


def _debtor(order: PaymentOrder, known: Circumstances, bank: BankSeed, counterparty: Counterparty) -> Turned | None:
    account = known.debtor
    if not is_here(bank, order.debtor_agent):
        return Turned("RC03", "the debtor's agent is not this bank")
    if account is None:
        return Turned("AC01", "this bank keeps no such debtor account")
    if account.status == "CLOSED":
        return Turned("AC04", "the debtor's account is closed")
    if account.status == "BLOCKED":
        return Turned("AC06", "the debtor's account is blocked")
    if account.kind != ("CUSTOMER" if order.institutions is None else "VOSTRO"):
        return Turned("AG01", "payments of this kind cannot be made from this kind of account")
    if order.institutions is not None and not _owns(account, order.institutions[0]):
        return Turned("BE01", "the debtor is not the owner of the account")
    if counterparty.may_debit is not None and account.account_id not in counterparty.may_debit:
        return Turned("AG01", "the sender has no mandate for the debtor's account")
    if order.debtor_name is not None and _folded(order.debtor_name) != _folded(account.owner_name):
        return Turned("BE01", "the debtor is not the owner of the account")
    if order.currency not in {seeded.currency for seeded in bank.accounts}:
        return Turned("AM11", "this bank keeps no accounts in this currency")
    if account.currency != order.currency:
        return Turned("AM03", "the debtor's account is in another currency")
    return None


def _creditor(order: PaymentOrder, known: Circumstances, bank: BankSeed) -> Turned | None:
    account = known.credited
    if not is_here(bank, order.creditor_agent):
        if not known.agent_known:
            return Turned("RC04", "the creditor's agent is no correspondent of this bank")
        if account is None:
            return Turned("AM03", "the creditor's agent has no account in this currency")
    elif account is None or account.kind not in {"CUSTOMER", "VOSTRO"}:
        return Turned("AC03", "this bank keeps no such creditor account")
    elif order.institutions is not None and not _owns(account, order.institutions[1]):
        return Turned("AC03", "the creditor is not the owner of the account")
    if account.account_id == order.debtor_account:
        return Turned("AC03", "debtor and creditor are one account")
    if account.status == "CLOSED":
        return Turned("AC07", "the creditor's account is closed")
    if account.status == "BLOCKED":
        return Turned("AC06", "the creditor's account is blocked")
    if account.currency != order.currency:
        return Turned("AM03", "the creditor's account is in another currency")
    return None


def _agreement(order: PaymentOrder, bank: BankSeed, now: datetime) -> Turned | None:
    terms = bank.terms
    if order.charge_bearer not in terms.charge_bearers:
        return Turned("BE19", "this bank does not take this charge bearer")
    if order.expires_at is not None and order.expires_at <= now:
        return Turned("TM01", "the payment came after its own expiry")
    local = now.astimezone(ZoneInfo(bank.time_zone))
    day = order.settlement_date or local.date()
    if day < local.date() - timedelta(days=terms.settlement_days_back_max):
        return Turned("DT01", "the settlement date has passed")
    if day > local.date() + timedelta(days=terms.settlement_days_ahead_max):
        return Turned("DT01", "the settlement date is too far ahead")
    why = closed_for(terms, order.currency, local, day, certain(order.expires_at).astimezone(local.tzinfo) if order.lock else None)
    return Turned("TM01", why) if why else None


def _hold(order: PaymentOrder, bank: BankSeed, now: datetime) -> Turned | None:
    if certain(order.expires_at) > now + timedelta(seconds=bank.terms.hold_seconds_max):
        return Turned("CH03", "the expiry is further ahead than this bank holds money")
    limit = bank.terms.hold_amount_max.get(order.currency)
    if limit is not None and order.amount > minor_units(limit, order.currency):
        return Turned("AM14", "the amount is larger than this bank holds")
    return None


def _owns(account: Account, institution: str) -> bool:
    """Whether an account is an institution's; a branch is the institution."""
    return (account.owner_bic or "")[:8] == institution[:8]


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())
