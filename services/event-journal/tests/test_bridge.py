"""The bridge against a real NATS server: every entry once, in order, whatever is killed, and a loud stop where a person must look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from bridge_world import STREAM, BridgeWorld
from journal_world import JournalWorld
from pydantic import ValidationError

from event_journal.bridge.rules import NOTHING, Halted, Published, follow, next_place, published
from event_journal.bridge.settings import NatsSettings
from event_journal.erase import main as erase_main
from lockstep_kit.rpc import TlsSettings
from lockstep_sandbox.ports import free_ports
from lockstep_sandbox.processes import Supervisor


@pytest_asyncio.fixture(loop_scope="session")
async def bridged(world: JournalWorld, tmp_path: Path, tls_for: Callable[[str], TlsSettings]) -> AsyncIterator[BridgeWorld]:
    async with Supervisor(tmp_path / "logs") as supervisor:
        (port,) = free_ports(1)
        around = BridgeWorld(world, supervisor, tmp_path, tls_for, port)
        await around.start_server()
        yield around


# -- rules ---------------------------------------------------------------------------------------------------------------

LAST = Published(7, "log", 5, "token")


def test_the_next_place() -> None:
    """An entry that was published is passed over, the next one follows the last message, and a missing one halts."""
    assert next_place(LAST, 5, "t") is None
    assert next_place(LAST, 6, "t") == Published(8, "log", 6, "t")
    assert next_place(Published(0, "log", 0, ""), 1, "") == Published(1, "log", 1, "")
    with pytest.raises(Halted, match="JOURNAL_GAP"):
        next_place(LAST, 7, "t")


def test_another_log() -> None:
    """Another log than the last message's is gone on with only where that very log is to be left."""
    assert follow(LAST, "log", "") == LAST
    assert follow(NOTHING, "log", "") == NOTHING
    assert follow(LAST, "other", "log") == Published(7, "other", 0, "")
    for leave in ("", "other", "third"):
        with pytest.raises(Halted, match="JOURNAL_RESTORED"):
            follow(LAST, "other", leave)


@pytest.mark.parametrize("found", [{}, {"Lockstep-Log": "x"}, {"Lockstep-Log": "x", "Lockstep-Position": "-1"}])
def test_a_foreign_message(found: dict[str, str]) -> None:
    """A message without the bridge's headers halts it."""
    with pytest.raises(Halted, match="STREAM_FOREIGN"):
        published(3, found)


@pytest.mark.parametrize("server", ["nats://nats.example:4222", "http://localhost:1", "nats://me:secret@localhost:4222"])
def test_servers_that_are_refused(server: str) -> None:
    """Servers elsewhere need TLS, and no URL carries a password."""
    with pytest.raises(ValidationError):
        NatsSettings(servers=(server,))


# -- the real thing ------------------------------------------------------------------------------------------------------


async def test_every_entry_once_in_order(bridged: BridgeWorld) -> None:
    """What stands and what comes is published in the journal's order, an entry a message, with what its headers and subject say."""
    await bridged.plans()
    await bridged.start()
    await bridged.plans(6, 9)
    messages = await bridged.assert_complete()
    for message in messages:
        entry = message.entry
        assert message.subject == f"lockstep.journal.{entry.type}"
        said = {name.removeprefix("Lockstep-"): value for name, value in message.headers.items() if name.startswith("Lockstep-")}
        assert (said["Plan"], said["Type"], said["Event-Id"]) == (entry.plan_id, entry.type, entry.event_id)
        assert (int(said["Sequence"]), int(said["Position"])) == (entry.sequence, entry.position)
        assert message.headers["Nats-Msg-Id"] == f"{said['Log']}:{entry.position}"


@pytest.mark.parametrize("point", ["before_publish", "after_publish", "after_acknowledgement"])
@pytest.mark.parametrize("nth", [1, 13])
async def test_killed_at_each_step(bridged: BridgeWorld, point: str, nth: int) -> None:
    """Killed before a message is sent, while it is under way, or once it is acknowledged: the next bridge goes on with nothing lost or repeated."""
    await bridged.plans(4, 5)
    await bridged.start(failpoints=f"event-journal.bridge.{point}=kill@{nth}")
    await bridged.killed()
    await bridged.start()
    await bridged.plans(1, 3)
    await bridged.assert_complete()


