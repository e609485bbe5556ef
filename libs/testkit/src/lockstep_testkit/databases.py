"""Real databases for tests: a server for the run, a migrated template for each service, a clone of it for each test.

The server is the one that `DATABASE_URL_TEST` names (a superuser's URL, with password), else a container where an engine answers, else the wheel's
Postgres. Roles and databases carry a suffix of their own for each run, so that runs may share a server, and are dropped at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg

from lockstep_kit.db import DatabaseSettings
from lockstep_kit.migrate import migrate
from lockstep_sandbox.postgres import (
    ServiceDatabase,
    close_server,
    create_service_database,
    owned_database,
    plan_service_database,
    private_postgres,
)

ENVIRONMENT: Final = "DATABASE_URL_TEST"
IMAGE: Final = "postgres:18-alpine"
ENGINE_SECONDS_MAX: Final = 2

#: A test's database is thrown away: what a crash of the machine would lose is not missed. A crash of the server alone loses nothing.
THROWN_AWAY: Final = {"fsync": "off", "full_page_writes": "off", "max_connections": "200", "max_wal_size": "256MB"}

#: What a service that is tested waits for its database on a machine that has other things to do; a test whose subject is such a limit sets its own.
PATIENT: Final[dict[str, Any]] = {
    "acquire_timeout_seconds": 120.0,
    "lock_timeout_seconds": 60.0,
    "statement_timeout_seconds": 120.0,
    "connect_timeout_seconds": 60.0,
}

#: Where files lie in memory: making and dropping hundreds of databases costs a disk's file system more than everything else that tests do to it.
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is made there has a name that nobody can guess, and belongs to the server alone
#: What must be free there, and of memory as a whole, to use it.
MEMORY_BYTES_MIN: Final = 4 << 30


@dataclass(frozen=True, slots=True)
class TestDatabase:
    """A database of one test: empty but for what its service's migrations made."""

    __test__ = False  # no test class, whatever its name

    #: Its name.
    name: str
    #: The service's role, which owns nothing.
    role: str
    #: URL of the owner, with password: for setting a scene, and for looking at outcomes from outside.
    owner_url: str = field(repr=False)
    #: URL of the role, with password.
    role_url: str = field(repr=False)
    #: What the service itself is given.
    settings: DatabaseSettings

    @contextlib.asynccontextmanager
    async def as_owner(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection of the owner."""
        async with _connection(self.owner_url) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def as_role(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection of the service's role, outside its pool."""
        async with _connection(self.role_url) as connection:
            yield connection


class Databases:
    """Templates and clones on one server, for one run."""

    def __init__(self, superuser_url: str, folder: Path) -> None:
        self._superuser_url = superuser_url
        self._folder = folder
        self._suffix = f"_{secrets.token_hex(3)}"
        self._templates: dict[str, ServiceDatabase] = {}
        self._making = asyncio.Lock()
        self._strategy = ""
        self._clones = 0

    @property
    def superuser_url(self) -> str:
        """The superuser's URL, with password: for killing sessions, and the like."""
        return self._superuser_url

    async def create(self, service: str, migrations: Path | None = None) -> TestDatabase:
        """A new database of a service, named after its package; it has the service's own migrations unless others are given.

        Without a package of that name and without migrations it is empty.
        """
        async with self._making:
            template = await self._template(service, migrations)
        self._clones += 1
        name = f"{template.name}_{self._clones}"
        async with _connection(self._superuser_url) as connection:
            # Copying files needs a checkpoint: the cheaper way where that waits for no disk.
            self._strategy = self._strategy or ("wal_log" if await connection.fetchval("show fsync") == "on" else "file_copy")
            for statement in owned_database(template, name, template.name, self._strategy):
                await connection.execute(statement)
        return TestDatabase(
            name=name,
            role=template.role,
            owner_url=self._url(f"{template.owner}:{template.owner_password}", name),
            role_url=self._url(f"{template.role}:{template.role_password}", name),
            settings=DatabaseSettings(url=self._url(template.role, name), password_file=self._password_file(template), **PATIENT),
        )

    async def drop(self, database: TestDatabase) -> None:
        """End what is still connected to a test's database, and remove it."""
        async with _connection(self._superuser_url) as connection:
            await connection.execute(f"drop database if exists {database.name} with (force)")

    async def close(self) -> None:
        """Remove what is left of the run: databases first, then the roles that own them."""
        async with _connection(self._superuser_url) as connection:
            for template in self._templates.values():
                for row in await connection.fetch("select datname from pg_database where datname ^@ $1", template.name):
                    await connection.execute(f"drop database if exists {row['datname']} with (force)")
                await connection.execute(f"drop role if exists {template.role}, {template.owner}")

    async def _template(self, service: str, migrations: Path | None) -> ServiceDatabase:
        migrations = migrations or migrations_of(service)
        key = f"{service}:{migrations}"
        if key not in self._templates:
            await close_server(self._superuser_url)
            numbered = f"{self._suffix}_{len(self._templates)}"
            template = plan_service_database(service, numbered)
            await create_service_database(self._superuser_url, template)
            self._templates[key] = template
            if migrations is not None:
                owner_url = self._url(f"{template.owner}:{template.owner_password}", template.name)
                await asyncio.to_thread(migrate, migrations, owner_url, template.role)
        return self._templates[key]

    def _url(self, user: str, database: str) -> str:
        server = urlsplit(self._superuser_url)
        return f"postgresql://{user}@{server.hostname}:{server.port or 5432}/{database}"

    def _password_file(self, template: ServiceDatabase) -> Path:
        path = self._folder / f"{template.role}.password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(template.role_password)
        return path


def migrations_of(package: str) -> Path | None:
    """The folder of migrations beside the source of an installed package of this repository; None where there is none."""
    found = find_spec(package)
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parents[2] / "migrations"
    return folder if (folder / "versions").is_dir() else None


@contextlib.contextmanager
def database_server() -> Iterator[str]:
    """URL of a superuser of the server to test with, which is stopped at the end if it was started here."""
    if given := os.environ.get(ENVIRONMENT):
        yield given
        return
    with contextlib.ExitStack() as stack:
        url = _in_container(stack)
        if url is None:
            url = stack.enter_context(private_postgres(secrets.token_urlsafe(24), _memory(), **THROWN_AWAY))
        yield url


def _memory() -> Path | None:
    """A file system in memory with room for the tests' databases, if there is one."""
    try:
        place = os.statvfs(MEMORY)
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return None
    free = min(place.f_bavail * place.f_frsize, int(facts["MemAvailable"].split()[0]) << 10)
    return MEMORY if free >= MEMORY_BYTES_MIN and os.access(MEMORY, os.W_OK) else None


def _in_container(stack: contextlib.ExitStack) -> str | None:
    """A server in a container; None where no engine answers, or the engine cannot get the image."""
    import docker  # type: ignore[import-untyped]

    try:
        client = docker.from_env(timeout=ENGINE_SECONDS_MAX)
        client.ping()
        client.close()
    except (docker.errors.DockerException, OSError):
        return None
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(IMAGE, username="postgres", password=secrets.token_urlsafe(24), driver=None)
    try:
        stack.enter_context(container)
    except docker.errors.DockerException as error:
        warnings.warn(f"a container engine answers, but {IMAGE} does not start ({error}): using the wheel's Postgres", stacklevel=2)
        return None
    return str(container.get_connection_url())


@contextlib.asynccontextmanager
async def _connection(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
