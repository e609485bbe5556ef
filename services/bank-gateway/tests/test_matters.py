"""The command that shows and closes open matters, as a person runs it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
import yaml

from lockstep_kit.ids import sha256
from lockstep_testkit.databases import TestDatabase

Making = Callable[..., Awaitable[TestDatabase]]
OPENED = """
insert into bank_matter (counterparty, message_id, message_sha256, place, kind, uetr, end_to_end_id, sentence)
values ('SNDBDEFF', 'M1', $1, 0, 'UNKNOWN_PAYMENT', '', 'E1', 'the bank debited 1.00 EUR') returning id
"""


async def run(configuration: Path, *arguments: str) -> tuple[int, str]:
    command = (sys.executable, "-m", "bank_gateway.matters", "--config", str(configuration), *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    shown, _ = await asyncio.wait_for(process.communicate(), 240)
    return process.returncode or 0, shown.decode()


def configured(folder: Path, database: TestDatabase) -> Path:
    settings = {
        "database": json.loads(database.settings.model_dump_json()),
        "tls": dict.fromkeys(("certificate_file", "key_file", "ca_file"), "unused"),
        "participant": {"signing_key_file": "unused", "registry_file": "unused"},
        "own_bic": "LCKSDEFFXXX", "bank_bic": "SNDBDEFF", "currencies": ["EUR"], "rail": {"http": {"url": "https://bank.example"}}, "schemas": "unused",
    }  # fmt: skip
    path = folder / "bank-gateway.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


async def test_shown_and_closed(database_for: Making, tmp_path: Path) -> None:
    """One line for each open matter; closing wants a finding and an open matter, and is kept with what was found."""
    database = await database_for("bank_gateway")
    configuration = configured(tmp_path, database)
    async with database.as_role() as role:
        number = await role.fetchval(OPENED, sha256(b"M1"))
        assert await role.fetchval(OPENED.replace("returning id", "on conflict do nothing returning id"), sha256(b"M1")) is None
        status, shown = await run(configuration)
        (matter,) = [json.loads(line) for line in shown.splitlines()]
        assert (status, matter["id"], matter["sentence"]) == (0, number, "the bank debited 1.00 EUR")
        assert (await run(configuration, "--close", str(number)))[0] == 2
        assert (await run(configuration, "--close", str(number), "--finding", "paid by hand"))[0] == 0
        assert (await run(configuration, "--close", str(number), "--finding", "once more"))[0] == 1
        assert await run(configuration) == (0, "")
        assert await role.fetchval("select closing from bank_matter where id = $1", number) == "paid by hand"


async def test_database_keeps_matters(database_for: Making) -> None:
    """What was said stays, whoever asks; a matter is closed once, with words, and is never opened again or removed."""
    database = await database_for("bank_gateway")
    async with database.as_role() as role, database.as_owner() as owner:
        number = await role.fetchval(OPENED, sha256(b"M1"))
        for statement in ("update bank_matter set sentence = 'x'", "delete from bank_matter", "truncate bank_matter"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await role.execute(statement)
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(statement)
        with pytest.raises(asyncpg.CheckViolationError, match="bank_matter_closed"):
            await role.execute("update bank_matter set closed_at = clock_timestamp()")
        await role.execute("update bank_matter set closed_at = clock_timestamp(), closing = 'found'")
        for again in ("closing = 'otherwise'", "closed_at = null, closing = ''"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="closed once"):
                await role.execute(f"update bank_matter set {again} where id = {number}")
