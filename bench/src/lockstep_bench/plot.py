"""A result as one page that needs nothing else: throughput and latency by level, what a settlement costs, and each level over time. Pure."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

_WIDTH: Final = 760
_HEIGHT: Final = 240
_LEFT: Final = 64
_BOTTOM: Final = 34
_TOP: Final = 40
_COLOURS: Final = (
    "#1b6ca8", "#e07b39", "#3a9d5d", "#a23b72", "#8a7b2c", "#5c5c8a", "#c94c4c", "#3f8f8f", "#777777", "#b08bbb",
)  # fmt: skip
_STYLE: Final = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:860px;color:#222}svg{display:block;margin:1em 0}"
    "text{font:11px system-ui,sans-serif;fill:#333}.t{font-size:13px;font-weight:600}table{border-collapse:collapse}"
    "td,th{padding:.15em .7em;text-align:right;border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}"
)
Series = Mapping[str, Sequence[float]]


def page(result: Mapping[str, Any]) -> str:
    """An HTML page of a result of `make bench`."""
    levels: Sequence[Mapping[str, Any]] = result["levels"]
    names = [str(each["load"]) for each in levels]
    phases = {f"{part}": [float(each.get(f"closed_{part}_ms", 0)) for each in levels] for part in ("p50", "p95", "p99", "max")}
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Lockstep: bench</title>",
        f"<style>{_STYLE}</style><h1>Lockstep: bench</h1>",
        f"<p>{result['cores']} cores, seed {html.escape(str(result['seed']))}. Latency counts from when a plan was to begin; what is shaded was measured.</p>",
        _table(levels),
        bars("Settlements per second", names, {"settlements": [float(each["settlements_per_second"]) for each in levels]}),
        bars("CLOSED after, ms", names, phases),
        bars("Processor time of a settlement, ms", names, _processes(levels), stacked=True),
    ]
    for each in levels:
        rows: Sequence[Mapping[str, Any]] = each["over_time"]
        parts.append(f"<h2>{html.escape(str(each['load']))}</h2>")
        seconds = [float(row["second"]) for row in rows]
        rates = {"to begin": [float(row["begun"]) for row in rows], "closed": [float(row["closed"]) for row in rows]}
        measured = float(each["warm_up_seconds"]), float(each["warm_up_seconds"]) + float(each["measured_seconds"])
        parts.append(lines("Plans in each second", seconds, rates, measured))
        waits = {
            part: [float(row.get(f"closed_{part}_ms", math.nan)) for row in rows] for part in ("p50", "p99")
        }  # a second in which nothing was to begin has no latency
        parts.append(lines("CLOSED after, ms, by the second in which plans were to begin", seconds, waits, measured))
    return "\n".join((*parts, "</html>\n"))


def bars(title: str, labels: Sequence[str], series: Series, *, stacked: bool = False) -> str:
    """Bars in groups, one group for each label; side by side, or one upon the other."""
    totals = [sum(values[at] for values in series.values()) for at in range(len(labels))]
    highest = max([*totals, 0.0]) if stacked else max((value for values in series.values() for value in values), default=0.0)
    top = _round_up(highest)
    group = (_WIDTH - _LEFT - 10) / max(len(labels), 1)
    width = group * 0.7 / (1 if stacked else max(len(series), 1))
    drawn = [*_frame(title, top, list(series))]
    for at, label in enumerate(labels):
        left, base = _LEFT + at * group + group * 0.15, 0.0
        for index, (name, values) in enumerate(series.items()):
            value = values[at]
            x = left if stacked else left + index * width
            y, height = _y(base + value, top), _y(base, top) - _y(base + value, top)
            tip = html.escape(f"{label}, {name}: {value:g}")
            drawn.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width - 1, 1):.1f}" height="{max(height, 0):.1f}" '
                f'fill="{_COLOURS[index % len(_COLOURS)]}"><title>{tip}</title></rect>'
            )
            base += value if stacked else 0.0
        drawn.append(_text(left + group * 0.35, _HEIGHT - _BOTTOM + 14, label, "middle"))
    return _svg(drawn)


def lines(title: str, places: Sequence[float], series: Series, measured: tuple[float, float] = (0.0, 0.0)) -> str:
    """Lines over a common axis; where a value is NaN the line is interrupted. What was measured is shaded."""
    top = _round_up(max((value for values in series.values() for value in values if not math.isnan(value)), default=0.0))
    last = max([*places, 1.0])
    left, right = (_LEFT + min(place / last, 1.0) * (_WIDTH - _LEFT - 10) for place in measured)
    shade = f'<rect x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" height="{_HEIGHT - _BOTTOM - _TOP}" fill="#eef3f7"/>'
    drawn = [shade, *_frame(title, top, list(series))]
    for index, values in enumerate(series.values()):
        run = list[tuple[float, float]]()
        for place, value in zip((*places, math.nan), (*values, math.nan), strict=True):
            if not math.isnan(value):
                run.append((_LEFT + place / last * (_WIDTH - _LEFT - 10), _y(value, top)))
            elif run:
                drawn.append(_line(run, _COLOURS[index % len(_COLOURS)]))
                run = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn.append(_text(_LEFT + share * (_WIDTH - _LEFT - 10), _HEIGHT - _BOTTOM + 14, f"{share * last:g} s", "middle"))
    return _svg(drawn)


def _table(levels: Sequence[Mapping[str, Any]]) -> str:
    head = ("load", "per second", "p50 ms", "p95 ms", "p99 ms", "max ms", "processor ms", "commits", "RPCs")
    rows = []
    for each in levels:
        ends = [each.get(f"closed_{part}_ms", "") for part in ("p50", "p95", "p99", "max")]
        processor = round(each["processor_seconds_per_settlement"]["total"] * 1000, 1)
        cells = [each["load"], each["settlements_per_second"], *ends, processor]
        cells += [each["commits_per_settlement"]["total"], each["rpcs_per_settlement"]["total"]]
        rows.append("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>")
    return "<table><tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>" + "".join(rows) + "</table>"


def _processes(levels: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Process -> milliseconds by level, the dearest first."""
    shares = [each["processor_seconds_per_settlement"] for each in levels]
    names = {name for each in shares for name in each if name != "total"}
    found = {name: [round(float(each.get(name, 0.0)) * 1000, 1) for each in shares] for name in names}
    return dict(sorted(found.items(), key=lambda item: (-sum(item[1]), item[0])))


def _frame(title: str, top: float, names: Sequence[str]) -> list[str]:
    found = [f'<text class="t" x="0" y="14">{html.escape(title)}</text>']
    at = float(_WIDTH)
    for index in reversed(range(len(names))):
        at -= 6.2 * len(names[index]) + 18
        found.append(f'<rect x="{at:.0f}" y="20" width="9" height="9" fill="{_COLOURS[index % len(_COLOURS)]}"/>')
        found.append(_text(at + 12, 29, names[index]))
    for share in (0.0, 0.5, 1.0):
        y = _y(top * share, top)
        found.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ccc"/>')
        found.append(_text(_LEFT - 6, y + 4, f"{top * share:g}", "end"))
    return found


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _TOP)


def _line(run: Sequence[tuple[float, float]], colour: str) -> str:
    if len(run) == 1:
        return f'<circle cx="{run[0][0]:.1f}" cy="{run[0][1]:.1f}" r="2" fill="{colour}"/>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _svg(drawn: Sequence[str]) -> str:
    inside = "".join(drawn)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">{inside}</svg>'


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten; 1 of nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value)
