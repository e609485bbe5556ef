"""The operators' commands, against a scripted coordinator as processes of their own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from lockstep.coordinator.v1 import operator_service_pb2 as operators
from lockstep.coordinator.v1 import settlement_pb2 as settlement
from lockstep.type.v1 import amount_pb2, resolution_pb2
from lockstep_client.commands.resolutions import read_evidence
from lockstep_kit.convert import resolution_from_pb
from lockstep_kit.errors import not_found, permission_denied
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import sha256
from lockstep_kit.key_files import write_signing_key
from lockstep_kit.resolutions import Verb
from lockstep_kit.signing import SigningKey
from lockstep_kit.statements import BankEvidence, InstrumentEvidence

KEYS = {name: SigningKey(sha256(name.encode())) for name in ("olga", "omar")}
TICKET = "7ae9c51c-5af9-539f-ab17-945127ffa0be"
EUR = amount_pb2.Amount(asset="EUR", minor_units="1234550", scale=2)
PAID = {"bank": {"bank": "BANKDEFF", "uetr": "5f1c4fe4-4d0a-4b1c-9a30-5a5f4a1f0c11", "status": "ACSC", "booking_reference": "B-1"}}


async def lockstep(*arguments: str | Path) -> tuple[int, list[dict[str, Any]], str, str]:
    """Run the command: exit code, JSON lines, all output, error text."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from lockstep_client.cli import main; main()", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ | {"COLUMNS": "220"},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode is not None
    lines = [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]
    return process.returncode, lines, out.decode(), err.decode()


@pytest.fixture
def config(coordinator: Any, tls: Any, tmp_path: Path) -> Path:
    """A configuration with two operators' keys."""
    always = {"not_before": "2020-01-01T00:00:00Z", "not_after": "2100-01-01T00:00:00Z"}
    actors = []
    for name, key in KEYS.items():
        write_signing_key(tmp_path / f"{name}.pem", key)
        public = base64.b64encode(key.public.octets).decode()
        actors.append({"actor_id": name, "roles": ["operator"], "keys": [{"public_key": public, **always}]})
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump({"actors": actors, "participants": []}))
    document = {
        "coordinator": coordinator.target,
        "journal": "127.0.0.1:1",
        "notary": "127.0.0.1:1",
        "tls": {name: str(getattr(tls, name)) for name in ("certificate_file", "key_file", "ca_file")},
        "registry_file": "registry.yaml",
        "assets": {"EUR": {"asset": "EUR", "scale": 2}},
        "escrow": "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "chain": "eip155:138",
        "notary_registry": "0x52908400098527886E0F7030069857D2E4169EE7",
    }
    path = tmp_path / "client.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def file_of(plan: settlement.Plan, *, closed: bool = False) -> operators.EscalationFile:
    """An escalation about a plan."""
    ticket = settlement.Escalation(escalation_id=TICKET, reason="UNKNOWN_TOO_OLD", leg_id="payment", detail="nobody knows")
    ticket.raise_time.FromDatetime(datetime(2026, 6, 1, tzinfo=UTC))
    if closed:
        ticket.resolve_time.FromDatetime(datetime(2026, 6, 2, tzinfo=UTC))
    file = operators.EscalationFile(
        escalation=ticket,
        plan_id=plan.header.plan_id,
        plan_digest=plan.plan_digest,
        state=settlement.PLAN_STATE_EXECUTING,
        at_risk=[EUR],
        options=[
            operators.ResolutionOption(verb=resolution_pb2.VERB_RETRY),
            operators.ResolutionOption(verb=resolution_pb2.VERB_RESOLVE, leg_id="payment"),
        ],
        who=["olga", "omar"],
    )
    file.age.FromTimedelta(timedelta(hours=26, minutes=5))
    return file


def shown(plan: settlement.Plan) -> operators.GetEscalationResponse:
    leg = operators.InDoubtLeg(
        plan_id=plan.header.plan_id,
        state=settlement.PLAN_STATE_EXECUTING,
        leg_id="payment",
        participant="bank-gateway",
        amount=EUR,
        kind=operators.DOUBT_KIND_EXECUTION_UNKNOWN,
        escalation_ids=[TICKET],
    )
    leg.since_time.FromDatetime(datetime(2026, 6, 1, tzinfo=UTC))
    leg.age.FromTimedelta(timedelta(seconds=75))
    return operators.GetEscalationResponse(escalation=file_of(plan), plan=plan, legs=[leg])


