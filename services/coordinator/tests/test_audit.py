"""Abort audit logs: written once, where they cannot be lost, before anybody outside is told their hash."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.audit_store import CopyCorrupt, DirectoryStore
from coordinator.settings import LimitSettings
from lockstep.coordinator.v1 import operator_service_pb2, settlement_service_pb2
from lockstep.coordinator.v1.operator_service_pb2_grpc import OperatorServiceStub
from lockstep_kit import failpoints
from lockstep_kit.canonical import canonical
from lockstep_kit.convert import resolution_to_pb
from lockstep_kit.errors import from_rpc
from lockstep_kit.fence import Phase
from lockstep_kit.ids import Digest, sha256
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.rpc import channel
from lockstep_kit.statements import Gate, Verdict
from lockstep_testkit.factories import delivery_versus_payment, key_of

CLIENT = "spiffe://lockstep.local/client/test"
SHORT = LimitSettings(deadline_seconds_min=0.1, evidence_seconds_max=0.3)
#: Every place between the last release and the notary's order; a raise there ends the replica as a crash would.
PLACES = [
    *(f"coordinator.audit_copy.{where}" for where in ("before_put", "before_link", "after_link", "after_put")),
    *(f"coordinator.audit.{where}" for where in ("before_tx", "in_tx", "after_commit")),
]


async def shown(world: Any, plan: Any, digest: bytes = b"") -> settlement_service_pb2.GetAbortAuditLogResponse:
    request = settlement_service_pb2.GetAbortAuditLogRequest(plan_id=plan.plan_id, sha256=digest)
    answer: settlement_service_pb2.GetAbortAuditLogResponse = await world.api.GetAbortAuditLog(request, timeout=60)
    return answer


def told(world: Any, plan: Any) -> set[bytes]:
    """What the evidence legs were told when the plan was closed."""
    return {
        work.closing.evidence_digest
        for name in ("notary", "event-journal")
        for work in world.parties[name].operations.begun
        if work.plan_id == plan.plan_id and work.phase in (Phase.ABORTING, Phase.COMMITTING)
    }


async def audited(world: Any, plan: Any) -> dict[str, Any]:
    """The one log of a closed plan, when everybody has the same."""
    answer = await shown(world, plan)
    rows = await world.rows("select * from audit_log where plan_id = $1", plan.plan_id)
    assert [row["octets"] for row in rows] == [answer.log]
    assert sha256(answer.log) == answer.sha256
    assert told(world, plan) == {answer.sha256}
    assert answer.copy == settlement_service_pb2.AUDIT_COPY_STATE_INTACT
    assert DirectoryStore(world.settings.audit_directory).path(Digest(answer.sha256)).read_bytes() == answer.log
    found: dict[str, Any] = json.loads(answer.log)
    assert canonical(found) == answer.log
    assert (found["plan_id"], found["plan_digest"]) == (plan.plan_id, plan.header.digest.hex())
    (notarisation,) = answer.notarisations
    assert notarisation.leg_id == "notarisation"
    return found


async def cancelled(world: Any, plan: Any, clocks: Any = None) -> None:
    await world.reaches(plan, "PREPARED")
    await world.cancel(plan)


async def rejected(world: Any, plan: Any, clocks: Any) -> None:
    await world.reaches(plan, "PREPARED")
    await world.sign(plan, plan.gate(Gate.RELEASE, verdict=Verdict.REJECT))


async def waited(world: Any, plan: Any, clocks: Any) -> None:
    await world.reaches(plan, "PREPARED")
    await clocks.pass_deadline(plan)


@pytest.mark.parametrize(
    ("stop", "reason", "phase", "released"),
    [
        (cancelled, "CANCELLED", "PREPARED", {"tokens", "cash"}),
        (rejected, "GATE_REJECTED", "PREPARED", {"tokens", "cash"}),
        (waited, "DEADLINE_PASSED", "PREPARED", {"tokens", "cash"}),
    ],
)
async def test_every_abort_has_one_log(
    world: Any, clocks: Any, stop: Callable[[Any, Any, Any], Any], reason: str, phase: str, released: set[str]
) -> None:
    """A plan that is given up has one log with its reason, its phase and every release, and the evidence legs are told its hash."""
    async with world.coordinator():
        plan = await world.started(delivery_versus_payment(deadline=clocks.soon()))
        await stop(world, plan, clocks)
        await world.reaches(plan, "CLOSED")
        log = await audited(world, plan)
    assert (log["abort"]["reason"], log["abort"]["phase"], log["outcome"]) == (reason, phase, "ABORTED")
    assert log["legs_done"] == {"done": 0, "of": 2}
    assert {each["leg_id"] for each in log["rollback"]} == released
    for each in log["rollback"]:
        assert (each["action"], each["result"]) == ("release", "RELEASED")
        assert each["ordered_at"] <= each["answered_at"]
        assert each["outcome"]["kind"] == "RELEASED"
    assert log["recovery"] == {
        "tried": False,
        "take_overs": 0,
        "redrives": 0,
        "unwinds": 0,
        "resolutions": [],
        "escalations": [],
        "ended": "NOT_NEEDED",
    }
    assert [each["to"] for each in log["transitions"]][-1] == "ABORTED"


async def test_a_no_is_in_the_log(world: Any) -> None:
    """A participant's NO is the reason, its leg needs no release, and the other's release is told."""
    world.parties["bank-gateway"].operations.refused.add("cash")
    async with world.coordinator():
        plan = await world.started()
        await world.reaches(plan, "CLOSED")
        log = await audited(world, plan)
    assert (log["abort"]["reason"], log["abort"]["leg_id"], log["abort"]["phase"]) == (
        "BANK_PREPARE_FAILED",
        "cash",
        "READY_FOR_PREPARE",
    )
    assert {each["leg_id"] for each in log["rollback"]} <= {"tokens"}
    votes = {each["leg_id"]: each.get("vote", {}).get("vote") for each in log["legs"]}
    assert votes["cash"] == "NO"


async def test_a_plan_that_was_never_prepared(world: Any, clocks: Any) -> None:
    """A plan that is given up before anybody was asked has its log too."""
    denied = world.settings.compliance.model_copy(update={"denied": ("seller",)})
    async with world.coordinator(compliance=denied):
        plan = delivery_versus_payment(deadline=clocks.soon())
        await world.create(plan)
        await world.execute(plan)
        await world.reaches(plan, "ABORTED")
        await clocks.pass_deadline(plan)
        await world.reaches(plan, "CLOSED")
        log = await audited(world, plan)
    assert (log["abort"]["reason"], log["rollback"]) == ("COMPLIANCE_FAILED", [])


async def test_settled_plans_have_none(world: Any) -> None:
    """A plan that settles has no abort audit log, and neither has one that nobody knows."""
    async with world.coordinator():
        plan = await world.settled()
        for each, reason in ((plan, "AUDIT_LOG_NOT_FOUND"), (delivery_versus_payment(), "PLAN_NOT_FOUND")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await shown(world, each)
            assert from_rpc(refused.value).reason == reason
    assert not await world.rows("select from audit_log")


async def settled_outside(world: Any, plan: Any, escalation_id: str) -> None:
    """Two operators say that the plan was settled outside."""
    made = channel(f"127.0.0.1:{world.port}", world.tls_for(CLIENT))
    try:
        for who in ("erin", "frank"):
            resolution = Resolution(Digest(plan.header.digest), escalation_id, Verb.RESOLVE, detail="by hand")
            expires = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
            signed = sign_resolution(ResolutionStatement(resolution, os.urandom(16), expires), key_of(who))
            request = operator_service_pb2.SignResolutionRequest(request_id=str(uuid.uuid4()), signature=resolution_to_pb(signed))
            await OperatorServiceStub(made).SignResolution(request, timeout=60)
    finally:
        await made.close()


async def test_what_was_settled_outside(world: Any) -> None:
    """A plan that operators settled outside has a log that names them, and its notary is told that hash."""
    async with world.coordinator():
        plan = await world.executing()
        await world.reaches(plan, "VALIDATING")
        await world.validate(plan, Verdict.REJECT)
        found = await world.reaches(plan, "PARTIALLY_EXECUTED")
        assert not await world.rows("select from audit_log")
        await settled_outside(world, plan, found.escalations[0].escalation_id)
        await world.reaches(plan, "CLOSED")
        log = await audited(world, plan)
    assert (log["outcome"], log["decision"], log["legs_done"]) == ("MIXED", "COMMIT", {"done": 2, "of": 2})
    assert log["abort"]["phase"] == "VALIDATING"
    (decided,) = log["recovery"]["resolutions"]
    assert (decided["verb"], set(decided["actors"])) == ("RESOLVE", {"erin", "frank"})
    assert (log["recovery"]["tried"], log["recovery"]["ended"]) == (True, "SETTLED_OUTSIDE")


async def test_crashes(world: Any) -> None:
    """A replica that dies anywhere between the last release and the notary's order leaves one log, and another tells its hash."""
    for place in PLACES:
        async with asyncio.timeout(240):
            await crashes(world, place)


