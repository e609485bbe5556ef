"""What the processes of participants with a contract have in common: the machine, the engine over it, and the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from lockstep_chain.book import ContractBook
from lockstep_chain.evm import JsonRpcEvm, KeystoreSigner
from lockstep_chain.legs import ContractOperations, LegJudge, SettledOrders
from lockstep_chain.sender import TransactionMachine
from lockstep_chain.settings import ChainSettings
from lockstep_kit.loops import Loop
from lockstep_kit.participant.engine import ParticipantEngine
from lockstep_kit.participant.process import ParticipantProcess


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
            EvmUnavailable, ChainMismatch: the endpoint does not answer, or serves another chain.
            FieldInvalid: the keystore or its password cannot be read.
        """
        evm = await JsonRpcEvm.connect(settings.rpc_url, settings.chain_id, request_seconds_max=settings.request_seconds_max)
        try:
            signer = await KeystoreSigner.open(settings.keystore_file, settings.password_file)
            settled = SettledOrders(book)
            machine = TransactionMachine(process.db, evm, signer, settings, settled.on_settled, service=process.name)
            operations = ContractOperations(book, machine)
            engine = process.engine(operations)
            judge = LegJudge(process.db, engine, book, operations, machine)
            yield cls(
                engine,
                (
                    Loop("chain.machine", machine.run, poll_seconds=judge_seconds),
                    Loop("chain.judge", judge.round, poll_seconds=judge_seconds, wake=settled.wake),
                ),
            )
        finally:
            await evm.close()
