"""Follows the chain, and does with every transaction in flight what the pure machine says. Holds no rules.

A round reads the head, then the nonces, then the receipts, then which blocks are canonical: in that order, so that no transaction can be mined between two
answers without being seen. Whatever cannot be read ends the round, and nothing is concluded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import structlog

from lockstep_chain import store
from lockstep_chain.dispatcher import Dispatcher
from lockstep_chain.heads import Heads
from lockstep_chain.machine import (
    Action,
    Mine,
    Reconcile,
    Reorganised,
    Replace,
    Resend,
    Settle,
    Sighting,
    State,
    Wait,
    first_fees,
    judge,
)
from lockstep_chain.metrics import REORGANISED
from lockstep_chain.ports import Block, CallReverted, Evm, EvmUnavailable, Fees, Receipt, SenderTransaction
from lockstep_chain.records import Ending, InFlight
from lockstep_chain.settings import ChainSettings
from lockstep_chain.settling import BLOCK_NUMBER, Settler, attributes, in_a_trace
from lockstep_chain.store import Account
from lockstep_chain.taking import Standstill, standstill
from lockstep_kit.db import Database
from lockstep_kit.failpoints import failpoint
from lockstep_kit.spans import span

_log = structlog.get_logger()

#: A round is made at least so often, even if the chain stands still: bytes that got no answer are waiting.
ROUND_SECONDS_MAX: Final = 1.0
#: An account that has nothing in flight is looked at so often, should somebody else have put something there.
REST_SECONDS_MAX: Final = 5.0
#: Steps of the search for the block in which somebody else used a nonce: each doubles the distance, then halves it.
SEARCH_STEPS_MAX: Final = 64
#: A search that finds nobody is made again for so many blocks; then the node has forgotten those states, and a person is asked without them.
SEARCH_BLOCKS_MAX: Final = 64


class Follower:
    """Watches what is in flight for one account."""

    def __init__(
        self,
        db: Database,
        evm: Evm,
        heads: Heads,
        settings: ChainSettings,
        account: Account,
        dispatcher: Dispatcher,
        settler: Settler,
        service: str,
    ) -> None:
        self._db = db
        self._evm = evm
        self._heads = heads
        self._settings = settings
        self._account = account
        self._dispatcher = dispatcher
        self._settler = settler
        self._service = service
        self._seen = b""
        self._looked_at = float("-inf")
        #: What had been signed when nothing was found in flight; None: something was, or nobody has looked.
        self._at_rest: int | None = None
        #: A nonce that no transaction has, below others, and the height at which it was first noticed.
        self._gap: tuple[int, int] | None = None
        self._standstill: Standstill | None = None
        #: Transactions whose nonce was used by nobody knows whom, and the height at which the search for that first failed.
        self._unfound: dict[int, int] = {}

    @property
    def busy(self) -> bool:
        """Whether anything is in flight, as far as is known."""
        return self._at_rest != self._dispatcher.signed

    def rouse(self) -> None:
        """Somebody else has sent for the account before: look at what is in flight."""
        self._at_rest, self._looked_at = None, float("-inf")

    async def follow(self) -> bool:
        """Make a round if there is a new head or one is due; whether a transaction left the state in which it counts as unmined."""
        seen, clock = self._heads.seen(), asyncio.get_running_loop()
        if seen is None:
            return False
        head, final = seen
        waits = REST_SECONDS_MAX if not self.busy else ROUND_SECONDS_MAX if head.hash == self._seen else 0.0
        if clock.time() < self._looked_at + waits:
            return False
        signed = self._dispatcher.signed
        async with self._db.connection() as connection:
            rows = await self._account.in_flight(connection)
        self._at_rest = None if rows else signed
        if not rows:
            self._stand(None)
        moved = await self._round(head, final, rows) if rows else False
        self._seen, self._looked_at = head.hash, clock.time()
        return moved

    async def _round(self, head: Block, final: Block | None, rows: Sequence[InFlight]) -> bool:
        seen = await self._look(head, final, rows)
        waiting = any(row.outbound.state is not State.MINED for row in rows)
        self._stand(standstill(self._standstill, waiting=waiting, nonce=seen.latest_nonce, head=head.number), head.number)
        policy = self._settings.policy
        judged = [(row, judge(row.outbound, seen, policy)) for row in rows]
        mined = [(row.id, action.receipt) for row, action in judged if isinstance(action, Mine)]
        back = [row.id for row, action in judged if isinstance(action, Reorganised)]
        with _told(judged):
            await self._mark(mined, back)
        endings = await self._endings(judged, seen)
        if endings and final is not None:
            await self._settler.settle(endings, final)
        under_way = self._dispatcher.under_way
        await self._dispatcher.resend(
            [row for row, action in judged if isinstance(action, Resend) and row.id not in under_way], head.number
        )
        for row, action in judged:
            if isinstance(action, Replace) and row.id not in under_way:
                await self._dispatcher.replace(row, action, head.number)
        await self._mind_gap(rows, seen)
        return bool(mined or endings)

    def _stand(self, where: Standstill | None, head: int = 0) -> None:
        """Note where the account stands; the dispatcher takes no more for one that stands still."""
        self._standstill = where
        stands_still = where is not None and where.lasts(head, self._settings.resend_blocks)
        if stands_still and where is not None and not self._dispatcher.stands_still:
            _log.warning("account_stands_still", address=self._account.address, nonce=where.nonce)
        self._dispatcher.stands_still = stands_still

    async def _look(self, head: Block, final: Block | None, rows: Sequence[InFlight]) -> Sighting:
        """Read the chain, in the order that the pure machine relies on: head and final block have been read."""
        address = self._account.address
        latest_nonce = await self._evm.nonce(address, head.number)
        final_nonce = latest_nonce
        if final is None or final.hash != head.hash:
            final_nonce = await self._evm.nonce(address, final.number) if final is not None else 0
        # A nonce that was not used at the head has no receipt there, and need not be asked for.
        used = [row for row in rows if row.outbound.nonce < latest_nonce]
        receipts = await self._evm.receipts([attempt.transaction_hash for row in used for attempt in row.outbound.attempts])
        # What is in the final block need not be asked about: that is canonical, and stays so.
        canonical = {final.number: final.hash} if final is not None else {}
        asked = {each.block_number for each in receipts.values() if canonical.get(each.block_number) != each.block_hash}
        canonical |= await self._evm.block_hashes(asked)
        return Sighting(
            head=head,
            final_number=final.number if final is not None else None,
            latest_nonce=latest_nonce,
            final_nonce=final_nonce,
            # Nothing is paid for what has been mined, by us or by somebody else.
            suggested=await self._suggested(head) if len(used) < len(rows) else Fees(head.base_fee, 0),
            receipts=receipts,
            canonical=canonical,
        )

    async def _suggested(self, head: Block) -> Fees:
        tip = (await self._evm.conditions(self._account.address)).tip
        ceiling = self._settings.max_fee_ceiling_wei
        return first_fees(head.base_fee, tip, self._settings.policy) or Fees(ceiling, min(tip, ceiling))

    async def _mark(self, mined: Sequence[tuple[int, Receipt]], back: Sequence[int]) -> None:
        if not mined and not back:
            return
        async with self._db.transaction() as tx:
            if mined:
                await store.mark_mined(tx, mined)
            if back:
                _log.warning("transactions_reorganised", transaction_ids=list(back))
                REORGANISED.inc(len(back))
                await store.mark_reorganised(tx, back)
            await failpoint(f"{self._service}.chain.mined.in_tx")
        await failpoint(f"{self._service}.chain.mined.after_commit")

    async def _endings(self, judged: Sequence[tuple[InFlight, Action]], seen: Sighting) -> list[Ending]:
        endings = []
        for row, action in judged:
            match action:
                case Settle(state, receipt):
                    endings.append(await self._settled(row, state, receipt))
                case Reconcile():
                    ending = await self._foreign(row, seen)
                    if ending is not None:
                        endings.append(ending)
                case Mine():
                    # It was ours: a doubt that a reorganisation raises anew is a new one.
                    self._unfound.pop(row.id, None)
                case Wait() | Resend() | Replace() | Reorganised():
                    pass
        return endings

    async def _settled(self, row: InFlight, state: State, receipt: Receipt) -> Ending:
        if state is State.CANCELLED:
            return Ending(row.reference, state, receipt, detail="its nonce was used up by an empty transaction of our own")
        if state is not State.REVERTED:
            return Ending(row.reference, state, receipt)
        if receipt.gas_used >= row.gas_limit:
            return Ending(row.reference, state, receipt, detail="it reverted for lack of gas", evidence={"out_of_gas": True})
        revert_data = await self._revert_data(row, receipt)
        detail = f"it reverted with {revert_data}" if revert_data else "it reverted without a reason that can be read any more"
        return Ending(row.reference, state, receipt, detail=detail, evidence={"out_of_gas": False, "revert_data": revert_data})

    async def _revert_data(self, row: InFlight, receipt: Receipt) -> str:
        """What the contract said, by calling it again on the state before the block; "" if that state is gone or the call succeeds there."""
        async with self._db.connection() as connection:
            to, data, value = await store.payload(connection, row.id)
        try:
            await self._evm.call(to, data, at=receipt.block_number - 1, sender=self._account.address, value=value)
        except CallReverted as reverted:
            return "0x" + reverted.revert_data.hex()
        except EvmUnavailable as error:
            _log.warning("revert_reason_unknown", transaction_id=row.id, error=str(error))
        return ""

    async def _foreign(self, row: InFlight, seen: Sighting) -> Ending | None:
        """Ask once more, and gather what shows that somebody else used the nonce; None if it turns out to be our own."""
        hashes = [attempt.transaction_hash for attempt in row.outbound.attempts]
        if await self._evm.receipts(hashes):
            return None
        rival, why = None, "no transaction of its block has it"
        try:
            rival = await self._user_of(row.outbound.nonce, seen.final_number or 0)
        except EvmUnavailable as error:
            why = str(error)
        if rival is None:
            # A node that lags, that is not there for a moment, or that shows by a block's number the state of the next one, which it is about to take up, finds
            # neither the receipt nor who used the nonce: that says nothing.
            if seen.head.number - self._unfound.setdefault(row.id, seen.head.number) < SEARCH_BLOCKS_MAX:
                return None
            _log.warning("nonce_user_unknown", nonce=row.outbound.nonce, error=why)
        self._unfound.pop(row.id, None)
        if rival is not None and rival[0].hash in hashes:
            return None
        evidence: dict[str, Any] = {
            "signer": self._account.address,
            "nonce": row.outbound.nonce,
            "attempt_hashes": ["0x" + each.hex() for each in hashes],
            "final_block_number": seen.final_number,
            "final_nonce": seen.final_nonce,
            "foreign_hash": "0x" + rival[0].hash.hex() if rival is not None else None,
            "foreign_block_number": rival[1] if rival is not None else None,
        }
        return Ending(row.reference, State.MANUAL, detail="its nonce was used by a transaction that is not ours", evidence=evidence)

    async def _user_of(self, nonce: int, final: int) -> tuple[SenderTransaction, int] | None:
        """The transaction that used a nonce, and its height; None if none of the block's has it.

        Raises:
            EvmUnavailable: it cannot be read, or the node has forgotten the states that would show it.
        """
        high, low, step = final, final, 1
        for _ in range(SEARCH_STEPS_MAX):
            if low == 0 or await self._evm.nonce(self._account.address, low) <= nonce:
                break
            high, low, step = low, max(0, low - step), step * 2
        for _ in range(SEARCH_STEPS_MAX):
            if high - low <= 1:
                break
            middle = (low + high) // 2
            used = await self._evm.nonce(self._account.address, middle) > nonce
            low, high = (low, middle) if used else (middle, high)
        for each in await self._evm.transactions_in(high):
            if each.sender == self._account.address and each.nonce == nonce:
                return each, high
        return None

    async def _mind_gap(self, rows: Sequence[InFlight], seen: Sighting) -> None:
        """Have a hole below everything in flight filled, once it has stood for some blocks: something of somebody else may be on its way there."""
        missing = seen.latest_nonce
        if rows[0].outbound.nonce <= missing:
            self._gap = None
            return
        if self._gap is None or self._gap[0] != missing:
            self._gap = (missing, seen.head.number)
        elif seen.head.number - self._gap[1] >= self._settings.resend_blocks:
            self._gap = None
            await self._dispatcher.fill(missing)


def _told(judged: Sequence[tuple[InFlight, Action]]) -> ExitStack:
    """Spans, each in its transaction's trace, of those that are in a block now, and of those that are in none any more."""
    spans = ExitStack()
    for row, action in sorted(judged, key=lambda each: in_a_trace(each[0].reference)):
        match action:
            case Mine(receipt):
                about = {**attributes(row.reference, receipt.transaction_hash), BLOCK_NUMBER: receipt.block_number}
                spans.enter_context(span("chain.mined", traceparent=row.reference.traceparent, attributes=about))
            case Reorganised():
                about = attributes(row.reference, b"")
                spans.enter_context(span("chain.reorganised", traceparent=row.reference.traceparent, attributes=about))
            case _:
                pass
    return spans
