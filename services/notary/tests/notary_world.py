"""The coordinator, a reader and the chain around a notary: the tests' own module."""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.notary.v1 import notary_service_pb2, notary_service_pb2_grpc
from lockstep.participant.v1 import participant_service_pb2_grpc
from lockstep_contracts.events import Event
from lockstep_contracts.notary import PlanStatus
from lockstep_kit.plan import Notarisation
from lockstep_testkit.chains import SettlementChain
from lockstep_testkit.factories import CHAIN, PlanCase, credit_terms, leg_of, plan_of, token_terms
from lockstep_testkit.participant_conformance import ParticipantHarness
from lockstep_testkit.participants import CLIENT, ParticipantProcess

LEG = "notarisation"


@dataclass
class NotaryWorld:
    """Everybody around a notary."""

    service: ParticipantProcess
    chain: SettlementChain
    reader: notary_service_pb2_grpc.NotaryServiceStub
    harness: ParticipantHarness

    @classmethod
    async def around(cls, service: ParticipantProcess, chain: SettlementChain) -> NotaryWorld:
        async def plan() -> PlanCase:
            return plan_over(chain.registry)

        stub = participant_service_pb2_grpc.ParticipantServiceStub(await service.channel())
        reader = notary_service_pb2_grpc.NotaryServiceStub(await service.channel(CLIENT))
        return cls(service, chain, reader, ParticipantHarness("notary", stub, LEG, plan))

    async def status(self, plan: PlanCase) -> PlanStatus:
        return await self.chain.plan_status(plan.header.digest)

    async def events(self, plan: PlanCase) -> list[Event]:
        """What the registry said about the plan, in order."""
        return await self.chain.events(self.chain.registry, plan.header.digest)

    async def read(self, plan: PlanCase) -> notary_service_pb2.GetNotarisationResponse:
        return await self.reader.GetNotarisation(notary_service_pb2.GetNotarisationRequest(plan_id=plan.plan_id), timeout=20)


def plan_over(registry: str, chain: str = CHAIN) -> PlanCase:
    return plan_of([leg_of("tokens", token_terms()), leg_of("cash", credit_terms()), leg_of(LEG, Notarisation(chain, registry))])
