"""Certificates that are renewed while server, channels and streams go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as journal_stubs
from lockstep_kit.rpc import TlsSettings, answers, channel, peer_id
from lockstep_kit.rpc.rotation import OVERDUE_SECONDS, RotatingChannel
from lockstep_kit.rpc.tls import Identity
from lockstep_sandbox.authority import Authority
from lockstep_testkit.serving import COORDINATOR, REQUEST, STRANGER, VERIFY, WATCH, Context, MakeServer, token
from lockstep_testkit.serving import SERVICE as NAME

pytestmark = pytest.mark.integration


async def test_a_server_shows_a_renewed_certificate_without_a_restart(guarded_server: MakeServer, tmp_path: Path) -> None:
    """After the files were replaced by a new authority's, new connections see the new certificate; a broken pair changes nothing."""
    first, second = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    (tmp_path / "own").mkdir()
    files = TlsSettings.model_validate({name: str(tmp_path / "own" / name) for name in ("certificate_file", "key_file", "ca_file")})

    def install(authority: Authority, *names: str) -> None:
        issued = authority.issue("event-journal").settings()
        for name in names:
            getattr(files, name).write_bytes(Path(issued[name]).read_bytes())

    async def reaches(authority: Authority) -> bool:
        tls = TlsSettings.model_validate(authority.issue("coordinator").settings())
        made: Any = channel(world.target, tls)
        async with made:
            call = made.unary_unary(VERIFY, response_deserializer=messages.VerifyPlanResponse.FromString)
            try:
                await call(REQUEST.SerializeToString(), timeout=60)
            except grpc.aio.AioRpcError:
                return False
        return True

    install(first, "certificate_file", "key_file", "ca_file")
    world = await guarded_server(tls=files)
    assert await reaches(first)
    install(second, "key_file")
    assert await reaches(first), "a key without its certificate must not be taken"
    install(second, "certificate_file", "key_file", "ca_file")
    assert await reaches(second)
    assert not await reaches(first)


async def test_a_channel_goes_on_with_a_renewed_certificate(guarded_server: MakeServer, tmp_path: Path) -> None:
    """A stub made before the client's certificate changed calls with the new one afterwards; a stream under way goes on."""
    world = await guarded_server(table=dict.fromkeys((COORDINATOR, STRANGER), (f"/{NAME}/*",)))
    callers: list[str | None] = []
    gate = asyncio.Event()

    async def note(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        callers.append(peer_id(context))
        return messages.VerifyPlanResponse()

    async def two(request: messages.WatchEntriesRequest, context: Context) -> AsyncIterator[messages.WatchEntriesResponse]:
        yield messages.WatchEntriesResponse(resume_token="1")
        await gate.wait()
        yield messages.WatchEntriesResponse(resume_token="2")

    world.servicer.verify, world.servicer.watch = note, two
    own = TlsSettings(certificate_file=tmp_path / "crt", key_file=tmp_path / "key", ca_file=world.tls_for(COORDINATOR).ca_file)

    def install(caller: str) -> None:
        own.key_file.write_bytes(world.tls_for(caller).key_file.read_bytes())
        own.certificate_file.write_bytes(world.tls_for(caller).certificate_file.read_bytes())

    install(COORDINATOR)

    def connect(identity: Any) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(world.target, identity.channel_credentials())

    async with RotatingChannel(own, connect, look_seconds=0.0) as made:
        verify = made.unary_unary(VERIFY, messages.VerifyPlanRequest.SerializeToString, messages.VerifyPlanResponse.FromString)
        watch = made.unary_stream(WATCH, None, messages.WatchEntriesResponse.FromString)
        stream = watch(b"", timeout=60)
        assert await token(stream) == "1"
        await verify(REQUEST, timeout=60)
        install(STRANGER)
        await verify(REQUEST, timeout=60)
        gate.set()
        assert await token(stream) == "2"
    assert callers == [COORDINATOR, STRANGER]


async def test_a_stream_whose_channel_is_closed_broke(guarded_server: MakeServer) -> None:
    """Its reader is told so, and is not ended as if it had been cancelled; one that is cancelled itself is."""
    world = await guarded_server()

    async def endless(request: messages.WatchEntriesRequest, context: Context) -> AsyncIterator[messages.WatchEntriesResponse]:
        yield messages.WatchEntriesResponse(resume_token="1")
        await asyncio.Event().wait()

    world.servicer.watch = endless

    async def read(made: grpc.aio.Channel, begun: asyncio.Event) -> str:
        stub = journal_stubs.JournalReaderServiceStub(made)
        try:
            async with contextlib.aclosing(answers(stub.WatchEntries(messages.WatchEntriesRequest(), timeout=60))) as shown:
                async for _ in shown:
                    begun.set()
        except ConnectionAbortedError:
            return "broke"
        return "ended"

    for closed, ended in ((True, "broke"), (False, "cancelled")):
        made, begun = channel(world.target, world.tls_for(COORDINATOR)), asyncio.Event()
        reading = asyncio.create_task(read(made, begun))
        async with asyncio.timeout(30):
            await begun.wait()
            if closed:
                await made.close()
            else:
                reading.cancel()
            await asyncio.wait([reading])
        await made.close()
        assert ("cancelled" if reading.cancelled() else reading.result()) == ended


async def test_a_stream_ends_with_its_certificate_and_not_before(tls_for: Callable[[str], TlsSettings], tmp_path: Path) -> None:
    """The channel over a certificate that was renewed is closed after its calls, or once the server has ended them, since the certificate has run out."""
    given: list[float | None] = []

    class Channel:
        async def close(self, grace: float | None = None) -> None:
            given.append(grace)

    own = TlsSettings(certificate_file=tmp_path / "crt", key_file=tmp_path / "key", ca_file=tls_for(COORDINATOR).ca_file)
    made: RotatingChannel | None = None
    for caller in (COORDINATOR, STRANGER):
        own.key_file.write_bytes(tls_for(caller).key_file.read_bytes())
        own.certificate_file.write_bytes(tls_for(caller).certificate_file.read_bytes())
        made = made or RotatingChannel(own, lambda _: cast("grpc.aio.Channel", Channel()), look_seconds=0.0)
        made.current()
    await asyncio.sleep(0)
    left = Identity.read(tls_for(COORDINATOR)).not_after - datetime.now(UTC)
    assert len(given) == 1
    assert given[0] is not None
    assert 0 < given[0] - left.total_seconds() - OVERDUE_SECONDS < 10
