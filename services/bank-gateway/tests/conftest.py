"""The tests' own modules, beside this file: test folders are no packages. And the real bank, opened once for each module of tests."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from lockstep_kit.rpc import TlsSettings
from lockstep_sandbox.processes import Supervisor
from lockstep_testkit.databases import Databases, TestDatabase

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from courier_bench import Bench
    from real_bank import Bank, Gateway


@pytest_asyncio.fixture(loop_scope="session")
async def bench(database_for: Callable[..., Awaitable[TestDatabase]]) -> AsyncIterator[Bench]:
    """A leg at a gateway whose bank the test plays."""
    from courier_bench import bench_over

    async with bench_over(await database_for("bank_gateway")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bank(
    databases: Databases, tls_for: Callable[[str], TlsSettings], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bank]:
    """The bank's process, over a database of its own."""
    from real_bank import GATEWAY, start_bank

    folder = tmp_path_factory.mktemp("bank")
    database = await databases.create("bank_simulator")
    async with Supervisor(folder / "logs") as supervisor:
        tls = tls_for("spiffe://lockstep.local/bank-simulator")
        yield await start_bank(supervisor, folder / "bank", database, tls, GATEWAY)
    await databases.drop(database)


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(
    bank: Bank, database_for: Callable[..., Awaitable[TestDatabase]], tls_for: Callable[[str], TlsSettings]
) -> AsyncIterator[Gateway]:
    """A gateway that runs, over a new database; the bank behaves, and whatever it says to others is passed over. Its ledger is right at the end."""
    from real_bank import GATEWAY, Gateway

    await bank.behave()
    opened = Gateway(await database_for("bank_gateway"), bank, tls_for(GATEWAY))
    await opened.begin()
    yield opened
    assert await opened.wrong_on_the_books() == []
    await opened.close()
