"""`lockstep settle` and `lockstep watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockstep_client.commands.context import Config, Json, PlanId, emit, read_configuration, run


def settle(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Plan file: YAML or JSON.")],
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Create a plan, execute it, and watch it until it is closed. Exits 0 if it settled, 1 if it was aborted or people must decide."""

    async def work() -> None:
        from lockstep_client.commands.settling import require_settled, settled
        from lockstep_client.documents import plan_document

        plan = await settled(read_configuration(config), file, json_wanted=as_json)
        if as_json:
            emit({"plan": plan_document(plan)})
        require_settled(plan)

    run(work, json_wanted=as_json)


def watch(plan: PlanId, config: Config = None, as_json: Json = False) -> None:
    """Watch a plan until its last change, through restarts of the coordinator."""

    async def work() -> None:
        from lockstep_client.commands.settling import check_plan_id, client_of, followed, require_settled
        from lockstep_client.documents import plan_document

        configuration = read_configuration(config)
        async with client_of(configuration) as client:
            last = await followed(client, check_plan_id(plan), json_wanted=as_json, until_stuck=False)
        if as_json:
            emit({"plan": plan_document(last)})
        require_settled(last)

    run(work, json_wanted=as_json)
