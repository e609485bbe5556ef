"""The coordinator, the payers and the chain around a gateway: the tests' own module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dlt_gateway.operations import leg_terms
from lockstep.participant.v1 import leg_pb2, participant_service_pb2_grpc
from lockstep_contracts.escrow import LegStatus, leg_key
from lockstep_kit.convert import vote_from_pb
from lockstep_kit.permits import Permit
from lockstep_kit.plan import TokenTransfer
from lockstep_kit.statements import Promise, Refusal
from lockstep_testkit import commands
from lockstep_testkit.chains import HOLDER, SettlementChain
from lockstep_testkit.factories import PlanCase, credit_terms, leg_of, plan_of
from lockstep_testkit.participant_conformance import REFUSED, ParticipantHarness
from lockstep_testkit.participants import ParticipantProcess

LEG = "tokens"


@dataclass
class GatewayWorld:
    """Everybody around a gateway."""

    service: ParticipantProcess
    chain: SettlementChain
    harness: ParticipantHarness

    @classmethod
    async def around(cls, service: ParticipantProcess, chain: SettlementChain) -> GatewayWorld:
        async def plan() -> PlanCase:
            return plan_over(chain.transfer())

        async def prepare(case: PlanCase, leg_id: str) -> leg_pb2.PrepareCommand:
            return prepare_command(chain, case, leg_id)

        stub = participant_service_pb2_grpc.ParticipantServiceStub(await service.channel())
        return cls(service, chain, ParticipantHarness("dlt-gateway", stub, LEG, plan, prepare_command=prepare, reversible=True))

    def plan(self, minor_units: int = 1_000, **changes: Any) -> PlanCase:
        return plan_over(self.chain.transfer(minor_units, **changes))

    def command(self, plan: PlanCase, **changes: Any) -> leg_pb2.PrepareCommand:
        return prepare_command(self.chain, plan, LEG, **changes)

    async def refusal(self, command: leg_pb2.PrepareCommand) -> Refusal:
        """Why the gateway votes NO."""
        answer = await self.harness.settled(lambda: self.harness.send_prepare(command))
        assert answer.verdict == REFUSED, answer
        found = self.answer(answer)
        assert isinstance(found, Refusal)
        return found

    async def status(self, plan: PlanCase) -> LegStatus:
        return await self.chain.leg_status(plan.header.digest, LEG)

    async def events(self, plan: PlanCase) -> list[str]:
        """What the contract said about the plan's leg, by name and in order."""
        return [type(event).__name__ for event in await self.chain.events(self.chain.escrow, leg_key(plan.header.digest, LEG))]

    async def held(self, plan: PlanCase) -> tuple[int, int]:
        """What payer and payee of the plan's leg hold."""
        terms = terms_of(plan)
        return await self.chain.balance(terms.payer), await self.chain.balance(terms.payee)

    def answer(self, answer: leg_pb2.CommandAnswer) -> Promise | Refusal:
        """What a vote says, once its signature is checked."""
        signed = vote_from_pb(answer.report.vote)
        voter = self.harness.registry.participant_of(signed.signature, signed.vote.signed_bytes(), signed.vote.voted_at)
        assert voter is not None
        assert voter.name == "dlt-gateway"
        return signed.vote.answer


def plan_over(terms: TokenTransfer) -> PlanCase:
    return plan_of([leg_of(LEG, terms), leg_of("cash", credit_terms())])


def terms_of(plan: PlanCase) -> TokenTransfer:
    terms = plan.leg(LEG).terms
    assert isinstance(terms, TokenTransfer)
    return terms


def prepare_command(
    chain: SettlementChain,
    plan: PlanCase,
    leg_id: str,
    *,
    signer: str = HOLDER,
    signature: bytes = b"",
    permit: Permit | None = None,
) -> leg_pb2.PrepareCommand:
    if plan.leg(leg_id).settling and isinstance(plan.leg(leg_id).terms, TokenTransfer):
        signature = signature or chain.signature(leg_terms(plan.binding(leg_id)), signer)
    return commands.prepare(plan, leg_id, payer_signature=signature, permit=permit)
