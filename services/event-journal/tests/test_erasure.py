"""Payloads are stored encrypted; a sealed plan's are erased for good, and everything that was signed still holds."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from journal_world import APPENDED, JournalWorld, event_of, write_payload_key

from event_journal.erase import main as erase_main
from event_journal.payload_keys import DataKeyChanged, PayloadVault, StoredPayload, WrappedKey, WrappingKeyUnknown, read_vault
from event_journal.rewrap import main as rewrap_main
from lockstep_client.convert import entry_from_pb
from lockstep_client.journal_chain import verify_chain
from lockstep_kit.canonical import canonical
from lockstep_kit.fields import FieldInvalid
from lockstep_kit.ids import PlanId, sha256
from lockstep_testkit.factories import PlanCase, delivery_versus_payment, registry_of
from lockstep_testkit.journal_events import document_of, payload_of
from lockstep_testkit.participants import ParticipantProcess

PLAN = PlanId("0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11")
OTHER = PlanId("1b4e28ba-2fa1-4d3b-8bd4-0a1f0f9c2b11")


async def sealed(world: JournalWorld, count: int = 3) -> PlanCase:
    """A plan whose chain is closed, as the owner's SQL may well have it: what closes it is another test's matter."""
    plan = delivery_versus_payment()
    await world.append(*(event_of(plan, sequence) for sequence in range(1, count + 1)))
    await world.tamper("update journal_chain set sealed = true where plan_id = $1", plan_id=plan.plan_id)
    return plan


async def closed(world: JournalWorld) -> PlanCase:
    """A plan that the protocol closed."""
    plan = await world.harness.plan()
    vote = await world.harness.prepare(plan)
    await world.harness.commit(plan, vote.report)
    return plan


def as_owner(world: JournalWorld, *arguments: str) -> list[str]:
    return ["--owner-url", world.service.database.owner_url, *arguments]


async def erase(world: JournalWorld, *arguments: str) -> int:
    return await asyncio.to_thread(erase_main, as_owner(world, *arguments))


# -- keys ----------------------------------------------------------------------------------------------------------------


def test_a_payload_opens_where_it_was_put() -> None:
    """A ciphertext opens with its plan's key, at its place, under its nonce, and nowhere else."""
    vault = PayloadVault([os.urandom(32)])
    key, wrapped = vault.draw(PLAN)
    other, _ = vault.draw(PLAN)
    stored = key.seal(7, b'{"n":7}')
    assert vault.open(PLAN, wrapped).open(7, stored) == b'{"n":7}'
    assert key.open(8, stored) is None
    assert other.open(7, stored) is None
    assert key.open(7, StoredPayload(stored.octets[:-1] + bytes([stored.octets[-1] ^ 1]), stored.nonce)) is None
    assert key.open(7, StoredPayload(stored.octets, bytes(12))) is None
    assert key.open(7, StoredPayload(stored.octets, b"short")) is None


def test_nonces_are_drawn_anew() -> None:
    """The same payload at the same place is never under the same nonce: a transaction may have been rolled back, or a log restored."""
    key, _ = PayloadVault([os.urandom(32)]).draw(PLAN)
    assert len({key.seal(1, b"{}").nonce for _ in range(1_000)}) == 1_000


def test_a_wrapped_key_is_its_plans() -> None:
    """A data key opens for its plan alone, with the key that wraps it; the first key wraps, all open."""
    old, new = os.urandom(32), os.urandom(32)
    before, both, after = PayloadVault([old]), PayloadVault([new, old]), PayloadVault([new])
    key, wrapped = before.draw(PLAN)
    stored = key.seal(1, b"{}")
    again = both.wrap_again(PLAN, wrapped)
    assert after.open(PLAN, again).open(1, stored) == b"{}"
    assert both.draw(PLAN)[1].wrapping_key_id == after.current_id
    with pytest.raises(WrappingKeyUnknown):
        after.open(PLAN, wrapped)
    with pytest.raises(DataKeyChanged):
        before.open(OTHER, wrapped)
    with pytest.raises(DataKeyChanged):
        before.open(PLAN, WrappedKey(wrapped.octets[:-1] + bytes([wrapped.octets[-1] ^ 1]), wrapped.wrapping_key_id))


