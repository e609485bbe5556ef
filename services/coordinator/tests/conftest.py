"""A coordinator on a real database, with four participants whose outside worlds are scripted, each on a real database, over real gRPC."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from coordinator import metrics
from lockstep_kit import failpoints
from lockstep_kit.logs import configure_logs
from lockstep_kit.rpc import TlsSettings
from lockstep_testkit.clocks import JumpingClock
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import PARTICIPANTS, PlanCase
from lockstep_testkit.snapshots import Snapshots

# The tests' own modules, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from coordinator_world import CLIENT, World, settings_of
from scripted_journal import Journal
from scripted_notary import Notary
from scripted_party import Party, party_of


class Clocks:
    """The clocks of everybody's databases, which pass a deadline when a test says so: no test hurries to be done before it, and none waits for it."""

    def __init__(self, world: World) -> None:
        databases = (world.database, *(party.database for party in world.parties.values()))
        self._clocks = [JumpingClock(database.owner_url) for database in databases]
        #: Before the machine's clock.
        self._ahead = timedelta()

    def soon(self) -> datetime:
        """A deadline that passes by itself only if something hangs."""
        return datetime.now(UTC) + timedelta(minutes=2)

    async def pass_deadline(self, plan: PlanCase) -> None:
        """A second after a plan's deadline, for everybody."""
        await self.pass_moment(plan.header.deadline)

    async def pass_moment(self, moment: datetime) -> None:
        """A second after a moment, for everybody."""
        self._ahead = moment - datetime.now(UTC) + timedelta(seconds=1)
        for clock in self._clocks:
            await clock.set(self._ahead)

    async def go_on(self, by: timedelta) -> None:
        """Longer than so long after now, for everybody."""
        await self.pass_moment(datetime.now(UTC) + self._ahead + by)


@pytest_asyncio.fixture(loop_scope="session")
async def world(
    request: pytest.FixtureRequest,
    database_for: Callable[..., Awaitable[TestDatabase]],
    tls_for: Callable[[str], TlsSettings],
    tmp_path: Path,
) -> AsyncIterator[World]:
    """Four participants, and all that a coordinator needs; no coordinator yet. For a test that asks for `clocks`, nobody's clock is the machine's."""

    async def made_for(service: str, *migrations: Path) -> TestDatabase:
        database = await database_for(service, *migrations)
        if "clocks" in request.fixturenames:
            await JumpingClock(database.owner_url).prepare()
        return database

    async with AsyncExitStack() as stack:
        database = await made_for("coordinator")
        journal = Journal()  # type: ignore[abstract]  # readers ask for nothing else
        notary = Notary()  # type: ignore[abstract]  # the coordinator reads nothing there
        parties: dict[str, Party] = {}
        channels: dict[str, grpc.aio.Channel] = {}
        for name in dict.fromkeys(PARTICIPANTS.values()):
            party = await party_of(
                name, await made_for("coordinator_party", Path(__file__).parent / "participants"), journal, notary, stack
            )
            parties[party.name] = party
            channels[party.name] = grpc.aio.insecure_channel(
                f"127.0.0.1:{party.port}", options=(("grpc.max_reconnect_backoff_ms", 200),)
            )
            stack.push_async_callback(channels[party.name].close)
        settings = settings_of(database, tls_for(CLIENT), tmp_path)
        made = World(database, parties, journal, notary, settings, tls_for, stack, channels)
        yield made


@pytest.fixture
def clocks(world: World) -> Clocks:
    return Clocks(world)


@pytest.fixture
def snapshots(superuser_url: str) -> Snapshots:
    return Snapshots(superuser_url)


@pytest.fixture(autouse=True, scope="session")
def _logged() -> None:
    """As the service logs: a console's tracebacks, with every local variable, take seconds each."""
    configure_logs("coordinator")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


@pytest.fixture
def shown() -> CollectorRegistry:
    """The metrics, as they are shown."""
    registry = CollectorRegistry()
    metrics.INSTRUMENTS.register(registry)
    return registry
