"""The gate before every handler: limits, sizes, deadlines and certificates, over real connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep_kit.rpc import TlsSettings, guard
from lockstep_kit.rpc import gate as every_gate
from lockstep_kit.rpc.rotation import RotatingChannel
from lockstep_sandbox.authority import Authority
from lockstep_testkit.serving import (
    COORDINATOR,
    REQUEST,
    SERVER,
    STRANGER,
    VERIFY,
    WATCH,
    Context,
    MakeServer,
    Served,
    refusal,
)
from lockstep_testkit.serving import SERVICE as NAME

pytestmark = pytest.mark.integration

TWO = dict.fromkeys((COORDINATOR, STRANGER), (f"/{NAME}/*",))


def narrow(**limits: float) -> dict[str, Any]:
    """Limits of the stranger alone."""
    return {"named": {STRANGER: limits}}


async def forever(_: messages.WatchEntriesRequest, __: Context) -> AsyncIterator[messages.WatchEntriesResponse]:
    """A stream that says one thing and stays open."""
    yield messages.WatchEntriesResponse(resume_token="1")
    await asyncio.Event().wait()


async def test_a_callers_rate_is_its_own(guarded_server: MakeServer) -> None:
    """A caller beyond its rate is told so, with when to come again; another is served; no handler ran for what was refused."""
    world = await guarded_server(table=TWO, limits=narrow(calls_per_second=0.1, calls_burst=30))
    stranger, other = await world.stub_as(STRANGER), await world.stub_as()
    # Verifying counts for ten calls.
    for _ in range(3):
        await stranger.VerifyPlan(REQUEST, timeout=60)
    error = await refusal(stranger.VerifyPlan(REQUEST, timeout=60))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CALLS_TOO_FAST")
    assert error.retry_after is not None
    assert timedelta(seconds=1) < error.retry_after <= timedelta(seconds=100)
    await other.VerifyPlan(REQUEST, timeout=60)
    assert world.servicer.calls == 4


async def test_limits_come_before_the_message_is_read(guarded_server: MakeServer) -> None:
    """A caller that is over its limits learns that, and not that its bytes are no message."""
    world = await guarded_server(table=TWO, limits=narrow(calls_per_second=0.1, calls_burst=10))
    made: Any = await world.channel_as(STRANGER)
    await made.unary_unary(VERIFY)(b"", timeout=60)
    assert (await refusal(made.unary_unary(VERIFY)(b"\xff\xff", timeout=60))).reason == "CALLS_TOO_FAST"


async def test_what_is_denied_and_what_is_not_there_counts_too(guarded_server: MakeServer) -> None:
    """A caller without a row, or of a method that is not there, is limited like any other."""
    world = await guarded_server(limits=narrow(calls_per_second=0.01, calls_burst=11))
    made: Any = await world.channel_as(STRANGER)
    assert (await refusal(made.unary_unary(VERIFY)(b"", timeout=60))).reason == "CALLER_NOT_ALLOWED"
    absent = made.unary_unary("/lockstep.Nothing/Here")
    assert (await refusal(absent(b"", timeout=60))).code is grpc.StatusCode.UNIMPLEMENTED
    assert (await refusal(absent(b"", timeout=60))).reason == "CALLS_TOO_FAST"


async def test_a_callers_calls_at_once_are_limited(guarded_server: MakeServer) -> None:
    """Beyond its calls under way a caller is refused while another is served; one that ends makes room."""
    world = await guarded_server(table=TWO, limits=narrow(calls_at_once_max=2, calls_burst=1_000))
    gate, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def wait(request: messages.VerifyPlanRequest, _: Context) -> messages.VerifyPlanResponse:
        begun.release()
        if request.plan_id == "slow":
            await gate.wait()
        return messages.VerifyPlanResponse()

    world.servicer.verify = wait
    stranger = await world.stub_as(STRANGER)
    slow = [stranger.VerifyPlan(messages.VerifyPlanRequest(plan_id="slow"), timeout=60) for _ in range(2)]
    for _ in slow:
        await asyncio.wait_for(begun.acquire(), 60)
    assert (await refusal(stranger.VerifyPlan(REQUEST, timeout=60))).reason == "CALLS_TOO_MANY"
    await (await world.stub_as()).VerifyPlan(REQUEST, timeout=60)
    gate.set()
    await asyncio.gather(*slow)
    await stranger.VerifyPlan(REQUEST, timeout=60)


async def test_a_callers_streams_are_limited(guarded_server: MakeServer) -> None:
    """So many streams are open for one caller; another has its own; one that is given up makes room."""
    world = await guarded_server(table=TWO, limits=narrow(streams_max=3))
    world.servicer.watch = forever
    stranger = await world.stub_as(STRANGER)
    streams = [stranger.WatchEntries(messages.WatchEntriesRequest(), timeout=60) for _ in range(3)]
    for stream in streams:
        await stream.read()
    error = await refusal(stranger.WatchEntries(messages.WatchEntriesRequest(), timeout=60))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHERS_TOO_MANY")
    await (await world.stub_as()).WatchEntries(messages.WatchEntriesRequest(), timeout=60).read()
    streams[0].cancel()
    async with asyncio.timeout(120):
        while True:
            again = stranger.WatchEntries(messages.WatchEntriesRequest(), timeout=60)
            try:
                await again.read()
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)


async def test_nobody_takes_more_than_a_share(guarded_server: MakeServer) -> None:
    """One caller's streams fill its share of the server, and the rest is there for others."""
    limits = {"share_max": 0.5, **narrow(streams_max=100, streams_burst=100)}
    world = await guarded_server(table=TWO, concurrent_calls_max=8, limits=limits)
    world.servicer.watch = forever
    stranger = await world.stub_as(STRANGER)
    streams = [stranger.WatchEntries(messages.WatchEntriesRequest(), timeout=60) for _ in range(4)]
    for stream in streams:
        await stream.read()
    assert (await refusal(stranger.WatchEntries(messages.WatchEntriesRequest(), timeout=60))).reason == "SHARE_TAKEN"
    assert (await refusal(stranger.VerifyPlan(REQUEST, timeout=60))).reason == "SHARE_TAKEN"
    await (await world.stub_as()).VerifyPlan(REQUEST, timeout=60)