async def test_listing_and_showing(coordinator: Any, world: Any, config: Path) -> None:
    """Escalations are listed by what is asked for, and shown with what is at risk and what may be done."""
    plan = world.message(state=settlement.PLAN_STATE_EXECUTING)
    coordinator.script.will("ListEscalations", operators.ListEscalationsResponse(escalations=[file_of(plan)] * 3))
    coordinator.script.will("GetEscalation", shown(plan))
    options = ("--which", "all", "--plan", plan.header.plan_id, "--reason", "UNKNOWN_TOO_OLD", "--limit", "2", "--config", config)
    code, listed, _, error = await lockstep("escalations", "list", *options, "--json")
    assert (code, len(listed), error) == (0, 2, "")
    assert listed[0]["at_risk"] == [{"asset": "EUR", "amount": "12345.50", "minor_units": "1234550", "scale": 2}]
    (request,) = coordinator.script.asked("ListEscalations")
    assert (request.filter, request.plan_id, request.reason) == (3, plan.header.plan_id, "UNKNOWN_TOO_OLD")
    code, _, out, _ = await lockstep("escalations", "list", "--config", config)
    assert code == 0
    assert all(word in out for word in (TICKET, "UNKNOWN_TOO_OLD", "12345.50 EUR", "1d 2h", "EXECUTING"))
    code, _, out, _ = await lockstep("escalations", "show", TICKET, "--config", config)
    assert code == 0
    assert all(
        word in out
        for word in ("OPEN for 1d 2h", "retry, resolve --leg payment", "two of olga, omar", "EXECUTION_UNKNOWN", "1m 15s")
    )
    assert "nothing is recorded of it" in out
    code, (document,), _, _ = await lockstep("escalations", "show", TICKET, "--config", config, "--json")
    assert document["options"] == [{"verb": "RETRY"}, {"verb": "RESOLVE", "leg_id": "payment"}]
    assert document["legs"][0]["doubt"] == "EXECUTION_UNKNOWN"
    assert document["plan"]["plan_id"] == plan.header.plan_id
    assert (document["records"], document["record_findings"]) == ([], [])


async def test_signing(coordinator: Any, world: Any, config: Path, tmp_path: Path) -> None:
    """What is signed is shown, names this very plan and escalation, and carries the operator's evidence."""
    plan = world.message(state=settlement.PLAN_STATE_EXECUTING)
    coordinator.script.will("GetEscalation", shown(plan))
    coordinator.script.will("SignResolution", operators.SignResolutionResponse(escalation=file_of(plan), took_effect=True))
    (tmp_path / "evidence.yaml").write_text(yaml.safe_dump(PAID))
    command = (
        "escalations", "sign", TICKET, "--verb", "resolve", "--leg", "payment", "--executed", "--evidence",
        tmp_path / "evidence.yaml", "--detail", "on the statement of today", "--key", tmp_path / "olga.pem", "--config", config,
    )  # fmt: skip
    code, _, out, _ = await lockstep(*command)
    assert code == 0
    assert all(line in out for line in ("you sign   RESOLVE payment", "because    on the statement of today", "it took effect"))
    code, (document,), _, _ = await lockstep(*command, "--json")
    assert (code, document["took_effect"]) == (0, True)
    first, second = (resolution_from_pb(each.signature) for each in coordinator.script.asked("SignResolution"))
    told = first.statement.resolution
    assert (told.verb, told.plan_digest, told.escalation_id, told.leg_id) == (Verb.RESOLVE, plan.plan_digest, TICKET, "payment")
    assert told.evidence == BankEvidence("BANKDEFF", PAID["bank"]["uetr"], "ACSC", booking_reference="B-1")
    assert told.executed
    assert KEYS["olga"].public.verifies(first.statement.signed_bytes(), first.signature.octets)
    assert first.statement.nonce != second.statement.nonce
    assert told.digest == second.statement.resolution.digest


def test_evidence_of_an_undertaking(tmp_path: Path) -> None:
    """Evidence of an undertaking is read from a file, and there is evidence of one kind in it."""
    issued = {"bank": "BANKDEFF", "reference": "0" * 32, "undertaking_number": "U1", "status": "ISSU"}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({"instrument": issued}))
    assert read_evidence(tmp_path / "one.yaml") == InstrumentEvidence("BANKDEFF", "0" * 32, "U1", "ISSU", "", b"")
    for several in ({"instrument": issued, **PAID}, {}):
        (tmp_path / "several.yaml").write_text(yaml.safe_dump(several))
        with pytest.raises(FieldInvalid, match="exactly one of bank, chain and instrument"):
            read_evidence(tmp_path / "several.yaml")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--verb", "resolve", "--leg", "payment", "--detail", "x"],
            "executed must be present for RESOLVE with a leg, and only there",
        ),
        (["--verb", "reverse", "--leg", "payment", "--detail", "x"], "leg_id must be absent but for RETRY and RESOLVE"),
        (["--verb", "retry", "--detail", "x" * 501], "detail must have at most 500 characters"),
        (["--verb", "retry", "--detail", "x", "--valid", "yesterday"], "--valid.deadline must be an RFC 3339 time"),
    ],
)
async def test_bad_input(coordinator: Any, world: Any, config: Path, tmp_path: Path, arguments: list[str], line: str) -> None:
    """What is missing or one too many is named, and nothing is sent."""
    coordinator.script.will("GetEscalation", shown(world.message(state=settlement.PLAN_STATE_EXECUTING)))
    code, _, _, error = await lockstep(
        "escalations", "sign", TICKET, *arguments, "--key", tmp_path / "olga.pem", "--config", config
    )
    assert code == 2
    assert error.startswith(line)
    assert coordinator.script.asked("SignResolution") == []


