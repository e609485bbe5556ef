"""Stores how transactions came to their end, and tells their service, in one database transaction. Holds no rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Final

import structlog

from lockstep_chain import metrics, store
from lockstep_chain.machine import State
from lockstep_chain.ports import Block
from lockstep_chain.records import Ending, Reference, SettledTransaction
from lockstep_kit.db import Connection, Database, is_transient
from lockstep_kit.failpoints import failpoint
from lockstep_kit.spans import LEG_ID, PLAN_ID, span

_log = structlog.get_logger()

#: Called with transactions that came to their end, inside the database transaction that stores it; must do no other I/O.
OnSettled = Callable[[Connection, Sequence[SettledTransaction]], Awaitable[None]]

#: Called with transactions that are about to be settled, and with a final block as of which they have come to their end, or None where they will never be
#: sent; returns what is to be called inside. Reads what it likes of the chain and the database, unless it is given no block: then a database transaction is
#: open. What it cannot read is no reason not to settle.
Foresee = Callable[[Sequence[SettledTransaction], Block | None], Awaitable[OnSettled]]

#: Purpose of empty transactions of our own that fill a hole in an account's nonces; no service is told of them.
GAP_PURPOSE: Final = "gap"

TRANSACTION_HASH: Final = "blockchain.transaction.hash"
ATTEMPT: Final = "blockchain.transaction.attempt"
NONCE: Final = "blockchain.transaction.nonce"
BLOCK_NUMBER: Final = "blockchain.block.number"
STATE: Final = "blockchain.transaction.state"


def attributes(reference: Reference, transaction_hash: bytes) -> dict[str, str | int]:
    """Attributes of a span about one transaction."""
    found: dict[str, str | int] = {TRANSACTION_HASH: "0x" + transaction_hash.hex()} if transaction_hash else {}
    if reference.plan_id is not None:
        found[PLAN_ID] = reference.plan_id
    if reference.leg_id is not None:
        found[LEG_ID] = reference.leg_id
    return found


def in_a_trace(reference: Reference) -> bool:
    """Whether a transaction goes on in somebody's trace. Spans of those that do not are begun first: later they would be below others' spans."""
    return reference.traceparent is not None


async def settle_in(tx: Connection, endings: Sequence[Ending], on_settled: OnSettled) -> None:
    """Store endings and tell the service of those that are new; what is already settled is left alone, so that each is told once."""
    fresh = await store.settle(tx, endings)
    told = [each for each in endings if each.reference.id in fresh and each.reference.purpose != GAP_PURPOSE]
    if told:
        await on_settled(tx, [SettledTransaction.of(each) for each in told])


class Settler:
    """Settles what is in flight."""

    def __init__(self, db: Database, foresee: Foresee, service: str) -> None:
        self._db = db
        self._foresee = foresee
        self._service = service

    async def settle(self, endings: Sequence[Ending], final: Block) -> None:
        """Store endings together, that have come by a final block; if their service cannot take one of them, each by itself, so that it holds up no other.

        What the service cannot take is not stored, and is tried again in the next round.

        Raises:
            Exception: the database has a passing trouble.
        """
        try:
            await self._together(endings, final)
        except Exception as error:
            if is_transient(error):
                raise
            for ending in endings:
                await self._alone(ending, final)

    async def _alone(self, ending: Ending, final: Block) -> None:
        try:
            await self._together([ending], final)
        except Exception as error:
            if is_transient(error):
                raise
            _log.exception("settling_failed", transaction_id=ending.reference.id, state=ending.state.value)

    async def _together(self, endings: Sequence[Ending], final: Block) -> None:
        await failpoint(f"{self._service}.chain.confirm.before_tx")
        on_settled = await self._foresee([SettledTransaction.of(each) for each in endings], final)
        with ExitStack() as spans:
            for ending in sorted(endings, key=lambda each: in_a_trace(each.reference)):
                _enter(spans, ending)
            async with self._db.transaction() as tx:
                await settle_in(tx, endings, on_settled)
                await failpoint(f"{self._service}.chain.confirm.in_tx")
        await failpoint(f"{self._service}.chain.confirm.after_commit")
        metrics.ended(ending.state for ending in endings)
        for ending in endings:
            if ending.state is not State.FINAL:
                _log.error("transaction_failed", transaction_id=ending.reference.id, state=ending.state.value, detail=ending.detail)


def _enter(spans: ExitStack, ending: Ending) -> None:
    told = attributes(ending.reference, ending.receipt.transaction_hash if ending.receipt else b"")
    told[STATE] = ending.state.value
    if ending.receipt is not None:
        told[BLOCK_NUMBER] = ending.receipt.block_number
    spans.enter_context(span("chain.confirm", traceparent=ending.reference.traceparent, attributes=told))
