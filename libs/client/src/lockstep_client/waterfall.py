"""A trace as a waterfall of text: who called whom, and how long it took. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lockstep_kit.values import dataclass

Span = Mapping[str, Any]

#: Deepest indentation that is drawn; deeper spans stand at this one.
DEPTH_MAX: Final = 12
#: Bars are at least so wide: on a narrow terminal the names give way.
BAR_WIDTH_MIN: Final = 12
#: Columns of times.
TIME_WIDTH: Final = 8
#: Names take no more of a line than this share.
NAME_PERCENT_MAX: Final = 45


@dataclass(frozen=True, slots=True)
class Bar:
    """A span as one line of a waterfall."""

    #: How deep it stands below the root.
    depth: int
    #: Service whose span it is.
    service: str
    #: What was done.
    name: str
    #: Whether it failed.
    failed: bool
    #: When it began, from the trace's begin, in microseconds.
    offset_us: int
    #: How long it took, in microseconds.
    duration_us: int
    #: Number of its links to spans elsewhere.
    links: int
    #: Whether it names a parent that is not there.
    adrift: bool
    #: The span.
    span: Span


def about(span: Span, plan_id: str) -> bool:
    """Whether a span names the plan."""
    told = span.get("attributes") or {}
    return told.get("lockstep.plan_id") == plan_id or plan_id in (told.get("lockstep.plan_ids") or ())


def main_trace(traces: Sequence[Mapping[str, Any]], plan_id: str, trace_id: str = "") -> Mapping[str, Any]:
    """The trace with that id, else the one that tells most of the plan."""
    own = [each for each in traces if trace_id and each["trace_id"] == trace_id]
    return own[0] if own else max(traces, key=lambda trace: sum(about(each, plan_id) for each in trace["spans"]))


def without_statements(spans: Sequence[Span]) -> list[Span]:
    """The spans but those of single database statements."""
    return [each for each in spans if "db.system.name" not in (each.get("attributes") or {})]


def bars(spans: Sequence[Span]) -> list[Bar]:
    """The spans of a trace, each below its parent, siblings by their begin. A span whose parent is not there stands at the top."""
    if not spans:
        return []
    begin = min(int(span["start_unix_nano"]) for span in spans)
    known = {"", *(str(span["span_id"]) for span in spans)}
    children: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda each: int(each["start_unix_nano"])):
        parent = str(span["parent_span_id"])
        children.setdefault(parent if parent in known and parent != span["span_id"] else "", []).append(span)
    found: list[Bar] = []
    seen: set[str] = set()
    stack = [(span, 0) for span in reversed(children.get("", []))]
    while stack:
        span, depth = stack.pop()
        if span["span_id"] in seen:
            continue
        seen.add(str(span["span_id"]))
        found.append(_bar(span, depth, begin, adrift=str(span["parent_span_id"]) not in known))
        stack.extend((child, depth + 1) for child in reversed(children.get(str(span["span_id"]), [])))
    return found


def _bar(span: Span, depth: int, begin: int, *, adrift: bool) -> Bar:
    start, end = int(span["start_unix_nano"]), int(span["end_unix_nano"])
    return Bar(
        depth=min(depth, DEPTH_MAX),
        service=str(span["service"]),
        name=_short(str(span["name"])),
        failed=span["status"] == "error",
        offset_us=(start - begin) // 1000,
        duration_us=max(end - start, 0) // 1000,
        links=len(span.get("links") or ()),
        adrift=adrift,
        span=span,
    )


def _short(name: str) -> str:
    """A call's name without its package: lockstep.journal.v1.JournalService/Append is JournalService/Append."""
    package, _, method = name.rpartition(".")
    return method if package and "/" in method and " " not in name else name


def columns(lines: Sequence[Bar], width: int) -> tuple[int, int, int]:
    """How wide the columns of services, names and bars are on a terminal."""
    services = max((len(line.service) for line in lines), default=0)
    names = max((2 * line.depth + len(line.name) for line in lines), default=0)
    gaps = 4 * 2 + 1
    left = width - services - 2 * TIME_WIDTH - gaps
    shown = max(min(names, width * NAME_PERCENT_MAX // 100, left - BAR_WIDTH_MIN), 8)
    return services, shown, max(left - shown, BAR_WIDTH_MIN)


def drawn(bar: Bar, total_us: int, width: int) -> str:
    """The bar of a line, `width` characters wide: blanks before, blocks while it took."""
    total = max(total_us, 1)
    left = min(bar.offset_us * width // total, width - 1)
    length = max(1, min((bar.duration_us * width + total - 1) // total, width - left))
    return " " * left + "█" * length + " " * (width - left - length)


def duration_text(microseconds: int) -> str:
    """A duration in the unit that reads best."""
    if microseconds < 1000:
        return f"{microseconds} µs"
    if microseconds < 1_000_000:
        return f"{microseconds // 1000}.{microseconds % 1000 // 100} ms"
    return f"{microseconds // 1_000_000}.{microseconds % 1_000_000 // 10_000:02d} s"