async def crashes(world: Any, place: str) -> None:
    plan = delivery_versus_payment()
    async with world.coordinator(crash=True):
        await world.started(plan)
        await world.reaches(plan, "PREPARED")
        failpoints.arm(f"{place}=raise")
        await world.cancel(plan)
        await asyncio.wait_for(asyncio.shield(world.ended), 60)
        if not place.endswith("audit.after_commit"):
            assert not told(world, plan), place
    failpoints.arm("")
    async with world.coordinator():
        await world.reaches(plan, "CLOSED")
        await audited(world, plan)
    left = [each.name for each in world.settings.audit_directory.rglob("*") if each.is_file() and each.suffix != ".json"]
    assert not left, place


async def test_a_store_that_is_away(world: Any) -> None:
    """While the store cannot be written nobody is told a hash and a person is called; once it is back the plan closes by itself."""
    directory, away = world.settings.audit_directory, world.settings.audit_directory.with_name("away")
    async with world.coordinator(limits=SHORT):
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        directory.rename(away)
        await world.cancel(plan)
        found = await world.until(plan, lambda found: len(found.escalations) > 0)
        assert [each.reason for each in found.escalations] == ["AUDIT_LOG_OVERDUE"]
        assert not told(world, plan)
        assert (await shown(world, plan)).copy == settlement_service_pb2.AUDIT_COPY_STATE_MISSING
        other = await world.settled()
        away.rename(directory)
        await world.reaches(plan, "CLOSED")
        await audited(world, plan)
        assert (await world.get(other)).outcome == 1


