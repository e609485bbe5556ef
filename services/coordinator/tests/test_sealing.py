"""Plans' keys at rest: a dump opens nothing without a key file, and other keys can take over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from coordinator import reseal, sealing
from coordinator.sealing import KeyBox, KeySealed
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import delivery_versus_payment

OLD, RECOVERY = bytes(range(32)), bytes(range(1, 33))
NEW, STRANGER = bytes(range(2, 34)), bytes(range(3, 35))


def key_file(folder: Path, name: str, key: bytes) -> Path:
    path = folder / f"{name}.pem"
    path.touch(mode=0o600)
    path.write_bytes(X25519PrivateKey.from_private_bytes(key).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def public_file(folder: Path, key: bytes) -> Path:
    path = folder / "recovery-public.pem"
    public = X25519PrivateKey.from_private_bytes(key).public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def public(key: bytes) -> bytes:
    return bytes(PrivateKey(key).public_key)


async def sealed(database: TestDatabase, count: int = 3) -> dict[str, bytes]:
    """Plans, each with its key sealed to the old service key; the keys."""
    box = KeyBox([OLD], public(RECOVERY))
    keys: dict[str, bytes] = {}
    async with database.as_owner() as owner:
        # A plan itself is not of interest here: its key alone.
        await owner.execute("alter table decision_key drop constraint decision_key_plan_id_fkey")
        for _ in range(count):
            plan_id = delivery_versus_payment().plan_id
            keys[plan_id], kept = box.draw(plan_id)
            await owner.execute(
                "insert into decision_key values ($1, $2, $3, $4, $5)",
                plan_id, kept.service_key_id, kept.service_sealed, kept.recovery_key_id, kept.recovery_sealed,
            )  # fmt: skip
    return keys


async def rows(database: TestDatabase) -> list[asyncpg.Record]:
    async with database.as_owner() as owner:
        return await owner.fetch("select * from decision_key order by plan_id")


async def run(database: TestDatabase, folder: Path, *keys: Path, recovery: bytes = RECOVERY) -> int:
    """The command, as an operator runs it."""
    place = urlsplit(database.owner_url)
    password = folder / "owner.password"
    password.write_text(str(place.password))
    url = place._replace(netloc=f"{place.username}@{place.hostname}:{place.port}").geturl()
    files = [word for key in keys for word in ("--key-file", str(key))]
    recovering = ["--recovery-public-key-file", str(public_file(folder, recovery))]
    return await asyncio.to_thread(reseal.main, ["--owner-url", url, "--owner-password-file", str(password), *files, *recovering])


async def test_a_dump_opens_nothing(database_for: Callable[..., Awaitable[TestDatabase]]) -> None:
    """Nothing in any row is a plan's key, nor opens by what the row holds; a key file opens it."""
    database = await database_for("coordinator")
    keys = await sealed(database)
    for row in await rows(database):
        key = keys[row["plan_id"]]
        octets = [value if isinstance(value, bytes) else value.encode() for value in row.values()]
        assert not any(form in each for each in octets for form in (key, key.hex().encode()))
        for guess in [STRANGER, *(each[:32] for each in octets if len(each) >= 32)]:
            for box in ("service_sealed", "recovery_sealed"):
                with pytest.raises(CryptoError):
                    SealedBox(PrivateKey(guess)).decrypt(row[box])
        assert KeyBox([OLD], bytes(32)).open(row["plan_id"], row["service_key_id"], row["service_sealed"]) == key


async def test_other_keys_take_over(database_for: Callable[..., Awaitable[TestDatabase]], tmp_path: Path) -> None:
    """After it the new key opens every plan's, the old one none, and a new recovery key stands where one was given; doing it again does nothing."""
    database = await database_for("coordinator")
    keys = await sealed(database)
    new, old = key_file(tmp_path, "new", NEW), key_file(tmp_path, "old", OLD)
    assert await run(database, tmp_path, new, old, recovery=STRANGER) == 0
    after = await rows(database)
    for row in after:
        place: Any = (row["plan_id"], row["service_key_id"], row["service_sealed"])
        assert KeyBox([NEW], bytes(32)).open(*place) == keys[row["plan_id"]]
        with pytest.raises(KeySealed):
            KeyBox([OLD, RECOVERY], bytes(32)).open(*place)
        recovered = KeyBox([STRANGER], bytes(32)).open(row["plan_id"], row["recovery_key_id"], row["recovery_sealed"])
        assert recovered == keys[row["plan_id"]]
    assert await run(database, tmp_path, new, old, recovery=STRANGER) == 0
    assert await rows(database) == after


async def test_the_recovery_key_opens_when_the_services_is_lost(
    database_for: Callable[..., Awaitable[TestDatabase]], tmp_path: Path
) -> None:
    """With it and a new service key the plans' keys are there again; without either nothing changes, and it is said which are left."""
    database = await database_for("coordinator")
    keys = await sealed(database)
    before = await rows(database)
    new = key_file(tmp_path, "new", NEW)
    assert await run(database, tmp_path, new, key_file(tmp_path, "stranger", STRANGER)) == 1
    assert await rows(database) == before
    assert await run(database, tmp_path, new, key_file(tmp_path, "recovery", RECOVERY)) == 0
    for row in await rows(database):
        assert KeyBox([NEW], bytes(32)).open(row["plan_id"], row["service_key_id"], row["service_sealed"]) == keys[row["plan_id"]]


async def test_the_service_seals_once(database_for: Callable[..., Awaitable[TestDatabase]]) -> None:
    """Its role cannot seal anew; its owner can, but not to another plan, nor under the same keys, and no key goes away."""
    database = await database_for("coordinator")
    await sealed(database)
    async with database.as_role() as role, database.as_owner() as owner:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await role.execute("update decision_key set service_sealed = '', service_key_id = 'x'")
        for statement in (
            "update decision_key set service_sealed = ''",
            "update decision_key set plan_id = plan_id || 'x', service_key_id = 'x'",
            "delete from decision_key",
            "truncate decision_key",
        ):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(statement)


def test_an_opened_key_is_remembered_for_its_own_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same row opens again without its box, so many of them at the most; another plan's id, key or octets are opened for themselves, and refused."""
    monkeypatch.setattr(sealing, "OPENED_MAX", 2)
    box = KeyBox([OLD], public(RECOVERY))
    plans = [delivery_versus_payment().plan_id for _ in range(3)]
    drawn = {plan_id: box.draw(plan_id) for plan_id in plans}
    for plan_id, (key, kept) in drawn.items():
        assert box.open(plan_id, kept.service_key_id, kept.service_sealed) == key
    key, kept = drawn[plans[2]]
    broken = kept.service_sealed[:-1] + bytes([kept.service_sealed[-1] ^ 1])
    for asked in (
        (plans[1], kept.service_key_id, kept.service_sealed),
        (plans[2], kept.recovery_key_id, kept.service_sealed),
        (plans[2], kept.service_key_id, broken),
        (plans[2], kept.service_key_id, broken),
    ):
        with pytest.raises(KeySealed):
            box.open(*asked)
    monkeypatch.setattr(box, "_opening", {})
    assert box.open(plans[2], kept.service_key_id, kept.service_sealed) == key
    with pytest.raises(KeySealed):
        box.open(plans[0], drawn[plans[0]][1].service_key_id, drawn[plans[0]][1].service_sealed)
