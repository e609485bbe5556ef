"""InstallationService: what a replica tells operators and auditors of itself. Each part is asked for when it is told, and given up when it takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from lockstep.installation.v1 import installation_service_pb2 as messages
from lockstep.installation.v1 import installation_service_pb2_grpc as stubs
from lockstep_kit import revisions
from lockstep_kit.convert import time_to_pb
from lockstep_kit.db import Database, is_transient
from lockstep_kit.ids import Digest
from lockstep_kit.rpc import Server
from lockstep_kit.rpc.arrows import INSTALLATION

#: Longest that one part may take; a caller whose deadline is this and a little more hears of it.
PART_SECONDS_MAX: Final = 3.0
GET_INSTALLATION: Final = f"/{INSTALLATION}/GetInstallation"

#: Field of the response -> what makes it.
Parts = Mapping[str, Callable[[], Awaitable[Message]]]


class PartUnknown(Exception):
    """A part cannot be told now; its text says why, in one sentence without secrets."""


class InstallationServicer(stubs.InstallationServiceServicer):
    """Tells how one replica is installed."""

    def __init__(self, name: str, db: Database, registry_hash: Digest, parts: Parts) -> None:
        """Take what is told; `registry_hash` is that of the registry's file, `parts` are those besides the database's."""
        self._name = name
        self._db = db
        self._registry_hash = registry_hash
        self._parts: Parts = {"database": self._database, **parts}
        self._started = datetime.now(UTC)

    async def GetInstallation(  # noqa: N802 - the protocol's name
        self, request: messages.GetInstallationRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> messages.GetInstallationResponse:
        """How this replica is installed, and what it reaches."""
        del request, context
        told = await asyncio.gather(*(_told(make) for make in self._parts.values()))
        response = messages.GetInstallationResponse(service=self._name, registry_hash=self._registry_hash)
        for name, part in zip(self._parts, told, strict=True):
            if isinstance(part, str):
                response.troubles.add(part=name, message=part)
            else:
                getattr(response, name).CopyFrom(part)
        response.start_time.CopyFrom(time_to_pb(self._started))
        response.clock_time.CopyFrom(time_to_pb(datetime.now(UTC)))
        return response

    async def _database(self) -> messages.DatabaseState:
        async with self._db.connection() as connection:
            found = await revisions.recorded(connection)
            now: datetime = await connection.fetchval("select clock_timestamp()")
        wanted = await asyncio.to_thread(revisions.wanted, self._name.replace("-", "_"))
        return messages.DatabaseState(clock_time=time_to_pb(now), revision=found, revision_wanted=wanted)


async def _told(make: Callable[[], Awaitable[Message]]) -> Message | str:
    """A part, or why it cannot be told."""
    try:
        async with asyncio.timeout(PART_SECONDS_MAX):
            return await make()
    except PartUnknown as error:
        return str(error)
    except Exception as error:
        if not is_transient(error):
            raise
        return "it did not answer in time" if isinstance(error, TimeoutError) else f"it does not answer ({type(error).__name__})"


def serve_installation(server: Server, servicer: InstallationServicer) -> None:
    """Have a server tell how its replica is installed."""
    descriptor = messages.DESCRIPTOR.services_by_name["InstallationService"]
    server.add(stubs.add_InstallationServiceServicer_to_server, servicer, descriptor)


def with_inspectors(clients: Mapping[str, Collection[str]], inspectors: Collection[str]) -> dict[str, tuple[str, ...]]:
    """A server's clients as `access_of` takes them, with those who may ask how it is installed."""
    rows = {name: tuple(methods) for name, methods in clients.items()}
    for name in inspectors:
        rows[name] = (*rows.get(name, ()), GET_INSTALLATION)
    return rows
