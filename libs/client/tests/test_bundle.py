"""`lockstep journal export`, `journal trust` and `verify`, over a real mTLS connection to services that show a plan's evidence as a test puts it down."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from eth_account import Account

from lockstep.coordinator.v1 import settlement_pb2, settlement_service_pb2
from lockstep.journal.v1 import entry_pb2, journal_reader_service_pb2, key_history_pb2, log_pb2
from lockstep.notary.v1 import anchor_pb2, notary_service_pb2
from lockstep_kit import convert as kit
from lockstep_kit import merkle
from lockstep_kit.canonical import time_from_text
from lockstep_kit.errors import LockstepError
from lockstep_kit.ids import sha256
from lockstep_kit.registry import GateRule, Limits, RegisteredKey
from lockstep_kit.registry_file import LIMITED_ROLES
from lockstep_kit.statements import GateSignature
from lockstep_testkit.bundles.auditor import ACCOUNT_KEY, ORIGIN, WITNESS, registry, trust
from lockstep_testkit.bundles.bundle import Exhibit
from lockstep_testkit.bundles.history import PLAN, History, aborted, committed
from lockstep_testkit.bundles.history import REGISTRY as NOTARY_REGISTRY
from lockstep_testkit.factories import CHAIN, PARTICIPANTS, key_of

_KINDS = {
    "checkpoint": anchor_pb2.ANCHOR_KIND_CHECKPOINT,
    "registrations": anchor_pb2.ANCHOR_KIND_REGISTRATIONS,
    "outcomes": anchor_pb2.ANCHOR_KIND_OUTCOMES,
}


def octets(text: str) -> bytes:
    return base64.b64decode(text)


def entries(history: History) -> list[entry_pb2.Entry]:
    made = []
    for each in history.entries:
        said: Any = each.document
        made.append(
            entry_pb2.Entry(
                **{name: said[name] for name in ("plan_id", "sequence", "event_id", "type", "actor", "actor_role")},
                event_time=kit.time_to_pb(time_from_text(said["event_time"])),
                payload=each.payload,
                payload_hash=sha256(each.payload),
                previous_hash=bytes.fromhex(said["previous_hash"]),
                entry_hash=sha256(each.signed),
                canonical_bytes=each.signed,
                signature=kit.signature_to_pb(each.signature),
            )
        )
    return made


def exported(exhibit: Exhibit) -> journal_reader_service_pb2.ExportBundleResponse:
    """What the journal shows."""
    log, size = exhibit.log, exhibit.log.sealed_size
    checkpoint = log.checkpoint(size, exhibit.checkpoint_key)
    proofs = [
        log_pb2.InclusionProof(
            plan_id=PLAN, sequence=index, leaf_index=place, tree_size=size, path=merkle.audit_path(log.leaves[:size], place)
        )
        for index, place in enumerate(log.places, start=1)
    ]
    return journal_reader_service_pb2.ExportBundleResponse(
        entries=entries(exhibit.history),
        proofs=proofs,
        checkpoint=log_pb2.Checkpoint(
            origin=ORIGIN, tree_size=size, root_hash=checkpoint.checkpoint.root, signed_note=checkpoint.note
        ),
    )


def anchor(shown: dict[str, Any]) -> anchor_pb2.Anchor:
    return anchor_pb2.Anchor(
        kind=_KINDS[shown["kind"]],
        root_hash=octets(shown["root"]),
        tree_size=int(shown["size"]),
        chain=shown["chain"],
        registry=shown["registry"],
        raw_transaction=octets(shown["raw_transaction"]),
        block_number=int(shown["block_number"]),
        block_hash=octets(shown["block_hash"]),
    )


def proof(shown: dict[str, Any]) -> anchor_pb2.PlanProof:
    return anchor_pb2.PlanProof(
        leaf_data=octets(shown["leaf_data"]),
        leaf_index=int(shown["leaf_index"]),
        tree_size=int(shown["tree_size"]),
        path=[octets(each) for each in shown["path"]],
        root_hash=octets(shown["root"]),
        anchor=anchor(shown["anchor"]),
    )


def plan(history: History) -> settlement_pb2.Plan:
    """What the coordinator shows."""
    header = history.case.header
    shown = settlement_pb2.Plan(header=kit.header_to_pb(header), plan_digest=header.digest)
    for leg in history.case.legs:
        each = shown.legs.add(leg=kit.leg_to_pb(leg), lock=history.case.lock(leg.leg_id), participant=PARTICIPANTS[leg.kind])
        if leg.leg_id in history.votes:
            each.vote.CopyFrom(kit.vote_to_pb(history.votes[leg.leg_id]))
        if leg.leg_id in history.outcomes:
            each.outcome.CopyFrom(kit.outcome_to_pb(history.outcomes[leg.leg_id]))
    for signed in history.gates:
        assert isinstance(signed, GateSignature)
        shown.gates.add(signature=kit.gate_to_pb(signed), actor_id="somebody", sign_time=kit.time_to_pb(header.deadline))
    return shown


def show(coordinator: Any, exhibit: Exhibit) -> dict[str, Any]:
    """Have all services show an exhibit; returns the bundle that it makes."""
    document, script = exhibit.bundle(), coordinator.script
    seen = document["witnessed"]
    whole = len(exhibit.log.leaves)
    witnessed = anchor_pb2.WitnessedCheckpoint(
        signed_note=octets(seen["note"]), tree_size=whole, root_hash=octets(seen["anchor"]["root"]), anchor=anchor(seen["anchor"])
    )
    notarised = notary_service_pb2.GetNotarisationResponse(
        plan_digest=exhibit.history.case.header.digest,
        registration_proof=proof(document["registration"]["proof"]),
        outcome_proof=proof(document["outcome"]["proof"]),
    )
    path = [octets(each) for each in seen["consistency_path"]]
    script.answers = {
        "GetPlan": [settlement_service_pb2.GetPlanResponse(plan=plan(exhibit.history))],
        "ExportBundle": [exported(exhibit)],
        "GetKeyHistory": [key_history_pb2.GetKeyHistoryResponse()],
        "GetConsistencyProof": [journal_reader_service_pb2.GetConsistencyProofResponse(path=path)],
        "GetWitnessedCheckpoint": [notary_service_pb2.GetWitnessedCheckpointResponse(checkpoint=witnessed)],
        "GetNotarisation": [notarised],
    }
    return document


def written_keys(keys: tuple[RegisteredKey, ...]) -> list[dict[str, str]]:
    public = [base64.b64encode(key.public.octets).decode() for key in keys]
    return [{"public_key": each, "not_before": "2020-01-01T00:00:00Z", "not_after": "2090-01-01T00:00:00Z"} for each in public]


def written_limits(limits: Limits) -> Any:
    return "unlimited" if limits is None else [{"asset": each.asset, "minor_units_max": each.minor_units_max} for each in limits]


def written_rule(rule: GateRule) -> dict[str, Any]:
    thresholds = [
        {"asset": each.asset, "from_minor_units": each.from_minor_units, "signatures": each.signatures} for each in rule.thresholds
    ]
    agents = {"agents": written_limits(rule.agent_limits)} if rule.agents else {}
    return {"roles": [role.value for role in rule.roles], "thresholds": thresholds, **agents}


KNOWN = registry()
#: The auditor's registry as the file that every service has.
REGISTRY = {
    "actors": [
        {
            "actor_id": each.actor_id,
            "roles": [role.value for role in each.roles],
            "keys": written_keys(each.keys),
            "limits": {one.role.value: written_limits(one.limits) for one in each.limits if one.role in LIMITED_ROLES},
            "agent": each.agent,
        }
        for each in KNOWN.actors
    ],
    "participants": [{"name": each.name, "keys": written_keys(each.keys)} for each in KNOWN.participants],
    "matrices": [
        {
            "version": each.version,
            "gates": {gate.value: written_rule(rule) for gate, rule in each.gates.items()},
            "different_persons": [[gate.value for gate in group] for group in each.different_persons],
        }
        for each in KNOWN.matrices.values()
    ],
}


@pytest.fixture
def lockstep(coordinator: Any, tls: Any, tmp_path: Path) -> Callable[..., Any]:
    """The command, configured for the scripted services."""
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(REGISTRY))
    files = {name: str(getattr(tls, name)) for name in ("certificate_file", "key_file", "ca_file")}
    places = {"coordinator": coordinator.target, "journal": coordinator.target, "notary": coordinator.target}
    accounts = [str(Account.from_key(ACCOUNT_KEY).address)]
    venue = {"escrow": "0x", "chain": CHAIN, "notary_registry": NOTARY_REGISTRY, "notary_accounts": accounts, "assets": {}}
    (tmp_path / "client.yaml").write_text(yaml.safe_dump({**places, **venue, "tls": files, "registry_file": "registry.yaml"}))

    async def run(*arguments: str, config: bool = True) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from lockstep_client.cli import main; main()",
            *arguments,
            *(("--config", str(tmp_path / "client.yaml")) if config else ()),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        out, error = await asyncio.wait_for(process.communicate(), 300)
        assert process.returncode is not None
        return process.returncode, out.decode(), error.decode()

    return run


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def absent(reason: str) -> LockstepError:
    return LockstepError(grpc.StatusCode.NOT_FOUND, reason, "there is none")


async def test_exported_and_proved(coordinator: Any, lockstep: Any, tmp_path: Path) -> None:
    """What the services show of a plan becomes the very bundle that it should, and it proves everything to who trusts their keys."""
    wanted = show(coordinator, Exhibit(committed(History())))
    code, out, error = await lockstep("journal", "export", PLAN, "-o", "bundle.json", "--json")
    assert (code, error) == (0, "")
    assert json.loads(out) == {"plan_id": PLAN, "bundle": "bundle.json", "entries": 15, "missing": []}
    assert json.loads((tmp_path / "bundle.json").read_text()) == wanted
    (tmp_path / "trust.json").write_text(json.dumps(trust()))
    code, out, _ = await lockstep("verify", "bundle.json", "--trust", "trust.json", "--json", config=False)
    report = json.loads(out)
    assert (code, report["verdict"]) == (0, "PROVED")
    assert [each["name"] for each in report["checks"] if each["result"] != "PASSED"] == ["AUDIT_LOG", "RESOLUTIONS", "REVERSALS"]


async def test_a_drafted_trust_file(coordinator: Any, lockstep: Any, tmp_path: Path) -> None:
    """A trust file that was drafted from the registry names the same keys, roles, limits and matrices, and verifies the plan."""
    show(coordinator, Exhibit(committed(History())))
    names = ("--origin", ORIGIN, "--witness", key_of(WITNESS).public.key_id)
    assert (await lockstep("journal", "export", PLAN, "-o", "bundle.json"))[0] == 0
    assert (await lockstep("journal", "trust", "-o", "trust.json", *names))[0] == 0
    drafted = json.loads((tmp_path / "trust.json").read_text())
    names_of = ("journal", "chain", "participants", "persons", "matrices")
    assert {name: drafted[name] for name in names_of} == {name: trust()[name] for name in names_of}
    drafted["witness"] = trust()["witness"]
    (tmp_path / "mended.json").write_text(json.dumps(drafted))
    assert (await lockstep("verify", "bundle.json", "--trust", "mended.json", config=False))[0] == 0


async def test_what_is_missing_is_said(coordinator: Any, lockstep: Any, tmp_path: Path) -> None:
    """A bundle that cannot hold everything yet is written, and says what it does not hold."""
    show(coordinator, Exhibit(aborted(History())))
    script = coordinator.script
    script.answers["GetWitnessedCheckpoint"] = [absent("CHECKPOINT_NOT_FOUND")]
    script.answers["GetNotarisation"] = [absent("PLAN_NOT_FOUND")]
    script.answers["GetAbortAuditLog"] = [absent("AUDIT_LOG_NOT_FOUND")]
    code, out, _ = await lockstep("journal", "export", PLAN, "-o", "bundle.json", "--json")
    assert code == 0
    assert json.loads(out)["missing"] == [
        "no witness has seen a log with all of these entries yet",
        "the plan's registration is not on chain",
        "the plan's outcome is not on chain",
        "the coordinator does not show the abort audit log",
    ]
    assert {"witnessed", "registration", "outcome", "audit_log"}.isdisjoint(json.loads((tmp_path / "bundle.json").read_text()))


async def test_a_witness_that_refuses(coordinator: Any, lockstep: Any) -> None:
    """Where the witness refuses the journal's log, that is said, and not that it has only seen nothing yet."""
    show(coordinator, Exhibit(committed(History())))
    alarm = LockstepError(grpc.StatusCode.FAILED_PRECONDITION, "WITNESS_ALARM", "the notary refuses what the journal shows")
    coordinator.script.answers["GetWitnessedCheckpoint"] = [alarm]
    code, out, _ = await lockstep("journal", "export", PLAN, "-o", "bundle.json", "--json")
    assert code == 0
    assert json.loads(out)["missing"] == ["the witness refuses the journal's log: the notary refuses what the journal shows"]


