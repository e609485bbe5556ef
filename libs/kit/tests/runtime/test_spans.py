"""Spans, as whoever exports them sees them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from structlog.contextvars import get_contextvars

from lockstep.journal.v1 import journal_reader_service_pb2 as messages
from lockstep_kit.db import Database
from lockstep_kit.errors import precondition
from lockstep_kit.rpc.tracing import plans_in
from lockstep_kit.spans import (
    PLAN_ID,
    PLAN_IDS,
    cause_traceparent,
    context_of,
    current_traceparent,
    detail,
    plan_spans,
    serving,
    span,
    telling,
    trace_id_of,
    traceparent_of,
)
from lockstep_kit.statement_spans import SUMMARY_LENGTH_MAX, summary
from lockstep_kit.telemetry import PlanSampler
from lockstep_testkit.serving import Context

ONE, TWO, THREE = (f"00-{str(n) * 32}-{str(n) * 16}-01" for n in (1, 2, 3))
UNRECORDED = f"00-{'9' * 32}-{'9' * 16}-00"
PLAN = "0b0f3c70-6d1e-4c9a-9a30-5a5f4a1f0c11"
REQUEST = messages.VerifyPlanRequest(plan_id=PLAN)


class Exported(InMemorySpanExporter):
    """What was exported, by name."""

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.get_finished_spans()]

    async def when(self, count: int, method: str) -> list[ReadableSpan]:
        """The spans of a method, once there are so many: a server ends its own after it has answered."""
        for _ in range(6_000):
            found = [each for each in self.get_finished_spans() if each.name.endswith(f"/{method}")]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(self.names)

    def one(self, name: str) -> ReadableSpan:
        (found,) = (each for each in self.get_finished_spans() if each.name == name)
        return found


@pytest.fixture
def exported() -> Iterator[Exported]:
    exporter = Exported()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(sampler=PlanSampler(1.0))
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


def told(each: ReadableSpan) -> dict[str, Any]:
    return dict(each.attributes or {})


def context(each: ReadableSpan) -> trace.SpanContext:
    found: trace.SpanContext | None = each.get_span_context()
    assert found is not None
    return found


def parent_of(each: ReadableSpan) -> str | None:
    return None if each.parent is None else f"{each.parent.span_id:016x}"


@pytest.mark.parametrize(
    "text",
    [None, "", "garbage", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01",
     f"00-{'1' * 32}-{'1' * 16}-01-x", f"00-{'A' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'1' * 16}-1"],
)  # fmt: skip
def test_what_is_no_trace_context_is_none(text: str | None) -> None:
    """A malformed trace context names no span (W3C Trace Context, section 3.2)."""
    assert not context_of(text).is_valid
    assert traceparent_of(context_of(text)) is None


def test_a_trace_context_of_a_later_version_is_read() -> None:
    """Whoever speaks a later version is understood as far as this one goes."""
    assert traceparent_of(context_of(f"01-{'1' * 32}-{'2' * 16}-03-more")) == f"00-{'1' * 32}-{'2' * 16}-01"


def test_a_batch_is_told_in_the_trace_of_each_plan(exported: Exported) -> None:
    """Each plan's trace has a span that goes on in it; one leads and tells of all plans, and the others link to it."""
    with plan_spans("batch", {"a": ONE, "b": TWO, "c": UNRECORDED, "d": TWO, "e": None}) as inside:
        lead = current_traceparent()
        with span("below"):
            pass
    spans = {
        f"{each.context.trace_id:032x}": each for each in exported.get_finished_spans() if each.name == "batch" and each.context
    }
    assert set(spans) == {trace_id_of(ONE), trace_id_of(TWO)}
    first, second = spans[trace_id_of(ONE)], spans[trace_id_of(TWO)]
    assert (parent_of(first), parent_of(second)) == ("1" * 16, "2" * 16)
    assert set(told(first)[PLAN_IDS]) == {"a", "b", "c", "d", "e"}
    assert told(second) == {PLAN_ID: "b"}
    assert [traceparent_of(link.context) for link in second.links] == [lead]
    assert parent_of(exported.one("below")) == trace_parent_id(lead)
    assert inside == {"a": lead, "e": lead, "b": inside["d"], "c": UNRECORDED, "d": traceparent_of(context(second))}


def trace_parent_id(traceparent: str | None) -> str:
    return (traceparent or "").split("-")[2]


def test_a_recorded_plan_leads(exported: Exported) -> None:
    """In a batch of plans whose traces are not recorded, the one that is has what is done for all."""
    with plan_spans("mixed", {"a": UNRECORDED, "b": TWO}), detail("call", trace.SpanKind.CLIENT, {}):
        pass
    assert trace_id_of(TWO) == f"{context(exported.one('call')).trace_id:032x}"


