"""Traces: one settlement, one trace, across services, restarts and waits.

A row that causes later work keeps the W3C trace context of whoever caused it (`current_traceparent`), and the work goes on in that trace (`span`).
Spans are exported in the background; a slow or absent collector never delays a settlement.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import BaseModel, ConfigDict, Field

PLAN_ID: Final = "lockstep.plan_id"
PLAN_IDS: Final = "lockstep.plan_ids"
LEG_ID: Final = "lockstep.leg_id"

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_TRACER: Final = trace.get_tracer("lockstep")


class TelemetrySettings(BaseModel):
    """Where spans go, and how many."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str | None = Field(default=None, description="host:port of an OTLP gRPC collector; none: nothing is exported")
    sampled_ratio: float = Field(
        default=0.01, ge=0.0, le=1.0, description="share of new traces that are recorded; a caller's choice is followed"
    )


class Telemetry:
    """The running exporter."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def shutdown(self) -> None:
        """Export what waits, within a few seconds."""
        self._provider.force_flush(3000)
        self._provider.shutdown()


def configure(service_name: str, settings: TelemetrySettings) -> Telemetry:
    """Set up tracing for this process."""
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.sampled_ratio)), resource=Resource.create({"service.name": service_name})
    )
    if settings.endpoint is not None:
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, insecure=True, timeout=5)
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
    trace.set_tracer_provider(provider)
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
    """A span of the current trace, or of the one whose context was kept in a row."""
    context = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    with _TRACER.start_as_current_span(name, context=context, kind=kind, attributes=dict(attributes or {})) as current:
        yield current
