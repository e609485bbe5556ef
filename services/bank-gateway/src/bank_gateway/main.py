"""`python -m bank_gateway --config FILE`: the composition root; nothing else constructs."""

from __future__ import annotations

import asyncio

from bank_gateway.courier import Courier
from bank_gateway.gateway import BankOperations
from bank_gateway.http_rail import HttpRail
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.settings import BankGatewaySettings
from lockstep_kit.participant.process import ParticipantProcess
from lockstep_kit.settings import load

NAME = "bank-gateway"


async def run(settings: BankGatewaySettings) -> None:
    """Serve until told to stop."""
    async with ParticipantProcess.opened(NAME, settings, settings.participant) as process:
        operations = BankOperations(settings, Schemas(settings.schemas))
        engine = process.engine(operations)
        rail = HttpRail(settings.rail_url, settings.rail_tls or settings.tls)
        courier = Courier(process.db, engine, operations, rail)
        try:
            await process.serve(engine, loops=courier.loops())
        finally:
            await rail.close()


def main() -> None:
    """Run with the settings of the command line."""
    asyncio.run(run(load(BankGatewaySettings)))
