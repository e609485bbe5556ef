"""The coordinator, a reader and the chain around a notary: the tests' own module."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from eth_utils.crypto import keccak

from lockstep.notary.v1 import anchor_pb2, notary_service_pb2, notary_service_pb2_grpc
from lockstep.participant.v1 import participant_service_pb2_grpc
from lockstep_contracts.events import Event, decode_log
from lockstep_contracts.notary import AnchorKind, PlanStatus, decode_anchor_of_many, encode_anchor_of_many
from lockstep_kit.plan import Anchoring, Notarisation
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

    def harness_of(self, anchoring: Anchoring) -> ParticipantHarness:
        """The same participant, asked about plans that go into batches."""

        async def plan() -> PlanCase:
            return plan_over(self.chain.registry, anchoring=anchoring)

        return replace(self.harness, plan=plan)

    async def status(self, plan: PlanCase) -> PlanStatus:
        return await self.chain.plan_status(plan.header.digest)

    async def events(self, plan: PlanCase) -> list[Event]:
        """What the registry said about the plan, in order."""
        return await self.chain.events(self.chain.registry, plan.header.digest)

    async def read(self, plan: PlanCase) -> notary_service_pb2.GetNotarisationResponse:
        return await self.reader.GetNotarisation(notary_service_pb2.GetNotarisationRequest(plan_id=plan.plan_id), timeout=60)

    async def anchors(self, root: bytes) -> list[Event]:
        """What the registry said about a root, in order."""
        asked = {"address": self.chain.registry, "fromBlock": "0x0", "toBlock": "latest", "topics": [None, None, "0x" + root.hex()]}
        logs = await self.chain.chain.node.call("eth_getLogs", asked)
        events = [decode_log([hexed(topic) for topic in log["topics"]], hexed(log["data"])) for log in logs]
        return [event for event in events if event is not None]

    async def shows(self, anchor: anchor_pb2.Anchor) -> bool:
        """Whether the chain bears an anchor out: the registry knows the root as it says; its bytes, if any, are a transaction of that block."""
        node = self.chain.chain.node
        known = decode_anchor_of_many(await node.read(self.chain.registry, encode_anchor_of_many([anchor.root_hash])))
        header = await node.call("eth_getBlockByNumber", hex(anchor.block_number), False)
        carried = True
        if anchor.raw_transaction:
            receipt = await node.call("eth_getTransactionReceipt", "0x" + keccak(anchor.raw_transaction).hex())
            carried = receipt["blockHash"] == header["hash"]
        return (
            carried
            and known == ((AnchorKind(anchor.kind), anchor.tree_size),)
            and (anchor.chain, anchor.registry) == (CHAIN, self.chain.registry)
            and hexed(header["hash"]) == anchor.block_hash
        )

    async def batched(self, plan: PlanCase) -> notary_service_pb2.GetNotarisationResponse:
        """The plan's notarisation, once its end is in a batch."""
        return await self._until(plan, lambda read: read.HasField("outcome_proof"))

    async def anchored(self, plan: PlanCase) -> notary_service_pb2.GetNotarisationResponse:
        """The plan's notarisation, once its end is anchored."""
        return await self._until(plan, lambda read: read.outcome_proof.HasField("anchor"))

    async def _until(
        self, plan: PlanCase, holds: Callable[[notary_service_pb2.GetNotarisationResponse], bool]
    ) -> notary_service_pb2.GetNotarisationResponse:
        for _ in range(2400):
            read = await self.read(plan)
            if holds(read):
                return read
            await asyncio.sleep(0.05)
        raise AssertionError(f"does not come: {read}")


def hexed(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def plan_over(registry: str, chain: str = CHAIN, anchoring: Anchoring | None = None) -> PlanCase:
    terms = Notarisation(chain, registry, anchoring)
    return plan_of([leg_of("tokens", token_terms()), leg_of("cash", credit_terms()), leg_of(LEG, terms)])
