"""`python -m notary --config FILE`: the composition root; nothing else constructs."""

from __future__ import annotations

import asyncio

from lockstep.notary.v1 import notary_service_pb2, notary_service_pb2_grpc
from lockstep_chain.failpoints import declare_failpoints as declare_chain_failpoints
from lockstep_chain.process import ContractParticipant
from lockstep_kit.forms import check_evm_address
from lockstep_kit.participant.engine import declare_failpoints
from lockstep_kit.participant.process import ParticipantProcess, Service
from lockstep_kit.settings import load
from notary.operations import RegistryBook
from notary.servicer import NotaryServicer
from notary.settings import NotarySettings

NAME = "notary"

declare_failpoints(NAME)
declare_chain_failpoints(NAME)


async def run(settings: NotarySettings) -> None:
    """Serve until told to stop."""
    check_evm_address(settings.registry, "registry")
    book = RegistryBook(f"eip155:{settings.chain.chain_id}", settings.registry)
    async with (
        ParticipantProcess.opened(NAME, settings, settings.participant) as process,
        ContractParticipant.opened(process, book, settings.chain, settings.judge_seconds) as participant,
    ):
        await process.serve(
            participant.engine,
            loops=participant.loops,
            services=[
                Service(
                    notary_service_pb2_grpc.add_NotaryServiceServicer_to_server,
                    NotaryServicer(process.db),
                    notary_service_pb2.DESCRIPTOR.services_by_name["NotaryService"],
                )
            ],
            access=dict.fromkeys(settings.readers, ("/lockstep.notary.v1.NotaryService/*",)),
        )


def main() -> None:
    """Run with the settings of the command line."""
    asyncio.run(run(load(NotarySettings)))
