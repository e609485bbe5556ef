"""Records of escalations on their way to the chain, judged from the chain: deaths, conflicts, a chain that is away, restores, who may call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
from notary_world import NotaryWorld, hexed, plan_over

from lockstep.notary.v1 import escalation_record_pb2 as records
from lockstep.notary.v1 import notary_service_pb2 as messages
from lockstep.notary.v1 import notary_service_pb2_grpc
from lockstep_contracts import notary as calls
from lockstep_contracts.events import EscalationRecorded, decode_log
from lockstep_contracts.notary import EscalationKind, KnownEscalation
from lockstep_kit import escalations
from lockstep_kit.escalations import Said, escalation_hash
from lockstep_kit.ids import Digest, PlanId, sha256
from lockstep_kit.migrate import renew_logs
from lockstep_sandbox.deployment import NOTARY_SIGNER
from lockstep_testkit.databases import Databases
from lockstep_testkit.participants import ParticipantProcess
from lockstep_testkit.snapshots import Snapshots
from lockstep_testkit.strict_node import StrictNode

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
KINDS = {
    escalations.EscalationKind.OPENED: records.ESCALATION_RECORD_KIND_OPENED,
    escalations.EscalationKind.RESOLVED: records.ESCALATION_RECORD_KIND_RESOLVED,
}
KEPT, CONFLICT = records.RECORD_VERDICT_KEPT, records.RECORD_VERDICT_CONFLICT


def opened(reason: str = "LEG_REFUSED") -> Said:
    plan_id = PlanId(str(uuid4()))
    return escalations.opened(plan_id, sha256(plan_id.encode()), str(uuid4()), reason=reason, leg_id="cash", at_risk=(), at=AT)


def resolved(said: Said) -> Said:
    return escalations.resolved(said.plan_id, said.plan_digest, said.escalation_id, resolution=sha256(b"resolution"), at=AT)


def to_pb(said: Said) -> records.EscalationStatement:
    return records.EscalationStatement(
        plan_id=said.plan_id,
        plan_digest=said.plan_digest,
        escalation_id=said.escalation_id,
        kind=KINDS[said.kind],
        document_hash=said.digest,
    )


class Teller:
    """The coordinator, as far as it tells the notary of escalations; and anybody who reads."""

    def __init__(self, world: NotaryWorld, stub: notary_service_pb2_grpc.NotaryServiceStub) -> None:
        self.world = world
        self.stub = stub

    async def tell(self, *said: Said) -> list[int]:
        request = messages.RecordEscalationsRequest(statements=[to_pb(each) for each in said])
        response = await self.stub.RecordEscalations(request, timeout=60)
        return [each.verdict for each in response.answers]

    async def of_plan(self, said: Said) -> Sequence[records.EscalationRecord]:
        request = messages.GetEscalationRecordsRequest(plan_id=said.plan_id)
        return (await self.world.reader.GetEscalationRecords(request, timeout=60)).records

    async def recorded(self, *said: Said) -> list[records.EscalationRecord]:
        """The records of one plan, once all of them stand on chain."""
        for _ in range(2400):
            found = list(await self.of_plan(said[0]))
            if len(found) == len(said) and all(each.HasField("entry") for each in found):
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"does not come: {found}")

    async def chain(self, said: Said) -> KnownEscalation:
        """What the registry itself knows of the escalation."""
        calldata = calls.encode_escalation_of_many([escalation_hash(said.escalation_id)])
        (found,) = calls.decode_escalation_of_many(await self.world.chain.chain.node.read(self.world.chain.registry, calldata))
        return found

    async def events(self, said: Said) -> list[EscalationRecorded]:
        """What the registry said about the escalation, in order."""
        asked = {
            "address": self.world.chain.registry,
            "fromBlock": "0x0",
            "toBlock": "latest",
            "topics": [None, None, "0x" + escalation_hash(said.escalation_id).hex()],
        }
        logs = await self.world.chain.chain.node.call("eth_getLogs", asked)
        events = [decode_log([hexed(topic) for topic in log["topics"]], hexed(log["data"])) for log in logs]
        return [event for event in events if isinstance(event, EscalationRecorded)]


@pytest_asyncio.fixture(loop_scope="session")
async def teller(world: NotaryWorld, service: ParticipantProcess) -> AsyncIterator[Teller]:
    yield Teller(world, notary_service_pb2_grpc.NotaryServiceStub(await service.channel()))


async def test_opened_and_resolved_stand_on_chain(teller: Teller) -> None:
    """Both documents' hashes stand on the registry with the plan's digest, once each; telling it again changes nothing."""
    first, last = (said := opened()), resolved(said)
    assert await teller.tell(first, last) == [KEPT, KEPT]
    found = await teller.recorded(first, last)
    assert [each.statement for each in found] == [to_pb(first), to_pb(last)]
    assert await teller.chain(first) == KnownEscalation(first.plan_digest, first.digest, last.digest)
    assert await teller.tell(last, first) == [KEPT, KEPT]
    assert await teller.recorded(first, last) == found
    assert [(each.plan_digest, each.kind, each.document_hash) for each in await teller.events(first)] == [
        (first.plan_digest, EscalationKind.OPENED, first.digest),
        (first.plan_digest, EscalationKind.RESOLVED, last.digest),
    ]
    for each in found:
        header = await teller.world.chain.chain.node.call("eth_getBlockByNumber", hex(each.entry.block_number), False)
        assert hexed(header["hash"]) == each.entry.block_hash
        assert each.entry.escalation_hash == sha256(first.escalation_id.encode())


async def test_a_batch_is_one_transaction(teller: Teller) -> None:
    """What is told together goes together, and each plan's readers see their own."""
    said = [opened() for _ in range(20)]
    assert await teller.tell(*said) == [KEPT] * 20
    found = [(await teller.recorded(each))[0] for each in said]
    assert len({each.entry.raw_transaction for each in found}) == 1
    assert [each.statement for each in found] == [to_pb(each) for each in said]


