"""The transaction machine, as a service embeds it: in its own process, with its own database and its own signer.

What is guaranteed: an intent that was enqueued in a transaction that committed is on the chain at most once, under one nonce, whatever crashes; and the
service is told exactly once how it ended, inside the database transaction that stores it, and never before the chain's finality. Any number of replicas
may run one account: the holder of its lease signs and sends, the others wait to take over.

What is lost at the edge: two processes that use one account's key without sharing a database are foreign to one another; a nonce that the other used
becomes a manual reconciliation.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from typing import Final

import structlog

from lockstep_chain import store
from lockstep_chain.dispatcher import Dispatcher
from lockstep_chain.failpoints import declare_failpoints
from lockstep_chain.follower import Follower
from lockstep_chain.machine import Intent, Limits, State, check_intent, payload_hash
from lockstep_chain.ports import Block, ChainMismatch, Evm, EvmUnavailable, Signer
from lockstep_chain.records import SettledTransaction
from lockstep_chain.schema import CHANNEL
from lockstep_chain.settings import ChainSettings
from lockstep_chain.settling import GAP_PURPOSE, OnSettled, Settler
from lockstep_chain.store import Account
from lockstep_kit.db import Connection, Database
from lockstep_kit.fields import require
from lockstep_kit.loops import Loop, TaskSupervisor

__all__ = [
    "IdempotencyConflict",
    "Intent",
    "OnSettled",
    "SettledTransaction",
    "State",
    "TransactionMachine",
    "declare_failpoints",
]

_log = structlog.get_logger()

#: The queue is looked at so often even if no notification came.
QUEUE_POLL_SECONDS: Final = 1.0
#: A lease is renewed in its first third, so that two renewals may fail.
RENEWALS_IN_LEASE: Final = 3
#: A lease that somebody else holds is asked for so often.
LEASE_POLL_SECONDS: Final = 0.5
#: A machine that stops gives its lease back, but does not wait long for it.
RELEASE_SECONDS_MAX: Final = 2.0


class IdempotencyConflict(Exception):
    """The key of an intent stands for another payload already; nothing was queued."""

    def __init__(self, idempotency_key: str) -> None:
        super().__init__(f"the key {idempotency_key} stands for another payload")
        self.idempotency_key = idempotency_key


class TransactionMachine:
    """Gets a service's transactions onto one chain from one account."""

    def __init__(
        self, db: Database, evm: Evm, signer: Signer, settings: ChainSettings, on_settled: OnSettled, *, service: str
    ) -> None:
        """Put the machine together; nothing happens before `run`.

        Args:
            db: the service's database, which has `schema.V1_UPGRADE`.
            evm: the chain.
            signer: the account.
            settings: of the same chain as `evm`.
            on_settled: told of transactions that came to their end, inside the database transaction that stores it; if it raises, nothing is stored and
                it is told again.
            service: name of the embedding service; prefix of the failpoints' names.

        Raises:
            ChainMismatch: `evm` and `settings` are of two chains.
        """
        if evm.chain_id != settings.chain_id:
            raise ChainMismatch(f"the endpoint serves chain {evm.chain_id}, not {settings.chain_id}")
        declare_failpoints(service)
        self._db = db
        self._evm = evm
        self._settings = settings
        self._account = Account(settings.chain_id, signer.address, f"{service}/{uuid.uuid4()}")
        self._dispatcher = Dispatcher(db, evm, signer, settings, self._account, on_settled, service)
        settler = Settler(db, on_settled, service)
        self._follower = Follower(db, evm, settings, self._account, self._dispatcher, settler, service)
        self._queued = asyncio.Event()
        self._listening = False
        self._leased_until = 0.0
        self._lease_due = 0.0
        self._reachable = True

    @property
    def limits(self) -> Limits:
        """What `enqueue` accepts."""
        return self._settings.limits

    async def enqueue(self, tx: Connection, intent: Intent) -> int:
        """Accept an intent in the caller's database transaction; its row's id. The same key with the same payload is the same transaction.

        Raises:
            IdempotencyConflict: the key stands for another payload.
            FieldInvalid: no network would ever take it.
        """
        check_intent(intent, self._settings.limits)
        require(intent.purpose != GAP_PURPOSE, "purpose", f"must not be {GAP_PURPOSE}")
        payload = payload_hash(self._settings.chain_id, intent)
        added = await store.enqueue(tx, self._settings.chain_id, intent, payload)
        if added is not None:
            return added
        known, stored = await store.by_key(tx, intent.idempotency_key)
        if stored != payload:
            raise IdempotencyConflict(intent.idempotency_key)
        return known

    async def request_cancel(self, tx: Connection, idempotency_key: str) -> bool:
        """Ask that a transaction does not take effect; False if it is too late for that, or the key is unknown.

        Its nonce is used up by an empty transaction. Which of the two is mined is told at finality: CANCELLED, or FINAL or REVERTED all the same. What has
        no nonce yet becomes DEAD.
        """
        return await store.request_cancel(tx, idempotency_key)

    def wake(self) -> None:
        """Something was queued, and its transaction has committed: sign and send it now. Losing this call loses nothing."""
        self._queued.set()

    async def run(self) -> None:
        """Sign, send and follow until cancelled."""
        if not self._listening:
            self._db.listen(CHANNEL, self._queued)
            self._listening = True
        supervisor = TaskSupervisor()
        supervisor.start(
            Loop("chain.dispatch", self._dispatch, poll_seconds=QUEUE_POLL_SECONDS, wake=self._queued),
            Loop("chain.follow", self._follow, poll_seconds=self._settings.poll_seconds),
        )
        try:
            await supervisor.wait()
        finally:
            await supervisor.stop()
            await self._release_lease()

    async def final_head(self) -> Block:
        """The highest final block.

        Raises:
            EvmUnavailable: it cannot be read, or nothing is final yet.
        """
        final = await self._follower.final_block(await self._follower.head())
        if final is None:
            raise EvmUnavailable("nothing is final yet")
        return final

    async def call_at_final(self, to: str, data: bytes) -> tuple[bytes, Block]:
        """Result of a call on the highest final block's state, and that block.

        Raises:
            CallReverted: it was executed and reverted.
            EvmUnavailable: it cannot be read, or nothing is final yet.
        """
        block = await self.final_head()
        return await self._evm.call(to, data, at=block), block

    async def _dispatch(self) -> None:
        if not await self._leads():
            return
        with self._while_reachable():
            await self._dispatcher.dispatch()

    async def _follow(self) -> None:
        if not await self._leads():
            return
        with self._while_reachable():
            # What was mined made room for what is queued.
            if await self._follower.follow():
                self._queued.set()

    @contextlib.contextmanager
    def _while_reachable(self) -> Iterator[None]:
        """An endpoint that does not answer is no error of ours: say so once, and ask again at the next poll."""
        try:
            yield
        except EvmUnavailable as error:
            if self._reachable:
                _log.warning("chain_unreachable", error=str(error))
            self._reachable = False
        else:
            if not self._reachable:
                _log.info("chain_reachable")
            self._reachable = True

    async def _leads(self) -> bool:
        """Whether this machine is the account's sender; keeps it so."""
        now = asyncio.get_running_loop().time()
        if now >= self._lease_due:
            seconds = self._settings.lease_seconds
            async with self._db.connection() as connection:
                held = await self._account.acquire_lease(connection, seconds)
            # Counted from before the statement, so that the database's lease never ends before ours.
            self._leased_until = now + seconds if held else 0.0
            self._lease_due = now + (seconds / RENEWALS_IN_LEASE if held else LEASE_POLL_SECONDS)
        return now < self._leased_until

    async def _release_lease(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_SECONDS_MAX), self._db.connection() as connection:
                await self._account.release_lease(connection)
        except Exception as error:  # noqa: BLE001 - it ends by itself, and the machine is stopping for another reason
            _log.warning("lease_not_released", error=type(error).__name__)