def test_whoever_asks_in_another_trace_is_linked_to(exported: Exported) -> None:
    """A plan's span links to the call that asked for the work, and is below it where both are one trace."""
    with serving("call", THREE, {}):
        asking = current_traceparent()
        with plan_spans("elsewhere", {"a": ONE}):
            pass
        with plan_spans("here", {"a": THREE}):
            pass
    elsewhere, here = exported.one("elsewhere"), exported.one("here")
    assert (parent_of(elsewhere), [traceparent_of(each.context) for each in elsewhere.links]) == ("1" * 16, [asking])
    assert (parent_of(here), here.links) == (trace_parent_id(asking), ())
    assert told(exported.one("call"))[PLAN_ID] == "a"


def test_no_plans_are_no_span(exported: Exported) -> None:
    """Nothing is told of work about nothing."""
    with plan_spans("nothing", dict[str, str | None]()) as inside:
        assert inside == {}
    assert exported.names == []


def test_what_is_not_recorded_goes_on(exported: Exported) -> None:
    """Inside work of a trace that is not recorded nothing is recorded, and what it causes belongs to the trace all the same."""
    with span("outer", traceparent=UNRECORDED, attributes={PLAN_ID: "p"}), span("inner"), detail("call", trace.SpanKind.CLIENT, {}):
        assert current_traceparent() == UNRECORDED
        assert get_contextvars()["plan_id"] == "p"
    assert exported.names == []


def test_an_unexpected_failure_is_recorded(exported: Exported) -> None:
    """Work that fails is recorded though its trace is not; what is refused is not."""
    with pytest.raises(ZeroDivisionError), span("fails", traceparent=UNRECORDED, attributes={PLAN_ID: "p"}):
        raise ZeroDivisionError
    with pytest.raises(Exception, match="no"), span("refuses", traceparent=UNRECORDED):
        raise precondition("REASON", "no")
    failed = exported.one("fails")
    assert exported.names == ["fails"]
    assert failed.status.status_code is StatusCode.ERROR
    assert f"{context(failed).trace_id:032x}" == trace_id_of(UNRECORDED)
    assert told(failed)[PLAN_ID] == "p"


def test_what_must_not_be_missed_is_recorded(exported: Exported) -> None:
    """A span that is always recorded is, in its own trace."""
    with span("escalation", traceparent=UNRECORDED, always=True):
        pass
    assert f"{context(exported.one('escalation')).trace_id:032x}" == trace_id_of(UNRECORDED)


def test_a_row_keeps_its_callers_context(exported: Exported) -> None:
    """What a call leaves behind goes on below its caller's span, which is in another process; without one, below the current span."""
    with serving("called", ONE, {}), span("inside"):
        assert cause_traceparent() == ONE
        with span("of a row", traceparent=TWO):
            assert cause_traceparent() == current_traceparent()
    with serving("rootless", None, {}), span("within"):
        assert cause_traceparent() == current_traceparent()
    assert exported.one("rootless").parent is None


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("select * from plan where plan_id = any($1)", ("SELECT", "SELECT plan", "plan")),
        ("select a from plan join lease using (a) for update of plan", ("SELECT", "SELECT plan lease", None)),
        ("insert into plan (a) values ($1) on conflict do update set a = 1", ("INSERT", "INSERT plan", "plan")),
        ("insert into plan select * from unnest($1::text[]) as new (a)", ("INSERT", "INSERT plan", "plan")),
        ("with due as (select a from leg) update plan set a = 1 from due", ("UPDATE", "SELECT leg UPDATE plan", None)),
        ("delete from only plan -- from lease\nwhere a is distinct from b", ("DELETE", "DELETE plan", "plan")),
        ("select pg_notify('channel', $1)", ("SELECT", "SELECT", None)),
        ("COMMIT;", ("COMMIT", "COMMIT", None)),
        ("", ("EMPTY", "EMPTY", None)),
    ],
)
def test_a_statement_is_told_without_its_text(statement: str, found: tuple[str, str, str | None]) -> None:
    """What is done to which tables, and nothing else of the statement."""
    assert summary(statement) == found
    assert len(summary("select 1 " + " ".join(f"join table_{n} on true" for n in range(99)))[1]) == SUMMARY_LENGTH_MAX


