"""What the processes of participants with a contract have in common: the machine, the engine over it, and the judge."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from lockstep_chain import leg_store
from lockstep_chain.book import ContractBook
from lockstep_chain.evm import JsonRpcEvm, KeystoreSigner
from lockstep_chain.legs import ContractOperations, LegJudge, SettledOrders
from lockstep_chain.ports import Evm, EvmUnavailable, Signer
from lockstep_chain.sender import TransactionMachine
from lockstep_chain.settings import ChainSettings
from lockstep_kit.loops import Loop, back_off_seconds
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.process import ParticipantProcess

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ContractParticipant:
    """A participant whose legs are entries of one contract."""

    #: Its half of the protocol.
    engine: ParticipantEngine
    #: What runs beside its server.
    loops: tuple[Loop, ...]

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, process: ParticipantProcess, book: ContractBook, settings: ChainSettings, judge_seconds: float
    ) -> AsyncIterator[ContractParticipant]:
        """Connect to the chain and put everything together.

        Raises:
            EvmUnavailable: the endpoint did not answer for `connect_seconds_max`.
            ChainMismatch: it serves another chain.
            FieldInvalid: the keystore or its password cannot be read.
        """
        evm = await connected(settings)
        try:
            signer = await KeystoreSigner.open(settings.keystore_file, settings.password_file)
            yield cls.over(process, book, evm, signer, settings, judge_seconds)
        finally:
            await evm.close()

    @classmethod
    def over(
        cls,
        process: ParticipantProcess,
        book: ContractBook,
        evm: Evm,
        signer: Signer,
        settings: ChainSettings,
        judge_seconds: float,
    ) -> ContractParticipant:
        """Put everything together over a chain and an account.

        Raises:
            ChainMismatch: the chain is another one than the settings'.
        """
        settled = SettledOrders(book)
        machine = TransactionMachine(process.db, evm, signer, settings, settled.on_settled, service=process.name)
        operations = ContractOperations(book, machine)
        engine = process.engine(operations)
        judging = Loop("chain.judge", LegJudge(process.db, engine, book, operations, machine).round, poll_seconds=judge_seconds)
        process.db.listen(leg_store.CHANNEL, judging.wake)
        return cls(engine, (Loop("chain.machine", machine.run, poll_seconds=judge_seconds), judging))


async def connected(settings: ChainSettings) -> JsonRpcEvm:
    """The endpoint, once it answers: services and nodes start in any order.

    Raises:
        EvmUnavailable: it did not answer for `connect_seconds_max`.
        ChainMismatch: it serves another chain.
    """
    clock = asyncio.get_running_loop()
    give_up = clock.time() + settings.connect_seconds_max
    rng = random.Random()  # noqa: S311 - jitter, no secret
    attempts = 0
    while True:
        try:
            return await JsonRpcEvm.connect(settings.rpc_url, settings.chain_id, request_seconds_max=settings.request_seconds_max)
        except EvmUnavailable as error:
            if clock.time() >= give_up:
                raise
            attempts += 1
            if attempts == 1:
                _log.warning("chain_awaited", error=str(error), seconds_max=settings.connect_seconds_max)
            await asyncio.sleep(back_off_seconds(attempts, rng))
