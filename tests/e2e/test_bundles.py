"""What really happened to plans, as bundles: the verifiers find it in order, whoever's hands the plan went through and however it ended.

The log is the test's own here: it holds this one plan's entries, under a key that the trust file names beside the journal's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lockstep.coordinator.v1 import operator_service_pb2
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.journal.v1 import journal_reader_service_pb2 as journal
from lockstep.journal.v1 import log_pb2
from lockstep.participant.v1 import leg_pb2
from lockstep_client.bundle_document import Gathered, bundle_document
from lockstep_client.operators import OperatorClient
from lockstep_client.readers import JournalClient, NotaryClient
from lockstep_client.trust_document import trust_document
from lockstep_kit import merkle, notes
from lockstep_kit.ids import NONCE_BYTES, Digest
from lockstep_kit.registry_file import load_registry
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import Verdict
from lockstep_sandbox.stack import CLIENT, Sandbox
from lockstep_testkit.bundles.reading import NODE, ROOT
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew
from lockstep_verify.verifying import Report, verify

ORIGIN = "test.local/log"
#: What cannot be checked where operators were not called.
UNRESOLVED = ("RESOLUTIONS", "REVERSALS")


async def bundle_of(sandbox: Sandbox, crew: Crew, plan_id: str) -> tuple[bytes, bytes]:
    """A plan's bundle and a trust file for it."""
    configuration, key = crew.configuration, SigningKey(secrets.token_bytes(32))
    async with JournalClient(configuration.journal, sandbox.tls(CLIENT)) as client:
        entries = [each async for each in client.list_entries(plan_id)]
    async with NotaryClient(configuration.notary, sandbox.tls(CLIENT)) as notary:
        notarisation = await notary.get_notarisation(plan_id)
    plan = await crew.client.get_plan(plan_id)
    unsettled = settlement.PlanState.Name(plan.state) == "PLAN_STATE_CLOSED" and plan.outcome != leg_pb2.PLAN_OUTCOME_COMMITTED
    log = (await crew.client.get_abort_audit_log(plan_id)).log if unsettled else b""
    leaves = [merkle.leaf_hash(each.canonical_bytes) for each in entries]
    checkpoint = notes.sign(notes.Checkpoint(ORIGIN, len(leaves), merkle.root(leaves)), key)
    exported = journal.ExportBundleResponse(
        entries=entries,
        proofs=[log_pb2.InclusionProof(leaf_index=index, path=merkle.audit_path(leaves, index)) for index in range(len(leaves))],
        checkpoint=log_pb2.Checkpoint(signed_note=checkpoint.note),
    )
    trust = trust_document(
        load_registry(configuration.registry_file),
        origin=ORIGIN,
        witness="test.local/witness",
        chain=configuration.chain,
        notary_registry=configuration.notary_registry,
    )
    keys: list[dict[str, str]] = trust["journal"]["keys"]
    keys.append(keys[0] | {"public_key": base64.b64encode(key.public.octets).decode()})
    document = bundle_document(Gathered(plan, exported, (), None, notarisation, log))
    return json.dumps(document).encode(), json.dumps(trust).encode()


def results(report: Report, result: str) -> set[str]:
    return {each["name"] for each in report["checks"] if each["result"] == result}


async def assert_proved(sandbox: Sandbox, crew: Crew, plan_id: str, folder: Path, *unchecked: str) -> list[str]:
    """Both verifiers prove the plan, but for what only a witness, a node or another outcome could show; returns what is proved, in words."""
    bundle, trust = await bundle_of(sandbox, crew, plan_id)
    report = verify(bundle, trust)
    assert report["verdict"] == "PROVED", [each for each in report["checks"] if each["result"] == "FAILED"]
    not_here = {"WITNESS", "CONSISTENCY", "CHECKPOINT_ANCHOR", "REGISTRATION", "OUTCOME"}
    assert results(report, "NOT_CHECKED") == not_here | set(unchecked)
    (folder / "bundle.json").write_bytes(bundle)
    (folder / "trust.json").write_bytes(trust)
    script = [*NODE, str(ROOT / "libs" / "verify-js" / "verify.mjs")]
    for command in ([sys.executable, "-m", "lockstep_verify"], script):
        arguments = [*command, str(folder / "bundle.json"), "--trust", str(folder / "trust.json"), "--json"]
        run = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, check=True, timeout=180)
        assert json.loads(run.stdout) == report
    proved: list[str] = report["proved"]
    return proved


async def test_a_settled_plan(sandbox: Sandbox, crew: Crew, tmp_path: Path) -> None:
    """A plan that settled is proved from its making to its seal: who signed, what was promised, decided, executed and validated."""
    plan = await crew.settled(crew.payments())
    await assert_proved(sandbox, crew, plan.header.plan_id, tmp_path, "AUDIT_LOG", *UNRESOLVED)


