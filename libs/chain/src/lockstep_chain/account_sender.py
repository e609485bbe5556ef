"""One account's sender: holds its lease, and while it does, signs, sends and follows. What troubles one account holds up no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

import structlog

from lockstep_chain import store
from lockstep_chain.burying import Undertaker
from lockstep_chain.dispatcher import Dispatcher
from lockstep_chain.final import FinalBlocks
from lockstep_chain.follower import Follower
from lockstep_chain.heads import Heads
from lockstep_chain.metrics import HELD_UP, account_shown
from lockstep_chain.ports import Evm, EvmUnavailable, Signer, SignerUnavailable
from lockstep_chain.settings import ChainSettings
from lockstep_chain.settling import Settler
from lockstep_chain.store import Account
from lockstep_kit.db import Database
from lockstep_kit.loops import Loop

_log = structlog.get_logger()

#: Who dispatches is woken for everything that it takes; this is for what was left for want of funds or of room.
QUEUE_POLL_SECONDS: Final = 5.0
#: A lease is renewed in its first third, so that two renewals may fail.
RENEWALS_IN_LEASE: Final = 3
#: A lease that somebody else holds is asked for so often.
LEASE_POLL_SECONDS: Final = 0.5
#: A sender that stops gives its lease back, but does not wait long for it.
RELEASE_SECONDS_MAX: Final = 2.0


class AccountSender:
    """Gets what it takes from the queue onto the chain, from one account."""

    def __init__(
        self,
        db: Database,
        evm: Evm,
        chain: FinalBlocks,
        heads: Heads,
        signer: Signer,
        settings: ChainSettings,
        undertaker: Undertaker,
        settler: Settler,
        *,
        service: str,
        holder: str,
    ) -> None:
        self._db = db
        self._chain = chain
        self._settings = settings
        self._account = Account(settings.chain_id, signer.address, holder)
        self._dispatcher = Dispatcher(db, evm, signer, settings, self._account, undertaker, service)
        self._follower = Follower(db, evm, heads, settings, self._account, self._dispatcher, settler, service)
        #: Set to have the account take what is queued.
        self.queued = asyncio.Event()
        #: Set when it has taken of the queue what it could; and whether it may have left something.
        self._taken = asyncio.Event()
        self._left = True
        #: Whether it is known that something is queued, which need not be looked for then.
        self._offered = False
        #: Set when there is a new head, or the chain does not answer.
        self.moved = asyncio.Event()
        self._leased_until = 0.0
        self._lease_due = 0.0
        self._trouble = ""
        account_shown(self.address)

    @property
    def address(self) -> str:
        """EIP-55 address of the account."""
        return self._account.address

    @property
    def busy(self) -> bool:
        """Whether the account has anything in flight that this sender follows."""
        return self._leased_until > 0 and self._follower.busy

    def loops(self) -> tuple[Loop, Loop]:
        """What runs while the machine does."""
        # Often enough that a lease is renewed when it is time.
        renewed = min(LEASE_POLL_SECONDS, self._settings.lease_seconds / RENEWALS_IN_LEASE / 2)
        return (
            Loop(f"chain.dispatch {self.address}", self._dispatch, poll_seconds=QUEUE_POLL_SECONDS, wake=self.queued),
            Loop(f"chain.follow {self.address}", self._follow, poll_seconds=renewed, wake=self.moved),
        )

    async def offer(self, seconds: float) -> bool:
        """Have the account take what is queued; whether it may have left something, or is not done within so long."""
        self._taken.clear()
        self._offered = True
        self.queued.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._taken.wait()
        return self._left or not self._taken.is_set()

    async def _dispatch(self) -> None:
        offered, self._offered = self._offered, False
        self._left = True
        try:
            if self._chain.contradicted or not await self._leads():
                return
            with self._while_reachable():
                self._left = (offered or await self._has_queued()) and await self._dispatcher.dispatch()
        finally:
            self._taken.set()

    async def _has_queued(self) -> bool:
        async with self._db.connection() as connection:
            return await store.has_queued(connection, self._account.chain_id)

    async def _follow(self) -> None:
        if not await self._leads():
            return
        with self._while_reachable():
            # What was mined made room for what was left in the queue.
            if await self._follower.follow() and self._left:
                self.queued.set()

    @contextlib.contextmanager
    def _while_reachable(self) -> Iterator[None]:
        """A chain or a key store that does not answer is no error of ours: say so once, and ask again at the next poll."""
        trouble = ""
        try:
            yield
        except EvmUnavailable as error:
            trouble = f"chain: {error}"
        except SignerUnavailable as error:
            trouble = f"signer: {error}"
        if bool(trouble) != bool(self._trouble):
            if trouble:
                _log.warning("account_held_up", address=self.address, why=trouble)
            else:
                _log.info("account_goes_on", address=self.address)
        self._trouble = trouble
        HELD_UP.labels(self.address).set(bool(trouble))

    # -- the lease -------------------------------------------------------------------------------------------------------

    async def _leads(self) -> bool:
        """Whether this is the account's sender; keeps it so."""
        now = asyncio.get_running_loop().time()
        if now >= self._lease_due:
            seconds = self._settings.lease_seconds
            async with self._db.connection() as connection:
                held = await self._account.acquire_lease(connection, seconds)
            if held and self._leased_until <= now:
                _log.info("account_leased", address=self.address)
                # Something may have been queued, and sent, while nobody looked.
                self.queued.set()
                self._follower.rouse()
            # Counted from before the statement, so that the database's lease never ends before ours.
            self._leased_until = now + seconds if held else 0.0
            self._lease_due = now + (seconds / RENEWALS_IN_LEASE if held else LEASE_POLL_SECONDS)
        return now < self._leased_until

    async def balance(self) -> bool:
        """Take the account from a replica that has two more than this one; whether it was taken."""
        now = asyncio.get_running_loop().time()
        if now < self._leased_until:
            return False
        seconds = self._settings.lease_seconds
        async with self._db.connection() as connection:
            taken = await self._account.balance_lease(connection, seconds)
        if taken:
            # Begin only once the former sender has noticed: nodes have been seen to lose transactions of one account that arrive side by side.
            self._lease_due = now + seconds / RENEWALS_IN_LEASE
        return taken

    async def release_lease(self) -> None:
        """Let another replica be the account's sender at once."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS_MAX), self._db.connection() as connection:
                await self._account.release_lease(connection)
        except Exception as error:  # noqa: BLE001 - it ends by itself, and the machine is stopping for another reason
            _log.warning("lease_not_released", error=type(error).__name__)
