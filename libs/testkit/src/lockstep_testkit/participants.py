"""A participant's own process, as it runs in the field, against a test's database: started, killed at failpoints, started again.

    service = await participant("event-journal", database)           # the fixture `participant`
    stub = participant_service_pb2_grpc.ParticipantServiceStub(await service.channel(COORDINATOR))
    await service.dies_at("event-journal.append.in_tx", lambda: stub.…)

Its registry is the one of `factories`, its key `factories.key_of(name)`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import grpc
import yaml

from lockstep_kit.failpoints import ENVIRONMENT
from lockstep_kit.key_files import write_signing_key
from lockstep_kit.registry import Matrix, RegisteredKey
from lockstep_kit.registry_file import LIMITED_ROLES
from lockstep_kit.rpc import TlsSettings, channel
from lockstep_kit.rpc.limits import CallerLimits
from lockstep_sandbox.health import serving
from lockstep_sandbox.ports import free_ports
from lockstep_sandbox.processes import Program, ProgramFailed, Supervisor
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import key_of, registry_of

COORDINATOR: Final = "spiffe://lockstep.local/coordinator"
CLIENT: Final = "spiffe://lockstep.local/client/tests"
#: What a client may have that does the work of many.
ROOMY: Final = CallerLimits(
    calls_per_second=5_000,
    calls_burst=10_000,
    calls_at_once_max=400,
    streams_per_second=500,
    streams_burst=400,
    streams_max=400,
)
#: Who reads a participant, as its settings say it: the tests' client.
READERS: Final[Mapping[str, Any]] = {
    "bank-gateway": ["tests"],
    "notary": {"tests": {"methods": ["*"], "desk": "auditor"}},
    "event-journal": {"tests": {"methods": ["*"], "desk": "auditor"}},
}
READY_SECONDS_MAX: Final = 300.0
DEATH_SECONDS_MAX: Final = 240.0
#: One that dies as soon as it is called is not connected to for long.
CONNECTED_SECONDS_MAX: Final = 20.0


@dataclass
class ParticipantProcess:
    """A running participant."""

    #: Its name.
    name: str
    #: Its database.
    database: TestDatabase
    #: Where it listens; the same over restarts.
    port: int
    #: Starts and stops it.
    supervisor: Supervisor
    #: Makes certificates.
    tls_for: Callable[[str], TlsSettings]
    #: Closes what callers opened.
    channels: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    #: What callers opened.
    opened: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"localhost:{self.port}"

    async def channel(self, caller: str = COORDINATOR) -> grpc.aio.Channel:
        """A channel that shows a caller's certificate."""
        made = await self.channels.enter_async_context(channel(self.target, self.tls_for(caller)))
        self.opened.append(made)
        return made

    async def restart(self, failpoints: str = "", *, environ: Mapping[str, str] | None = None) -> None:
        """Stop it if it runs, and start it with these failpoints armed; one that dies before it was seen to be ready did what it was told."""
        program = self.supervisor.program(self.name)
        await self.supervisor.stop(self.name)
        with contextlib.suppress(*((ProgramFailed,) if failpoints else ())):
            await self.supervisor.start(replace(program, environ={ENVIRONMENT: failpoints, **(environ or {})}))
            await self._connected()

    async def _connected(self) -> None:
        """Wait until callers have connected again: until then their calls end at once, and lead to no failpoint."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECTED_SECONDS_MAX):
                await asyncio.gather(*(each.channel_ready() for each in self.opened))

    async def replica(self, number: int) -> ParticipantProcess:
        """Start another process of it, over the same database, which has a port and a program of its own; the supervisor stops it too."""
        (port,) = free_ports(1)
        first, name = self.supervisor.program(self.name), f"{self.name}-{number}"
        config = _listening_at(port, Path(first.command[-1]), f"{name}.yaml")
        ready = serving(f"localhost:{port}", self.tls_for(CLIENT))
        await self.supervisor.start(replace(first, name=name, command=(*first.command[:-1], str(config)), ready=ready))
        return replace(self, name=name, port=port, opened=[])

    async def kill(self) -> None:
        """End it as a power failure would."""
        await self.supervisor.kill9(self.name)

    async def dies_at(self, failpoint: str, provoke: Callable[[], Awaitable[object]], *, nth: int = 1) -> None:
        """Have it killed at a failpoint that `provoke` leads to, and start it anew, disarmed.

        Raises:
            TimeoutError: it was not killed in time.
        """
        await self.restart(f"{failpoint}=kill@{nth}")
        with contextlib.suppress(grpc.aio.AioRpcError):
            await provoke()
        await self.supervisor.wait_until_ended(self.name, DEATH_SECONDS_MAX)
        await self.restart()


async def start_participant(
    stack: contextlib.AsyncExitStack,
    supervisor: Supervisor,
    tls_for: Callable[[str], TlsSettings],
    folder: Path,
    name: str,
    database: TestDatabase,
    settings: Mapping[str, Any],
) -> ParticipantProcess:
    """Start a participant's process over its database, which the supervisor stops."""
    (port,) = free_ports(1)
    key_file, registry_file, config = folder / f"{name}.pem", folder / "registry.yaml", folder / f"{name}.yaml"
    write_signing_key(key_file, key_of(name))
    registry_file.write_text(yaml.safe_dump(registry_document()))
    document = {
        "database": {"url": database.settings.url, "password_file": str(database.settings.password_file)},
        "tls": {part: str(path) for part, path in tls_for(f"spiffe://lockstep.local/{name}")},
        "participant": {"signing_key_file": str(key_file), "registry_file": str(registry_file)},
        **({"readers": READERS[name]} if name in READERS else {}),
        **settings,
    }
    listen = {"port": port, "drain_seconds": 2.0, "limits": {"clients": ROOMY.model_dump()}}
    document["listen"] = {**listen, **document.get("listen", {})}
    config.write_text(yaml.safe_dump(document))
    ready = serving(f"localhost:{port}", tls_for(CLIENT))
    command = (sys.executable, "-m", name.replace("-", "_"), "--config", str(config))
    started = ParticipantProcess(name, database, port, supervisor, tls_for)
    stack.push_async_callback(started.channels.aclose)
    await supervisor.start(Program(name, command, {ENVIRONMENT: ""}, ready=ready, ready_seconds_max=READY_SECONDS_MAX))
    return started


