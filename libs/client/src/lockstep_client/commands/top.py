"""`lockstep top`: all open plans, the most urgent first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from lockstep_client.commands.context import Config, Json, console, emit, read_configuration, run

if TYPE_CHECKING:
    from lockstep.coordinator.v1.settlement_pb2 import Plan
    from lockstep_client.client import LockstepClient
    from lockstep_client.operators import OperatorClient
    from lockstep_client.overview import Overview

PlansRead: TypeAlias = "Callable[[], Awaitable[tuple[list[Plan], bool]]]"

#: Plans that are read at the most, open ones and recent ones each; of those that are followed so many that are closed are kept.
PLANS_MAX = 500
#: Longest that changes are gathered.
GATHER_SECONDS_MAX = 10.0
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

                async with followed_plans(client, every) as plans:
                    await shown_again(lambda: read_overview(plans, operators), every)
                return
            overview = await read_overview(lambda: listed_plans(client), operators)
        if as_json:
            emit(overview_document(overview))
        else:
            console().print(overview_renderable(overview))

    run(work, json_wanted=as_json)


async def listed_plans(client: LockstepClient) -> tuple[list[Plan], bool]:
    """The open plans and the recent ones, asked for now; and whether some are left out."""
    from lockstep.coordinator.v1.settlement_pb2 import PLAN_STATE_CLOSED, PlanState

    states = [each for each in PlanState.values() if each not in (0, PLAN_STATE_CLOSED)]
    found: dict[str, Plan] = {}
    more = False
    async for plan in client.list_plans(states=states, page_size=200):
        more = len(found) == PLANS_MAX
        if more:
            break
        found[plan.header.plan_id] = plan
    found |= {plan.header.plan_id: plan for plan in await recent_plans(client)}
    return list(found.values()), more


async def recent_plans(client: LockstepClient) -> list[Plan]:
    """Plans that were made lately, closed ones too."""
    from datetime import UTC, datetime

    from lockstep_client.overview import RECENT, plan_time

    since = datetime.now(UTC) - RECENT
    found: list[Plan] = []
    async for plan in client.list_plans(page_size=200):
        if plan_time(plan.create_time) < since or len(found) == PLANS_MAX:
            break
        found.append(plan)
    return found


@asynccontextmanager
async def followed_plans(client: LockstepClient, every_seconds: float) -> AsyncIterator[PlansRead]:
    """The same, kept up to date by one stream; reading them costs nothing, and says why where the coordinator is not heard.

    Raises:
        LockstepError: the coordinator refuses.
    """
    import asyncio
    from datetime import timedelta

    from lockstep_client.standing_plans import StandingPlans

    gather = timedelta(seconds=min(every_seconds, GATHER_SECONDS_MAX))
    standing = StandingPlans(client, gather=gather, seed=lambda: recent_plans(client), closed_max=PLANS_MAX)
    following = asyncio.create_task(standing.run())

    async def read() -> tuple[list[Plan], bool]:
        while not (standing.known or standing.trouble or following.done()):
            bell = asyncio.ensure_future(standing.bell.ticket().wait())
            await asyncio.wait((bell, following), return_when=asyncio.FIRST_COMPLETED)
            bell.cancel()
        if following.done():
            following.result()
        if standing.trouble is not None:
            raise standing.trouble
        return list(standing.plans.values()), False

    try:
        yield read
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def read_overview(read: PlansRead, operators: OperatorClient) -> Overview:
    """How all plans stand now."""
    from datetime import UTC, datetime

    from lockstep.coordinator.v1.settlement_pb2 import PLAN_STATE_CLOSED
    from lockstep_client.overview import RECENT, Overview, plan_time

    moment = datetime.now(UTC)
    plans, more = await read()
    escalations = []
    async for each in operators.list_escalations(page_size=ESCALATIONS_MAX):
        escalations.append(each)
        if len(escalations) == ESCALATIONS_MAX:
            break
    totals, _ = await operators.list_in_doubt()
    moving = [plan for plan in plans if plan.state != PLAN_STATE_CLOSED]
    recent = [plan for plan in plans if plan_time(plan.create_time) >= moment - RECENT]
    return Overview(moment, tuple(moving), more, tuple(escalations), tuple(totals), tuple(recent))
