"""What the shell is told when it completes a plan's id: open plans, newest first; nothing where they cannot be had at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

import typer

#: Longest that a shell is kept waiting.
SECONDS_MAX: Final = 2.0
PLANS_MAX: Final = 50


def open_plans(context: typer.Context, incomplete: str) -> list[str]:
    """Ids of open plans that begin so; asked of the configured coordinator, with `--config` where it stands before."""
    named = context.params.get("config")
    # A shell has nowhere to show an error: whatever is wrong, it completes nothing.
    with suppress(Exception):
        return asyncio.run(_asked(Path(named) if named else None, incomplete))
    return []


async def _asked(config: Path | None, incomplete: str) -> list[str]:
    from lockstep.coordinator.v1.settlement_pb2 import PLAN_STATE_CLOSED, PlanState
    from lockstep_client.calls import CallSettings
    from lockstep_client.commands.context import read_configuration
    from lockstep_client.commands.settling import client_of

    states = [each for each in PlanState.values() if each not in (0, PLAN_STATE_CLOSED)]
    found: list[str] = []
    soon = CallSettings(deadline_seconds=SECONDS_MAX, attempts_max=1)
    async with client_of(read_configuration(config), soon) as client, asyncio.timeout(SECONDS_MAX):
        async for plan in client.list_plans(states=states, page_size=PLANS_MAX):
            if plan.header.plan_id.startswith(incomplete):
                found.append(plan.header.plan_id)
            if len(found) == PLANS_MAX:
                break
    return found
