"""Traces: one settlement, one trace, across services, restarts and waits.

A row that causes later work keeps the W3C trace context of whoever caused it (`current_traceparent`), and the work goes on in that trace (`span`).
Spans are exported in the background from a queue with a limit; a slow or absent collector never delays a settlement, and costs spans. Each is scrubbed
before it leaves (`lockstep_kit.span_scrubbing`), in the background too.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import grpc
import structlog
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lockstep_kit.span_scrubbing import ScrubbingExporter

PLAN_ID: Final = "lockstep.plan_id"
PLAN_IDS: Final = "lockstep.plan_ids"
LEG_ID: Final = "lockstep.leg_id"

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACER: Final = trace.get_tracer("lockstep")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

SPANS_QUEUED_MAX: Final = 4_096
SPANS_PER_EXPORT_MAX: Final = 512
EXPORT_DELAY_MILLISECONDS: Final = 500
EXPORT_SECONDS_MAX: Final = 5
SHUTDOWN_SECONDS_MAX: Final = 5.0


class TelemetrySettings(BaseModel):
    """Where spans go, and how many."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str | None = Field(default=None, description="host:port of an OTLP gRPC collector; none: nothing is exported")
    ca_file: Path | None = Field(
        default=None, description="authority of the collector's certificate, PEM; none: plaintext, on loopback only"
    )
    sampled_ratio: float = Field(
        default=0.01, ge=0.0, le=1.0, description="share of new traces that are recorded; a caller's choice is followed"
    )

    @model_validator(mode="after")
    def _private(self) -> TelemetrySettings:
        host = (self.endpoint or "").rpartition(":")[0].strip("[]")
        if self.endpoint is not None and self.ca_file is None and host not in _LOOPBACK:
            raise ValueError("must name a ca_file unless the endpoint is on loopback")
        return self


class Telemetry:
    """The running exporter."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def shutdown(self) -> None:
        """Export what waits, and give up after some seconds: the exporter itself would go on trying for longer."""
        ending = threading.Thread(target=self._provider.shutdown, name="telemetry.shutdown", daemon=True)
        ending.start()
        ending.join(SHUTDOWN_SECONDS_MAX)


def configure(service_name: str, settings: TelemetrySettings) -> Telemetry:
    """Set up tracing for this process, once.

    Raises:
        OSError: the authority's file cannot be read.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        # A second provider would be ignored without a word, and with it where its spans were to go.
        raise AssertionError("tracing was set up before in this process")
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sampled_ratio)),
        resource=Resource.create({"service.name": service_name}),
        shutdown_on_exit=False,
    )
    if settings.endpoint is not None:
        credentials = None
        if settings.ca_file is not None:
            credentials = grpc.ssl_channel_credentials(settings.ca_file.read_bytes())
        exporter = OTLPSpanExporter(
            endpoint=settings.endpoint, insecure=credentials is None, credentials=credentials, timeout=EXPORT_SECONDS_MAX
        )
        provider.add_span_processor(
            BatchSpanProcessor(
                ScrubbingExporter(exporter),
                max_queue_size=SPANS_QUEUED_MAX,
                max_export_batch_size=SPANS_PER_EXPORT_MAX,
                schedule_delay_millis=EXPORT_DELAY_MILLISECONDS,
            )
        )
    trace.set_tracer_provider(provider)
    # Trace context alone: baggage would carry what callers put there into other services.
    propagate.set_global_textmap(_PROPAGATOR)
    return Telemetry(provider)


def current_traceparent() -> str | None:
    """W3C trace context of the work that is going on, to be kept in a row; None where there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def trace_id_of(traceparent: str | None) -> str:
    """Trace id (32 hex digits) in a trace context, or ""."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else ""


@contextlib.contextmanager
def span(
    name: str,
    *,
    traceparent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int | bool | Sequence[str]] | None = None,
) -> Iterator[Span]:
    """A span of the current trace, or of the one whose context was kept in a row. Log lines written inside carry the plan of its attributes."""
    context = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    told = dict(attributes or {})
    plan = {"plan_id": told[PLAN_ID]} if PLAN_ID in told else {}
    with (
        structlog.contextvars.bound_contextvars(**plan),
        _TRACER.start_as_current_span(name, context=context, kind=kind, attributes=told) as current,
    ):
        yield current
