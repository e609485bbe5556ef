"""The registry as a file: read exactly, or refused by name."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lockstep_kit.amounts import AssetId
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.registry import GateRule, Limit, Matrix, Role, RoleLimits, Threshold
from lockstep_kit.registry_file import load_registry, parse_registry
from lockstep_kit.statements import Gate
from lockstep_testkit.factories import key_of

ALICE, BANK = (base64.b64encode(key_of(name).public.octets).decode() for name in ("alice", "bank-gateway"))
GOOD = f"""
actors:
  - actor_id: alice
    roles: [maker, operator]
    keys: [{{public_key: {ALICE}, not_before: 2026-01-01T00:00:00Z, not_after: 2036-01-01T00:00:00+02:00}}]
    limits: {{maker: unlimited}}
participants:
  - name: bank-gateway
    keys: [{{public_key: {BANK}, not_before: 2026-01-01T00:00:00Z, not_after: 2036-01-01T00:00:00Z}}]
"""


def test_good_file(tmp_path: Path) -> None:
    """What the file says is what the registry holds."""
    path = tmp_path / "registry.yaml"
    path.write_text(GOOD)
    registry = load_registry(path)
    (alice,), (bank,) = registry.actors, registry.participants
    assert alice.actor_id == "alice"
    assert alice.roles == {Role.MAKER, Role.OPERATOR}
    assert alice.keys[0].public == key_of("alice").public
    assert alice.keys[0].not_before == datetime(2026, 1, 1, tzinfo=UTC)
    assert alice.keys[0].not_after == datetime(2035, 12, 31, 22, tzinfo=UTC)
    assert alice.limits == (RoleLimits(Role.MAKER, None),)
    assert not alice.agent
    assert bank.name == "bank-gateway"
    assert registry.matrices == {}
    assert registry.actor_of(key_of("alice").sign(b"m"), b"m", datetime(2030, 1, 1, tzinfo=UTC)) == alice


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("roles:", "role:", "actors[0].roles"),
        ("name: bank-gateway", "name: bank-gateway\n    color: red", "participants[0].color"),
        ("actors:", "people: []\nactors:", "people"),
        ("[maker, operator]", "[maker, king]", "actors[0].roles[1]"),
        ("[maker, operator]", "[]", "actors[0].roles"),
        ("actor_id: alice", "actor_id: Alice Smith", "actors[0].actor_id"),
        (ALICE, ALICE[:-4], "actors[0].keys[0].public_key"),
        (ALICE, f"'{ALICE}!'", "actors[0].keys[0].public_key"),
        (
            "not_before: 2026-01-01T00:00:00Z, not_after: 2036-01-01T00:00:00+",
            "not_before: 2026-01-01, not_after: 2036-01-01T00:00:00+",
            "actors[0].keys[0].not_before",
        ),
        ("2036-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "participants[0].keys[0].not_after"),
        (BANK, ALICE, "registry"),
        ("participants:", "actors: []\nparticipants:", "actors"),
        ("actor_id: alice", "actor_id: alice\n    actor_id: bob", "actor_id"),
        ("actors:", "actors: &a [*a]\nother:", "file"),
        ("actors:", "actors: !!python/object/apply:os.system [id]\nother:", "file"),
    ],
)
def test_files_that_are_refused(old: str, new: str, field: str) -> None:
    """A file that breaks a rule is refused with the path of the field at fault."""
    assert old in GOOD
    with pytest.raises(FieldInvalid) as caught:
        parse_registry(GOOD.replace(old, new, 1).encode())
    assert caught.value.field == field


@pytest.mark.parametrize("octets", [b"", b"[]", b"actors: 7\nparticipants: []", b"\xff\xfe", b"{", b"? {a: b}\n: c", b"a: \x00"])
def test_no_registry_at_all(octets: bytes) -> None:
    """Something else than a registry is refused, never half read."""
    with pytest.raises(FieldInvalid):
        parse_registry(octets)


def test_name_twice() -> None:
    """One name with two entries would split a person's keys and roles."""
    entry = GOOD.split("actors:\n")[1].split("participants:", maxsplit=1)[0]
    with pytest.raises(FieldInvalid, match="unique"):
        parse_registry(GOOD.replace(entry, entry + entry.replace(ALICE, base64.b64encode(bytes(32)).decode()), 1).encode())


