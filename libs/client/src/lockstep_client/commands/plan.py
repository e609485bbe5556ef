"""`lockstep plan`: plans one step at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lockstep_client.commands.context import KEY_FORMS, Config, Json, PlanId, console, emit, read_configuration, run

app = typer.Typer(no_args_is_help=True, help="Create, execute, show, list and cancel plans.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="Plan file: YAML or JSON.")]
RequestId = Annotated[
    str | None,
    typer.Option("--request-id", help="UUID of the request: give the same one to repeat a request whose answer was lost."),
]


@app.command("create")
def create(
    file: File,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help=f"The maker's key: {KEY_FORMS}. [maker_key of the configuration]")
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Have a plan accepted, with its maker's signature. Nothing is asked of anyone yet."""

    async def work() -> None:
        from lockstep_client.commands.settling import client_of, drawn, sent
        from lockstep_client.documents import plan_document
        from lockstep_client.rendering import plan_renderable

        configuration = read_configuration(config)
        draft = drawn(configuration, file)
        async with client_of(configuration) as client:
            plan = await sent(client, configuration, draft, key)
        if as_json:
            emit(plan_document(plan))
        else:
            console().print(plan_renderable(plan))

    run(work, json_wanted=as_json)


@app.command("execute")
def execute(plan: PlanId, request_id: RequestId = None, config: Config = None, as_json: Json = False) -> None:
    """Start a plan, with the token payers' signatures from the configured keystores."""

    async def work() -> None:
        from lockstep_client.commands.settling import check_plan_id, client_of, executed
        from lockstep_client.documents import plan_document
        from lockstep_client.rendering import plan_renderable

        configuration = read_configuration(config)
        plan_id = check_plan_id(plan)
        async with client_of(configuration) as client:
            started = await executed(client, configuration, await client.get_plan(plan_id), request_id)
        if as_json:
            emit(plan_document(started))
        else:
            console().print(plan_renderable(started))

    run(work, json_wanted=as_json)


@app.command("show")
def show(plan: PlanId, config: Config = None, as_json: Json = False) -> None:
    """Show a plan as it stands, with its transitions."""

    async def work() -> None:
        from lockstep_client.commands.settling import check_plan_id, client_of
        from lockstep_client.documents import plan_document, transition_document
        from lockstep_client.rendering import plan_renderable

        configuration = read_configuration(config)
        plan_id = check_plan_id(plan)
        async with client_of(configuration) as client:
            found = await client.get_plan(plan_id)
            transitions = [transition_document(each) async for each in client.list_transitions(plan_id)]
        if as_json:
            emit(plan_document(found) | {"transitions": transitions})
            return
        console().print(plan_renderable(found))
        for each in transitions:
            line = f"  {each['transition_no']:>3}  {each['transition_time']}  {each['to_state']}  {each.get('decision', '')}"
            console().print(f"{line}  {each['cause']}", markup=False)

    run(work, json_wanted=as_json)


@app.command("list")
def list_plans(
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only plans in this state; may be given several times.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Plans at the most.")] = 50,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List plans, newest first."""

    async def work() -> None:
        from lockstep.coordinator.v1.settlement_pb2 import PlanState
        from lockstep_client.commands.settling import client_of
        from lockstep_client.documents import plan_document
        from lockstep_client.rendering import summary_line
        from lockstep_kit.fields import require

        configuration = read_configuration(config)
        known = {name.removeprefix("PLAN_STATE_"): number for name, number in PlanState.items() if number}
        wanted = [each.upper() for each in state or ()]
        for each in wanted:
            require(each in known, "--state", f"must be one of {', '.join(known)}")
        shown = 0
        async with client_of(configuration) as client:
            async for plan in client.list_plans(states=[known[each] for each in wanted], page_size=min(limit, 200)):
                if as_json:
                    emit(plan_document(plan))
                else:
                    console().print(summary_line(plan), markup=False)
                shown += 1
                if shown == limit:
                    break

    run(work, json_wanted=as_json)


@app.command("cancel")
def cancel(
    plan: PlanId,
    key: Annotated[
        str, typer.Option("--key", metavar="KEY", help=f"Key of the maker, approver, releaser or an operator: {KEY_FORMS}.")
    ],
    etag: Annotated[str, typer.Option("--etag", help="Refuse if the plan has changed since it had this etag.")] = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Stop a plan before its decision; every hold is released."""

    async def work() -> None:
        import asyncio

        from lockstep_client.commands.settling import check_plan_id, client_of
        from lockstep_client.commands.signatures import cancel_signature
        from lockstep_client.convert import plan_from_pb
        from lockstep_client.documents import plan_document
        from lockstep_client.rendering import plan_renderable
        from lockstep_client.signers import open_signer

        configuration = read_configuration(config)
        plan_id = check_plan_id(plan)
        signer = open_signer(key)
        async with client_of(configuration) as client:
            view = plan_from_pb(await client.get_plan(plan_id))
            stopped = await client.cancel_plan(plan_id, await asyncio.to_thread(cancel_signature, signer, view), etag=etag)
        if as_json:
            emit(plan_document(stopped))
        else:
            console().print(plan_renderable(stopped))

    run(work, json_wanted=as_json)
