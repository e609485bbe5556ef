"""Secrets and personal data stay where they belong: planted in every field of plans that settle, abort and escalate, and looked for everywhere."""

from __future__ import annotations

import asyncio
import base64
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from nacl.public import PrivateKey

from canaries.places import Finding, Place, Search, databases, files, processes
from canaries.planted import Canary, Kind, of_folder, of_octets, of_text
from coordinator.sealing import KeyBox, read_private_key
from event_journal.payload_keys import WrappedKey, read_vault
from lockstep.participant.v1 import leg_pb2
from lockstep_client.convert import state_name
from lockstep_client.making import create
from lockstep_kit.errors import LockstepError
from lockstep_kit.ids import plan_id as plan_id_of
from lockstep_kit.statements import Verdict
from lockstep_sandbox import scene
from lockstep_sandbox.ports import free_ports
from lockstep_sandbox.runtime import RuntimeDirectory, write_secret
from lockstep_sandbox.stack import Sandbox, package_of
from lockstep_testkit.crew import Crew

pytestmark = pytest.mark.integration

MISPLACED = f"canary-misplaced-{secrets.token_hex(8)}"
CREDITOR = f"Canary Creditor {secrets.token_hex(6)}"
PARTY = f"Canary Party {secrets.token_hex(6)}"
REMITTANCE = f"canary remittance {secrets.token_hex(6)}"
REFERENCE = f"canary-reference-{secrets.token_hex(6)}"


@dataclass(frozen=True, slots=True)
class Planted:
    """A run in which everything happened, what was planted in it, and what its callers were told."""

    sandbox: Sandbox
    canaries: list[Canary]
    answers: list[Place]

    async def findings(self) -> list[Finding]:
        """The canaries that are where they must not be."""
        places = [*files(self.sandbox), *processes(), *self.answers]
        places += [each async for each in databases(self.sandbox)]
        search = Search(self.canaries)
        return sorted({finding for place in places for finding in search.found(place)}, key=str)


def plan(crew: Crew) -> dict[str, Any]:
    """A plan with something to be found in every field that takes words."""
    document = crew.payments()
    document["reference"] = REFERENCE
    document["parties"][0]["name"] = PARTY
    cash = document["legs"][1]["credit_transfer"]
    cash["creditor"]["name"] = CREDITOR
    cash["remittance"] = REMITTANCE
    return document


async def escalated(crew: Crew) -> str:
    """A plan whose evidence the validator rejects, so that a person has to look."""
    plan_id = (await crew.started(plan(crew))).header.plan_id
    async with crew.paused_validator():
        waiting = await crew.awaiting(plan_id, "validate")
        refusal = crew.signature(waiting, "validate", person="validator", verdict=Verdict.REJECT)
        await crew.client.sign_gate(plan_id, refusal)
        await crew.driven(plan_id, until=("PARTIALLY_EXECUTED",), gates=())
    return plan_id


async def cancelled(crew: Crew) -> str:
    """A plan that is given up while everything is held for it."""
    waiting = await crew.awaiting((await crew.started(plan(crew))).header.plan_id, "release")
    await crew.client.cancel_plan(waiting.header.plan_id, crew.signature(waiting, "cancel", person="maker"))
    return (await crew.driven(waiting.header.plan_id)).header.plan_id


async def told(call: Any) -> bytes:
    """What a caller is told of a refusal, with everything beside the sentence."""
    with pytest.raises(LockstepError) as refused:
        await call
    error = refused.value
    return f"{error} {error.metadata} {error.fields}".encode()


async def refusals(crew: Crew) -> list[Place]:
    """Secrets where none belong: in ids, in texts that are too long, in the names of assets, in signatures."""
    url = f"postgresql://coordinator:{MISPLACED}@db/plans"
    draft = crew.draft(plan(crew))
    made = await create(crew.client, draft, crew.key("maker"))
    answers = [
        await told(crew.client.get_plan(url)),
        await told(crew.client.get_plan(f"password={MISPLACED}")),
        await told(crew.client.sign_gate(f"secret: {MISPLACED}", crew.signature(made, "approve"))),
        await told(crew.client.cancel_plan(url, crew.signature(made, "cancel", person="maker"))),
    ]
    return [Place(f"answer:{number}", octets) for number, octets in enumerate(answers)]


async def plan_keys(sandbox: Sandbox, crew: Crew) -> list[Canary]:
    """The keys of all plans, opened as their owners would: the coordinator's with its seal key, the journal's with its wrapping key."""
    seal = read_private_key(sandbox.run.path / "keys" / "coordinator-seal.pem")
    box = KeyBox([seal], bytes(PrivateKey(seal).public_key))
    async with crew.database("coordinator") as owner:
        rows = await owner.fetch("select plan_id, service_key_id, service_sealed from decision_key")
    keys = []
    for row in rows:
        plan_id = plan_id_of(row["plan_id"])
        keys.append(of_octets(f"key of {plan_id}", Kind.PLAN_KEY, box.open(plan_id, row["service_key_id"], row["service_sealed"])))
    vault = read_vault([sandbox.payload_key_file])
    async with crew.database("event-journal") as owner:
        wrapped = await owner.fetch("select plan_id, wrapped_key, wrapping_key_id from journal_payload_key")
    for row in wrapped:
        plan_id = plan_id_of(row["plan_id"])
        data_key = vault._unwrap(plan_id, WrappedKey(row["wrapped_key"], row["wrapping_key_id"]))
        keys.append(of_octets(f"payloads of {plan_id}", Kind.PLAN_KEY, data_key))
    assert len(keys) >= 6
    return keys


