"""Messages of payments, pacs.008 or pacs.009: each of its payments is judged by itself; what is taken is held, or settled at once if it has no lock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from bank_simulator import credit, reservation_store, reservations, store, telling
from bank_simulator.books import hold_account, line_account
from bank_simulator.correspondence import Correspondence, booked_entries, booking_reference, hold_reference
from bank_simulator.domain import Account, BookedEntry, Original, Payment, PaymentBatch, PaymentOrder, PaymentState, Status
from bank_simulator.judgement import CREDIT_DENIED, Circumstances, Taken, Turned, is_here, judge
from bank_simulator.misbehaviour import Kind, Stage, Subject
from bank_simulator.reservation_store import Reservation, ReservationState
from bank_simulator.telling import Said, Told


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message of payments that was received."""

    batch: PaymentBatch
    #: Its identification.
    message_id: str
    #: The bank's number for it.
    received: int | None


@dataclass(frozen=True, slots=True)
class _Judged:
    """A payment that is new to the bank, and what it decided."""

    arrived: Arrived
    order: PaymentOrder
    verdict: Taken | Turned
    hold_until: datetime | None


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What the books and the register of payments say about a batch."""

    accounts: Mapping[str, Account]
    vostros: Mapping[tuple[str, str], str]
    used_instructions: set[str]
    reserved: Mapping[UUID, Reservation]


async def take(desk: Correspondence, arrived: Sequence[Arrived], moved: Collection[str] = ()) -> None:
    """Judges, books and answers messages, each payment by itself and after those before it.

    `moved` are accounts that the transaction moves later: they are locked with the payments', in one order.
    """
    if not arrived:
        return
    orders = [order for each in arrived for order in each.batch.payments]
    known = await store.find_payments(desk.tx, [order.uetr for order in orders])
    fresh = [(each, order) for each in arrived for order in each.batch.payments if order.uetr not in known]
    judged = _judge(desk, fresh, await _look_around(desk, [order for _, order in fresh], moved))
    items = [item for each in judged if isinstance(each.verdict, Taken) for item in _postings(each, each.verdict)]
    posted = await store.post(desk.tx, items)
    statuses = {each.order.uetr: _status(each, posted) for each in judged}
    for message in arrived:
        for order in message.batch.payments:
            if order.uetr in known:
                statuses[order.uetr] = _status_of_known(desk, order, known[order.uetr], message.message_id)
    await _keep(desk, arrived, judged, statuses, posted)
    for each in judged:
        if isinstance(each.verdict, Taken) and each.order.lock is None:
            await credit.sweep(desk, each.order.uetr, {each.order.debtor_account, each.verdict.credited_account})


async def _keep(
    desk: Correspondence, arrived: Sequence[Arrived], judged: Sequence[_Judged], statuses: Mapping[UUID, Status],
    posted: Mapping[str, store.Posted],
) -> None:  # fmt: skip
    """Says what was decided: a status of each payment, and a booking of each that is booked. Keeps the payments with it."""
    new = {each.order.uetr for each in judged}
    alone = {
        message.message_id for message in arrived if len(message.batch.payments) == 1 and message.batch.payments[0].uetr in new
    }
    whole = [
        desk.made_status(
            [statuses[order.uetr] for order in message.batch.payments],
            message.received,
            whole_message=message.message_id,
            kind=message.batch.message_kind,
        )
        for message in arrived
        if message.message_id not in alone
    ]
    told = [_told(each, statuses[each.order.uetr], posted, alone=each.arrived.message_id in alone) for each in judged]
    said = await telling.tell(desk, told, whole)
    rows = [_kept(each, statuses[each.order.uetr], said[each.order.uetr]) for each in judged]
    await store.add_payments(desk.tx, desk.counterparty.name, rows)
    for each in judged:
        if each.order.reserved and said[each.order.uetr].booking is not None:
            await reservation_store.end(desk.tx, each.order.uetr, ReservationState.PAID)
        desk.in_reply_to, status = each.arrived.received, statuses[each.order.uetr]
        stage: Stage = "payment" if each.order.lock else "release"
        await desk.contradict(status.original, status.code, each.order.debtor_account, stage)


async def _look_around(desk: Correspondence, orders: Sequence[PaymentOrder], moved: Collection[str]) -> _Surroundings:
    banks = {(order.creditor_agent or "")[:8] for order in orders if not is_here(desk.bank, order.creditor_agent)}
    vostros = await store.vostro_accounts(desk.tx, banks) if banks else {}
    credited = {order.uetr: _credited(desk, order, vostros) or "" for order in orders}
    # A hold takes from the debtor alone; an ordinary payment books on both accounts, which are locked together, in one order.
    booked = {order.debtor_account for order in orders} | {credited[order.uetr] for order in orders if order.lock is None}
    lines = {line_account(account) for account in booked & desk.bank.borrowers}
    held = {hold_account(order.currency) for order in orders}
    accounts = await store.accounts(desk.tx, booked | lines | held | set(moved), lock=True)
    others = await store.accounts(desk.tx, [account for account in credited.values() if account not in accounts], lock=False)
    instructions = [order.instruction_id for order in orders if order.instruction_id]
    used = await store.find_used_instructions(desk.tx, desk.counterparty.name, instructions)
    reserved = await reservation_store.find(desk.tx, [order.uetr for order in orders if order.reserved])
    return _Surroundings(accounts | others, vostros, used, reserved)


def _credited(desk: Correspondence, order: PaymentOrder, vostros: Mapping[tuple[str, str], str]) -> str | None:
    if is_here(desk.bank, order.creditor_agent):
        return order.creditor_account
    return vostros.get(((order.creditor_agent or "")[:8], order.currency))


def _judge(desk: Correspondence, fresh: Sequence[tuple[Arrived, PaymentOrder]], around: _Surroundings) -> list[_Judged]:
    available = {account.account_id: account.available for account in around.accounts.values()}
    judged = []
    for arrived, order in fresh:
        circumstances = Circumstances(
            debtor=around.accounts.get(order.debtor_account),
            credited=around.accounts.get(_credited(desk, order, around.vostros) or ""),
            agent_known=any(bank == (order.creditor_agent or "")[:8] for bank, _ in around.vostros),
            instruction_used=order.instruction_id in around.used_instructions,
            available=order.amount if order.reserved else available.get(order.debtor_account, 0), credit=_credit(order, around, available), now=desk.now,
        )  # fmt: skip
        verdict = judge(order, circumstances, desk.bank, desk.counterparty)
        if isinstance(verdict, Taken) and order.reserved:
            verdict = reservations.refuses(order, around.reserved.get(order.uetr), desk.counterparty, desk.now) or verdict
        subject = Subject(frozenset([order.uetr]), frozenset([order.debtor_account]))
        if isinstance(verdict, Taken) and (refusal := desk.mischief.take({Kind.REFUSE}, subject, stage="payment")):
            verdict = Turned(refusal.reason, "refused by the bank")
        if isinstance(verdict, Taken) and verdict.drawn and desk.mischief.take({Kind.DENY_CREDIT}, subject):
            verdict = Turned(CREDIT_DENIED, "the liquidity provider denies the credit")
        hold_until = order.expires_at if order.lock else None
        if isinstance(verdict, Taken) and not order.reserved:
            available[order.debtor_account] -= order.amount - verdict.drawn
            if verdict.drawn:
                available[line_account(order.debtor_account)] -= verdict.drawn
            if hold_until and (early := desk.mischief.take({Kind.EXPIRE_EARLY}, subject)):
                hold_until = desk.now + timedelta(milliseconds=early.delay_ms)
        judged.append(_Judged(arrived, order, verdict, hold_until))
    return judged


def _credit(order: PaymentOrder, around: _Surroundings, available: Mapping[str, int]) -> int | None:
    """What the debtor may still draw: for holds only, and only while the provider lends."""
    line = around.accounts.get(line_account(order.debtor_account)) if order.lock else None
    if line is None:
        return None
    return available[line.account_id] if line.status == "OPEN" else 0


def _postings(judged: _Judged, verdict: Taken) -> list[store.Item]:
    order = judged.order
    debtor, credited, amount = order.debtor_account, verdict.credited_account, order.amount
    if order.reserved:
        return [store.Item(_booked_as(order), "SETTLE", order.uetr, hold_account(order.currency), credited, amount)]
    if order.lock is None:
        return [store.Item(_booked_as(order), "PAYMENT", order.uetr, debtor, credited, amount)]
    hold = store.Item(f"hold:{order.uetr}", "HOLD", order.uetr, debtor, hold_account(order.currency), amount)
    return [*credit.draw(order.uetr, debtor, verdict.drawn), hold]


def _booked_as(order: PaymentOrder) -> str:
    """Reference of the posting that books a payment which is not held."""
    return f"{'settle' if order.reserved else 'pay'}:{order.uetr}"


def _original(order: PaymentOrder, message_id: str) -> Original:
    names = (message_id, order.instruction_id, order.end_to_end_id, order.transaction_id, order.uetr)
    return Original(*names, order.message_kind)


def _status(judged: _Judged, posted: Mapping[str, store.Posted]) -> Status:
    original = _original(judged.order, judged.arrived.message_id)
    if isinstance(judged.verdict, Turned):
        return Status(original, "RJCT", judged.verdict.reason, judged.verdict.text)
    if judged.order.lock is not None:
        return Status(original, "ACFW", servicer_reference=hold_reference(posted[f"hold:{judged.order.uetr}"]))
    return Status(original, "ACSC", servicer_reference=booking_reference(posted[_booked_as(judged.order)], "D"))


def _status_of_known(desk: Correspondence, order: PaymentOrder, payment: Payment, message_id: str) -> Status:
    """A UETR that is known already: the same payment gets the status that it has, another one is refused. Nothing changes."""
    original = _original(order, message_id)
    if payment.counterparty != desk.counterparty.name or payment.content_sha256 not in (None, order.content_sha256):
        return Status(original, "RJCT", "DU03", "another payment has this UETR")
    match payment.state:
        case PaymentState.HELD:
            return Status(original, "ACFW")
        case PaymentState.SETTLED:
            return Status(original, "ACSC", key=payment.hold_key)
        case PaymentState.TOMBSTONED:
            return Status(original, "RJCT", "TM01", "cancelled or asked about before it came")
        case PaymentState.CANCELLED:
            return Status(original, "RJCT", "DS02", "cancelled by the sender")
        case _:
            return Status(original, "RJCT", payment.reason, "as said before")


def _told(judged: _Judged, status: Status, posted: Mapping[str, store.Posted], *, alone: bool) -> Told:
    """What is said of a payment; `alone`: it is the only one of its message."""
    order, message = judged.order, judged.arrived
    entries: Sequence[BookedEntry] = ()
    if isinstance(judged.verdict, Taken) and order.lock is None:
        entries = booked_entries(order, status.original, judged.verdict.credited_account, posted[_booked_as(order)])
    if not alone:
        return Told(order.uetr, order.debtor_account, message.received, None, entries)
    return Told(order.uetr, order.debtor_account, message.received, status, entries, whole_message=message.message_id)


def _kept(judged: _Judged, status: Status, said: Said) -> store.NewPayment:
    verdict = judged.verdict
    if isinstance(verdict, Taken):
        state = PaymentState.HELD if judged.order.lock else PaymentState.SETTLED
        credited, drawn = verdict.credited_account, verdict.drawn
    else:
        state, credited, drawn = PaymentState.REJECTED, None, 0
    return store.NewPayment(
        judged.order,
        judged.arrived.message_id,
        state,
        status.reason,
        credited,
        judged.hold_until,
        said.status,
        status.code,
        said.booking,
        drawn,
    )