@pytest.mark.integration
async def test_statements_are_told_inside_recorded_work(exported: Exported, database_for: Any) -> None:
    """A statement has a span inside work that is recorded, with its tables and how it failed, and without values; polling has none."""
    made = await database_for("runtime_spans")
    async with made.as_owner() as owner:
        await owner.execute("create table thing (name text primary key)")
        await owner.execute(f"grant select, insert on thing to {made.role}")
    db = await Database.connect(made.settings, application_name="spans")
    try:
        async with db.transaction() as tx:
            await tx.execute("insert into thing values ($1)", "unseen")
        with span("unrecorded", traceparent=UNRECORDED):
            await db.now()
        assert exported.names == []
        with span("work", traceparent=ONE, attributes={PLAN_ID: PLAN}):
            async with db.transaction() as tx:
                await tx.copy_records_to_table("thing", records=[("secret",)], columns=["name"])
                assert len(await tx.fetch("select name from thing")) == 2
            async with db.connection() as connection:
                with pytest.raises(asyncpg.UniqueViolationError):
                    await connection.execute("insert into thing values ($1)", "secret")
    finally:
        await db.close()
    # Between, the pool makes its connection new.
    names = [each for each in exported.names if each != "SELECT"]
    assert names == ["BEGIN", "COPY thing", "SELECT thing", "COMMIT", "INSERT thing", "work"]
    read = told(exported.one("SELECT thing"))
    assert read == {
        "db.system.name": "postgresql",
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT thing",
        "db.collection.name": "thing",
        "db.response.returned_rows": 2,
        PLAN_ID: PLAN,
    }
    failed = exported.one("INSERT thing")
    assert (told(failed)["db.response.status_code"], failed.status.status_code) == ("23505", StatusCode.ERROR)
    assert "secret" not in "".join(str(told(each)) for each in exported.get_finished_spans())


@pytest.mark.integration
async def test_a_call_is_two_spans_of_one_trace(exported: Exported, guarded_server: Callable[..., Any]) -> None:
    """The server goes on in its caller's trace, both tell method and status, and the server tells the plan; outside other work there is no client's span."""
    world = await guarded_server()

    async def refuse(request: messages.VerifyPlanRequest, context: Context) -> messages.VerifyPlanResponse:
        assert get_contextvars()["plan_id"] == PLAN
        raise precondition("REASON", "no")

    stub = await world.stub_as()
    await stub.VerifyPlan(REQUEST, timeout=60)
    (alone,) = await exported.when(1, "VerifyPlan")
    assert (alone.kind, alone.parent) == (trace.SpanKind.SERVER, None)
    exported.clear()
    world.servicer.verify = refuse
    with span("asking", traceparent=ONE), pytest.raises(grpc.aio.AioRpcError):
        await stub.VerifyPlan(REQUEST, timeout=60)
    client, server = sorted(await exported.when(2, "VerifyPlan"), key=lambda each: each.kind is trace.SpanKind.SERVER)
    assert parent_of(server) == f"{context(client).span_id:016x}"
    method = "lockstep.journal.v1.JournalReaderService/VerifyPlan"
    for each in (client, server):
        attributes = told(each)
        assert (each.name, attributes["rpc.method"], attributes["rpc.system.name"]) == (method, method, "grpc")
        assert attributes["rpc.response.status_code"] == "FAILED_PRECONDITION"
    # A refusal is a failure to whoever asked; to the server it is an answer.
    assert (client.status.status_code, server.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert told(server)[PLAN_ID] == PLAN


@pytest.mark.integration
async def test_a_streams_span_ends_with_its_first_message(exported: Exported, guarded_server: Callable[..., Any]) -> None:
    """A stream that is open for hours has a short span on both sides."""
    world = await guarded_server()
    stub = await world.stub_as()
    with span("watching", traceparent=ONE):
        stream = stub.WatchEntries(messages.WatchEntriesRequest(plan_id=PLAN), timeout=60)
        await stream.read()
    assert {each.kind for each in await exported.when(2, "WatchEntries")} == {trace.SpanKind.CLIENT, trace.SpanKind.SERVER}
    stream.cancel()


def test_plans_of_a_request() -> None:
    """What has not the form of a plan's id is not told, whoever sends it."""
    assert plans_in(REQUEST) == [PLAN]
    assert plans_in(messages.VerifyPlanRequest(plan_id="DE89370400440532013000")) == []
    assert plans_in(messages.GetCheckpointRequest()) == []


def test_what_is_ended_from_outside_ends() -> None:
    """A call that is given up ends in another context than it began in: there is nothing to take back there, and nothing fails."""

    async def call() -> None:
        with serving("call", None, {}), telling(["PLAN-1"]):
            await asyncio.sleep(0)

    begun = call()
    contextvars.copy_context().run(begun.send, None)
    begun.close()
    assert current_traceparent() is None
