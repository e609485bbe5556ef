"""`lockstep in-doubt`: money at risk, by asset and age."""

from __future__ import annotations

from typing import Annotated

import typer

from lockstep_client.commands.context import Config, Json, console, emit, read_configuration, run


def in_doubt(
    older_than: Annotated[int, typer.Option("--older-than", min=0, metavar="SECONDS", help="Only what is at risk for longer.")] = 0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Show what is at risk now: by asset, and leg by leg with what is not known since when."""

    async def work() -> None:
        from datetime import timedelta

        from lockstep_client.commands.resolutions import operators_of
        from lockstep_client.operator_documents import doubt_document, total_document
        from lockstep_client.operator_rendering import doubts_table, totals_table

        configuration = read_configuration(config)
        async with operators_of(configuration) as client:
            totals, legs = await client.list_in_doubt(older_than=timedelta(seconds=older_than))
        if as_json:
            emit({"totals": [total_document(each) for each in totals], "legs": [doubt_document(each) for each in legs]})
            return
        console().print(totals_table(totals))
        if legs:
            console().print(doubts_table(legs))

    run(work, json_wanted=as_json)
