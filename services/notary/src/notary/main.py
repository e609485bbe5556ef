"""`python -m notary --config FILE`: the composition root; nothing else constructs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from lockstep.notary.v1 import notary_service_pb2, notary_service_pb2_grpc
from lockstep_chain.failpoints import declare_failpoints as declare_chain_failpoints
from lockstep_chain.process import ContractParticipant
from lockstep_kit.forms import check_evm_address
from lockstep_kit.participant.engine import declare_failpoints
from lockstep_kit.participant.process import ParticipantProcess, Service
from lockstep_kit.participant.readers import PlanReaders
from lockstep_kit.rpc.standings import check_readers, granted, methods_of, standings_of
from lockstep_kit.settings import load
from notary.anchors.assembly import Anchors
from notary.anchors.assembly import declare_failpoints as declare_anchor_failpoints
from notary.escalations.serving import declare_failpoints as declare_escalation_failpoints
from notary.metrics import METRICS
from notary.operations import RegistryBook
from notary.servicer import NotaryServicer
from notary.settings import NotarySettings
from notary.witness.anchoring import QueuedAnchors
from notary.witness.opening import witnessing

NAME = "notary"
SERVICE = "lockstep.notary.v1.NotaryService"

declare_failpoints(NAME)
declare_chain_failpoints(NAME)
declare_anchor_failpoints()
declare_escalation_failpoints()


async def run(settings: NotarySettings) -> None:
    """Serve until told to stop."""
    check_evm_address(settings.registry, "registry")
    check_readers(settings.readers, "readers", methods_of(notary_service_pb2.DESCRIPTOR, "NotaryService"))
    book = RegistryBook(f"eip155:{settings.chain.chain_id}", settings.registry, settings.anchoring)
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(ParticipantProcess.opened(NAME, settings, settings.participant))
        anchors = Anchors(process.db, book, settings.batch_leaves_max, settings.batch_seconds)
        opened = ContractParticipant.opened(process, book, settings.chain, settings.judge_seconds, anchors)
        participant = await stack.enter_async_context(opened)
        checkpoint_anchors = QueuedAnchors(book.chain, book.contract)
        witness_loops = await stack.enter_async_context(
            witnessing(
                settings,
                settings.tls,
                db=process.db,
                registry=process.registry,
                signing_key=process.signing_key,
                anchors=checkpoint_anchors,
            )
        )
        await process.serve(
            participant.engine,
            loops=(*participant.loops, *witness_loops),
            services=[
                Service(
                    notary_service_pb2_grpc.add_NotaryServiceServicer_to_server,
                    NotaryServicer(
                        process.db,
                        book.chain,
                        book.contract,
                        PlanReaders(process.db, standings_of(settings.readers)),
                        anchors=checkpoint_anchors,
                    ),
                    notary_service_pb2.DESCRIPTOR.services_by_name["NotaryService"],
                )
            ],
            clients=granted(settings.readers, SERVICE),
            metrics=METRICS,
            parts={"chain": participant.inspection.state},
        )


def main() -> None:
    """Run with the settings of the command line."""
    asyncio.run(run(load(NotarySettings)))