async def test_nobody_signs_over_another_plan(coordinator: Any, world: Any, config: Path, tmp_path: Path) -> None:
    """Where the coordinator shows another plan than the escalation names, nothing is signed."""
    plan = world.message(state=settlement.PLAN_STATE_EXECUTING)
    answer = shown(plan)
    answer.escalation.plan_digest = bytes(32)
    coordinator.script.will("GetEscalation", answer)
    sign = ("escalations", "sign", TICKET, "--verb", "retry", "--detail", "now", "--key", tmp_path / "omar.pem", "--config", config)
    code, _, _, error = await lockstep(*sign)
    assert (code, error.partition(":")[0]) == (1, "ESCALATION_DIFFERS")
    assert coordinator.script.asked("SignResolution") == []


async def test_refusals_say_what_to_do(coordinator: Any, world: Any, config: Path, tmp_path: Path) -> None:
    """A refusal ends with exit code 1, its cause in one line, and what to do next in another."""
    plan = world.message(state=settlement.PLAN_STATE_EXECUTING)
    coordinator.script.will("GetEscalation", shown(plan))
    coordinator.script.will("SignResolution", permission_denied("RESOLUTION_SAME_PERSON", "olga has signed this already"))
    coordinator.script.will("ReplayDeadLetter", not_found("dead_letter", "x"))
    sign = ("escalations", "sign", TICKET, "--verb", "retry", "--detail", "now", "--key", tmp_path / "olga.pem", "--config", config)
    code, _, _, error = await lockstep(*sign)
    assert (code, error.count("\n")) == (1, 2)
    assert error.startswith("RESOLUTION_SAME_PERSON: olga has signed this already\nnext: an operator must sign who")
    code, _, _, error = await lockstep("dead-letters", "replay", "x", "--config", config, "--json")
    assert (code, json.loads(error)["error"]["reason"]) == (1, "DEAD_LETTER_NOT_FOUND")


async def test_what_is_at_risk(coordinator: Any, world: Any, config: Path) -> None:
    """Money at risk is shown by asset with its age, and leg by leg; an empty list says so."""
    plan = world.message(state=settlement.PLAN_STATE_EXECUTING)
    total = operators.AssetAtRisk(amount=EUR, leg_count=1)
    total.oldest_age.FromTimedelta(timedelta(seconds=75))
    pages = [
        operators.ListInDoubtResponse(
            totals=[total], legs=shown(plan).legs, next_page_token="0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11"
        ),
        operators.ListInDoubtResponse(totals=[total], legs=shown(plan).legs),
        operators.ListInDoubtResponse(totals=[total], legs=shown(plan).legs),
        operators.ListInDoubtResponse(),
    ]
    coordinator.script.will("ListInDoubt", *pages)
    code, (document,), _, _ = await lockstep("in-doubt", "--older-than", "60", "--config", config, "--json")
    assert code == 0
    assert document["totals"][0] | {"legs": 1, "oldest_age_seconds": 75.0} == document["totals"][0]
    assert len(document["legs"]) == 2
    assert coordinator.script.asked("ListInDoubt")[0].age_min.seconds == 60
    code, _, out, _ = await lockstep("in-doubt", "--config", config)
    assert code == 0
    assert "12345.50 EUR" in out
    assert "bank-gateway" in out
    assert (await lockstep("in-doubt", "--config", config))[2] == "nothing is at risk\n"


async def test_dead_letters(coordinator: Any, config: Path) -> None:
    """Dead letters are listed, and sent again by their id."""
    letter = operators.DeadLetter(
        dead_letter_id="letter-1", plan_id="p", leg_id="payment", command="COMMIT", participant="bank-gateway",
        reason="LEG_KIND_NOT_SERVED", detail="not here", attempt_count=1,
    )  # fmt: skip
    letter.dead_time.FromDatetime(datetime(2026, 6, 1, tzinfo=UTC))
    coordinator.script.will("ListDeadLetters", operators.ListDeadLettersResponse(dead_letters=[letter]))
    coordinator.script.will("ReplayDeadLetter", operators.ReplayDeadLetterResponse(dead_letter=letter))
    code, listed, _, _ = await lockstep("dead-letters", "list", "--all", "--config", config, "--json")
    assert (code, listed[0]["reason"], listed[0]["attempts"]) == (0, "LEG_KIND_NOT_SERVED", 1)
    assert coordinator.script.asked("ListDeadLetters")[0].include_replayed
    code, _, out, _ = await lockstep("dead-letters", "list", "--config", config)
    assert all(word in out for word in ("letter-1", "COMMIT", "LEG_KIND_NOT_SERVED not here"))
    request_id = "0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11"
    code, _, _, _ = await lockstep("dead-letters", "replay", "letter-1", "--request-id", request_id, "--config", config)
    assert code == 0
    (request,) = coordinator.script.asked("ReplayDeadLetter")
    assert (request.request_id, request.dead_letter_id) == (request_id, "letter-1")
