"""Everything that signs and sends. Holds no rules: what is signed is stored first, what is sent was stored before.

Nonces are given, transactions signed, and bytes stored in one database transaction, under the lock of the account's row, which only the holder of its
lease gets. Bytes go out in nonce order, one sender at a time. The queue is every account's: what another one is taking is passed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

import structlog
from opentelemetry.trace import SpanKind

from lockstep_chain import store
from lockstep_chain.burying import Undertaker
from lockstep_chain.machine import AttemptKind, Intent, Replace, first_fees, payload_hash
from lockstep_chain.metrics import GAPS_FILLED, NONCES_ELSEWHERE
from lockstep_chain.ports import Conditions, Evm, Fees, Signed, Signer, SignerUnavailable, Unsigned
from lockstep_chain.records import InFlight, Queued, Reference
from lockstep_chain.settings import ChainSettings
from lockstep_chain.settling import ATTEMPT, GAP_PURPOSE, NONCE, attributes, in_a_trace
from lockstep_chain.store import Account
from lockstep_chain.taking import Burden, cost, payable, room
from lockstep_kit.db import Connection, Database
from lockstep_kit.failpoints import failpoint
from lockstep_kit.spans import span
from lockstep_kit.values import dataclass

_log = structlog.get_logger()

#: Gas of a transaction that does nothing.
EMPTY_GAS = 21_000


@dataclass(frozen=True, slots=True)
class Parcel:
    """Bytes to be sent."""

    #: Whose they are.
    reference: Reference
    #: Nonce; bytes are sent in its order.
    nonce: int
    #: Number of the attempt.
    number: int
    #: The bytes and their hash.
    signed: Signed


class Dispatcher:
    """Signs and sends for one account."""

    def __init__(
        self,
        db: Database,
        evm: Evm,
        signer: Signer,
        settings: ChainSettings,
        account: Account,
        undertaker: Undertaker,
        service: str,
    ) -> None:
        self._db = db
        self._evm = evm
        self._signer = signer
        self._settings = settings
        self._account = account
        self._undertaker = undertaker
        self._service = service
        # One sender at a time: nodes have been seen to lose transactions of one account that arrive side by side.
        self._sending = asyncio.Lock()
        #: Transactions that are signed and on their way for the first time; nobody else need send them.
        self.under_way: set[int] = set()
        #: Grows when anything was given a nonce, once that is committed: whoever reads it before and finds nothing in flight has missed nothing.
        self.signed = 0
        #: Whether the account's transactions stand still, as its follower sees it: then it takes no more.
        self.stands_still = False
        #: Whether something was left in the queue that the account could not pay for.
        self._short = False
        #: Whether the key store gave no signature when it was last asked.
        self._signer_away = False

    async def dispatch(self) -> bool:
        """Sign and send what is queued, as far as the account can carry it; whether it may have left something."""
        while not self.stands_still:
            await self._try_signer()
            conditions = await self._evm.conditions(self._account.address)
            fees = first_fees(conditions.head.base_fee, conditions.tip, self._settings.policy)
            if fees is None:
                _log.warning("fees_above_ceiling", base_fee_wei=conditions.head.base_fee, tip_wei=conditions.tip)
                return True
            async with self._sending:
                try:
                    parcels, left, more = await self._assign(conditions, fees)
                    await failpoint(f"{self._service}.chain.assign.after_commit")
                    await self._send(parcels, conditions.head.number)
                finally:
                    self.under_way.clear()
            if not more:
                return left
        return True

    async def _assign(self, conditions: Conditions, fees: Fees) -> tuple[list[Parcel], bool, bool]:
        """Take, give nonces, sign and store, in one transaction; the parcels, whether more may be queued, and whether this account could take more."""
        await failpoint(f"{self._service}.chain.assign.before_tx")
        async with self._db.transaction() as tx:
            standing = await self._account.lock_standing(tx)
            if standing is None:
                return [], True, False
            stored_nonce, burden = standing
            queued, left, more = await self._take(tx, stored_nonce, burden, conditions, fees)
            # The chain's count is only a floor: transactions of ours that the node does not have yet are above it.
            nonce = max(stored_nonce, conditions.pending_nonce)
            if nonce > stored_nonce > 0:
                _log.warning("nonces_used_elsewhere", first=stored_nonce, count=nonce - stored_nonce)
                NONCES_ELSEWHERE.labels(self._account.address).inc(nonce - stored_nonce)
            parcels = await self._sign(tx, queued, nonce, fees)
            await failpoint(f"{self._service}.chain.assign.in_tx")
            self.under_way.update(parcel.reference.id for parcel in parcels)
        self.signed += len(parcels)
        return parcels, left, more

    async def _take(
        self, tx: Connection, stored_nonce: int, burden: Burden, conditions: Conditions, fees: Fees
    ) -> tuple[list[Queued], bool, bool]:
        """What the account can carry of the queue, locked; whether more may be queued, and whether it could carry more."""
        limit = room(
            burden,
            next_nonce=stored_nonce,
            pending_nonce=conditions.pending_nonce,
            unmined_max=self._settings.unmined_max,
            batch_max=self._settings.assign_batch_max,
        )
        wei = conditions.balance - burden.wei_max
        # An account that cannot even pay for nothing does not hold the queue's rows, not for a moment.
        if limit == 0 or self._falls_short(wei < cost(EMPTY_GAS, 0, fees)):
            return [], True, False
        queued = await self._account.take_queued(tx, limit)
        living = await self._undertaker.bury_dead(tx, queued)
        count = payable([cost(each.intent.gas_limit, each.intent.value, fees) for each in living], wei)
        short = self._falls_short(count < len(living))
        # Of what can neither be signed nor buried there may be a whole batch: it is looked at again later, and not at once for ever.
        more = len(queued) == self._settings.assign_batch_max and not short and count > 0
        return living[:count], short or len(queued) == limit, more

    async def _try_signer(self) -> None:
        """Have a key store that was away sign something before the queue's rows are held for it: others could carry them meanwhile.

        Raises:
            SignerUnavailable: it is still away.
        """
        if self._signer_away:
            # No chain ever takes this: it has no gas, and a nonce beyond the last one (EIP-2681).
            nothing = Unsigned(self._account.chain_id, 2**64 - 1, self._account.address, 0, b"", 0, Fees(0, 0))
            await self._signer.sign([nothing])
            self._signer_away = False

    def _falls_short(self, short: bool) -> bool:
        if short and not self._short:
            _log.warning("account_short_of_funds", address=self._account.address)
        self._short = short
        return short

    async def _sign(self, tx: Connection, queued: Sequence[Queued], nonce: int, fees: Fees) -> list[Parcel]:
        if not queued:
            return []
        nonces = range(nonce, nonce + len(queued))
        try:
            signed = await self._signer.sign([self._unsigned(each.intent, n, fees) for each, n in zip(queued, nonces, strict=True)])
        except SignerUnavailable:
            self._signer_away = True
            raise
        await self._account.store_signed(tx, [each.id for each in queued], nonces, signed, fees)
        return [Parcel(each.reference, n, 1, bytes_) for each, n, bytes_ in zip(queued, nonces, signed, strict=True)]

    def _unsigned(self, intent: Intent, nonce: int, fees: Fees) -> Unsigned:
        return Unsigned(
            chain_id=self._account.chain_id,
            nonce=nonce,
            to=intent.to,
            value=intent.value,
            data=intent.data,
            gas_limit=intent.gas_limit,
            fees=fees,
        )

    async def resend(self, rows: Sequence[InFlight], head: int) -> None:
        """Send the stored bytes of last attempts again."""
        if not rows:
            return
        async with self._sending:
            async with self._db.connection() as connection:
                raws = await store.last_raws(connection, [row.id for row in rows])
            await self._send([Parcel(row.reference, row.outbound.nonce, *raws[row.id]) for row in rows], head)

    async def replace(self, row: InFlight, told: Replace, head: int) -> None:
        """Sign another attempt with the same nonce, store it, then send it; nothing if it was mined meanwhile."""
        number = row.outbound.attempts[-1].number + 1
        async with self._sending:
            async with self._db.transaction() as tx:
                if await self._account.lock(tx) is None:
                    return
                payload = await store.lock_unmined(tx, row.id)
                if payload is None:
                    return
                to, value, data, gas_limit = payload
                if told.kind is AttemptKind.CANCEL:
                    to, value, data, gas_limit = self._account.address, 0, b"", EMPTY_GAS
                intent = Intent(row.reference.idempotency_key, to, data, gas_limit, value)
                (signed,) = await self._signer.sign([self._unsigned(intent, row.outbound.nonce, told.fees)])
                await store.store_attempt(tx, row.id, number, told.kind, signed, told.fees)
                await failpoint(f"{self._service}.chain.replace.in_tx")
            await failpoint(f"{self._service}.chain.replace.after_commit")
            _log.info("transaction_replaced", transaction_id=row.id, kind=told.kind.value, attempt=number, nonce=row.outbound.nonce)
            await self._send([Parcel(row.reference, row.outbound.nonce, number, signed)], head)

    async def fill(self, nonce: int) -> None:
        """Use up a nonce below others that no transaction has, so that those can be mined."""
        conditions = await self._evm.conditions(self._account.address)
        fees = first_fees(conditions.head.base_fee, conditions.tip, self._settings.policy)
        if fees is None:
            return
        address = self._account.address
        key = f"{GAP_PURPOSE}/{self._account.chain_id}/{address}/{nonce}"
        intent = Intent(key, address, b"", EMPTY_GAS, purpose=GAP_PURPOSE)
        async with self._sending:
            async with self._db.transaction() as tx:
                if await self._account.lock(tx) is None or await self._account.nonce_taken(tx, nonce):
                    return
                added = await store.enqueue(tx, self._account.chain_id, [intent], [payload_hash(self._account.chain_id, intent)])
                if key not in added:
                    return
                parcels = await self._sign(tx, [Queued(added[key], intent, cancel_requested=False)], nonce, fees)
            self.signed += 1
            _log.warning("nonce_gap_filled", nonce=nonce)
            GAPS_FILLED.labels(self._account.address).inc()
            await self._send(parcels, conditions.head.number)

    async def _send(self, parcels: Sequence[Parcel], head: int) -> None:
        """Send stored bytes in nonce order, and note what the node says of them."""
        if not parcels:
            return
        ordered = sorted(parcels, key=lambda parcel: parcel.nonce)
        with ExitStack() as spans:
            for each in sorted(ordered, key=lambda each: in_a_trace(each.reference)):
                told = attributes(each.reference, each.signed.hash) | {NONCE: each.nonce, ATTEMPT: each.number}
                traceparent = each.reference.traceparent
                spans.enter_context(span("chain.send", traceparent=traceparent, kind=SpanKind.CLIENT, attributes=told))
            answers = await self._evm.broadcast([each.signed.raw for each in ordered])
        await failpoint(f"{self._service}.chain.broadcast.after_send")
        async with self._db.transaction() as tx:
            ids, numbers = [each.reference.id for each in ordered], [each.number for each in ordered]
            await store.note_answers(tx, ids, numbers, answers, head)
            await failpoint(f"{self._service}.chain.broadcast.in_tx")
        await failpoint(f"{self._service}.chain.broadcast.after_commit")