def _listening_at(port: int, config: Path, name: str) -> Path:
    """The same settings in a file beside them, but for the port."""
    document = yaml.safe_load(config.read_text())
    document["listen"]["port"] = port
    beside = config.with_name(name)
    beside.write_text(yaml.safe_dump(document))
    return beside


def keys_document(registered: tuple[RegisteredKey, ...]) -> list[dict[str, Any]]:
    """Keys, as a registry's file says them."""
    return [
        {
            "public_key": base64.b64encode(each.public.octets).decode(),
            "not_before": each.not_before,
            "not_after": each.not_after,
        }
        for each in registered
    ]


def registry_document() -> dict[str, Any]:
    """The registry of `factories`, as its file says it."""
    registry = registry_of()
    return {
        "actors": [
            {
                "actor_id": str(each.actor_id),
                "roles": sorted(role.value for role in each.roles),
                "keys": keys_document(each.keys),
                "limits": {limits.role.value: "unlimited" for limits in each.limits if limits.role in LIMITED_ROLES},
            }
            for each in registry.actors
        ],
        "participants": [{"name": each.name, "keys": keys_document(each.keys)} for each in registry.participants],
        "matrices": [matrix_document(each) for each in registry.matrices.values()],
    }


def matrix_document(matrix: Matrix) -> dict[str, Any]:
    """A matrix of duties that asks for one person a gate and takes no agents, as its file says it."""
    return {
        "version": matrix.version,
        "gates": {gate.value: {"roles": sorted(role.value for role in rule.roles)} for gate, rule in matrix.gates.items()},
        "different_persons": [sorted(gate.value for gate in group) for group in matrix.different_persons],
    }
