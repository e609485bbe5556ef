"""Intraday credit lines: their limits come from the settings, and what was settled on one day is repaid on the next. Holds no rules.

The day is that of the database's clock in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Final

import structlog

from bank_gateway.ledger import rules, store, upkeep
from bank_gateway.ledger.rules import AccountKind
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.db import Database, violated
from lockstep_kit.loops import Loop

_log = structlog.get_logger()

#: How often the clock is looked at.
LOOK_SECONDS: Final = 60.0


class CreditLines:
    """The lines of one bank's debtors."""

    def __init__(self, db: Database, settings: BankGatewaySettings) -> None:
        self._db = db
        self._settings = settings
        self._repaid_day = ""

    async def limit(self) -> None:
        """Let the database hold the limits that the settings say."""
        bank = self._settings.bank_bic
        limits = {
            (rules.ledger_of(bank, each.currency), rules.account_of(each.account, AccountKind.LINE)): each.amount.minor_units
            for each in self._settings.credit_limits
        }
        async with self._db.connection() as connection:
            await upkeep.limit(connection, bank, limits)

    def loops(self) -> tuple[Loop, ...]:
        """Loops to run beside the server: none where there is no limit."""
        return (Loop("bank.lines", self.repay, poll_seconds=LOOK_SECONDS),) if self._settings.credit_limits else ()

    async def repay(self) -> None:
        """Once a day, repay what was settled on the days before. Another replica may do it at the same time: it is done once."""
        now = await self._db.now()
        day = now.date()
        if day.isoformat() == self._repaid_day:
            return
        try:
            await self._repay(datetime.combine(day, time(), UTC), day.isoformat())
        except Exception as error:
            # Another replica repaid the same line, by another amount, in the moment between.
            if violated(error) != "ledger_entry_reference":
                raise
            _log.info("lines_repaid_by_another", day=day.isoformat())
            return
        self._repaid_day = day.isoformat()

    async def _repay(self, since: datetime, day: str) -> None:
        async with self._db.transaction() as tx:
            due = await upkeep.repayable(tx, self._settings.bank_bic, since, day)
            await store.post(tx, [rules.repaid(ledger, holder, day, amount) for ledger, holder, amount in due])
        if due:
            _log.info("lines_repaid", day=day, count=len(due))
