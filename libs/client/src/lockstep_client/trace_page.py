"""One page with a plan's timeline and its trace: it stands alone, runs no program, and loads nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from lockstep_client.timeline import Stretch, Track
from lockstep_client.waterfall import Bar, bars, duration_text

#: Services are told apart by colour as well as by name.
_COLOURS: Final = ("#0b7285", "#2b8a3e", "#862e9c", "#b35c00", "#1864ab", "#a61e4d", "#495057")
_STYLE: Final = """
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 1.5rem; } h1 { font-size: 1.2rem; } h2 { font-size: 1rem; margin-top: 2rem; } code { font-size: .9em; }
.row, summary { display: grid; grid-template-columns: 9rem minmax(12rem, 26rem) 5rem 5rem 1fr; gap: .5rem; align-items: center; }
.track { grid-template-columns: 22rem 1fr; }
summary { cursor: pointer; list-style: none; } summary:hover { background: #8882; }
summary > *, .row > * { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.time { text-align: right; font-variant-numeric: tabular-nums; }
.lane { position: relative; height: 1.1rem; background: #8881; overflow: visible; }
.bar { position: absolute; top: .15rem; bottom: .15rem; min-width: 2px; border-radius: 2px; }
.state { position: absolute; top: 0; bottom: 0; min-width: 2px; border-left: 2px solid #8888; background: #4882; font-size: .75rem; padding-left: 2px;
  overflow: hidden; white-space: nowrap; }
.failed { color: #c92a2a; font-weight: 600; }
table { margin: .3rem 0 .8rem 9.5rem; border-collapse: collapse; font-size: .85rem; } td { padding: 0 .8rem 0 0; vertical-align: top; }
#statements:not(:checked) ~ main .statement { display: none; }
""".strip()


def trace_page(plan_id: str, stands: tuple[str, Sequence[Track]], trace: Mapping[str, Any]) -> str:
    """The page, as HTML. `stands`: how the plan stands, and its timeline."""
    state, tracks = stands
    lines = bars(trace["spans"])
    times = [(int(each["start_unix_nano"]), int(each["end_unix_nano"])) for each in trace["spans"]]
    times += [(each.start_ns, each.end_ns) for track in tracks for each in track.stretches]
    begin, end = min((start for start, _ in times), default=0), max((each for _, each in times), default=0)
    total = max(end - begin, 1)
    services = sorted({line.service for line in lines})
    colours = {service: _COLOURS[index % len(_COLOURS)] for index, service in enumerate(services)}
    spans_begin = min((int(each["start_unix_nano"]) for each in trace["spans"]), default=begin)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>Plan {escape(plan_id)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Plan <code>{escape(plan_id)}</code>: {escape(state)}</h1>",
        f"<p>Trace <code>{escape(str(trace['trace_id']))}</code>, {len(lines)} spans, {duration_text(total // 1000)}, ",
        ", ".join(f'<span style="color:{colours[each]}">{escape(each)}</span>' for each in services),
        '</p><input type="checkbox" id="statements"><label for="statements"> database statements</label><main><h2>Timeline</h2>',
        *(_track(track, begin, total) for track in tracks),
        "<h2>Spans</h2>",
        *(part for line in lines for part in _span(line, colours[line.service], spans_begin - begin, total)),
        "</main></body></html>",
    ]
    return "".join(parts) + "\n"


def _place(start: int, length: int, total: int) -> str:
    """Place and width in a lane, in per cent; all in nanoseconds."""
    return f"left:{100 * start / total:.3f}%;width:{100 * length / total:.3f}%"


def _track(track: Track, begin: int, total: int) -> str:
    marks = "".join(_mark(each, begin, total) for each in track.stretches)
    return f'<div class="row track"><span>{escape(track.name)}</span><div class="lane">{marks}</div></div>'


def _mark(each: Stretch, begin: int, total: int) -> str:
    offset, length = each.start_ns - begin, each.end_ns - each.start_ns
    told = f"{each.label}, {duration_text(offset // 1000)} after the begin"
    if length:
        return f'<span class="state" style="{_place(offset, length, total)}" title="{escape(told)}">{escape(each.label)}</span>'
    # A moment late in the plan has its words before it, where there is room.
    side = (
        f"right:{100 - 100 * offset / total:.3f}%;text-align:right" if offset * 2 > total else f"left:{100 * offset / total:.3f}%"
    )
    return f'<span class="state" style="{side};background:none" title="{escape(told)}">{escape(each.label)}</span>'


def _span(line: Bar, colour: str, shift: int, total: int) -> Iterator[str]:
    span = line.span
    told: dict[str, Any] = dict(span.get("attributes") or {})
    kinds = ["statement"] if "db.system.name" in told else []
    name = f'<span class="failed">{escape(line.name)}</span>' if line.failed else escape(line.name)
    adrift = '<span title="its parent is not in the store">? </span>' if line.adrift else ""
    linked = f" ↗{line.links}" if line.links else ""
    place = _place(line.offset_us * 1000 + shift, line.duration_us * 1000, total)
    yield f'<details class="{" ".join(kinds)}"><summary><span style="color:{colour}">{escape(line.service)}</span>'
    yield f'<span style="padding-left:{line.depth}em" title="{escape(str(span["name"]))}">{adrift}{name}{linked}</span>'
    yield f'<span class="time">{duration_text(line.offset_us)}</span><span class="time">{duration_text(line.duration_us)}</span>'
    yield f'<div class="lane"><span class="bar" style="{place};background:{colour}"></span></div></summary><table>'
    rows = {"span": span["span_id"], "parent": span["parent_span_id"], "kind": span.get("kind", ""), **told}
    rows |= {f"link {number}": f"{each['trace_id']} {each['span_id']}" for number, each in enumerate(span.get("links") or (), 1)}
    for number, each in enumerate(span.get("events") or (), 1):
        rows[f"event {number}"] = " ".join([str(each["name"]), *(f"{key}={value}" for key, value in each["attributes"].items())])
    yield from (
        f"<tr><td>{escape(str(key))}</td><td><code>{escape(str(value))}</code></td></tr>"
        for key, value in rows.items()
        if value != ""
    )
    yield "</table></details>"