async def test_a_cancelled_plan(sandbox: Sandbox, crew: Crew, tmp_path: Path) -> None:
    """A plan that was given up is proved, with the audit log that its seal names."""
    plan = await crew.awaiting((await crew.started(crew.payments())).header.plan_id, "release")
    await crew.client.cancel_plan(plan.header.plan_id, crew.signature(plan, "cancel", person="maker"))
    await crew.driven(plan.header.plan_id)
    await assert_proved(sandbox, crew, plan.header.plan_id, tmp_path, "DECISION", "QUORUM", "VALIDATION", *UNRESOLVED)


async def test_a_plan_of_four_eyes(sandbox: Sandbox, crew: Crew, tmp_path: Path) -> None:
    """That two approved and two released, as the plan's matrix asks for, is proved in words; by a matrix that asks for three it fails by name."""
    started = await crew.started(crew.payments(price="50000.00") | {"sod_version": 2})
    plan_id = started.header.plan_id
    for gate, people in (("approve", ("approver", "second-approver")), ("release", ("releaser", "second-releaser"))):
        plan = await crew.awaiting(plan_id, gate)
        for person in people:
            await crew.client.sign_gate(plan_id, crew.signature(plan, gate, person=person))
    await crew.driven(plan_id, gates=("validate",))
    proved = await assert_proved(sandbox, crew, plan_id, tmp_path, "AUDIT_LOG", *UNRESOLVED)
    eyes = "approved by 2 of 2 required persons (approver, second-approver), released by 2 of 2 required persons (releaser, second-releaser)"
    assert [each for each in proved if eyes in each] != []
    trust = json.loads((tmp_path / "trust.json").read_bytes())
    for threshold in trust["matrices"][1]["gates"]["RELEASE"]["thresholds"]:
        threshold["signatures"] = 3
    report = verify((tmp_path / "bundle.json").read_bytes(), json.dumps(trust).encode())
    assert results(report, "FAILED") == {"QUORUM"}


async def test_a_plan_that_operators_reversed(sandbox: Sandbox, crew: Crew, tmp_path: Path) -> None:
    """That two operators ordered what was reversed is proved, and over which exception."""
    document = crew.payments()
    del document["legs"][1]
    plan_id = (await crew.started(document)).header.plan_id
    waiting = await crew.awaiting(plan_id, "release")
    async with crew.paused_validator():
        await crew.client.sign_gate(plan_id, crew.signature(waiting, "release"))
        plan = await crew.awaiting(plan_id, "validate")
        refusal = crew.signature(plan, "validate", person="validator", verdict=Verdict.REJECT)
        await crew.client.sign_gate(plan_id, refusal)
    async with OperatorClient(sandbox.address("coordinator"), sandbox.tls(CLIENT)) as desk:
        file = await the_escalation(desk, plan_id)
        resolution = Resolution(Digest(file.plan_digest), file.escalation.escalation_id, Verb.REVERSE, detail="to the wrong buyer")
        for person in ("operator-one", "operator-two"):
            expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
            statement = ResolutionStatement(resolution, secrets.token_bytes(NONCE_BYTES), expires_at)
            await desk.sign_resolution(sign_resolution(statement, crew.key(person)))
    await crew.driven(plan_id)
    proved = await assert_proved(sandbox, crew, plan_id, tmp_path, "VALIDATION", "MESSAGES")
    told = f"resolved: {file.escalation.escalation_id} by REVERSE, signed by operator-one and operator-two"
    assert [each for each in proved if told in each] != []
    assert "what was reversed answers an order of two operators or of the plan's own policy" in proved


async def the_escalation(desk: OperatorClient, plan_id: str) -> operator_service_pb2.EscalationFile:
    """What people were called for, once it is there."""
    for _ in range(1_200):
        async for each in desk.list_escalations(plan_id=plan_id):
            return each
        await asyncio.sleep(0.1)
    raise AssertionError(f"nobody was called for {plan_id}")


async def test_exported_as_it_is(sandbox: Sandbox, crew: Crew, tmp_path: Path) -> None:
    """A settled plan's bundle, exported from the running services and verified offline, proves what happened, in the log that the witness saw."""
    plan = await crew.settled(crew.payments())
    bundle, trust = str(tmp_path / "bundle.json"), str(tmp_path / "trust.json")
    export = ("journal", "export", plan.header.plan_id, "-o", bundle, "--wait", "180", "--json")
    code, out, errors = await lockstep(*export, sandbox=sandbox, seconds_max=300)
    assert (code, errors) == (0, ""), errors
    # Origin and witness's name as the sandbox configures them.
    assert (await lockstep("journal", "trust", "-o", trust, sandbox=sandbox))[0] == 0
    code, out, errors = await lockstep("verify", bundle, "--trust", trust, "--json")
    report = json.loads(out)
    assert (code, report["verdict"]) == (0, "PROVED"), report
    assert not results(report, "FAILED")
    assert {"CHECKPOINT", "INCLUSION", "WITNESS", "CONSISTENCY"} <= results(report, "PASSED")