async def test_without_the_window(bridged: BridgeWorld) -> None:
    """What makes an entry be published once is the place that it is sent for, not the server's memory of message ids: forgotten, they change nothing."""
    bridged.others = {"duplicate_window_seconds": 1.0}
    await bridged.plans(4, 5)
    for nth in (3, 5):
        await bridged.start(failpoints=f"event-journal.bridge.after_publish=kill@{nth}")
        await bridged.killed()
        await asyncio.sleep(1.5)
    await bridged.start()
    await bridged.assert_complete()


async def test_the_server_is_killed(bridged: BridgeWorld) -> None:
    """A NATS server that is killed while entries come, and started again, has every one in the end."""
    await bridged.start()
    for _ in range(3):
        appending = asyncio.create_task(bridged.plans(8, 6))
        await asyncio.sleep(0.05)
        await bridged.supervisor.kill9("nats")
        await appending
        await bridged.start_server()
    await bridged.assert_complete()


async def test_the_journal_is_killed(bridged: BridgeWorld) -> None:
    """A journal that is killed and started again is gone on with where it was left."""
    await bridged.start()
    await bridged.plans(5, 6)
    await bridged.journal.service.kill()
    await bridged.journal.service.restart()
    await bridged.plans(5, 6)
    await bridged.assert_complete()


async def test_two_bridges_at_once(bridged: BridgeWorld) -> None:
    """Two bridges into one stream never come between each other's messages, and either goes on alone when the other is killed."""
    await asyncio.gather(bridged.start("one"), bridged.start("two"))
    for killed in ("one", "two", "one"):
        appending = asyncio.create_task(bridged.plans(10, 6))
        await asyncio.sleep(0.1)
        await bridged.supervisor.kill9(killed)
        await appending
        await bridged.start(killed)
    await bridged.assert_complete()


@pytest.mark.parametrize("more", [0, 3])
async def test_a_restored_journal(bridged: BridgeWorld, more: int) -> None:
    """A journal that was put back stops the bridge, running or started, and says what to do; told so, it publishes the other log from its first entry on."""
    await bridged.plans(2, 3)
    await bridged.start()
    before = await bridged.assert_complete()
    for _ in range(more):
        # With more than one message of the journal behind it, a bridge resumes with a token; else from the start, which no restore refuses.
        await bridged.plans(1, 2)
        before = await bridged.assert_complete()
    (old,) = {message.place[0] for message in before}
    await bridged.restore()
    await bridged.plans(1, 2)
    said = await bridged.halted("bridge")
    assert "JOURNAL_RESTORED" in said
    assert f"--leave-log {old}" in said
    for arguments in ((), ("--leave-log", "another")):
        assert "JOURNAL_RESTORED" in await bridged.halts(*arguments)
    assert len(await bridged.messages()) == len(before)
    await bridged.start("bridge", "--leave-log", old)
    log_id, entries = await bridged.log()
    after = await bridged.published(len(before) + len(entries))
    assert after[: len(before)] == before
    assert [message.place for message in after[len(before) :]] == [(log_id, entry.position) for entry in entries]
    await bridged.start("bridge", "--leave-log", old, failpoints="event-journal.bridge.before_publish=kill@1")
    await bridged.plans(1, 1)
    await bridged.killed()
    await bridged.restore()
    # What was left once is not left again.
    assert "JOURNAL_RESTORED" in await bridged.halts("--leave-log", old)


async def test_killed_while_it_leaves_a_log(bridged: BridgeWorld) -> None:
    """Killed in the middle of the other log's first entries, it goes on there with the same option, and with none."""
    await bridged.plans(2, 3)
    await bridged.start()
    before = await bridged.assert_complete()
    old = before[0].place[0]
    await bridged.supervisor.stop("bridge")
    await bridged.restore()
    for nth in (1, 2):
        await bridged.start("bridge", "--leave-log", old, failpoints=f"event-journal.bridge.after_acknowledgement=kill@{nth}")
        await bridged.killed()
    await bridged.start()
    log_id, entries = await bridged.log()
    after = await bridged.published(len(before) + len(entries))
    assert [message.place for message in after[len(before) :]] == [(log_id, entry.position) for entry in entries]


async def test_a_stream_that_somebody_else_writes_to(bridged: BridgeWorld) -> None:
    """A last message that is not the bridge's halts it: it cannot know where it was."""
    await bridged.plans(1, 2)
    await bridged.start()
    await bridged.assert_complete()
    await bridged.supervisor.stop("bridge")
    async with bridged.client() as client:
        await client.jetstream().publish("lockstep.journal.plan.created", b"mine")
    assert "STREAM_FOREIGN" in await bridged.halts()