async def stream(crew: Crew, plan_ids: list[str]) -> list[Place]:
    """The journal as its readers get it."""
    entries = [(plan_id, await crew.entries(plan_id)) for plan_id in plan_ids]
    return [
        Place(f"journal:{plan_id}", b"\n".join(repr(each).encode() + each.payload for each in found_there))
        for plan_id, found_there in entries
    ]


def wrong_settings(sandbox: Sandbox, folder: Path) -> list[Place]:
    """Settings with a secret where none belongs, and a wrong password: what a service says before it gives up. All read their settings alike."""
    answers = []
    for service in ("coordinator", "notary"):
        right = yaml.safe_load((sandbox.run.path / "config" / f"{service}.yaml").read_text())
        url = right["database"]["url"]
        password = write_secret(folder / f"{service}.wrong", MISPLACED)
        wrong = {
            "password in the URL": {**right, "database": {"url": url.replace("@", f":{MISPLACED}@")}},
            "password beside it": {**right, "database": {**right["database"], "password": MISPLACED}},
            "password instead of settings": {**right, "tls": MISPLACED},
            "password for a number": {**right, "listen": {"port": MISPLACED}},
            "wrong password": {**right, "database": {"url": url, "password_file": str(password)}, "listen": {"port": 0}},
            "no key": {**right, "tls": {**right["tls"], "key_file": str(password)}, "listen": {"port": 0}},
        }
        texts = {name: yaml.safe_dump(document) for name, document in wrong.items()}
        texts["no YAML"] = f"database: {{url: *{MISPLACED}}}"
        for name, text in texts.items():
            path = write_secret(folder / "wrong.yaml", text)
            command = [sys.executable, "-m", package_of(service), "--config", str(path)]
            run = subprocess.run(command, capture_output=True, check=False, timeout=300)
            assert run.returncode != 0, (service, name)
            assert run.stderr, (service, name)
            answers.append(Place(f"settings:{service}:{name}", run.stdout + run.stderr))
    return answers


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def planted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Planted]:
    """Everything, with a webhook that nobody answers; three plans; and callers who give secrets away."""
    run = RuntimeDirectory.create(tmp_path_factory.mktemp("canaries"))
    hook = write_secret(run.path / "keys" / "webhook.secret", "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    (port,) = free_ports(1)
    webhook = {"name": "canary", "url": f"http://127.0.0.1:{port}/", "secret_files": [str(hook)]}
    changes = {"coordinator": {"webhooks": [webhook], "notices": {"allow_loopback": True, "pause_seconds_max": 1.0}}}
    async with Sandbox(run, changes=changes) as sandbox, Crew(sandbox) as crew:
        settled = await crew.settled(plan(crew))
        assert (state_name(settled.state), settled.outcome) == ("CLOSED", leg_pb2.PLAN_OUTCOME_COMMITTED)
        plan_ids = [settled.header.plan_id, await cancelled(crew), await escalated(crew)]
        answers = [*await refusals(crew), *await stream(crew, plan_ids)]
        answers += await asyncio.to_thread(wrong_settings, sandbox, tmp_path_factory.mktemp("wrong"))
        personal = {
            "creditor": CREDITOR, "remittance": REMITTANCE,
            "debtor's IBAN": scene.BUYER.iban, "creditor's IBAN": scene.SELLER.iban,
        }  # fmt: skip
        canaries = [of_text(name, Kind.PERSONAL, text) for name, text in personal.items()]
        canaries += [of_text(name, Kind.PARTY, text) for name, text in {"party": PARTY, "debtor": scene.BUYER.name}.items()]
        canaries += [of_text("misplaced", Kind.MISPLACED, MISPLACED), *of_folder(run.path), *await plan_keys(sandbox, crew)]
        accounts = sandbox.chain.accounts.items()
        canaries += [of_octets(f"key of {name}", Kind.SECRET, bytes(account.key)) for name, account in accounts]
        yield Planted(sandbox, canaries, answers)


async def test_canaries_are_where_they_belong(planted: Planted) -> None:
    """What must be kept is kept: else the other tests would find nothing because nothing was planted."""
    texts = {place.name.split(":")[1]: b"" for place in [each async for each in databases(planted.sandbox)]}
    async for place in databases(planted.sandbox):
        texts[place.name.split(":")[1]] += place.octets
    for service in ("coordinator", "bank-gateway", "bank-simulator"):
        for text in (CREDITOR, REMITTANCE, scene.BUYER.iban):
            assert text.encode() in texts[service], (service, text)
    assert sum(each.kind is Kind.SECRET for each in planted.canaries) > 40
    for each in planted.canaries:
        assert (
            each.file is None or any(form in each.file.read_bytes() for form in each.forms) or each.file.suffix in (".pem", ".key")
        )


async def test_no_canary_is_anywhere_else(planted: Planted) -> None:
    """Logs, spans, environments, command lines, answers, every row of every database, the journal's stream, every file."""
    assert await planted.findings() == []


async def test_a_slip_is_found(planted: Planted) -> None:
    """A line of a log that tells a canary is found; the same line through the services' logs is not told."""
    program = (
        "import structlog, sys; from lockstep_kit.logs import configure_logs\n"
        "if sys.argv[1] == 'scrubbed': configure_logs('test-service')\n"
        "structlog.get_logger().error('slip', debtor=sys.argv[2], error='password=' + sys.argv[3])"
    )
    log, search = planted.sandbox.run.path / "logs" / "slip.log", Search(planted.canaries)
    for how, wanted in (("scrubbed", 0), ("plain", 2)):
        command = [sys.executable, "-c", program, how, CREDITOR, MISPLACED]
        run = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, timeout=300)
        log.write_bytes(run.stdout + run.stderr)
        assert log.read_bytes()
        try:
            findings = [each for place in files(planted.sandbox) if place.file == log for each in search.found(place)]
        finally:
            log.unlink()
        assert len(findings) == wanted
