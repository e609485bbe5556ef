"""Fixtures: a bank on a database of its own for each test."""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509

from lockstep_testkit.databases import Databases, TestDatabase

# The tests' own module, beside this file: test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))

from bank_world import Certificates, Gateway, World, read, write_settings


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def gateway_tls(certificates: Certificates) -> ssl.SSLContext:
    return certificates.client("gateway", x509.UniformResourceIdentifier("spiffe://lockstep.local/bank-gateway"))


@pytest.fixture(scope="session")
def other_tls(certificates: Certificates) -> ssl.SSLContext:
    return certificates.client("other.example")


@pytest_asyncio.fixture(loop_scope="session")
async def world(
    database_for: Callable[..., Awaitable[TestDatabase]],
    certificates: Certificates,
    gateway_tls: ssl.SSLContext,
    other_tls: ssl.SSLContext,
    tmp_path: Path,
) -> World:
    database = await database_for("bank_simulator")
    path = write_settings(tmp_path / "bank", certificates, database.owner_url)
    return World(read(path), path, certificates, gateway_tls, other_tls, database.owner_url)


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(world: World) -> AsyncIterator[Gateway]:
    """The gateway, connected to an open bank."""
    async with world.open() as connected:
        yield connected


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(
    databases: Databases,
    certificates: Certificates,
    gateway_tls: ssl.SSLContext,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gateway]:
    """A gateway and bank for all tests of a module that change nothing but what they look at."""
    database = await databases.create("bank_simulator")
    path = write_settings(tmp_path_factory.mktemp("shared") / "bank", certificates, database.owner_url)
    async with World(read(path), path, certificates, gateway_tls, gateway_tls, database.owner_url).open() as connected:
        yield connected
    await databases.drop(database)
