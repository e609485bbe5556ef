"""`lockstep journal`: a plan's chain of signed events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lockstep_client.commands.context import Config, Json, PlanId, Refused, console, emit, read_configuration, run

app = typer.Typer(no_args_is_help=True, help="A plan's chain of signed events.")


@app.callback()
def _group() -> None:
    """A plan's chain of signed events."""


@app.command("verify")
def verify(plan: PlanId, config: Config = None, as_json: Json = False) -> None:
    """Verify a plan's chain twice: by the journal's own verdict, and here, with nothing but the public keys. Exits 1 unless both hold and agree."""

    async def work() -> None:
        document, entries = await _verified(plan, read_configuration(config))
        if as_json:
            emit(document)
        else:
            _show(document, entries)
        if not document["valid"]:
            raise Refused("JOURNAL_INVALID", "the chain does not verify; call an operator", {"plan_id": document["plan_id"]})

    run(work, json_wanted=as_json)


async def _verified(plan: str, configuration: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Both verdicts side by side, and the entries."""
    from lockstep_client.commands.settling import check_plan_id
    from lockstep_client.convert import entry_from_pb
    from lockstep_client.documents import entry_document
    from lockstep_client.journal_chain import verify_chain
    from lockstep_client.readers import JournalClient
    from lockstep_kit.registry_file import load_registry

    plan_id = check_plan_id(plan)
    registry = load_registry(configuration.registry_file)
    async with JournalClient(configuration.journal, configuration.tls) as client:
        theirs = await client.verify_plan(plan_id)
        entries = [entry async for entry in client.list_entries(plan_id)]
    ours = verify_chain([entry_from_pb(entry) for entry in entries], plan_id, registry)
    # The chain may have grown between the two looks at it, but never after its seal.
    agree = ours.entry_count >= theirs.entry_count and (ours.entry_count > theirs.entry_count or ours.head_hash == theirs.head_hash)
    document = {
        "plan_id": plan_id,
        "valid": theirs.valid and ours.valid and agree,
        "entries": ours.entry_count,
        "head_hash": ours.head_hash.hex(),
        "sealed": ours.sealed,
        "payloads_erased": ours.payloads_erased,
        "journal": {
            "valid": theirs.valid,
            "entries": theirs.entry_count,
            "findings": [{"sequence": each.sequence, "rule": each.rule, "message": each.message} for each in theirs.findings],
        },
        "local": {
            "valid": ours.valid,
            "entries": ours.entry_count,
            "findings": [{"sequence": each.sequence, "rule": each.rule, "message": each.message} for each in ours.findings],
        },
        "agree": agree,
    }
    return document, [entry_document(entry) for entry in entries]


def _show(document: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    out = console()
    for each in entries:
        line = f"{each['sequence']:>4}  {each['event_time']}  {each['type']:<20} {each['actor']} ({each['actor_role']})"
        out.print(f"{line}  {each['entry_hash'][:16]}…", markup=False)
    for who in ("journal", "local"):
        verdict = document[who]
        out.print(f"{who:<8} {'valid' if verdict['valid'] else 'INVALID'}, {verdict['entries']} entries", markup=False)
        for finding in verdict["findings"]:
            out.print(f"         entry {finding['sequence']}: {finding['rule']} {finding['message']}", markup=False, style="red")
    if not document["agree"]:
        out.print("the journal's verdict is about another chain than the one it delivers", style="red")
    out.print(f"head     {document['head_hash']}{'  sealed' if document['sealed'] else '  not sealed'}", markup=False)
    if document["payloads_erased"]:
        out.print("payloads were erased: their hashes stand in what was signed, and what they said is gone", markup=False)


@app.command("export")
def export(
    plan: PlanId,
    out: Annotated[Path, typer.Option("-o", "--out", help="Write the bundle to this new file.")],
    wait: Annotated[
        float, typer.Option("--wait", min=0, max=600, help="Longest wait in seconds for the plan's checkpoint.")
    ] = 30.0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Write a plan's bundle of evidence, which anyone can verify offline (`lockstep verify`). Says what it does not hold yet."""

    async def work() -> None:
        from lockstep_client.bundle_document import bundle_document, missing
        from lockstep_client.bundle_export import gather, write_new
        from lockstep_client.commands.settling import check_plan_id, client_of
        from lockstep_client.readers import JournalClient, NotaryClient

        configuration, plan_id = read_configuration(config), check_plan_id(plan)
        async with (
            client_of(configuration) as coordinator,
            JournalClient(configuration.journal, configuration.tls) as journal,
            NotaryClient(configuration.notary, configuration.tls) as notary,
        ):
            gathered = await gather(plan_id, coordinator, journal, notary, wait_seconds=wait)
        document = bundle_document(gathered)
        write_new(out, document)
        absent = missing(gathered)
        if as_json:
            emit({"plan_id": plan_id, "bundle": str(out), "entries": len(document["entries"]), "missing": absent})
            return
        console().print(f"{out}: {len(document['entries'])} entries of plan {plan_id}", markup=False)
        for each in absent:
            console().print(f"not in it: {each}", markup=False, style="yellow")

    run(work, json_wanted=as_json)


@app.command("trust")
def trust(
    out: Annotated[Path, typer.Option("-o", "--out", help="Write the draft to this new file.")],
    origin: Annotated[str, typer.Option("--origin", help="Name of the journal's log.")] = "lockstep.local/journal",
    witness: Annotated[str, typer.Option("--witness", help="Name of the witness's key.")] = "lockstep.local/notary",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Draft a trust file from the local registry. Before you verify anything by it, compare every key with what its holder says.

    The same goes for roles, limits and matrices of duties: compare them with what was agreed.
    """

    async def work() -> None:
        from lockstep_client.bundle_export import write_new
        from lockstep_client.trust_document import trust_document
        from lockstep_kit.registry_file import load_registry

        configuration = read_configuration(config)
        document = trust_document(
            load_registry(configuration.registry_file),
            origin=origin,
            witness=witness,
            chain=configuration.chain,
            notary_registry=configuration.notary_registry,
            notary_accounts=configuration.notary_accounts,
        )
        write_new(out, document)
        if as_json:
            told = {name: len(document[name]) for name in ("participants", "persons", "matrices")}
            emit({"trust": str(out), **told})
        else:
            console().print(
                f"{out}: a draft; compare every key in it with what its holder says, and roles, limits and matrices with what was agreed",
                markup=False,
            )

    run(work, json_wanted=as_json)
