"""`python -m bank_gateway --config FILE`: the composition root; nothing else constructs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime

from bank_gateway import quarantine_store, release_orders
from bank_gateway.agreements import agreement_of
from bank_gateway.contact import NotedRail, read_state
from bank_gateway.courier import Courier
from bank_gateway.file_rail import FileRail
from bank_gateway.gateway import BankOperations
from bank_gateway.http_rail import HttpRail
from bank_gateway.iso20022.agreement import Agreement, release_order
from bank_gateway.iso20022.schemas import Schemas
from bank_gateway.ledger.lines import CreditLines
from bank_gateway.metrics import METRICS
from bank_gateway.rail import Rail
from bank_gateway.readmission import Readmission
from bank_gateway.reconciler import Reconciler
from bank_gateway.servicer import ReconciliationServicer
from bank_gateway.settings import BankGatewaySettings
from lockstep.bank.v1 import reconciliation_service_pb2, reconciliation_service_pb2_grpc
from lockstep_kit.db import Database
from lockstep_kit.participant.process import ParticipantProcess, Service
from lockstep_kit.settings import load

NAME = "bank-gateway"


async def run(settings: BankGatewaySettings) -> None:
    """Serve until told to stop."""
    async with ParticipantProcess.opened(NAME, settings, settings.participant) as process:
        operations = BankOperations(settings, Schemas(settings.schemas), agreement_of(settings))
        engine = process.engine(operations)
        rail = NotedRail(rail_of(settings, operations.agreement, process.db))
        courier = Courier(process.db, engine, operations, rail)
        lines = CreditLines(process.db, settings)
        readmission = Readmission(process.db, courier, settings.bank_bic)
        try:
            await lines.limit()
            reconciler = Reconciler(process.db, engine, courier, settings, operations.schemas)
            await process.serve(
                engine,
                loops=(*courier.loops(), *lines.loops(), readmission.loop(), *reconciler.loops()),
                services=[
                    Service(
                        reconciliation_service_pb2_grpc.add_ReconciliationServiceServicer_to_server,
                        ReconciliationServicer(process.db, engine),
                        reconciliation_service_pb2.DESCRIPTOR.services_by_name["ReconciliationService"],
                    )
                ],
                clients=dict.fromkeys(settings.readers, ("/lockstep.bank.v1.ReconciliationService/*",)),
                metrics=METRICS,
                parts={"bank": lambda: read_state(process.db, rail, settings.bank_bic)},
            )
        finally:
            await rail.close()


def rail_of(settings: BankGatewaySettings, agreement: Agreement, db: Database) -> Rail:
    """The way to the bank that the settings name."""
    http, files = settings.rail.http, settings.rail.files
    if http is not None:
        return HttpRail(http.url, http.tls or settings.tls, together=http.together)
    if files is None:
        raise AssertionError("the settings name one rail")

    async def release(uetr: str, key: bytes, name: str) -> bytes:
        def build(now: datetime) -> bytes:
            return agreement.seal(release_order(settings.own_bic, settings.bank_bic, uetr, key, name, now))

        async with db.transaction() as tx:
            return await release_orders.kept(tx, name, uetr, build)

    async def quarantined(places: Sequence[int]) -> Collection[int]:
        async with db.connection() as connection:
            return await quarantine_store.quarantined_among(connection, settings.bank_bic, places)

    return FileRail(files.folder, release_order=release, quarantined=quarantined, look_seconds=files.look_seconds)


def main() -> None:
    """Run with the settings of the command line."""
    asyncio.run(run(load(BankGatewaySettings)))
