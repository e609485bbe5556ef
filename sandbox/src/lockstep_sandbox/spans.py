"""The span store: receives OpenTelemetry spans over OTLP/gRPC, keeps them in SQLite, and answers for a plan's traces.

    python -m lockstep_sandbox.spans --database FILE [--otlp-port N] [--http-port N] [--ports-file FILE]

Loopback only; port 0 takes a free one, and the ports file says which (JSON, `otlp_port` and `http_port`). Answers JSON:

    GET /traces?plan_id=ID[&limit=N]   {"traces": [{"trace_id", "span_count", "services", "start_unix_nano", "end_unix_nano"}]}, newest first
    GET /traces/TRACE_ID               {"trace_id", "spans": [...]} by start time, or 404
    GET /healthz                       {"spans": N}

What is lost at the edge: the oldest spans, once there are more than `SPANS_MAX`; spans that a killed service had not exported yet.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import uvloop
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from lockstep_sandbox.ports import LOOPBACK
from lockstep_sandbox.processes import cancel_on_signals
from lockstep_sandbox.span_table import SpanTable, rows_of

TRACES_LIMIT_MAX = 100
EXPORT_BYTES_MAX = 16 * 1024 * 1024
HOSTS = frozenset({LOOPBACK, "localhost"})


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """OTLP's TraceService. An export is answered once it is stored."""

    def __init__(self, table: SpanTable) -> None:
        self._table = table

    async def Export(  # noqa: N802 - named by OTLP
        self, request: trace_service_pb2.ExportTraceServiceRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Stores every span of the request in one transaction."""
        self._table.add(rows_of(request))
        return trace_service_pb2.ExportTraceServiceResponse()


def application(table: SpanTable) -> web.Application:
    """The JSON side."""

    async def traces(request: web.Request) -> web.Response:
        plan_id = request.query.get("plan_id", "")
        try:
            limit = min(max(int(request.query.get("limit", "20")), 1), TRACES_LIMIT_MAX)
        except ValueError:
            return refusal("limit", "a number")
        if not plan_id:
            return refusal("plan_id", "given")
        return web.json_response({"traces": table.traces_of(plan_id, limit)})

    async def trace(request: web.Request) -> web.Response:
        trace_id = request.match_info["trace_id"].lower()
        spans = table.spans_of(trace_id)
        return web.json_response({"trace_id": trace_id, "spans": spans}, status=200 if spans else 404)

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"spans": table.count()})

    app = web.Application(middlewares=[only_from_loopback])
    app.add_routes([web.get("/traces", traces), web.get("/traces/{trace_id}", trace), web.get("/healthz", health)])
    return app


def refusal(field: str, rule: str) -> web.Response:
    """What a request with a bad field is answered."""
    return web.json_response({"error": {"field": field, "rule": f"must be {rule}"}}, status=400)


@web.middleware
async def only_from_loopback(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuses requests that name another host: a page in a browser may have its name lead here (DNS rebinding)."""
    if request.url.host not in HOSTS:
        return refusal("Host", "this machine")
    answer: web.StreamResponse = await handler(request)
    return answer


@contextlib.asynccontextmanager
async def serving(table: SpanTable, otlp_port: int, http_port: int) -> AsyncIterator[tuple[int, int]]:
    """Both servers, while inside; yields the ports that they listen on."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", EXPORT_BYTES_MAX)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(table), server)
    otlp_port = server.add_insecure_port(f"{LOOPBACK}:{otlp_port}")
    runner = web.AppRunner(application(table), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, http_port)
    await site.start()
    await server.start()
    try:
        yield otlp_port, runner.addresses[0][1]
    finally:
        await server.stop(grace=1)
        await runner.cleanup()


async def serve(arguments: argparse.Namespace) -> None:
    """Serves until it is told to stop."""
    table = SpanTable(arguments.database)
    try:
        with cancel_on_signals():
            async with serving(table, arguments.otlp_port, arguments.http_port) as (otlp_port, http_port):
                if arguments.ports_file:
                    part = arguments.ports_file.with_suffix(".part")
                    part.write_text(json.dumps({"otlp_port": otlp_port, "http_port": http_port}))
                    part.replace(arguments.ports_file)
                await asyncio.Event().wait()
    finally:
        table.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--otlp-port", type=int, default=0)
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--ports-file", type=Path)
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
