from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc

from lockstep_kit.rpc.client import channel
from lockstep_kit.spans import trace_id_of
from lockstep_kit.telemetry import TelemetrySettings

pytestmark = pytest.mark.integration

#: A process that continues a stored trace, logs inside it, and serves health until it is told to stop.
PROGRAM = """
import asyncio, json, logging, sys
from pathlib import Path
import structlog
from lockstep_kit.logs import configure_logs
from lockstep_kit.rpc import Access, ListenSettings, Server, TlsSettings
from lockstep_kit.rpc.server import until_told_to_stop
from lockstep_kit.spans import PLAN_ID, current_traceparent, span
from lockstep_kit.telemetry import TelemetrySettings, configure

async def main(endpoint, stored, tls, port_file):
    configure_logs("test-service")
    telemetry = configure("test-service", TelemetrySettings(endpoint=endpoint or None, sampled_ratio=1.0))
    log = structlog.get_logger()
    assert current_traceparent() is None
    with span("recovered", traceparent=stored or None, attributes={PLAN_ID: "plan-1"}):
        with span("inner"):
            log.info("inside", traceparent=current_traceparent())
    log.info("outside")
    logging.getLogger("library").warning("from a library")
    server = Server(ListenSettings(port_file=port_file, drain_seconds=5.0), TlsSettings(**json.loads(tls)), Access({}))
    await server.start()
    await until_told_to_stop()
    await server.stop()
    telemetry.shutdown()
    log.info("stopped")

asyncio.run(main(*sys.argv[1:4], Path(sys.argv[4])))
"""
STORED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(otlp_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the protocol
        for resource in request.resource_spans:
            (service,) = [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]
            self.spans.extend((service, span) for scope in resource.scope_spans for span in scope.spans)
        return otlp.ExportTraceServiceResponse()


def reported_port(file: Path) -> int:
    """The port in the file, once it is there."""
    for _ in range(6_000):
        if file.exists():
            return int(file.read_text())
        time.sleep(0.05)
    raise AssertionError("no port was reported")


async def run(arguments: list[str], port_file: Path, tls_for: Any) -> tuple[int, list[dict[str, Any]], float]:
    """Start the program, ask whether it is healthy, tell it to stop; its exit code, its log, and how long it took to stop."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, *arguments, str(port_file), stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        port = await asyncio.to_thread(reported_port, port_file)
        made: Any = channel(f"localhost:{port}", tls_for("spiffe://lockstep.local/probe"))
        async with made:
            check = made.unary_unary("/grpc.health.v1.Health/Check")
            assert await check(b"", timeout=60) == b"\x08\x01"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, logged = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert said == b""
    lines = logged.decode().splitlines()
    return process.returncode or 0, [json.loads(line) for line in lines], time.monotonic() - began


async def test_a_stored_trace_goes_on(tls_for: Any, tmp_path: Path) -> None:
    """Spans of a stored trace reach the collector as its children; log lines are JSON with service, trace and plan; SIGTERM ends it all cleanly."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    otlp_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tls = tls_for("spiffe://lockstep.local/test").model_dump_json()
    try:
        code, lines, seconds = await run([f"127.0.0.1:{port}", STORED, tls], tmp_path / "port", tls_for)
    finally:
        server.stop(0)
    assert code == 0
    assert seconds < 60
    assert {service for service, _ in collector.spans} == {"test-service"}
    spans = {span.name: span for _, span in collector.spans}
    assert spans["recovered"].trace_id.hex() == spans["inner"].trace_id.hex() == trace_id_of(STORED)
    assert spans["recovered"].parent_span_id.hex() == "b7ad6b7169203331"
    assert spans["inner"].parent_span_id == spans["recovered"].span_id
    assert not any("Health" in name for name in spans), "health checks fill no traces"
    said = {line["event"]: line for line in lines}
    inside, outside = said["inside"], said["outside"]
    assert (inside["service"], inside["trace_id"], inside["plan_id"]) == ("test-service", trace_id_of(STORED), "plan-1")
    assert inside["span_id"] == spans["inner"].span_id.hex()
    assert inside["traceparent"] == f"00-{inside['trace_id']}-{inside['span_id']}-01"
    assert not {"trace_id", "plan_id"} & outside.keys()
    assert (said["from a library"]["level"], said["from a library"]["logger"]) == ("warning", "library")
    assert "stopped" in said


async def test_an_absent_collector_delays_nothing(tls_for: Any, tmp_path: Path) -> None:
    """With nobody at the endpoint the process works, and stops within the limits of drain and export."""
    with_nobody = "127.0.0.1:9"
    tls = tls_for("spiffe://lockstep.local/test").model_dump_json()
    code, lines, seconds = await run([with_nobody, "", tls], tmp_path / "port", tls_for)
    assert code == 0
    assert seconds < 60
    assert "stopped" in {line["event"] for line in lines}


@pytest.mark.parametrize("text", [None, "", "garbage", "00-xyz-1-01"])
def test_a_trace_id_is_told_only_of_a_trace_context(text: str | None) -> None:
    """What is no trace context has no trace id."""
    assert trace_id_of(text) in ("", "xyz")


def test_plaintext_export_stays_on_the_machine() -> None:
    """A collector elsewhere needs an authority to be known by."""
    assert TelemetrySettings(endpoint="localhost:4317").ca_file is None
    assert TelemetrySettings(endpoint="[::1]:4317").ca_file is None
    assert TelemetrySettings(endpoint="collector:4317", ca_file=Path("ca.pem")).endpoint == "collector:4317"
    with pytest.raises(ValueError, match="must name a ca_file"):
        TelemetrySettings(endpoint="collector:4317")
