"""`lockstep top`: all open plans, the most urgent first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lockstep_client.commands.context import Config, Json, console, emit, read_configuration, run

if TYPE_CHECKING:
    from lockstep_client.client import LockstepClient
    from lockstep_client.operators import OperatorClient
    from lockstep_client.overview import Overview

#: Plans that are read at the most, open ones and recent ones each.
PLANS_MAX = 500
ESCALATIONS_MAX = 200


def top(
    every: Annotated[float, typer.Option("--every", min=1, max=600, metavar="SECONDS", help="How often it is read anew.")] = 3.0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show all open plans, the most urgent first, again and again; q ends it, arrows scroll. Not on a terminal, or with --json: once."""

    async def work() -> None:
        import sys

        from lockstep_client.commands.resolutions import operators_of
        from lockstep_client.commands.settling import client_of
        from lockstep_client.overview import overview_document, overview_renderable

        configuration = read_configuration(config)
        async with client_of(configuration) as client, operators_of(configuration) as operators:
            if sys.stdout.isatty() and not as_json:
                from lockstep_client.commands.screen import shown_again

                await shown_again(lambda: read_overview(client, operators), every)
                return
            overview = await read_overview(client, operators)
        if as_json:
            emit(overview_document(overview))
        else:
            console().print(overview_renderable(overview))

    run(work, json_wanted=as_json)


async def read_overview(client: LockstepClient, operators: OperatorClient) -> Overview:
    """How all plans stand now."""
    from datetime import UTC, datetime

    from lockstep.coordinator.v1.settlement_pb2 import PLAN_STATE_CLOSED, Plan, PlanState
    from lockstep_client.overview import RECENT, Overview, plan_time

    moment = datetime.now(UTC)
    states = [each for each in PlanState.values() if each not in (0, PLAN_STATE_CLOSED)]
    plans: list[Plan] = []
    more = False
    async for plan in client.list_plans(states=states, page_size=200):
        more = len(plans) == PLANS_MAX
        if more:
            break
        plans.append(plan)
    recent: list[Plan] = []
    async for plan in client.list_plans(page_size=200):
        if plan_time(plan.create_time) < moment - RECENT or len(recent) == PLANS_MAX:
            break
        recent.append(plan)
    escalations = []
    async for each in operators.list_escalations(page_size=ESCALATIONS_MAX):
        escalations.append(each)
        if len(escalations) == ESCALATIONS_MAX:
            break
    totals, _ = await operators.list_in_doubt()
    return Overview(moment, tuple(plans), more, tuple(escalations), tuple(totals), tuple(recent))
