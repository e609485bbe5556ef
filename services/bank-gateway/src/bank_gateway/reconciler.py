"""Reconciles each account and day once its statement is whole, and notices statements that are overdue. Holds no rules.

One transaction for each statement: what it settles, the breaks that it opens and resolves, and that it was reconciled, are there together or not at all. A
statement that comes late is reconciled when it comes, and the one after it again; so is a correction of a day that was reconciled.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from bank_gateway import matters, statement_store, statements, store
from bank_gateway.bookkeeping import Hearing
from bank_gateway.breaks import NO_MESSAGE, open_break, resolve_breaks
from bank_gateway.courier import Courier
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.ledger import rules, upkeep
from bank_gateway.ledger import store as ledger_store
from bank_gateway.ledger.reconciliation import STATED, LedgerDay, against_ledger, balance_differs, of_day
from bank_gateway.ledger.rules import AccountKind, Entry
from bank_gateway.listening import Said
from bank_gateway.operations import Known
from bank_gateway.payments import credit_terms, our_payment
from bank_gateway.reconciliation import Break, DayStatement, OurPayment, Reconciled, follows, overdue, reconcile, resolved
from bank_gateway.settings import BankGatewaySettings
from bank_gateway.statement_store import KnownBreak, StatementRow
from bank_gateway.statements import WholeStatement
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.fence import Phase
from lockstep_kit.ids import LegId, PlanId
from lockstep_kit.loops import Loop
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import LegWork
from lockstep_kit.plan import CreditTransfer
from lockstep_kit.values import dataclass

_log = structlog.get_logger()

#: How far back it is looked for days without a statement; what is older was a break while it was younger.
LOOKED_BACK: Final = timedelta(days=62)
#: Legs that are read at a time.
READ_MAX: Final = 500

Leg = tuple[PlanId, LegId]

for _where in ("reconcile.in_tx", "reconcile.after_commit"):
    declare(f"bank-gateway.{_where}")


class Reconciler:
    """One bank's statements against our books."""

    def __init__(
        self, db: Database, engine: ParticipantEngine, courier: Courier, settings: BankGatewaySettings, schemas: Schemas
    ) -> None:
        self._db = db
        self._engine = engine
        self._courier = courier
        self._settings = settings
        self._schemas = schemas

    def loops(self) -> tuple[Loop, ...]:
        """Loops to run beside the server."""
        return (Loop("bank.reconcile", self.run, poll_seconds=self._settings.reconcile_seconds, wake=self._courier.stated),)

    async def run(self) -> None:
        """Reconcile what is whole, until nothing is; then look for what is overdue, and for doubts that are gone."""
        while await self.reconcile_next():
            pass
        await self._notice_overdue()
        await self._clear_doubts()

    async def reconcile_next(self) -> bool:
        """Reconcile one statement; False where there is none."""
        async with self._db.transaction() as tx:
            row = await statement_store.claim_statement(tx)
            if row is None:
                return False
            stated = await statements.whole(tx, row, self._schemas)
            known_breaks = await statement_store.breaks_of_account(tx, row.account, row.booking_date)
            posted = await self._posted(tx, row, stated.statement)
            # Looked at first without locks, to know which legs are concerned: most are as they should be, and nobody waits for them.
            concerned, locked = {each.difference.leg for each in known_breaks if each.difference.leg is not None}, set[Leg]()
            compared = await self._compare(tx, stated, posted, lock=())
            while not locked >= (more := concerned | compared.concerned):
                locked |= more
                compared = await self._compare(tx, stated, posted, lock=locked)
            found, hearing = compared.found, Hearing(compared.histories)
            for place, our in found.settles:
                await self._hear(tx, stated, place, our, hearing)
                _log.info("statement_settles", plan_id=our.plan_id, leg_id=our.leg_id, statement=stated.statement.statement_id)
            for place, our in found.returns:
                await self._hear(tx, stated, place, our, hearing)
            breaks = await self._against_ledger(tx, stated.statement, compared, posted, hearing)
            await self._renew(tx, row, stated, found, known_breaks, breaks, posted.upto)
            await hearing.post(tx)
            await failpoint("bank-gateway.reconcile.in_tx")
        await failpoint("bank-gateway.reconcile.after_commit")
        return True

    async def _posted(self, tx: Connection, row: StatementRow, statement: DayStatement) -> _Posted:
        """What the ledger posted on the account since the statement before."""
        ledger = rules.ledger_of(row.counterparty, statement.currency)
        after, upto = await statement_store.ledger_window(tx, row, ledger)
        recent = await upkeep.recent(tx, ledger, rules.account_of(row.account, AccountKind.SETTLED), after, upto)
        return _Posted(ledger, upto, recent)

    async def _compare(self, tx: Connection, stated: WholeStatement, posted: _Posted, *, lock: Collection[Leg]) -> _Compared:
        """The statement against our books and the ledger, as they are before anything that it says is done."""
        # The ledger is read after the legs: whatever moved a leg posted it in the same transaction.
        ours = await self._ours(tx, stated, {each.uetr for each in posted.recent}, lock=lock)
        histories = await ledger_store.histories(tx, [each.uetr for each in ours])
        found = reconcile(stated.statement, ours)
        books = LedgerDay(posted.ledger, histories, posted.recent)
        breaks = against_ledger(stated.statement, found, ours, books)
        return _Compared(ours, found, histories, found.concerned | {each.leg for each in breaks if each.leg is not None})

    async def _against_ledger(
        self, tx: Connection, statement: DayStatement, compared: _Compared, posted: _Posted, hearing: Hearing
    ) -> list[Break]:  # fmt: skip
        """How the ledger differs from a statement, with what that made us post counted as posted."""
        ours, found, account = compared.ours, compared.found, rules.account_of(statement.account, AccountKind.SETTLED)
        moved = await upkeep.moved(tx, posted.ledger, account, statement.day, of_day(statement, ours))
        now = sum(_moves(each, posted.ledger, account) for each in hearing.noted)
        if moved is not None or now:
            moved = (moved or 0) + now
        books = LedgerDay(posted.ledger, hearing.histories, posted.recent, moved)
        breaks = against_ledger(statement, found, ours, books)
        return [*breaks, *balance_differs(statement, ours, books, [*found.breaks, *breaks])]

    async def _ours(
        self, tx: Connection, stated: WholeStatement, posted: Collection[str], *, lock: Collection[Leg]
    ) -> list[OurPayment]:  # fmt: skip
        """What our books say of a statement's payments, of those told as booked on its day, posted or being executed."""
        entries, statement = stated.statement.entries, stated.statement
        if lock:
            await self._engine.load(tx, sorted(lock), lock=True)
        known = await statement_store.payments_of_day(
            tx, {each.uetr for each in entries if each.uetr} | {*posted}, {each.end_to_end_id for each in entries if each.end_to_end_id},
            statement.account, statement.day,
        )  # fmt: skip
        works: dict[Leg, LegWork] = {}
        legs = sorted(known)
        for begin in range(0, len(legs), READ_MAX):
            works |= {(each.plan_id, each.leg_id): each for each in await self._engine.load(tx, legs[begin : begin + READ_MAX])}
        executing = await self._executing(tx, statement.account)
        known |= await statement_store.known_of(tx, [leg for leg in executing if leg not in known])
        works |= executing
        # As long as a question about a payment may wait, so may its booking.
        since = stated.pages[0][0].envelope.created_at - timedelta(seconds=self._settings.inquiry_seconds_max)
        return [our_payment(work, known.get(leg, Known()), since) for leg, work in sorted(works.items())]

    async def _executing(self, tx: Connection, account: str) -> dict[Leg, LegWork]:
        found: dict[Leg, LegWork] = {}
        after: Leg | None = None
        while page := await self._engine.working(tx, (Phase.COMMITTING,), after=after):
            found |= {(each.plan_id, each.leg_id): each for each in page if _debtor(each) == account}
            after = page[-1].plan_id, page[-1].leg_id
        return found

    async def _hear(self, tx: Connection, stated: WholeStatement, place: int, our: OurPayment, hearing: Hearing) -> None:
        """The statement's entry counts as a booking that the bank told."""
        received = stated.page_of(place)
        for work in await self._engine.load(tx, [(our.plan_id, our.leg_id)]):
            said = Said(received, place, stated.statement.entries[place])
            await self._courier.listening.hear(tx, [(work, said)], hearing)

    async def _renew(
        self, tx: Connection, row: StatementRow, stated: WholeStatement, found: Reconciled, known: Sequence[KnownBreak],
        on_the_books: Sequence[Break], ledger_to: int,
    ) -> None:  # fmt: skip
        statement = stated.statement
        breaks = [*found.breaks, *on_the_books, *follows(statement, await statement_store.statement_before(tx, row))]
        here = {each.difference.name for each in known}
        message = stated.pages[-1][0]
        for each in breaks:
            if each.name not in here:
                await open_break(tx, self._engine, row.counterparty, each, (message.envelope.message_id, message.sha256))
        over = [each.matter for each in known if each.open and resolved(each.difference, statement, found, breaks)]
        await resolve_breaks(tx, over, row.id, f"resolved by the bank's statement {statement.statement_id} of {statement.day}")
        await statement_store.set_stated(tx, row.id, [each.uetr for each in found.matched if each.debtor == statement.account])
        entries = len(statement.entries)
        await statement_store.set_reconciled(tx, row, found, entries=entries, breaks=len(breaks), ledger_to=ledger_to)
        _log.info(
            "statement_reconciled", counterparty=row.counterparty, statement=statement.statement_id, day=statement.day.isoformat(), number=statement.number,
            entries=len(statement.entries), matched=len(found.matched), settled=len(found.settles), breaks=len(breaks),
        )  # fmt: skip

    async def _notice_overdue(self) -> None:
        async with self._db.transaction() as tx:
            now = await store.now(tx)
            end = last_due_day(now, self._settings)
            missing = await statement_store.without_statement(tx, end - LOOKED_BACK, end)
            for account, day, legs in missing:
                amounts = []
                for begin in range(0, len(legs), READ_MAX):
                    amounts += [
                        credit_terms(each.binding).amount for each in await self._engine.load(tx, legs[begin : begin + READ_MAX])
                    ]
                for difference in overdue(account, day, amounts):
                    await open_break(tx, self._engine, self._settings.bank_bic, difference, NO_MESSAGE)

    async def _clear_doubts(self) -> None:
        async with self._db.transaction() as tx:
            for matter, phase in await statement_store.no_longer_in_doubt(tx):
                await matters.close_in(tx, matter, f"in doubt no more: the leg is {phase}")


