"""A key that stops counting while the journal runs signs nothing more: whoever asks is told so by name, nothing is lost, and a key that counts goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from journal_world import APPENDED, CALL_SECONDS, JournalWorld, event_of
from test_keys import FIRST, SECOND, keys, register, sign_by

from event_journal import signing_keys
from event_journal.chain import NO_HISTORY
from lockstep.participant.v1 import leg_pb2
from lockstep_kit.errors import from_rpc
from lockstep_kit.key_files import write_signing_key
from lockstep_kit.key_history import HistoryFinding, KeyHistory, SignedKey, introduce, verify
from lockstep_kit.registry import Participant, Registry
from lockstep_testkit import commands
from lockstep_testkit.clocks import JumpingClock
from lockstep_testkit.factories import KEYS_FROM, delivery_versus_payment, registered
from lockstep_testkit.participants import ParticipantProcess

WRITER, READER, PARTICIPANT = (
    "lockstep.journal.v1.JournalService",
    "lockstep.journal.v1.JournalReaderService",
    "lockstep.participant.v1.ParticipantService",
)
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def reason_of(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """How a call that must fail was refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), from_rpc(caught.value).reason


async def health_becomes(service: ParticipantProcess, expected: dict[str, int]) -> None:
    """Wait until health says so of each service."""
    stub = health_pb2_grpc.HealthStub(await service.channel())
    async with asyncio.timeout(CALL_SECONDS):
        while True:
            found = {
                name: (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=CALL_SECONDS)).status
                for name in expected
            }
            if found == expected:
                return
            await asyncio.sleep(0.1)


async def all_published(world: JournalWorld) -> None:
    """Wait until a checkpoint covers everything, so that none is due."""
    statement = "select (select max(tree_size) from journal_checkpoint) = next_position - 1 as covered from journal_counter"
    async with asyncio.timeout(CALL_SECONDS):
        while True:
            if (await world.rows(statement))[0]["covered"]:
                return
            await asyncio.sleep(0.1)


async def stored(world: JournalWorld) -> list[object]:
    """Everything that a signature would add to."""
    tables = ("journal_entry", "journal_chain", "journal_checkpoint", "participant_leg")
    return [await world.rows(f"select * from {table} order by 1, 2") for table in tables]


@pytest.mark.integration
async def test_a_key_that_expires_signs_nothing_more(
    participant_for: Callable[..., Awaitable[ParticipantProcess]], payload_key_file: Path, tmp_path: Path
) -> None:
    """Once the key's time is over appends, votes and seals are refused by name and change nothing; readers are served, and the next key goes on."""
    service = await participant_for("event-journal", payload_key_files=[str(payload_key_file)], poll_seconds=0.2)
    clock = JumpingClock(service.database.owner_url)
    await clock.prepare()
    files = {key: tmp_path / f"{key.public.key_id}.pem" for key in (FIRST, SECOND)}
    for key, path in files.items():
        write_signing_key(path, key)
    register(service, FIRST, SECOND)
    now = datetime.now(UTC)
    # Events say when they happened by the plans' own clock, which stands still: the keys were there then.
    first = {"not_before": KEYS_FROM.isoformat(), "not_after": (now + HOUR / 3).isoformat()}
    second = {"not_before": KEYS_FROM.isoformat(), "not_after": (now + 24 * HOUR).isoformat()}
    await service.restart()
    # The history is begun while the journal runs: it is heeded from then on.
    assert (await keys(service, "init", key_file=files[FIRST], **first))[0] == 0

    world = await JournalWorld.around(service)
    prepared, waiting = await world.harness.plan(), await world.harness.plan()
    vote = await world.harness.prepare(prepared)
    assert vote.verdict == leg_pb2.COMMAND_VERDICT_DONE
    await health_becomes(service, {WRITER: SERVING, PARTICIPANT: SERVING, READER: SERVING})
    await all_published(world)
    before = await stored(world)

    await clock.set(HOUR / 2)
    late = delivery_versus_payment()
    refused = (grpc.StatusCode.UNAVAILABLE, "SIGNING_KEY_REFUSED")
    assert await reason_of(world.append(event_of(late, 1))) == refused
    request = commands.prepare_request(commands.prepare(waiting, "journal"))
    assert await reason_of(world.harness.stub.Prepare(request, timeout=CALL_SECONDS)) == refused
    assert await reason_of(world.harness.commit(prepared, vote.report)) == refused
    await health_becomes(service, {WRITER: NOT_SERVING, PARTICIPANT: NOT_SERVING, READER: SERVING})
    assert await stored(world) == before
    assert len(await world.entries(prepared.plan_id)) == 3

    previous = files[FIRST]
    assert (await keys(service, "rotate", previous_key_file=previous, key_file=files[SECOND], **second))[0] == 0
    assert await reason_of(world.append(event_of(late, 1))) == refused
    sign_by(service, files[SECOND])
    await service.restart()
    world = await JournalWorld.around(service)
    assert [answer.verdict for answer in await world.append(event_of(late, 1))] == [APPENDED]
    assert (await world.harness.prepare(waiting)).verdict == leg_pb2.COMMAND_VERDICT_DONE
    assert (await world.harness.commit(prepared, vote.report)).verdict == leg_pb2.COMMAND_VERDICT_DONE
    await health_becomes(service, {WRITER: SERVING, PARTICIPANT: SERVING, READER: SERVING})
    signed_by = [entry.signature.key_id for entry in await world.entries(prepared.plan_id)]
    assert signed_by == [*[FIRST.public.key_id] * 3, SECOND.public.key_id]


def test_what_may_not_sign_is_named() -> None:
    """A key signs only while the history and the registry have it, each by itself; a history that does not hold lets nothing be signed."""
    own = (registered(FIRST, NOW - HOUR, NOW + HOUR), registered(SECOND, NOW - HOUR, NOW + HOUR))
    registry = Registry([], [Participant("event-journal", own)])
    history = verify([introduce(NO_HISTORY, FIRST, NOW - 2 * HOUR, NOW + 2 * HOUR)], "event-journal")
    assert isinstance(history, KeyHistory)
    for key, keys_then, moment, rule in (
        (FIRST, history, NOW, ""),
        (SECOND, NO_HISTORY, NOW, ""),
        (SECOND, history, NOW, "history"),
        (FIRST, history, NOW + 3 * HOUR, "history"),
        (FIRST, history, NOW - 3 * HOUR, "history"),
        (FIRST, history, NOW + HOUR, "registry"),
        (FIRST, NO_HISTORY, NOW - 3 * HOUR, "registry"),
        (FIRST, HistoryFinding(1, "SIGNATURE_INVALID", "it is not signed"), NOW, "SIGNATURE_INVALID"),
    ):
        found = signing_keys.refusal(key.public.key_id, keys_then, registry, moment)
        assert (rule in str(found)) if rule else found is None
    changed = replace(introduce(NO_HISTORY, FIRST, NOW, NOW + HOUR), signatures=(FIRST.sign(b"another statement"),))
    assert isinstance(changed, SignedKey)
    assert signing_keys.refusal(FIRST.public.key_id, verify([changed], "event-journal"), registry, NOW) is not None
