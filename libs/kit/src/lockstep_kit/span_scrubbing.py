"""Spans are scrubbed where they leave: attributes, events with what they say of exceptions, and the description of a status.

It is done by the exporter, in its own thread, so that recording a span costs no more than before; nothing leaves a process but through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status

from lockstep_kit.scrubbing import scrubbed, told_attribute


class ScrubbingExporter(SpanExporter):
    """Exports through another exporter, scrubbed."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """What the other exporter says of the scrubbed spans."""
        return self._exporter.export([scrubbed_span(each) for each in spans])

    def shutdown(self) -> None:
        """End the other one."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have the other one send what it keeps."""
        return self._exporter.force_flush(timeout_millis)


def scrubbed_span(span: ReadableSpan) -> ReadableSpan:
    """The same span without what must not be told."""
    return ReadableSpan(
        scrubbed(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_attributes(span.attributes),
        events=[Event(scrubbed(each.name), _attributes(each.attributes), each.timestamp) for each in span.events],
        links=[Link(each.context, _attributes(each.attributes)) for each in span.links],
        kind=span.kind,
        status=Status(span.status.status_code, scrubbed(span.status.description) if span.status.description else None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(told: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: told_attribute(name, value) for name, value in (told or {}).items()}