async def test_a_witness_is_waited_for(coordinator: Any, lockstep: Any, tmp_path: Path) -> None:
    """The witness's next look is waited for; an anchor is not."""
    wanted = show(coordinator, Exhibit(committed(History())))
    seen = coordinator.script.answers["GetWitnessedCheckpoint"][0]
    seen.checkpoint.ClearField("anchor")
    pending = LockstepError(grpc.StatusCode.FAILED_PRECONDITION, "CHECKPOINT_PENDING", "not yet")
    coordinator.script.answers["GetWitnessedCheckpoint"] = [pending, pending, seen]
    code, out, _ = await lockstep("journal", "export", PLAN, "-o", "bundle.json", "--json")
    assert (code, json.loads(out)["missing"]) == (0, ["the checkpoint that the witness saw is not anchored on chain yet"])
    del wanted["witnessed"]["anchor"]
    assert json.loads((tmp_path / "bundle.json").read_text()) == wanted


async def test_the_audit_log_is_in_it(coordinator: Any, lockstep: Any, tmp_path: Path) -> None:
    """The bundle of a plan that did not settle holds the very log whose hash the seal names."""
    exhibit = Exhibit(aborted(History()))
    wanted = show(coordinator, exhibit)
    log = settlement_service_pb2.GetAbortAuditLogResponse(log=exhibit.history.audit_log)
    coordinator.script.answers["GetAbortAuditLog"] = [log]
    assert (await lockstep("journal", "export", PLAN, "-o", "bundle.json"))[0] == 0
    assert json.loads((tmp_path / "bundle.json").read_text()) == wanted
    assert coordinator.script.asked("GetAbortAuditLog")[0].sha256 == exhibit.history.evidence