async def test_a_flood_is_as_slow_as_its_refusals(guarded_server: MakeServer) -> None:
    """A caller that asks again at once after each refusal gets no more of them than the rate of refusals, and health answers it all the same."""
    limits = {"refusals_per_second": 20.0, **narrow(calls_per_second=0.1, calls_burst=10)}
    world = await guarded_server(table=TWO, limits=limits)
    stranger = await world.stub_as(STRANGER)
    await stranger.VerifyPlan(REQUEST, timeout=60)
    refused, until = 0, time.monotonic() + 1.5

    async def flood() -> None:
        nonlocal refused
        while True:
            assert (await refusal(stranger.VerifyPlan(REQUEST, timeout=60))).reason == "CALLS_TOO_FAST"
            refused += 1
            if time.monotonic() >= until:
                return

    health = health_pb2_grpc.HealthStub(await world.channel_as(STRANGER))
    flooding = asyncio.gather(*(flood() for _ in range(10)))
    for _ in range(20):
        await health.Check(health_pb2.HealthCheckRequest(), timeout=60)
    await flooding
    # Two seconds' worth at twenty a second, and ten that were under way.
    assert 10 <= refused <= 60
    assert world.servicer.calls == 1


async def test_a_request_has_its_methods_size(guarded_server: MakeServer) -> None:
    """A request beyond what its method may carry is refused by reason, though the server takes larger messages for other methods."""
    world = await guarded_server()
    error = await refusal((await world.stub_as()).VerifyPlan(messages.VerifyPlanRequest(plan_id="x" * 5_000), timeout=60))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE")
    assert error.metadata["octets_max"] == "4096"
    assert world.servicer.calls == 0


async def test_a_deadline_is_not_too_far(guarded_server: MakeServer) -> None:
    """Neither calls nor streams may be given more time than the settings say."""
    world = await guarded_server(call_seconds_max=30, stream_seconds_max=300)
    stub = await world.stub_as()
    for call in (stub.VerifyPlan(REQUEST, timeout=60), stub.WatchEntries(messages.WatchEntriesRequest(), timeout=31_536_000)):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_TOO_FAR")
    async for _ in stub.WatchEntries(messages.WatchEntriesRequest(), timeout=60):
        pass
    assert world.servicer.calls == 1


async def test_metadata_has_a_limit(guarded_server: MakeServer) -> None:
    """More metadata than is taken reaches no handler."""
    world = await guarded_server()
    call = (await world.stub_as()).VerifyPlan(REQUEST, timeout=60, metadata=(("x-filler", "x" * 20_000),))
    assert (await refusal(call)).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert world.servicer.calls == 0


def shown(authority: Authority, name: str, **how: Any) -> TlsSettings:
    """A new certificate."""
    return TlsSettings.model_validate(authority.issue(name, **how).settings())


def connected(world: Served, tls: TlsSettings, target: str | None = None) -> Any:
    """A channel with exactly these files, as they are now."""
    files = (each.read_bytes() for each in (tls.ca_file, tls.key_file, tls.certificate_file))
    return grpc.aio.secure_channel(target or world.target, grpc.ssl_channel_credentials(*files))


def set_ahead(patch: pytest.MonkeyPatch, module: ModuleType, seconds: float) -> None:
    """From now on a module's clock is so far ahead."""
    patch.setattr(module, "time", SimpleNamespace(time=lambda: time.time() + seconds, monotonic=time.monotonic))


