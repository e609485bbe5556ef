"""`lockstep witness`: how the notary, as the journal's witness, stands to its log."""

from __future__ import annotations

from typing import Any

import typer

from lockstep_client.commands.context import Config, Json, Refused, console, emit, read_configuration, run

app = typer.Typer(no_args_is_help=True, help="The notary as the journal's witness.")


@app.callback()
def _group() -> None:
    """The notary as the journal's witness."""


@app.command("status")
def status(config: Config = None, as_json: Json = False) -> None:
    """Show the checkpoint that was witnessed last, its age, and what the notary refuses. Exits 1 with an alarm, or a note that does not verify here."""

    async def work() -> None:
        from datetime import UTC, datetime

        from lockstep_client.readers import NotaryClient
        from lockstep_client.witness_documents import status_document
        from lockstep_kit.registry_file import load_registry

        configuration = read_configuration(config)
        registry = load_registry(configuration.registry_file)
        async with NotaryClient(configuration.notary, configuration.tls) as client:
            found = await client.get_witness_status()
        document = status_document(found, registry, datetime.now(UTC))
        if as_json:
            emit(document)
        else:
            _show(document)
        if "alarm" in document:
            alarm = document["alarm"]
            raise Refused(
                "WITNESS_ALARM", f"{alarm['rule']}: {alarm['message']}; call an operator of the notary", {"rule": alarm["rule"]}
            )
        if document.get("last", {}).get("findings"):
            raise Refused("WITNESS_INVALID", "what the notary shows does not verify; call an operator")

    run(work, json_wanted=as_json)


def _show(document: dict[str, Any]) -> None:
    out = console()
    last = document.get("last")
    if last is None:
        out.print("nothing witnessed yet")
    else:
        anchored = ", anchored" if last["anchored"] else ""
        out.print(f"witnessed  {last['tree_size']} leaves, {last['age_seconds']} s ago{anchored}", markup=False)
        out.print(f"root       {last['root_hash']}", markup=False)
        for finding in last["findings"]:
            out.print(f"           {finding}", markup=False, style="red")
    if "looked_age_seconds" in document:
        out.print(f"agreed     {document['looked_age_seconds']} s ago", markup=False)
    if "alarm" in document:
        alarm = document["alarm"]
        out.print(f"ALARM      {alarm['rule']} since {alarm['raised_at']}: {alarm['message']}", markup=False, style="bold red")
    for each in document.get("acknowledged", ()):
        how = "another history was followed" if each["followed"] else "the same history goes on"
        out.print(f"past       {each['rule']} at {each['raised_at']}: {each['finding']} ({how})", markup=False)