async def test_another_word_is_refused(teller: Teller) -> None:
    """Another document, or another plan, of the same escalation is refused by itself, now and in the same batch; the first stays, on chain too."""
    said = opened()
    other = replace(said, document=said.document + b" ")
    elsewhere = replace(resolved(said), plan_id=PlanId(str(uuid4())))
    assert await teller.tell(said, other, elsewhere) == [KEPT, CONFLICT, CONFLICT]
    await teller.recorded(said)
    assert await teller.tell(other, said) == [CONFLICT, KEPT]
    assert (await teller.chain(said)).opened == said.digest
    assert [each.statement for each in await teller.of_plan(said)] == [to_pb(said)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"plan_id": "x"}, "plan_id"),
        ({"plan_digest": b"x"}, "plan_digest"),
        ({"escalation_id": ""}, "escalation_id"),
        ({"escalation_id": "4\x00"}, "escalation_id"),
        ({"escalation_id": "4\n"}, "escalation_id"),
        ({"kind": 7}, "kind"),
        ({"document_hash": bytes(32)}, "document_hash"),
    ],
)
async def test_malformed(teller: Teller, change: dict[str, object], field: str) -> None:
    """A field that is wrong is named, and nothing of the request is kept."""
    said = opened()
    bad = to_pb(opened())
    for name, value in change.items():
        setattr(bad, name, value)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await teller.stub.RecordEscalations(messages.RecordEscalationsRequest(statements=[to_pb(said), bad]), timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"statements[1].{field}" in (refused.value.details() or "")
    assert await teller.of_plan(said) == []


async def test_the_coordinator_alone_may_tell(teller: Teller) -> None:
    """A reader reads, and says nothing; the coordinator does not need to read."""
    said = opened()
    request = messages.RecordEscalationsRequest(statements=[to_pb(said)])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await teller.world.reader.RecordEscalations(request, timeout=60)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await teller.of_plan(said) == []


async def test_a_plan_s_notarisation_lists_them(teller: Teller) -> None:
    """Whoever reads a plan's notarisation sees its escalations."""
    world = teller.world
    plan = plan_over(world.chain.registry)
    await world.harness.prepare(plan)
    said = escalations.opened(plan.plan_id, plan.header.digest, str(uuid4()), reason="LEG_TROUBLE", leg_id="", at_risk=(), at=AT)
    await teller.tell(said)
    assert [each.statement for each in (await world.read(plan)).escalations] == [to_pb(said)]


@pytest.mark.parametrize(
    "place",
    [
        "escalation.record.before_tx",
        "escalation.record.in_tx",
        "escalation.record.after_commit",
        "escalation.judge.in_tx",
        "escalation.judge.after_commit",
        "chain.assign.after_commit",
        "chain.broadcast.after_send",
        "chain.confirm.in_tx",
    ],
)
async def test_killed_on_the_way(teller: Teller, service: ParticipantProcess, place: str) -> None:
    """Killed anywhere between the word and its entry: told again it is kept, and stands on chain once."""
    said = opened()

    async def provoke() -> None:
        await teller.tell(said)

    await service.dies_at(f"notary.{place}", provoke)
    for _ in range(600):
        try:
            assert await teller.tell(said) == [KEPT]
            break
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.1)
    else:
        raise AssertionError("it is never kept")
    await teller.recorded(said)
    assert len(await teller.events(said)) == 1
    assert (await teller.chain(said)).opened == said.digest


