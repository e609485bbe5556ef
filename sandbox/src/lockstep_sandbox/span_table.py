"""Spans in one SQLite table, written by one process and readable by others meanwhile (write-ahead log)."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

#: More spans than this, and the oldest go.
SPANS_MAX = 500_000
SPANS_DROPPED_AT_ONCE = 50_000
#: A trace that is longer is cut.
SPANS_OF_A_TRACE_MAX = 10_000
#: Attributes by which a span names its plan; a batch names several, as a list.
PLAN_ATTRIBUTES = ("lockstep.plan_id", "lockstep.plan_ids")

Row = dict[str, Any]

#: One row per span; an export that is repeated changes nothing.
SQL_CREATE = """
create table if not exists span (
    number integer primary key autoincrement,
    trace_id text not null, span_id text not null, parent_span_id text not null,
    service text not null, name text not null, kind text not null,
    start_unix_nano integer not null, end_unix_nano integer not null,
    status text not null, status_message text not null,
    attributes text not null, events text not null, links text not null,
    unique (trace_id, span_id)
);
create table if not exists span_plan (
    plan_id text not null, trace_id text not null, primary key (plan_id, trace_id)
) without rowid;
"""
#: Stores a span unless it is there.
SQL_ADD = """
insert or ignore into span (trace_id, span_id, parent_span_id, service, name, kind, start_unix_nano, end_unix_nano,
                            status, status_message, attributes, events, links)
values (:trace_id, :span_id, :parent_span_id, :service, :name, :kind, :start_unix_nano, :end_unix_nano,
        :status, :status_message, :attributes, :events, :links)
"""
#: Remembers that a trace touches a plan.
SQL_ADD_PLAN = "insert or ignore into span_plan (plan_id, trace_id) values (?, ?)"
#: Traces that touch a plan, newest first.
SQL_TRACES = """
select trace_id, count(*) as span_count, group_concat(distinct service) as services,
       min(start_unix_nano) as start_unix_nano, max(end_unix_nano) as end_unix_nano
from span where trace_id in (select trace_id from span_plan where plan_id = ?)
group by trace_id order by min(start_unix_nano) desc limit ?
"""
#: A trace's spans in the order in which they began.
SQL_SPANS = "select * from span where trace_id = ? order by start_unix_nano, number limit ?"
#: How many there are, cheaply: numbers only grow, and only the lowest are dropped.
SQL_COUNT = "select coalesce(max(number) - min(number) + 1, 0) from span"
#: Drops the oldest.
SQL_DROP = "delete from span where number < (select min(number) from span) + ?"
#: Drops what the dropped spans' traces said about plans.
SQL_DROP_PLANS = "delete from span_plan where trace_id not in (select trace_id from span)"


class SpanTable:
    """The table. Not for use by several threads."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        self._connection.executescript(SQL_CREATE)

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Stores spans in one transaction; those that are there already stay as they are."""
        kept = list(rows)
        plans = {(plan_id, row["trace_id"]) for row in kept for plan_id in row["plan_ids"]}
        self._connection.execute("begin immediate")
        try:
            self._connection.executemany(SQL_ADD, kept)
            self._connection.executemany(SQL_ADD_PLAN, sorted(plans))
            if self.count() > SPANS_MAX:
                self._connection.execute(SQL_DROP, (SPANS_DROPPED_AT_ONCE,))
                self._connection.execute(SQL_DROP_PLANS)
        except BaseException:
            self._connection.execute("rollback")
            raise
        self._connection.execute("commit")

    def count(self) -> int:
        """How many spans there are; repeated exports may make it a little too high."""
        return int(self._connection.execute(SQL_COUNT).fetchone()[0])

    def traces_of(self, plan_id: str, limit: int) -> list[Row]:
        """Traces in which a span names the plan, newest first."""
        found = [dict(row) for row in self._connection.execute(SQL_TRACES, (plan_id, limit))]
        return [{**row, "services": sorted(row["services"].split(","))} for row in found]

    def spans_of(self, trace_id: str) -> list[Row]:
        """A trace's spans by start time; none if there is no such trace."""
        found = [dict(row) for row in self._connection.execute(SQL_SPANS, (trace_id, SPANS_OF_A_TRACE_MAX))]
        for row in found:
            del row["number"]
            row |= {name: json.loads(row[name]) for name in ("attributes", "events", "links")}
        return found


def rows_of(request: ExportTraceServiceRequest) -> Iterator[Row]:
    """The spans of an export as rows of the table."""
    for resource in request.resource_spans:
        service = str(attributes_of(resource.resource.attributes).get("service.name", "unknown"))
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield row_of(span, service)


def row_of(span: Span, service: str) -> Row:
    """A span as a row of the table."""
    attributes = attributes_of(span.attributes)
    events = [
        {"name": event.name, "time_unix_nano": event.time_unix_nano, "attributes": attributes_of(event.attributes)}
        for event in span.events
    ]
    links = [{"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links]
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "service": service,
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        "start_unix_nano": span.start_time_unix_nano,
        "end_unix_nano": span.end_time_unix_nano,
        "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
        "status_message": span.status.message,
        "attributes": json.dumps(attributes),
        "events": json.dumps(events),
        "links": json.dumps(links),
        "plan_ids": plan_ids_of(attributes),
    }


def plan_ids_of(attributes: dict[str, Any]) -> list[str]:
    """The plans that a span names."""
    named = (attributes.get(name, []) for name in PLAN_ATTRIBUTES)
    return [str(plan_id) for value in named for plan_id in (value if isinstance(value, list) else [value])]


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as JSON would have them."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: AnyValue) -> Any:
    """A value as JSON would have it; bytes in base64."""
    match value.WhichOneof("value"):
        case "array_value":
            return [value_of(item) for item in value.array_value.values]
        case "kvlist_value":
            return attributes_of(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case None:
            return None
        case kind:
            return getattr(value, kind)
