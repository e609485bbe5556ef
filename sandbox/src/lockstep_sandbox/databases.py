"""One Postgres server for the sandbox; a database, an owner and a role for each service and for the bank."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from lockstep_sandbox.postgres import (
    PostgresServer,
    ServiceDatabase,
    close_server,
    create_service_database,
    plan_service_database,
    postgres_server,
)
from lockstep_sandbox.runtime import write_secret

#: Several programs at a time, on a machine that has other things to do.
MIGRATION_SECONDS_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class ServiceLogin:
    """How a service reaches its database."""

    #: URL without password.
    url: str
    #: Password of the service's role, mode 0600.
    password_file: Path
    #: URL of the owner, without password.
    owner_url: str
    #: Password of the owner, mode 0600.
    owner_password_file: Path
    #: The service's role.
    role: str

    def settings(self) -> dict[str, Any]:
        """The `database` block of a service's settings."""
        return {"url": self.url, "password_file": str(self.password_file)}


class SandboxDatabases:
    """The server and what is on it. Use as an async context manager, from the main thread: the kernel ties the server's life to it."""

    def __init__(self, folder: Path, password: str) -> None:
        self._folder = folder
        self._password = password
        self._stack = ExitStack()
        self._server: PostgresServer | None = None
        #: Package -> how it reaches its database.
        self.logins: dict[str, ServiceLogin] = {}

    async def __aenter__(self) -> Self:
        self._server = self._stack.enter_context(postgres_server(self._password, max_connections="300"))
        try:
            await close_server(self.server.url)
        except BaseException:
            self._stack.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def server(self) -> PostgresServer:
        """The server, to be killed and started again.

        Raises:
            RuntimeError: it was not started yet.
        """
        if self._server is None:
            raise RuntimeError("the databases' server was not started")
        return self._server

    async def create(self, package: str) -> ServiceLogin:
        """Make a database for a package."""
        database = plan_service_database(package)
        await create_service_database(self.server.url, database)
        login = self._login(database)
        self.logins[package] = login
        return login

    def _login(self, database: ServiceDatabase) -> ServiceLogin:
        where = urlsplit(self.server.url)
        place = f"{where.hostname}:{where.port}/{database.name}"
        return ServiceLogin(
            url=f"postgresql://{database.role}@{place}",
            password_file=write_secret(self._folder / f"{database.name}.password", database.role_password),
            owner_url=f"postgresql://{database.owner}@{place}",
            owner_password_file=write_secret(self._folder / f"{database.name}-owner.password", database.owner_password),
            role=database.role,
        )


async def migrate(logins: Sequence[tuple[str, ServiceLogin]]) -> None:
    """Run the migrations of several services, each as a program of its own, as an operator would.

    Raises:
        RuntimeError: one of them failed; the message is what it printed.
    """
    await asyncio.gather(*(_migrate(package, login) for package, login in logins))


async def begin_key_history(login: ServiceLogin, key_file: Path, not_before: datetime, not_after: datetime) -> None:
    """Begin the history of the event journal's keys, as its operator would.

    Raises:
        RuntimeError: it failed; the message is what it printed.
    """
    await _run(
        "the history of the journal's keys", "event_journal.keys", "init", *_owner(login), "--key-file", str(key_file),
        "--not-before", not_before.isoformat(), "--not-after", not_after.isoformat(),
    )  # fmt: skip


async def _migrate(package: str, login: ServiceLogin) -> None:
    await _run(f"the migrations of {package}", f"{package}.migrate", *_owner(login), "--role", login.role)


def _owner(login: ServiceLogin) -> tuple[str, ...]:
    return "--owner-url", login.owner_url, "--owner-password-file", str(login.owner_password_file)


async def _run(what: str, module: str, *arguments: str) -> None:
    command = (sys.executable, "-m", module, *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), MIGRATION_SECONDS_MAX)
    except TimeoutError:
        process.kill()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{what} failed:\n{output.decode(errors='replace')}")