async def test_the_chain_is_away(teller: Teller, endpoint: StrictNode) -> None:
    """It is kept while the chain is away, is not said to stand there, and does once it is back."""
    said = opened()
    endpoint.faults.down = True
    try:
        assert await teller.tell(said) == [KEPT]
        await asyncio.sleep(1.0)
        assert [each.HasField("entry") for each in await teller.of_plan(said)] == [False]
    finally:
        endpoint.faults.down = False
    await teller.recorded(said)
    assert len(await teller.events(said)) == 1


async def test_a_resolution_waits_for_its_opening(teller: Teller) -> None:
    """Told in any order, the opening goes first; a resolution alone is kept, and never said to stand on chain."""
    said = opened()
    last = resolved(said)
    assert await teller.tell(last) == [KEPT]
    await asyncio.sleep(1.0)
    assert [(each.HasField("entry"), each.trouble) for each in await teller.of_plan(said)] == [(False, "")]
    assert await teller.tell(said) == [KEPT]
    await teller.recorded(last, said)
    assert [each.kind for each in await teller.events(said)] == [EscalationKind.OPENED, EscalationKind.RESOLVED]


async def test_the_registry_knows_otherwise(teller: Teller) -> None:
    """Where the registry holds another hash, that is said in the record, and never that this one stands there."""
    said, known = opened(), opened()
    theirs = [
        calls.EscalationRecord(each.plan_digest, escalation_hash(each.escalation_id), EscalationKind.OPENED, document)
        for each, document in ((said, sha256(b"another")), (known, known.digest))
    ]
    chain = teller.world.chain
    await chain.chain.transact(chain.registry, calls.encode_record_escalations(theirs), by=NOTARY_SIGNER)
    assert await teller.tell(said, known) == [KEPT, KEPT]
    (found,) = await teller.recorded(known)
    assert found.entry.raw_transaction == b""
    for _ in range(2400):
        (other,) = await teller.of_plan(said)
        if other.trouble:
            break
        await asyncio.sleep(0.05)
    assert sha256(b"another").hex() in other.trouble
    assert not other.HasField("entry")


async def test_a_database_that_was_put_back(teller: Teller, service: ParticipantProcess, databases: Databases) -> None:
    """A notary that forgot a record is told it again, finds it on the registry, and sends nothing."""
    snapshots = Snapshots(databases.superuser_url)
    snapshot = await snapshots.take(service.database.name, service.database.role)
    said = opened()
    await teller.tell(said)
    await teller.recorded(said)
    await service.kill()
    await service.supervisor.stop(service.name)
    await snapshots.put_back(snapshot)
    await asyncio.to_thread(renew_logs, service.database.owner_url)
    await service.restart()
    assert await teller.of_plan(said) == []
    assert await teller.tell(said) == [KEPT]
    (found,) = await teller.recorded(said)
    assert found.entry.raw_transaction == b""
    assert len(await teller.events(said)) == 1
    await snapshots.drop(snapshot)


async def test_replicas_record_once(teller: Teller, service: ParticipantProcess) -> None:
    """Two processes over one database, told at once, of contradicting words too: one of each stands, whoever was first, and everybody is told which."""
    other = await service.replica(2)
    try:
        second = notary_service_pb2_grpc.NotaryServiceStub(await other.channel())
        pairs = [(said := opened(), replace(said, document=said.document + b" ")) for _ in range(8)]

        async def both(one: Said, two: Said) -> list[int]:
            asked = messages.RecordEscalationsRequest(statements=[to_pb(two)])
            mine, theirs = await asyncio.gather(teller.tell(one), second.RecordEscalations(asked, timeout=60))
            return [*mine, theirs.answers[0].verdict]

        answers = await asyncio.gather(*(both(*pair) for pair in pairs))
        for pair, verdicts in zip(pairs, answers, strict=True):
            assert sorted(verdicts) == [KEPT, CONFLICT]
            winner = pair[verdicts.index(KEPT)]
            await teller.recorded(winner)
            assert [each.document_hash for each in await teller.events(winner)] == [winner.digest]
    finally:
        await other.supervisor.stop(other.name)


async def test_the_table_keeps_what_was_said(teller: Teller, service: ParticipantProcess) -> None:
    """Whoever writes, even the owner: a record is not changed, not taken back, and not of two plans."""
    said = opened()
    await teller.tell(said)
    attempts = (
        "update escalation_record set document_hash = sha256('x') where escalation_id = $1",
        "delete from escalation_record where escalation_id = $1",
        (
            "insert into escalation_record (escalation_id, kind, plan_id, plan_digest, document_hash, record_key) "
            "values ($1, 2, 'another', sha256('x'), sha256('x'), sha256('x'))"
        ),
    )
    async with service.database.as_owner() as connection:
        for each in attempts:
            with pytest.raises(Exception, match="escalation"):
                await connection.execute(each, said.escalation_id)
        found = await connection.fetchval(
            "select document_hash from escalation_record where escalation_id = $1", said.escalation_id
        )
    assert Digest(found) == said.digest
