"""Fixtures for every package's tests, as a pytest plugin: nothing is started, and no library is imported, before a test asks for it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from lockstep_kit.rpc.tls import TlsSettings
    from lockstep_sandbox.authority import Authority
    from lockstep_testkit.chains import SettlementChain
    from lockstep_testkit.databases import Databases, TestDatabase
    from lockstep_testkit.participants import ParticipantProcess
    from lockstep_testkit.serving import Served
    from lockstep_testkit.softhsm import SoftHsm


@pytest.fixture(scope="session")
def superuser_url() -> Iterator[str]:
    """URL of a superuser of the run's database server, with password."""
    from lockstep_testkit.databases import database_server

    with database_server() as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def databases(superuser_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Databases]:
    """The run's databases."""
    from lockstep_testkit.databases import Databases

    made = Databases(superuser_url, tmp_path_factory.mktemp("databases"))
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="session")
async def database_for(databases: Databases) -> AsyncIterator[Callable[..., Awaitable[TestDatabase]]]:
    """Makes migrated databases for this test: given the name of a service's package, and its own migrations unless others are given."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(service: str, migrations: Path | None = None) -> TestDatabase:
            database = await databases.create(service, migrations)
            stack.push_async_callback(databases.drop, database)
            return database

        yield make


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """The run's hardware security module; the test is skipped, and says why, where set-up could not have it."""
    from lockstep_testkit.softhsm import SoftHsm, SoftHsmAbsent

    try:
        return SoftHsm.found(tmp_path_factory.mktemp("softhsm"))
    except SoftHsmAbsent as absent:
        pytest.skip(f"SoftHSM: {absent}")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority for the run."""
    from lockstep_sandbox.authority import Authority

    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def tls_for(authority: Authority) -> Callable[[str], TlsSettings]:
    """Makes a certificate: `tls_for("spiffe://lockstep.local/coordinator")`; once for each identity."""
    from lockstep_kit.rpc.tls import TRUST_DOMAIN, TlsSettings

    @functools.cache
    def issue(spiffe_id: str) -> TlsSettings:
        name = spiffe_id.removeprefix(f"spiffe://{TRUST_DOMAIN}/")
        return TlsSettings.model_validate(authority.issue(name).settings())

    return issue


@pytest_asyncio.fixture(loop_scope="session")
async def guarded_server(tls_for: Callable[[str], TlsSettings]) -> AsyncIterator[Callable[..., Awaitable[Served]]]:
    """Starts servers with a scripted servicer behind the guard, given a table and settings unless the usual ones will do."""
    from lockstep_testkit.serving import serve

    async with contextlib.AsyncExitStack() as stack:
        yield functools.partial(serve, stack, tls_for)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def participant_for(
    databases: Databases, tls_for: Callable[[str], TlsSettings], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Callable[..., Awaitable[ParticipantProcess]]]:
    """Starts participants' processes, each over a migrated database of its own: given a name, and the settings that are its own."""
    from lockstep_sandbox.processes import Supervisor
    from lockstep_testkit.participants import start_participant

    folder = tmp_path_factory.mktemp("participant")
    async with contextlib.AsyncExitStack() as stack:
        supervisor = await stack.enter_async_context(Supervisor(folder / "logs"))

        async def start(name: str, **settings: object) -> ParticipantProcess:
            database = await databases.create(name.replace("-", "_"))
            stack.push_async_callback(databases.drop, database)
            place = folder / name
            place.mkdir()
            return await start_participant(stack, supervisor, tls_for, place, name, database, settings)

        yield start
        await supervisor.stop_all()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def settlement_chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SettlementChain]:
    """A node that mines at once, with the contracts, a token, and holders who let the escrow take it or do not."""
    from lockstep_sandbox.processes import Supervisor
    from lockstep_testkit.chains import settlement_chain

    folder = tmp_path_factory.mktemp("chain")
    async with Supervisor(folder / "logs") as supervisor, settlement_chain(supervisor, folder) as chain:
        yield chain
