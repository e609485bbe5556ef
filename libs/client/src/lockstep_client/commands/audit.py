"""`lockstep audit`: how a plan that did not settle ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockstep_client.commands.context import Config, Json, PlanId, Refused, console, emit, read_configuration, run

if TYPE_CHECKING:
    from lockstep_client.audit_check import RegistryRecord
    from lockstep_client.configuration import ClientConfiguration
    from lockstep_client.convert import AuditView, PlanView


def audit(
    plan: PlanId,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the log's bytes to this new file.")] = None,
    sha256: Annotated[
        str, typer.Option("--sha256", help="The log with this hash, as a proof names it. [the plan's last one]")
    ] = "",
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show a plan's abort audit log and verify it: its hash, the notary's signature, the journal's seal, and the chain where a node is configured.

    Exits 1 unless everything holds.
    """

    async def work() -> None:
        from lockstep_client.audit_check import document_of, first
        from lockstep_client.commands.settling import check_plan_id

        configuration = read_configuration(config)
        plan_id = check_plan_id(plan)
        wanted = _digest(sha256)
        view, shown, record, findings = await _checked(configuration, plan_id, wanted)
        if out is not None:
            with out.open("xb") as file:
                file.write(view.octets)
        log = document_of(view)
        document = {
            "plan_id": plan_id,
            "valid": not findings,
            "sha256": view.digest.hex(),
            "copy": view.copy,
            "chain": _record_document(record),
            "findings": [{"rule": each.rule, "message": each.message} for each in findings],
            "log": log,
        }
        if as_json:
            emit(document)
        else:
            _show(document, shown)
        if findings:
            raise Refused("AUDIT_INVALID", first(findings), {"plan_id": plan_id})

    run(work, json_wanted=as_json)


def _digest(text: str) -> bytes:
    from lockstep_kit.fields import FieldInvalid

    try:
        octets = bytes.fromhex(text)
    except ValueError:
        octets = b"?"
    if text and len(octets) != 32:
        raise FieldInvalid("--sha256", "must be 64 hex digits")
    return octets


async def _checked(
    configuration: ClientConfiguration, plan_id: str, wanted: bytes
) -> tuple[AuditView, PlanView, RegistryRecord | None, list[Any]]:
    """The log, its plan, what the chain says (None where no node is configured), and everything that does not hold."""
    from lockstep_client.audit_check import check_audit, check_registry, check_seal
    from lockstep_client.batch_proof import absent, check_batched
    from lockstep_client.chain_reader import ChainReader
    from lockstep_client.commands.settling import client_of
    from lockstep_client.convert import audit_from_pb, entry_from_pb, plan_from_pb
    from lockstep_client.journal_chain import verify_chain
    from lockstep_client.readers import JournalClient, NotaryClient
    from lockstep_kit.plan import Notarisation
    from lockstep_kit.registry_file import load_registry

    async with client_of(configuration) as client:
        plan = plan_from_pb(await client.get_plan(plan_id))
        view = audit_from_pb(await client.get_abort_audit_log(plan_id, wanted))
    async with JournalClient(configuration.journal, configuration.tls) as journal:
        entries = [entry_from_pb(each) async for each in journal.list_entries(plan_id)]
    registry = load_registry(configuration.registry_file)
    findings = check_audit(view, plan, registry)
    findings.extend(check_seal(view, verify_chain(entries, plan.header.plan_id, registry), entries[-1] if entries else None))
    places = [each.leg.terms for each in plan.legs if isinstance(each.leg.terms, Notarisation)]
    record: RegistryRecord | None = None
    if configuration.chain_rpc_url is not None and places:
        async with ChainReader(configuration.chain_rpc_url) as reader:
            if places[0].anchoring is None:
                record = await reader.registry_record(places[0].registry, plan.header.digest)
            else:
                async with NotaryClient(configuration.notary, configuration.tls) as notary:
                    proof = (await notary.get_notarisation(plan_id)).outcome_proof
                root = await reader.root_record(places[0].registry, proof.root_hash or bytes(32))
                record, found = check_batched(proof, plan.header.digest, root) if proof.root_hash else (absent(root.chain), [])
                findings.extend(found)
        findings.extend(check_registry(view, record, places[0].chain))
    return view, plan, record, findings


def _record_document(record: RegistryRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "chain": record.chain,
        "status": record.status.name,
        "evidence_hashes": [each.hex() for each in record.hashes],
        "transaction_hash": record.transaction_hash.hex(),
        "block_number": record.block_number,
    }


def _show(document: dict[str, Any], plan: PlanView) -> None:
    out = console()

    def line(text: str, style: str = "") -> None:
        out.print(text, markup=False, style=style)

    log = document["log"] or {}
    abort = log.get("abort", {})
    line(f"plan      {document['plan_id']}  {plan.header.reference}")
    line(f"outcome   {log.get('outcome', '')}, given up in {abort.get('phase', '')} at {abort.get('at', '')}")
    line(f"reason    {abort.get('reason', '')} {abort.get('leg_id', '')}  {abort.get('detail', '')}")
    done = log.get("legs_done", {})
    line(f"legs      {done.get('done', 0)} of {done.get('of', 0)} had taken effect")
    for each in log.get("rollback", ()):
        line(f"          {each['ordered_at']}  {each['action']} {each['leg_id']}: {each['result']} {each.get('answered_at', '')}")
    recovery = log.get("recovery", {})
    line(
        f"recovery  {recovery.get('ended', '')}: {recovery.get('take_overs', 0)} take-overs, {len(recovery.get('resolutions', ()))} resolutions"
    )
    line(f"sha256    {document['sha256']}  copy {document['copy'].lower()}")
    chain = document["chain"]
    if chain is None:
        line("chain     not compared: the configuration names no node (chain_rpc_url)", "yellow")
    else:
        line(f"chain     {chain['status']} in block {chain['block_number']}, transaction 0x{chain['transaction_hash']}")
    for each in document["findings"]:
        line(f"          {each['rule']}: {each['message']}", "red")
    if document["valid"]:
        line("valid     everything holds" if chain is not None else "valid     the log has its hash", "green")