async def test_other_bytes_in_the_store(world: Any) -> None:
    """Other bytes under a log's hash are neither replaced nor believed: a person is called, and the plan waits."""
    async with world.coordinator(crash=True):
        plan = await world.started()
        await world.reaches(plan, "PREPARED")
        failpoints.arm("coordinator.audit_copy.before_put=raise")
        await world.cancel(plan)
        await asyncio.wait_for(asyncio.shield(world.ended), 60)
    failpoints.arm("")
    (row,) = await world.rows("select digest from audit_log")
    path = DirectoryStore(world.settings.audit_directory).path(Digest(row["digest"]))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}")
    async with world.coordinator():
        found = await world.until(plan, lambda found: len(found.escalations) > 0)
        assert [each.reason for each in found.escalations] == ["AUDIT_LOG_CORRUPT"]
        assert path.read_bytes() == b"{}"
        assert not told(world, plan)
        assert (await shown(world, plan)).copy == settlement_service_pb2.AUDIT_COPY_STATE_CORRUPT
        path.unlink()
        await world.reaches(plan, "CLOSED")
        await audited(world, plan)


async def test_a_log_that_the_database_lost(world: Any) -> None:
    """A log that only the store still has is found by the hash that a proof names; another plan's log is not shown."""
    store = DirectoryStore(world.settings.audit_directory)
    async with world.coordinator():
        plan, other = await world.started(), await world.started()
        await cancelled(world, plan)
        await cancelled(world, other)
        await world.reaches(plan, "CLOSED")
        await world.reaches(other, "CLOSED")
        log = await audited(world, plan)
        lost = canonical(log | {"written_at": "2026-01-01T00:00:00.000000Z"})
        await store.put(sha256(lost), lost)
        answer = await shown(world, plan, sha256(lost))
        assert (answer.log, answer.sha256) == (lost, sha256(lost))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await shown(world, other, sha256(lost))
    assert from_rpc(refused.value).reason == "AUDIT_LOG_NOT_FOUND"


async def test_the_database_keeps_the_log(world: Any) -> None:
    """The database refuses a log under another hash, any change of one, and a plan that names a log that it has not."""
    async with world.coordinator() as made:
        plan = await world.started()
        await cancelled(world, plan)
        await world.reaches(plan, "CLOSED")
        for statement in (
            "insert into audit_log values ($1, 9, sha256('x'), 'y', now())",
            "update audit_log set written_at = now() where plan_id = $1",
            "delete from audit_log where plan_id = $1",
            "update plan set audit = sha256('x'), version = version + 1 where plan_id = $1",
        ):
            with pytest.raises(Exception, match=r"violates|kept as they are|permission denied"):
                async with made.engine.db.transaction() as tx:
                    await tx.execute(statement, plan.plan_id)


async def test_the_store(tmp_path: Path) -> None:
    """The same log again is no change, another under its name is found out, and nothing is ever replaced."""
    store = DirectoryStore(tmp_path)
    octets = b'{"a":1}'
    digest = sha256(octets)
    assert await store.get(digest) is None
    await asyncio.gather(*(store.put(digest, octets) for _ in range(8)))
    path = store.path(digest)
    assert await store.get(digest) == octets
    assert path.stat().st_mode & 0o777 == 0o444
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    path.chmod(0o644)
    path.write_bytes(b"{}")
    with pytest.raises(CopyCorrupt):
        await store.get(digest)
    with pytest.raises(CopyCorrupt):
        await store.put(digest, octets)
    assert path.read_bytes() == b"{}"
    with pytest.raises(FileNotFoundError):
        await DirectoryStore(tmp_path / "absent").put(digest, octets)
