"""`lockstep agent`: agents that stand for a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep_client.commands.context import Config, Json, Refused, console, emit, read_configuration, run

if TYPE_CHECKING:
    from lockstep_client.agent import Judgement

app = typer.Typer(no_args_is_help=True, help="Agents that stand for a person: own process, own key, own checks.")


@app.callback()
def _group() -> None:
    """Agents that stand for a person: own process, own key, own checks."""


@app.command("validate")
def validate(
    key: Annotated[Path, typer.Option("--key", help="The validator's key.")],
    plan: Annotated[
        str | None, typer.Option("--plan", help="Only this plan, then end. [every plan that waits, until stopped]")
    ] = None,
    reject: Annotated[
        bool, typer.Option("--reject", help="Sign a REJECT over evidence that cannot come to hold, instead of not signing.")
    ] = False,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Inspect the evidence of plans that wait for validation, and sign for those whose evidence holds."""

    async def work() -> None:
        from lockstep_client.agent import AgentSettings, Conclusion, ValidatorAgent
        from lockstep_client.commands.settling import check_plan_id, client_of
        from lockstep_client.inspection import Inspector
        from lockstep_kit.key_files import read_signing_key

        configuration = read_configuration(config)
        signer = read_signing_key(key)
        requests = configuration.state_directory / signer.public.key_id

        def report(judgement: Judgement) -> None:
            if as_json:
                emit(_document(judgement))
            else:
                _show(judgement)

        async with client_of(configuration) as client, Inspector.configured(configuration) as inspector:
            agent = ValidatorAgent(client, inspector, signer, requests, AgentSettings(rejects=reject), report)
            if plan is None:
                await _until_stopped(agent)
                return
            last = await agent.validate_one(check_plan_id(plan))
        if last.conclusion is not Conclusion.SIGNED:
            raise Refused(
                "NOT_VALIDATED", last.detail or "the evidence does not hold; the lines above say what", {"plan_id": last.plan_id}
            )

    run(work, json_wanted=as_json)


async def _until_stopped(agent: Any) -> None:
    import asyncio
    import contextlib
    import signal

    running = asyncio.ensure_future(agent.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _document(judgement: Judgement) -> dict[str, Any]:
    findings = [
        {"rule": each.rule, "leg_id": each.leg_id, "message": each.message, "may_pass": each.may_pass}
        for each in judgement.findings
    ]
    return {
        "plan_id": judgement.plan_id,
        "conclusion": judgement.conclusion.value,
        "findings": findings,
        "detail": judgement.detail,
    }


def _show(judgement: Judgement) -> None:
    out = console()
    out.print(f"{judgement.plan_id}  {judgement.conclusion}  {judgement.detail}".rstrip(), markup=False)
    for each in judgement.findings:
        out.print(f"    {each.rule} {each.leg_id} {each.message}{' (may pass)' if each.may_pass else ''}", markup=False)
