"""`lockstep trace`: who called whom for a plan, and how long it took."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lockstep_client.commands.context import Config, Json, PlanId, Refused, console, emit, read_configuration, run

if TYPE_CHECKING:
    from lockstep_client.configuration import ClientConfiguration

#: Services are told apart by colour as well as by name.
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red", "white")


def trace(
    plan: PlanId,
    every: Annotated[bool, typer.Option("--all", help="Every trace that touches the plan, not only its own.")] = False,
    statements: Annotated[bool, typer.Option("--statements", help="Show single database statements, too.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with the plan's timeline and its trace instead.")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show a plan's trace as a waterfall, from the span store."""

    async def work() -> None:
        from lockstep_client.commands.settling import check_plan_id
        from lockstep_client.span_reader import read_traces
        from lockstep_client.waterfall import main_trace

        configuration = read_configuration(config)
        if configuration.spans_url is None:
            raise Refused("SPANS_NOT_CONFIGURED", "no span store is configured; name one as spans_url in the configuration")
        plan_id = check_plan_id(plan)
        traces = await read_traces(configuration.spans_url, plan_id)
        if not traces:
            raise Refused("TRACE_NOT_FOUND", f"the span store holds no trace of plan {plan_id}")
        if html is not None:
            await _write_page(html, configuration, plan_id, traces)
            return
        for each in traces if every else [main_trace(traces, plan_id)]:
            if as_json:
                emit({"plan_id": plan_id, **each})
            else:
                _show(each, statements=statements)

    run(work, json_wanted=as_json)


async def _write_page(file: Path, configuration: ClientConfiguration, plan_id: str, traces: list[dict[str, Any]]) -> None:
    from lockstep_client.commands.settling import client_of
    from lockstep_client.timeline import timeline
    from lockstep_client.trace_page import trace_page
    from lockstep_client.waterfall import main_trace

    async with client_of(configuration) as client:
        plan = await client.get_plan(plan_id)
        transitions = [each async for each in client.list_transitions(plan_id)]
    page = trace_page(plan_id, timeline(plan, transitions), main_trace(traces, plan_id, plan.trace_id))
    await asyncio.to_thread(file.write_text, page, encoding="utf-8")
    console().print(f"wrote {file}", markup=False)


def _show(trace: Mapping[str, Any], *, statements: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from lockstep_client.waterfall import TIME_WIDTH, bars, columns, drawn, duration_text, without_statements

    spans = trace["spans"] if statements else without_statements(trace["spans"])
    lines = bars(spans)
    services = sorted({line.service for line in lines})
    colours = {service: _COLOURS[index % len(_COLOURS)] for index, service in enumerate(services)}
    total = max((line.offset_us + line.duration_us for line in lines), default=0)
    out = console()
    # Without service and times a waterfall says nothing: on a narrow terminal the names are cut.
    service_width, name_width, bar_width = columns(lines, out.width)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    widths = {"service": service_width, "what": name_width, "from": TIME_WIDTH, "took": TIME_WIDTH, "": bar_width}
    for heading, width in widths.items():
        justify: Literal["left", "right"] = "right" if heading in ("from", "took") else "left"
        table.add_column(heading, header_style="dim", no_wrap=True, width=width, justify=justify)
    for line in lines:
        marks = ("? " if line.adrift else "") + line.name + (f" ↗{line.links}" if line.links else "")
        name = Text("  " * line.depth + marks, style="red" if line.failed else "default", overflow="ellipsis")
        bar = Text(drawn(line, total, bar_width), style=colours[line.service])
        service = Text(line.service, style=colours[line.service])
        table.add_row(service, name, duration_text(line.offset_us), duration_text(line.duration_us), bar)
    told = f"trace {trace['trace_id']}: {len(lines)} spans, {duration_text(total)}, {', '.join(services)}"
    left_out = len(trace["spans"]) - len(lines)
    out.print(f"{told}; {left_out} statements (--statements)" if left_out else told, markup=False)
    out.print(table)
    if any(line.links for line in lines):
        out.print("↗n: linked to n spans elsewhere", style="dim")
    if any(line.adrift for line in lines):
        out.print("?: its parent is not in the store", style="dim")