@pytest.mark.parametrize("content", [b"", b"x", base64.b64encode(bytes(31)), base64.b64encode(bytes(33)), b"\xff" * 44])
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes) -> None:
    """A file with anything but 32 bytes in base64, or that others may read, is refused by name."""
    path = tmp_path / "payload.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(FieldInvalid, match="32 random bytes"):
        read_vault([path])
    path.write_bytes(base64.b64encode(bytes(32)))
    path.chmod(0o640)
    with pytest.raises(FieldInvalid, match="0600"):
        read_vault([path])


# -- what is stored ------------------------------------------------------------------------------------------------------


async def test_no_payload_is_stored_plain(world: JournalWorld) -> None:
    """What the database holds of a payload is its hash and a ciphertext; the same payload looks different each time."""
    plan = delivery_versus_payment()
    told = {"reason": {"reason": "LEG_REFUSED", "detail": "a word that must not be found"}}
    same = canonical({**document_of("exception.raised", plan.header.digest), **told})
    events = (event_of(plan, number, type="exception.raised", payload=same) for number in (2, 3))
    answers = await world.append(event_of(plan, 1), *events)
    assert [each.verdict for each in answers] == [APPENDED] * 3
    rows = await world.rows("select * from journal_entry where plan_id = $1 order by sequence", plan.plan_id)
    assert all(b"must not be found" not in value for row in rows for value in row.values() if isinstance(value, bytes))
    assert [row["payload_hash"] for row in rows[1:]] == [sha256(same)] * 2
    assert rows[1]["payload"] != rows[2]["payload"]
    assert len({row["payload_nonce"] for row in rows}) == 3
    assert [entry.payload for entry in (await world.entries(plan.plan_id))[1:]] == [same] * 2


async def test_a_repeat_is_known_by_its_hash(world: JournalWorld) -> None:
    """The same event again is answered as before, another payload freezes the chain, though no payload is looked at."""
    plan = delivery_versus_payment()
    first = await world.append(event_of(plan, 1), event_of(plan, 2))
    assert await world.append(event_of(plan, 1), event_of(plan, 2)) == first
    await world.append(event_of(plan, 2, payload=payload_of("leg.prepared", plan.header.digest, number=3)))
    assert (await world.head(plan.plan_id))["frozen"]


@pytest.mark.parametrize(
    "statement",
    [
        "update journal_entry set payload = set_byte(payload, 3, get_byte(payload, 3) # 1) where plan_id = $1 and sequence = 2",
        "update journal_entry set payload_nonce = set_byte(payload_nonce, 3, 255 - get_byte(payload_nonce, 3)) where plan_id = $1 and sequence = 2",
        "update journal_entry set payload_hash = sha256('x') where plan_id = $1 and sequence = 2",
        """
        update journal_entry as one set payload = two.payload, payload_nonce = two.payload_nonce from journal_entry as two
        where one.plan_id = $1 and two.plan_id = $1 and one.sequence = 2 and two.sequence = 3
        """,
    ],
)
async def test_what_is_tampered_is_found(world: JournalWorld, statement: str) -> None:
    """A changed ciphertext, nonce or hash, or a ciphertext in another entry's place, is found by the journal and by whoever reads."""
    plan = delivery_versus_payment()
    await world.append(*(event_of(plan, sequence) for sequence in (1, 2, 3)))
    await world.tamper(statement, plan_id=plan.plan_id)
    found = await world.verify(plan.plan_id)
    assert [(each.sequence, each.rule) for each in found.findings] == [(2, "ENTRY_CHANGED")]
    entries = [entry_from_pb(entry) for entry in await world.entries(plan.plan_id)]
    assert {each.sequence for each in verify_chain(entries, plan.plan_id, registry_of()).findings} == {2}


