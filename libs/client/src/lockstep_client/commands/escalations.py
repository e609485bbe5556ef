"""`lockstep escalations`: what needs operators, and what two of them decide about it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep_client.commands.context import Config, Json, Key, Nonce, console, emit, read_configuration, run

if TYPE_CHECKING:
    from lockstep.notary.v1.escalation_record_pb2 import EscalationRecord
    from lockstep_client.configuration import ClientConfiguration
    from lockstep_contracts.notary import KnownEscalation

app = typer.Typer(no_args_is_help=True, help="List, show and resolve escalations.")

Escalation = Annotated[str, typer.Argument(metavar="ESCALATION", help="Id of the escalation.")]


class VerbName(StrEnum):
    """What operators can do."""

    RETRY = "retry"
    REVERSE = "reverse"
    RESOLVE = "resolve"
    FORGET = "forget"


class Which(StrEnum):
    """Which escalations."""

    OPEN = "open"
    CLOSED = "closed"
    ALL = "all"


@app.command("list")
def list_escalations(
    which: Annotated[Which, typer.Option("--which", help="Open ones, closed ones, or all.")] = Which.OPEN,
    plan: Annotated[str, typer.Option("--plan", help="Only this plan's.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Only with this reason.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Escalations at the most.")] = 50,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """List escalations, newest first."""

    async def work() -> None:
        from lockstep.coordinator.v1.operator_service_pb2 import EscalationFilter
        from lockstep_client.commands.resolutions import operators_of
        from lockstep_client.commands.settling import check_plan_id
        from lockstep_client.operator_documents import file_document
        from lockstep_client.operator_rendering import escalations_table

        configuration = read_configuration(config)
        plan_id = check_plan_id(plan) if plan else ""
        wanted = EscalationFilter.Value(f"ESCALATION_FILTER_{which.value.upper()}")
        found = []
        async with operators_of(configuration) as client:
            async for each in client.list_escalations(wanted, plan_id=plan_id, reason=reason, page_size=min(limit, 200)):
                found.append(each)
                if as_json:
                    emit(file_document(each))
                if len(found) == limit:
                    break
        if not as_json:
            console().print(escalations_table(found))

    run(work, json_wanted=as_json)


@app.command("show")
def show(escalation: Escalation, config: Config = None, as_json: Json = False) -> None:
    """Show an escalation: what is at risk, where every leg stands, what may be done, who signed what, and its record on chain."""

    async def work() -> None:
        from lockstep_client.commands.resolutions import operators_of
        from lockstep_client.escalation_record import check_records
        from lockstep_client.operator_documents import escalation_file_document, record_document
        from lockstep_client.operator_rendering import escalation_renderable, records_renderable

        configuration = read_configuration(config)
        async with operators_of(configuration) as client:
            found = await client.get_escalation(escalation)
        kept, known = await _recorded(configuration, found.escalation.plan_id, found.escalation.escalation.escalation_id)
        views, findings = check_records(found.escalation, kept, known)
        if as_json:
            emit(escalation_file_document(found) | record_document(views, findings))
        else:
            console().print(escalation_renderable(found))
            console().print(records_renderable(views, findings))

    run(work, json_wanted=as_json)


async def _recorded(
    configuration: ClientConfiguration, plan_id: str, escalation_id: str
) -> tuple[Sequence[EscalationRecord] | None, KnownEscalation | None]:
    """What the notary keeps and a node says of an escalation; None for who is not configured or does not answer, since it is shown all the same."""
    from lockstep_client.calls import CallSettings
    from lockstep_client.chain_reader import ChainReader
    from lockstep_client.readers import NotaryClient
    from lockstep_client.reading import ReadingFailed
    from lockstep_kit.errors import LockstepError
    from lockstep_kit.escalations import escalation_hash

    kept, known = None, None
    # Operators wait for the escalation, not for what is said of it.
    soon = CallSettings(deadline_seconds=3.0, attempts_max=2)
    async with NotaryClient(configuration.notary, configuration.tls, soon) as notary:
        with contextlib.suppress(LockstepError):
            kept = await notary.get_escalation_records(plan_id)
    if configuration.chain_rpc_url is not None:
        async with ChainReader(configuration.chain_rpc_url) as reader:
            with contextlib.suppress(ReadingFailed):
                known = await reader.escalation_record(configuration.notary_registry, escalation_hash(escalation_id))
    return kept, known


@app.command("sign")
def sign(
    escalation: Escalation,
    verb: Annotated[VerbName, typer.Option("--verb", help="What is to be done.")],
    detail: Annotated[
        str, typer.Option("--detail", help="Why, in one sentence; it is journaled, and both operators sign the same.")
    ],
    key: Key,
    leg: Annotated[str, typer.Option("--leg", help="The leg, for retry and resolve.")] = "",
    executed: Annotated[
        bool | None, typer.Option("--executed/--not-executed", help="resolve --leg: whether the leg took effect.")
    ] = None,
    evidence: Annotated[Path | None, typer.Option("--evidence", help="resolve --leg: what shows it, YAML or JSON.")] = None,
    valid: Annotated[
        str, typer.Option("--valid", help='How long the signature is good: "10m", "2h", or until an RFC 3339 time.')
    ] = "1h",
    nonce: Nonce = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Sign what is to be done about an escalation. The second operator's like signature makes it take effect."""

    async def work() -> None:
        import asyncio
        from datetime import UTC, datetime

        from lockstep_client.commands.resolutions import (
            Asked,
            check_shown,
            lines,
            operators_of,
            read_evidence,
            resolution_statement,
        )
        from lockstep_client.commands.signatures import read_nonce
        from lockstep_client.operator_documents import file_document
        from lockstep_client.operator_rendering import escalation_renderable
        from lockstep_client.planfile import deadline
        from lockstep_client.signers import open_signer
        from lockstep_kit.fields import within
        from lockstep_kit.resolutions import Verb, sign_resolution

        configuration = read_configuration(config)
        signer = open_signer(key)
        with within("--valid"):
            expires_at = deadline(valid, datetime.now(UTC))
        drawn = read_nonce(nonce) if nonce else None
        shown = None if evidence is None else read_evidence(evidence)
        asked = Asked(escalation, Verb(verb.value.upper()), leg, executed, shown, detail)
        async with operators_of(configuration) as client:
            found = await client.get_escalation(escalation)
            wanted = resolution_statement(asked, check_shown(found, escalation), expires_at, drawn)
            signed = await asyncio.to_thread(sign_resolution, wanted, signer)
            if not as_json:
                for line in lines(signed.statement):
                    console().print(line, markup=False)
            answer = await client.sign_resolution(signed)
            after = await client.get_escalation(escalation)
        if as_json:
            emit({"took_effect": answer.took_effect, "escalation": file_document(answer.escalation)})
            return
        console().print("it took effect" if answer.took_effect else "signed")
        console().print(escalation_renderable(after))

    run(work, json_wanted=as_json)
