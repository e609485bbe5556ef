"""A sandbox's databases as their owners see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg

from lockstep_sandbox.databases import ServiceLogin
from lockstep_sandbox.stack import Sandbox, package_of


def as_owner(sandbox: Sandbox, service: str) -> AbstractAsyncContextManager[asyncpg.Connection[asyncpg.Record]]:
    """A connection to a service's database as its owner."""
    return logged_in(sandbox.databases.logins[package_of(service)])


@asynccontextmanager
async def logged_in(login: ServiceLogin) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to a database as its owner."""
    connection = await asyncpg.connect(login.owner_url, password=login.owner_password_file.read_text().strip())
    try:
        yield connection
    finally:
        await connection.close()