async def test_a_stream_that_lost_its_end(bridged: BridgeWorld) -> None:
    """Where the last message was removed, the bridge halts rather than guess; told so, it begins anew, once."""
    # A server knows message ids for a while, and takes none again meanwhile.
    bridged.others = {"duplicate_window_seconds": 1.0}
    await bridged.plans(1, 2)
    await bridged.start()
    messages = await bridged.assert_complete()
    await bridged.supervisor.stop("bridge")
    async with bridged.client() as client:
        await client.jetstream().delete_msg(STREAM, messages[-1].sequence)
    assert "STREAM_POSITION_LOST" in await bridged.halts()
    await bridged.start("bridge", "--from-start")
    await bridged.published(2 * len(messages))
    await bridged.start("bridge", "--from-start")
    await bridged.plans(1, 1)
    async with bridged.client() as client:
        last = await bridged_last(client, 2 * len(messages) + 1)
    assert last == 2 * len(messages) + 1


async def bridged_last(client: Any, wanted: int) -> int:
    """The stream's last sequence, once it is at least so high and the bridge had time to do wrong."""
    async with asyncio.timeout(120):
        while (await client.jetstream().stream_info(STREAM)).state.last_seq < wanted:  # noqa: ASYNC110 - the stream is another process's
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    return int((await client.jetstream().stream_info(STREAM)).state.last_seq)


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"subjects": ["lockstep.other.>"]}, "take the subjects"),
        ({"subjects": ["lockstep.journal.>"], "duplicate_window": 1.0}, "know message ids"),
        ({"subjects": ["lockstep.journal.>"], "duplicate_window": 120.0, "retention": "workqueue"}, "retention limits"),
        ({"subjects": ["lockstep.journal.>"], "duplicate_window": 120.0, "storage": "memory"}, "in files"),
    ],
)
async def test_a_stream_that_does_not_do(bridged: BridgeWorld, config: dict[str, Any], rule: str) -> None:
    """A stream that could lose or repeat entries is not published to."""
    async with bridged.client() as client:
        await client.jetstream().add_stream(name=STREAM, **config)
    said = await bridged.halts()
    assert "STREAM_UNFIT" in said
    assert rule in said


async def test_no_stream(bridged: BridgeWorld) -> None:
    """Where it is told to make no stream, it halts without one."""
    bridged.others = {"create": False}
    assert "STREAM_MISSING" in await bridged.halts()


async def test_over_tls(world: JournalWorld, tmp_path: Path, tls_for: Callable[[str], TlsSettings]) -> None:
    """With its certificate the bridge is let in by a server that asks for one, and without it is not."""
    async with Supervisor(tmp_path / "logs") as supervisor:
        (port,) = free_ports(1)
        around = BridgeWorld(world, supervisor, tmp_path, tls_for, port, secured=True)
        await around.start_server()
        await around.plans(1, 2)
        await around.start("plain")
        files = {part: str(path) for part, path in tls_for("spiffe://lockstep.local/journal-bridge")}
        around.others = {"tls": files}
        await around.start("secured")
        await around.assert_complete()
        # The other was begun first, and may come to its first try later.
        for _ in range(2400):
            if "bridge_interrupted" in supervisor.log_tail("plain"):
                break
            await asyncio.sleep(0.05)
        assert "bridge_interrupted" in supervisor.log_tail("plain")
        assert "bridge_resumes" not in supervisor.log_tail("plain")


async def test_erased_entries(bridged: BridgeWorld) -> None:
    """An erased plan's entries are published without payloads, and say so."""
    plan = await bridged.journal.harness.plan()
    vote = await bridged.journal.harness.prepare(plan)
    await bridged.journal.harness.commit(plan, vote.report)
    owner = ["--owner-url", bridged.journal.service.database.owner_url, "--plan", plan.plan_id, "--by", "dpo", "--reason", "why"]
    assert await asyncio.to_thread(erase_main, owner) == 0
    await bridged.start()
    own = [message.entry for message in await bridged.assert_complete() if message.entry.plan_id == plan.plan_id]
    assert [(entry.payload, entry.erased) for entry in own] == [(b"", True)] * 4


async def test_a_setting_that_is_none(bridged: BridgeWorld) -> None:
    """A setting that there is not is named, and nothing is begun."""
    config = bridged.configured("wrong", lag_max=7)
    assert yaml.safe_load(config.read_text())["lag_max"] == 7
    await bridged.start("wrong", lag_max=7)
    assert await bridged.supervisor.wait_until_ended("wrong", 120) == 1
    assert "lag_max" in bridged.supervisor.log_tail("wrong")
    assert json.dumps("there is no such setting").strip('"') in bridged.supervisor.log_tail("wrong")
