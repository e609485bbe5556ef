"""A real NATS server, bridges as processes, and the stream as whoever reads it sees it: the tests' own module."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import yaml
from journal_world import JournalWorld, event_of
from nats.aio.client import Client

from lockstep.journal.v1 import entry_pb2
from lockstep_kit.failpoints import ENVIRONMENT
from lockstep_kit.migrate import renew_logs
from lockstep_kit.rpc import TlsSettings
from lockstep_sandbox.ports import listens
from lockstep_sandbox.processes import Program, Supervisor
from lockstep_testkit.factories import PlanCase, delivery_versus_payment

IDENTITY = "spiffe://lockstep.local/journal-bridge"
STREAM = "LOCKSTEP_JOURNAL"
SECONDS_MAX = 240.0
HALTED = 3


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the stream."""

    #: Its sequence in the stream.
    sequence: int
    #: Its subject.
    subject: str
    #: Its headers.
    headers: Mapping[str, str]
    #: The entry that it carries.
    entry: entry_pb2.Entry

    @property
    def place(self) -> tuple[str, int]:
        """Log and position of its entry."""
        return self.headers["Lockstep-Log"], int(self.headers["Lockstep-Position"])


@dataclass
class BridgeWorld:
    """Around a journal: a NATS server and bridges to it."""

    journal: JournalWorld
    supervisor: Supervisor
    folder: Path
    tls_for: Callable[[str], TlsSettings]
    port: int
    secured: bool = False
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"nats://localhost:{self.port}"

    async def start_server(self) -> None:
        binary = Path(sys.executable).parent / "nats-server"
        command = [str(binary), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder / "jetstream")]
        if self.secured:
            tls = self.tls_for("spiffe://lockstep.local/nats")
            command += ["--tlsverify", "--tlscert", str(tls.certificate_file), "--tlskey", str(tls.key_file)]
            command += ["--tlscacert", str(tls.ca_file)]
        await self.supervisor.start(Program("nats", command, ready=lambda: listens(self.port)))

    def settings(self, **changes: Any) -> dict[str, Any]:
        told: dict[str, Any] = {
            "journal": self.journal.service.target,
            "tls": {part: str(path) for part, path in self.tls_for(IDENTITY)},
            "nats": {"servers": [self.url], **self.others},
            "acknowledge_seconds": 2.0,
            "silence_seconds": 5.0,
            "in_flight_max": 8,
        }
        return {**told, **changes}

    def configured(self, name: str, **changes: Any) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self.settings(**changes)))
        return path

    async def start(self, name: str = "bridge", *arguments: str, failpoints: str = "", **changes: Any) -> None:
        config = self.configured(name, **changes)
        command = (sys.executable, "-m", "event_journal.bridge", "--config", str(config), *arguments)
        with contextlib.suppress(ValueError):
            await self.supervisor.stop(name)
        await self.supervisor.start(Program(name, command, {ENVIRONMENT: failpoints}))

    async def halts(self, *arguments: str, **changes: Any) -> str:
        """Start a bridge that must stop by itself and ask for a person; what it said."""
        await self.start("halting", *arguments, **changes)
        return await self.halted("halting")

    async def halted(self, name: str) -> str:
        code = await self.supervisor.wait_until_ended(name, SECONDS_MAX)
        assert code == HALTED, self.supervisor.log_tail(name)
        return self.supervisor.log_tail(name)

    async def killed(self, name: str = "bridge") -> None:
        """It was killed at its failpoint."""
        assert await self.supervisor.wait_until_ended(name, SECONDS_MAX) == -9, self.supervisor.log_tail(name)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        arguments: dict[str, Any] = {}
        if self.secured:
            tls = self.tls_for("spiffe://lockstep.local/client/tests")
            arguments["tls"] = ssl.create_default_context(cafile=str(tls.ca_file))
            arguments["tls"].load_cert_chain(tls.certificate_file, tls.key_file)
        client = await nats.connect(self.url, allow_reconnect=False, **arguments)
        try:
            yield client
        finally:
            await client.close()

    async def messages(self) -> list[Message]:
        """The whole stream."""
        async with self.client() as client:
            stream = client.jetstream()
            state = (await stream.stream_info(STREAM)).state
            found = []
            for sequence in range(max(1, state.first_seq), state.last_seq + 1):
                try:
                    raw = await stream.get_msg(STREAM, seq=sequence)
                except nats.js.errors.NotFoundError:
                    # It was removed.
                    continue
                entry = entry_pb2.Entry.FromString(raw.data or b"")
                found.append(Message(sequence, raw.subject or "", dict(raw.headers or {}), entry))
            return found

    async def published(self, count: int) -> list[Message]:
        """The stream, once it has so many messages."""
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, OSError):
                    async with self.client() as client:
                        if (await client.jetstream().stream_info(STREAM)).state.last_seq >= count:
                            break
                await asyncio.sleep(0.1)
        return await self.messages()

    async def log(self) -> tuple[str, list[entry_pb2.Entry]]:
        """The journal's log, and everything in it."""
        found: list[entry_pb2.Entry] = []
        stream = self.journal.watch()
        async for message in stream:
            if not message.entries:
                break
            found += message.entries
        stream.cancel()
        return message.log_id, found

    async def plans(self, count: int = 3, entries: int = 5) -> list[PlanCase]:
        """Several plans' entries, appended at the same time."""
        plans = [delivery_versus_payment() for _ in range(count)]
        batches = ([event_of(plan, number) for number in range(1, entries + 1)] for plan in plans)
        await asyncio.gather(*(self.journal.append(*batch) for batch in batches))
        return plans

    async def restore(self) -> None:
        """Have the journal's log count as another one, as after its database was put back."""
        await asyncio.to_thread(renew_logs, self.journal.service.database.owner_url)

    async def assert_complete(self) -> list[Message]:
        """The stream has every entry of the journal once, in order, in the very bytes that every reader is shown."""
        log_id, entries = await self.log()
        messages = await self.published(len(entries))
        assert [message.place for message in messages] == [(log_id, entry.position) for entry in entries]
        assert [message.entry for message in messages] == entries
        return messages
