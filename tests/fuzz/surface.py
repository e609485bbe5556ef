"""What can be called, and who may: every method of the protocol, found from its descriptors and from what the servers say they serve.

A service that nobody has a row for below, or that no server serves, is an error: nothing that is new can be left out.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import lockstep

#: Longest that a server may take to say what it serves.
ASK_SECONDS_MAX: Final = 30.0
COORDINATOR: Final = "coordinator"
#: The client that the settings name; none is let in for being a client.
NAMED: Final = "client/cli"
#: Service -> who may call it at the most. Kept apart from the services' own tables: this is what they are held against.
ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {
    "lockstep.participant.v1.ParticipantService": (COORDINATOR,),
    "lockstep.journal.v1.JournalService": (COORDINATOR,),
    "lockstep.journal.v1.JournalReaderService": (NAMED, "notary"),
    "lockstep.notary.v1.NotaryService": (NAMED,),
    "lockstep.bank.v1.ReconciliationService": (NAMED,),
    "lockstep.coordinator.v1.SettlementService": (NAMED,),
    "lockstep.coordinator.v1.OperatorService": (NAMED,),
    "lockstep.installation.v1.InstallationService": (NAMED,),
    "grpc.health.v1.Health": ("",),
}
#: Services that clients read.
READ: Final = ("lockstep.journal.v1.JournalReaderService", "lockstep.notary.v1.NotaryService")
#: What the coordinator may call of services that others read; the second nobody else may.
COORDINATORS: Final = (
    "/lockstep.journal.v1.JournalReaderService/ListEntries",
    "/lockstep.notary.v1.NotaryService/RecordEscalations",
)
#: Services of the protocol that change something when they are asked properly.
WRITING: Final = (
    "CreatePlan", "ExecutePlan", "CancelPlan", "SignGate", "CreatePlans", "ExecutePlans", "SignGates", "SignResolution",
    "ReplayDeadLetter",
    "Append", "RaiseFence", "RecordEscalations", "Prepare", "Commit", "Abort", "Reverse", "GetLeg",
)  # fmt: skip


class SurfaceUnknown(Exception):
    """There is a service of which nobody has said who may call it, or which nobody serves."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method at one server."""

    #: Who serves it: name of the server.
    server: str
    #: As gRPC calls it.
    path: str
    #: Its request's descriptor.
    request: Any
    #: Its answer's descriptor.
    response: Any
    #: Whether it answers with a stream.
    streams: bool

    @property
    def service(self) -> str:
        """Full name of its service."""
        return self.path.split("/")[1]

    @property
    def writes(self) -> bool:
        """Whether it changes something when it is asked properly; what is in no list is taken for reading, and then held to it."""
        return self.path.rsplit("/", 1)[1] in WRITING

    def may_be_called_by(self, name: str) -> bool:
        """Whether a caller of the trust domain may call it at the most."""
        if self.service in READ and name == COORDINATOR:
            return self.path in COORDINATORS
        if self.path == COORDINATORS[1]:
            return False
        return any(each in (name, "") for each in ALLOWED[self.service])


def services() -> dict[str, Any]:
    """Every service of the protocol by its full name, from the generated code, and gRPC's own health."""
    found = {}
    for module in pkgutil.walk_packages(lockstep.__path__, "lockstep."):
        if module.name.endswith("_pb2"):
            descriptor = importlib.import_module(module.name).DESCRIPTOR
            found.update({each.full_name: each for each in descriptor.services_by_name.values()})
    found.update({each.full_name: each for each in health_pb2.DESCRIPTOR.services_by_name.values()})
    return found


async def methods_of(servers: Mapping[str, grpc.aio.Channel]) -> list[Method]:
    """Every method at every server that serves it, in an order that does not change; `servers` by name, over channels that may ask for health.

    Raises:
        SurfaceUnknown: there is a service without a row above, or one that none of the servers serves.
    """
    known = services()
    if missing := sorted(known.keys() - ALLOWED.keys()):
        raise SurfaceUnknown(f"nobody has said who may call {', '.join(missing)}")
    served = {
        (server, name)
        for server, channel in servers.items()
        for name in known
        if name == "grpc.health.v1.Health" or await _serves(channel, name)
    }
    if unserved := sorted(known.keys() - {name for _, name in served}):
        raise SurfaceUnknown(f"nobody serves {', '.join(unserved)}")
    return [
        Method(server, f"/{name}/{each.name}", each.input_type, each.output_type, each.server_streaming)
        for server, name in sorted(served)
        for each in known[name].methods
    ]


async def _serves(channel: grpc.aio.Channel, service: str) -> bool:
    stub = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(ASK_SECONDS_MAX):
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=ASK_SECONDS_MAX, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
