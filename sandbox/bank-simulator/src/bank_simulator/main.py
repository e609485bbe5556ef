"""Puts the bank together, runs it until it is told to stop, and stops it in order. Nothing else constructs things."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import uvloop
from aiohttp import web

from bank_simulator.control import Control
from bank_simulator.database import Database
from bank_simulator.desk import Desk
from bank_simulator.file_drop import FileDrop
from bank_simulator.intake import Intake
from bank_simulator.iso20022.schemas import Schemas
from bank_simulator.iso20022.signatures import Signer
from bank_simulator.mailbox import Mailboxes
from bank_simulator.rail import Rail, renew, tls_context
from bank_simulator.seeding import seed
from bank_simulator.settings import BankSeed, Settings, read_seed, read_settings
from bank_simulator.timers import Timers

#: Requests that are under way when the bank stops have this long to end.
DRAIN_SECONDS: Final = 5.0
SCHEMAS_DEFAULT: Final = Path(".schemas/xsd")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a running bank listens."""

    rail_port: int
    control_port: int


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Listening]:
    """A bank that is open for business; closed in the reverse order at the end."""
    bank = read_seed(settings.seed_file)
    schemas = Schemas(settings.schemas or SCHEMAS_DEFAULT)
    token = settings.control.token_file.read_text(encoding="utf-8").strip()
    async with contextlib.AsyncExitStack() as stack:
        database = await Database.connect(settings.database)
        stack.push_async_callback(database.close)
        await seed(database, bank)
        mailboxes = Mailboxes(database)
        timers: list[Timers] = []

        def delivered(counterparty: str) -> None:
            mailboxes.wake(counterparty)
            timers[0].wake()

        signer = _signer(settings, bank)
        desk = Desk(database, bank, schemas, delivered=delivered, signer=signer)
        intake = Intake(database, bank, schemas, delivered=delivered, signer=signer)
        timers.append(Timers(desk))
        stack.push_async_callback(_ended, asyncio.create_task(timers[0].run()))
        for drop in settings.file_drops:
            counterparty = next(each for each in bank.counterparties if each.name == drop.counterparty)
            files = FileDrop(intake, mailboxes, counterparty, drop)
            stack.push_async_callback(_ended, asyncio.create_task(files.run()))
        control_port = await _serve(
            stack, Control(database, desk, token).application(), settings.control.host, settings.control.port
        )
        rail = Rail(intake, mailboxes, bank).application()
        rail_port = await _serve(stack, rail, settings.rail.host, settings.rail.port, tls=settings)
        # Readers that wait would hold up the end of the server.
        stack.callback(mailboxes.close)
        for path, port in ((settings.rail.port_file, rail_port), (settings.control.port_file, control_port)):
            if path is not None:
                _write_port(path, port)
        log.info("open", bic=bank.bic, rail_port=rail_port, control_port=control_port)
        yield Listening(rail_port, control_port)
        log.info("closing")


def _signer(settings: Settings, bank: BankSeed) -> Signer | None:
    """The bank's signer.

    Raises:
        ValueError: Signatures are agreed with a counterparty, and the bank has no key.
    """
    if settings.signing is not None:
        return Signer(settings.signing.key_file, settings.signing.certificate_file)
    if any(counterparty.certificates is not None for counterparty in bank.counterparties):
        raise ValueError("signatures are agreed with a counterparty, and there is no key for them")
    return None


async def _serve(
    stack: contextlib.AsyncExitStack, application: web.Application, host: str, port: int, *, tls: Settings | None = None
) -> int:
    """Starts a server and returns its port."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    context = tls_context(tls.rail) if tls else None
    if tls is not None and context is not None:
        stack.push_async_callback(_ended, asyncio.create_task(renew(context, tls.rail), name="certificates"))
    site = web.TCPSite(runner, host, port, ssl_context=context)
    await site.start()
    return int(runner.addresses[0][1])


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _write_port(path: Path, port: int) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(f"{port}\n", encoding="utf-8")
    new.replace(path)


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings):
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `python -m bank_simulator`."""
    parser = argparse.ArgumentParser(prog="bank_simulator", description="A bank that speaks ISO 20022, as a counterparty.")
    parser.add_argument("--config", type=Path, required=True, help="settings, YAML")
    parser.add_argument(
        "--schemas", type=Path, help=f"folder of the official schemas (default: as configured, or {SCHEMAS_DEFAULT})"
    )
    given = parser.parse_args(arguments)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    settings = read_settings(given.config)
    if given.schemas is not None:
        settings = settings.model_copy(update={"schemas": given.schemas})
    uvloop.run(_run(settings))
    return 0
