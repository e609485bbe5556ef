"""How a plan that did not settle ended, shown by the chain: the log's hash stands where no service could change it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep_contracts.events import Finalised, decode_log, event_topic
from lockstep_contracts.notary import PlanStatus, decode_plan_of, encode_plan_of
from lockstep_sandbox.stack import Sandbox
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew


async def cancelled(crew: Crew) -> settlement.Plan:
    """A plan that is given up once everything is held for it, and is closed."""
    plan = await crew.awaiting((await crew.started(crew.payments())).header.plan_id, "release")
    await crew.client.cancel_plan(plan.header.plan_id, crew.signature(plan, "cancel", person="maker"))
    return await crew.driven(plan.header.plan_id)


async def on_chain(sandbox: Sandbox, plan_digest: bytes) -> tuple[PlanStatus, bytes, list[bytes]]:
    """What the registry itself has about a plan: status, the first 31 bytes of the hash, and the hashes of its events."""
    registry, node = sandbox.chain.contracts["NotaryRegistry"], sandbox.chain.node
    status, kept = decode_plan_of(await node.read(registry, encode_plan_of(plan_digest)))
    topics = ["0x" + event_topic(Finalised).hex(), "0x" + plan_digest.hex()]
    logs = await node.call("eth_getLogs", {"address": registry, "fromBlock": "0x0", "toBlock": "latest", "topics": topics})
    events = [decode_log([bytes.fromhex(topic[2:]) for topic in log["topics"]], bytes.fromhex(log["data"][2:])) for log in logs]
    return status, kept, [each.evidence_hash for each in events if isinstance(each, Finalised)]


async def test_a_cancelled_plan_is_audited(crew: Crew, sandbox: Sandbox, tmp_path: Path) -> None:
    """The chain has the hash of a cancelled plan's log; the command verifies it, and a log or a copy that was changed is found out."""
    plan = await cancelled(crew)
    plan_id = plan.header.plan_id
    file = tmp_path / "log.json"
    code, out, errors = await lockstep("audit", plan_id, "--json", "--out", str(file), sandbox=sandbox)
    assert (code, errors) == (0, "")
    shown: dict[str, Any] = json.loads(out)
    digest = hashlib.sha256(file.read_bytes()).digest()
    assert (shown["valid"], shown["sha256"], shown["copy"]) == (True, digest.hex(), "INTACT")
    status, kept, hashes = await on_chain(sandbox, plan.plan_digest)
    assert (status, kept, hashes) == (PlanStatus.ABORTED, digest[:31], [digest])
    assert shown["chain"]["evidence_hashes"] == [digest.hex()]
    log = shown["log"]
    assert (log["outcome"], log["abort"]["phase"], log["abort"]["reason"]) == ("ABORTED", "PREPARED", "CANCELLED")
    assert {(each["leg_id"], each["result"]) for each in log["rollback"]} == {("bonds", "RELEASED"), ("cash", "RELEASED")}
    seal = json.loads((await crew.entries(plan_id))[-1].payload)
    assert seal["evidence_digest"] == digest.hex()

    code, out, errors = await lockstep("audit", plan_id, sandbox=sandbox)
    assert (code, errors) == (0, "")
    assert "everything holds" in out

    (copy,) = [path for path in (sandbox.run.path / "audit").rglob("*.json") if path.stem == digest.hex()]
    assert copy.read_bytes() == file.read_bytes()
    copy.chmod(0o600)
    copy.write_bytes(copy.read_bytes().replace(b"CANCELLED", b"COMPLETED"))
    code, out, errors = await lockstep("audit", plan_id, "--json", sandbox=sandbox)
    assert code == 1
    assert "AUDIT_COPY_CORRUPT" in errors
    assert not json.loads(out)["valid"]


async def test_a_changed_log_is_found_out(crew: Crew, sandbox: Sandbox) -> None:
    """A log that was changed in the database, hash and all, is not the one that the chain names."""
    plan = await cancelled(crew)
    plan_id = plan.header.plan_id
    async with crew.database("coordinator") as database:
        octets = await database.fetchval("select octets from audit_log where plan_id = $1", plan_id)
        forged = octets.replace(b"cancelled by", b"approved by ")
        assert forged != octets
        # The last log is shown first; the owner of the database can add one, and with more effort could do worse.
        await database.execute(
            "insert into audit_log (plan_id, ordinal, digest, octets, written_at) values ($1, 2, sha256($2), $2, now())",
            plan_id,
            forged,
        )
    code, _, errors = await lockstep("audit", plan_id, "--json", sandbox=sandbox)
    assert code == 1
    named = json.loads(errors)["error"]
    assert named["reason"] == "AUDIT_INVALID"
    assert "AUDIT_CHAIN_DIFFERS" in named["message"]
    assert "AUDIT_SEAL_DIFFERS" in named["message"]
    code, out, errors = await lockstep("audit", plan_id, "--json", "--sha256", hashlib.sha256(octets).hexdigest(), sandbox=sandbox)
    assert (code, errors) == (0, "")
    assert json.loads(out)["valid"]


async def test_a_settled_plan_has_no_log(crew: Crew, sandbox: Sandbox) -> None:
    """What is not there is said to be not there."""
    plan = await crew.started(crew.payments())
    code, _, errors = await lockstep("audit", plan.header.plan_id, "--json", sandbox=sandbox)
    assert code == 1
    assert json.loads(errors)["error"]["reason"] == "AUDIT_LOG_NOT_FOUND"
    await crew.client.cancel_plan(plan.header.plan_id, crew.signature(plan, "cancel", person="maker"))
    await crew.driven(plan.header.plan_id)
