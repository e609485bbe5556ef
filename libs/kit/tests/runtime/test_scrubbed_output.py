"""What a process writes for people: its log, its last words, its spans. Nothing of it holds what was planted."""

from __future__ import annotations

import json
import subprocess
import sys

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode

from lockstep_kit.span_scrubbing import ScrubbingExporter

IBAN = "DE89370400440532013000"
CANARY = "CANARY-hunter2"

#: Says what it must not in every way that a process has.
PROGRAM = f"""
import asyncio, logging, threading
import structlog
from lockstep_kit.logs import configure_logs
configure_logs("test-service")
log = structlog.get_logger()
secret = "{CANARY}"
log.info("told", password="{CANARY}", debtor="{CANARY}", count=3, plan_id="plan-1", error="postgresql://u:{CANARY}@h/d {IBAN}", root=b"{CANARY}")
def fail(argument="{CANARY}"):
    local = "{CANARY}"
    raise ValueError("password={CANARY} of {IBAN}")
try:
    fail()
except ValueError:
    log.exception("failed")
logging.getLogger("library").error("could not use token=%s: Bearer %s", "x", "{CANARY}", extra={{"body": "{CANARY}"}})
async def forgotten():
    async def die():
        fail()
    asyncio.ensure_future(die())
    await asyncio.sleep(0.1)
    import gc; gc.collect()
asyncio.run(forgotten())
thread = threading.Thread(target=fail); thread.start(); thread.join()
fail()
"""


def test_a_log_tells_nothing_that_it_must_not() -> None:
    """Fields, exceptions, libraries, forgotten tasks, threads, the error that ends the process; all of them lines of JSON, with what operators need."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 1
    assert run.stdout == ""
    # The program's own source is quoted by tracebacks of `-c` on newer Pythons alone; here nothing of it is.
    lines = {line["event"]: line for line in map(json.loads, run.stderr.splitlines())}
    assert CANARY not in run.stderr
    assert IBAN not in run.stderr
    assert {"told", "failed", "thread_failed", "process_failed"} <= lines.keys()
    assert any("never retrieved" in event for event in lines)
    assert (lines["told"]["plan_id"], lines["told"]["count"], lines["told"]["password"]) == ("plan-1", 3, "[withheld]")
    assert "ValueError: password=[secret] of [account]" in lines["process_failed"]["exception"]


def spans_of(exporter: InMemorySpanExporter, *, scrubbing: bool) -> list[ReadableSpan]:
    """A span that is told everything, and fails."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(ScrubbingExporter(exporter) if scrubbing else exporter))
    tracer = provider.get_tracer("test")
    try:
        with tracer.start_as_current_span("outer", attributes={"lockstep.plan_id": "plan-1", "debtor.name": CANARY}) as span:
            span.add_event("noted", {"remittance": CANARY, "lockstep.detail": f"to {IBAN}"})
            span.set_status(Status(StatusCode.ERROR, f"secret={CANARY}"))
            raise ValueError(f"password: {CANARY} of {IBAN}")
    except ValueError:
        provider.shutdown()
    return list(exporter.get_finished_spans())


def test_a_span_tells_nothing_that_it_must_not() -> None:
    """Attributes, events, recorded exceptions with their stacks, and the status; ids, times and parents stay."""
    (span,) = spans_of(InMemorySpanExporter(), scrubbing=True)
    assert CANARY not in span.to_json()
    assert IBAN not in span.to_json()
    assert span.attributes == {"lockstep.plan_id": "plan-1", "debtor.name": "[withheld]"}
    assert [each.name for each in span.events] == ["noted", "exception"]
    assert span.events[1].attributes is not None
    assert span.events[1].attributes["exception.type"] == "ValueError"
    assert span.context is not None
    assert span.context.is_valid
    assert (span.end_time or 0) >= (span.start_time or 0) > 0


def test_without_scrubbing_the_span_would_tell() -> None:
    """The test before sees what it looks for."""
    (span,) = spans_of(InMemorySpanExporter(), scrubbing=False)
    assert CANARY in span.to_json()
    assert IBAN in span.to_json()
