"""`lockstep agent`: agents that stand for a person."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep_client.commands.context import Config, Json, Key, Refused, console, emit, read_configuration, run

if TYPE_CHECKING:
    from rich.console import Console

    from lockstep_client.agent import Eyes, Judgement
    from lockstep_client.configuration import ClientConfiguration
    from lockstep_kit.signing import Signer
    from lockstep_kit.statements import Gate

PolicyOption = Annotated[Path, typer.Option("--policy", help="What the agent may sign: assets, amounts, accounts.")]
OnePlan = Annotated[str | None, typer.Option("--plan", help="Only this plan, then end. [every plan that waits, until stopped]")]

app = typer.Typer(no_args_is_help=True, help="Agents that stand for a person: own process, own key, own checks.")


@app.callback()
def _group() -> None:
    """Agents that stand for a person: own process, own key, own checks."""


@app.command("validate")
def validate(
    key: Key,
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
        from lockstep_client.inspection import Inspector
        from lockstep_client.signers import open_signer
        from lockstep_kit.statements import Gate

        configuration = read_configuration(config)
        signer = open_signer(key)
        async with Inspector.configured(configuration) as inspector:
            await _attend(Gate.VALIDATE, configuration, signer, inspector, plan, rejects=reject, as_json=as_json)

    run(work, json_wanted=as_json)


@app.command("approve")
def approve(key: Key, policy: PolicyOption, plan: OnePlan = None, config: Config = None, as_json: Json = False) -> None:
    """Approve plans that the agent's own policy and registry allow, before they are prepared."""
    _by_policy("APPROVE", key, policy, plan, config, as_json=as_json)


@app.command("release")
def release(key: Key, policy: PolicyOption, plan: OnePlan = None, config: Config = None, as_json: Json = False) -> None:
    """Release prepared plans that the agent's own policy and registry allow, every vote checked against that registry."""
    _by_policy("RELEASE", key, policy, plan, config, as_json=as_json)


def _by_policy(gate_name: str, key: str, policy: Path, plan: str | None, config: Path | None, *, as_json: bool) -> None:
    async def work() -> None:
        from lockstep_client.policies import PolicyEyes, read_policy
        from lockstep_client.signers import open_signer
        from lockstep_kit.registry_file import load_registry
        from lockstep_kit.statements import Gate

        gate, configuration = Gate(gate_name), read_configuration(config)
        signer = open_signer(key)
        eyes = PolicyEyes(gate, signer.public.key_id, load_registry(configuration.registry_file), read_policy(policy))
        await _attend(gate, configuration, signer, eyes, plan, as_json=as_json)

    run(work, json_wanted=as_json)


async def _attend(
    gate: Gate,
    configuration: ClientConfiguration,
    signer: Signer,
    eyes: Eyes,
    plan: str | None,
    *,
    rejects: bool = False,
    as_json: bool,
) -> None:
    from lockstep_client.agent import AgentSettings, Conclusion, GateAgent
    from lockstep_client.commands.settling import check_plan_id, client_of

    out = functools.cache(console)

    def report(judgement: Judgement) -> None:
        if as_json:
            emit(_document(judgement))
        else:
            _show(judgement, out())

    requests = configuration.state_directory / signer.public.key_id
    async with client_of(configuration) as client:
        agent = GateAgent(client, eyes, signer, requests, AgentSettings(rejects=rejects), report, gate=gate)
        if plan is None:
            await _until_stopped(agent)
            return
        last = await agent.attend_one(check_plan_id(plan))
    if last.conclusion is not Conclusion.SIGNED:
        reason = "NOT_VALIDATED" if gate == "VALIDATE" else "NOT_SIGNED"
        raise Refused(reason, last.detail or "something does not hold; the lines above say what", {"plan_id": last.plan_id})


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


def _show(judgement: Judgement, out: Console) -> None:
    out.print(f"{judgement.plan_id}  {judgement.conclusion}  {judgement.detail}".rstrip(), markup=False)
    for each in judgement.findings:
        out.print(f"    {each.rule} {each.leg_id} {each.message}{' (may pass)' if each.may_pass else ''}", markup=False)
