from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from lockstep_sandbox.processes import Program, Supervisor

pytestmark = pytest.mark.integration


@dataclass
class Store:
    otlp: str
    http: str
    supervisor: Supervisor
    database: Path

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with aiohttp.ClientSession() as session, session.get(self.http + path, headers=headers) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    ports, database = tmp_path / "ports.json", tmp_path / "spans.sqlite"
    command = [sys.executable, "-m", "lockstep_sandbox.spans", "--database", str(database), "--ports-file", str(ports)]

    async def ready() -> bool:
        return ports.exists()

    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(Program("spans", command, ready=ready))
        found = json.loads(ports.read_text())
        yield Store(f"127.0.0.1:{found['otlp_port']}", f"http://127.0.0.1:{found['http_port']}", supervisor, database)


def tracing(store: Store, service: str) -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=store.otlp, insecure=True)))
    return provider


async def test_a_plans_trace_is_found_over_all_services(store: Store) -> None:
    """Spans exported by two services over OTLP come back as one trace, found by the plan that one of them names."""
    one, two = tracing(store, "coordinator"), tracing(store, "bank-gateway")
    with one.get_tracer("t").start_as_current_span("CreatePlan", attributes={"lockstep.plan_id": "plan-1"}) as root:
        child = two.get_tracer("t").start_span("Prepare", set_span_in_context(root), SpanKind.SERVER)
        child.add_event("sent", {"bytes": 12})
        child.set_attribute("parts", ["a", "b"])
        child.set_status(Status(StatusCode.ERROR, "refused"))
        child.end()
    one.shutdown()
    two.shutdown()

    status, found = await store.get("/traces?plan_id=plan-1")
    trace_id = format(root.get_span_context().trace_id, "032x")
    assert status == 200
    assert [trace["trace_id"] for trace in found["traces"]] == [trace_id]
    assert found["traces"][0]["services"] == ["bank-gateway", "coordinator"]
    assert found["traces"][0]["span_count"] == 2

    status, trace = await store.get(f"/traces/{trace_id}")
    assert status == 200
    first, second = trace["spans"]
    assert (first["name"], first["parent_span_id"], first["service"]) == ("CreatePlan", "", "coordinator")
    assert (second["name"], second["parent_span_id"], second["kind"]) == ("Prepare", first["span_id"], "server")
    assert (second["status"], second["status_message"]) == ("error", "refused")
    assert second["attributes"]["parts"] == ["a", "b"]
    assert second["events"][0]["attributes"] == {"bytes": 12}
    assert first["start_unix_nano"] <= second["start_unix_nano"] <= second["end_unix_nano"] <= first["end_unix_nano"]


async def test_a_batch_names_several_plans(store: Store) -> None:
    """A span that names several plans is found by each of them."""
    provider = tracing(store, "dlt-gateway")
    provider.get_tracer("t").start_span("Commit", attributes={"lockstep.plan_ids": ["p-1", "p-2"]}).end()
    provider.shutdown()
    assert [len((await store.get(f"/traces?plan_id={plan}"))[1]["traces"]) for plan in ("p-1", "p-2", "p-3")] == [1, 1, 0]


async def test_spans_survive_a_kill(store: Store) -> None:
    """An export that was answered is there after kill -9."""
    provider = tracing(store, "notary")
    provider.get_tracer("t").start_span("Anchor", attributes={"lockstep.plan_id": "kept"}).end()
    provider.shutdown()
    await store.supervisor.kill9("spans")
    with sqlite3.connect(store.database) as connection:
        assert connection.execute("select trace_id from span_plan where plan_id = 'kept'").fetchall()


async def test_bad_requests_are_refused(store: Store) -> None:
    """An unknown trace, a missing plan, a limit that is no number and another host's name get an error that says so."""
    assert (await store.get("/traces/" + "0" * 32))[0] == 404
    assert (await store.get("/traces"))[1]["error"]["field"] == "plan_id"
    assert (await store.get("/traces?plan_id=x&limit=many"))[1]["error"]["field"] == "limit"
    assert (await store.get("/healthz", Host="attacker.example"))[1]["error"]["field"] == "Host"
    assert (await store.get("/healthz"))[0] == 200
