"""Where it is looked: everything that a run of the sandbox writes, sends or shows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from canaries.planted import Canary, Kind
from lockstep_sandbox.stack import BANK, SERVICES, Sandbox
from lockstep_testkit.ownership import as_owner

#: Where each participant keeps the header of the plan that its leg is of.
PARTY_PLACES = tuple(f"database:{name}:public.participant_leg" for name in ("dlt-gateway", "notary", "event-journal"))
#: Where personal data have to be, since the money is moved by them: the plan at the coordinator, the messages at the gateway and the bank, and what the bank
#: was set up with. Everything else of the table is empty: no kind may be anywhere else, and a secret only in its own file.
PERSONAL_PLACES = (
    "database:coordinator",
    "database:bank-gateway",
    "database:bank-simulator",
    "file:config/bank-seed.yaml",
    "file:state/rail",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Something that was written down."""

    name: str
    octets: bytes
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A canary where it must not be."""

    canary: str
    place: str


class Search:
    """Looks for all canaries in a place."""

    def __init__(self, canaries: list[Canary]) -> None:
        self._canaries = canaries

    def found(self, place: Place) -> Iterator[Finding]:
        """The canaries that a place holds and must not."""
        for each in self._canaries:
            if each.file is not None and each.file == place.file:
                continue
            if each.kind in (Kind.PERSONAL, Kind.PARTY) and place.name.startswith(PERSONAL_PLACES):
                continue
            if each.kind is Kind.PARTY and place.name in PARTY_PLACES:
                continue
            if any(form in place.octets for form in each.forms):
                yield Finding(f"{each.kind}: {each.name}", place.name)


def files(sandbox: Sandbox) -> Iterator[Place]:
    """Every file of the run: logs, the span store, settings, the chain's, the audit's; and the database server's own log."""
    run = sandbox.run.path
    for path in sorted(run.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                yield Place(f"file:{path.relative_to(run)}", path.read_bytes(), path)
    server = sandbox.databases.server.log
    yield Place("file:postgres.log", server.read_bytes(), server)


def processes() -> Iterator[Place]:
    """What anybody on the machine may read of every process that this one started, and of those that they started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    family = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    for pid in sorted(family - {os.getpid()}):
        for what in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                octets = Path(f"/proc/{pid}/{what}").read_bytes()
                yield Place(f"process:{what}:{Path(f'/proc/{pid}/comm').read_text().strip()}", octets)


async def databases(sandbox: Sandbox) -> AsyncIterator[Place]:
    """Every table of every database, each row as text and each column of bytes as it is."""
    for service in (*SERVICES, BANK):
        async with as_owner(sandbox, service) as owner:
            names = await owner.fetch(
                "select quote_ident(table_schema) || '.' || quote_ident(table_name) as name from information_schema.tables "
                "where table_type = 'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema')"
            )
            for (name,) in names:
                octets = bytearray()
                for row in await owner.fetch(f"select t.*, t::text as whole from {name} as t"):
                    for value in row.values():
                        for each in value if isinstance(value, list) else [value]:
                            octets += bytes(each) if isinstance(each, (bytes, memoryview)) else str(each).encode()
                            octets += b"\n"
                yield Place(f"database:{service}:{name}", bytes(octets))
