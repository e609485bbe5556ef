"""Reads again what a person released from the quarantine, and says how much is in it. Holds no rules: what is read is judged like any delivery."""

from __future__ import annotations

from typing import Final

import structlog

from bank_gateway import quarantine_store
from bank_gateway.courier import Courier
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import declare, failpoint
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.loops import Loop

_log = structlog.get_logger()

LOOK_SECONDS: Final = 2.0
#: Read in one go.
RELEASED_MAX: Final = 100
FAILPOINTS: Final = ("bank-gateway.readmit.in_tx", "bank-gateway.readmit.after_commit")


class Readmission:
    """One bank's quarantine."""

    def __init__(self, db: Database, courier: Courier, bank_bic: str) -> None:
        self._db = db
        self._courier = courier
        self._bank_bic = bank_bic
        self._counted = 0
        # Declared where it is used: nobody releases anything on the paths that a campaign sends plans down.
        declare(*FAILPOINTS)

    def loop(self) -> Loop:
        """The loop to run beside the server."""
        return Loop("bank.readmit", self.readmit, poll_seconds=LOOK_SECONDS)

    async def readmit(self) -> None:
        """Read what was released, each in one transaction: judged and kept as read, or refused once more. And count what is left."""
        for _ in range(RELEASED_MAX):
            async with self._db.transaction() as tx:
                if not await self._next(tx):
                    break
                await failpoint("bank-gateway.readmit.in_tx")
            await failpoint("bank-gateway.readmit.after_commit")
        async with self._db.connection() as connection:
            held = await quarantine_store.count_held(connection, self._bank_bic)
        if held != self._counted:
            _log.warning("quarantine_counted", counterparty=self._bank_bic, messages=held)
            self._counted = held

    async def _next(self, tx: Connection) -> bool:
        released = await quarantine_store.next_released(tx, self._bank_bic)
        if released is None:
            return False
        try:
            received = self._courier.listening.read(released.octets)
            # A statement that does not hold together is found out last, and nothing of it stays.
            async with tx.transaction():
                await self._courier.listening.keep(tx, [(received, released.octets)])
        except FieldInvalid as finding:
            _log.error("message_still_invalid", quarantine_id=released.quarantine_id, field=finding.field, rule=finding.rule)
            await quarantine_store.end_release(tx, released.id, f"{finding.field} {finding.rule}")
            return True
        await quarantine_store.end_release(tx, released.id, None)
        _log.warning("message_readmitted", quarantine_id=released.quarantine_id, message_id=received.envelope.message_id)
        return True
