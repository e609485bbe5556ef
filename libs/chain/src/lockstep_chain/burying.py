"""Dead letters: queued transactions that can never be signed. Settled and told at once, whatever the chain and the accounts are like.

Dead is only what stays so: an intent that was withdrawn, or that breaks a rule of `check_intent`. What a node or an account refuses now waits.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from lockstep_chain import metrics, store
from lockstep_chain.machine import Limits, State, check_intent
from lockstep_chain.records import Ending, Queued, SettledTransaction
from lockstep_chain.settling import Foresee, settle_in
from lockstep_kit.db import Connection, Database, is_transient
from lockstep_kit.fields import FieldInvalid

_log = structlog.get_logger()

#: Dead letters that are settled in one database transaction.
BURIED_MAX = 100


class Undertaker:
    """Settles dead letters for every account; needs none of them, and no lease."""

    def __init__(self, db: Database, chain_id: int, limits: Limits, foresee: Foresee) -> None:
        self._db = db
        self._chain_id = chain_id
        self._limits = limits
        self._foresee = foresee

    async def bury(self) -> None:
        """Settle what was withdrawn, and what is beyond the limits, before anybody takes it."""
        async with self._db.connection() as connection:
            if not await store.has_dead(connection, self._chain_id, self._limits):
                return
        async with self._db.transaction() as tx:
            await self.bury_dead(tx, await store.take_dead(tx, self._chain_id, self._limits, BURIED_MAX))

    async def bury_dead(self, tx: Connection, queued: Sequence[Queued]) -> list[Queued]:
        """Settle as dead what of these can never be signed, so that it takes no nonce; the rest."""
        living = []
        for each in queued:
            why = self._permanently_refused(each)
            if why is None:
                living.append(each)
                continue
            try:
                ending = Ending(each.reference, State.DEAD, detail=why)
                async with tx.transaction():
                    await settle_in(tx, [ending], await self._foresee([SettledTransaction.of(ending)], None))
            except Exception as error:
                if is_transient(error):
                    raise
                # Its service cannot take it: it stays queued, and holds up no other.
                _log.exception("burying_failed", transaction_id=each.id)
            else:
                metrics.ended([State.DEAD])
                _log.error("transaction_dead", transaction_id=each.id, why=why)
        return living

    def _permanently_refused(self, queued: Queued) -> str | None:
        if queued.cancel_requested:
            return "withdrawn before it was signed"
        try:
            check_intent(queued.intent, self._limits)
        except FieldInvalid as finding:
            return str(finding)
        return None
