"""What broke a rule is shown with field and rule, and read again only as a whole, once, when a person released it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from bank_samples import BANK, OURS
from real_bank import PAYEE, RICH, Gateway, transfer, until

from bank_gateway import readmission
from bank_gateway.iso20022.agreement import Agreement
from bank_gateway.readmission import FAILPOINTS
from lockstep_kit import failpoints
from lockstep_kit.failpoints import FailpointRaised
from lockstep_kit.fence import Phase
from lockstep_testkit.databases import TestDatabase

Making = Callable[..., Awaitable[TestDatabase]]
SERVICE = "lockstep.test.01"
QUARANTINED = "insert into bank_quarantine (counterparty, cursor, octets, field, rule) values ('SNDBDEFF', $1, $2, 'message', 'must') returning id"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was released is looked for often."""
    monkeypatch.setattr(readmission, "LOOK_SECONDS", 0.05)


def configured(folder: Path, database: TestDatabase) -> Path:
    settings = {
        "database": json.loads(database.settings.model_dump_json()),
        "tls": dict.fromkeys(("certificate_file", "key_file", "ca_file"), "unused"),
        "participant": {"signing_key_file": "unused", "registry_file": "unused"},
        "own_bic": OURS, "bank_bic": BANK, "currencies": ["EUR"], "rail": {"files": {"folder": "unused"}}, "schemas": "unused",
    }  # fmt: skip
    path = folder / "bank-gateway.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


async def run(configuration: Path, *arguments: str) -> tuple[int, bytes]:
    command = (sys.executable, "-m", "bank_gateway.quarantine", "--config", str(configuration), *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    shown, _ = await asyncio.wait_for(process.communicate(), 240)
    return process.returncode or 0, shown


async def listed(configuration: Path, *arguments: str) -> list[dict[str, Any]]:
    status, shown = await run(configuration, *arguments)
    assert status == 0
    return [json.loads(line) for line in shown.decode().splitlines()]


async def test_shown_and_released(database_for: Making, tmp_path: Path) -> None:
    """One line for each message that is held, its octets on demand; a release wants a name and a reason, and waits to be read once."""
    database = await database_for("bank_gateway")
    configuration = configured(tmp_path, database)
    async with database.as_role() as role:
        number = await role.fetchval(QUARANTINED, 1, b"<broken\xff")
        (held,) = await listed(configuration)
        assert (held["id"], held["field"], held["rule"], held["state"], held["octet_count"]) == (
            number,
            "message",
            "must",
            "HELD",
            8,
        )
        assert await run(configuration, "--octets", str(number)) == (0, b"<broken\xff")
        assert (await run(configuration, "--octets", "99"))[0] == 1
        assert (await run(configuration, "--release", str(number)))[0] == 2
        assert (await run(configuration, "--release", str(number), "--by", "Ann"))[0] == 2
        released = ("--release", str(number), "--by", "Ann", "--reason", "service agreed")
        assert (await run(configuration, *released))[0] == 0
        assert (await run(configuration, *released))[0] == 1
        assert (await run(configuration, "--release", "99", *released[2:]))[0] == 1
        (held,) = await listed(configuration)
        assert (held["state"], held["released_by"], held["reason"]) == ("WAITING", "Ann", "service agreed")
        await role.execute("update bank_quarantine_release set state = 'REFUSED', finding = 'x must', ended_at = clock_timestamp()")
        assert (await run(configuration, *released))[0] == 0
        await role.execute(
            "update bank_quarantine_release set state = 'READ', ended_at = clock_timestamp() where state = 'WAITING'"
        )
        assert await listed(configuration) == []
        assert [each["state"] for each in await listed(configuration, "--all")] == ["READ"]
        assert (await run(configuration, *released))[0] == 1


async def test_database_keeps_releases(database_for: Making) -> None:
    """A release ends once, and nothing else of it changes, whoever asks; none is removed; a message waits once."""
    database = await database_for("bank_gateway")
    released = "insert into bank_quarantine_release (quarantine_id, released_by, reason) values (1, 'Ann', 'agreed')"
    async with database.as_role() as role, database.as_owner() as owner:
        await role.execute(QUARANTINED, 1, b"x")
        await role.execute(released)
        with pytest.raises(asyncpg.UniqueViolationError):
            await role.execute(released)
        for statement in ("delete from bank_quarantine_release", "truncate bank_quarantine_release"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(statement)
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(statement)
        for change in ("reason = 'other'", "released_by = 'Bob'", "quarantine_id = 2"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(f"update bank_quarantine_release set state = 'READ', ended_at = clock_timestamp(), {change}")
        await role.execute("update bank_quarantine_release set state = 'READ', ended_at = clock_timestamp()")
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="ends once"):
            await role.execute("update bank_quarantine_release set state = 'REFUSED', finding = 'x'")


async def release(gateway: Gateway) -> None:
    """A person has everything that is held read again."""
    async with gateway.database.as_role() as role:
        await role.execute(
            "insert into bank_quarantine_release (quarantine_id, released_by, reason) "
            "select id, 'Ann', 'service agreed' from bank_quarantine on conflict do nothing"
        )


async def with_agreement(gateway: Gateway, agreement: Agreement) -> None:
    await gateway.close()
    gateway.agreement = agreement
    await gateway.open()


async def test_readmitted_after_the_agreement_changed(gateway: Gateway) -> None:
    """Answers that were quarantined because of what was agreed are read as a whole after that changed: the leg has its promise, and settles."""
    await with_agreement(gateway, Agreement(business_service=SERVICE))
    plan = transfer()
    await gateway.prepare(plan)
    held = await until(lambda: gateway.rows("select * from bank_quarantine"), "quarantined answer")
    assert {row["field"] for row in held} == {"AppHdr/BizSvc"}
    assert await gateway.phase(plan) is Phase.PREPARING
    await release(gateway)

    async def refused() -> list[Any]:
        return await gateway.rows("select * from bank_quarantine_release where state = 'REFUSED'")

    found = await until(refused, "second refusal")
    assert found[0]["finding"].startswith("AppHdr/BizSvc must be")
    assert await gateway.phase(plan) is Phase.PREPARING
    await with_agreement(gateway, Agreement())
    await release(gateway)
    await gateway.reaches(plan, Phase.PREPARED)
    await gateway.commit(plan)
    await gateway.reaches(plan, Phase.COMMITTED)
    assert await gateway.bank.booked(plan) == {RICH: -100_00, PAYEE: 100_00}


@pytest.mark.parametrize("point", FAILPOINTS)
async def test_dies_while_it_reads_again(gateway: Gateway, point: str) -> None:
    """Dead inside or after the transaction that reads it: read by the next gateway, kept once, and the leg goes on."""
    await with_agreement(gateway, Agreement(business_service=SERVICE))
    plan = transfer()
    await gateway.prepare(plan)
    await until(lambda: gateway.rows("select * from bank_quarantine"), "quarantined answer")
    # Nothing but what is released can tell it now.
    gateway.changes = {"inquiry_seconds": 600.0, "inquiry_seconds_max": 600.0}
    await with_agreement(gateway, Agreement())
    failpoints.arm(f"{point}=raise@1")
    try:
        await release(gateway)
        with pytest.raises(FailpointRaised):
            await asyncio.wait_for(gateway.ended(), 240)
    finally:
        failpoints.arm("")
    await gateway.close()
    await gateway.open()
    await gateway.reaches(plan, Phase.PREPARED)
    kept = [row["octets"] for row in await gateway.kept(plan, "IN")]
    assert len(set(kept)) == len(kept) >= 1
