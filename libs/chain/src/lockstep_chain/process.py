"""What the processes of participants with a contract have in common: the machine, the engine over it, and the judge."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

from lockstep_chain import leg_store
from lockstep_chain.book import ContractBook
from lockstep_chain.carrying import LegCarrier
from lockstep_chain.endpoints import EvmEndpoints
from lockstep_chain.inspecting import LegInspector, check_landmarks
from lockstep_chain.installed import ChainInspection
from lockstep_chain.legs import ContractOperations, LegJudge
from lockstep_chain.newheads import NewHeads
from lockstep_chain.ports import Block, Evm, EvmUnavailable, Signer
from lockstep_chain.sender import OnSettled, SettledTransaction, TransactionMachine
from lockstep_chain.settings import ChainSettings
from lockstep_chain.signers.opening import opened
from lockstep_kit.db import Connection
from lockstep_kit.loops import Loop, back_off_seconds
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.ports import Operations
from lockstep_kit.participant.process import ParticipantProcess
from lockstep_kit.values import dataclass

_log = structlog.get_logger()


class Beside(Protocol):
    """What a participant does with the machine besides carrying legs that have entries of their own."""

    def operations(self, entries: ContractOperations) -> Operations:
        """The participant's operations, over those of the legs with entries of their own."""
        ...

    async def foresee(self, evm: Evm, settled: Sequence[SettledTransaction], final: Block | None) -> OnSettled:
        """As `Foresee`, of every transaction; without a final block nothing is read."""
        ...

    def loops(self, engine: ParticipantEngine, machine: TransactionMachine, poll_seconds: float) -> Sequence[Loop]:
        """What runs beside the server."""
        ...


@dataclass(frozen=True, slots=True)
class ContractParticipant:
    """A participant whose legs are entries of one contract."""

    #: Its half of the protocol.
    engine: ParticipantEngine
    #: What runs beside its server.
    loops: tuple[Loop, ...]
    #: What it tells of its chain.
    inspection: ChainInspection

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        process: ParticipantProcess,
        book: ContractBook,
        settings: ChainSettings,
        judge_seconds: float,
        beside: Beside | None = None,
    ) -> AsyncIterator[ContractParticipant]:
        """Connect to the chain and put everything together.

        Raises:
            EvmUnavailable: too few endpoints answered for `connect_seconds_max`.
            ChainMismatch: one of them serves another chain.
            FieldInvalid: a contract is not where the settings say; an account's key cannot be had, or is another than the settings expect.
            SignerUnavailable: a token does not answer.
        """
        evm = await connected(settings)
        try:
            if book.preconditions is not None:
                await check_landmarks(evm, book.preconditions)
            async with opened(settings.signers) as signers:
                yield cls.over(process, book, evm, signers, settings, judge_seconds, beside)
        finally:
            await evm.close()

    @classmethod
    def over(
        cls,
        process: ParticipantProcess,
        book: ContractBook,
        evm: Evm,
        signers: Sequence[Signer],
        settings: ChainSettings,
        judge_seconds: float,
        beside: Beside | None = None,
    ) -> ContractParticipant:
        """Put everything together over a chain and accounts.

        Raises:
            ChainMismatch: the chain is another one than the settings'.
        """

        async def foresee(settled: Sequence[SettledTransaction], final: Block | None) -> OnSettled:
            reading = None if final is None else await judge.read(settled, final)
            also = None if beside is None else await beside.foresee(evm, settled, final)

            async def store(tx: Connection, told: Sequence[SettledTransaction]) -> None:
                await judge.settle(tx, told, reading)
                if also is not None:
                    await also(tx, told)

            return store

        machine = TransactionMachine(process.db, evm, signers, settings, foresee, service=process.name)
        operations = ContractOperations(book, machine, process.name)
        engine = process.engine(operations if beside is None else beside.operations(operations))
        judge = LegJudge(process.db, engine, book, operations, machine, evm)
        judging = Loop("chain.judge", judge.round, poll_seconds=judge_seconds)
        process.db.listen(leg_store.CHANNEL, judging.wake)
        inspector = None
        if book.preconditions is not None:
            inspector = LegInspector(book.batch_max, book.preconditions, evm, signers[0].address)
        carrier = LegCarrier(process.db, engine, book, inspector, operations)
        carrying = Loop("chain.carry", carrier.round, poll_seconds=judge_seconds, wake=operations.begun)
        loops = [Loop("chain.machine", machine.run, poll_seconds=judge_seconds), carrying, judging]
        loops.extend(NewHeads(settings.ws_urls, machine.announced).loops())
        if beside is not None:
            loops.extend(beside.loops(engine, machine, judge_seconds))
        return cls(engine, tuple(loops), ChainInspection(process.db, evm, signers))


async def connected(settings: ChainSettings) -> EvmEndpoints:
    """The endpoints, once enough of them answer: services and nodes start in any order.

    Raises:
        EvmUnavailable: too few answered for `connect_seconds_max`.
        ChainMismatch: one of them serves another chain.
    """
    clock = asyncio.get_running_loop()
    give_up = clock.time() + settings.connect_seconds_max
    rng = random.Random()  # noqa: S311 - jitter, no secret
    attempts = 0
    while True:
        try:
            return await EvmEndpoints.connect(
                settings.rpc_urls,
                settings.chain_id,
                rules=settings.endpoint_rules,
                request_seconds_max=settings.request_seconds_max,
            )
        except EvmUnavailable as error:
            if clock.time() >= give_up:
                raise
            attempts += 1
            if attempts == 1:
                _log.warning("chain_awaited", error=str(error), seconds_max=settings.connect_seconds_max)
            await asyncio.sleep(back_off_seconds(attempts, rng))