async def test_a_certificate_that_runs_out_ends_what_it_began(
    guarded_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a caller's certificate has expired, its open connection serves no call any more, and its stream ends; a renewed one goes on."""
    authority, life = Authority(tmp_path), timedelta(hours=1)
    world = await guarded_server(tls=shown(authority, "event-journal"))
    world.servicer.watch = forever
    ends = time.time() + life.total_seconds()
    async with connected(world, shown(authority, "coordinator", lifetime=life)) as made:
        verify, watch = made.unary_unary(VERIFY), made.unary_stream(WATCH)
        await verify(b"", timeout=60)
        with monkeypatch.context() as moved:
            # A stream is ended by a timer of its own, here after three seconds.
            set_ahead(moved, guard, ends - time.time() - 3.0)
            stream = watch(b"", timeout=60)
            await stream.read()
            error = await refusal(stream.read())
            assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED")
            set_ahead(moved, every_gate, life.total_seconds())
            error = await refusal(verify(b"", timeout=60))
            assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED")
    async with connected(world, shown(authority, "coordinator")) as made:
        await made.unary_unary(VERIFY)(b"", timeout=60)


async def test_certificates_that_say_too_little_or_too_much(guarded_server: MakeServer, tmp_path: Path) -> None:
    """Expired, for too long, of another trust domain, with two ids or none: no handler runs for any of them."""
    authority = Authority(tmp_path)
    world = await guarded_server(tls=shown(authority, "event-journal"))
    elsewhere = "spiffe://elsewhere.example/coordinator"
    unavailable, denied = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED
    for how, code, reason in (
        ({"lifetime": timedelta(seconds=-1)}, unavailable, "UNAVAILABLE"),
        ({"lifetime": timedelta(days=2)}, grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_LIVES_TOO_LONG"),
        ({"ids": [elsewhere]}, denied, "CALLER_NOT_ALLOWED"),
        ({"ids": [COORDINATOR, SERVER]}, denied, "CALLER_NOT_ALLOWED"),
        ({"ids": [COORDINATOR, "https://lockstep.local/"]}, denied, "CALLER_NOT_ALLOWED"),
    ):
        async with connected(world, shown(authority, "coordinator", **how)) as made:
            error = await refusal(made.unary_unary(VERIFY)(b"", timeout=60))
        assert (error.code, error.reason) == (code, reason), how
    assert world.servicer.calls == 0


async def test_a_clients_certificate_serves_nobody(guarded_server: MakeServer, tmp_path: Path) -> None:
    """A certificate that is for calling alone is not taken for a server's, though it has a service's id."""
    authority = Authority(tmp_path)
    false = await guarded_server(tls=shown(authority, "event-journal", serves=False))
    async with connected(false, shown(authority, "coordinator")) as made:
        assert (await refusal(made.unary_unary(VERIFY)(b"", timeout=60))).code is grpc.StatusCode.UNAVAILABLE
    assert false.servicer.calls == 0


async def test_old_connections_are_left_without_a_call_lost(guarded_server: MakeServer) -> None:
    """Connections are given up after a while, and calls that are made all the time notice nothing."""
    world = await guarded_server(connection_seconds_max=0.3, connection_grace_seconds=20)
    peers: set[str] = set()

    async def note(_: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        peers.add(context.peer())
        return messages.VerifyPlanResponse()

    world.servicer.verify = note
    stub = await world.stub_as()

    async def call() -> None:
        while len(peers) < 5:
            await stub.VerifyPlan(REQUEST, timeout=60)

    async with asyncio.timeout(120):
        await asyncio.gather(*(call() for _ in range(4)))


async def test_certificates_and_the_authority_change_under_load(guarded_server: MakeServer, tmp_path: Path) -> None:
    """Certificates are renewed, then the authority is followed by another, under load: no call fails, and the old authority's certificates count no more."""
    authority = Authority(tmp_path)
    tls = {name: shown(authority, name) for name in ("event-journal", "coordinator")}
    world = await guarded_server(tls=tls["event-journal"], connection_seconds_max=0.5, connection_grace_seconds=20)
    before = connected(world, shown(authority, "coordinator"))
    shown(authority, "coordinator")
    done = connected_anew = 0

    def connect(identity: Any) -> grpc.aio.Channel:
        nonlocal connected_anew
        connected_anew += 1
        return grpc.aio.secure_channel(world.target, identity.channel_credentials())

    async with RotatingChannel(tls["coordinator"], connect, look_seconds=0.05) as made:
        verify = made.unary_unary(VERIFY)
        stop = asyncio.Event()

        async def call() -> None:
            nonlocal done
            while not stop.is_set():
                await verify(b"", timeout=60)
                done += 1

        async def looked(change: Callable[[], object]) -> None:
            """Make a change of the files, and wait until callers have looked, and some of their calls were answered since."""
            connections = connected_anew
            change()
            while connected_anew == connections:  # noqa: ASYNC110 - a channel that looks tells nobody
                await asyncio.sleep(0.02)
            calls = done
            while done < calls + 10:  # noqa: ASYNC110 - nor do calls
                await asyncio.sleep(0.02)

        def renew() -> None:
            for name in tls:
                authority.issue(name)

        async def steps() -> None:
            async with asyncio.timeout(120):
                # Whoever looks knows the authority that follows before anybody shows a certificate of it.
                for change in (authority.announce, renew, renew):
                    await looked(change)
                authority.take_over()
                for change in (renew, renew, authority.retire, renew, renew):
                    await looked(change)
            stop.set()

        await asyncio.gather(steps(), *(call() for _ in range(4)))
    async with before:
        assert (await refusal(before.unary_unary(VERIFY)(b"", timeout=60))).code is grpc.StatusCode.UNAVAILABLE
