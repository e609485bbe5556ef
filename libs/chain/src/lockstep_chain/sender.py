"""The transaction machine, as a service embeds it: in its own process, with its own database and its own accounts.

What is guaranteed: an intent that was enqueued in a transaction that committed is on the chain at most once, under one nonce of one account, whatever
crashes; and the service is told exactly once how it ended, inside the database transaction that stores it, and never before the chain's finality. Any
number of replicas may run the same accounts: the holder of an account's lease signs and sends for it, and replicas share the leases evenly. The queue is
every account's; which one takes an intent, and in which order they are mined, is not said.

What is lost at the edge: two processes that use one account's key without sharing a database are foreign to one another; a nonce that the other used
becomes a manual reconciliation.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Final

from lockstep_chain import store
from lockstep_chain.account_sender import AccountSender
from lockstep_chain.burying import Undertaker
from lockstep_chain.failpoints import declare_failpoints
from lockstep_chain.final import FinalBlocks
from lockstep_chain.heads import Heads
from lockstep_chain.machine import Intent, Limits, State, check_intent, payload_hash
from lockstep_chain.pacing import Beat
from lockstep_chain.ports import Block, ChainMismatch, Evm, EvmUnavailable, Signer
from lockstep_chain.records import SettledTransaction
from lockstep_chain.schema import CHANNEL, WITHDRAWN_CHANNEL
from lockstep_chain.settings import ChainSettings
from lockstep_chain.settling import GAP_PURPOSE, Foresee, OnSettled, Settler
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

#: Dead letters are looked for so often even if no notification came.
BURY_POLL_SECONDS: Final = 5.0
#: The queue is looked at so often even if no notification came.
QUEUE_POLL_SECONDS: Final = 5.0
#: An account has so long to take what is queued before the next one is asked.
TURN_SECONDS: Final = 0.1
#: Whether replicas share the accounts evenly is looked at so often.
BALANCE_POLL_SECONDS: Final = 1.0


class IdempotencyConflict(Exception):
    """The key of an intent stands for another payload already; nothing was queued."""

    def __init__(self, idempotency_key: str) -> None:
        super().__init__(f"the key {idempotency_key} stands for another payload")
        self.idempotency_key = idempotency_key


class TransactionMachine:
    """Gets a service's transactions onto one chain from its accounts."""

    def __init__(
        self,
        db: Database,
        evm: Evm,
        signers: Sequence[Signer],
        settings: ChainSettings,
        foresee: Foresee,
        *,
        service: str,
    ) -> None:
        """Put the machine together; nothing happens before `run`.

        Args:
            db: the service's database, which has `schema.V1_UPGRADE` and `final_store.V1_UPGRADE`.
            evm: the chain.
            signers: the accounts, at least one.
            settings: of the same chain as `evm`.
            foresee: asked before transactions are settled; what it returns is told of them inside the database transaction that stores their ends. If either
                raises, nothing is stored and it is asked again.
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
        self._chain = FinalBlocks(db, evm, settings.finality)
        self._undertaker = Undertaker(db, settings.chain_id, settings.limits, foresee)
        settler = Settler(db, foresee, service)
        holder = f"{service}/{uuid.uuid4()}"
        self._heads = Heads(
            self._chain, lambda: any(each.busy for each in self._senders), lambda: (each.moved for each in self._senders)
        )
        self._senders = tuple(
            AccountSender(
                db,
                evm,
                self._chain,
                self._heads,
                signer,
                settings,
                self._undertaker,
                settler,
                service=service,
                holder=holder,
            )
            for signer in signers
        )
        #: Set when something was queued, by the database: so it is heard once, whoever queued it, and when it can be taken.
        self._queued = asyncio.Event()
        self._withdrawn = asyncio.Event()
        self._listening = False

    @property
    def limits(self) -> Limits:
        """What `enqueue` accepts."""
        return self._settings.limits

    async def enqueue(self, tx: Connection, intents: Sequence[Intent]) -> list[int]:
        """Accept intents in the caller's database transaction; their rows' ids. The same key with the same payload is the same transaction.

        Raises:
            IdempotencyConflict: a key stands for another payload.
            FieldInvalid: no network would ever take one of them.
        """
        for intent in intents:
            check_intent(intent, self._settings.limits)
            require(intent.purpose != GAP_PURPOSE, "purpose", f"must not be {GAP_PURPOSE}")
        payloads = [payload_hash(self._settings.chain_id, intent) for intent in intents]
        ids = await store.enqueue(tx, self._settings.chain_id, intents, payloads)
        keys = [intent.idempotency_key for intent in intents]
        if len(ids) < len(keys):
            known = await store.by_keys(tx, keys)
            for key, payload in zip(keys, payloads, strict=True):
                ids[key], stored = known[key]
                if stored != payload:
                    raise IdempotencyConflict(key)
        return [ids[key] for key in keys]

    async def request_cancel(self, tx: Connection, idempotency_key: str) -> bool:
        """Ask that a transaction does not take effect; False if it is too late for that, or the key is unknown.

        Its nonce is used up by an empty transaction. Which of the two is mined is told at finality: CANCELLED, or FINAL or REVERTED all the same. What has
        no nonce yet becomes DEAD.
        """
        return await store.request_cancel(tx, idempotency_key)

    def announced(self) -> None:
        """Somebody says that there is a new block: look now instead of at the next poll. Losing this call loses nothing."""
        self._heads.announced()

    async def run(self) -> None:
        """Sign, send and follow until cancelled."""
        if not self._listening:
            self._db.listen(CHANNEL, self._queued)
            self._db.listen(WITHDRAWN_CHANNEL, self._withdrawn)
            self._listening = True
        supervisor = TaskSupervisor()
        supervisor.start(
            Loop("chain.queue", self._offer, poll_seconds=QUEUE_POLL_SECONDS, wake=self._queued),
            Loop("chain.bury", self._undertaker.bury, poll_seconds=BURY_POLL_SECONDS, wake=self._withdrawn),
            Loop("chain.balance", self._balance, poll_seconds=BALANCE_POLL_SECONDS),
            Loop("chain.heads", self._heads.look, poll_seconds=self._settings.poll_seconds, wake=self._heads.wake),
            *(loop for sender in self._senders for loop in sender.loops()),
        )
        try:
            await supervisor.wait()
        finally:
            await supervisor.stop()
            await asyncio.gather(*(sender.release_lease() for sender in self._senders))

    async def _offer(self) -> None:
        """Have the accounts take what is queued, one after the other: what the first has taken no other need lock, read and give back."""
        for sender in self._senders:
            async with self._db.connection() as connection:
                if not await store.has_queued(connection, self._settings.chain_id):
                    return
            if not await sender.offer(TURN_SECONDS):
                return

    async def _balance(self) -> None:
        """Have as many accounts as other replicas, one more or less: one at a time, so that two that balance do not overtake each other for ever."""
        for sender in self._senders:
            if await sender.balance():
                return

    @property
    def beat(self) -> Beat:
        """How blocks come, as far as was seen."""
        return self._heads.metronome.beat

    async def final_head(self) -> Block:
        """The highest final block.

        Raises:
            EvmUnavailable: it cannot be read, or nothing is final yet.
        """
        final = await self._chain.below(await self._chain.head())
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
