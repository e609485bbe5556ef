"""An abort audit log is believed for nothing but its hash: whatever was changed is found out by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lockstep_client.audit_check import FORMAT, RegistryRecord, check_audit, check_registry, check_seal
from lockstep_client.convert import AuditView
from lockstep_client.evidence import Finding
from lockstep_client.journal_chain import ChainFinding, ChainVerdict, Entry
from lockstep_contracts.notary import PlanStatus
from lockstep_kit.canonical import canonical
from lockstep_kit.ids import sha256

CHAIN = "eip155:138"
EARLIER = sha256(b"the log of an abort that did not hold")


def rules(findings: list[Finding]) -> set[str]:
    return {each.rule for each in findings}


def log_of(world: Any, **changes: Any) -> AuditView:
    header = world.view().header
    document = {
        "format": FORMAT,
        "plan_id": header.plan_id,
        "plan_digest": header.digest.hex(),
        "outcome": "ABORTED",
        "earlier": [],
    }
    octets = canonical(document | changes)
    return AuditView(octets, sha256(octets), (), "INTACT", ())


def record(*digests: bytes, status: PlanStatus = PlanStatus.ABORTED) -> RegistryRecord:
    kept = digests[-1][:31] if digests else bytes(31)
    return RegistryRecord(CHAIN, status, kept, digests, bytes(32), 7)


def test_a_log_that_holds(world: Any) -> None:
    """Of a log whose hash stands on the chain under its outcome nothing is found."""
    view = log_of(world)
    assert check_audit(view, world.view(), world.registry) == []
    assert check_registry(view, record(view.digest), CHAIN) == []
    mixed = log_of(world, outcome="MIXED")
    assert check_registry(mixed, record(mixed.digest, status=PlanStatus.MIXED), CHAIN) == []


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda view: replace(view, octets=view.octets.replace(b"ABORTED", b"SETTLED")), {"AUDIT_HASH"}),
        (lambda view: replace(view, octets=b"[]"), {"AUDIT_FORMAT"}),
        (lambda view: replace(view, octets=view.octets + b" ", digest=sha256(view.octets + b" ")), {"AUDIT_FORMAT"}),
        (lambda view: replace(view, copy="CORRUPT"), {"AUDIT_COPY_CORRUPT"}),
        (lambda view: replace(view, copy="MISSING"), {"AUDIT_COPY_MISSING"}),
    ],
)
def test_what_was_changed(world: Any, tamper: Callable[[AuditView], AuditView], found: set[str]) -> None:
    """Other bytes, another form, a copy that is gone or changed: each has its name."""
    assert rules(check_audit(tamper(log_of(world)), world.view(), world.registry)) == found


def test_another_plans_log(world: Any) -> None:
    """A log of another plan is not this one's."""
    other = log_of(world, plan_digest=sha256(b"another plan").hex())
    assert rules(check_audit(other, world.view(), world.registry)) == {"AUDIT_PLAN"}


def test_the_notarys_signature(world: Any) -> None:
    """An outcome that the notary did not sign is found out."""
    world.settle("delivery", signer="bank-gateway")
    forged = next(each.outcome for each in world.view().legs if each.leg.leg_id == "delivery")
    assert rules(check_audit(replace(log_of(world), notarisations=(forged,)), world.view(), world.registry)) == {
        "OUTCOME_SIGNATURE"
    }


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (record(EARLIER), {"AUDIT_CHAIN_DIFFERS"}),
        (record(status=PlanStatus.REGISTERED), {"AUDIT_NOT_ON_CHAIN"}),
        (record(status=PlanStatus.NONE), {"AUDIT_NOT_ON_CHAIN"}),
        (replace(record(EARLIER), chain="eip155:1"), {"AUDIT_CHAIN_OTHER"}),
    ],
)
def test_what_the_chain_says(world: Any, told: RegistryRecord, found: set[str]) -> None:
    """Another hash, no end yet, another chain: each has its name."""
    assert rules(check_registry(log_of(world), told, CHAIN)) == found


def test_the_outcome_on_the_chain(world: Any) -> None:
    """The log's hash under another outcome than the log's is found out; so is a hash of which only the first bytes agree."""
    view = log_of(world)
    assert rules(check_registry(view, record(view.digest, status=PlanStatus.COMMITTED), CHAIN)) == {"AUDIT_CHAIN_OUTCOME"}
    near = view.digest[:31] + bytes([view.digest[31] ^ 1])
    assert rules(check_registry(view, record(near), CHAIN)) == {"AUDIT_CHAIN_DIFFERS"}


def test_an_earlier_log_on_the_chain(world: Any) -> None:
    """Where the chain has an earlier log, the log itself must name it; that the coordinator says so is not enough."""
    silent = replace(log_of(world), earlier=(EARLIER,))
    assert rules(check_registry(silent, record(EARLIER), CHAIN)) == {"AUDIT_CHAIN_DIFFERS"}
    naming = replace(log_of(world, earlier=[EARLIER.hex()]), earlier=(EARLIER,))
    assert check_registry(naming, record(EARLIER), CHAIN) == []


def test_the_journals_seal(world: Any) -> None:
    """The seal must have the log's hash, in a chain that verifies."""
    view = log_of(world)
    fields: dict[str, Any] = dict.fromkeys(Entry.__slots__)
    seal = Entry(**(fields | {"payload": canonical({"evidence_digest": view.digest.hex()})}))
    sound = ChainVerdict(entry_count=9, head_hash=EARLIER, sealed=True, plan_digest="", findings=())
    assert check_seal(view, sound, seal) == []
    assert rules(check_seal(view, sound, replace(seal, payload=canonical({"evidence_digest": EARLIER.hex()})))) == {
        "AUDIT_SEAL_DIFFERS"
    }
    assert rules(check_seal(view, replace(sound, sealed=False), seal)) == {"AUDIT_NOT_SEALED"}
    assert rules(check_seal(view, sound, None)) == {"AUDIT_NOT_SEALED"}
    assert rules(check_seal(view, sound, replace(seal, payload=b"", erased=True))) == {"AUDIT_SEAL_ERASED"}
    broken = replace(sound, findings=(ChainFinding(3, "JOURNAL_LINK", "the link is broken"),))
    assert "JOURNAL_LINK" in rules(check_seal(view, broken, seal))
