"""Escalations on chain, through the whole system: judged from the chain and the journal, not from anybody's word."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.participant.v1 import leg_pb2
from lockstep_client.operators import OperatorClient
from lockstep_contracts.notary import KnownEscalation, decode_escalation_of_many, encode_escalation_of_many
from lockstep_kit.escalations import EscalationKind, Said, escalation_hash, said_in
from lockstep_kit.ids import NONCE_BYTES, Digest, PlanId
from lockstep_kit.resolutions import Resolution, ResolutionStatement, Verb, sign_resolution
from lockstep_kit.statements import Verdict
from lockstep_sandbox.stack import CLIENT, Sandbox
from lockstep_testkit.command_line import lockstep
from lockstep_testkit.crew import Crew, draw_address

SECONDS_MAX = 180.0
LOOK_SECONDS = 0.1


async def signed(crew: Crew, desk: OperatorClient, file: operators.EscalationFile, verb: Verb, detail: str) -> None:
    """Two operators sign the same."""
    resolution = Resolution(Digest(file.plan_digest), file.escalation.escalation_id, verb, detail=detail)
    for person in ("operator-one", "operator-two"):
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=10)
        statement = ResolutionStatement(resolution, secrets.token_bytes(NONCE_BYTES), until)
        await desk.sign_resolution(sign_resolution(statement, crew.key(person)))


async def said(crew: Crew, plan_id: str, count: int) -> list[Said]:
    """What the journal's entries say of the plan's escalations, once it says so much."""
    give_up = time.monotonic() + SECONDS_MAX
    while True:
        entries = [each for each in await crew.entries(plan_id) if each.payload]
        told = (said_in(each.type, PlanId(plan_id), each.event_time, json.loads(each.payload)) for each in entries)
        found = [each for each in told if each is not None]
        if len(found) == count:
            return found
        assert time.monotonic() < give_up, found
        await asyncio.sleep(LOOK_SECONDS)


async def on_chain(sandbox: Sandbox, escalation_id: str) -> KnownEscalation:
    """What the registry knows of an escalation."""
    registry = sandbox.chain.contracts["NotaryRegistry"]
    answer = await sandbox.chain.node.read(registry, encode_escalation_of_many([escalation_hash(escalation_id)]))
    (known,) = decode_escalation_of_many(answer)
    return known


async def shown(sandbox: Sandbox, escalation_id: str) -> Any:
    """What the command shows of an escalation."""
    code, out, errors = await lockstep("escalations", "show", escalation_id, "--json", sandbox=sandbox, seconds_max=SECONDS_MAX)
    assert code == 0, errors
    return json.loads(out)


async def test_an_escalation_stands_on_chain(sandbox: Sandbox, crew: Crew) -> None:
    """A plan is stopped, unwound and closed while the notary is down for part of it; then the chain holds what the journal says, word by word."""
    document = crew.payments(payee=draw_address())
    # Only what can be taken back: money that is booked stays booked.
    del document["legs"][1]
    plan_id = (await crew.started(document)).header.plan_id
    async with crew.paused_validator(), OperatorClient(sandbox.address("coordinator"), sandbox.tls(CLIENT)) as desk:
        waiting = await crew.awaiting(plan_id, "release")
        await crew.client.sign_gate(plan_id, crew.signature(waiting, "release"))
        waiting = await crew.awaiting(plan_id, "validate")
        await sandbox.supervisor.stop("notary")
        try:
            await crew.client.sign_gate(plan_id, crew.signature(waiting, "validate", person="validator", verdict=Verdict.REJECT))
            (file,) = [each async for each in desk.list_escalations(plan_id=plan_id)]
            key = file.escalation.escalation_id
            (opened,) = await said(crew, plan_id, 1)
            assert (await shown(sandbox, key))["records"] == [{"kind": "OPENED", "sha256": opened.digest.hex(), "stands": "UNTOLD"}]
            await signed(crew, desk, file, Verb.REVERSE, "the validator refused the evidence")
            await crew.driven(plan_id, until=("ABORTED",))
            await signed(crew, desk, file, Verb.FORGET, "the tokens are back")
            assert await on_chain(sandbox, key) == KnownEscalation(b"", b"", b"")
        finally:
            await sandbox.supervisor.restart("notary")
    closed = await crew.driven(plan_id)
    assert closed.state == settlement.PLAN_STATE_CLOSED
    assert closed.outcome == leg_pb2.PLAN_OUTCOME_REVERSED
    told = {each.kind: each for each in await said(crew, plan_id, 2)}
    assert set(told) == set(EscalationKind)
    expected = KnownEscalation(file.plan_digest, told[EscalationKind.OPENED].digest, told[EscalationKind.RESOLVED].digest)
    give_up = time.monotonic() + SECONDS_MAX
    while (known := await on_chain(sandbox, key)) != expected:
        assert time.monotonic() < give_up, known
        await asyncio.sleep(LOOK_SECONDS)
    at_risk = json.loads(told[EscalationKind.OPENED].document)["at_risk"]
    assert [(each["minor_units"], each["scale"]) for each in at_risk] == [(each.minor_units, each.scale) for each in file.at_risk]
    give_up = time.monotonic() + SECONDS_MAX
    while True:
        found = await shown(sandbox, key)
        if all(each["stands"] in ("RECORDED", "ON_CHAIN") and each.get("block_number") for each in found["records"]):
            break
        assert time.monotonic() < give_up, found["records"]
        await asyncio.sleep(1)
    assert [(each["kind"], each["sha256"]) for each in found["records"]] == [
        ("OPENED", expected.opened.hex()),
        ("RESOLVED", expected.resolved.hex()),
    ]
    assert found["record_findings"] == []
