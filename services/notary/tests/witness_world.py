"""A journal's log as tests need it, honest or not, behind real mutual TLS: the tests' own module."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as stubs
from lockstep.journal.v1 import log_pb2
from lockstep.notary.v1 import anchor_pb2
from lockstep_kit import merkle, notes
from lockstep_kit.db import Connection, Database
from lockstep_kit.errors import LockstepError, precondition, unavailable
from lockstep_kit.ids import Digest
from lockstep_kit.notes import Checkpoint, SignedCheckpoint
from lockstep_kit.registry import Registry
from lockstep_kit.rpc import Access, ListenSettings, Server, TlsSettings, channel
from lockstep_kit.signing import SigningKey
from lockstep_testkit.databases import TestDatabase
from lockstep_testkit.factories import key_of, registry_of
from notary.witness.journal_log import JournalLog
from notary.witness.settings import WitnessSettings
from notary.witness.witnessing import Cosigner, Witness

JOURNAL: Final = "spiffe://lockstep.local/event-journal"
NOTARY: Final = "spiffe://lockstep.local/notary"
SERVICE: Final = "lockstep.journal.v1.JournalReaderService"
ORIGIN: Final = "lockstep.local/journal"
NAME: Final = "lockstep.local/notary"


def leaves_of(count: int, salt: str = "") -> list[Digest]:
    return [merkle.leaf_hash(f"{salt}{index}".encode()) for index in range(count)]


class ServedLog(stubs.JournalReaderServiceServicer):
    """A log that answers honestly, unless it is told otherwise; what its witness does not ask is as generated, unimplemented."""

    ListEntries = stubs.JournalReaderServiceServicer.ListEntries
    WatchEntries = stubs.JournalReaderServiceServicer.WatchEntries
    VerifyPlan = stubs.JournalReaderServiceServicer.VerifyPlan
    GetInclusionProof = stubs.JournalReaderServiceServicer.GetInclusionProof
    ExportBundle = stubs.JournalReaderServiceServicer.ExportBundle
    GetKeyHistory = stubs.JournalReaderServiceServicer.GetKeyHistory

    def __init__(self) -> None:
        self.leaves: list[Digest] = []
        self.key: SigningKey = key_of("event-journal")
        self.origin = ORIGIN
        #: Shown in the place of its checkpoint.
        self.note: bytes | None = None
        #: Whether it has a checkpoint.
        self.absent = False
        #: What is done about a consistency proof that is right.
        self.proof: Callable[[tuple[Digest, ...]], tuple[bytes, ...]] = tuple
        self.refusal: LockstepError | None = None
        #: Of both calls.
        self.delay_seconds = 0.0
        self.unavailable = False
        #: What it was asked, and what it runs after it has chosen its answer.
        self.asked: list[tuple[int, int]] = []
        self.before_answer: Callable[[], Awaitable[None]] | None = None

    def grow(self, count: int, salt: str = "") -> None:
        self.leaves += leaves_of(len(self.leaves) + count, salt)[len(self.leaves) :]

    def checkpoint(self) -> SignedCheckpoint:
        return notes.sign(Checkpoint(self.origin, len(self.leaves), merkle.root(self.leaves)), self.key)

    async def GetCheckpoint(self, request: messages.GetCheckpointRequest, context: Any) -> messages.GetCheckpointResponse:  # noqa: N802 - named by the protocol
        del request, context
        await self._wait()
        if self.absent or not self.leaves:
            raise precondition("CHECKPOINT_PENDING", "the log has no checkpoint of 1 leaves yet")
        signed = self.checkpoint()
        shown = log_pb2.Checkpoint(
            origin=self.origin,
            tree_size=signed.checkpoint.size,
            root_hash=signed.checkpoint.root,
            signed_note=signed.note if self.note is None else self.note,
        )
        if self.before_answer is not None:
            await self.before_answer()
        return messages.GetCheckpointResponse(checkpoint=shown)

    async def GetConsistencyProof(  # noqa: N802 - named by the protocol
        self, request: messages.GetConsistencyProofRequest, context: Any
    ) -> messages.GetConsistencyProofResponse:
        del context
        await self._wait()
        self.asked.append((request.from_size, request.to_size))
        if self.refusal is not None:
            raise self.refusal
        path = merkle.consistency_path(self.leaves[: request.to_size], request.from_size)
        return messages.GetConsistencyProofResponse(path=self.proof(path))

    async def _wait(self) -> None:
        await asyncio.sleep(self.delay_seconds)
        if self.unavailable:
            raise unavailable("DRAINING", "not now")


@dataclass
class JournalServer:
    """A journal that listens."""

    log: ServedLog
    server: Server

    @property
    def target(self) -> str:
        return f"localhost:{self.server.port}"


async def serve_log(stack: contextlib.AsyncExitStack, tls_for: Callable[[str], TlsSettings]) -> JournalServer:
    """Start a journal, which the stack stops; the notary alone may ask it."""
    log = ServedLog()
    server = Server(ListenSettings(drain_seconds=0.5), tls_for(JOURNAL), Access({NOTARY: (f"/{SERVICE}/*",)}))
    server.add(stubs.add_JournalReaderServiceServicer_to_server, log, messages.DESCRIPTOR.services_by_name["JournalReaderService"])
    await server.start()
    stack.push_async_callback(server.stop)
    return JournalServer(log, server)


@dataclass
class WitnessWorld:
    """A journal, and as many witnesses over one database as a test wants."""

    journal: JournalServer
    database: TestDatabase
    db: Database
    tls_for: Callable[[str], TlsSettings]
    stack: contextlib.AsyncExitStack
    registry: Registry = field(default_factory=registry_of)
    #: Roots that an anchor was asked for, in order.
    anchored: list[tuple[Digest, int]] = field(default_factory=list)

    @property
    def log(self) -> ServedLog:
        return self.journal.log

    @classmethod
    async def around(
        cls, stack: contextlib.AsyncExitStack, tls_for: Callable[[str], TlsSettings], database: TestDatabase
    ) -> WitnessWorld:
        db = await Database.connect(database.settings, application_name="witness-tests")
        stack.push_async_callback(db.close)
        return cls(await serve_log(stack, tls_for), database, db, tls_for, stack)

    async def journal_log(self, call_seconds: float = 60.0, caller: str = NOTARY) -> JournalLog:
        opened = await self.stack.enter_async_context(channel(self.journal.target, self.tls_for(caller)))
        return JournalLog(opened, call_seconds)

    @property
    def cosigner(self) -> Cosigner:
        return Cosigner(NAME, key_of("notary"))

    async def witness(
        self,
        *,
        call_seconds: float = 60.0,
        anchor_seconds: float = 0.0,
        silence_seconds: float = 300.0,
        registry: Registry | None = None,
        caller: str = NOTARY,
    ) -> Witness:
        settings = WitnessSettings(journal=self.journal.target, anchor_seconds=anchor_seconds, silence_seconds=silence_seconds)
        log = await self.journal_log(call_seconds, caller)
        return Witness(self.db, log, self.cosigner, registry or self.registry, settings, self)

    async def request(self, tx: Connection, root: Digest, size: int) -> None:
        assert tx.is_in_transaction()
        self.anchored.append((root, size))

    async def find(self, connection: Connection, root: Digest) -> anchor_pb2.Anchor | None:
        row = await connection.fetchrow("select * from anchor where root = $1 and block_hash is not null", root)
        if row is None:
            return None
        return anchor_pb2.Anchor(root_hash=root, tree_size=row["tree_size"], block_number=row["block_number"])

    # -- what is there, from outside ---------------------------------------------------------------------------------

    async def sizes(self) -> list[tuple[int, int]]:
        """(history, size) of all that was cosigned; each note is what a verifier of it would accept."""
        async with self.database.as_owner() as connection:
            rows = await connection.fetch("select * from witness_checkpoint order by history, tree_size")
        for row in rows:
            signed = notes.parse(row["signed_note"])
            assert (signed.checkpoint.size, signed.checkpoint.root) == (row["tree_size"], row["root_hash"])
            assert any(signed.signed_by(ORIGIN, each.public) for each in self.journal_keys())
            assert signed.cosigned_at(NAME, key_of("notary").public) == row["witnessed_at"].replace(microsecond=0)
        return [(row["history"], row["tree_size"]) for row in rows]

    def journal_keys(self) -> list[Any]:
        return [key for each in self.registry.participants if each.name == "event-journal" for key in each.keys]

    async def alarms(self) -> list[Any]:
        async with self.database.as_owner() as connection:
            return await connection.fetch("select * from witness_alarm order by id")