@dataclass(frozen=True, slots=True)
class _Posted:
    """What the ledger posted since the statement before."""

    #: The ledger.
    ledger: str
    #: Its last entry that is compared.
    upto: int
    #: Postings on the statement's account.
    recent: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class _Compared:
    """A statement against our books and the ledger."""

    #: Payments that were compared.
    ours: Sequence[OurPayment]
    #: What differs from our books.
    found: Reconciled
    #: Entries about each payment.
    histories: dict[str, list[Entry]]
    #: Legs that something is to be done about.
    concerned: frozenset[Leg]


def _moves(entry: Entry, ledger: str, account: str) -> int:
    """By what an entry moves a holder's account of settled money, out of it at the bank."""
    if entry.ledger != ledger or entry.kind not in STATED:
        return 0
    return entry.amount * ((entry.credit == account) - (entry.debit == account))


def _debtor(work: LegWork) -> str:
    """Account that a payment is made from; "" for a leg that is no payment."""
    terms = work.binding.leg.terms
    return terms.debtor.iban if isinstance(terms, CreditTransfer) else ""


def last_due_day(now: datetime, settings: BankGatewaySettings) -> date:
    """The last booking day whose statement is due by now: due hours after its end, in the bank's zone."""
    local = now.astimezone(ZoneInfo(settings.time_zone)) - timedelta(hours=settings.statement_due_hours)
    return local.date() - timedelta(days=1)
