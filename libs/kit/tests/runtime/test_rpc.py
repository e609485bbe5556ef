from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep.journal.v1 import journal_reader_service_pb2_grpc as journal_stubs
from lockstep_kit import failpoints
from lockstep_kit.errors import LockstepError, precondition
from lockstep_kit.rpc import (
    Access,
    ListenSettings,
    Server,
    TlsSettings,
    call_seconds,
    channel,
    deadlines,
    peer_id,
    remaining_seconds,
)
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
    refusal,
    token,
)
from lockstep_testkit.serving import SERVICE as NAME

pytestmark = pytest.mark.integration

#: gRPC sends what is left rounded up to a whole millisecond, and a busy machine looks at its clock a little later.
ROUNDING = 0.01


async def test_the_caller_is_known_by_its_certificate(guarded_server: MakeServer) -> None:
    """A handler learns the caller's SPIFFE id from the certificate, over TLS 1.3."""
    world = await guarded_server()
    seen: list[Any] = []

    async def handle(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        seen.extend((peer_id(context), context.auth_context()["ssl_tls_version"]))
        return messages.VerifyPlanResponse()

    world.servicer.verify = handle
    await (await world.stub_as()).VerifyPlan(REQUEST, timeout=60)
    assert seen == [COORDINATOR, [b"TLSv1.3"]]


async def test_a_caller_without_a_row_is_refused(guarded_server: MakeServer) -> None:
    """A caller that the table does not name reaches no handler, neither of calls nor of streams."""
    world = await guarded_server()
    stub = await world.stub_as(STRANGER)
    for call in (stub.VerifyPlan(REQUEST, timeout=60), stub.WatchEntries(messages.WatchEntriesRequest(), timeout=60)):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
    assert world.servicer.calls == 0


async def test_a_caller_of_another_trust_domain_is_refused(guarded_server: MakeServer) -> None:
    """Another domain's id is refused though the table has it and the authority signed it."""
    rows = {f"spiffe://{domain}/any": (VERIFY,) for domain in ("elsewhere.example", "elsewhere.example.evil")}
    elsewhere = Access({COORDINATOR: (VERIFY,), **rows}, trust_domain="elsewhere.example")
    assert not elsewhere.allows(COORDINATOR, VERIFY)
    assert not elsewhere.allows(None, VERIFY)
    assert elsewhere.allows("spiffe://elsewhere.example/any", VERIFY)
    assert not elsewhere.allows("spiffe://elsewhere.example.evil/any", VERIFY)


@pytest.mark.parametrize(
    ("row", "caller", "allowed"),
    [
        (COORDINATOR, COORDINATOR, True),
        (COORDINATOR, COORDINATOR + "2", False),
        (COORDINATOR, COORDINATOR + "/x", False),
        ("spiffe://lockstep.local/agents/", "spiffe://lockstep.local/agents/a", False),
        ("*", STRANGER, False),
    ],
)
def test_rows_match_ids_exactly(row: str, caller: str, allowed: bool) -> None:
    """A row names one id, never a folder of ids or everybody."""
    assert Access({row: (VERIFY,)}).allows(caller, VERIFY) is allowed
    assert not Access({row: (VERIFY,)}).allows(caller, VERIFY + "2")


async def test_a_server_with_an_uncovered_method_does_not_start(guarded_server: MakeServer) -> None:
    """A method without a row keeps the server from starting."""
    with pytest.raises(RuntimeError, match="WatchEntries"):
        await guarded_server(table={COORDINATOR: (VERIFY,)})


@pytest.mark.parametrize("credentials", ["none", "foreign", "plaintext"])
async def test_nobody_connects_without_a_certificate_of_the_authority(
    guarded_server: MakeServer, tmp_path: Path, credentials: str
) -> None:
    """No certificate, another authority's, or no TLS: UNAVAILABLE, and no handler runs."""
    world = await guarded_server()
    trusted = world.tls_for(COORDINATOR).ca_file.read_bytes()
    match credentials:
        case "none":
            made = grpc.aio.secure_channel(world.target, grpc.ssl_channel_credentials(trusted))
        case "foreign":
            foreign = Authority(tmp_path).issue("coordinator")
            files = foreign.key_file.read_bytes(), foreign.certificate_file.read_bytes()
            made = grpc.aio.secure_channel(world.target, grpc.ssl_channel_credentials(trusted, *files))
        case _:
            made = grpc.aio.insecure_channel(world.target)
    raw: Any = made
    async with made:
        error = await refusal(raw.unary_unary(VERIFY)(b"", timeout=60))
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert world.servicer.calls == 0


async def test_a_call_without_a_deadline_is_refused(guarded_server: MakeServer) -> None:
    """A call or stream without a deadline is the caller's mistake, and reaches no handler."""
    world = await guarded_server()
    stub = await world.stub_as()
    for call in (stub.VerifyPlan(REQUEST), stub.WatchEntries(messages.WatchEntriesRequest())):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_REQUIRED")
    assert world.servicer.calls == 0


async def test_a_call_with_too_little_time_is_refused(guarded_server: MakeServer) -> None:
    """With less than the margin left a call does not begin."""
    world = await guarded_server()
    stub = await world.stub_as()
    await stub.VerifyPlan(REQUEST, timeout=60)
    error = await refusal(stub.VerifyPlan(REQUEST, timeout=0.015))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert world.servicer.calls == 1


async def test_deadlines_shrink_downstream(guarded_server: MakeServer) -> None:
    """A call made while serving one ends before that one's deadline, whatever limit it was given, and never later than its own."""
    downstream, upstream = await guarded_server(), await guarded_server()
    stub = await downstream.stub_as()
    left: list[float] = []

    async def note(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        left.append(context.time_remaining())
        return messages.VerifyPlanResponse()

    async def forward(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        left.append(remaining_seconds() or -1.0)
        for timeout in (60.0, None, 6.0, call_seconds(60.0)):
            await stub.VerifyPlan(REQUEST, timeout=timeout)
        return messages.VerifyPlanResponse()

    downstream.servicer.verify, upstream.servicer.verify = note, forward
    await (await upstream.stub_as()).VerifyPlan(REQUEST, timeout=9)
    inbound, long, absent, short, computed = left
    assert inbound <= 9
    for shrunk in (long, absent, computed):
        assert shrunk <= inbound - 0.02 + ROUNDING
    assert short <= 6 + ROUNDING
    assert remaining_seconds() is None
    assert call_seconds(7.0) == 7.0


async def test_no_call_is_begun_with_nothing_left(guarded_server: MakeServer) -> None:
    """When too little is left of the inbound deadline, the outgoing call is refused without being sent."""
    world = await guarded_server()
    stub = await world.stub_as()

    async def serving() -> LockstepError:
        deadlines.enter(0.03)
        with pytest.raises(LockstepError) as caught:
            await stub.VerifyPlan(REQUEST, timeout=60)
        return caught.value

    error = await asyncio.create_task(serving())
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_CLOSE")
    assert world.servicer.calls == 0


async def test_malformed_bytes_are_the_callers_mistake(guarded_server: MakeServer) -> None:
    """Bytes that are no message of the request's type get INVALID_ARGUMENT with BadRequest, and reach no handler."""
    world = await guarded_server()
    made: Any = await world.channel_as(COORDINATOR)
    for call in (
        made.unary_unary(VERIFY)(b"\xff\xff\xff", timeout=60),
        made.unary_stream(WATCH)(b"\x0a\xff", timeout=60),
    ):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert [finding.field for finding in error.fields] == ["request"]
    assert world.servicer.calls == 0


async def test_messages_have_a_limit(guarded_server: MakeServer) -> None:
    """A request larger than the setting is refused before it is read into a message."""
    world = await guarded_server(message_bytes_max=4096)
    error = await refusal((await world.stub_as()).VerifyPlan(messages.VerifyPlanRequest(plan_id="x" * 5000), timeout=60))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert world.servicer.calls == 0


async def test_calls_at_one_time_have_a_limit(guarded_server: MakeServer) -> None:
    """Calls beyond the limit are refused at once while the others go on."""
    world = await guarded_server(table=dict.fromkeys((COORDINATOR, STRANGER), (f"/{NAME}/*",)), concurrent_calls_max=2)
    gate, both = asyncio.Event(), asyncio.Event()

    async def wait(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        if world.servicer.calls == 2:
            both.set()
        await gate.wait()
        return messages.VerifyPlanResponse()

    world.servicer.verify = wait
    stubs = [await world.stub_as(caller) for caller in (COORDINATOR, STRANGER)]
    calls = [stub.VerifyPlan(REQUEST, timeout=60) for stub in stubs]
    await asyncio.wait_for(both.wait(), 60)
    error = await refusal(stubs[0].VerifyPlan(REQUEST, timeout=60))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    gate.set()
    await asyncio.gather(*calls)


async def test_what_goes_wrong_inside_stays_inside(guarded_server: MakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An unforeseen exception leaves as INTERNAL without its text, in calls and streams, and stands in the log."""
    world = await guarded_server()

    async def broken(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        raise RuntimeError("the secret is 42")

    async def broken_stream(
        request: messages.WatchEntriesRequest, context: Context
    ) -> AsyncIterator[messages.WatchEntriesResponse]:
        yield messages.WatchEntriesResponse()
        raise RuntimeError("the secret is 42")

    world.servicer.verify, world.servicer.watch = broken, broken_stream
    stub = await world.stub_as()
    for call in (stub.VerifyPlan(REQUEST, timeout=60), stub.WatchEntries(messages.WatchEntriesRequest(), timeout=60)):
        error = await refusal(call)
        assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "42" not in str(error)
    assert "the secret is 42" in capsys.readouterr().out


async def test_a_failpoint_that_raises_ends_the_call(guarded_server: MakeServer) -> None:
    """A failpoint's exception is no hang: the caller gets INTERNAL."""
    world = await guarded_server()
    failpoints.declare("test.call.before_send")

    async def armed(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        await failpoints.failpoint("test.call.before_send")
        return messages.VerifyPlanResponse()

    world.servicer.verify = armed
    failpoints.arm("test.call.before_send=raise")
    try:
        error = await refusal((await world.stub_as()).VerifyPlan(REQUEST, timeout=60))
    finally:
        failpoints.arm("")
    assert error.code is grpc.StatusCode.INTERNAL


async def test_a_handler_that_aborts_keeps_its_status(guarded_server: MakeServer) -> None:
    """context.abort in a handler is not turned into INTERNAL."""
    world = await guarded_server()

    async def aborts(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        raise AssertionError

    world.servicer.verify = aborts
    error = await refusal((await world.stub_as()).VerifyPlan(REQUEST, timeout=60))
    assert (error.code, error.reason, error.message) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", "not here")


async def test_an_error_in_the_middle_of_a_stream_keeps_its_reason(guarded_server: MakeServer) -> None:
    """Messages before the error arrive; then the error, with reason, metadata and time to wait."""
    world = await guarded_server()

    async def two_then_error(
        request: messages.WatchEntriesRequest, context: Context
    ) -> AsyncIterator[messages.WatchEntriesResponse]:
        yield messages.WatchEntriesResponse(resume_token="1")
        yield messages.WatchEntriesResponse(resume_token="2")
        raise precondition("PLAN_STATE", "the plan is closed", plan="p")

    world.servicer.watch = two_then_error
    call = (await world.stub_as()).WatchEntries(messages.WatchEntriesRequest(), timeout=60)
    assert [await token(call), await token(call)] == ["1", "2"]
    error = await refusal(call)
    assert (error.code, error.reason, error.metadata) == (grpc.StatusCode.FAILED_PRECONDITION, "PLAN_STATE", {"plan": "p"})


async def test_health_is_answered_by_name_and_to_everybody_of_the_domain(guarded_server: MakeServer) -> None:
    """Health says SERVING for the server and its service, NOT_FOUND for others, also to callers without a row and without a deadline."""
    world = await guarded_server()
    health = health_pb2_grpc.HealthStub(await world.channel_as(STRANGER))
    for name in ("", NAME):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    error = await refusal(health.Check(health_pb2.HealthCheckRequest(service="other")))
    assert error.code is grpc.StatusCode.NOT_FOUND


async def test_probes_are_answered_without_a_certificate_and_nothing_else_is(guarded_server: MakeServer) -> None:
    """On the probes' port health is answered without TLS, as the server stands and its drain turns it; no other method is there, and by default no port."""
    assert (await guarded_server()).server.probe_port is None
    world = await guarded_server(probe_port=0, drain_seconds=60.0)
    begun, gate = asyncio.Event(), asyncio.Event()

    async def wait(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        begun.set()
        await gate.wait()
        return messages.VerifyPlanResponse()

    world.servicer.verify = wait
    async with grpc.aio.insecure_channel(f"localhost:{world.server.probe_port}") as probe:
        health = health_pb2_grpc.HealthStub(probe)
        for name in ("", NAME):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        others = (
            journal_stubs.JournalReaderServiceStub(probe).VerifyPlan(REQUEST, timeout=60),
            health.Watch(health_pb2.HealthCheckRequest(), timeout=60),
        )
        for call in others:
            assert (await refusal(call)).code is grpc.StatusCode.UNIMPLEMENTED
        unary = asyncio.ensure_future((await world.stub_as()).VerifyPlan(REQUEST, timeout=60))
        await begun.wait()
        stopping = asyncio.create_task(world.server.stop())
        async with asyncio.timeout(60):
            while True:
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=60)
                if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                    break
                await asyncio.sleep(0.01)
        gate.set()
        await unary
        await stopping
    assert world.servicer.calls == 1


async def test_drain(guarded_server: MakeServer) -> None:
    """At drain health turns, drain callbacks run, unary calls finish, open streams end with UNAVAILABLE at once, and new calls are refused."""
    world = await guarded_server(drain_seconds=60.0)
    begun, gate, drained = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def wait(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        begun.set()
        await gate.wait()
        return messages.VerifyPlanResponse()

    async def endless(request: messages.WatchEntriesRequest, context: Context) -> AsyncIterator[messages.WatchEntriesResponse]:
        yield messages.WatchEntriesResponse(resume_token="1")
        await asyncio.Event().wait()

    async def drain() -> None:
        drained.set()

    world.servicer.verify, world.servicer.watch = wait, endless
    world.server.on_drain(drain)
    stub = await world.stub_as()
    health = health_pb2_grpc.HealthStub(await world.channel_as(STRANGER)).Watch(health_pb2.HealthCheckRequest())
    assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
    stream, unary = stub.WatchEntries(messages.WatchEntriesRequest(), timeout=60), stub.VerifyPlan(REQUEST, timeout=60)
    assert await token(stream) == "1"
    await begun.wait()
    began = time.monotonic()
    stopping = asyncio.create_task(world.server.stop())
    error = await refusal(stream)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert drained.is_set()
    assert error.retry_after == timedelta(seconds=1)
    late = await refusal(stub.VerifyPlan(REQUEST, timeout=60))
    assert late.code is grpc.StatusCode.UNAVAILABLE
    assert not stopping.done()
    gate.set()
    await unary
    await stopping
    assert time.monotonic() - began < 30, "the drain waited for something that had ended"


async def test_a_stream_cancelled_by_its_client_ends(guarded_server: MakeServer) -> None:
    """A handler's stream is closed when its client goes away."""
    world = await guarded_server()
    closed = asyncio.Event()

    async def endless(request: messages.WatchEntriesRequest, context: Context) -> AsyncIterator[messages.WatchEntriesResponse]:
        try:
            yield messages.WatchEntriesResponse(resume_token="1")
            await asyncio.Event().wait()
        finally:
            closed.set()

    world.servicer.watch = endless
    stream = (await world.stub_as()).WatchEntries(messages.WatchEntriesRequest(), timeout=60)
    await stream.read()
    stream.cancel()
    await asyncio.wait_for(closed.wait(), 60)


async def test_the_port_is_reported_once_calls_are_taken(guarded_server: MakeServer, tmp_path: Path) -> None:
    """The port file holds the bound port, whole, and a port that is taken is an error."""
    world = await guarded_server(port_file=tmp_path / "port")
    assert (tmp_path / "port").read_text() == f"{world.server.port}\n"
    with pytest.raises(RuntimeError):
        Server(ListenSettings(port=world.server.port), world.tls_for(SERVER), Access({}))


def test_streams_of_requests_are_refused(tls_for: Callable[[str], TlsSettings]) -> None:
    """A service with a method that the guard does not cover cannot be added."""

    async def add() -> None:
        server = Server(ListenSettings(), tls_for(SERVER), Access({}))

        class Method:
            client_streaming = True

        class Service:
            full_name = "test.Streaming"
            methods = (Method(),)

        with pytest.raises(ValueError, match="streams of requests"):
            server.add(print, object(), Service())

    asyncio.run(add())


async def test_an_unknown_method_is_unimplemented(guarded_server: MakeServer) -> None:
    """A method that nobody serves is UNIMPLEMENTED."""
    world = await guarded_server()
    made: Any = await world.channel_as(COORDINATOR)
    error = await refusal(
        made.unary_unary("/lockstep.Nothing/Here", empty_pb2.Empty.SerializeToString)(empty_pb2.Empty(), timeout=60)
    )
    assert error.code is grpc.StatusCode.UNIMPLEMENTED


def test_a_key_that_is_not_the_certificates_is_refused(tls_for: Callable[[str], TlsSettings]) -> None:
    """A channel with a mixed-up pair is refused when it is made."""
    mixed = TlsSettings(
        certificate_file=tls_for(COORDINATOR).certificate_file,
        key_file=tls_for(STRANGER).key_file,
        ca_file=tls_for(COORDINATOR).ca_file,
    )
    with pytest.raises(ValueError, match="is not the key of"):
        channel("localhost:1", mixed)


async def test_drain_lets_streams_say_their_last_word(guarded_server: MakeServer) -> None:
    """A handler that ends its stream at the drain callback does so itself; one that sends without end is ended, and none is cut in a message."""
    world = await guarded_server(drain_seconds=60.0)
    told = asyncio.Event()

    async def polite(request: messages.WatchEntriesRequest, context: Context) -> AsyncIterator[messages.WatchEntriesResponse]:
        yield messages.WatchEntriesResponse(resume_token="1")
        await told.wait()
        yield messages.WatchEntriesResponse(resume_token="last")

    async def restless(request: messages.WatchEntriesRequest, context: Context) -> AsyncIterator[messages.WatchEntriesResponse]:
        while True:
            yield messages.WatchEntriesResponse(resume_token="again")
            await asyncio.sleep(0)

    async def drain() -> None:
        told.set()

    async def choose(request: messages.WatchEntriesRequest, context: Context) -> AsyncIterator[messages.WatchEntriesResponse]:
        async for message in (polite if request.plan_id == "polite" else restless)(request, context):
            yield message

    world.servicer.watch = choose
    world.server.on_drain(drain)
    stub = await world.stub_as()
    first, second = (stub.WatchEntries(messages.WatchEntriesRequest(plan_id=name), timeout=60) for name in ("polite", "restless"))
    assert [await token(first), await token(second)] == ["1", "again"]
    began = time.monotonic()
    stopping = asyncio.create_task(world.server.stop())
    error = await refusal(second)
    assert await token(first) == "last"
    assert await first.code() is grpc.StatusCode.OK
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    await stopping
    assert time.monotonic() - began < 30
