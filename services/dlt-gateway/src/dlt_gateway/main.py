"""`python -m dlt_gateway --config FILE`: the composition root; nothing else constructs."""

from __future__ import annotations

import asyncio

from dlt_gateway.metrics import METRICS
from dlt_gateway.operations import EscrowBook
from dlt_gateway.settings import DltGatewaySettings
from lockstep_chain.failpoints import declare_failpoints as declare_chain_failpoints
from lockstep_chain.process import ContractParticipant
from lockstep_kit.fields import require
from lockstep_kit.forms import check_evm_address
from lockstep_kit.participant.engine import declare_failpoints
from lockstep_kit.participant.process import ParticipantProcess
from lockstep_kit.settings import load

NAME = "dlt-gateway"

declare_failpoints(NAME)
declare_chain_failpoints(NAME)


async def run(settings: DltGatewaySettings) -> None:
    """Serve until told to stop."""
    check_evm_address(settings.escrow, "escrow")
    strangers = sorted(set(settings.reversible) - settings.tokens.keys())
    require(not strangers, "reversible", f"must be among the tokens that are served; these are not: {', '.join(strangers)}")
    book = EscrowBook(f"eip155:{settings.chain.chain_id}", settings.escrow, settings.tokens, frozenset(settings.reversible))
    async with (
        ParticipantProcess.opened(NAME, settings, settings.participant) as process,
        ContractParticipant.opened(process, book, settings.chain, settings.judge_seconds) as participant,
    ):
        await process.serve(
            participant.engine, loops=participant.loops, metrics=METRICS, parts={"chain": participant.inspection.state}
        )


def main() -> None:
    """Run with the settings of the command line."""
    asyncio.run(run(load(DltGatewaySettings)))