@pytest.mark.parametrize(
    "statement",
    [
        "delete from journal_payload_key where plan_id = $1",
        "update journal_payload_key set wrapped_key = decode(repeat('07', 60), 'hex') where plan_id = $1",
    ],
)
async def test_a_key_that_is_gone_without_an_erasure(world: JournalWorld, statement: str) -> None:
    """A key that was deleted or changed behind the journal's back passes for no erasure."""
    plan = delivery_versus_payment()
    await world.append(*(event_of(plan, sequence) for sequence in (1, 2)))
    async with world.as_owner() as owner:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only when its plan is erased"):
            await owner.execute("delete from journal_payload_key where plan_id = $1", plan.plan_id)
        await owner.execute("alter table journal_payload_key disable trigger all")
        await owner.execute(statement, plan.plan_id)
        await owner.execute("alter table journal_payload_key enable trigger all")
    found = await world.verify(plan.plan_id)
    assert (found.valid, found.payloads_erased) == (False, False)
    assert {(each.sequence, each.rule) for each in found.findings} == {(1, "ENTRY_CHANGED"), (2, "ENTRY_CHANGED")}


# -- erasure -------------------------------------------------------------------------------------------------------------


async def test_an_erased_plan(world: JournalWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """After an erasure no payload is anywhere, while the chain verifies for the journal and for whoever reads, on every way of reading."""
    plan, other = await closed(world), await closed(world)
    before = await world.entries(plan.plan_id)
    assert all(entry.payload and not entry.erased for entry in before)
    assert await erase(world, "--plan", plan.plan_id, "--by", "dpo", "--reason", "request 7") == 0
    line = json.loads(capsys.readouterr().out)
    assert line == {"plan_id": plan.plan_id, "erased_by": "dpo", "reason": "request 7"}
    found = await world.verify(plan.plan_id)
    assert (found.valid, found.sealed, found.payloads_erased, found.head_hash) == (True, True, True, before[-1].entry_hash)
    after = await world.entries(plan.plan_id)
    watched = (await world.watch(plan.plan_id).read()).entries
    for entries in (after, watched):
        assert [(entry.payload, entry.erased) for entry in entries] == [(b"", True)] * len(before)
        assert [entry.payload_hash for entry in entries] == [entry.payload_hash for entry in before]
        verdict = verify_chain([entry_from_pb(entry) for entry in entries], plan.plan_id, registry_of())
        assert (verdict.valid, verdict.payloads_erased, verdict.head_hash) == (True, True, before[-1].entry_hash)
    assert await world.rows("select * from journal_payload_key where plan_id = $1", plan.plan_id) == []
    untouched = await world.verify(other.plan_id)
    assert (untouched.valid, untouched.payloads_erased) == (True, False)


async def test_an_erased_entry_still_cannot_be_changed(world: JournalWorld) -> None:
    """What is left of an erased plan is held against what was signed: another hash is found, by the journal and by whoever reads."""
    plan = await closed(world)
    assert await erase(world, "--plan", plan.plan_id, "--by", "dpo", "--reason", "why") == 0
    assert (await world.verify(plan.plan_id)).valid
    await world.tamper(
        "update journal_entry set payload_hash = sha256('x') where plan_id = $1 and sequence = 2", plan_id=plan.plan_id
    )
    assert [(each.sequence, each.rule) for each in (await world.verify(plan.plan_id)).findings] == [(2, "ENTRY_CHANGED")]
    entries = [entry_from_pb(entry) for entry in await world.entries(plan.plan_id)]
    assert {each.rule for each in verify_chain(entries, plan.plan_id, registry_of()).findings} == {"ENTRY_CHANGED"}


async def test_a_repeated_event_of_an_erased_plan(world: JournalWorld) -> None:
    """A writer that sends an erased plan's events again is answered as before, and brings no payload back."""
    plan = delivery_versus_payment()
    first = await world.append(*(event_of(plan, sequence) for sequence in (1, 2)))
    await world.tamper("update journal_chain set sealed = true where plan_id = $1", plan_id=plan.plan_id)
    await erase(world, "--plan", plan.plan_id, "--by", "dpo", "--reason", "why")
    assert await world.append(*(event_of(plan, sequence) for sequence in (1, 2))) == first
    assert [entry.payload for entry in await world.entries(plan.plan_id)] == [b"", b""]


async def test_what_is_not_erased(world: JournalWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only a sealed plan's payloads go; what cannot be done is named, and the rest of a log is done all the same, as often as it is told."""
    still_open, unknown, plan = delivery_versus_payment(), delivery_versus_payment(), await sealed(world)
    await world.append(event_of(still_open, 1))
    log = tmp_path / "erasures.jsonl"
    log.write_text(
        "".join(
            json.dumps({"plan_id": each.plan_id, "erased_by": "dpo", "reason": "why"}) + "\n"
            for each in (still_open, unknown, plan)
        )
    )
    for _ in range(2):
        assert await erase(world, "--from-file", str(log)) == 1
        said = capsys.readouterr()
        assert f"{still_open.plan_id} are not erased: its chain is not sealed" in said.err
        assert f"{unknown.plan_id} are not erased: the journal has no chain" in said.err
        assert json.loads(said.out)["plan_id"] == plan.plan_id
    assert (await world.entries(still_open.plan_id))[0].payload
    assert [entry.erased for entry in await world.entries(plan.plan_id)] == [True] * 3
    assert await erase(world, "--list") == 0
    assert plan.plan_id in {json.loads(line)["plan_id"] for line in capsys.readouterr().out.splitlines()}
    log.write_text('{"plan_id": 7}\n')
    assert await erase(world, "--from-file", str(log)) == 2


async def test_a_restored_backup_is_erased_again(world: JournalWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A restore brings an erased plan's key back; the log of erasures, kept outside, takes it away again."""
    plan = await sealed(world)
    (key,) = await world.rows("select * from journal_payload_key where plan_id = $1", plan.plan_id)
    await erase(world, "--plan", plan.plan_id, "--by", "dpo", "--reason", "why")
    log = tmp_path / "erasures.jsonl"
    log.write_text(capsys.readouterr().out)
    async with world.as_owner() as owner:  # as a backup of before has it
        await owner.execute("alter table journal_erasure disable trigger all")
        await owner.execute("delete from journal_erasure where plan_id = $1", plan.plan_id)
        await owner.execute("alter table journal_erasure enable trigger all")
        await owner.execute("insert into journal_payload_key values ($1, $2, $3)", key[0], key[1], key[2])
    assert all(entry.payload for entry in await world.entries(plan.plan_id))
    assert await erase(world, "--from-file", str(log)) == 0
    assert [entry.payload for entry in await world.entries(plan.plan_id)] == [b""] * 3


async def test_plain_payloads_of_before_are_erased_too(world: JournalWorld) -> None:
    """Rows of before payloads were encrypted are read as they are, and an erasure empties them, their hash kept."""
    plan = await closed(world)
    before = await world.entries(plan.plan_id)
    async with world.as_owner() as owner:
        await owner.execute("alter table journal_entry disable trigger all")
        for entry in before:
            await owner.execute(
                "update journal_entry set payload = $1, payload_hash = null, payload_nonce = null where event_id = $2",
                entry.payload,
                entry.event_id,
            )
        await owner.execute("alter table journal_entry enable trigger all")
    assert await world.entries(plan.plan_id) == before
    assert (await world.verify(plan.plan_id)).valid
    answers = await world.append(*(event_of(plan, sequence) for sequence in (1, 2, 3)))
    assert [each.verdict for each in answers] == [APPENDED] * 3
    assert await erase(world, "--plan", plan.plan_id, "--by", "dpo", "--reason", "why") == 0
    assert {row["payload"] for row in await world.rows("select payload from journal_entry where plan_id = $1", plan.plan_id)} == {
        b""
    }
    found = await world.verify(plan.plan_id)
    assert (found.valid, found.payloads_erased) == (True, True)


@pytest.mark.parametrize(
    "statement",
    [
        "select journal_erase('plan', 'me', 'why')",
        "delete from journal_payload_key",
        "update journal_payload_key set wrapping_key_id = '0011223344556677'",
        "insert into journal_erasure (plan_id, erased_by, reason) values ('plan', 'me', 'why')",
        "delete from journal_erasure",
    ],
)
async def test_the_service_erases_nothing(world: JournalWorld, statement: str) -> None:
    """The service's role can neither erase nor say that something was erased."""
    async with world.service.database.as_role() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_the_record_of_an_erasure_stays(world: JournalWorld) -> None:
    """Not even the owner changes or removes the record of an erasure without first taking the triggers away."""
    plan = await sealed(world)
    await erase(world, "--plan", plan.plan_id, "--by", "dpo", "--reason", "why")
    async with world.as_owner() as owner:
        for statement in ("delete from journal_erasure", "update journal_erasure set reason = 'other'", "truncate journal_erasure"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await owner.execute(statement)


# -- wrapping keys -------------------------------------------------------------------------------------------------------


def configured(service: ParticipantProcess, keys: list[Path], tmp_path: Path) -> Path:
    """Settings of a journal over the same database with other wrapping keys."""
    config = Path(service.supervisor.program(service.name).command[-1])
    document: dict[str, Any] = yaml.safe_load(config.read_text())
    document["payload_key_files"] = [str(key) for key in keys]
    document["listen"]["port"] = 0
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(document))
    return other


async def started_with(service: ParticipantProcess, keys: list[Path], tmp_path: Path) -> tuple[int, str]:
    """Start it, until it ends; its exit code and what it said."""
    other = configured(service, keys, tmp_path)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "event_journal",
        "--config",
        str(other),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 240)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode()


async def test_a_wrong_or_missing_key_file_is_refused(world: JournalWorld, service: ParticipantProcess, tmp_path: Path) -> None:
    """A journal that was not given the keys that its payloads are under does not start, and says which one is missing; nor does one without a file."""
    plan = delivery_versus_payment()
    await world.append(event_of(plan, 1))
    (row,) = await world.rows("select wrapping_key_id from journal_payload_key where plan_id = $1", plan.plan_id)
    code, said = await started_with(service, [write_payload_key(tmp_path / "wrong.key")], tmp_path)
    assert code != 0
    assert "payload_key_files" in said
    assert row["wrapping_key_id"] in said
    code, said = await started_with(service, [tmp_path / "absent.key"], tmp_path)
    assert code != 0
    assert "absent.key" in said


async def test_the_wrapping_key_is_changed(
    world: JournalWorld, service: ParticipantProcess, payload_key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys are wrapped again by a new key while the journal runs with both; then it runs with the new one alone, and everything is read as before."""
    plan, damaged = delivery_versus_payment(), delivery_versus_payment()
    await world.append(event_of(plan, 1), event_of(damaged, 1))
    async with world.as_owner() as owner:
        await owner.execute(
            "update journal_payload_key set wrapped_key = decode(repeat('07', 60), 'hex') where plan_id = $1", damaged.plan_id
        )
    old = read_vault([payload_key_file]).current_id
    new = write_payload_key(tmp_path / "new.key")
    assert await asyncio.to_thread(rewrap_main, as_owner(world, "--key-file", str(new))) == 1
    arguments = as_owner(world, "--key-file", str(new), "--key-file", str(payload_key_file))
    assert await asyncio.to_thread(rewrap_main, arguments) == 1
    assert f"the payload key of plan {damaged.plan_id} was changed" in capsys.readouterr().err
    async with world.as_owner() as owner:  # what nothing opens any more is not among what a journal needs
        await owner.execute("alter table journal_payload_key disable trigger all")
        await owner.execute("delete from journal_payload_key where wrapping_key_id = $1", old)
        await owner.execute("alter table journal_payload_key enable trigger all")
    # The file's name stays in the settings; its content is the new key from the restart on.
    shutil.copyfile(new, payload_key_file)
    await service.restart()
    await world.append(event_of(plan, 2))
    assert [entry.payload != b"" for entry in await world.entries(plan.plan_id)] == [True, True]
    (row,) = await world.rows("select count(distinct wrapping_key_id) as count from journal_payload_key")
    assert row["count"] == 1
    assert read_vault([payload_key_file]).current_id != old
