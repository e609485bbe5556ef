"""`lockstep trace`: who called whom for a plan, and how long it took."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from lockstep_client.commands.context import Config, Json, PlanId, Refused, console, emit, read_configuration, run

BAR_WIDTH = 40
#: Services are told apart by colour as well as by name.
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red", "white")


def trace(
    plan: PlanId,
    every: Annotated[bool, typer.Option("--all", help="Every trace that touches the plan, not only the largest.")] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show a plan's trace as a waterfall, from the span store."""

    async def work() -> None:
        from lockstep_client.commands.settling import check_plan_id
        from lockstep_client.span_reader import read_traces

        configuration = read_configuration(config)
        if configuration.spans_url is None:
            raise Refused("SPANS_NOT_CONFIGURED", "no span store is configured; name one as spans_url in the configuration")
        plan_id = check_plan_id(plan)
        traces = await read_traces(configuration.spans_url, plan_id)
        if not traces:
            raise Refused("TRACE_NOT_FOUND", f"the span store holds no trace of plan {plan_id}")
        wanted = traces if every else [max(traces, key=lambda each: len(each["spans"]))]
        for each in wanted:
            if as_json:
                emit({"plan_id": plan_id, **each})
            else:
                _show(each)

    run(work, json_wanted=as_json)


def _show(trace: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from lockstep_client.waterfall import bars, drawn, duration_text

    lines = bars(trace["spans"])
    services = sorted({line.service for line in lines})
    colours = {service: _COLOURS[index % len(_COLOURS)] for index, service in enumerate(services)}
    total = max((line.offset_us + line.duration_us for line in lines), default=0)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    # On a narrow terminal the middle column gives way: without service and times a waterfall says nothing.
    for heading, width in (
        ("service", max(map(len, services), default=0)),
        ("what", None),
        ("from", 8),
        ("took", 8),
        ("", BAR_WIDTH),
    ):
        justify: Literal["left", "right"] = "right" if heading in ("from", "took") else "left"
        table.add_column(heading, header_style="dim", no_wrap=True, min_width=width, justify=justify)
    for line in lines:
        name = Text("  " * line.depth + line.name, style="red" if line.failed else "default", overflow="ellipsis")
        bar = Text(drawn(line, total, BAR_WIDTH), style=colours[line.service])
        service = Text(line.service, style=colours[line.service])
        table.add_row(service, name, duration_text(line.offset_us), duration_text(line.duration_us), bar)
    out = console()
    out.print(f"trace {trace['trace_id']}: {len(lines)} spans, {duration_text(total)}, {', '.join(services)}", markup=False)
    out.print(table)
