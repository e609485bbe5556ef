"""`lockstep sign`: a person's signature at a gate."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from lockstep_client.commands.context import Config, Json, Key, Nonce, PlanId, console, emit, read_configuration, run


class GateName(StrEnum):
    """Gates that are signed one by one."""

    APPROVE = "approve"
    RELEASE = "release"
    VALIDATE = "validate"


def sign(
    plan: PlanId,
    gate: Annotated[GateName, typer.Option("--gate", help="What is decided.")],
    key: Key,
    reject: Annotated[bool, typer.Option("--reject", help="Refuse the gate instead of opening it.")] = False,
    valid: Annotated[
        str | None,
        typer.Option(
            "--valid",
            help='How long the signature is good: "10m", "2h", or until an RFC 3339 time. [until after the plan\'s deadline; validate: 1h]',
        ),
    ] = None,
    nonce: Nonce = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Sign a gate of a plan. Shows what is signed; for `validate` it inspects the evidence first and refuses over anything that does not hold."""

    async def work() -> None:
        import asyncio
        from datetime import UTC, datetime

        from lockstep_client.commands.settling import check_plan_id, client_of
        from lockstep_client.commands.signatures import read_nonce, refuse_over, statement
        from lockstep_client.convert import plan_from_pb
        from lockstep_client.documents import plan_document
        from lockstep_client.inspection import Inspector
        from lockstep_client.planfile import deadline
        from lockstep_client.rendering import plan_renderable
        from lockstep_client.signers import open_signer
        from lockstep_kit.fields import within
        from lockstep_kit.registry_file import load_registry
        from lockstep_kit.statements import Gate, Verdict

        configuration = read_configuration(config)
        plan_id = check_plan_id(plan)
        signer = open_signer(key)
        with within("--valid"):
            until = deadline(valid, datetime.now(UTC)) if valid is not None else None
        drawn = read_nonce(nonce) if nonce else None
        verdict = Verdict.REJECT if reject else Verdict.APPROVE
        async with client_of(configuration) as client:
            view = plan_from_pb(await client.get_plan(plan_id))
            registry = load_registry(configuration.registry_file)
            wanted = statement(Gate(gate.value.upper()), verdict, view, registry, until, drawn)
            if wanted.gate is Gate.VALIDATE and verdict is Verdict.APPROVE:
                async with Inspector.configured(configuration) as inspector:
                    (found,) = await inspector.inspect([view])
                    refuse_over(found, "the evidence does not hold")
            if not as_json:
                for line in wanted.lines():
                    console().print(line, markup=False)
            signed = await client.sign_gate(plan_id, await asyncio.to_thread(wanted.signed, signer))
        if as_json:
            emit(
                {
                    "signed": {"gate": wanted.gate.value, "verdict": verdict.value, "key_id": signer.public.key_id},
                    "plan": plan_document(signed),
                }
            )
        else:
            console().print(plan_renderable(signed))

    run(work, json_wanted=as_json)