async def test_a_checkpoint_is_waited_for(coordinator: Any, lockstep: Any, tmp_path: Path) -> None:
    """A checkpoint that is still to be made is waited for, and only as long as was said."""
    exhibit = Exhibit(committed(History()))
    show(coordinator, exhibit)
    pending = LockstepError(grpc.StatusCode.FAILED_PRECONDITION, "CHECKPOINT_PENDING", "not yet")
    coordinator.script.answers["ExportBundle"] = [pending, pending, exported(exhibit)]
    assert (await lockstep("journal", "export", PLAN, "-o", "bundle.json"))[0] == 0
    assert len(coordinator.script.asked("ExportBundle")) == 3
    coordinator.script.answers["ExportBundle"] = [pending]
    code, _, error = await lockstep("journal", "export", PLAN, "-o", "another.json", "--wait", "0")
    assert code == 1
    assert "CHECKPOINT_PENDING" in error
    assert not (tmp_path / "another.json").exists()


async def test_nothing_is_overwritten_or_left(coordinator: Any, lockstep: Any, tmp_path: Path) -> None:
    """A file that is there stays as it is, and nothing half-written is left beside it."""
    show(coordinator, Exhibit(committed(History())))
    (tmp_path / "bundle.json").write_text("mine")
    before = names_in(tmp_path)
    code, _, error = await lockstep("journal", "export", PLAN, "-o", "bundle.json")
    assert code == 2
    assert "bundle.json" in error
    assert (tmp_path / "bundle.json").read_text() == "mine"
    assert names_in(tmp_path) == before


async def test_a_service_that_lies(coordinator: Any, lockstep: Any, tmp_path: Path) -> None:
    """What a service changed is written as it was shown, and the verification says what is wrong with it."""
    exhibit = Exhibit(committed(History()))
    show(coordinator, exhibit)
    forged = exported(exhibit)
    forged.entries[6].signature.signature = bytes(64)
    coordinator.script.answers["ExportBundle"] = [forged]
    assert (await lockstep("journal", "export", PLAN, "-o", "bundle.json"))[0] == 0
    (tmp_path / "trust.json").write_text(json.dumps(trust()))
    code, out, _ = await lockstep("verify", "bundle.json", "--trust", "trust.json", config=False)
    assert code == 1
    assert "entries[6].signature" in out
