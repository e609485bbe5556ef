"""What a replica tells of itself: to inspectors alone, and all that can be told, though a part cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from lockstep.installation.v1.installation_service_pb2 import (
    BankState,
    GetInstallationRequest,
    GetInstallationResponse,
    JournalState,
)
from lockstep.installation.v1.installation_service_pb2_grpc import InstallationServiceStub
from lockstep_kit import installation, revisions
from lockstep_kit.db import Database
from lockstep_kit.errors import from_rpc
from lockstep_kit.ids import sha256
from lockstep_kit.installation import GET_INSTALLATION, InstallationServicer, PartUnknown, serve_installation, with_inspectors
from lockstep_kit.rpc import Access, ListenSettings, Server, TlsSettings, channel
from lockstep_kit.rpc.arrows import client_id

SECONDS = 60.0
HASH = sha256(b"registry")


async def told(
    db: Database, tls_for: Callable[[str], TlsSettings], parts: installation.Parts, caller: str = "desk"
) -> GetInstallationResponse:
    """What a server of these parts tells a client, of which one may ask."""
    rows = {client_id(name): methods for name, methods in with_inspectors({}, ["desk"]).items()}
    server = Server(ListenSettings(drain_seconds=0.5), tls_for("spiffe://lockstep.local/notary"), Access(rows))
    serve_installation(server, InstallationServicer("notary", db, HASH, parts))
    async with AsyncExitStack() as stack:
        await server.start()
        stack.push_async_callback(server.stop)
        made = await stack.enter_async_context(channel(f"localhost:{server.port}", tls_for(client_id(caller))))
        answer: GetInstallationResponse = await InstallationServiceStub(made).GetInstallation(
            GetInstallationRequest(), timeout=SECONDS
        )
    return answer


@pytest.fixture
async def db(database_for: Any) -> Any:
    database = await database_for("runtime_installation")
    made = await Database.connect(database.settings, application_name="test")
    yield made
    await made.close()


async def test_every_part_is_told(db: Database, tls_for: Any) -> None:
    """Clocks, the registry's hash, the database's revision and the service's own parts are told."""

    async def bank() -> BankState:
        return BankState(bank_bic="SNDBDEFFXXX")

    answer = await told(db, tls_for, {"bank": bank})
    assert (answer.service, answer.registry_hash, answer.bank.bank_bic) == ("notary", HASH, "SNDBDEFFXXX")
    assert answer.start_time.ToNanoseconds() <= answer.clock_time.ToNanoseconds()
    assert answer.database.HasField("clock_time")
    # No migrations were run here; those that the notary's package comes with are known.
    assert answer.database.revision == ""
    assert answer.database.revision_wanted >= "0008"
    assert not answer.troubles
    assert not answer.HasField("journal")


async def test_what_cannot_be_told_is_named(db: Database, tls_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that fails, and one that takes too long, are named with why; the others are told all the same."""
    monkeypatch.setattr(installation, "PART_SECONDS_MAX", 3.0)

    async def bank() -> BankState:
        raise PartUnknown("the bank is closed")

    async def journal() -> JournalState:
        raise ConnectionResetError("secret://host")

    async def chain() -> JournalState:
        await asyncio.Event().wait()
        raise AssertionError

    answer = await told(db, tls_for, {"bank": bank, "journal": journal, "chain": chain})
    assert {each.part: each.message for each in answer.troubles} == {
        "bank": "the bank is closed",
        "journal": "it does not answer (ConnectionResetError)",
        "chain": "it did not answer in time",
    }
    assert answer.HasField("database")


async def test_a_database_that_is_away(db: Database, tls_for: Any) -> None:
    """Without its database a replica still tells what it can."""
    await db.close()
    answer = await told(db, tls_for, {})
    assert [each.part for each in answer.troubles] == ["database"]
    assert answer.registry_hash == HASH


async def test_nobody_else_may_ask(db: Database, tls_for: Any) -> None:
    """A client that is no inspector is told nothing."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await told(db, tls_for, {}, caller="party")
    assert from_rpc(refused.value).reason == "CALLER_NOT_ALLOWED"


def test_inspectors_are_added() -> None:
    """Inspectors get the one method beside what they have; others get nothing."""
    assert with_inspectors({"a": ("/x/y",), "b": ()}, ["a", "c"]) == {
        "a": ("/x/y", GET_INSTALLATION),
        "b": (),
        "c": (GET_INSTALLATION,),
    }


def test_revisions_that_the_code_wants() -> None:
    """Each service's package comes with migrations that have one newest; what is no package, or has none, wants nothing."""
    for package in ("coordinator", "dlt_gateway", "bank_gateway", "notary", "event_journal"):
        assert revisions.wanted(package).isdigit()
    assert revisions.wanted("lockstep_kit") == ""
    assert revisions.wanted("no_such_package") == ""
