"""Fixtures: a migrated database and a world around it for each test."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from eth_account import Account
from eth_account.signers.local import LocalAccount

from lockstep_kit.db import Database
from lockstep_kit.failpoints import arm
from lockstep_sandbox.evm import Node
from lockstep_sandbox.ports import free_ports
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.strict_node import StrictNode

# The tests' own module, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from chain_world import CHAIN_ID, CREATION, MIGRATION, SECONDS_MAX, World, started


@pytest.fixture(scope="session")
def chain_migrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrations")
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(
        "import sqlalchemy as sa\n\nfrom lockstep_kit.migrate import run_env\n\nrun_env(sa.MetaData())\n"
    )
    (folder / "versions" / "0001_chain.py").write_text(MIGRATION)
    return folder


@pytest_asyncio.fixture(loop_scope="session")
async def database(database_for: Callable[..., Awaitable[TestDatabase]], chain_migrations: Path) -> TestDatabase:
    return await database_for("chain_tests", chain_migrations)


@pytest_asyncio.fixture(loop_scope="session")
async def world(database: TestDatabase) -> AsyncIterator[World]:
    """Everything, fresh; machines reach the node through an endpoint that is as strict as those of real networks."""
    (port,) = free_ports(1)
    with started(port) as process:
        async with Node(f"http://127.0.0.1:{port}", CHAIN_ID) as node:
            deadline = time.monotonic() + SECONDS_MAX
            while not await node.answers():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            account: LocalAccount = Account.create()
            deployer: LocalAccount = Account.create()
            for each in (account, deployer):
                await node.call("anvil_setBalance", each.address, hex(10**21))
            await node.call("evm_setAutomine", True)
            contract = await node.deploy(deployer, CREATION)
            await node.call("evm_setAutomine", False)
            db = await Database.connect(database.settings, application_name="test")
            async with StrictNode(node.url) as strict:
                made = World(node, process, db, database, account, contract, strict)
                try:
                    yield made
                finally:
                    arm("")
                    for evm in made.evms:
                        await evm.close()
                    await db.close()