# -- Limits and matrices -------------------------------------------------------------------------------------------------

FULL = (
    GOOD.replace(
        "limits: {maker: unlimited}", "limits: {maker: [{asset: EUR, minor_units_max: 100000000000000000000}]}\n    agent: true"
    )
    + """
matrices:
  - version: 1
    different_persons: [[MAKE, APPROVE, RELEASE, VALIDATE], [MAKE, CANCEL]]
    gates:
      MAKE: {roles: [maker], agents: unlimited}
      APPROVE:
        roles: [approver]
        thresholds: [{asset: EUR, from_minor_units: 1000, signatures: 2}]
        agents: [{asset: EUR, minor_units_max: 999}]
      RELEASE: {roles: [releaser]}
      VALIDATE: {roles: [validator]}
      CANCEL: {roles: [maker, operator]}
"""
)


def test_limits_and_matrices() -> None:
    """Limits, agents and matrices are what the file says."""
    registry = parse_registry(FULL.encode())
    (alice,) = registry.actors
    assert alice.limits == (RoleLimits(Role.MAKER, (Limit(AssetId("EUR"), 10**20),)),)
    assert alice.agent
    approve = GateRule(
        roles=frozenset({Role.APPROVER}),
        thresholds=(Threshold(AssetId("EUR"), 1000, 2),),
        agents=True,
        agent_limits=(Limit(AssetId("EUR"), 999),),
    )
    assert registry.matrices == {
        1: Matrix(
            version=1,
            gates={
                Gate.MAKE: GateRule(frozenset({Role.MAKER}), agents=True, agent_limits=None),
                Gate.APPROVE: approve,
                Gate.RELEASE: GateRule(frozenset({Role.RELEASER})),
                Gate.VALIDATE: GateRule(frozenset({Role.VALIDATOR})),
                Gate.CANCEL: GateRule(frozenset({Role.MAKER, Role.OPERATOR})),
            },
            different_persons=(
                frozenset({Gate.MAKE, Gate.APPROVE, Gate.RELEASE, Gate.VALIDATE}),
                frozenset({Gate.MAKE, Gate.CANCEL}),
            ),
        )
    }


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("    limits: {maker: [{asset: EUR, minor_units_max: 100000000000000000000}]}\n", "", "actors[0].limits.maker"),
        ("limits: {maker: [", "limits: {operator: unlimited, maker: [", "actors[0].limits.operator"),
        ("limits: {maker: [", "limits: {approver: unlimited, maker: [", "actors[0].limits.approver"),
        ("maker: [{asset: EUR, ", "maker: [{asset: EUR, minor_units_max: 1}, {asset: EUR, ", "actors[0].limits.maker[1].asset"),
        ("maker: [{asset: EUR,", "maker: [{asset: EURO,", "actors[0].limits.maker[0].asset"),
        ("agent: true", "agent: 'yes'", "actors[0].agent"),
        ("version: 1", "version: 0", "matrices[0].version"),
        ("version: 1", "version: '1'", "matrices[0].version"),
        ("      RELEASE: {roles: [releaser]}\n", "", "matrices[0].gates.RELEASE"),
        ("[MAKE, APPROVE, RELEASE, VALIDATE]", "[MAKE, APPROVE, RELEASE]", "matrices[0].different_persons"),
        ("roles: [releaser]", "roles: [releaser, auditor]", "matrices[0].gates.RELEASE.roles"),
        ("minor_units_max: 999}", "minor_units_max: 1000}", "matrices[0].gates.APPROVE.agents[0].minor_units_max"),
        ("minor_units_max: 999}", "minor_units_max: -1}", "matrices[0].gates.APPROVE.agents[0].minor_units_max"),
        ("signatures: 2}", "signatures: 2, who: bob}", "matrices[0].gates.APPROVE.thresholds[0].who"),
        ("\nmatrices:\n", "\nmatrices:\n  - {version: 1, gates: {}, different_persons: []}\n", "matrices[1].version"),
    ],
)
def test_limits_and_matrices_that_are_refused(old: str, new: str, field: str) -> None:
    """A limit that is not said, or a matrix that says less than every one must, is refused with its field when the file is loaded."""
    assert old in FULL
    with pytest.raises(FieldInvalid) as caught:
        parse_registry(FULL.replace(old, new, 1).encode())
    assert caught.value.field == field
