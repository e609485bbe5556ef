from __future__ import annotations

import base64
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lockstep_sandbox.people import PEOPLE, SIGNING_SERVICES, draw_keys, write_registry
from lockstep_sandbox.runtime import BankEndpoint, ChainEndpoint, ClientIdentity, Description, RuntimeDirectory


def description(run: RuntimeDirectory, pid: int) -> Description:
    file = run.path / "x.pem"
    return Description(
        run=run.path.name,
        supervisor_pid=pid,
        services={},
        client=ClientIdentity(authority_file=file, certificate_file=file, private_key_file=file),
        registry_file=file,
        key_files={},
        chain=ChainEndpoint(rpc_url="http://127.0.0.1:1", chain_id=138, contracts={}, tokens={}, accounts={}),
        bank=BankEndpoint(rail_url="http://127.0.0.1:2", control_url="http://127.0.0.1:2"),
        spans_url="http://127.0.0.1:3",
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_sees_a_run(tmp_path: Path) -> None:
    """The run's folders and its description can be read by their owner alone."""
    run = RuntimeDirectory.create(tmp_path / ".sandbox")
    written = run.publish(description(run, os.getpid()))
    assert mode(written) == 0o600
    assert {mode(path) for path in (run.path, *run.path.iterdir()) if path.is_dir()} == {0o700}


def test_the_current_run_is_one_that_lives(tmp_path: Path) -> None:
    """A published run is found while its supervisor lives, the newest first, and not after it was withdrawn."""
    base = tmp_path / ".sandbox"
    assert RuntimeDirectory.current(base) is None
    first, second = RuntimeDirectory.create(base), RuntimeDirectory.create(base)
    first.publish(description(first, os.getpid()))
    second.publish(description(second, os.getpid()))
    found = RuntimeDirectory.current(base)
    assert found is not None
    assert found.read_description().run == second.path.name
    first.withdraw()
    assert RuntimeDirectory.current(base) is not None
    second.withdraw()
    assert RuntimeDirectory.current(base) is None


def test_a_dead_run_is_not_current(tmp_path: Path) -> None:
    """A run whose supervisor is gone is not taken for a running one."""
    base = tmp_path / ".sandbox"
    run = RuntimeDirectory.create(base)
    run.publish(description(run, 2**22 + 1))
    assert RuntimeDirectory.current(base) is None


def test_a_wrong_description_is_refused(tmp_path: Path) -> None:
    """A file that is no description is refused, not half used."""
    run = RuntimeDirectory.create(tmp_path)
    run.write_secret("sandbox.json", '{"run": "x"}')
    with pytest.raises(ValueError, match="supervisor_pid"):
        run.read_description()


def test_everybody_has_a_key_of_their_own(tmp_path: Path) -> None:
    """Each person and signing service gets a key in a private file, and the registry names its public half and roles."""
    keys = draw_keys(tmp_path)
    assert keys.keys() == {person.actor_id for person in PEOPLE} | set(SIGNING_SERVICES)
    assert len({key.public for key in keys.values()}) == len(keys)
    for key in keys.values():
        assert mode(key.private_file) == 0o600
        private = load_pem_private_key(key.private_file.read_bytes(), None)
        assert isinstance(private, Ed25519PrivateKey)
        Ed25519PublicKey.from_public_bytes(key.public).verify(private.sign(b"message"), b"message")

    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    registry = yaml.safe_load(write_registry(tmp_path / "registry.yaml", keys, start, end).read_text())
    approver = next(actor for actor in registry["actors"] if actor["actor_id"] == "approver")
    assert approver["roles"] == ["approver"]
    public = base64.b64encode(keys["approver"].public).decode()
    assert approver["keys"] == [{"public_key": public, "not_before": start, "not_after": end}]
    assert [participant["name"] for participant in registry["participants"]] == list(SIGNING_SERVICES)
    assert b"PRIVATE" not in (tmp_path / "registry.yaml").read_bytes()
