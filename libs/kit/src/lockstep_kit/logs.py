"""Logs: one JSON object a line on standard error, with the service, and with the trace and plan that the line belongs to.

What libraries log through the standard library comes out the same way, from WARNING on, and so does the error that ends the process. Every line is
scrubbed before it is written (`lockstep_kit.scrubbing`); tracebacks hold no values of variables.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import trace

from lockstep_kit.scrubbing import told


def configure_logs(service_name: str, level: str = "INFO") -> None:
    """Write this process's log to standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace,
        _with_service(service_name),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, _scrub, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _scrub,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.getLevelName(level), logging.WARNING))
    # It calls it an error when a stream that its client left is closed by another task than the one that opened it, which is how asyncio closes them.
    logging.getLogger("opentelemetry.context").setLevel(logging.CRITICAL)
    # Python itself would write these to standard error as they are.
    sys.excepthook = _process_failed
    threading.excepthook = _thread_failed


def _process_failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    structlog.get_logger().critical("process_failed", exc_info=error)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    structlog.get_logger().critical("thread_failed", exc_info=failure.exc_value)


def _scrub(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The last step before a line is written: what an earlier one put in is searched too."""
    return {name: told(name, value) for name, value in event.items()}


def _with_service(service_name: str) -> structlog.typing.Processor:
    def add(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service_name
        return event

    return add


def _with_trace(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event
