"""Where spans go, and which are recorded (`lockstep_kit.spans` makes them).

Spans are exported in the background from a queue with a limit; a slow or absent collector never delays a settlement, and costs spans. Each is scrubbed
before it leaves (`lockstep_kit.span_scrubbing`), in the background too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lockstep_kit.span_scrubbing import ScrubbingExporter
from lockstep_kit.spans import ALWAYS

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

SPANS_QUEUED_MAX: Final = 16_384
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


class PlanSampler(Sampler):
    """Records a share of new traces, and what belongs to a trace as the trace is recorded: whoever begins a plan's decides for all services.

    Beside that, what is never to be missed (`lockstep_kit.spans.ALWAYS`).
    """

    def __init__(self, ratio: float) -> None:
        self._usual = ParentBased(TraceIdRatioBased(ratio))

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Whether the span is recorded."""
        if attributes is not None and attributes.get(ALWAYS):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self._usual.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """As the specification wants it."""
        return f"PlanSampler{{{self._usual.get_description()}}}"


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
        sampler=PlanSampler(settings.sampled_ratio),
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
    propagate.set_global_textmap(TraceContextTextMapPropagator())
    return Telemetry(provider)
