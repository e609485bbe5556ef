"""The journal's keys change while it runs: both count for a while, everybody can follow from the first to the last, and no other key is taken."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from journal_world import APPENDED, CALL_SECONDS, JournalWorld, event_of

from event_journal.chain import link
from event_journal.payload_keys import PayloadVault, read_vault
from event_journal.payload_store import entries_of
from lockstep.journal.v1 import key_history_pb2
from lockstep_kit.convert import signature_from_pb
from lockstep_kit.key_files import write_signing_key
from lockstep_kit.key_history import KeyHistory, SignedKey, verify
from lockstep_kit.signing import SigningKey
from lockstep_sandbox.processes import ProgramFailed
from lockstep_testkit.factories import delivery_versus_payment, key_of, registered
from lockstep_testkit.participants import ParticipantProcess, keys_document, registry_document

FIRST, SECOND, DROPPED, STRANGER = (
    key_of("event-journal"),
    *(key_of(f"journal {name}") for name in ("second", "dropped", "stranger")),
)
FROM, UNTIL, LATER = "2026-01-01T00:00:00+00:00", "2036-01-01T00:00:00+00:00", "2037-01-01T00:00:00+00:00"


async def keys(service: ParticipantProcess, verb: str, **options: object) -> tuple[int, str]:
    """Run the command as the database's owner does; its exit status, and what it said."""
    told = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = (sys.executable, "-m", "event_journal.keys", verb, "--owner-url", service.database.owner_url, *told)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


def register(service: ParticipantProcess, *keys: SigningKey) -> None:
    """Write these keys into the registry, as the journal's."""
    registry = registry_document()
    own = next(each for each in registry["participants"] if each["name"] == "event-journal")
    own["keys"] = keys_document(tuple(registered(key) for key in keys))
    settings = yaml.safe_load(config_of(service).read_text())
    Path(settings["participant"]["registry_file"]).write_text(yaml.safe_dump(registry))


def config_of(service: ParticipantProcess) -> Path:
    """The file of its settings."""
    return Path(service.supervisor.program(service.name).command[-1])


def sign_by(service: ParticipantProcess, key_file: Path) -> None:
    """Whoever is started next signs by this key."""
    settings: dict[str, Any] = yaml.safe_load(config_of(service).read_text())
    settings["participant"]["signing_key_file"] = str(key_file)
    config_of(service).write_text(yaml.safe_dump(settings))


async def started_with(service: ParticipantProcess, number: int, key_file: Path) -> ParticipantProcess:
    """A replica that signs by a key."""
    sign_by(service, key_file)
    return await service.replica(number)


@pytest.mark.integration
async def test_a_key_is_handed_over(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], payload_key_file: Path, tmp_path: Path
) -> None:
    """Rotation from end to end: refused before the history has the key, then both sign, every reader follows, and what another key signed is found."""
    service = await participant_for("event-journal", payload_key_files=[str(payload_key_file)])
    files = {key: tmp_path / f"{key.public.key_id}.pem" for key in (FIRST, SECOND, DROPPED, STRANGER)}
    for key, path in files.items():
        write_signing_key(path, key)
    register(service, FIRST, SECOND, DROPPED)
    await service.restart()

    assert (await keys(service, "init", key_file=files[FIRST], not_before=FROM, not_after=UNTIL))[0] == 0
    assert (await keys(service, "init", key_file=files[SECOND], not_before=FROM, not_after=UNTIL))[0] == 1
    world = await JournalWorld.around(service)
    plan = delivery_versus_payment()
    assert [each.verdict for each in await world.append(event_of(plan, 1))] == [APPENDED]

    with pytest.raises(ProgramFailed, match="signing_key_file"):
        await started_with(service, 1, files[SECOND])
    for wrong in (STRANGER, SECOND):
        told = {"previous_key_file": files[wrong], "key_file": files[SECOND]}
        assert (await keys(service, "rotate", **told, not_before=FROM, not_after=LATER))[0] == 1
    handed = {"previous_key_file": files[FIRST], "key_file": files[SECOND], "not_before": FROM}
    assert (await keys(service, "rotate", **handed, not_after=FROM))[0] == 1
    status, shown = await keys(service, "rotate", **handed, not_after=LATER)
    assert (status, [SECOND.public.key_id in line for line in shown.splitlines()]) == (0, [False, True])
    assert await keys(service, "show") == (0, shown)

    second = await JournalWorld.around(await started_with(service, 2, files[SECOND]))
    for number, each in ((2, second), (3, world), (4, second)):
        assert [answer.verdict for answer in await each.append(event_of(plan, number))] == [APPENDED]
    signed_by = [entry.signature.key_id for entry in await world.entries(plan.plan_id)]
    assert signed_by == [each.public.key_id for each in (FIRST, SECOND, FIRST, SECOND)]
    for each in (world, second):
        assert (await each.verify(plan.plan_id)).valid
    told_keys = (await world.reader.GetKeyHistory(key_history_pb2.GetKeyHistoryRequest(), timeout=CALL_SECONDS)).keys
    stored = [SignedKey(each.statement, tuple(signature_from_pb(one) for one in each.signatures)) for each in told_keys]
    history = verify(stored, "event-journal")
    assert isinstance(history, KeyHistory)
    assert [each.public for each in history.keys] == [FIRST.public, SECOND.public]

    # A key that the registry has and the history has not, and one that nobody knows.
    for key, rule in ((DROPPED, "KEY_NOT_IN_HISTORY"), (STRANGER, "SIGNATURE_INVALID")):
        await resign(world, plan.plan_id, 4, key, read_vault([payload_key_file]))
        found = await world.verify(plan.plan_id)
        assert (4, rule) in {(each.sequence, each.rule) for each in found.findings}
    async with world.as_owner() as owner:
        await owner.execute("alter table journal_key disable trigger all")
        await owner.execute("update journal_key set own_signature = $1 where number = 2", bytes(64))
    assert (0, "KEY_HISTORY_BROKEN") in {(each.sequence, each.rule) for each in (await world.verify(plan.plan_id)).findings}
    assert (await keys(service, "show"))[0] == 1
    with pytest.raises(ProgramFailed, match="journal_key"):
        await started_with(service, 3, files[FIRST])


async def resign(world: JournalWorld, plan_id: str, sequence: int, key: SigningKey, vault: PayloadVault) -> None:
    """Rewrite the last entry of a chain, and its head, as somebody does who owns the database and another key."""
    async with world.as_owner() as owner:
        rows = await owner.fetch("select * from journal_entry where plan_id = $1 and sequence = $2", plan_id, sequence)
        (entry,) = await entries_of(owner, rows, vault)
        forged = link(entry.event, entry.previous_hash, key)
        for table in ("journal_entry", "journal_chain"):
            await owner.execute(f"alter table {table} disable trigger all")
        await owner.execute(
            "update journal_entry set canonical_bytes = $3, entry_hash = $4, key_id = $5, signature = $6 where plan_id = $1 and sequence = $2",
            plan_id, sequence, forged.canonical_bytes, forged.entry_hash, forged.signature.key_id, forged.signature.octets,
        )  # fmt: skip
        await owner.execute("update journal_chain set head_hash = $2 where plan_id = $1", plan_id, forged.entry_hash)
        for table in ("journal_entry", "journal_chain"):
            await owner.execute(f"alter table {table} enable trigger all")
