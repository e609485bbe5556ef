"""The registry as a file: read exactly, or refused by name."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lockstep_kit.fields import FieldInvalid
from lockstep_kit.registry import Role
from lockstep_kit.registry_file import load_registry, parse_registry
from lockstep_testkit.factories import key_of

ALICE, BANK = (base64.b64encode(key_of(name).public.octets).decode() for name in ("alice", "bank-gateway"))
GOOD = f"""
actors:
  - actor_id: alice
    roles: [maker, operator]
    keys: [{{public_key: {ALICE}, not_before: 2026-01-01T00:00:00Z, not_after: 2036-01-01T00:00:00+02:00}}]
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
    assert bank.name == "bank-gateway"
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
